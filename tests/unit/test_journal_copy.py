"""The journal's copy in memory: an engine killed while its journal is not what it should be."""

import errno
import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from everup.adapters import _journal_copy as copies
from everup.adapters import journal as journals
from everup.adapters.journal import Journal, JournalError, latest, read
from everup.model.action import Record
from everup.model.journal import Entry, Kind


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The memory file system of these tests."""
    place = tmp_path / "shm"
    place.mkdir()
    monkeypatch.setattr(copies, "PLACES", (str(tmp_path / "none"), str(place)))
    return place


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "journal.db"


def quiet(_text: str) -> None:
    pass


def live(path: Path, work: Callable[[Journal], None]) -> None:
    """An engine that does it and is killed."""
    pid = os.fork()
    if pid == 0:
        try:
            work(Journal(path, quiet, hold=True))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "its work failed"


def fill(journal: Journal, count: int = 30) -> None:
    """Events 1 to ``count``, of three subjects."""
    for number in range(count):
        journal.append([Record(Kind.WANTED, f"web.{number % 3 + 1}", {"n": number})])


def broken(journal: Journal) -> None:
    """From now on nothing can be written, as on a full disk."""
    assert journal._disk._db is not None
    journal._disk._db.execute("PRAGMA query_only = 1")


def values(entries: list[Entry]) -> dict[str, object]:
    return {e.subject: e.payload["n"] for e in entries if e.kind == Kind.WANTED}


@pytest.fixture
def again(path: Path) -> Iterator[Callable[[], Journal]]:
    """The next life."""
    journals: list[Journal] = []

    def begin() -> Journal:
        journals.append(Journal(path, quiet, hold=True))
        return journals[-1]

    yield begin
    for journal in journals:
        journal.close()


LAST = {"web.1": 27, "web.2": 28, "web.3": 29}


def test_killed_while_it_could_not_write(
    path: Path, again: Callable[[], Journal], place: Path
) -> None:
    def work(journal: Journal) -> None:
        fill(journal, 20)
        broken(journal)
        for number in range(20, 30):
            journal.append([Record(Kind.WANTED, f"web.{number % 3 + 1}", {"n": number})])
        assert journal.degraded

    live(path, work)
    assert len(read(path)) < 30, "else this test is none"
    assert values(latest(path)) == LAST, "who only looks knows it as well"
    journal = again()
    assert values(journal.latest()) == LAST
    assert journal.last_seq == 30
    journal.append([Record(Kind.READY, "web.1")])
    assert [e.seq for e in read(path)] == list(range(1, 32)), "each once, in order"
    journal.close()
    assert not os.listdir(place)


@pytest.mark.parametrize("fault", ["deleted", "with its wal", "zeroed", "junk", "moved", "old"])
def test_killed_just_after_the_file_was_lost(
    path: Path, again: Callable[[], Journal], fault: str, place: Path
) -> None:
    def work(journal: Journal) -> None:
        fill(journal, 10)
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{path}{suffix}.old")
        for number in range(10, 30):
            journal.append([Record(Kind.WANTED, f"web.{number % 3 + 1}", {"n": number})])
        match fault:
            case "deleted":
                path.unlink()
            case "with its wal":
                for suffix in ("", "-wal", "-shm"):
                    os.unlink(f"{path}{suffix}")
            case "zeroed":
                path.write_bytes(bytes(path.stat().st_size))
            case "junk":
                path.unlink()
                path.write_bytes(b"junk" * 5000)
            case "moved":
                path.rename(path.with_name("elsewhere"))
            case _:
                for suffix in ("", "-wal"):
                    os.replace(f"{path}{suffix}.old", f"{path}{suffix}")
                os.unlink(f"{path}-shm")

    live(path, work)
    journal = again()
    assert values(journal.latest()) == LAST
    assert journal.last_seq == 30
    journal.append([Record(Kind.READY, "web.1")])
    assert journal.last_seq == 31
    assert not journal.degraded
    assert latest(path) == journal.latest()
    assert len(os.listdir(place)) == 1, "its own"


def test_lives_that_could_never_write(path: Path, again: Callable[[], Journal]) -> None:
    """One after the other, none of which can even read the file; then it is there again."""
    live(path, lambda journal: fill(journal, 20))
    path.rename(path.with_name("hidden"))
    path.mkdir()  # cannot be opened, whatever one does
    for number in (27, 28, 29):

        def work(journal: Journal, number: int = number) -> None:
            assert journal.degraded
            assert journal.last_seq == 20 + number - 27
            journal.append([Record(Kind.WANTED, f"web.{number % 3 + 1}", {"n": number})])

        live(path, work)
    journal = again()
    assert values(journal.latest()) == LAST
    path.rmdir()
    path.with_name("hidden").rename(path)
    journal.retry()
    assert not journal.degraded
    assert values(latest(path)) == LAST
    assert [e.seq for e in read(path)] == list(range(1, 25)), "23 and what it says of itself"


def test_it_stays_small(path: Path, again: Callable[[], Journal], place: Path) -> None:
    journal = again()
    (name,) = place.iterdir()
    assert stat.S_IMODE(name.stat().st_mode) == 0o600
    for number in range(3000):
        text = "x" * 1000
        journal.append([Record(Kind.WANTED, "web.1", {"n": number, "text": text})])
    (name,) = place.iterdir()
    assert name.stat().st_size < 1.1 * copies._LEAST_BYTES
    assert values(journal.latest()) == {"web.1": 2999}


def test_nothing_of_others_is_read(
    path: Path, again: Callable[[], Journal], place: Path, tmp_path: Path
) -> None:
    """The place is everybody's: a link, a pipe, a directory and half a line do no harm."""
    live(path, fill)
    (name,) = place.iterdir()
    secret = tmp_path / "secret"
    secret.write_text('[999,1,1,"","service.wanted","web.1","{}"]\n')
    prefix = copies._prefix(path)
    (place / f"{prefix}link").symlink_to(secret)
    (place / f"{prefix}dir").mkdir()
    os.mkfifo(place / f"{prefix}pipe")
    (place / f"{prefix}junk").write_bytes(b"\xff\xfe\n[1]\n{}\nnull\n")
    with name.open("ab") as file:
        file.write(b'[31, 5, 5, "", "service.wa')
    if os.getuid() == 0:
        other = place / f"{prefix}other"
        other.write_text(secret.read_text())
        os.chown(other, 65534, 65534)
    journal = again()
    assert values(journal.latest()) == LAST
    assert journal.last_seq == 30


def test_without_a_place(
    path: Path, again: Callable[[], Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on without, says so when it matters, and makes the copy once that can be."""
    places, copies.PLACES = copies.PLACES, ()
    said: list[str] = []
    journal = Journal(path, said.append, hold=True)
    fill(journal)
    broken(journal)
    fill(journal)
    assert "if everup itself is killed" in said[-1]
    monkeypatch.setattr(copies, "PLACES", places)
    journal.retry()
    assert journal._copy.there
    assert len(copies.found(path)) >= 30
    journal.close()


def test_the_place_is_full(
    path: Path, again: Callable[[], Journal], monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    """A copy with a gap is worse than none."""
    journal = again()
    fill(journal, 10)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(copies, "_put", full)
        fill(journal, 1)
        assert not journal._copy.there
        assert not list(place.iterdir())
        journal.retry()
        assert not list(place.iterdir())
    journal.retry()
    assert values(latest(path))["web.1"] == 0
    assert len(copies.found(path)) == 3


def test_only_where_services_may_run_already(path: Path, place: Path) -> None:
    journal = Journal(path, quiet)
    fill(journal)
    assert not list(place.iterdir())
    journal.close()


def test_left_at_the_end_if_it_was_not_written(path: Path, place: Path) -> None:
    journal = Journal(path, quiet, hold=True)
    fill(journal)
    broken(journal)
    fill(journal)
    journal.close()
    assert len(list(place.iterdir())) == 1
    journal = Journal(path, quiet, hold=True)
    journal.retry()
    journal.close()
    assert not list(place.iterdir())
    assert len(read(path)) >= 60


def test_a_first_life_still_refuses(path: Path, place: Path) -> None:
    path.parent.rmdir()
    with pytest.raises(JournalError):
        Journal(path, quiet)
    assert journals.latest(path) == []
