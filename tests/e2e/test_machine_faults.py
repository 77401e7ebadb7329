"""Faults of the machine under everup: services go on serving, everup says what it cannot do, and
does it again once it can."""

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import os
import shutil

import pytest
from _everup import Everup, alive
from _faults import Client, Pair, file_system, fill, read_only, small_disk


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
        assert "journal" in everup.cli("status").out
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
    with path.open("r+b", 0) as file:
        for at in range(0, path.stat().st_size, 1024):
            os.pwrite(file.fileno(), b"\xa5" * 700, at)


def truncated(path: Path) -> None:
    os.truncate(path, 0)


def replaced(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.write_bytes(b"no database at all\n" * 1000)


def old_one_restored(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM INTO ?", (f"{path}.old",))
    os.replace(f"{path}.old", path)


def wal_deleted(path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{path}{suffix}")


@pytest.mark.parametrize(
    ("losses", "kill"),
    [((all_deleted, truncated), False),
     ((deleted, overwritten, replaced, old_one_restored, wal_deleted), True)],
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
            everup.wait_for(lambda run=run: is_whole(everup, run), f"mended: {lose.__name__}")
    assert len(everup.instances()) == 5
    assert not everup.events("instance.lost")
    degraded = [e["reason"] for e in everup.events("journal.degraded")]
    facilities = [e["detail"] for e in everup.events("facility.missing")]
    print(degraded, facilities)


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
    pair = Pair(everup).up()
    with Client(pair.web_port), read_only(ext4):
        pair.crash()
        everup.wait_for(lambda: everup.status()["journal_degraded"], "journal_degraded is shown")
        everup.cli("scale", "more", "2")
        refused = everup.cli("reload", expect=None)
        print(refused)
        old = pair.engine
        os.kill(old, signal.SIGKILL)
        everup.wait_for(lambda: not alive(old), "the engine is gone")
        pair.crash()
    time.sleep(6)
    print(everup.engine_pid)
    everup.fail('x')
