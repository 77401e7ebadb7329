"""The journal under faults of the machine: real files, disks, limits and kills."""

import contextlib
import errno
import gc
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from everup.adapters import _journal_file as files
from everup.adapters import _journal_memory as memories
from everup.adapters.journal import Journal, JournalError, latest, read
from everup.model.action import Record
from everup.model.journal import Kind

CHILD = Path(__file__).with_name("_journal_child.py")


class Said(list[str]):
    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path, said: Said) -> Iterator[Journal]:
    journal = Journal(path, said)
    yield journal
    journal.close()


def record(kind: Kind = Kind.READY, subject: str = "web.1", **payload: object) -> Record:
    return Record(kind, subject, payload)


def fill(journal: Journal, n: int = 30) -> None:
    """Events 1..n; the last three are the state."""
    for i in range(n):
        journal.append([record(subject=f"web.{i % 3}", n=i)])


def settle(journal: Journal) -> None:
    """Two looks, as housekeeping takes them, the tender's work done between."""
    journal.retry()
    if journal._disk._watch.thread is not None:
        journal._disk._watch.thread.join()
    journal.retry()


def numbers(path: Path) -> list[int]:
    return [e.seq for e in read(path, limit=10**6)]


def degraded(path: Path) -> dict[str, object]:
    return read(path, kinds=[Kind.JOURNAL_DEGRADED])[-1].payload


def aside(path: Path) -> list[Path]:
    found = sorted(path.parent.glob(f"{path.name}.*-*"))
    return [p for p in found if not p.name.endswith(("-wal", "-shm"))]


def checkpoint(journal: Journal) -> None:
    """Everything into the main file, as the tender does it."""
    journal._disk._watch.tend(check=False)
    assert journal._disk._watch.thread is not None
    journal._disk._watch.thread.join()


def assert_whole(journal: Journal, path: Path) -> None:
    """It is written, what it remembers is in the file, and the next life takes it from there."""
    assert not journal.degraded
    assert latest(path) == journal.latest()
    last = journal.last_seq
    journal.append([record(Kind.STARTING)])
    assert numbers(path)[-1] == last + 1
    journal.close()
    again = Journal(path, journal._disk._say)
    assert again.last_seq == last + 1
    assert again.set_aside is None
    again.close()


# -- the file


@pytest.mark.parametrize("beside", [True, False])
def test_deleted(journal: Journal, path: Path, said: Said, beside: bool) -> None:
    fill(journal)
    before = journal.latest()
    for suffix in ("", "-wal", "-shm") if beside else ("",):
        os.unlink(f"{path}{suffix}")
    journal.append([record(Kind.STARTING)])  # goes where nobody can read it
    journal.retry()
    assert latest(path)[: len(before)] == before, "number, time and boot are those of before"
    assert numbers(path) == [28, 29, 30, 31, 32]
    facts = degraded(path)
    assert facts["reason"] == "deleted"
    assert facts["lost_events"] == 27
    assert len(said) == 2
    assert "is deleted" in said[0]
    assert_whole(journal, path)
    assert not aside(path)


def test_deleted_with_its_directory(tmp_path: Path, said: Said) -> None:
    path = tmp_path / "state" / "journal.db"
    path.parent.mkdir()
    journal = Journal(path, said)
    fill(journal)
    path.parent.rename(tmp_path / "gone")
    for _ in range(3):
        journal.append([record(Kind.STARTING)])
        journal.retry()
        assert journal.degraded
    path.parent.mkdir()
    journal.retry()
    assert numbers(path) == [28, 29, 30, 32, 33, 34], "31 had gone into the old file"
    assert len(said) == 2
    assert_whole(journal, path)


@pytest.mark.parametrize("content", [b"", b"no database" * 1000])
def test_replaced_by_junk(journal: Journal, path: Path, content: bytes) -> None:
    fill(journal)
    other = path.with_name("other")
    other.write_bytes(content)
    other.rename(path)
    journal.retry()
    assert numbers(path) == [28, 29, 30, 31]
    assert degraded(path)["reason"] == "replaced"
    (kept,) = aside(path)
    assert kept.read_bytes() == content
    assert_whole(journal, path)


def test_replaced_by_another_journal(journal: Journal, path: Path, tmp_path: Path) -> None:
    """What is running knows better than a file that somebody put there."""
    fill(journal)
    other = Journal(tmp_path / "other.db", journal._disk._say)
    fill(other, 500)
    other.close()
    os.rename(tmp_path / "other.db", path)
    journal.retry()
    assert numbers(path) == [28, 29, 30, 31]
    (kept,) = aside(path)
    assert len(numbers(kept)) == 500
    assert_whole(journal, path)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to("nowhere")])
def test_replaced_by_something_else(
    journal: Journal, path: Path, make: Callable[[Path], None]
) -> None:
    fill(journal)
    path.unlink()
    make(path)
    journal.retry()
    assert numbers(path) == [28, 29, 30, 31]
    assert_whole(journal, path)


def truncated(path: Path) -> None:
    os.truncate(path, 0)


def overwritten(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


def header_gone(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xff" * 200)


def pages_gone(path: Path) -> None:
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 600)


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [truncated, overwritten, header_gone, pages_gone, cut_short])
@pytest.mark.parametrize("flushed", [True, False])
def test_damaged_in_place(
    journal: Journal, path: Path, damage: Callable[[Path], None], flushed: bool
) -> None:
    fill(journal, 300)
    checkpoint(journal)
    fill(journal, 3)
    if flushed:
        checkpoint(journal)
    damage(path)
    journal.append([record(Kind.STARTING)])
    settle(journal)
    settle(journal)
    assert numbers(path)[:4] == [301, 302, 303, 304]
    assert str(degraded(path)["reason"]).startswith("corrupt")
    assert len(aside(path)) == 1
    assert_whole(journal, path)


def test_a_write_that_meets_damage_mends_at_once(journal: Journal, path: Path) -> None:
    fill(journal)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("DROP TABLE event")
    other.close()
    journal.append([record(Kind.STARTING)])
    assert numbers(path) == [28, 29, 30, 31, 32]
    assert_whole(journal, path)


@pytest.mark.parametrize("gone", [("-wal",), ("-shm",), ("-wal", "-shm")])
def test_the_files_beside_it_deleted(
    journal: Journal, path: Path, gone: tuple[str, ...], said: Said
) -> None:
    fill(journal)
    for suffix in gone:
        os.unlink(f"{path}{suffix}")
    journal.append([record(Kind.STARTING)])
    settle(journal)
    assert numbers(path) == list(range(1, 33)), "nothing is lost"
    assert degraded(path)["reason"] == "wal deleted"
    assert degraded(path)["lost_events"] == 0
    assert len(said) == 2
    assert_whole(journal, path)


def test_a_kill_after_the_mending_costs_nothing(journal: Journal, path: Path) -> None:
    """The operator's word is in the new file, and durable."""
    journal.append([Record(Kind.WANTED, "web.1", {"want": False}, durable=True)])
    fill(journal)
    path.unlink()
    journal.retry()
    assert latest(path)[0].kind == Kind.WANTED
    copy = path.with_name("copy.db")
    for suffix in ("", "-wal"):
        Path(f"{copy}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    assert latest(copy) == latest(path)


def test_again_and_again(journal: Journal, path: Path, said: Said) -> None:
    for n in range(12):
        fill(journal, 5)
        if n % 2:
            path.unlink()
        else:
            os.replace(_junk(path), path)
        journal.retry()
        assert not journal.degraded
    assert len(aside(path)) <= 5
    assert len(numbers(path)) == 5
    assert journal.last_seq == 12 * 6
    assert_whole(journal, path)


def _junk(path: Path) -> Path:
    junk = path.with_name("junk")
    junk.write_bytes(b"junk")
    return junk


def test_a_look_changes_nothing(journal: Journal, path: Path, said: Said) -> None:
    fill(journal)
    for _ in range(3):
        settle(journal)
        checkpoint(journal)
        latest(path)
        read(path)
    assert said == []
    assert numbers(path) == list(range(1, 31))


def test_the_memory_of_the_state_is_bounded(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memories, "MAX_STATE", 10)
    journal.append([record(subject=f"web.{n}") for n in range(25)])
    assert [e.seq for e in journal.latest()] == list(range(16, 26))


# -- the disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "everup-test", str(directory)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("may not mount")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def full(directory: Path) -> Path:
    ballast = directory / "ballast"
    with ballast.open("ab", 0) as file:
        for size in (65536, 4096, 512):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    return ballast


def test_disk_full(disk: Path, said: Said) -> None:
    path = disk / "journal.db"
    journal = Journal(path, said)
    fill(journal)
    ballast = full(disk)
    for n in range(300):
        journal.append([record(Kind.STARTING, n=n, text="x" * 500)])
        if n % 50 == 0:
            journal.retry()
    assert journal.degraded
    assert len(said) == 1
    ballast.unlink()
    journal.retry()
    assert not journal.degraded
    assert numbers(path) == list(range(1, 332))
    assert "full" in str(degraded(path)["reason"])
    assert degraded(path)["lost_events"] == 0
    assert_whole(journal, path)


def test_disk_full_and_the_journal_deleted_to_make_room(disk: Path, said: Said) -> None:
    path = disk / "journal.db"
    journal = Journal(path, said)
    fill(journal)
    ballast = full(disk)
    path.unlink()
    for _ in range(5):
        journal.append([record(Kind.STARTING, text="x" * 5000)])
        with ballast.open("ab", 0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 512)
        journal.retry()
    ballast.unlink()
    journal.retry()
    assert_whole(journal, path)
    assert numbers(path)[:3] == [28, 29, 30]
    assert not aside(path), "its own unfinished file is no evidence"


def test_a_start_on_a_full_disk_holds_and_collides_with_nothing(disk: Path, said: Said) -> None:
    """What is in the WAL alone can't always be read then; numbers must not be given twice."""
    path = disk / "journal.db"
    first = Journal(path, said)
    fill(first)
    for suffix in ("", "-wal"):  # as a kill leaves it
        Path(f"{path}{suffix}x").write_bytes(Path(f"{path}{suffix}").read_bytes())
    first.close()
    for suffix in ("", "-wal"):
        os.rename(f"{path}{suffix}x", f"{path}{suffix}")
    ballast = full(disk)
    journal = Journal(path, said)
    assert journal.degraded
    journal.append([record(Kind.STARTING, "held.1")])
    ballast.unlink()
    journal.retry()
    entries = read(path)
    assert [e.seq for e in entries] == list(range(1, 33))
    assert entries[30].subject == "held.1"
    assert_whole(journal, path)


@pytest.mark.parametrize("exists", [True, False])
def test_a_start_on_a_read_only_disk(disk: Path, said: Said, exists: bool) -> None:
    path = disk / "journal.db"
    if exists:
        first = Journal(path, said)
        fill(first)
        first.close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    if not exists:
        with pytest.raises(JournalError, match="Read-only"):
            Journal(path, said)
    journal = Journal(path, said, hold=True)
    journal.append([record(Kind.STARTING)])
    journal.retry()
    assert journal.degraded
    assert len(journal.latest()) == (4 if exists else 1)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    journal.retry()
    assert numbers(path) == list(range(1, 33 if exists else 3))
    assert_whole(journal, path)


def test_a_directory_that_may_not_be_written() -> None:
    """As somebody who is not root, in a process of its own: deleted, and no new one can be made."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, 65534, 65534)

        def work() -> None:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            _unwritable(Path(name))

        in_a_child(work)


def in_a_child(work: Callable[[], None]) -> None:
    """What would spoil this process."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def _unwritable(state: Path) -> None:
    said = Said()
    path = state / "journal.db"
    journal = Journal(path, said)
    fill(journal)
    path.unlink()
    state.chmod(0o500)
    for _ in range(3):
        journal.append([record(Kind.STARTING)])
        journal.retry()
        assert journal.degraded
    state.chmod(0o000)
    journal.append([record(Kind.STARTING)])
    journal.retry()
    assert journal.degraded
    state.chmod(0o700)
    journal.retry()
    assert numbers(path)[:3] == [28, 29, 30]
    assert numbers(path)[-1] == 35
    assert_whole(journal, path)


# -- descriptors and memory


def take_the_rest() -> list[int]:
    taken: list[int] = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    return taken


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    gc.collect()  # what other tests left open
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Holes are filled first: what the journal gives back must be below the limit.
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    fillers = [os.dup(0)]
    while fillers[-1] <= highest:
        fillers.append(os.dup(0))
    limit = fillers.pop()
    os.close(limit)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        with pytest.raises(OSError) as error:  # noqa: PT011
            os.dup(0)
        assert error.value.errno == errno.EMFILE
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)


def test_out_of_descriptors(journal: Journal, path: Path, said: Said) -> None:
    """What is open goes on; a new file has to wait."""
    fill(journal)
    with no_descriptors():
        journal.append([record(Kind.STARTING)])
        journal._disk._watch.tend(check=True)
        settle(journal)
        assert not journal.degraded
        # As if another part of everup had taken what a mending sets free.
        journal._disk.degrade("test", "test")
        journal._disk._leave()
        hoard = take_the_rest()
        assert len(hoard) >= 3
        journal.append([record(Kind.STARTING)])
        for _ in range(3):
            journal.retry()
            journal.append([record(Kind.STARTING)])
            assert journal.degraded
        for fd in hoard:
            os.close(fd)
        journal.retry()
        assert not journal.degraded
    assert numbers(path) == list(range(1, 37))
    assert len(said) == 2
    assert_whole(journal, path)


def test_a_start_without_descriptors(path: Path, said: Said) -> None:
    first = Journal(path, said)
    fill(first)
    first.close()
    with no_descriptors():
        journal = Journal(path, said)
        journal.append([record(Kind.STARTING, "held.1")])
        journal.append([record(Kind.STARTING, "held.1")])
        journal.retry()
        assert journal.degraded
        assert journal.last_seq == 2, "nothing could be read"
    journal.retry()
    assert numbers(path) == list(range(1, 34)), "numbers are given once"
    assert [e.subject for e in read(path, after=30)] == ["held.1", "held.1", "everup"]
    assert_whole(journal, path)


class Hungry:
    """Memory runs out while it is written."""

    def __init__(self, error: type[BaseException] = MemoryError) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error


def test_out_of_memory_while_a_record_is_encoded(journal: Journal, path: Path, said: Said) -> None:
    journal.append([record(n=1), record(subject="web.2", n=2, what=Hungry()), record(n=3)])
    assert journal.degraded
    journal.append([record(n=4)])
    entries = read(path)
    assert [e.payload.get("n") for e in entries] == [1, 4, None]
    assert [e.seq for e in entries] == sorted(e.seq for e in entries)
    assert degraded(path)["lost_events"] == 2
    assert degraded(path)["reason"] == "out of memory"
    assert_whole(journal, path)


def test_out_of_memory_in_the_database(path: Path) -> None:
    """SQLite's own heap limit: it answers SQLITE_NOMEM, which Python raises as MemoryError."""

    def work() -> None:
        journal = Journal(path, Said())
        fill(journal)
        with contextlib.suppress(MemoryError):
            journal._disk._db.execute("PRAGMA hard_heap_limit = 1")  # type: ignore[union-attr]
        for n in range(3):
            journal.append([record(Kind.STARTING, n=n)])
            journal.retry()
            journal.prune(3600)
        assert journal.degraded
        assert len(journal._memory.held) == 3
        assert len(journal.latest()) == 4

    in_a_child(work)
    assert numbers(path) == list(range(1, 31))


def test_out_of_memory(path: Path) -> None:
    """The process's own limit of address space, met by one large record."""

    def work() -> None:
        said = Said()
        journal = Journal(path, said)
        fill(journal)
        large = "x" * (64 * 2**20)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 16 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        journal.append([record(Kind.STARTING, text=large)])
        assert journal.degraded
        journal.append([record(Kind.STARTING, text="small")])
        assert not journal.degraded
        assert len(said) == 2

    in_a_child(work)
    assert numbers(path) == [*range(1, 31), 32, 33]
    assert degraded(path)["lost_events"] == 1


def test_out_of_memory_in_a_listener(journal: Journal, path: Path) -> None:
    def listener(_entries: object) -> None:
        raise MemoryError

    journal.listeners.append(listener)
    journal.append([record()])
    assert numbers(path) == [1]


@pytest.mark.parametrize("payload", [{"x": Hungry(ValueError)}, {("a", 1): 1}, {"x": "\udcff"}])
def test_any_payload_is_written(journal: Journal, path: Path, payload: dict[str, object]) -> None:
    payload["self"] = payload
    journal.append([Record(Kind.READY, "web.1", payload)])
    assert not journal.degraded
    assert "not_storable" in read(path)[0].payload


def test_any_subject_is_written(journal: Journal, path: Path) -> None:
    journal.append([record(subject="a\udcff"), record(subject="ü")])
    assert not journal.degraded
    assert [e.subject for e in read(path)] == ["a\\udcff", "ü"]


def test_attempts_that_cost_time_are_spaced(journal: Journal, path: Path) -> None:
    """Another that holds the lock costs one wait, not one for each event."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    journal._disk._db.execute("PRAGMA busy_timeout = 1")  # type: ignore[union-attr]
    journal.append([record()])
    statements: list[str] = []
    journal._disk._db.set_trace_callback(statements.append)  # type: ignore[union-attr]
    journal._disk._try_at += 3600
    for _ in range(20):
        journal.append([record()])
    assert statements == []
    other.execute("ROLLBACK")
    other.close()
    journal.retry()
    assert numbers(path) == list(range(1, 23))


def test_a_connection_that_is_of_no_use_any_more_is_left(path: Path, said: Said) -> None:
    now = [100.0]
    journal = Journal(path, said, monotonic=lambda: now[0])
    fill(journal)
    journal._disk._db.execute("PRAGMA query_only = 1")  # type: ignore[union-attr]
    journal.append([record(Kind.STARTING)])
    now[0] += 9.0
    journal.retry()
    assert journal.degraded
    now[0] += 2.0
    journal.retry()
    assert numbers(path) == list(range(1, 33))
    assert degraded(path)["for_s"] == 11.0
    assert_whole(journal, path)


# -- /proc and kills


def test_an_unknown_boot(path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", _denied)
    assert files.boot_id() == ""
    journal = Journal(path, said)
    journal.append([record()])
    journal.close()
    assert read(path)[0].boot == ""


def _denied(*_args: object, **_options: object) -> str:
    raise PermissionError(errno.EACCES, "denied")


def rounds(*arguments: str) -> list[dict[str, object]]:
    command = [sys.executable, str(CHILD), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_killed_at_random_under_appends(path: Path) -> None:
    found = rounds(str(path), "30")
    assert len(found) == 30
    assert sum(bool(r["written"]) for r in found) > 5
    for r in found:
        assert r["missing"] == 0, r
        assert r["check"] == "ok", r
        assert r["state"], r
        assert not r["set_aside"], r
        assert not r["degraded"], r


def test_killed_before_each_statement(tmp_path: Path) -> None:
    """Of a first start and of a migration, and of the appends that follow."""
    found = rounds(str(tmp_path), "each")
    assert {r["kind"] for r in found} == {"new", "v1"}
    assert len(found) > 40
    for r in found:
        assert (r["missing"], r["check"], r["version"]) == (0, "ok", 2), r
        assert r["state"], r
        assert not r["set_aside"], r
        if r["kind"] == "v1":
            assert int(str(r["events"])) >= 1, r
            assert len(list(r["said"])) <= 1, r  # type: ignore[call-overload]
