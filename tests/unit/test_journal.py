"""The journal on a real SQLite file."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from everup.adapters import _journal_file as files
from everup.adapters import _journal_memory as memories
from everup.adapters import journal as journals
from everup.adapters.journal import Journal, JournalError, latest, read
from everup.model.action import Record
from everup.model.journal import Entry, Kind


class Said(list[str]):
    """What the journal told its owner."""

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


def seqs(entries: Sequence[Entry]) -> list[int]:
    return [entry.seq for entry in entries]


def break_it(journal: Journal) -> None:
    journal._disk._db.execute("PRAGMA query_only = ON")


def mend_it(journal: Journal) -> None:
    journal._disk._db.execute("PRAGMA query_only = OFF")


def test_what_was_appended_is_read_in_order(journal: Journal, path: Path) -> None:
    before = time.time()
    journal.append([record(Kind.STARTING, run=1), record(Kind.READY, run=1, detail="ü\n\0")])
    journal.append([record(Kind.READY, "web.2", where=Path("/x"))])  # any payload can be written
    entries = read(path)
    assert seqs(entries) == [1, 2, 3]
    assert journal.last_seq == 3
    assert entries[1].payload == {"run": 1, "detail": "ü\n\0"}
    assert entries[2].payload == {"where": "/x"}
    assert all(before <= e.time <= time.time() for e in entries)
    assert {e.boot for e in entries} == {journals.boot_id()}
    assert entries[0].mono <= entries[2].mono


def test_what_a_step_has_decided_carries_the_time_of_the_step(path: Path, said: Said) -> None:
    clock = [100.0]
    journal = Journal(path, said, monotonic=lambda: clock[0])
    clock[0] = 100.25  # so long the step took
    journal.append([record(run=1), record(run=2)], 100.0)
    journal.append([record(run=3)])  # of no step
    journal.append([record(run=4)], 100.2)  # what its step waited for was entered meanwhile
    journal.append([record(run=5)], 101.0)
    first, second, third, fourth, last = (entry.mono for entry in read(path))
    assert (first, second, third, last) == (100.0, 100.0, 100.25, 101.0)
    assert third < fourth < last
    journal.close()


def test_numbers_go_on_in_the_next_life(journal: Journal, path: Path, said: Said) -> None:
    journal.append([record(), record()])
    journal.close()
    after = Journal(path, said)
    after.append([record()])
    after.close()
    assert seqs(read(path)) == [1, 2, 3]
    assert said == []
    assert after.set_aside is None


def test_it_outlives_a_kill(path: Path, said: Said) -> None:
    """What is committed is there for another connection though this one was never closed."""
    journal = Journal(path, said)
    journal.append([record()])
    assert seqs(read(path)) == [1]
    assert seqs(latest(path)) == [1]
    journal.close()


def test_filters(journal: Journal, path: Path) -> None:
    journal.append(
        [
            record(Kind.STARTING, "web.1"),
            record(Kind.READY, "web.1"),
            record(Kind.READY, "web.2"),
            record(Kind.BALANCE, "web"),
            record(Kind.READY, "webmail.1"),
            record(Kind.ENGINE_STARTED, "everup"),
        ]
    )
    assert seqs(read(path, after=4)) == [5, 6]
    assert seqs(read(path, limit=2)) == [1, 2]
    assert seqs(read(path, last=2)) == [5, 6]
    assert seqs(read(path, after=5, last=2)) == [6]
    assert seqs(read(path, subjects=["web"])) == [1, 2, 3, 4]
    assert seqs(read(path, subjects=["web.1", "everup"])) == [1, 2, 6]
    assert seqs(read(path, kinds=["instance.*"])) == [1, 2, 3, 5]
    assert seqs(read(path, kinds=["instance.ready", "balance.changed"])) == [2, 3, 4, 5]
    assert seqs(read(path, subjects=["web"], kinds=["instance.ready"], last=1)) == [3]
    assert read(path, subjects=["nobody"]) == []


def test_times_are_filters_too(journal: Journal, path: Path) -> None:
    journal.append([record()])
    moment = read(path)[0].time
    assert seqs(read(path, since=moment, until=moment)) == [1]
    assert read(path, since=moment + 1) == []
    assert read(path, until=moment - 1) == []


@pytest.mark.parametrize("text", ["' OR 1=1 --", "%", "_", '"', "\0", "ü"])
def test_no_filter_is_code(journal: Journal, path: Path, text: str) -> None:
    journal.append([record(), record(Kind.BALANCE, "web")])
    assert read(path, subjects=[text], limit=10) == []
    assert len(read(path)) == 2


def test_latest_is_the_last_of_each_kind_and_subject(journal: Journal, path: Path) -> None:
    journal.append(
        [
            record(Kind.READY, "web.1", n=1),
            record(Kind.READY, "web.2", n=2),
            record(Kind.STARTING, "web.1", n=3),
            record(Kind.READY, "web.1", n=4),
        ]
    )
    assert [e.payload["n"] for e in latest(path)] == [2, 3, 4]


def test_listeners_get_each_batch_also_while_writing_fails(journal: Journal) -> None:
    batches: list[list[int]] = []
    journal.listeners.append(lambda entries: batches.append(seqs(entries)))
    journal.append([record(), record()])
    break_it(journal)
    journal.append([record()])
    assert batches == [[1, 2], [3]]


@pytest.mark.parametrize("junk", [b"no database at all " * 100, b"\0" * 8192])
def test_what_is_no_database_is_set_aside(path: Path, said: Said, junk: bytes) -> None:
    path.write_bytes(junk)
    journal = Journal(path, said)
    journal.append([record()])
    journal.close()
    assert seqs(read(path)) == [1]
    assert journal.set_aside is not None
    assert journal.set_aside.read_bytes() == junk  # evidence
    assert journal.set_aside.parent == path.parent


def test_a_damaged_page_is_set_aside(path: Path, said: Said) -> None:
    journal = Journal(path, said)
    journal.append([record(text="x" * 200) for _ in range(500)])
    journal._disk._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    journal.close()
    data = bytearray(path.read_bytes())
    assert len(data) > 10 * 4096
    for page in range(3, len(data) // 4096):
        data[page * 4096 : page * 4096 + 400] = b"\xff" * 400
    path.write_bytes(data)
    again = Journal(path, said)
    again.append([record()])
    again.close()
    assert again.set_aside is not None
    assert seqs(read(path)) == [1]


def test_a_newer_format_is_refused_and_left_alone(path: Path, said: Said) -> None:
    Journal(path, said).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JournalError, match=r"newer everup \(format 99"):
        Journal(path, said)
    assert path.exists()
    assert not list(path.parent.glob("*.corrupt-*"))


def test_what_a_killed_start_left_does_no_harm(path: Path, said: Said) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}.new{suffix}").write_bytes(b"half")
    journal = Journal(path, said)
    journal.append([record()])
    journal.close()
    assert seqs(read(path)) == [1]
    assert not list(path.parent.glob("*.new*"))


def test_a_wal_without_its_journal_is_not_taken_for_its_own(
    journal: Journal, path: Path, said: Said
) -> None:
    journal.append([record(), record()])
    kept = Path(f"{path}-wal").read_bytes()
    journal.close()
    path.unlink()
    Path(f"{path}-wal").write_bytes(kept)
    again = Journal(path, said)
    again.append([record()])
    again.close()
    assert seqs(read(path)) == [1]
    assert said == []


def test_a_link_to_another_disk_stays_one(tmp_path: Path, path: Path, said: Said) -> None:
    (tmp_path / "other").mkdir()
    path.symlink_to(tmp_path / "other" / "real.db")
    journal = Journal(path, said)
    journal.append([record()])
    journal.retry()
    assert path.is_symlink()
    assert seqs(read(path)) == [1]
    assert said == []
    journal.close()


def test_a_directory_that_is_missing_is_told(tmp_path: Path, said: Said) -> None:
    with pytest.raises((JournalError, OSError), match="nowhere"):
        Journal(tmp_path / "nowhere" / "journal.db", said)


def test_events_wait_in_memory_and_are_written_as_soon_as_that_works(
    journal: Journal, path: Path, said: Said
) -> None:
    journal.append([record(n=1)])
    break_it(journal)
    journal.append([record(n=2)])
    journal.append([record(n=3)])
    journal.retry()
    assert journal.degraded
    assert seqs(read(path)) == [1]
    assert len(said) == 1  # once, not for each
    assert "cannot write the journal" in said[0]

    mend_it(journal)
    journal.retry()
    assert not journal.degraded
    entries = read(path)
    assert [e.payload.get("n") for e in entries] == [1, 2, 3, None]
    assert entries[3].kind == Kind.JOURNAL_DEGRADED
    assert entries[3].payload["lost_events"] == 0
    assert len(said) == 2
    assert "0 events lost" in said[1]

    journal.retry()
    journal.append([record(n=4)])
    assert seqs(read(path)) == [1, 2, 3, 4, 5]


def test_it_can_fail_again_and_says_so_again(journal: Journal, path: Path, said: Said) -> None:
    for _ in range(2):
        break_it(journal)
        journal.append([record()])
        mend_it(journal)
        journal.append([record()])
    assert len(said) == 4
    assert seqs(read(path)) == list(range(1, 7))
    assert len(read(path, kinds=[Kind.JOURNAL_DEGRADED])) == 2


def test_a_durable_record_that_fails_is_held_as_well(journal: Journal, path: Path) -> None:
    break_it(journal)
    journal.append([Record(Kind.WANTED, "web.1", {"want": False}, durable=True)])
    mend_it(journal)
    journal.retry()
    assert read(path)[0].kind == Kind.WANTED


def test_memory_is_bounded_and_the_loss_is_counted(
    journal: Journal, path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memories, "MAX_HELD", 10)
    break_it(journal)
    for n in range(25):
        journal.append([record(n=n)])
    assert len(journal._memory.held) == 10
    mend_it(journal)
    journal.retry()
    entries = read(path)
    assert [e.payload["n"] for e in entries[:-1]] == list(range(15, 25))  # the newest are kept
    assert entries[-1].payload["lost_events"] == 15
    assert "15 events lost" in said[-1]


def test_a_full_disk_stops_nothing(journal: Journal, path: Path, said: Said) -> None:
    journal._disk._db.execute(
        "PRAGMA max_page_count = 1"
    )  # sqlite answers "database or disk is full"
    for n in range(5):
        journal.append([record(n=n, text="x" * 5000)])
    assert journal.degraded
    assert "full" in said[0]
    journal._disk._db.execute("PRAGMA max_page_count = 1000000")
    journal.retry()
    assert not journal.degraded
    assert [e.payload["n"] for e in read(path)[:-1]] == list(range(5))


def test_another_that_holds_the_lock_stops_nothing(journal: Journal, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    journal._disk._db.execute("PRAGMA busy_timeout = 1")
    journal.append([record()])
    assert journal.degraded
    other.execute("ROLLBACK")
    other.close()
    journal.retry()
    assert read(path)[0].seq == 1


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Boots:
    """Lives of a journal over boots of a machine, with clocks set by hand."""

    def __init__(self, path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.said, self.monkeypatch = path, said, monkeypatch
        self.wall, self.mono = Clock(1e9), Clock(10.0)
        self.journal = self.life("a")

    def life(self, boot: str) -> Journal:
        self.monkeypatch.setattr(memories, "boot_id", lambda: boot)
        self.journal = Journal(self.path, self.said, clock=self.wall, monotonic=self.mono)
        return self.journal

    def boot(self, boot: str) -> None:
        self.journal.close()
        self.mono.now = 10.0
        self.life(boot)

    def run(self, hours: float, n: int = 1) -> None:
        """Append ``n`` records in as many hours."""
        for _ in range(n):
            self.wall.now += hours * 3600 / n
            self.mono.now += hours * 3600 / n
            self.journal.append([record()])

    def kept(self, retention_h: float) -> list[int]:
        self.journal.prune(retention_h * 3600)
        return seqs(read(self.path))


@pytest.fixture
def boots(path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> Iterator[Boots]:
    boots = Boots(path, said, monkeypatch)
    yield boots
    boots.journal.close()


def test_prune_deletes_what_is_older(boots: Boots) -> None:
    boots.run(4, n=4)
    assert boots.kept(1.5) == [3, 4]
    assert boots.kept(1.5) == [3, 4]
    boots.mono.now += 3600
    assert boots.kept(1.5) == [4]


@pytest.mark.parametrize("years", [10, -10, 60, -60])
def test_no_step_of_the_wall_clock_makes_entries_older(boots: Boots, years: int) -> None:
    boots.run(4, n=4)
    boots.wall.now += years * 365 * 86400
    assert boots.kept(24) == [1, 2, 3, 4]
    boots.run(1)
    boots.wall.now = 1e9  # and back
    boots.run(1)
    assert boots.kept(24) == [1, 2, 3, 4, 5, 6]
    assert boots.kept(3.5) == [3, 4, 5, 6]  # nor does it keep them


@pytest.mark.parametrize("years", [10, -10])
def test_a_boot_with_a_wrong_clock_costs_nothing(boots: Boots, years: int) -> None:
    boots.run(4, n=4)
    boots.wall.now += years * 365 * 86400
    boots.boot("b")
    boots.run(1)
    assert boots.kept(24) == [1, 2, 3, 4, 5]


def test_earlier_boots_age_by_the_time_that_the_machine_ran_since(boots: Boots) -> None:
    boots.run(4, n=4)  # 1..4
    for name in "bcd":
        boots.boot(name)
        boots.run(2, n=2)  # 5, 6; 7, 8; 9, 10
    assert boots.kept(9.5) == list(range(1, 11))
    assert boots.kept(8.5) == list(range(2, 11))  # 2 is some 6 + 2 h old
    assert boots.kept(6.5) == list(range(4, 11))
    assert boots.kept(3.5) == list(range(7, 11))
    assert boots.kept(0.5) == [10]


def test_another_life_in_the_same_boot_goes_on(boots: Boots) -> None:
    boots.run(2, n=2)
    boots.journal.close()
    boots.life("a")
    boots.run(2, n=2)
    assert boots.kept(2.5) == [2, 3, 4]


def test_an_unknown_boot_is_equal_to_no_other(boots: Boots) -> None:
    """What earlier lives wrote is at least as old as this life."""
    boots.boot("")
    boots.run(5, n=5)
    boots.journal.close()
    boots.life("")
    boots.run(2, n=2)
    assert boots.kept(4) == list(range(1, 8))
    assert boots.kept(1.5) == [6, 7]
    assert boots.kept(0.5) == [7]


def test_an_unknown_boot_between_counts_no_time(boots: Boots) -> None:
    boots.run(2, n=2)
    boots.boot("")
    boots.run(50, n=2)
    boots.boot("c")
    boots.run(1)
    assert boots.kept(4) == [1, 2, 3, 4, 5]
    assert boots.kept(1.5) == [2, 3, 4, 5]


def test_prune_goes_on_where_it_had_to_stop(boots: Boots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MAX_PRUNED", 3)
    boots.run(10, n=10)
    assert boots.kept(0.5) == list(range(4, 11))
    for left in (7, 10):
        boots.journal.retry()
        assert seqs(read(boots.path))[0] == left


def test_prune_keeps_the_state(boots: Boots) -> None:
    """What an engine starts from must outlive retention: the operator's word above all."""
    boots.journal.append([Record(Kind.WANTED, "web.1", {"want": False}, durable=True)])
    boots.run(10, n=3)
    assert boots.kept(1) == [1, 4]
    assert [e.kind for e in latest(boots.path)] == [Kind.WANTED, Kind.READY]


def test_order_is_by_number_whatever_the_clock_does(boots: Boots) -> None:
    boots.run(3, n=3)
    boots.wall.now -= 86400
    boots.run(3, n=3)
    entries = read(boots.path)
    assert seqs(entries) == [1, 2, 3, 4, 5, 6]
    assert seqs(latest(boots.path)) == [6]
    moment = entries[1].time
    assert seqs(read(boots.path, since=moment)) == [2, 3]
    assert seqs(read(boots.path, until=moment)) == [1, 2, 4, 5, 6]
    assert seqs(read(boots.path, since=entries[4].time)) == [1, 2, 3, 5, 6]
    assert seqs(read(boots.path, since=entries[4].time, after=2, last=2)) == [5, 6]


def test_what_it_remembers_is_what_is_in_the_file(journal: Journal, path: Path, said: Said) -> None:
    for n in range(50):
        journal.append([record(Kind.READY, f"web.{n % 7}"), record(Kind.STARTING, f"web.{n % 3}")])
    assert journal.latest() == latest(path)
    journal.close()
    again = Journal(path, said)
    assert again.latest() == latest(path)
    again.close()


# -- formats

V1 = """
CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    time REAL NOT NULL,
    mono REAL NOT NULL,
    boot TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    payload TEXT NOT NULL
) STRICT;
CREATE INDEX event_by_kind ON event (kind, subject, seq);
PRAGMA user_version = 1;
"""


def write_v1(path: Path, n: int) -> None:
    """A journal as version 1 wrote it."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(V1)
    for seq in range(1, n + 1):
        row = (seq, 1e9 + seq, 5.0 + seq, "b", "instance.ready", f"web.{seq % 3}", '{"run":1}')
        db.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    db.close()


def schema(path: Path) -> tuple[int, set[str]]:
    db = sqlite3.connect(path)
    version = db.execute("PRAGMA user_version").fetchone()[0]
    names = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
    db.close()
    return version, names


def test_version_1_is_migrated_with_its_events(path: Path, said: Said) -> None:
    write_v1(path, 20)
    before, state = read(path, since=1e9 + 5), latest(path)
    journal = Journal(path, said)
    assert said == [f"the journal {path} was migrated from version 1 to 2"]
    assert schema(path) == (2, {"event", "event_by_kind", "event_by_time"})
    assert read(path, since=1e9 + 5) == before
    assert seqs(before) == list(range(5, 21))
    assert latest(path) == journal.latest() == state
    journal.append([record()])
    journal.close()
    assert seqs(read(path)) == list(range(1, 22))
    Journal(path, said).close()
    assert len(said) == 1  # once


def test_an_empty_version_1_is_migrated_without_a_word(path: Path, said: Said) -> None:
    write_v1(path, 0)
    Journal(path, said).close()
    assert said == []
    assert schema(path)[0] == 2


def test_an_index_made_twice_does_no_harm(path: Path, said: Said) -> None:
    """As if another program had made it."""
    write_v1(path, 3)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("CREATE INDEX event_by_time ON event (time)")
    db.close()
    journal = Journal(path, said)
    journal.close()
    assert journal.set_aside is None
    assert schema(path)[0] == 2
    assert seqs(read(path)) == [1, 2, 3]


def test_a_database_of_somebody_else_is_set_aside(path: Path, said: Said) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("CREATE TABLE event (other TEXT)")
    db.close()
    journal = Journal(path, said)
    journal.append([record()])
    journal.close()
    assert journal.set_aside is not None
    assert seqs(read(path)) == [1]


@pytest.mark.parametrize("name", ["a?b.db", "a#b%41.db", "ü b.db"])
def test_any_path_will_do(tmp_path: Path, said: Said, name: str) -> None:
    journal = Journal(tmp_path / name, said)
    journal.append([record()])
    assert seqs(read(tmp_path / name)) == seqs(latest(tmp_path / name)) == [1]
    journal.close()


def test_only_its_owner_may_read_it(journal: Journal, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    journal.append([record()])
    for beside in path.parent.glob("journal.db-*"):
        assert beside.stat().st_mode & 0o077 == 0


def test_a_read_creates_nothing(path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        read(path)
    assert latest(path) == []
    assert not path.exists()


def test_a_journal_that_was_only_begun_is_empty(path: Path, said: Said) -> None:
    path.touch()
    assert read(path) == latest(path) == []
    journal = Journal(path, said)
    journal.append([record()])
    journal.close()
    assert journal.set_aside is None
    assert seqs(read(path)) == [1]
