"""The checkpoint of the history beside the journal."""

import json
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from _bench import Bench, db, web

from everup.adapters import _journal_file as files
from everup.adapters import history as adapter
from everup.adapters.journal import Journal
from everup.model.action import Record
from everup.model.event import Heard, Tick
from everup.model.instance import Slot
from everup.model.journal import Kind
from everup.reliability.history import History
from everup.rooms.dependencies import room as dependencies

WEB = "web.1"


class Clock:
    def __init__(self) -> None:
        self.mono, self.wall = 1000.0, 1_700_000_000.0

    def pass_(self, seconds: float) -> None:
        self.mono += seconds
        self.wall += seconds


class Site:
    """A journal that is written by the real writer."""

    def __init__(self, directory: Path, name: str = "journal.db") -> None:
        self.directory, self.path, self.clock, self.run = directory, directory / name, Clock(), 1
        self.journal = Journal(
            self.path, print, clock=lambda: self.clock.wall, monotonic=lambda: self.clock.mono
        )
        self.add(Kind.ENGINE_STARTED, "everup", takeover=False)
        self.add(Kind.STARTING, WEB, run=1, lane=1, gen=0)
        self.add(Kind.READY, WEB, run=1)

    def add(self, kind: Kind, subject: str, **payload: object) -> None:
        self.journal.append([Record(kind, subject, payload)])

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock.pass_(3600.0)
            self.add(Kind.SUSPECTED, WEB, run=self.run, reason="liveness probe: x")
            self.clock.pass_(1.0)
            self.add(Kind.UNHEALTHY, WEB, run=self.run, reason="liveness probe: x")
            self.add(Kind.STOPPING, WEB, run=self.run, reason="liveness probe: x")
            self.add(
                Kind.EXITED, WEB, run=self.run, cause="SIGKILL", exit_kind="signal", value=9,
                killed_for="liveness probe: x", up_s=3601.0,
            )  # fmt: skip
            self.run += 1
            self.add(Kind.STARTING, WEB, run=self.run, lane=1, gen=0)
            self.add(Kind.SPAWNED, WEB, run=self.run, pid=1)
            self.add(Kind.RUNNING, WEB, run=self.run)
            self.clock.pass_(2.0)
            self.add(Kind.READY, WEB, run=self.run)

    def advance(self, save: bool | None = True) -> History:
        return adapter.advance(self.path, self.directory, save=save)

    @property
    def file(self) -> Path:
        return self.directory / adapter.NAME


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def failures(history: History) -> int:
    web = history.services["web"]
    return len(web.outages) + sum(sum(day.kinds.values()) for day in web.days.values())


def same(one: History, other: History) -> bool:
    return json.dumps(one.to_json()) == json.dumps(other.to_json())


def test_it_goes_on_from_where_it_was(site: Site) -> None:
    site.fail(3)
    assert failures(site.advance()) == 3
    assert stat.S_IMODE(site.file.stat().st_mode) == 0o600
    site.fail(2)
    later = site.advance()
    site.file.unlink()
    assert failures(later) == 5
    assert same(later, site.advance())


def test_the_fast_reading_is_the_plain_one(site: Site) -> None:
    site.fail(5)
    plain = History()
    with sqlite3.connect(site.path) as db:
        for row in db.execute("SELECT * FROM event ORDER BY seq").fetchall():
            plain.feed([(*row[:6], json.loads(row[6]))])
    db.close()
    found = site.advance()
    plain.seq = found.seq
    for service in (plain, found):  # "running" after a start says nothing, and is not read
        for item in service.services.values():
            item.outages = [o._replace(last_seq=0) for o in item.outages]
    assert same(plain, found)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format":1}', '{"format":9}', "\x00" * 9]
)
def test_a_damaged_file_is_made_anew(site: Site, text: str) -> None:
    site.fail(3)
    whole = site.advance()
    site.file.write_text(text)
    assert same(whole, site.advance())
    assert same(whole, site.advance())


def test_the_file_of_another_journal_is_put_aside(site: Site, tmp_path: Path) -> None:
    site.fail(9)
    site.advance()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{site.path}{suffix}").unlink(missing_ok=True)
    other = Site(tmp_path)
    other.clock.pass_(5.0)
    other.fail(2)
    assert failures(other.advance()) == 2
    assert (tmp_path / f"{adapter.NAME}.other").exists()


def test_counts_outlive_the_entries(site: Site) -> None:
    site.fail(20)
    site.advance()
    with sqlite3.connect(site.path) as db:
        (last,) = db.execute("SELECT max(seq) FROM event").fetchone()
        assert files.prune(db, last - 5) > 50
    db.close()
    site.fail(3)
    assert failures(site.advance()) == 23


def test_a_journal_whose_beginning_was_deleted(site: Site) -> None:
    """Without a checkpoint: what is left is counted, and leftovers of each kind make no outage."""
    site.fail(20)
    with sqlite3.connect(site.path) as db:
        (last,) = db.execute("SELECT max(seq) FROM event").fetchone()
        files.prune(db, last - 24)  # three failures of eight entries each are left
    db.close()
    history = site.advance()
    assert failures(history) == 3
    line = history.slots[WEB].line
    end = int(site.clock.wall * 1e6)
    assert line.sums(line.born, end)[1] == 3 * 3_000_000
    site.fail(1)
    assert failures(site.advance()) == 4


def test_entries_that_were_deleted_before_they_were_taken_are_unknown(site: Site) -> None:
    site.fail(5)
    site.advance()
    site.fail(20)
    with sqlite3.connect(site.path) as db:
        (last,) = db.execute("SELECT max(seq) FROM event").fetchone()
        files.prune(db, last - 16)
    db.close()
    history = site.advance()
    assert failures(history) == 7
    line = history.slots[WEB].line
    sums = line.sums(line.born, int(site.clock.wall * 1e6))
    assert sums[3] > 17 * 3600 * 1e6


def test_it_reads_where_it_may_not_write(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.fail(3)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "replace", refuse)
    assert failures(site.advance()) == 3
    assert not site.file.exists()
    assert [p.name for p in site.directory.iterdir() if p.name.endswith(".new")] == []


def test_no_journal_and_no_database(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        adapter.advance(tmp_path / "journal.db", tmp_path)
    (tmp_path / "journal.db").write_text("this is no database, and long enough to be none " * 50)
    with pytest.raises(adapter.HistoryError, match="cannot read the journal"):
        adapter.advance(tmp_path / "journal.db", tmp_path)


def test_a_payload_that_is_none_is_passed_over(site: Site) -> None:
    with sqlite3.connect(site.path) as db:
        db.execute(
            "INSERT INTO event VALUES (99, 1.7e9, 1001.0, ?, 'instance.exited', ?, 'no json')",
            (files.boot_id(), WEB),
        )
    db.close()
    assert failures(site.advance()) == 0


def test_calls_as_the_engine_tells_them(tmp_path: Path) -> None:
    bench = Bench(db(), web(1))
    bench.up()
    bench.tell(Heard(Slot("web", 1), "db", calls=(97, 2, 1, 5)))
    bench.tell(Tick(), dependencies.CALLS_EVERY_S + 1)
    (told,) = [r for r in bench.records if r.kind is Kind.DEPENDENCY_CALLS]
    site = Site(tmp_path)
    site.add(Kind.READY, "db.1", run=1)
    site.add(told.kind, str(told.subject), **told.payload)
    ((counts),) = adapter.advance(site.path, tmp_path).services["db"].calls.values()
    assert counts == [97, 2, 1]
