"""The talk between keeper and engine, on a real socket pair."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everup.keeper import wire

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
