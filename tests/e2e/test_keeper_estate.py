"""What one keeper leaves to the next: by exec, by the engine's hand-over, by an estate."""

import contextlib
import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_keeper import MAIN, PATIENCE_S, RELAY, Engine, Keeper, engine, keeper, until

from everup.adapters.census import census
from everup.daemon.handover import can_run
from everup.keeper.estate import Estate, Record
from everup.keeper.spawn import start_ticks

__all__ = ["engine", "keeper"]  # fixtures
KERNEL = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
Stranger = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    """Processes that are no keeper's children, each in a session of its own."""
    made: list[subprocess.Popen[str]] = []

    def make(*argv: str, **more: Any) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            argv, start_new_session=True, text=True, stdin=-1, stdout=-1, **more
        )
        made.append(process)
        return process

    yield make
    for process in made:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def record(child_id: str, pid: int, **more: Any) -> Record:
    start = start_ticks(pid)
    return {
        "id": child_id, "pid": pid, "start": start, "leader": pid, "leader_start": start,
        "cgroup": None, "meta": {"of": child_id},
    } | more  # fmt: skip


@pytest.fixture
def inheritor(tmp_path: Path) -> Iterator[Callable[[Estate], tuple[Keeper, Engine]]]:
    made: list[tuple[Keeper, Engine]] = []

    def make(estate: Estate) -> tuple[Keeper, Engine]:
        keeper = Keeper(tmp_path, estate)
        try:
            made.append((keeper, keeper.engine()))
        except BaseException:
            keeper.end()
            raise
        return made[-1]

    yield make
    for inheriting, its_engine in made:
        its_engine.close()
        inheriting.end()


def children(engine: Engine) -> dict[str, dict[str, Any]]:
    return {child["id"]: child for child in engine.hello["children"]}


# -- by exec


def leave(keeper: Keeper, engine: Engine, argv: list[str]) -> Engine:
    """The engine asks for ``argv`` and goes; returns the next one."""
    engine.send({"op": "reexec", "argv": argv, "engine": keeper.engine_argv})
    engine.relay.send(b"0")
    after = keeper.engine()
    engine.close()
    return after


def settled_fds(keeper: Keeper, engine: Engine) -> int:
    """Open descriptors of the keeper while it waits for us."""
    engine.send({"op": "nothing"})  # once it is answered, all before it is done
    engine.wait(lambda m: m["ev"] == "error")
    return psutil.Process(keeper.process.pid).num_fds()


def test_an_exec_keeps_children_ends_and_descriptors(
    tmp_path: Path, keeper: Keeper, engine: Engine
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    engine.send({"op": "hold", "names": ["sock:web"]}, [listener.fileno()])
    reader, writer = os.pipe()
    engine.spawn("waits", "sh", "-c", "read x; exit 5", fds=[reader], given={"0": 0})
    engine.spawn("sleeps", "sleep", "60")
    engine.spawn("ended", "sh", "-c", "exit 3")
    pids = {name: engine.on("spawned", name)["pid"] for name in ("waits", "sleeps", "ended")}
    engine.on("exit", "ended")
    keeper.process.send_signal(signal.SIGTERM)
    engine.wait(lambda m: m["ev"] == "signal")
    before = settled_fds(keeper, engine)

    for starts in (2, 3):
        engine = leave(keeper, engine, keeper.argv)
        assert engine.hello["keeper"] == keeper.process.pid
        assert engine.hello["engine_starts"] == starts
        assert engine.hello["meta"] == {"state_dir": "here"}
        assert engine.hello["argv"] == keeper.argv
        assert engine.hello["engine"] == keeper.engine_argv
        assert sorted(engine.hello["held"]) == ["lock", "sock:web"]
        assert engine.wait(lambda m: m["ev"] == "signal")[0]["sig"] == signal.SIGTERM
        now = children(engine)
        assert {name: child["pid"] for name, child in now.items()} == pids
        assert not any(child["stranger"] for child in now.values())
        assert os.waitstatus_to_exitcode(now["ended"]["exit"]["status"]) == 3
        assert now["waits"]["meta"] == {"of": "waits"}

    assert settled_fds(keeper, engine) == before
    os.close(reader)
    os.close(writer)
    assert os.waitstatus_to_exitcode(engine.on("exit", "waits")["status"]) == 5
    engine.send({"op": "signal", "id": "sleeps", "sig": 15, "scope": "main"})
    assert os.waitstatus_to_exitcode(engine.on("exit", "sleeps")["status"]) == -15
    socket.create_connection(listener.getsockname(), 5).close()
    listener.close()
    with open(tmp_path / "lock") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    engine.close()


def test_after_an_exec_services_still_get_the_first_limits(keeper: Keeper, engine: Engine) -> None:
    engine = leave(keeper, engine, keeper.argv)
    reader, writer = os.pipe()
    code = "import os, resource; print(open('/proc/self/oom_score_adj').read().strip(), "
    code += "resource.getrlimit(resource.RLIMIT_NOFILE)[0], len(os.listdir('/proc/self/fd')))"
    engine.spawn("a", sys.executable, "-I", "-c", code, fds=[writer], given={"1": 0})
    os.close(writer)
    with os.fdopen(reader) as output:
        oom, limit, fds = output.read().split()
    assert oom == Path("/proc/self/oom_score_adj").read_text().strip()
    assert int(limit) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert int(fds) <= 4  # three and the directory itself
    engine.close()


@pytest.mark.parametrize("argv", [["/nowhere/python"], ["/", "-S"], []])
def test_what_cannot_be_executed_costs_nothing(
    keeper: Keeper, engine: Engine, argv: list[str]
) -> None:
    engine.spawn("a", "sh", "-c", "sleep 60 & wait")
    pid = engine.on("spawned", "a")["pid"]
    null = os.open("/dev/null", os.O_RDONLY)
    engine.send({"op": "hold", "names": ["null"]}, [null])
    os.close(null)
    before = settled_fds(keeper, engine)
    engine = leave(keeper, engine, argv)
    assert [child["pid"] for child in engine.hello["children"]] == [pid]
    assert not engine.hello["children"][0]["stranger"]
    ((subject, text),) = engine.hello["notes"]
    assert subject == "everup"
    assert text.startswith("cannot become")
    assert settled_fds(keeper, engine) == before

    reader, writer = os.pipe()
    engine.spawn("fds", "ls", "/proc/self/fd", fds=[writer], given={"1": 0})
    os.close(writer)
    with os.fdopen(reader) as output:  # nothing of the keeper's is inherited by accident
        assert set(output.read().split()) <= {"0", "1", "2", "3"}
    keeper.process.send_signal(signal.SIGHUP)  # and signals come through again
    assert engine.wait(lambda m: m["ev"] == "signal")[0]["sig"] == signal.SIGHUP
    engine.send({"op": "signal", "id": "a", "sig": 9, "scope": "all"})
    assert os.waitstatus_to_exitcode(engine.on("exit", "a")["status"]) == -9
    engine.send({"op": "alive"})
    engine.die()
    after = keeper.engine()
    assert after.hello["notes"] == []  # told once
    after.close()


def test_a_keeper_can_be_tried_before(tmp_path: Path, keeper: Keeper) -> None:
    assert can_run(keeper.argv) is None
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_the_kind")
    assert "nothing_of_the_kind" in (can_run([sys.executable, str(broken)]) or "")
    assert can_run(["/nowhere/python"]) is not None


# -- strangers


def test_how_a_stranger_ended_is_told_at_once(
    inheritor: Callable[[Estate], tuple[Keeper, Engine]], stranger: Stranger
) -> None:
    """Its parent, this process, does not wait for it."""
    code, slept = stranger("sh", "-c", "read x; exit 7"), stranger("sleep", "60")
    estate = Estate(children=[record("code", code.pid), record("sleep", slept.pid)])
    _, engine = inheritor(estate)
    assert {name: child["pid"] for name, child in children(engine).items()} == {
        "code": code.pid,
        "sleep": slept.pid,
    }
    assert all(child["stranger"] for child in engine.hello["children"])
    assert code.stdin is not None
    code.stdin.close()
    assert os.waitstatus_to_exitcode(engine.on("exit", "code")["status"]) == 7
    engine.send({"op": "signal", "id": "sleep", "sig": 15, "scope": "main"})
    assert os.waitstatus_to_exitcode(engine.on("exit", "sleep")["status"]) == -15
    assert (code.wait(), slept.wait()) == (7, -15)


def test_how_a_stranger_ended_is_told_though_its_parent_has_reaped_it(
    inheritor: Callable[[Estate], tuple[Keeper, Engine]], stranger: Stranger
) -> None:
    # A shell that waits: whether the keeper looks before or after it, it learns the status.
    script = "exec 3<&0; sh -c 'read x; exit 9' <&3 & echo $!; wait; echo reaped; read y"
    parent = stranger("sh", "-c", script)
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid = int(parent.stdout.readline())
    _, engine = inheritor(Estate(children=[record("a", pid, leader=pid, leader_start=0)]))
    parent.stdin.write("x\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == "reaped\n"
    status = engine.on("exit", "a")["status"]
    if KERNEL >= (6, 15):
        assert os.waitstatus_to_exitcode(status) == 9
    else:
        assert status is None or os.waitstatus_to_exitcode(status) == 9


IN_TWO_GROUPS = """
import os, subprocess, time
for group in (None, 0):
    print(subprocess.Popen(["sleep", "61"], process_group=group).pid, flush=True)
time.sleep(60)
"""


def test_a_stranger_s_group_and_session_are_signalled_and_swept(
    inheritor: Callable[[Estate], tuple[Keeper, Engine]], stranger: Stranger
) -> None:
    argv = [sys.executable, "-I", "-c", IN_TWO_GROUPS]
    one, two = stranger(*argv), stranger(*argv)
    _, engine = inheritor(Estate(children=[record("1", one.pid), record("2", two.pid)]))
    for child_id, process, scope in (("1", one, "all"), ("2", two, "main")):
        assert process.stdout is not None
        background = [int(process.stdout.readline()) for _ in range(2)]
        assert os.getpgid(background[1]) != process.pid
        engine.send({"op": "signal", "id": child_id, "sig": 9, "scope": scope})
        assert os.waitstatus_to_exitcode(engine.on("exit", child_id)["status"]) == -9
        for pid in background:
            until(lambda pid=pid: ended(pid), "what it forked lives on")  # type: ignore[misc]


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def cgroup() -> Iterator[Path]:
    roots = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]
    root = next((r for r in roots if (r / "cgroup.procs").exists()), None)
    if root is None or not os.access(root, os.W_OK):
        pytest.skip("needs a writable cgroup v2")
    group = root / f"everup-test-{os.getpid()}"
    group.mkdir()
    yield group

    def removed() -> bool:
        with contextlib.suppress(OSError):
            group.rmdir()
        return not group.exists()

    until(removed, "the group is not empty")


def test_a_stranger_s_control_group_is_swept(
    inheritor: Callable[[Estate], tuple[Keeper, Engine]], stranger: Stranger, cgroup: Path
) -> None:
    process = stranger("sh", "-c", "read x; setsid sleep 63 & echo $!; read y; exit 4")
    assert process.stdin is not None
    assert process.stdout is not None
    (cgroup / "cgroup.procs").write_text(str(process.pid))
    process.stdin.write("x\n")
    process.stdin.flush()
    escaped = int(process.stdout.readline())
    until(lambda: os.getsid(escaped) == escaped, "no session of its own")
    _, engine = inheritor(Estate(children=[record("a", process.pid, cgroup=str(cgroup))]))
    process.stdin.close()
    assert os.waitstatus_to_exitcode(engine.on("exit", "a")["status"]) == 4
    until(lambda: ended(escaped), "it escaped by its own session")


def test_a_pid_that_is_another_s_by_now_is_neither_adopted_nor_signalled(
    inheritor: Callable[[Estate], tuple[Keeper, Engine]], stranger: Stranger
) -> None:
    other = stranger("sh", "-c", "sleep 60 & echo $!; wait")
    assert other.stdout is not None
    background = int(other.stdout.readline())
    wrong = {"start": start_ticks(other.pid) - 1, "leader_start": start_ticks(other.pid) - 1}
    bad = [
        record("", 60) | {"id": name, "pid": pid}
        for name, pid in (("zero", 0), ("minus", -1), ("init", 1))
    ]
    _, engine = inheritor(Estate(children=[record("a", other.pid, **wrong), *bad]))
    now = children(engine)
    assert set(now) == {"a"}
    assert now["a"]["exit"]["status"] is None
    assert [subject for subject, _ in engine.hello["notes"]] == ["zero", "minus", "init"]
    for scope in ("main", "group", "all"):
        engine.send({"op": "signal", "id": "a", "sig": 9, "scope": scope})
    engine.spawn("sync", "true")
    engine.on("exit", "sync")
    assert other.poll() is None
    assert not ended(background)
    engine.send({"op": "ack", "id": "a"})
    engine.spawn("a", "true")  # it is forgotten like any other
    assert engine.on("exit", "a")["status"] == 0


def test_a_main_process_that_lives_with_a_session_that_is_another_s(
    inheritor: Callable[[Estate], tuple[Keeper, Engine]], stranger: Stranger
) -> None:
    mine, other = stranger("sleep", "60"), stranger("sleep", "60")
    start = start_ticks(other.pid) - 1
    entry = record("a", mine.pid, leader=other.pid, leader_start=start)
    _, engine = inheritor(Estate(children=[entry]))
    engine.send({"op": "signal", "id": "a", "sig": 9, "scope": "group"})
    engine.send({"op": "signal", "id": "a", "sig": 9, "scope": "all"})
    assert os.waitstatus_to_exitcode(engine.on("exit", "a")["status"]) == -9
    assert other.poll() is None


def test_who_ended_before_and_what_was_not_acknowledged_are_told(
    inheritor: Callable[[Estate], tuple[Keeper, Engine]], stranger: Stranger
) -> None:
    gone = stranger("sleep", "60")
    early = record("early", gone.pid)
    gone.kill()
    gone.wait()
    exit_report = {"ev": "exit", "id": "x", "pid": 9, "status": 256, "failed": False, "t": 1.5}
    entries = [early, record("x", 999_999, exit=exit_report)]
    keeper, engine = inheritor(Estate(children=entries, engine_starts=6, signal=15))
    assert engine.hello["engine_starts"] == 7
    assert engine.wait(lambda m: m["ev"] == "signal")[0]["sig"] == 15
    now = children(engine)
    assert now["early"]["exit"]["status"] is None
    assert (now["x"]["exit"]["status"], now["x"]["exit"]["t"]) == (256, 1.5)
    engine.send({"op": "ack", "id": "early"})
    engine = leave(keeper, engine, keeper.argv)  # and by an exec once more
    assert children(engine)["x"]["exit"]["status"] == 256
    engine.close()


def test_an_estate_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    memory = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(memory, True)
    keeper = Keeper(tmp_path, estate_fd=memory)  # a number that is not open there
    os.close(memory)
    try:
        engine = keeper.engine()
        assert "cannot be read" in engine.hello["notes"][0][1]
        engine.close()
    finally:
        keeper.end()


# -- by the engine

FIRST_ENGINE = """
import asyncio, json, os, socket, subprocess, sys
from everup.adapters.keeper_client import KeeperClient
from everup.daemon import handover

door, state = sys.argv[1:]
control = int(os.environ["EVERUP_KEEPER_FD"])
hello, lost = {}, asyncio.Event()

def env(slot):
    return {"PATH": os.environ["PATH"], "EVERUP_STATE": state, "EVERUP_INSTANCE": slot,
            "EVERUP_RUN": "1"}

def spawn(slot, *argv):
    request = {"argv": argv, "cwd": "/", "env": env(slot)}
    meta = {"role": "main", "slot": slot, "run": 1}
    client.spawn(f"main:{slot}:1", request, given={}, held={}, meta=meta)

def handle(message, fds):
    for fd in fds:
        os.close(fd)
    if message["ev"] == "hello":
        hello.update(message)
        client.hold(["sock:web"], [listener.fileno()])
        spawn("web.1", "sleep", "60")
        spawn("web.2", "sh", "-c", "exit 3")
    if message["ev"] == "exit":
        print("ready", listener.getsockname()[1], os.getpid(), flush=True)

async def main():
    client.start(asyncio.get_running_loop())
    await lost.wait()
    spawn("web.3", "sleep", "60")  # asked of a dying keeper, which did it and never said so
    marked = subprocess.Popen(["sleep", "60"], env=env("web.3"), start_new_session=True)
    spawn("web.4", "sleep", "60")  # and this it never read
    pid = handover.start_keeper(client, hello=hello, log=print)
    print("started", pid, marked.pid, flush=True)

listener = socket.create_server(("127.0.0.1", 0))
client = KeeperClient.from_fd(control, handle, lost.set)
asyncio.run(main())
"""


def test_the_engine_hands_everything_to_a_new_keeper(tmp_path: Path) -> None:
    """The first engine is a program of its own; those after it are relays."""
    program, first = tmp_path / "engine.py", tmp_path / "first"
    program.write_text(
        f"import os, sys\ntry:\n    os.rmdir({str(first)!r})\nexcept OSError:\n"
        + textwrap.indent(RELAY, "    ")
        + FIRST_ENGINE
    )
    first.mkdir()
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind(str(tmp_path / "door"))
    door.listen(4)
    door.settimeout(PATIENCE_S)
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    meta = json.dumps({"lock_fd": lock, "state_dir": str(tmp_path)})
    keeper = subprocess.Popen(
        [sys.executable, "-S", "-E", MAIN, meta, "--",
         sys.executable, str(program), str(tmp_path / "door"), str(tmp_path)],
        pass_fds=[lock], stdout=-1, text=True,
    )  # fmt: skip
    os.close(lock)
    started = 0
    try:
        assert keeper.stdout is not None
        _, port, old_engine = keeper.stdout.readline().split()
        keeper.kill()
        keeper.wait()
        said = keeper.stdout.readline().split()
        while said[0] != "started":
            said = keeper.stdout.readline().split()
        started, marked = int(said[1]), int(said[2])
        engine = Engine(door.accept()[0])
        assert not psutil.pid_exists(int(old_engine)) or ended(int(old_engine))
        assert engine.hello["keeper"] == started
        assert engine.hello["engine_starts"] == 2
        assert sorted(engine.hello["held"]) == ["lock", "sock:web"]
        now = children(engine)
        assert set(now) == {"main:web.1:1", "main:web.2:1", "main:web.3:1"}
        assert now["main:web.3:1"]["pid"] == marked
        assert now["main:web.3:1"]["meta"]["slot"] == "web.3"
        assert os.waitstatus_to_exitcode(now["main:web.2:1"]["exit"]["status"]) == 3
        assert now["main:web.1:1"]["stranger"]
        socket.create_connection(("127.0.0.1", int(port)), 5).close()
        with open(tmp_path / "lock") as again, pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert (tmp_path / "lock").read_text() == f"{started}\n"
        for name in ("main:web.1:1", "main:web.3:1"):
            engine.send({"op": "signal", "id": name, "sig": 15, "scope": "all"})
            engine.send({"op": "signal", "id": name, "sig": 15, "scope": "main"})
            status = engine.on("exit", name)["status"]
            assert status is None or os.waitstatus_to_exitcode(status) == -15
        engine.send({"op": "quit", "status": 0})
        engine.relay.send(b"0")
        engine.close()
        until(lambda: ended(started), "the new keeper does not end")
    finally:
        door.close()
        with contextlib.suppress(psutil.NoSuchProcess):
            if started:
                for process in psutil.Process(started).children(recursive=True):
                    process.kill()
                psutil.Process(started).kill()
        for found in census(str(tmp_path)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGKILL)
        keeper.kill()
        keeper.wait()


def test_the_census_finds_what_carries_the_mark(tmp_path: Path, stranger: Stranger) -> None:
    mark = {"PATH": os.environ["PATH"], "EVERUP_STATE": str(tmp_path)}
    web = mark | {"EVERUP_INSTANCE": "web.1", "EVERUP_RUN": "12"}
    one = stranger("sh", "-c", "sleep 60 & echo $!; wait", env=web)
    stranger("sleep", "60", env=web | {"EVERUP_STATE": f"{tmp_path}/other"})
    stranger("sleep", "60", env=mark)
    stranger("sleep", "60", env=web | {"EVERUP_RUN": "x"})
    assert one.stdout is not None
    background = int(one.stdout.readline())
    until(lambda: len(census(str(tmp_path))) == 2, "the mark is not there yet")
    first, second = census(str(tmp_path))
    assert (first.pid, first.slot, first.run, first.leads) == (one.pid, "web.1", 12, True)
    assert first.start == start_ticks(one.pid)
    assert (second.pid, second.leads) == (background, False)
