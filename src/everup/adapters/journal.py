"""The journal: append-only events in SQLite (WAL), one writer.

A fault of the machine under it (disk full, frozen, file deleted, replaced or damaged, no
descriptors, no memory) never stops the loop: events wait in memory, bounded, and are written as
soon as that works again, with a note of how long it did not. The last event of each kind for each
subject, which is the state that an engine starts from, is kept in memory as well and put into a
new file if the old one is lost. For the case that the engine is killed before that, or before its
thread has written, ``_journal_copy`` has it too.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from everup.adapters._journal_copy import Copy, found
from everup.adapters._journal_disk import Disk
from everup.adapters._journal_file import SCHEMA_VERSION, JournalError, Row, boot_id
from everup.adapters._journal_memory import MAX_HELD, Memory
from everup.adapters._journal_read import entry as _entry
from everup.adapters._journal_read import latest, read, sound
from everup.adapters._journal_writer import Writer
from everup.model.action import Record
from everup.model.journal import Entry

__all__ = ["SCHEMA_VERSION", "Journal", "JournalError", "boot_id", "latest", "read"]

_BEGIN_S, _BEGIN_BLIND_S = 1.0, 10.0
"""How long a start waits for the file, with the copy at hand and without."""
_NO_COPY = "; if everup itself is killed meanwhile, they are lost"


class Journal:
    """The one writer. ``say`` is told, once each, when writing fails and when it works again, and
    of a migration.

    ``hold``: services may run already, so hold events instead of raising also where there is no
    file yet and none can be made; keep the copy for the next life, and take over that of the one
    before. ``thread``: no caller waits for the disk. A thread writes what was appended once
    ``kick`` is called; only where the copy cannot be kept, or for a record that is to outlive a
    power cut, ``append`` waits for it, at most ``WAIT_S``, and not again before it has come back.
    ``after``: that thread calls it before it opens the file, and it may take long: with the copy
    at hand nobody waits for it.
    ``clock`` is the wall clock, for display alone; what is decided goes by ``monotonic``."""

    def __init__(
        self,
        path: Path,
        say: Callable[[str], None],
        *,
        hold: bool = False,
        thread: bool = False,
        after: Callable[[], object] | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._clock, self._monotonic = clock, monotonic
        self._memory = Memory()
        self._copy = Copy(path, self._memory.everything)
        self._copies = False
        copied = found(path) if hold else []
        self.listeners: list[Callable[[Sequence[Entry]], None]] = []
        """Called with what was appended, once its turn to be written has come; by the thread, if
        there is one."""
        self._untold: deque[Row] = deque(maxlen=MAX_HELD)
        self._disk = Disk(path, self._memory, copied, say, self._enter, monotonic)
        self._disk.warning = self._warning
        self._writer: Writer | None = None
        if thread:
            self._writer = Writer(self._disk, self._memory, self._tell, monotonic)
            patience_s = _BEGIN_S if copied else _BEGIN_BLIND_S
            patience_s = 0.0 if copied and after else patience_s
            self._writer.start(hold=hold, patience_s=patience_s, after=after)
        else:
            self._disk.begin(hold=hold)
        if hold:
            self._start_copy()
            self._copies = True

    def _start_copy(self) -> None:
        with self._memory.lock:
            self._copy.start()

    def _warning(self) -> str:
        return _NO_COPY if self._copies and not self._copy.there else ""

    @property
    def last_seq(self) -> int:
        """The number of the last event, written or not."""
        return self._memory.last_seq

    @property
    def set_aside(self) -> Path | None:
        """Where the file is that could not be used."""
        return self._disk.set_aside

    @property
    def degraded(self) -> bool:
        """Events are held in memory at the moment, because they cannot be written."""
        return self._disk.degraded

    @property
    def reason(self) -> str:
        """Why they are."""
        return self._disk.reason

    def latest(self) -> list[Entry]:
        """The last entry of each kind for each subject, in order, from memory."""
        with self._memory.lock:
            rows = list(self._memory.state.values())
        return sound(rows)

    @property
    def damaged(self) -> list[str]:
        """Entries of the state that cannot be read, and which nothing goes by: kind, subject and
        number. They stay where they are, as evidence, until the next ones of their kind."""
        with self._memory.lock:
            rows = list(self._memory.state.values())
        good = {entry.seq for entry in sound(rows)}
        return [f"{row[4]} of {row[5]} (number {row[0]})" for row in rows if row[0] not in good]

    def append(self, records: Sequence[Record], mono: float | None = None) -> None:
        """Keep all of them, and write them in one transaction. Never raises: what cannot be
        written is held. ``mono``: when that was decided, in monotonic seconds; None: now. All of
        them carry it, so that spans between entries are those that the decider went by."""
        error = self._add(records, mono)
        if self._writer is None:
            self._write(error)
        elif error is not None:
            self._disk.out_of_memory()
        elif not self._copy.there or any(record.durable for record in records):
            self._writer.wait()
        if self.degraded:
            self._memory.trim()

    def _write(self, error: MemoryError | None) -> None:
        if error is not None:
            self._disk.failed(error)
        elif self._disk.due:
            with contextlib.suppress(MemoryError):
                self._disk.write()
        self._tell()

    def _add(self, records: Sequence[Record], mono: float | None = None) -> MemoryError | None:
        with self._memory.lock:
            mono = self._monotonic() if mono is None else mono
            rows, error = self._memory.enter(records, self._clock(), mono)
            self._copy.add(rows)
            if self.listeners:
                self._untold.extend(rows)
        return error

    def _enter(self, record: Record) -> None:
        """What the disk has to tell itself; it is about to be written."""
        self._add([record])

    def _tell(self) -> None:
        with self._memory.lock:
            rows = list(self._untold)
            self._untold.clear()
        if not rows:
            return
        with contextlib.suppress(MemoryError):
            entries = [_entry(row) for row in rows]
            for listener in list(self.listeners):
                listener(entries)

    def kick(self) -> None:
        """What was appended is to be written now."""
        if self._writer is not None:
            self._writer.kick()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was appended is in the file; false if it is not by then."""
        return self._writer is None or self._writer.flush(timeout_s)

    def retry(self) -> None:
        """Look whether the file is still the one that is written, and try to write what is held.
        Call every few seconds; never raises."""
        if self._writer is None:
            self._disk.retry()
        else:
            self._writer.retry()
        if self._copies and not self._copy.there:
            with contextlib.suppress(MemoryError):
                self._start_copy()

    def prune(self, retention_s: float) -> None:
        """Delete what is older, a bounded number at a time; ``retry`` goes on with the rest. Age
        is that of ``too_old``: no step of the wall clock makes an entry older."""
        if self._writer is None:
            self._disk.prune(retention_s)
        else:
            self._writer.prune(retention_s)

    def close(self) -> None:
        """Write what is held if that is possible now, and leave the file."""
        if self._writer is None:
            self._disk.close()
        over = self._writer is None or self._writer.close()
        with self._memory.lock:
            if self._disk.waits or not over:
                self._copy.leave()
            else:
                self._copy.drop()
