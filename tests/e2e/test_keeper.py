"""The real keeper, with the test in the engine's place.

The keeper runs a small relay as its engine, which hands its control descriptor to the test over a
Unix socket and waits. So the test speaks as the engine, and "the engine dies" is a kill of the
relay.
"""

import array
import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import everup
from everup.keeper import estate as estates
from everup.keeper import wire
from everup.keeper.estate import Estate

MAIN = str(Path(everup.__file__).parent / "keeper" / "__main__.py")
PATIENCE_S = 15.0
RELAY = """
import array, os, socket, sys, time
control = int(os.environ["EVERUP_KEEPER_FD"])
sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
sock.connect(sys.argv[1])
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [control]))]
sock.sendmsg([str(os.getpid()).encode().ljust(16)], rights)
os.close(control)
sys.exit(int(sock.recv(16) or b"0"))
"""


class Engine:
    """One life of the engine, played by the test."""

    def __init__(self, relay: socket.socket) -> None:
        fds = array.array("i")
        relay.settimeout(PATIENCE_S)
        data, ancillary, _, _ = relay.recvmsg(16, socket.CMSG_SPACE(4))
        fds.frombytes(ancillary[0][2])
        self.pid = int(data)
        self.relay = relay
        self.control = socket.socket(fileno=fds[0])
        self.seen: list[tuple[dict[str, Any], list[int]]] = []
        self.hello = self.wait(lambda m: m["ev"] == "hello")[0]

    def send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        wire.send(self.control, message, fds or [])

    def spawn(self, child_id: str, *argv: str, **more: Any) -> None:
        request: dict[str, Any] = {
            "op": "spawn", "id": child_id, "argv": list(argv), "cwd": "/", "meta": {"of": child_id},
            "env": {"PATH": os.environ["PATH"]}, "given": {}, "held": {}, "hold": [],
        }  # fmt: skip
        fds = more.pop("fds", [])
        self.send(request | more, fds)

    def wait(self, test: Callable[[dict[str, Any]], bool]) -> tuple[dict[str, Any], list[int]]:
        """The first message like that, among those that have come and those to come."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for number, (message, _) in enumerate(self.seen):
                if test(message):
                    return self.seen.pop(number)
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.control], [], [], left)[0]:
                raise AssertionError(f"it did not come; came: {self.seen}")
            self.seen.append(wire.receive(self.control))

    def on(self, ev: str, child_id: str) -> dict[str, Any]:
        return self.wait(lambda m: m["ev"] == ev and m.get("id") == child_id)[0]

    def die(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        for _, fds in self.seen:
            for fd in fds:
                os.close(fd)
        self.seen.clear()
        self.control.close()
        self.relay.close()


class Keeper:
    def __init__(self, tmp_path: Path, estate: Estate | None = None, **more: Any) -> None:
        self.door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.door.bind(str(tmp_path / "door"))
        self.door.listen(4)
        self.door.settimeout(PATIENCE_S)
        relay = tmp_path / "relay.py"
        relay.write_text(RELAY)
        lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.argv = [sys.executable, "-I", "-S", MAIN]
        self.engine_argv = [sys.executable, "-S", "-E", str(relay), str(tmp_path / "door")]
        meta = {"lock_fd": lock, "state_dir": "here"} | more
        passed: list[int] = []
        if estate is not None:
            meta["estate_fd"], passed = estates.write(estate)
        with open(tmp_path / "keeper.err", "w") as errors:
            self.process = subprocess.Popen(
                [*self.argv, json.dumps(meta), "--", *self.engine_argv],
                pass_fds=[lock, *passed],
                stderr=errors,
            )
        for fd in (lock, *passed[:1]):
            os.close(fd)
        self.errors = tmp_path / "keeper.err"

    def engine(self) -> Engine:
        return Engine(self.door.accept()[0])

    def zygote(self) -> psutil.Process:
        """The child that is no engine and no service: it runs the keeper's own program."""
        me = psutil.Process(self.process.pid)
        return next(c for c in me.children() if MAIN in c.cmdline())

    def end(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            me = psutil.Process(self.process.pid)
            left = me.children(recursive=True)
            self.process.kill()
            for child in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        self.process.wait()
        self.door.close()


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    keeper = Keeper(tmp_path)
    try:
        yield keeper
    finally:
        keeper.end()


@pytest.fixture
def engine(keeper: Keeper) -> Iterator[Engine]:
    engine = keeper.engine()
    yield engine
    engine.close()


def until(test: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while not test():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def test_hello_names_the_keeper_and_what_it_knows(keeper: Keeper, engine: Engine) -> None:
    assert engine.hello["keeper"] == keeper.process.pid
    assert engine.hello["meta"] == {"state_dir": "here"}
    assert (engine.hello["children"], engine.hello["held"]) == ([], ["lock"])
    assert engine.hello["engine_starts"] == 1


def test_spawn_gives_it_what_was_asked_for_and_nothing_else(engine: Engine) -> None:
    reader, writer = os.pipe()
    code = "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1], os.getcwd(), "
    code += "os.environ['A'], os.getsid(0) == os.getpid(), os.umask(0))"
    engine.spawn(
        "a", sys.executable, "-I", "-c", code, fds=[writer], given={"1": 0}, umask=0o27,
        env={"A": "b"}, cwd="/proc",
    )  # fmt: skip
    os.close(writer)
    spawned = engine.on("spawned", "a")
    ended = engine.on("exit", "a")
    with os.fdopen(reader) as output:
        lines = output.read().split("\n")
    assert ended["status"] == 0
    assert lines[0].endswith("] /proc b True 23")
    numbers = [int(n) for n in lines[0][1 : lines[0].index("]")].split(",")]
    assert set(numbers) <= {0, 1, 2}
    assert spawned["pid"] == ended["pid"]
    assert spawned["start"] > 0


@pytest.mark.parametrize(
    ("asked", "stage", "number"),
    [
        ({"argv": ["/nowhere/at-all"]}, "command", 2),
        ({"argv": ["no-such-command-here"]}, "command", 2),
        ({"argv": ["/"]}, "command", 13),
        ({"cwd": "/nowhere"}, "directory", 2),
        ({"cgroups": ["/nowhere"]}, "control group", 2),
        ({"nice": -20, "uid": 1, "gid": 1, "groups": [], "cwd": "/nowhere"}, "directory", 2),
    ],
)
def test_a_failed_start_is_told_with_its_stage(
    engine: Engine, asked: dict[str, Any], stage: str, number: int
) -> None:
    if "uid" in asked and os.getuid() != 0:
        pytest.skip("needs root")
    engine.spawn("a", "true", **asked)
    failed = engine.on("failed", "a")
    assert (failed["stage"], failed["errno"]) == (stage, number)
    assert engine.on("exit", "a")["failed"] is True
    engine.send({"op": "ack", "id": "a"})
    engine.spawn("b", "true")
    assert os.waitstatus_to_exitcode(engine.on("exit", "b")["status"]) == 0


def test_status_and_signal_are_told_again_until_acknowledged(
    keeper: Keeper, engine: Engine
) -> None:
    engine.spawn("code", "sh", "-c", "exit 3")
    engine.spawn("signal", "sleep", "60")
    engine.on("spawned", "signal")
    engine.send({"op": "signal", "id": "signal", "sig": 15, "scope": "main"})
    assert os.waitstatus_to_exitcode(engine.on("exit", "code")["status"]) == 3
    assert os.waitstatus_to_exitcode(engine.on("exit", "signal")["status"]) == -15
    engine.send({"op": "ack", "id": "code"})
    engine.spawn("after", "true")  # once it is answered, the ack before it was taken in
    engine.on("exit", "after")
    engine.die()

    second = keeper.engine()
    assert second.hello["engine_starts"] == 2
    known = {child["id"]: child for child in second.hello["children"]}
    assert set(known) == {"signal", "after"}
    assert os.waitstatus_to_exitcode(known["signal"]["exit"]["status"]) == -15
    assert known["signal"]["meta"] == {"of": "signal"}
    second.close()


def test_an_end_while_there_is_no_engine_is_told_to_the_next(
    keeper: Keeper, engine: Engine
) -> None:
    reader, writer = os.pipe()
    engine.spawn("a", "sh", "-c", "read line; exit 5", fds=[reader], given={"0": 0})
    os.close(reader)
    engine.on("spawned", "a")
    engine.die()
    os.close(writer)
    second = keeper.engine()
    (child,) = second.hello["children"]
    ended = child.get("exit") or second.on("exit", "a")
    assert os.waitstatus_to_exitcode(ended["status"]) == 5
    second.close()


def test_held_descriptors_go_to_the_next_engine_and_to_children(
    keeper: Keeper, engine: Engine
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    other = os.open("/dev/null", os.O_RDONLY)
    engine.send({"op": "hold", "names": ["sock:web", "other"]}, [listener.fileno(), other])
    engine.send({"op": "drop", "names": ["other", "never-held"]})
    listener.close()
    os.close(other)
    engine.spawn("sync", "true")
    engine.on("exit", "sync")
    engine.die()
    socket.create_connection(address, 5).close()  # open though its engine is gone

    second = keeper.engine()
    assert sorted(second.hello["held"]) == ["lock", "sock:web"]
    _, (fd,) = second.wait(lambda m: m["ev"] == "held" and m["name"] == "sock:web")
    with socket.socket(fileno=fd) as back:
        assert back.getsockname() == address
    code = "import os, socket; socket.socket(fileno=3).accept()[0].close(); "
    code += "assert os.environ['LISTEN_PID'] == str(os.getpid())"
    second.spawn("web", sys.executable, "-I", "-c", code, held={"3": "sock:web"}, listen_pid=True)
    assert second.on("exit", "web")["status"] == 0
    second.close()


def test_a_request_larger_than_a_packet(engine: Engine) -> None:
    big = {f"V{n}": "x" * 100 for n in range(2000)}
    assert sum(map(len, big.values())) > 2 * wire.MAX_PACKET
    code = "import os; raise SystemExit(len([v for v in os.environ if v[0] == 'V']) != 2000)"
    engine.spawn("a", sys.executable, "-I", "-c", code, env=big)
    assert engine.on("exit", "a")["status"] == 0


def test_nonsense_is_answered_and_survived(engine: Engine) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    for message in (
        {"op": "what"}, {}, {"op": "spawn"}, {"op": "hold", "names": ["a", "b"]},
        {"op": "signal", "id": "a", "sig": "x"}, {"op": "main", "id": "nobody", "pid": 1},
    ):  # fmt: skip
        engine.send(message, [fd])
        if message.get("op") != "signal":  # of nobody: nothing to say
            engine.wait(lambda m: m["ev"] == "error")
    os.close(fd)
    engine.spawn("a", "true")
    assert engine.on("exit", "a")["status"] == 0


def test_kill_of_all_reaches_what_it_forked_and_orphans_are_reaped(
    keeper: Keeper, engine: Engine
) -> None:
    reader, writer = os.pipe()
    script = "sleep 61 & (setsid sleep 0.05 &) ; echo $!; wait"
    engine.spawn("a", "sh", "-c", script, fds=[writer], given={"1": 0})
    os.close(writer)
    with os.fdopen(reader) as output:
        background = int(output.readline())
        engine.on("spawned", "a")
        engine.send({"op": "signal", "id": "a", "sig": 9, "scope": "all"})
        assert os.waitstatus_to_exitcode(engine.on("exit", "a")["status"]) == -9
        until(lambda: not psutil.pid_exists(background), "what it forked lives on")
    me = psutil.Process(keeper.process.pid)

    def reaped() -> bool:
        children = me.children(recursive=True)
        return {c.pid for c in children} == {engine.pid, keeper.zygote().pid}

    until(reaped, "an orphan is left")


def test_the_end_of_the_main_process_takes_the_rest_along(engine: Engine) -> None:
    reader, writer = os.pipe()
    engine.spawn("a", "sh", "-c", "sleep 61 & echo $!", fds=[writer], given={"1": 0})
    os.close(writer)
    with os.fdopen(reader) as output:
        background = int(output.readline())
    engine.on("exit", "a")
    until(lambda: not psutil.pid_exists(background), "what it forked lives on")


def test_a_killed_zygote_is_replaced(keeper: Keeper, engine: Engine) -> None:
    for number in range(3):
        zygote = keeper.zygote()
        zygote.kill()
        engine.spawn(f"a{number}", "true")  # at once: the keeper may not have seen it yet
        message, _ = engine.wait(
            lambda m, n=number: m["ev"] in ("spawned", "failed") and m["id"] == f"a{n}"  # type: ignore[misc]
        )
        if message["ev"] == "failed":  # asked of the dying one: said so, and the engine retries
            assert message["stage"] == "fork"
        engine.spawn(f"b{number}", "true")
        assert engine.on("exit", f"b{number}")["status"] == 0
        assert keeper.zygote().pid != zygote.pid


def test_a_stopped_zygote_does_not_stop_the_keeper(keeper: Keeper, engine: Engine) -> None:
    keeper.zygote().suspend()
    engine.spawn("a", "true")
    engine.wait(lambda m: m["ev"] in ("spawned", "failed") and m["id"] == "a")
    engine.spawn("b", "true")
    assert engine.on("exit", "b")["status"] == 0


def test_a_dead_engine_is_replaced_and_its_children_go_on(keeper: Keeper, engine: Engine) -> None:
    engine.spawn("a", "sleep", "60")
    pid = engine.on("spawned", "a")["pid"]
    engine.die()
    for starts in (2, 3):
        after = keeper.engine()
        assert after.hello["engine_starts"] == starts
        (child,) = after.hello["children"]
        assert (child["id"], child["pid"]) == ("a", pid)
        assert "exit" not in child
        assert psutil.pid_exists(pid)
        after.die()
    assert "starting it again" in keeper.errors.read_text()


def test_main_pid_moves_and_its_end_is_the_child_s_end(engine: Engine) -> None:
    reader, writer = os.pipe()
    script = "sleep 62 & echo $!; wait"
    engine.spawn("a", "sh", "-c", script, fds=[writer], given={"1": 0})
    os.close(writer)
    with os.fdopen(reader) as output:
        main = int(output.readline())
    shell = engine.on("spawned", "a")["pid"]
    engine.send({"op": "main", "id": "a", "pid": main})
    os.kill(shell, signal.SIGKILL)  # an orphan now, and the keeper's own
    until(lambda: not psutil.pid_exists(shell), "the first main process is not reaped")
    assert psutil.pid_exists(main)
    engine.send({"op": "signal", "id": "a", "sig": 15, "scope": "main"})
    ended = engine.on("exit", "a")
    assert ended["pid"] == main
    assert os.waitstatus_to_exitcode(ended["status"]) == -15


def test_the_end_of_a_main_process_is_seen_though_its_parent_lives(engine: Engine) -> None:
    reader, writer = os.pipe()
    script = "sleep 62 & echo $!; while :; do sleep 63; done"
    engine.spawn("a", "sh", "-c", script, fds=[writer], given={"1": 0})
    os.close(writer)
    with os.fdopen(reader) as output:
        main = int(output.readline())
    shell = engine.on("spawned", "a")["pid"]
    engine.send({"op": "main", "id": "a", "pid": main})
    engine.send({"op": "signal", "id": "a", "sig": 15, "scope": "main"})
    ended = engine.on("exit", "a")
    assert (ended["pid"], os.waitstatus_to_exitcode(ended["status"])) == (main, -15)
    until(lambda: not psutil.pid_exists(shell), "what is left of it lives on")


def test_a_main_process_that_is_not_there_is_refused(engine: Engine) -> None:
    engine.spawn("a", "sleep", "64")
    engine.on("spawned", "a")
    gone = subprocess.Popen(["true"])
    gone.wait()
    for pid in (gone.pid, 1, 0, -1):
        engine.send({"op": "main", "id": "a", "pid": pid})
        engine.wait(lambda m: m["ev"] == "error")
    engine.send({"op": "signal", "id": "a", "sig": 15, "scope": "main"})
    assert os.waitstatus_to_exitcode(engine.on("exit", "a")["status"]) == -15


def test_a_signal_to_who_has_ended_goes_nowhere(engine: Engine) -> None:
    engine.spawn("a", "true")
    engine.on("exit", "a")
    for scope in ("main", "group", "all"):
        engine.send({"op": "signal", "id": "a", "sig": 9, "scope": scope})
    engine.spawn("b", "true")
    assert engine.on("exit", "b")["status"] == 0


def test_an_id_in_use_is_refused_and_starts_nothing(keeper: Keeper, engine: Engine) -> None:
    engine.spawn("a", "sleep", "60")
    first = engine.on("spawned", "a")["pid"]
    engine.spawn("a", "sleep", "63")
    engine.wait(lambda m: m["ev"] == "error")
    me = psutil.Process(keeper.process.pid)

    def alone() -> bool:
        return {c.pid for c in me.children()} == {engine.pid, keeper.zygote().pid, first}

    until(alone, "a second process that nobody knows of", 2.0)


def test_signals_of_the_keeper_are_handed_on(keeper: Keeper, engine: Engine) -> None:
    keeper.process.send_signal(signal.SIGHUP)
    assert engine.wait(lambda m: m["ev"] == "signal")[0]["sig"] == signal.SIGHUP
    keeper.process.send_signal(signal.SIGTERM)
    assert engine.wait(lambda m: m["ev"] == "signal")[0]["sig"] == signal.SIGTERM
    engine.die()
    second = keeper.engine()  # the wish to end outlives the engine that heard it
    assert second.wait(lambda m: m["ev"] == "signal")[0]["sig"] == signal.SIGTERM
    second.close()


def test_quit_ends_with_its_status_once_the_engine_has_left(keeper: Keeper, engine: Engine) -> None:
    engine.send({"op": "quit", "status": 7})
    engine.spawn("sync", "true")
    engine.on("exit", "sync")
    assert keeper.process.poll() is None  # the engine has yet to close its files
    engine.close()
    assert keeper.process.wait(PATIENCE_S) == 7


def test_an_engine_that_leaves_in_peace_ends_the_keeper(keeper: Keeper, engine: Engine) -> None:
    engine.relay.send(b"4")
    assert keeper.process.wait(PATIENCE_S) == 4


def test_what_an_engine_said_last_is_heard(keeper: Keeper, engine: Engine) -> None:
    for number in range(1, 4):
        null = os.open("/dev/null", os.O_RDONLY)
        engine.send({"op": "hold", "names": [f"last:{number}"]}, [null])
        os.close(null)
        engine.die()
        engine = keeper.engine()
        assert len(engine.hello["held"]) == number + 1
    engine.close()


def test_the_lock_is_never_let_go(tmp_path: Path, keeper: Keeper, engine: Engine) -> None:
    """It is replaced by another one at most, where its file was removed and made again."""
    engine.send({"op": "drop", "names": ["lock"]})
    engine.spawn("sync", "true")
    engine.on("exit", "sync")
    engine.die()
    second = keeper.engine()
    _, (fd,) = second.wait(lambda m: m["ev"] == "held" and m["name"] == "lock")
    assert os.pread(fd, 32, 0) == f"{keeper.process.pid}\n".encode()
    os.close(fd)
    with open(tmp_path / "lock") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    second.close()


def test_an_engine_that_falls_silent_is_killed_and_replaced(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, hung_s=0.5)
    try:
        first = keeper.engine()
        first.spawn("a", "sleep", "60")
        pid = first.on("spawned", "a")["pid"]
        first.send({"op": "alive"})
        os.kill(first.pid, signal.SIGSTOP)
        second = keeper.engine()
        assert [child["pid"] for child in second.hello["children"]] == [pid]
        assert "hangs" in keeper.errors.read_text()
        second.close()
    finally:
        keeper.end()


def test_services_have_the_limits_that_everup_was_started_with(
    keeper: Keeper, engine: Engine
) -> None:
    reader, writer = os.pipe()
    code = "import resource; print(open('/proc/self/oom_score_adj').read().strip(), "
    code += "*resource.getrlimit(resource.RLIMIT_NOFILE))"
    engine.spawn("a", sys.executable, "-I", "-c", code, fds=[writer], given={"1": 0})
    os.close(writer)
    with os.fdopen(reader) as output:
        said = output.read().split()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    mine = Path("/proc/self/oom_score_adj").read_text().strip()
    assert said == [mine, str(soft), str(hard)]
    if os.getuid() == 0:  # to be spared is a privilege
        for pid in (keeper.process.pid, engine.pid):
            assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) in (-900, int(mine))
