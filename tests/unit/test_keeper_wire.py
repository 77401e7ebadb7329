"""The talk between keeper and engine, on a real socket pair, and what each keeps of it."""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everup.adapters.keeper_client import KeeperClient
from everup.keeper import estate as estates
from everup.keeper import succession, voice, wire
from everup.keeper.estate import Estate
from everup.keeper.spawn import start_ticks

Pair = tuple[socket.socket, socket.socket]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
SAME_PAIR = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = wire.pair()
    with left, right:
        yield left, right


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@SAME_PAIR
@given(message=st.dictionaries(st.text(max_size=10).filter(lambda k: k != "memfd"), JSON))
def test_arrives_as_sent(pair: Pair, message: dict[str, Any]) -> None:
    wire.send(pair[0], message)
    assert wire.receive(pair[1]) == (message, [])


@SAME_PAIR
@given(size=st.integers(wire.MAX_PACKET - 40, wire.MAX_PACKET + 40), count=st.integers(0, 5))
def test_arrives_whole_on_both_sides_of_the_limit(pair: Pair, size: int, count: int) -> None:
    before = open_fds()
    message = {"text": "x" * size}
    wire.send(pair[0], message, [pair[0].fileno()] * count)
    got, fds = wire.receive(pair[1])
    assert got == message
    assert len(fds) == count
    for fd in fds:
        os.close(fd)
    assert open_fds() == before  # the memory file is gone with the message


def test_very_large(pair: Pair) -> None:
    message = {"env": {str(n): "ü" * 100 for n in range(20_000)}}
    wire.send(pair[0], message)
    assert wire.receive(pair[1])[0] == message


def test_descriptors_are_the_same_files_in_order_and_not_inherited(pair: Pair) -> None:
    pipes = [os.pipe() for _ in range(20)]
    ends = [end for pipe in pipes for end in pipe]
    wire.send(pair[0], {}, ends)
    _, fds = wire.receive(pair[1])
    assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(fd).st_ino for fd in ends]
    assert not any(os.get_inheritable(fd) for fd in fds)
    for fd in (*fds, *ends):
        os.close(fd)


def test_as_many_descriptors_as_allowed(pair: Pair) -> None:
    wire.send(pair[0], {"a": 1}, [pair[0].fileno()] * wire.MAX_FDS)
    message, fds = wire.receive(pair[1])
    for fd in fds:
        os.close(fd)
    assert (message, len(fds)) == ({"a": 1}, wire.MAX_FDS)


def test_nothing_there_and_nobody_there(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        wire.receive(pair[1])
    wire.send(pair[0], {"last": 1})
    pair[0].close()
    assert wire.receive(pair[1])[0] == {"last": 1}  # what was sent before the end arrives
    with pytest.raises(wire.ClosedError):
        wire.receive(pair[1])
    with pytest.raises(wire.ClosedError):
        wire.send(pair[1], {"a": 1})
    with pytest.raises(wire.ClosedError):
        wire.send(pair[1], {"a": "x" * 100_000})


def test_a_reader_that_does_not_read_never_blocks_the_writer(pair: Pair) -> None:
    sent, before = 0, open_fds()
    with contextlib.suppress(BlockingIOError):
        while sent < 100_000:
            wire.send(pair[0], {"n": sent})
            sent += 1
    assert 0 < sent < 100_000
    with pytest.raises(BlockingIOError):
        wire.send(pair[0], {"n": "x" * 100_000})
    assert open_fds() == before
    assert [wire.receive(pair[1])[0]["n"] for _ in range(sent)] == list(range(sent))


@SAME_PAIR
@given(data=st.binary(min_size=1, max_size=300) | JSON.map(lambda x: json.dumps(x).encode()))
def test_what_is_no_message_is_an_error_of_a_kind_that_can_be_caught(
    pair: Pair, data: bytes
) -> None:
    before = open_fds()
    pair[0].send(data)
    with contextlib.suppress(ValueError, AttributeError, IndexError):
        message, fds = wire.receive(pair[1])
        assert isinstance(message, dict)
        assert fds == []
    with pytest.raises(BlockingIOError):
        wire.receive(pair[1])  # it is gone, and the next one can come
    assert open_fds() == before


def test_what_was_sent_before_the_end_arrives_though_the_sender_read_nothing(pair: Pair) -> None:
    wire.send(pair[1], {"unread": 1})
    for number in range(3):
        wire.send(pair[0], {"n": number})
    pair[0].close()
    assert [wire.receive(pair[1])[0]["n"] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(wire.ClosedError):
        wire.receive(pair[1])


# -- the estate


def test_an_estate_arrives_whole_with_its_descriptors() -> None:
    before = open_fds()
    pipes = [os.pipe() for _ in range(3)]
    held = {f"pipe:{n}": end for n, (end, _) in enumerate(pipes)}
    children = [
        {"id": f"main:web.{n}:1", "pid": 1000 + n, "meta": {"text": "ü" * 200}} for n in range(1000)
    ]
    children[0]["report"] = pipes[0][1]
    asked = Estate(held, children, 7, 15, 99, [["web.1", "a note"]])
    memory, passed = estates.write(asked)
    assert os.fstat(memory).st_size > 2 * wire.MAX_PACKET
    assert set(passed) == {memory, *held.values(), pipes[0][1]}
    for fd in passed:
        os.set_inheritable(fd, True)
    got = estates.read(memory)
    assert got == asked
    assert not any(os.get_inheritable(fd) for fd in passed if fd != memory)
    for pipe in pipes:
        os.close(pipe[0])
        os.close(pipe[1])
    assert open_fds() == before


def test_a_descriptor_that_was_lost_on_the_way_is_noted() -> None:
    lost = os.dup(0)
    memory, _ = estates.write(Estate({"sock:web": lost}, [{"id": "a", "report": lost}]))
    os.close(lost)
    got = estates.read(memory)
    assert got.held == {}
    assert list(got.children) == [{"id": "a"}]
    assert [subject for subject, _ in got.notes] == ["sock:web"]


@SAME_PAIR
@given(data=st.binary(max_size=100) | JSON.map(lambda x: json.dumps(x).encode()))
def test_what_is_no_estate_costs_a_note_only(data: bytes) -> None:
    voice._own.open()  # of what is said: once for the process, whenever that is first
    before = open_fds()
    memory = os.memfd_create("test")
    os.write(memory, data)
    got = succession.read(memory)
    assert isinstance(got, Estate)
    assert got.held == {}
    assert open_fds() == before


# -- the engine's list


class Side:
    """A client, with the test as its keeper."""

    def __init__(self) -> None:
        self.keeper, theirs = wire.pair()
        self.heard: list[str] = []
        self.lost = asyncio.Event()
        self.client = KeeperClient(theirs, self.hear, self.lost.set)
        self.client.start(asyncio.get_running_loop())

    def hear(self, message: dict[str, Any], fds: list[int]) -> None:
        self.heard.append(message["ev"])
        for fd in fds:
            os.close(fd)

    async def say(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        count = len(self.heard)
        wire.send(self.keeper, message, fds or [])
        while len(self.heard) == count:
            await asyncio.sleep(0)

    def estate(self) -> Estate:
        return self.client.estate(engine_starts=1)


def test_the_client_knows_what_its_keeper_knew() -> None:
    async def body() -> None:
        side = Side()
        client = side.client
        known = {"id": "main:a.1:1", "pid": 5, "start": 50, "meta": {"x": 1}, "stranger": True}
        await side.say({"ev": "hello", "children": [known]})
        for name in ("main:a.1:2", "main:a.1:3", "main:a.1:4"):
            request = {"argv": ["x"], "cgroup": "/group", "respawn": True}
            client.spawn(name, request, given={}, held={}, meta={"of": name})
        await side.say({"ev": "spawned", "id": "main:a.1:1", "pid": 5, "start": 50})
        await side.say({"ev": "spawned", "id": "main:a.1:2", "pid": 7, "start": 70})
        await side.say({"ev": "failed", "id": "main:a.1:3", "stage": "fork", "errno": 11})
        assert client.unanswered == {"main:a.1:4": {"of": "main:a.1:4"}}
        client.signal("main:a.1:2", 15, "main")
        report = {"ev": "exit", "id": "main:a.1:1", "pid": 5, "status": 0, "failed": False, "t": 1}
        await side.say(report)
        first, second = side.estate().children
        assert first == known | {"exit": report}
        assert second == {
            "id": "main:a.1:2", "pid": 7, "start": 70, "leader": 7, "leader_start": 70,
            "cgroup": "/group", "meta": {"of": "main:a.1:2"}, "respawn": True, "signalled": True,
            "uid": os.getuid(),
        }  # fmt: skip
        client.main_pid("main:a.1:2", os.getpid())
        assert client.pids() == {5, os.getpid()}
        assert side.estate().children[1]["start"] == start_ticks(os.getpid())
        client.ack("main:a.1:1")
        assert [child["id"] for child in side.estate().children] == ["main:a.1:2"]
        client.close()
        side.keeper.close()

    asyncio.run(body())


def test_the_client_has_one_more_of_each_descriptor_and_keeps_it() -> None:
    async def body() -> None:
        side = Side()
        client = side.client
        before = open_fds()
        reader, writer = os.pipe()
        await side.say({"ev": "hello", "children": []})
        await side.say({"ev": "held", "name": "lock"}, [reader])
        client.hold(["a", "b"], [reader, writer])
        client.hold(["a"], [writer])  # another one by the same name
        given = os.dup(reader)
        client.spawn("x", {}, given={0: given}, held={}, meta={}, hold={"c": reader})
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(given)  # given away
        assert set(side.estate().held) == {"a", "b", "c"}
        held = client.held_fd("a")
        assert held is not None
        assert os.fstat(held).st_ino == os.fstat(writer).st_ino
        os.close(reader)
        os.close(writer)
        while not side.lost.is_set():
            side.keeper.close()
            await asyncio.sleep(0)
        # What is held or dropped after the keeper's end counts for the next one.
        null = os.open(os.devnull, os.O_RDWR)
        client.hold(["late"], [null])
        client.spawn("y", {}, given={0: os.dup(null)}, held={}, meta={"late": 1})
        client.alive()
        os.close(null)
        client.drop(["a", "b", "never", "lock"])
        assert set(side.estate().held) == {"c", "late"}
        assert client.unanswered == {"x": {}, "y": {"late": 1}}
        assert client.held_fd("lock") is not None
        client.drop(["c", "late"])
        # Only the lock is left, and both ends of the talk are gone.
        assert len(open_fds()) == len(before) + 1 - 2

    asyncio.run(body())


def test_the_client_forgets_what_waits_when_the_keeper_is_gone() -> None:
    async def body() -> None:
        side = Side()
        before = open_fds()
        for number in range(3000):  # nobody reads
            side.client.spawn(str(number), {"x": "y" * 500}, given={}, held={}, meta={})
        null = os.open(os.devnull, os.O_RDWR)
        side.client.spawn("last", {}, given={0: null}, held={}, meta={})
        side.keeper.close()
        await side.lost.wait()
        assert len(open_fds()) == len(before) - 2

    asyncio.run(body())
