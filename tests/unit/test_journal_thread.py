"""The journal's thread on a disk that does not answer: nobody else waits for it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from everup.adapters import _journal_copy as copies
from everup.adapters import _journal_disk as disks
from everup.adapters import journal as journals
from everup.adapters.journal import Journal, JournalError, latest, read
from everup.model.action import Record
from everup.model.journal import Entry, Kind

LONG_S = 30.0


class Gate:
    """A disk: ``shut``, and every statement waits."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Event()

    def shut(self) -> None:
        self.waiting.clear()
        self.open.clear()

    def pass_(self) -> None:
        if not self.open.is_set():
            self.waiting.set()
            assert self.open.wait(LONG_S)


class Slow:
    """A connection behind the gate."""

    def __init__(self, db: Any, gate: Gate) -> None:
        self._db, self._gate = db, gate

    def __getattr__(self, name: str) -> Any:
        self._gate.pass_()
        return getattr(self._db, name)

    def __enter__(self) -> Any:
        return self._db.__enter__()

    def __exit__(self, *error: Any) -> Any:
        return self._db.__exit__(*error)


class Clock:
    """Goes on by itself, and by hand."""

    def __init__(self) -> None:
        self.more = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.more


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate, connect = Gate(), disks.files.connect

    def slow(*arguments: Any) -> Any:
        gate.pass_()
        return Slow(connect(*arguments), gate)

    monkeypatch.setattr(disks.files, "connect", slow)
    yield gate
    gate.open.set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shm").mkdir()
    monkeypatch.setattr(copies, "PLACES", (str(tmp_path / "shm"),))
    return tmp_path / "journal.db"


@pytest.fixture
def begin(path: Path, said: list[str], clock: Clock) -> Iterator[Callable[[], Journal]]:
    lives: list[Journal] = []

    def life() -> Journal:
        lives.append(Journal(path, said.append, hold=True, thread=True, monotonic=clock))
        return lives[-1]

    yield life
    for journal in lives:
        journal.close()


def record(n: int, *, durable: bool = False, kind: Kind = Kind.WANTED) -> Record:
    return Record(kind, f"web.{n % 3}", {"n": n}, durable)


def freeze(gate: Gate, journal: Journal) -> None:
    """Until the thread waits for the disk with what it has."""
    gate.shut()
    journal.append([record(0)])
    journal.kick()
    assert gate.waiting.wait(LONG_S)


def numbers(path: Path) -> list[int]:
    return [e.seq for e in read(path)]


def test_what_was_appended_is_in_the_file_soon(begin: Callable[[], Journal], path: Path) -> None:
    journal = begin()
    told: list[int] = []
    journal.listeners.append(lambda entries: told.extend(e.seq for e in entries))
    for n in range(20):
        journal.append([record(n), record(n + 1)])
    assert journal.flush(LONG_S)
    assert numbers(path) == list(range(1, 41))
    assert latest(path) == journal.latest()
    journal.close()
    assert told == list(range(1, 41))
    assert not os.listdir(path.parent / "shm")


def test_a_durable_record_is_waited_for(begin: Callable[[], Journal], path: Path) -> None:
    journal = begin()
    journal.append([record(1, durable=True)])
    assert numbers(path) == [1]


def test_nobody_waits_for_a_disk_that_does_not_answer(
    begin: Callable[[], Journal], path: Path, gate: Gate, clock: Clock, said: list[str]
) -> None:
    journal = begin()
    freeze(gate, journal)
    for n in range(1, 50):
        journal.append([record(n)])
        journal.kick()
        journal.retry()
    assert not journal.degraded
    assert values(latest(path)) == {"web.0": 48, "web.1": 49, "web.2": 47}, "a kill costs nothing"
    clock.more += 2.0
    journal.append([record(50)])
    journal.kick()
    assert journal.degraded
    assert journal.reason == "the disk does not answer"
    gate.open.set()
    assert _settled(journal)
    assert numbers(path) == list(range(1, 53))
    (event,) = read(path, kinds=[Kind.JOURNAL_DEGRADED])
    assert event.payload["lost_events"] == 0
    assert event.payload["reason"] == "the disk does not answer"
    assert not journal.degraded
    assert len(said) == 2
    assert "Services go on" in said[0]
    assert "if everup itself is killed" not in said[0]


def _settled(journal: Journal) -> bool:
    until = time.monotonic() + LONG_S
    while journal.degraded and time.monotonic() < until:
        time.sleep(0.01)
    return journal.flush(LONG_S)


def values(entries: list[Entry]) -> dict[str, object]:
    return {e.subject: e.payload["n"] for e in entries if e.kind == Kind.WANTED}


def test_it_is_waited_for_once_and_then_no_more(
    begin: Callable[[], Journal], path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no copy can be kept, too."""
    monkeypatch.setattr(copies, "PLACES", ())
    journal = begin()
    freeze(gate, journal)  # waits
    waits: list[float | None] = []
    condition = journal._writer._turn  # type: ignore[union-attr]
    monkeypatch.setattr(condition, "wait_for", lambda _test, limit: waits.append(limit) or False)
    for n in range(1, 20):
        journal.append([record(n, durable=True)])
    assert waits == []
    monkeypatch.undo()
    gate.open.set()
    assert _settled(journal)
    assert numbers(path)[:20] == list(range(1, 21))
    journal.append([record(20)])
    assert numbers(path)[-1] == journal.last_seq, "again, once it has answered"


def test_memory_is_bounded(
    begin: Callable[[], Journal],
    path: Path,
    gate: Gate,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("everup.adapters._journal_memory.MAX_HELD", 10)
    journal = begin()
    freeze(gate, journal)
    clock.more += 2.0
    for n in range(1, 25):
        journal.append([record(n)])
        journal.kick()
    assert len(journal._memory.held) == 10
    gate.open.set()
    assert _settled(journal)
    facts = read(path, kinds=[Kind.JOURNAL_DEGRADED])[-1].payload
    assert facts["lost_events"] == 14, "the first one was on its way"
    assert numbers(path)[0] == 1
    assert numbers(path)[1:11] == list(range(16, 26))


def test_a_start_goes_by_the_copy(
    begin: Callable[[], Journal], path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            first = Journal(path, print, hold=True, thread=True)
            for n in range(30):
                first.append([record(n)])
            first.flush(LONG_S)
            gate.shut()
            first.append([record(30)])
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    monkeypatch.setattr(journals, "_BEGIN_S", 0.05)
    gate.shut()
    journal = begin()
    assert journal.degraded
    assert values(journal.latest()) == {"web.0": 30, "web.1": 28, "web.2": 29}
    assert journal.last_seq == 31
    journal.append([record(31)])
    gate.open.set()
    assert _settled(journal)
    assert numbers(path)[:32] == list(range(1, 33))
    assert values(latest(path)) == {"web.0": 30, "web.1": 31, "web.2": 29}


def test_what_opening_raises_is_raised(path: Path) -> None:
    import sqlite3

    Journal(path, print).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JournalError, match=r"newer everup \(format 99"):
        Journal(path, print, hold=True, thread=True)


def test_an_end_does_not_wait_for_the_disk(
    begin: Callable[[], Journal], path: Path, gate: Gate
) -> None:
    journal = begin()
    freeze(gate, journal)
    journal.append([record(1, durable=True)])  # from then on it is known
    journal.close()
    assert values(latest(path)) == {"web.0": 0, "web.1": 1}, "for the next life"
