"""The journal's file as one thread writes it, whatever happens to the file and to its disk."""

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from everup.adapters import _journal_file as files
from everup.adapters._journal_file import JournalError, Row, UnavailableError
from everup.adapters._journal_memory import MAX_HELD, Memory
from everup.adapters._journal_read import salvage
from everup.adapters._journal_watch import DELETED, REPLACED, WAL_DELETED, Watch
from everup.model.action import Record
from everup.model.journal import Kind

_CHECKPOINT_EVERY = 2_000
_REOPEN_AFTER_S = 10.0
_TRY_EVERY_S = 0.5
_INSERT = "INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?, ?, ?, ?)"


class Disk:
    """All that waits for a disk is here, and only one thread comes here; the exceptions are
    ``begin_without``, ``degrade``, ``out_of_memory`` and what only tells.
    ``enter`` takes what it has to tell itself."""

    def __init__(
        self,
        path: Path,
        memory: Memory,
        copied: Sequence[Row],
        say: Callable[[str], None],
        enter: Callable[[Record], None],
        monotonic: Callable[[], float],
    ) -> None:
        self.path, self._memory, self._copied = path, memory, copied
        self._say, self._enter, self._monotonic = say, enter, monotonic
        self.answered: Callable[[], None] = lambda: None
        """Called when the disk has done what it was asked."""
        self.warning: Callable[[], str] = str
        """What else follows from events that are held."""
        self.set_aside: Path | None = None
        self._born = monotonic()
        self._failing_since: float | None = None
        self._reason = ""
        self._try_at = 0.0
        self._stuck = False  # a fault that may be one of the connection
        self._since_checkpoint = 0
        self._watch = Watch(path)
        self._retention_s = 0.0
        self._met = False  # the file's state was read
        self._restore = False  # the next file gets the state from memory
        self._aside = ""  # the file at the path must go, and why
        self._closed = False
        self._db: sqlite3.Connection | None = None

    # -- opening

    def begin(self, *, hold: bool) -> None:
        """Open it. Raises ``JournalError``, ``sqlite3.Error`` or ``OSError``; with ``hold`` only
        for a journal that this everup does not know."""
        try:
            self._take(self._open())
        except (UnavailableError, sqlite3.Error, OSError) as error:
            self._leave()
            if not hold and not self.path.exists():
                raise
            # The services must not wait for the disk.
            self.degrade(str(error), str(error))
            self.begin_without(salvage(self.path))

    def begin_without(self, rows: Sequence[Row] = ()) -> None:
        """Begin from the copy and what else is known, until the file can be opened."""
        with self._memory.lock:
            if not self._met:
                self._restore = self._memory.meet(rows, self._copied) or self._restore

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
            rows = files.fetch(db, files.LATEST)
            with self._memory.lock:
                if self._memory.state and not rows:  # lost before it could be opened
                    self._restore = True
                else:
                    self._restore = self._memory.meet(rows, self._copied) or self._restore
                    self._copied = ()
                self._met = True
        self._watch.take()

    # -- writing

    @property
    def due(self) -> bool:
        """Whether to try to write; an attempt that fails may cost time."""
        return self._failing_since is None or self._monotonic() >= self._try_at

    def write(self) -> None:
        """Write what waits, in one transaction. Never raises: what cannot be written waits on."""
        while self._write() and self._memory.held:
            pass

    def _write(self) -> bool:
        if self._watch.damage and self._failing_since is None:
            self._mend()
        db, restore = self._db, self._restore
        if db is None:
            return False
        try:
            pending, waited, durable = self._memory.pending(all_of_it=restore)
            durable = durable or restore
            if durable:
                db.execute("PRAGMA synchronous = FULL")
            if len(pending) == 1:
                db.execute(_INSERT, pending[0])
            elif pending:
                with db:
                    db.execute("BEGIN")
                    db.executemany(_INSERT, pending)
        except (sqlite3.Error, MemoryError) as error:
            self.failed(error)
            return False
        if durable:
            with contextlib.suppress(sqlite3.Error):
                db.execute("PRAGMA synchronous = NORMAL")
        self._restore = False
        self._since_checkpoint += len(pending)
        self.answered()
        with self._memory.lock:
            self._memory.written(pending, waited)
            if self._failing_since is not None:
                self._recovered()
        if self._since_checkpoint >= _CHECKPOINT_EVERY:
            self._since_checkpoint = 0
            self._watch.tend(check=False)
        return True

    def failed(self, error: sqlite3.Error | MemoryError) -> None:
        """It cannot be written at the moment."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error, MemoryError):
                self._db.rollback()
        first = self._failing_since is None
        with contextlib.suppress(MemoryError):
            reason = str(error) or "out of memory"
            self.degrade(reason, f"cannot write the journal {self.path}: {reason}")
        if files.is_busy(error) or len(self._memory.held) >= 200:  # an attempt costs time then
            self._try_at = self._monotonic() + _TRY_EVERY_S
        self._stuck = files.is_stuck(error)
        if files.is_damage(error):
            self._watch.damage = self._watch.damage or f"corrupt: {error}"
        if first:
            with contextlib.suppress(MemoryError):
                self._mend()

    def out_of_memory(self) -> None:
        """For somebody else than the thread that writes."""
        with contextlib.suppress(MemoryError):
            reason = "out of memory"
            self.degrade(reason, f"cannot write the journal {self.path}: {reason}")

    def degrade(self, reason: str, text: str, since: float | None = None) -> None:
        """From now on events wait in memory, and that is said, once."""
        with self._memory.lock:
            if self._failing_since is not None:
                return
            self._failing_since = self._monotonic() if since is None else since
            self._reason, self._try_at = reason, 0.0
        self._say(
            f"{text}. Services go on; up to {MAX_HELD} events are held in memory until it works "
            f"again{self.warning()}"
        )

    def _recovered(self) -> None:
        for_s, lost, reason = self._for_s(), self._memory.lost, self._reason
        self._failing_since, self._memory.lost, self._stuck = None, 0, False
        payload = {"for_s": round(for_s, 3), "lost_events": lost, "reason": reason}
        self._enter(Record(Kind.JOURNAL_DEGRADED, "everup", payload))
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
            if self.waits or self.degraded:
                self.write()
            if self._retention_s:
                self.prune(self._retention_s)

    @property
    def waits(self) -> bool:
        """Something is yet to be written."""
        return bool(self._memory.held) or self._restore

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
                self.write()

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
        self.degrade(fault, f"the journal {self.path} is {fault}")
        self._reason = fault
        if fault in (DELETED, REPLACED) and self._db is not None:
            with contextlib.suppress(sqlite3.Error, MemoryError):
                # It may have been moved to where somebody wants to read it.
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                written, memory = files.count(self._db), self._memory
                with memory.lock:
                    first = memory.held[0][0] if memory.held else memory.last_seq + 1
                    kept = sum(row[0] < first for row in memory.state.values())
                    memory.lost += max(0, written - kept)
        self._leave()
        if not self._watch.damage:
            self._watch.drop_wal()
        self._aside = "corrupt" if self._watch.damage else "replaced"
        self._watch.damage, self._restore = "", True

    def _leave_wal(self) -> None:
        """What is in the deleted WAL is still ours to read: into the main file with it."""
        if self._watch.busy or self._db is None:
            return
        self.degrade(WAL_DELETED, f"files beside the journal {self.path} were deleted")
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
                self._memory.boot,
                born=self._born,
                after=self._memory.before,
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
        if self.waits:
            self.retry()
        self._closed = True
        self._leave()
