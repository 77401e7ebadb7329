"""Faults of the machine under everup: services go on serving, everup says what it cannot do, and
does it again once it can."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from _everup import Everup, alive
from _faults import (
    SOON,
    Client,
    Pair,
    Space,
    WallClock,
    file_system,
    fill,
    mounts,
    read_only,
    small_disk,
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / ".everup") as directory:
        yield directory


def test_disk_full(disk: Path, everup: Everup) -> None:
    """Commands too; and an engine that is killed meanwhile costs nothing of what was accepted."""
    pair = Pair(everup).up()
    with Client(pair.web_port):
        ballast = fill(disk)
        pair.crash()
        everup.wait_for(lambda: everup.status()["journal_degraded"], "journal_degraded is shown")
        told = everup.cli("status", expect=4).out  # not all is well
        assert "the journal cannot be written: " in told
        assert str(everup.place.state_dir) in told
        everup.cli("stop", "lab")
        everup.cli("start", "off")
        everup.cli("scale", "more", "2")
        everup.write(pair.services | {"new": everup.server("new")})
        refused = everup.cli("reload", expect=1)
        assert "No space left on device; nothing was changed" in refused.err
        pair.kill_engine()
        states = {slot: i["state"] for slot, i in everup.instances().items()}
        assert states.pop("lab.1") == "stopped"
        assert set(states) == {"web.1", "off.1", "more.1", "more.2"}
        assert set(states.values()) == {"ready"}
        assert everup.status()["journal_degraded"]
        everup.cli("start", "lab")
        everup.cli("stop", "off")
        pair.lab = everup.pid("lab.1")
        pair.crash()

        ballast.unlink()
        everup.wait_for(lambda: not everup.status()["journal_degraded"], "it is written again")
        pair.check(run=4)
        assert everup.events("journal.degraded")[-1]["lost_events"] == 0
        assert not everup.events("instance.lost"), "nobody died of reasons unknown"
        events = everup.events()
        assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
        exits = [e["cause"] for e in events if e["kind"] == "instance.exited"]
        assert exits == ["exit 0", "SIGKILL", "exit 0", "exit 0", "SIGKILL"]
        wanted = [(e["subject"], e["want"]) for e in events if e["kind"] == "service.wanted"]
        assert wanted == [
            ("off.1", False), ("lab.1", False), ("off.1", True),
            ("more.2", True), ("lab.1", True), ("off.1", False),
        ]  # fmt: skip
        everup.cli("reload")
        assert everup.state("new.1") == "ready"
        pair.check(run=4)


def deleted(path: Path) -> None:
    path.unlink()


def all_deleted(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        os.unlink(f"{path}{suffix}")


def overwritten(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:  # else all of it is in the WAL
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b", 0) as file:
        for at in range(0, path.stat().st_size, 1024):
            os.pwrite(file.fileno(), b"\xa5" * 700, at)


def replaced(path: Path) -> None:
    all_deleted(path)
    path.write_bytes(b"no database at all\n" * 1000)


def old_one_restored(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM INTO ?", (f"{path}.old",))
    os.replace(f"{path}.old", path)


def wal_deleted(path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{path}{suffix}")


NOTICED = {all_deleted: "deleted", old_one_restored: "replaced"}


@pytest.mark.parametrize(
    ("losses", "kill"),
    [((all_deleted, old_one_restored), False),
     ((deleted, overwritten, replaced, wal_deleted), True)],
    ids=["going on", "engine killed"],
)  # fmt: skip
def test_journal_lost(
    everup: Everup, losses: tuple[Callable[[Path], None], ...], kill: bool
) -> None:
    """Whatever becomes of its files: mended by itself, and nothing forgotten; also when the engine
    is killed at that moment."""
    pair = Pair(everup).up()
    everup.cli("scale", "more", "2")
    path = Path(everup.place.journal)
    with Client(pair.web_port):
        for run, lose in enumerate(losses, 2):
            lose(path)
            if kill:
                pair.kill_engine()
            pair.crash()
            pair.check(run=run)
            if not kill:
                everup.wait_event("journal.degraded", reason=NOTICED[lose])
            everup.wait_for(lambda run=run: is_whole(everup, run), f"mended: {lose.__name__}")
            if kill and lose in (overwritten, replaced):
                assert said(everup, "the journal was corrupt; it is kept as")
    assert len(everup.instances()) == 5
    assert not everup.events("instance.lost")


def test_accepted_config_lost(everup: Everup) -> None:
    pair = Pair(everup).up()
    with Client(pair.web_port):
        os.unlink(everup.place.accepted)
        pair.kill_engine()
        pair.crash()
        pair.check(run=2)


def test_journal_lost_and_both_killed(everup: Everup) -> None:
    """The next ``up`` still takes back what runs: it is not started anew."""
    pair = Pair(everup).up()
    with Client(pair.web_port):
        all_deleted(Path(everup.place.journal))
        everup.kill(pair.keeper, pair.engine)
        everup.cli("up", "-d")
        pair.keeper, pair.engine = everup.keeper_pid, everup.engine_pid
        pair.check(run=1)
        pair.crash()
        pair.check(run=2)


def is_whole(everup: Everup, run: int) -> bool:
    """Whether the journal says who runs, what is off, and how many there are to be."""
    try:
        started = everup.events("instance.starting", "lab.1")
        wanted = everup.events("service.wanted", "off.1")
        scaled = everup.events("service.scaled", "more")
    except sqlite3.Error:
        return False
    if not (started and wanted and scaled):
        return False
    assert not wanted[-1]["want"]
    assert scaled[-1]["replicas"] == 2
    return started[-1]["run"] == run


# -- the state directory


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """A state directory in a file system of its own that knows ``chattr +i``."""
    with file_system(tmp_path / ".everup", tmp_path / "disk") as directory:
        yield directory


def test_read_only(ext4: Path, everup: Everup) -> None:
    """SQLite's and the log pump's shared memory can't be written either, which kills the engine
    that uses it: the next one goes without, and does not notice its own restarts."""
    pair = Pair(everup).up()
    with Client(pair.web_port):
        with read_only(ext4):
            pair.crash()
            (old,) = engines(everup)
            os.kill(old, signal.SIGKILL)
            everup.wait_for(lambda: engines(everup) - {old}, "there is another one")
            pair.crash()
        everup.wait_for(lambda: is_written(everup), "the journal is written again")
        pair.check(run=3, engine=False)
        pair.engine = everup.engine_pid
        pair.crash()
        pair.check(run=4)
    assert [e["run"] for e in everup.events("instance.starting", "lab.1")] == [1, 2, 3, 4]
    assert not everup.events("instance.lost")


def engines(everup: Everup) -> set[int]:
    return {pid for pid, line in everup.processes().items() if " -m everup.daemon " in line} - {
        pid for pid, line in everup.processes().items() if "keeper/__main__.py" in line
    }


def is_written(everup: Everup) -> bool:
    return not everup.status()["journal_degraded"] and bool(everup.events("journal.degraded"))


def test_read_only_commands(ext4: Path, everup: Everup) -> None:
    """Somebody has to be able to see what is going on, and to stop it."""
    pair = Pair(everup).up()
    with read_only(ext4):
        (old,) = engines(everup)
        os.kill(old, signal.SIGKILL)
        everup.wait_for(lambda: engines(everup) - {old}, "there is another one")
        everup.wait_for(lambda: answers(everup), "its API answers", deadline_s=5)
        everup.wait_for(lambda: everup.status()["journal_degraded"], "journal_degraded is shown")
        everup.write(pair.services | {"new": everup.server("new")})
        refused = everup.cli("reload", expect=1)
        assert "nothing was changed" in refused.err
        everup.cli("stop", "lab")
        pair.engine = everup.engine_pid
        pair.kill_engine()
        assert everup.state("lab.1") == "stopped"
    everup.wait_for(lambda: is_written(everup), "the journal is written again")
    assert everup.state("lab.1") == "stopped"


def answers(everup: Everup) -> bool:
    with contextlib.suppress(OSError):
        return everup.request("GET", "/v1/status")[0] == 200
    return False


# -- descriptors


@contextlib.contextmanager
def no_descriptors(pid: int) -> Iterator[None]:
    """It can open nothing more."""
    process = psutil.Process(pid)
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    lowest = min(set(range(max(used) + 2)) - used)
    process.rlimit(psutil.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("who", ["engine", "keeper"])
def test_out_of_descriptors(everup: Everup, who: str) -> None:
    """A start fails and is tried again; probes that cannot be made are no reason for a verdict."""
    pair = Pair(everup).up()
    pid = pair.engine if who == "engine" else pair.keeper
    with Client(pair.web_port):
        with no_descriptors(pid):
            os.kill(pair.lab, signal.SIGKILL)
            for run in (2, 4):
                failed = everup.wait_event("instance.exited", "lab.1", run=run, exit_kind="spawn")
        assert who == "keeper" or "Too many open files" in failed["cause"]
        pair.lab = everup.wait_new_pid("lab.1", pair.lab)
        pair.crash()
        pair.check(run=everup.instance("lab.1")["run"])
    runs = [e["run"] for e in everup.events("instance.starting", "lab.1")]
    assert runs == list(range(1, len(runs) + 1))
    count = psutil.Process(pid).num_fds()
    pair.crash()
    everup.wait_for(lambda: psutil.Process(pid).num_fds() <= count, "nothing is left open")


def test_keeper_out_of_descriptors_is_said(everup: Everup) -> None:
    """The reason of a failed start is what was lacking, and not what that has led to."""
    pair = Pair(everup).up()
    with no_descriptors(pair.keeper):
        os.kill(pair.lab, signal.SIGKILL)
        failed = everup.wait_event("instance.exited", "lab.1", exit_kind="spawn")
    assert "Too many open files" in failed["cause"]


# -- memory


def limit_memory(pid: int, less_bytes: int = 0) -> None:
    """From now on it gets no more."""
    process = psutil.Process(pid)
    size = process.memory_info().vms - less_bytes
    process.rlimit(psutil.RLIMIT_AS, (size, psutil.RLIM_INFINITY))


def test_engine_out_of_memory(everup: Everup) -> None:
    """It leaves, for a step that was not finished leaves a state that nobody knows; the next one
    has what it needs."""
    pair = Pair(everup).up()
    with Client(pair.web_port), contextlib.ExitStack() as stack:
        limit_memory(pair.engine)
        pair.crash()
        everup.wait_for(lambda: not eat(everup, pair.engine, stack), "it has too little memory")
        pair.crash()
        pair.engine = everup.engine_pid
        assert psutil.Process(pair.engine).rlimit(psutil.RLIMIT_AS)[0] == psutil.RLIM_INFINITY
        pair.check(run=3)
    log = (everup.state_dir / "everup.log").read_text()
    assert "everup: out of memory; this engine leaves, services go on\n" in log
    assert not everup.events("instance.lost")


def eat(everup: Everup, pid: int, stack: contextlib.ExitStack) -> bool:
    """A request that it has to keep in memory until it is whole; whether it still lives."""
    with contextlib.suppress(OSError):
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.settimeout(0.2)
        sock.connect(everup.place.api_socket)
        sock.sendall(b"POST /v1/stop HTTP/1.1\r\nHost: a\r\nContent-Length: 65000\r\n\r\n")
        sock.sendall(b" " * 64000)
    return alive(pid)


def test_thread_of_the_engine_ends() -> None:
    """Without the one that reads their output, services would block in time."""
    code = (
        "import threading, time; from everup.daemon import __main__ as engine\n"
        "threading.excepthook = engine._thread_ended\n"
        "def work(): raise MemoryError\n"
        "threading.Thread(target=work, name='everup-logs').start(); time.sleep(20)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 72
    assert b"everup: its thread everup-logs ended by MemoryError" in done.stderr


def test_keeper_out_of_memory(everup: Everup) -> None:
    """It may fail to start something; it may die, for then another one takes over; but nothing
    may wait for ever."""
    pair = Pair(everup)
    much = {f"V{n}": "x" * 30000 for n in range(30)}
    big = everup.server("big", environment=much, autostart=False, restart=SOON)
    everup.write(pair.services | {"big": big}, metrics_interval="1s")
    pair.up()
    keeper = pair.keeper
    with Client(pair.web_port):
        limit_memory(keeper, 4 << 20)
        everup.cli("start", "big", "--timeout", "0", expect=None)
        pair.crash()
        if alive(keeper):
            limits = (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY)
            psutil.Process(keeper).rlimit(psutil.RLIMIT_AS, limits)
        try:
            everup.wait_state("big.1", "ready", deadline_s=5)
        finally:
            if alive(keeper):  # whoever waits for its answer is helped by the next one
                os.kill(keeper, signal.SIGKILL)
                wait_keeper(everup, keeper)
        pair.crash()
    assert everup.pid("web.1") == pair.web


def wait_keeper(everup: Everup, old: int) -> None:
    def another() -> bool:
        with contextlib.suppress(ValueError):  # it is just being written
            return everup.keeper_pid != old
        return False

    everup.wait_for(another, "there is another keeper")


# -- the clock


def test_clock_steps(everup: Everup) -> None:
    """By hours and by years, there and back: nobody is restarted, killed or forgotten for it."""
    clock = WallClock(everup)
    dog = {"watchdog": {"interval": "2s"}}
    pair = Pair(everup, **dog)
    (everup.control / "web" / "watchdog").touch()
    pair.up()
    run = 1
    with Client(pair.web_port):
        for hours in (5, -10 * 8766, 10 * 8766, 0):
            clock.step(hours)
            before = everup.last_seq()
            pair.crash()
            run += 1
            if hours < 0:
                pair.kill_engine()
            everup.cli("restart", "more")
            pair.check(run=run)
            told = everup.cli("events", "--since", "1m", "--json").out.splitlines()
            assert {json.loads(line)["seq"] for line in told} >= {
                e["seq"] for e in everup.events(after=before)
            }
            everup.wait_event("instance.ready", "more.1", after=before)
    events = everup.events()
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert [e["mono"] for e in events] == sorted(e["mono"] for e in events)
    pids = [e["pid"] for e in events if e["kind"] == "instance.spawned" and e["subject"] == "lab.1"]
    assert everup.output("lab.1") == [f"serving as {pid}" for pid in dict.fromkeys(pids)]
    for kind in ("instance.unhealthy", "instance.suspected", "instance.lost", "log.lost"):
        assert not everup.events(kind)


# -- /proc and control groups


@pytest.fixture
def space(everup: Everup) -> Space:
    return Space(everup)


def test_proc_is_gone(everup: Everup, space: Space) -> None:
    """Under a running everup, also while its engine and its keeper are replaced."""
    pair = Pair(everup)
    pair.up(space.up)
    grouped = in_a_group(everup)
    with Client(pair.web_port):
        with space.covered("/proc"):
            everup.wait_for(lambda: said(everup, "/proc cannot be read"), "it says so")
            assert everup.instance("web.1")["usage"] is None
            assert everup.request("GET", "/metrics")[0] == 200
            pair.crash()
            pair.kill_engine()
            pair.crash()
            assert not grouped or said(everup, "where control groups are")
            everup.cli("restart", "more")
            os.kill(pair.keeper, signal.SIGKILL)
            wait_keeper(everup, pair.keeper)
            pair.keeper, pair.engine = everup.keeper_pid, everup.engine_pid
            pair.crash()
            pair.check(run=4)
        everup.wait_for(lambda: said(everup, "/proc can be read again"), "it says so")
        everup.wait_for(lambda: everup.instance("web.1")["usage"], "usage is known again")
        assert "cpu_percent" in everup.status()["machine"]
        everup.wait_for(
            lambda: pair.crash() and in_a_group(everup) == grouped, "it is in a control group again"
        )
        pair.check(run=everup.instance("lab.1")["run"])


def in_a_group(everup: Everup) -> bool:
    return everup.events("instance.spawned", "lab.1")[-1]["cgroup"] is not None


def said(everup: Everup, text: str) -> bool:
    return any(text in e["detail"] for e in everup.events("facility.missing"))


def test_start_without_proc(everup: Everup, space: Space) -> None:
    pair = Pair(everup)
    pair.up(lambda: space.up("mount -t tmpfs none /proc"))
    try:
        assert said(everup, "/proc cannot be read")
        with Client(pair.web_port):
            pair.crash()
            pair.check(run=2)
    finally:
        space.uncover("/proc")
    everup.wait_for(lambda: everup.instance("web.1")["usage"], "usage is known")
    assert "cpu_percent" in everup.status()["machine"]
    pair.crash()
    pair.check(run=3)


def test_drain_without_proc(everup: Everup, space: Space) -> None:
    """Nobody can count its connections, so it is not cut off before its time."""
    pair = Pair(everup, drain_timeout="1s")
    pair.up(space.up)
    address = ("127.0.0.1", pair.web_port)
    with space.covered("/proc"), socket.create_connection(address) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")  # and no end of it
        everup.cli("stop", "web")
    draining = everup.events("instance.draining", "web.1")[-1]
    stopping = everup.events("instance.stopping", "web.1", after=draining["seq"])[-1]
    assert stopping["mono"] - draining["mono"] >= 0.99


def test_control_groups_are_gone(everup: Everup, space: Space) -> None:
    point = next((point for point, kind in mounts() if kind == "cgroup2"), None)
    pair = Pair(everup)
    pair.up(space.up)
    spawned = everup.events("instance.spawned", "lab.1")[-1]
    if point is None or spawned["cgroup"] is None:
        pytest.skip("no control groups here")
    with Client(pair.web_port):
        with space.covered(point):
            pair.crash()
            everup.wait_for(lambda: said(everup, "no control group can be had"), "it says so")
            pair.crash()
            assert everup.events("instance.spawned", "lab.1")[-1]["cgroup"] is None
        pair.crash()
        assert everup.events("instance.spawned", "lab.1")[-1]["cgroup"] == spawned["cgroup"]
        pair.check(run=everup.instance("lab.1")["run"])
