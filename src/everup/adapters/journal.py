"""The journal: append-only events in SQLite (WAL), one writer.

A write that fails (disk full, file gone) never stops the loop: events wait in memory, bounded,
and are written as soon as that works again, with a note of how long it did not.
"""

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from everup.model.action import Record
from everup.model.journal import Entry, Kind

SCHEMA_VERSION = 1
MAX_HELD = 10_000
_CHECKPOINT_EVERY = 2_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
    seq INTEGER PRIMARY KEY,
    time REAL NOT NULL,
    mono REAL NOT NULL,
    boot TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    payload TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS event_by_kind ON event (kind, subject, seq);
"""
_COLUMNS = "seq, time, mono, boot, kind, subject, payload"


class JournalError(Exception):
    """The journal cannot be used; the text says why and what to do."""


class _UnavailableError(JournalError):
    """It cannot be opened now, and may be later."""


def boot_id() -> str:
    """Identifies the boot of the machine: monotonic times compare within one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Journal:
    """The one writer. ``say`` is told, once each, when writing fails and when it works again."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path = path
        self._say = say
        self._boot = boot_id()
        self._held: deque[Entry] = deque(maxlen=MAX_HELD)
        self._failing_since = 0.0
        self._lost = 0
        self._since_checkpoint = 0
        self._checkpointer: threading.Thread | None = None
        self.listeners: list[Callable[[Sequence[Entry]], None]] = []
        self.set_aside: Path | None = None
        self.last_seq = 0
        self._homeless = False
        try:
            self._db = self._open()
        except _UnavailableError as error:
            if not path.exists():
                raise
            self._db = self._in_memory(str(error))
        row = self._db.execute("SELECT max(seq) FROM event").fetchone()
        self.last_seq = max(self.last_seq, row[0] or 0)

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self.path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise _UnavailableError(f"cannot open the journal {self.path}: {error}") from error
            # Not a database any more. It is evidence, so it is kept; services must not wait.
            self.set_aside = self.path.with_name(f"{self.path.name}.corrupt-{int(time.time())}")
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self.path}{suffix}", f"{self.set_aside}{suffix}")
            return _connect(self.path)

    def _in_memory(self, why: str) -> sqlite3.Connection:
        """The file is there and cannot be opened (the disk is full): the services must not wait
        for it. Events are held until it can be."""
        self._failing_since = time.monotonic()
        self._say(f"{why}. Services go on; events are held in memory until it works again")
        self._homeless = True
        db = sqlite3.connect(":memory:", isolation_level=None)
        db.executescript(_SCHEMA)
        db.execute("PRAGMA query_only = 1")  # what is written waits for the real one
        self.last_seq = max((entry.seq for entry in _salvage(self.path)), default=0)
        return db

    def _come_home(self) -> None:
        with contextlib.suppress(JournalError, sqlite3.Error):
            self._db = self._open()
            self._homeless = False

    def append(self, records: Sequence[Record]) -> None:
        """Write all of them in one transaction."""
        now, mono = time.time(), time.monotonic()
        entries = []
        for record in records:
            self.last_seq += 1
            entries.append(
                Entry(
                    self.last_seq,
                    now,
                    mono,
                    self._boot,
                    record.kind.value,
                    record.subject,
                    record.payload,
                )
            )
        self._write(entries, durable=any(record.durable for record in records))
        for listener in self.listeners:
            listener(entries)

    def _write(self, entries: list[Entry], *, durable: bool) -> None:
        pending = [*self._held, *entries]
        try:
            if durable:
                self._db.execute("PRAGMA synchronous = FULL")
            with self._db:
                self._db.execute("BEGIN")
                self._db.executemany(
                    "INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [
                        (*e[:6], json.dumps(e.payload, separators=(",", ":"), default=str))
                        for e in pending
                    ],
                )
            if durable:
                self._db.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as error:
            self._failed(error, entries)
            return
        self._held.clear()
        if self._failing_since:
            self._recovered()
        self._since_checkpoint += len(pending)
        if self._since_checkpoint >= _CHECKPOINT_EVERY:
            self._since_checkpoint = 0
            self._checkpoint()

    def _failed(self, error: sqlite3.Error, entries: list[Entry]) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.rollback()
        self._lost += max(0, len(self._held) + len(entries) - MAX_HELD)
        self._held.extend(entries)
        if not self._failing_since:
            self._failing_since = time.monotonic()
            self._say(
                f"cannot write the journal {self.path}: {error}. Services go on; up to "
                f"{MAX_HELD} events are held in memory until it works again"
            )

    def _recovered(self) -> None:
        for_s, lost = time.monotonic() - self._failing_since, self._lost
        self._failing_since, self._lost = 0.0, 0
        payload = {"for_s": round(for_s, 3), "lost_events": lost}
        self.append([Record(Kind.JOURNAL_DEGRADED, "everup", payload)])
        self._say(f"the journal is written again after {for_s:.1f} s, {lost} events lost")

    def retry(self) -> None:
        """Try to write what is held; call now and then."""
        if self._homeless:
            self._come_home()
        if self._held:
            self._write([], durable=False)

    @property
    def degraded(self) -> bool:
        return bool(self._failing_since)

    def _checkpoint(self) -> None:
        """In a thread of its own: a checkpoint waits for the disk, and the loop must not."""
        if self._checkpointer is not None and self._checkpointer.is_alive():
            return

        def run() -> None:
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as db,
            ):
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")

        self._checkpointer = threading.Thread(target=run, name="checkpoint", daemon=True)
        self._checkpointer.start()

    def prune(self, retention_s: float) -> None:
        """Delete what is older, a bounded number at a time."""
        with contextlib.suppress(sqlite3.Error), self._db:
            self._db.execute(
                # The last of each kind for each subject is state, however old: see latest().
                "DELETE FROM event WHERE seq IN (SELECT seq FROM event WHERE time < ? AND seq "
                "NOT IN (SELECT max(seq) FROM event GROUP BY kind, subject) LIMIT 5000)",
                (time.time() - retention_s,),
            )

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


def _connect(path: Path) -> sqlite3.Connection:
    fresh = not path.exists()
    if fresh:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # NORMAL: a commit outlives the death of everup; only a power cut can cost the last ones.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("PRAGMA busy_timeout = 200")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise JournalError(
                f"the journal {path} was written by a newer everup (format {version}, this one "
                f"knows {SCHEMA_VERSION}): use that version, or another state_dir"
            )
        if version < SCHEMA_VERSION:
            db.executescript(_SCHEMA)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("SELECT count(*) FROM (SELECT 1 FROM event LIMIT 1)").fetchone()
        if not fresh:
            check = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if check != "ok":
                raise sqlite3.DatabaseError(check)
    except BaseException:
        db.close()
        raise
    return db


def read(
    path: Path,
    *,
    after: int = 0,
    limit: int = 1000,
    last: int | None = None,
    subjects: Iterable[str] = (),
    kinds: Iterable[str] = (),
    since: float | None = None,
    until: float | None = None,
) -> list[Entry]:
    """Entries in order, filtered. A subject ``web`` also means ``web.1``; a kind may end in
    ``*``. ``last`` gives only the last so many."""
    where: list[str] = ["seq > ?"]
    values: list[object] = [after]
    groups = (
        ("subject", [(s, f"{s}.*") for s in subjects]),
        ("kind", [(k, k) for k in kinds]),
    )
    for column, patterns in groups:
        if patterns:
            where.append(
                "(" + " OR ".join(f"{column} = ? OR {column} GLOB ?" for _ in patterns) + ")"
            )
            values += [value for pair in patterns for value in pair]
    for operator, moment in ((">=", since), ("<=", until)):
        if moment is not None:
            where.append(f"time {operator} ?")
            values.append(moment)
    order = "DESC" if last is not None else "ASC"
    values.append(limit if last is None else min(last, 100_000))
    query = f"SELECT {_COLUMNS} FROM event WHERE {' AND '.join(where)} ORDER BY seq {order} LIMIT ?"  # noqa: S608
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        rows = db.execute(query, values).fetchall()
    entries = [_entry(row) for row in rows]
    return entries[::-1] if last is not None else entries


def latest(path: Path) -> list[Entry]:
    """The last entry of each kind for each subject, in order: what an engine starts from."""
    query = (
        f"SELECT {_COLUMNS} FROM event WHERE seq IN "  # noqa: S608
        "(SELECT max(seq) FROM event GROUP BY kind, subject) ORDER BY seq"
    )
    try:
        with contextlib.closing(sqlite3.connect(path)) as db:
            return [_entry(row) for row in db.execute(query)]
    except sqlite3.OperationalError:
        return _salvage(path)


def _salvage(path: Path) -> list[Entry]:
    """What can be read of a journal that cannot be opened: all but what is in its WAL alone."""
    query = f"SELECT {_COLUMNS} FROM event ORDER BY seq DESC LIMIT 100000"  # noqa: S608
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as db:
            found = [_entry(row) for row in db.execute(query)]
    except sqlite3.Error:
        return []
    by: dict[tuple[str, str], Entry] = {}
    for entry in found:
        by.setdefault((entry.kind, entry.subject), entry)
    return sorted(by.values())


def _entry(row: tuple[int, float, float, str, str, str, str]) -> Entry:
    seq, moment, mono, boot, kind, subject, payload = row
    return Entry(seq, moment, mono, boot, kind, subject, json.loads(payload))
