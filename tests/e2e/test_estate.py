"""Both everup processes are dead: what ``everup up`` finds, and what it takes back.

The instances are real, started in the way in which everup does it by a holder (see ``hold``), which
is then killed.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from everup.adapters import cgroups, estate, journal, leftovers, steering, takeback
from everup.adapters.census import census
from everup.adapters.cgroups import Cgroups, home_name
from everup.adapters.estate import Gathered
from everup.adapters.journal import Journal
from everup.adapters.place import Place
from everup.adapters.sockets import SocketBank, socket_name
from everup.cli import up
from everup.config import load
from everup.keeper import estate as estates
from everup.keeper.spawn import start_ticks
from everup.model.action import Record
from everup.model.instance import Slot
from everup.model.journal import Kind
from everup.model.spec import Limits, Service, Spec

DEADLINE_S = 15.0
POLL_S = 0.01

INSTANCE = """
import os, select, socket, sys
name = os.environ["EVERUP_INSTANCE"] + "/" + os.environ["EVERUP_RUN"]
socks = [socket.socket(fileno=int(fd)) for fd in os.environ["SOCKS"].split()]
for s in socks: s.setblocking(False)
clients = {}
print("up", flush=True)
while True:
    for s in select.select([*socks, *clients.values()], [], [])[0]:
        if s in socks:
            try: c = s.accept()[0]
            except BlockingIOError: continue
            clients[c.fileno()] = c
            continue
        words = s.recv(100).split()
        if words == [b"who"]:
            s.sendall(name.encode())
        elif words and words[0] == b"say":
            s.sendall(b"saying")
            for n in range(int(words[1]), int(words[2])): print("line", n)
            sys.stdout.flush()
        elif words == [b"unlisten"]:
            while socks: socks.pop().close()
            s.sendall(b"done")
        del clients[s.fileno()]
        s.close()
"""


@dataclass
class World:
    """One everup that will have been killed."""

    directory: Path
    services: dict[str, str] = field(default_factory=dict)
    """By name, the TOML of ``listen``."""
    replicas: int = 3
    pids: list[int] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)
    holder: int = 0

    @property
    def text(self) -> str:
        tables = [
            f'[service.{name}]\ncommand = ["x"]\nreplicas = {self.replicas}\n{listen}\n'
            for name, listen in self.services.items()
        ]
        return "\n".join(tables)

    @property
    def place(self) -> Place:
        return Place.of(str(self.directory / "everup.toml"), ".everup")

    @property
    def spec(self) -> Spec:
        return load(self.text, path=self.place.config, directory=str(self.directory))

    def service(self, name: str = "web") -> Service:
        return self.spec.service[name]

    def start(self, instances: Sequence[Sequence[Any]], lanes: int = 3, **more: Any) -> None:
        """``instances``: (slot, run, lane) of each; its facts are in the journal."""
        os.makedirs(self.place.state_dir, exist_ok=True)
        plan = more | {
            "directory": str(self.directory),
            "services": self.services,
            "replicas": self.replicas,
            "instances": list(instances),
            "lanes": lanes,
        }
        read, write = os.pipe()
        self.holder = os.fork()  # not a new interpreter: that would cost most of the test's time
        if self.holder == 0:
            try:
                hold(plan, write)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(write)
        with open(read) as told:
            self.pids += json.loads(told.readline() or "null")

    def kill(self) -> None:
        """Whoever held the descriptors."""
        os.kill(self.holder, signal.SIGKILL)
        os.waitpid(self.holder, 0)
        self.holder = 0

    def journal(self) -> Journal:
        return Journal(Path(self.place.journal), print)

    def write(self, *records: Record) -> None:
        writer = self.journal()
        writer.append(records)
        writer.close()

    def gather(self, boot: str | None = None, **inherited: int) -> Gathered:
        entries = journal.latest(Path(self.place.journal))
        boot = journal.boot_id() if boot is None else boot
        found = estate.gather(self.place, self.spec, entries, boot, inherited)
        self.fds += found.held.values()
        return found

    def close(self) -> None:
        if self.holder:
            self.kill()
        for pid in {*self.pids, *(one.pid for one in census(self.place.state_dir))}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for fd in self.fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        wait_for(lambda: not census(self.place.state_dir), "everybody is gone")


def wait_for(condition: Callable[[], object], what: str) -> None:
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until, f"not in time: {what}"
        time.sleep(POLL_S)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        yield world
    finally:
        world.close()


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def tcp(world: World, host: str = "127.0.0.1", name: str = "web") -> int:
    """A service with one listener; its port."""
    port = free_port(host)
    shown = f"[{host}]" if ":" in host else host
    world.services[name] = f'listen = "{shown}:{port}"'
    return port


def ask(port: int, words: str = "who", host: str = "127.0.0.1", lane: int = 0) -> str:
    """``lane``: in the way of a probe."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.settimeout(DEADLINE_S)
        if lane and ":" in host:
            traffic_class = steering.probe_traffic_class(lane)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
        elif lane:
            sock.bind((steering.probe_source(lane), 0))
        sock.connect((host, port))
        sock.sendall(words.encode())
        return sock.recv(100).decode()


def a_bank(found: Gathered) -> SocketBank:
    """As a new engine fills it."""
    bank = SocketBank(lambda *_: None, lambda *_: None, lambda *about: print(about))
    for name, fd in found.held.items():
        if name.startswith("sock:"):
            bank.adopt(name, os.dup(fd))
    return bank


def runs(found: Gathered) -> dict[str, int]:
    """pid by slot and run."""
    return {f"{c['meta']['slot']}/{c['meta']['run']}": c["pid"] for c in found.children}


def lanes(found: Gathered) -> dict[str, int]:
    return {f"{c['meta']['slot']}/{c['meta']['run']}": c["meta"]["lane"] for c in found.children}


def read_lines(fd: int, count: int) -> list[str]:
    data, poll = b"", select.poll()
    poll.register(fd, select.POLLIN)
    until = time.monotonic() + DEADLINE_S
    while data.count(b"\n") < count:
        assert time.monotonic() < until, f"only {data[-100:]!r}"
        if poll.poll(100):
            data += os.read(fd, 65536)
    return data.decode().splitlines()


# -- the living


def test_all_is_taken_back(world: World) -> None:
    port = tcp(world)
    world.start([("web.1", 4, 1), ("web.2", 1, 2), ("web.3", 9, 3)])
    ask(port, "say 0 5000", lane=2)  # more than a pipe holds: it waits for a reader
    world.kill()
    found = world.gather()
    assert found.notes == []
    assert list(runs(found)) == ["web.1/4", "web.2/1", "web.3/9"]
    assert list(runs(found).values()) == world.pids
    for child in found.children:
        assert child["start"] == start_ticks(child["pid"]) == child["leader_start"]
        assert child["leader"] == child["pid"]
    pipes = [
        f"pipe:{x}:{stream}" for x in ("web.1:4", "web.2:1", "web.3:9") for stream in ("out", "err")
    ]
    assert sorted(found.held) == sorted([*pipes, *(f"sock:web:main:{n}" for n in range(3))])
    bank, service = a_bank(found), world.service()
    for slot, lane in lanes(found).items():
        assert ask(port, lane=lane) == slot if lane != 2 else lane == 2
        if lane != 2:
            bank.steer(service, (lane,))
            assert {ask(port) for _ in range(5)} == {slot}
    # What was written before and after the death, all of it.
    out = found.held["pipe:web.2:1:out"]
    assert read_lines(out, 5001) == ["up", *(f"line {n}" for n in range(5000))]
    ask(port, "say 5000 5010", lane=2)
    assert read_lines(out, 10) == [f"line {n}" for n in range(5000, 5010)]
    assert os.get_blocking(out) is False
    # And it goes on to the keeper.
    memory, passed = estates.write(found.estate())
    assert sorted(passed) == sorted([memory, *found.held.values()])
    assert estates.read(memory).children == found.children


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("lived", [(1, 4), (3,), (2, 3, 5), (5, 1, 4, 2), (1, 2)])
def test_lanes_that_nobody_had_are_gone_and_the_rest_is_found(
    world: World, host: str, lived: tuple[int, ...]
) -> None:
    port = tcp(world, host)
    world.start([(f"web.{lane}", 1, lane) for lane in lived], lanes=5)
    world.kill()
    found = world.gather()
    assert found.notes == []
    assert sorted(lanes(found).values()) == list(range(1, len(lived) + 1))
    bank, service = a_bank(found), world.service()
    assert bank.can_steer
    for slot, lane in lanes(found).items():
        assert ask(port, host=host, lane=lane) == slot
        bank.steer(service, (lane,))
        assert {ask(port, host=host) for _ in range(5)} == {slot}
    # Those that come now are behind them.
    bank.open(service, 5)
    assert bank.lanes(service) == 5
    bank.steer(service, (len(lived) + 1,))
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as waiting:
        waiting.connect((host, port))
        fresh = bank._sockets[socket_name("web", "main", len(lived))]
        fresh.settimeout(DEADLINE_S)
        fresh.accept()[0].close()
    for sock in bank._sockets.values():
        sock.close()


def test_two_listeners_and_a_unix_socket(world: World, tmp_path: Path) -> None:
    first, second = free_port(), free_port("::1")
    world.services["web"] = (
        f'listen = {{ api = "127.0.0.1:{first}", admin = "[::1]:{second}", '
        f'local = "unix:{tmp_path}/web.sock" }}'
    )
    world.start([("web.2", 1, 2), ("web.3", 1, 3)])
    world.kill()
    found = world.gather()
    assert found.notes == []
    names = [name for name in sorted(found.held) if name.startswith("sock")]
    assert names == [
        "sock:web:admin:0", "sock:web:admin:1", "sock:web:api:0", "sock:web:api:1",
        "sock:web:local:0",
    ]  # fmt: skip
    for slot, lane in lanes(found).items():
        assert ask(first, lane=lane) == ask(second, host="::1", lane=lane) == slot
    bank, service = a_bank(found), world.service()
    assert bank.ready(service, 2)
    assert not bank.ready(service, 3)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"{tmp_path}/web.sock")
        sock.sendall(b"who")
        assert sock.recv(100).decode() in lanes(found)


def test_a_shared_lane_stays_shared(world: World) -> None:
    """Where the kernel refuses steering, a successor shares the lane of its predecessor."""
    tcp(world)
    world.start([("web.1", 1, 1), ("web.1", 2, 1)], lanes=1)
    world.kill()
    found = world.gather()
    assert set(lanes(found)) == {"web.1/1", "web.1/2"}  # two runs of one slot
    assert set(lanes(found).values()) == {1}


def test_one_that_listens_no_more_keeps_its_lane(world: World) -> None:
    port = tcp(world)
    world.start([("web.1", 1, 1), ("web.2", 1, 2)], lanes=2)
    assert ask(port, "unlisten", lane=2) == "done"
    world.kill()
    found = world.gather()
    assert lanes(found) == {"web.1/1": 1, "web.2/1": 2}
    assert found.notes == []


def test_spawned_but_not_yet_in_the_journal(world: World) -> None:
    port = tcp(world)
    world.start([("web.1", 7, 2)], silent=True)
    world.write(Record(Kind.STARTING, "web.1", {"run": 7, "lane": 2, "gen": 3}))
    world.kill()
    found = world.gather()
    (child,) = found.children
    assert (child["pid"], child["leader"]) == (world.pids[0], world.pids[0])
    meta = child["meta"]
    assert (meta["run"], meta["gen"], meta["restarts"], meta["lane"]) == (7, 3, 0, 1)
    assert ask(port) == "web.1/7"
    assert read_lines(found.held["pipe:web.1:7:out"], 1) == ["up"]


def test_another_main_process(world: World) -> None:
    port = tcp(world)
    world.start([("web.1", 1, 1)], lanes=1)
    pid = world.pids[0]
    payload = {"run": 1, "pid": os.getpid(), "start": start_ticks(os.getpid())}
    world.write(Record(Kind.MAIN, "web.1", payload))
    world.kill()
    found = world.gather()
    (child,) = found.children
    assert (child["pid"], child["leader"]) == (os.getpid(), pid)
    assert child["leader_start"] == start_ticks(pid)
    assert "sock:web:main:0" in found.held  # out of the session of its first one
    assert ask(port) == "web.1/1"


# -- the dead and the strangers


def test_after_a_reboot_nobody_is_taken_over(world: World) -> None:
    tcp(world)
    world.start([("web.1", 1, 1)])
    world.kill()
    for boot in ("another", ""):
        found = world.gather(boot)
        assert not found
        assert found.notes == []


def test_a_pid_that_is_somebody_elses_by_now(world: World) -> None:
    tcp(world)
    world.start([("web.1", 1, 1)], wrong_start=True)
    world.kill()
    assert world.gather().children == []


def test_an_end_that_the_journal_saw(world: World) -> None:
    tcp(world)
    world.start([("web.1", 1, 1), ("web.2", 1, 2)])
    world.write(Record(Kind.EXITED, "web.1", {"run": 1}))
    world.kill()
    found = world.gather()
    assert list(runs(found)) == ["web.2/1"]
    # What is left of web.1 has a socket, and perhaps somebody in its queue.
    assert [n for n in sorted(found.held) if n.startswith("sock")] == [
        "sock:web:main:0", "sock:web:main:1",
    ]  # fmt: skip


def test_once_all_was_stopped_nobody_is_looked_for(world: World) -> None:
    tcp(world)
    world.start([("web.1", 1, 1)])
    world.write(
        Record(Kind.ENGINE_STARTED, "everup", {}), Record(Kind.ENGINE_STOPPED, "everup", {})
    )
    world.kill()
    assert not world.gather()


def test_a_zombie_is_dead(world: World) -> None:
    tcp(world)
    world.start([("web.1", 1, 1), ("web.2", 1, 2)])
    os.kill(world.pids[0], signal.SIGKILL)  # the holder reaps nobody
    wait_for(lambda: not estate.lives(world.pids[0], start_ticks(world.pids[0])), "it is dead")
    found = world.gather()
    assert list(runs(found)) == ["web.2/1"]


# -- what cannot be had


def refuse(_handle: int, _number: int) -> int:
    raise PermissionError(1, "Operation not permitted")


def test_sockets_that_may_not_be_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Yama, for one, forbids it to all but root."""
    port = tcp(world)
    world.start([("web.1", 1, 1), ("web.2", 1, 2)], lanes=2)
    world.kill()
    monkeypatch.setattr(takeback, "_getfd", refuse)
    found = world.gather()
    assert list(runs(found)) == ["web.1/1", "web.2/1"]
    assert sorted(found.held) == sorted(
        f"pipe:{slot}:1:{stream}" for slot in ("web.1", "web.2") for stream in ("out", "err")
    )
    assert [subject for subject, _ in found.notes] == ["web.1", "web.2"]
    assert all(f"127.0.0.1:{port} could not be taken back" in text for _, text in found.notes)
    assert lanes(found) == {"web.1/1": 1, "web.2/1": 2}
    # New sockets join what its own instances have open, and nobody steers.
    said: list[str] = []
    bank = SocketBank(
        lambda *_: None, lambda *_: None, lambda _, text: said.append(text), world.place.state_dir
    )
    bank.open(world.service(), 2)
    assert not bank.can_steer
    assert len(said) == 1
    assert all(":x" in name for name in bank._sockets)
    service = world.service()
    bank.close(service.name, service.listen)


def test_a_port_that_a_stranger_has_is_not_joined(world: World) -> None:
    port = tcp(world)
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        bank = SocketBank(lambda *_: None, lambda *_: None, lambda *_: None, world.place.state_dir)
        with pytest.raises(OSError, match="in use by"):
            bank.open(world.service(), 2)


def test_a_group_with_a_stranger_in_it_is_not_steered(world: World) -> None:
    port = tcp(world)
    world.start([("web.1", 1, 1), ("web.2", 1, 2)], lanes=2)
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", port))
        # Closing lane 1 below would put it first; it is last now: take the place of lane 3.
        stranger.listen()
        os.kill(world.pids[0], signal.SIGKILL)
        world.kill()  # lane 1 is gone, and the stranger has its place
        found = world.gather()
    assert "sock:web:main:x0" in found.held
    assert [subject for subject, _ in found.notes] == ["web"]
    bank = a_bank(found)
    assert not bank.can_steer
    bank.steer(world.service(), (1,))
    assert ask(port) == "web.2/1"


def test_what_has_no_pipes_any_more(world: World) -> None:
    tcp(world)
    world.start([("web.1", 1, 1)], redirect=["err"])
    world.kill()
    found = world.gather()
    assert found.notes == []
    assert os.read(found.held["pipe:web.1:1:err"], 1) == b""  # it ends at once
    assert read_lines(found.held["pipe:web.1:1:out"], 1) == ["up"]


# -- what systemd kept


def test_what_systemd_kept_goes_first(world: World) -> None:
    port = tcp(world)
    world.start([("web.1", 1, 1), ("web.3", 1, 3)], lanes=3)
    before = world.gather()  # while the holder still lives: nothing is missing
    kept = {n: os.dup(fd) for n, fd in before.held.items()}
    read, write = os.pipe()
    os.close(write)
    stranger = socket.socket()
    stranger.listen()
    world.kill()
    extra = {"pipe:gone.1:4:out": read, "sock:web:main:7": stranger.detach(), "what": os.dup(read)}
    # Lanes 1 and 3 are in the store; lane 2 was the holder's alone, and is closed by now.
    found = world.gather(**kept, **extra)
    assert {n: found.held[n] for n in kept if n.startswith("pipe")} == {
        n: fd for n, fd in kept.items() if n.startswith("pipe")
    }
    assert "pipe:gone.1:4:out" in found.held
    assert "what" not in found.held
    for slot, lane in lanes(found).items():
        assert ask(port, lane=lane) == slot
    for fd in (extra["sock:web:main:7"], extra["what"]):
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


# -- leftovers


def groups_of(state_dir: str, monkeypatch: pytest.MonkeyPatch, have: bool) -> Cgroups:
    if not have:
        monkeypatch.setattr(cgroups, "_v2_home", lambda _name: (None, frozenset()))
    groups = Cgroups(state_dir, lambda *_: None)
    if have and groups.place(Slot("x", 1), Limits()).v2 is None:
        pytest.skip("no writable control groups")
    return groups


@pytest.mark.parametrize("have_groups", [False, True])
def test_only_leftovers_are_killed(
    world: World, monkeypatch: pytest.MonkeyPatch, have_groups: bool
) -> None:
    tcp(world)
    groups = groups_of(world.place.state_dir, monkeypatch, have_groups)
    world.start(
        [("web.1", 1, 1), ("web.1", 2, 2), ("web.2", 3, 3)],
        extra=[("web.1", 1, "helper"), ("web.1", 1, "probe"), ("web.3", 1, "rest")],
        groups=have_groups,
    )
    first, second, other, helper, probe, rest = world.pids
    world.write(Record(Kind.EXITED, "web.2", {"run": 3}), Record(Kind.EXITED, "web.3", {"run": 1}))
    world.kill()
    found = world.gather()
    assert runs(found) == {"web.1/1": first, "web.1/2": second}
    if have_groups:
        names = [os.path.basename(child["cgroup"]) for child in found.children]
        assert names == ["web.1", "web.1+"]
        assert groups.owner_group(first) == (Slot("web", 1), False)
        assert groups.owner_group(second) == (Slot("web", 1), True)
        assert groups.slot_of(second) == Slot("web", 1)
    ended = leftovers.end_leftovers(world.place.state_dir, groups, found.children)
    assert sorted(pid for pids in ended.values() for pid in pids) == sorted([other, probe, rest])
    left = {one.pid for one in census(world.place.state_dir)}
    assert left == {first, second, helper}
    assert leftovers.end_leftovers(world.place.state_dir, groups, found.children) == {}
    assert leftovers.end_leftovers(world.place.state_dir, groups, []) != {}
    wait_for(lambda: not census(world.place.state_dir), "all are gone")
    groups.close()


# -- everup up


@pytest.mark.parametrize("changed", [False, True])
def test_up_keeps_the_old_config_while_instances_live(
    world: World, changed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    port = tcp(world)
    world.start([("web.1", 1, 1), ("web.2", 1, 2)])
    world.kill()
    Path(world.place.accepted).write_text(world.text)
    new = world.text + (f'[service.more]\ncommand = ["y"]\nport = {port + 1}\n' if changed else "")
    meta: dict[str, Any] = {}
    passed = up._take_back(world.place, new, None, meta, quiet=False)
    world.fds += passed
    said = "2 instances of an earlier everup go on running; taking them back\n"
    assert capsys.readouterr().out == said
    assert Path(world.place.accepted).read_text() == world.text
    assert os.path.exists(world.place.next) is changed
    if changed:
        assert Path(world.place.next).read_text() == new
    assert meta["estate_fd"] in passed
    assert len(estates.read(os.dup(meta["estate_fd"])).children) == 2
    assert "systemd" not in meta


def test_up_with_nobody_alive(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    tcp(world)
    os.makedirs(world.place.state_dir)
    Path(world.place.accepted).write_text("old")
    Path(world.place.next).write_text("from before")
    meta: dict[str, Any] = {}
    assert up._take_back(world.place, world.text, None, meta, quiet=False) == []
    assert Path(world.place.accepted).read_text() == world.text
    assert not os.path.exists(world.place.next)
    assert set(meta) <= {"nofile"}  # it has looked, and there is nothing to pass on
    world.journal().close()
    assert up._take_back(world.place, world.text, None, meta, quiet=False) == []
    assert "estate_fd" not in meta
    assert capsys.readouterr().out == ""


# -- the holder


def hold(plan: dict[str, Any], told: int) -> None:
    """Play everup: open the sockets, start the instances, write the journal, wait for the end."""
    world = World(Path(plan["directory"]), plan["services"], plan["replicas"])
    bank = SocketBank(lambda *_: None, lambda *_: None, lambda *_: None)
    for service in world.spec.service.values():
        bank.open(service, plan["lanes"])
        bank.steer(service, list(range(1, plan["lanes"] + 1)))
    writer, keep, pids = world.journal(), [], []
    for slot, run, lane in plan["instances"]:
        service = world.service(slot.partition(".")[0])
        socks = [bank._sockets[name] for _, name in bank.names(service, lane)]
        ends, inodes = [], []
        for stream in ("out", "err"):
            read, write = os.pipe()
            both = os.open(f"/proc/self/fd/{write}", os.O_RDWR | os.O_CLOEXEC)
            os.close(write)
            inodes.append(os.fstat(both).st_ino)
            null = os.open(os.devnull, os.O_RDWR)
            ends.append(null if stream in plan.get("redirect", ()) else both)
            keep.append(read)
        process = start(world, slot, run, INSTANCE, ends, socks)
        for end in ends:
            os.close(end)
        pids.append(process.pid)
        keep.append(process)
        if plan.get("groups"):
            second = pids[:-1] and slot in [s for s, _, _ in plan["instances"][: len(pids) - 1]]
            enter(world, Slot.parse(slot), bool(second), process.pid)
        if not plan.get("silent"):
            start_at = start_ticks(process.pid) + bool(plan.get("wrong_start"))
            facts = {"run": run, "pid": process.pid, "start": start_at, "leader": process.pid,
                     "pipes": inodes, "lane": lane, "gen": 0, "restarts": 0}  # fmt: skip
            writer.append([
                Record(Kind.STARTING, slot, {"run": run, "lane": lane, "gen": 0}),
                Record(Kind.SPAWNED, slot, facts),
            ])  # fmt: skip
        for_up = keep[-3]
        assert select.select([for_up], [], [], DEADLINE_S)[0]
    for slot, run, what in plan.get("extra", ()):
        null = os.open(os.devnull, os.O_RDWR)
        more = {"EVERUP_ROLE": what} if what == "probe" else {}
        process = start(world, slot, run, "import time; time.sleep(1000)", [null, null], [], **more)
        pids.append(process.pid)
        keep.append(process)
        if plan.get("groups") and what == "helper":
            enter(world, Slot.parse(slot), False, process.pid)
    writer.close()
    os.write(told, json.dumps(pids).encode() + b"\n")
    signal.pause()


def start(
    world: World,
    slot: str,
    run: int,
    code: str,
    ends: Sequence[int],
    socks: Sequence[socket.socket],
    **more: str,
) -> "subprocess.Popen[bytes]":
    fds = [sock.fileno() for sock in socks]
    environment = {
        "PATH": os.environ["PATH"], "SOCKS": " ".join(map(str, fds)),
        "EVERUP_SERVICE": slot.partition(".")[0], "EVERUP_INSTANCE": slot,
        "EVERUP_RUN": str(run), "EVERUP_STATE": world.place.state_dir,
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", code], env=environment | more, stdin=subprocess.DEVNULL,
        stdout=ends[0], stderr=ends[1], pass_fds=fds, start_new_session=True,
    )  # fmt: skip


def enter(world: World, slot: Slot, second: bool, pid: int) -> None:
    placement = Cgroups(world.place.state_dir, lambda *_: None).place(slot, Limits(), second)
    assert placement.name == f"{slot}{'+' if second else ''}"
    assert placement.v2 is not None
    assert home_name(world.place.state_dir) in placement.v2
    Path(placement.v2, "cgroup.procs").write_text(str(pid))
