"""The journal: append-only events in SQLite (WAL), one writer.

A fault of the machine under it (disk full, file deleted, replaced or damaged, no descriptors, no
memory) never stops the loop: events wait in memory, bounded, and are written as soon as that works
again, with a note of how long it did not. The last event of each kind for each subject, which is
the state that an engine starts from, is kept in memory as well and put into a new file if the old
one is lost. For the case that the engine is killed before that, ``_journal_copy`` has it too.
"""

import contextlib
import json
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from everup.adapters import _journal_file as files
from everup.adapters._journal_copy import Copy, found, missing
from everup.adapters._journal_file import (
    SCHEMA_VERSION,
    JournalError,
    Row,
    UnavailableError,
    boot_id,
)
from everup.adapters._journal_read import entry as _entry
from everup.adapters._journal_read import latest, read, salvage
from everup.adapters._journal_watch import DELETED, REPLACED, WAL_DELETED, Watch
from everup.model.action import Record
from everup.model.journal import Entry, Kind

__all__ = ["SCHEMA_VERSION", "Journal", "JournalError", "boot_id", "latest", "read"]

MAX_HELD = 10_000
MAX_STATE = 50_000
_CHECKPOINT_EVERY = 2_000
_REOPEN_AFTER_S = 10.0
_TRY_EVERY_S = 0.5
_NO_COPY = "; if everup itself is killed meanwhile, they are lost"
_INSERT = "INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?, ?, ?, ?)"
_ENCODE = json.JSONEncoder(separators=(",", ":"), default=str).encode


class Journal:
    """The one writer, used by one thread. ``say`` is told, once each, when writing fails and when
    it works again, and of a migration.

    ``hold``: services may run already, so hold events instead of raising also where there is no
    file yet and none can be made; keep the copy for the next life, and take over that of the one
    before. ``clock`` is the wall clock, for display alone; what is decided
    goes by ``monotonic``."""

    def __init__(
        self,
        path: Path,
        say: Callable[[str], None],
        *,
        hold: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._say = say
        self._clock, self._monotonic = clock, monotonic
        self._boot = boot_id()
        self._born = monotonic()
        self._held: deque[Row] = deque(maxlen=MAX_HELD)
        self._state: dict[tuple[str, str], Row] = {}
        self._failing_since: float | None = None
        self._try_at = 0.0
        self._stuck = False  # a fault that may be one of the connection
        self._reason = ""
        self._lost = 0
        self._since_checkpoint = 0
        self._watch = Watch(path)
        self._copy = Copy(path, lambda: {*self._state.values(), *self._held})
        self._copies = hold
        self._copied = found(path) if hold else []
        self._retention_s = 0.0
        self.listeners: list[Callable[[Sequence[Entry]], None]] = []
        self.set_aside: Path | None = None
        self.last_seq = 0
        self._before = 0  # the last number of an earlier life
        self._met = False  # the file's state was read
        self._restore = False  # the next file gets the state from memory
        self._aside = ""  # the file at the path must go, and why
        self._closed = False
        self._db: sqlite3.Connection | None = None
        try:
            self._take(self._open())
        except (UnavailableError, sqlite3.Error, OSError) as error:
            self._leave()
            if not hold and not path.exists():
                raise
            # The services must not wait for the disk.
            self._degrade(str(error), str(error))
            copied = self._copied
            self._meet(salvage(path))
            self._met, self._copied = False, copied
        if hold:
            self._copy.start()

    # -- the file

    def _open(self) -> sqlite3.Connection:
        try:
            try:
                return files.connect(self.path, self._say)
            except sqlite3.Error as error:
                if not files.is_damage(error):
                    raise
                # Evidence, so it is kept; services must not wait.
                self.set_aside = files.put_aside(self.path, "corrupt")
                self._restore = self._met
                return files.connect(self.path, self._say)
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(f"cannot open the journal {self.path}: {error}") from error

    def _take(self, db: sqlite3.Connection) -> None:
        self._db = db
        if not self._met:
            rows = db.execute(files.LATEST).fetchall()
            if self._state and not rows:  # lost before it could be opened
                self._met = self._restore = True
            else:
                self._meet(rows)
        self._watch.take()

    def _meet(self, rows: list[Row]) -> None:
        """The state of earlier lives, with what the last one could not write. What this one has
        written in memory comes after it."""
        more, self._copied = missing(rows, self._copied), []
        self._restore = self._restore or bool(more and not rows)
        rows = [*rows, *more]
        by = max(0, (rows[-1][0] if rows else 0) - self._before)
        mine = [row for row in self._state.values() if row[0] > self._before]
        held = [row for row in self._held if row[0] > self._before]
        self._before += by
        self.last_seq += by
        self._held = deque((*more, *_shifted(held, by)), self._held.maxlen)
        self._state = {}
        for row in (*rows, *_shifted(mine, by)):
            self._remember(row)
        self._met = True

    def _remember(self, row: Row) -> None:
        key = (row[4], row[5])
        self._state.pop(key, None)  # so that the order stays that of the numbers
        self._state[key] = row
        if len(self._state) > MAX_STATE:
            del self._state[next(iter(self._state))]

    def latest(self) -> list[Entry]:
        """The last entry of each kind for each subject, in order, from memory."""
        return [_entry(row) for row in self._state.values()]

    # -- writing

    def append(self, records: Sequence[Record]) -> None:
        """Write all of them in one transaction. Never raises: what cannot be written is held."""
        now, mono = self._clock(), self._monotonic()
        rows: list[Row] = []
        durable = False
        try:
            for record in records:
                self.last_seq += 1
                subject = record.subject
                if not subject.isascii():
                    subject = subject.encode("utf-8", "backslashreplace").decode()
                text = _to_json(record.payload)
                row = (self.last_seq, now, mono, self._boot, record.kind.value, subject, text)
                rows.append(row)
                self._remember(row)
                durable = durable or record.durable
        except MemoryError as error:
            self._lost += len(records) - len(rows)
            self._failed(error, rows)
        else:
            try:
                if self._failing_since is None or mono >= self._try_at:
                    self._write(rows, durable=durable)
                else:
                    self._hold(rows)
            except MemoryError:
                self._lost += len(rows)  # at the worst: memory ran out while that was mended
        self._copy.add(rows)
        if self.listeners:
            self._tell(rows, records)

    def _tell(self, rows: list[Row], records: Sequence[Record]) -> None:
        with contextlib.suppress(MemoryError):
            pairs = zip(rows, records, strict=False)
            entries = [Entry(*row[:6], record.payload) for row, record in pairs]
            for listener in self.listeners:
                listener(entries)

    def _write(self, rows: list[Row], *, durable: bool) -> None:
        if self._watch.damage and self._failing_since is None:
            self._mend()
        db = self._db
        if db is None:
            self._hold(rows)
            return
        try:
            pending = rows
            if self._restore or self._held:
                pending = self._all_of(rows)
            if durable or self._restore:
                db.execute("PRAGMA synchronous = FULL")
            if len(pending) == 1:
                db.execute(_INSERT, pending[0])
            elif pending:
                with db:
                    db.execute("BEGIN")
                    db.executemany(_INSERT, pending)
        except (sqlite3.Error, MemoryError) as error:
            self._failed(error, rows)
            return
        if durable or self._restore:
            with contextlib.suppress(sqlite3.Error):
                db.execute("PRAGMA synchronous = NORMAL")
        self._restore = False
        self._held.clear()
        if self._failing_since is not None:
            self._recovered()
        self._since_checkpoint += len(pending)
        if self._since_checkpoint >= _CHECKPOINT_EVERY:
            self._since_checkpoint = 0
            self._watch.tend(check=False)

    def _all_of(self, rows: list[Row]) -> list[Row]:
        """With what waits, and for a new file the state, which is partly the same."""
        if not self._restore:
            return [*self._held, *rows]
        return sorted({*self._state.values(), *self._held, *rows})

    def _hold(self, rows: list[Row]) -> None:
        self._lost += max(0, len(self._held) + len(rows) - (self._held.maxlen or 0))
        self._held.extend(rows)

    def _failed(self, error: sqlite3.Error | MemoryError, rows: list[Row]) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error, MemoryError):
                self._db.rollback()
        first = self._failing_since is None
        with contextlib.suppress(MemoryError):
            self._hold(rows)
            reason = str(error) or "out of memory"
            self._degrade(reason, f"cannot write the journal {self.path}: {reason}")
        if files.is_busy(error) or len(self._held) >= 200:  # an attempt costs time then
            self._try_at = self._monotonic() + _TRY_EVERY_S
        self._stuck = files.is_stuck(error)
        if files.is_damage(error):
            self._watch.damage = self._watch.damage or f"corrupt: {error}"
        if first:
            with contextlib.suppress(MemoryError):
                self._mend()

    def _degrade(self, reason: str, text: str) -> None:
        if self._failing_since is not None:
            return
        self._failing_since, self._reason = self._monotonic(), reason
        self._try_at = 0.0
        self._say(
            f"{text}. Services go on; up to {MAX_HELD} events are held in memory until it works "
            "again" + (_NO_COPY if self._copies and not self._copy.there else "")
        )

    def _recovered(self) -> None:
        for_s, lost, reason = self._for_s(), self._lost, self._reason
        self._failing_since, self._lost, self._stuck = None, 0, False
        payload = {"for_s": round(for_s, 3), "lost_events": lost, "reason": reason}
        self.append([Record(Kind.JOURNAL_DEGRADED, "everup", payload)])
        self._say(f"the journal is written again after {for_s:.1f} s, {lost} events lost")

    # -- faults

    @property
    def degraded(self) -> bool:
        """Events are held in memory at the moment."""
        return self._failing_since is not None

    @property
    def reason(self) -> str:
        """Why they are."""
        return self._reason if self.degraded else ""

    def retry(self) -> None:
        """Look whether the file is still the one that is written, and try to write what is held.
        Call every few seconds; never raises."""
        with contextlib.suppress(MemoryError):
            self._mend()
            if self._held or self._restore or self.degraded:
                self._write([], durable=False)
            if self._retention_s:
                self.prune(self._retention_s)
            if self._copies and not self._copy.there:
                self._copy.start()

    def _mend(self) -> None:
        if self._closed:
            return
        if self._db is not None:
            fault = self._watch.damage or self._watch.fault()
            if fault == WAL_DELETED:
                self._leave_wal()
            elif fault:
                self._replace(fault)
            elif self._stuck and self._for_s() >= _REOPEN_AFTER_S and not self._watch.busy:
                self._leave()  # its descriptors may be of no use any more
        if self._db is None:
            self._come_home()
            if self._restore:
                self._write([], durable=True)

    def _for_s(self) -> float:
        return 0.0 if self._failing_since is None else self._monotonic() - self._failing_since

    def _leave(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error, MemoryError):
                self._db.close()
        self._db = None

    def _replace(self, fault: str) -> None:
        """The file is not the one that was written: leave it for a new one."""
        if self._watch.busy:
            return  # its connection, closed late, would take the new file's WAL for its own
        self._degrade(fault, f"the journal {self.path} is {fault}")
        self._reason = fault
        if fault in (DELETED, REPLACED) and self._db is not None:
            with contextlib.suppress(sqlite3.Error, MemoryError):
                # It may have been moved to where somebody wants to read it.
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                first = self._held[0][0] if self._held else self.last_seq + 1
                kept = sum(row[0] < first for row in self._state.values())
                self._lost += max(0, files.count(self._db) - kept)
        self._leave()
        if not self._watch.damage:
            self._watch.drop_wal()
        self._aside = "corrupt" if self._watch.damage else "replaced"
        self._watch.damage, self._restore = "", True

    def _leave_wal(self) -> None:
        """What is in the deleted WAL is still ours to read: into the main file with it."""
        if self._watch.busy or self._db is None:
            return
        self._degrade(WAL_DELETED, f"files beside the journal {self.path} were deleted")
        try:
            _busy, pages, done = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            self._watch.damage = f"{WAL_DELETED}: {error}"
            return
        if pages == done:
            self._leave()

    def _come_home(self) -> None:
        try:
            if self._aside:
                if aside := files.put_aside(self.path, self._aside):
                    self._say(f"the file at {self.path} is kept as {aside}")
                self._aside = ""
            elif not self._restore:
                fault = self._watch.fault()
                if fault in (DELETED, REPLACED):  # while it could not be opened
                    self._replace(fault)
                    return
            self._take(self._open())
        except (JournalError, sqlite3.Error, OSError, MemoryError):
            self._leave()  # the next time

    def prune(self, retention_s: float) -> None:
        """Delete what is older, a bounded number at a time; ``retry`` goes on with the rest. Age
        is that of ``too_old``: no step of the wall clock makes an entry older."""
        self._retention_s = 0.0
        if self._db is None or self.degraded:
            return
        try:
            cut = files.too_old(
                self._db,
                retention_s,
                self._monotonic(),
                self._boot,
                born=self._born,
                after=self._before,
            )
            deleted = files.prune(self._db, cut)
        except (sqlite3.Error, MemoryError) as error:
            if files.is_damage(error):
                self._watch.damage = f"corrupt: {error}"
            return
        if deleted:
            self._retention_s = retention_s
            self._since_checkpoint += deleted

    def close(self) -> None:
        """Write what is held if that is possible now, and leave the file."""
        if self._held or self._restore:
            self.retry()
        self._closed = True
        self._leave()
        if self._held or self._restore:
            self._copy.leave()
        else:
            self._copy.drop()


def _shifted(rows: Sequence[Row], by: int) -> list[Row]:
    return [(row[0] + by, *row[1:]) for row in rows]


def _to_json(payload: dict[str, object]) -> str:
    """Any payload can be written."""
    try:
        return _ENCODE(payload)
    except MemoryError:
        raise
    except Exception as error:
        return json.dumps({"not_storable": f"{type(error).__name__}: {error}"})
