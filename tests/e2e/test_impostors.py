"""A process of another user that carried everup's marks in its environment was taken for an
instance: the real one was stopped for it, and clients read from its listener."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from _everup import SLEEP, Everup, alive
from _fixtures import needs_root
from test_estate import World, tcp, world

from everup.adapters import cgroups, estate, leftovers, proof, takeback
from everup.adapters.cgroups import Cgroups
from everup.adapters.keeper_client import KeeperClient
from everup.adapters.takeback import Holder
from everup.cli import itself
from everup.keeper import wire
from everup.keeper.spawn import start_ticks
from everup.model.action import Record
from everup.model.instance import Slot
from everup.model.journal import Kind

__all__ = ["world"]
NOBODY = 65534
Impostor = Callable[..., int]


@pytest.fixture
def impostor() -> Iterator[Impostor]:
    """Starts a process of another user, a session leader, that calls itself an instance."""
    pids: list[int] = []

    def start(
        state_dir: str | Path,
        slot: str = "web.1",
        run: int = 999,
        *,
        uid: int = NOBODY,
        port: int = 0,
        argv: tuple[str, ...] = ("sleep", "1000"),
        **more: str,
    ) -> int:
        marks = {"EVERUP_SERVICE": slot.partition(".")[0], "EVERUP_INSTANCE": slot,
                 "EVERUP_RUN": str(run), "EVERUP_STATE": str(state_dir)}  # fmt: skip
        pid = _fork(uid, port, argv, {"PATH": "/usr/bin:/bin"} | marks | more)
        pids.append(pid)
        until = time.monotonic() + 20
        while Path(f"/proc/{pid}/exe").resolve() == Path("/proc/self/exe").resolve():
            assert time.monotonic() < until
            time.sleep(0.005)
        return pid

    yield start
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _fork(uid: int, port: int, argv: tuple[str, ...], env: Mapping[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        if uid:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        for number in (1, 2):  # as everup gives them: open both ways
            read, write = os.pipe()
            os.dup2(os.open(f"/proc/self/fd/{write}", os.O_RDWR), number)
            os.set_inheritable(read, True)
        if port:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", port))
            sock.listen()
            os.set_inheritable(sock.detach(), True)
        os.execve("/bin/" + argv[0], argv, env)
    finally:
        os._exit(1)


# -- with a real everup


@needs_root
def test_the_real_one_goes_on(open_everup: Everup, impostor: Impostor) -> None:
    everup = open_everup
    web = everup.server(listen=f"127.0.0.1:{everup.port()}")
    everup.up({"web": web, "job": {"command": SLEEP}})
    pids = everup.pid("web.1"), everup.pid("job.1")
    own = everup.own()
    everup.kill(*own.keepers, *own.engines)
    strange = [impostor(everup.state_dir), impostor(everup.state_dir, "job.1"),
               impostor(everup.state_dir, "web.2", 1)]  # fmt: skip
    everup.up()
    assert (everup.pid("web.1"), everup.pid("job.1")) == pids
    assert all(map(alive, strange))  # nor is it everup's business to end them
    assert not {e["pid"] for e in everup.events("instance.adopted")} & set(strange)
    notes = [e["detail"] for e in everup.events("facility.missing")]
    assert any(f"pid {strange[0]} (uid {NOBODY}) calls itself an instance" in n for n in notes)


@needs_root
def test_nobodys_listener_is_not_taken(open_everup: Everup, impostor: Impostor) -> None:
    everup = open_everup
    port = everup.port()
    everup.up({"web": everup.server(listen=f"127.0.0.1:{port}")})
    pid, own = everup.pid("web.1"), everup.own()
    everup.kill(*own.keepers, *own.engines, pid)
    strange = impostor(everup.state_dir, port=port)
    everup.up(expect=None)
    assert not everup.events("instance.adopted")
    failed = everup.wait_event("sockets.failed", "web")
    assert f"(pid {strange})" in failed["detail"]
    os.kill(strange, signal.SIGKILL)
    everup.cli("restart", "web")
    everup.wait_state("web.1", "ready")


# -- what is a proof, and what is none


@needs_root
@pytest.mark.parametrize("journaled", [True, False])
def test_the_user_must_be_that_of_the_journal_or_the_config(
    world: World, impostor: Impostor, monkeypatch: pytest.MonkeyPatch, journaled: bool
) -> None:
    """``journaled`` False: a journal of before, without the user."""
    tcp(world)
    world.start([("web.1", 1, 1)])
    pid = impostor(world.place.state_dir, run=2)
    facts: dict[str, Any] = {"run": 2, "pid": pid, "start": start_ticks(pid), "leader": pid}
    # A service that runs as a user of its own: root's could have become anybody.
    world.write(Record(Kind.SPAWNED, "web.1", facts | ({"uid": 1234} if journaled else {})))
    monkeypatch.setattr(proof, "users", lambda _spec: lambda _name: 1234)
    world.kill()
    found = world.gather()
    assert pid not in [child["pid"] for child in found.children]
    assert any(f"it runs as uid {NOBODY}, not 1234" in text for _, text in found.notes)


@needs_root
def test_a_control_group_that_is_not_its_own(world: World) -> None:
    tcp(world)
    world.start([("web.1", 1, 1)], groups=True)
    own = cgroups.group_path(world.pids[0], cgroups.home_name(world.place.state_dir))
    if own is None:
        pytest.skip("no writable control groups")
    facts = {"run": 1, "pid": world.pids[0], "start": start_ticks(world.pids[0]), "uid": 0}
    elsewhere = Cgroups(world.place.state_dir, print).place(Slot("web", 2), world.service().limits)
    assert elsewhere.v2 is not None
    world.write(Record(Kind.SPAWNED, "web.1", facts | {"cgroup": elsewhere.v2, "pipes": [1, 2]}))
    assert world.gather().children == []
    pipes = [os.stat(f"/proc/{world.pids[0]}/fd/{number}").st_ino for number in (1, 2)]
    world.write(Record(Kind.SPAWNED, "web.1", facts | {"cgroup": elsewhere.v2, "pipes": pipes}))
    assert len(world.gather().children) == 1  # it went elsewhere by itself
    world.write(Record(Kind.SPAWNED, "web.1", facts | {"cgroup": own}))
    assert len(world.gather().children) == 1
    os.rmdir(elsewhere.v2)


def test_a_socket_that_the_service_opened_itself_is_no_lane(world: World) -> None:
    port = tcp(world)
    world.start([("web.1", 1, 1)], lanes=1)
    world.kill()
    pid, service = world.pids[0], world.service()
    with socket.socket() as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        own.bind(("127.0.0.1", port))
        own.listen()
        ours = {inode for _, inode in proof.links(pid, "socket:")}
        for known, count in ((ours, 1), (set(), 2)):
            sockets = frozenset(known)
            holder = Holder(lambda: (os.getpid(), pid), (Slot("web", 1), 1), 1, sockets)
            search = takeback._search(service)
            search._look_at(os.getpid(), holder, {"main"})
            search._look_at(pid, holder, {"main"})
            found = search.found["main"]
            assert len(found) == count
            assert ours <= found.keys()
            for one in found.values():
                one.sock.close()


@needs_root
def test_a_listener_of_another_user_is_left_where_it_is(world: World, impostor: Impostor) -> None:
    port = tcp(world)
    os.makedirs(world.place.state_dir)
    pid = impostor(world.place.state_dir, port=port)
    assert not takeback.listens(pid, world.service())
    world.journal().close()
    assert not world.gather()


def test_what_took_the_place_of_a_pipe_is_not_opened(world: World) -> None:
    tcp(world)
    world.start([("web.1", 1, 1)])
    pid = world.pids[0]
    inode = os.stat(f"/proc/{pid}/fd/1").st_ino
    os.close(takeback._reopen(pid, 1, inode))
    for number, other in ((0, inode), (2, inode), (1, inode + 1)):
        with pytest.raises(FileNotFoundError):
            takeback._reopen(pid, number, other)


@needs_root
def test_leftovers_are_ended_and_strangers_are_not(world: World, impostor: Impostor) -> None:
    tcp(world)
    world.start([("web.1", 1, 1)])
    world.kill()
    groups = Cgroups(world.place.state_dir, lambda *_: None)
    strange = impostor(world.place.state_dir), impostor(world.place.state_dir, uid=1)
    ended = leftovers.end_leftovers(
        world.place.state_dir, groups, [], {"web": 1}.get
    )  # fmt: skip
    assert sorted(p for pids in ended.values() for p in pids) == sorted([*world.pids, strange[1]])
    assert estate.lives(strange[0], start_ticks(strange[0]))
    groups.close()


@needs_root
def test_a_start_that_the_dead_keeper_had_not_confirmed(impostor: Impostor, tmp_path: Path) -> None:
    ours, theirs = wire.pair()
    client = KeeperClient(ours, lambda *_: None, lambda: None)
    read, write = os.pipe()
    meta = {"slot": "web.1", "run": 7, "pipes": 7}
    hold = {"pipe:web.1:7:out": read, "pipe:web.1:7:err": read}
    client.spawn("main:web.1:7", {"argv": []}, given={}, held={}, meta=meta, hold=hold)
    strange = impostor(tmp_path, run=7)
    assert not client.asked_for("main:web.1:7", strange, str(tmp_path))
    assert client.asked_for("main:web.1:7", os.getpid(), str(tmp_path))  # it has the pipe
    for fd in (read, write):
        os.close(fd)
    client.drop(list(hold))
    client.close()
    theirs.close()


@needs_root
def test_a_keeper_by_its_command_line_alone(tmp_path: Path, impostor: Impostor) -> None:
    config = tmp_path / "everup.toml"
    config.write_text("")
    told = f'{{"config": "{config}", "state_dir": "/elsewhere"}}'
    line = ("sh", "-c", "sleep 1000; :", itself._KEEPER, "everup.daemon", told)
    pid = impostor(tmp_path, argv=line)
    assert pid not in dict(itself._keepers())
    os.chown(config, NOBODY, -1)
    assert pid in dict(itself._keepers())
