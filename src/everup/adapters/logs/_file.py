"""The file of one slot: who may write when, and what happens when the disk fails."""

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from everup.adapters.logs import _cri, _forward
from everup.adapters.logs._ledger import Ledger, Move, Place
from everup.adapters.logs._rotating import RotatingFile, StoppedError
from everup.model.spec import Log

_RETRY_S = 1.0
_ROOM_BYTES = 256 << 10
"""Free space that ends a "disk full". A marker alone always fits into the slack of the last block,
so without this a full disk would look recovered every second."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SCAN_BYTES = 256 << 10
_FLUSH_S = 0.5


@dataclass(frozen=True, slots=True)
class LogLoss:
    """Output of a slot can't be stored and is being dropped; told once until it recovers."""

    kind: ClassVar[Literal["lost"]] = "lost"
    slot: str
    lost_bytes: int
    """Lost so far: the first of them."""
    lost_lines: int
    reason: str


@dataclass(frozen=True, slots=True)
class LogRecovered:
    """Output of a slot is stored again; the counts say what is missing."""

    kind: ClassVar[Literal["recovered"]] = "recovered"
    slot: str
    lost_bytes: int
    lost_lines: int
    reason: str
    """Why it was lost."""


LogEvent = LogLoss | LogRecovered


@dataclass(frozen=True, slots=True)
class SlotStats:
    """Counts of one slot since the pump started; bytes are the service's own output."""

    bytes: int
    """Stored."""
    lines: int
    """Stored."""
    lost_bytes: int
    lost_lines: int


@dataclass(slots=True)
class _Outage:
    reason: str
    errno: int | None
    retry_s: float
    lost_bytes: int = 0
    lost_lines: int = 0


class _Steps:
    """Enters every write of a batch in the ledger, and takes from the pipe what it stored."""

    def __init__(
        self,
        ledger: Ledger,
        move: Move,
        data: bytes,
        size_bytes: int,
        begins: Callable[[], None],
        stored: Callable[[bytes, Place], None] = lambda _records, _place: None,
    ) -> None:
        """``data``: records of move.data[:size_bytes]; ``begins``: called before the beginning of
        a line is written without its end; ``stored``: with what is in the file, and where."""
        self._ledger = ledger
        self._move = move
        self._data = data
        self._end = size_bytes
        self._begins, self._stored = begins, stored
        self._last = (b"", Place(0, 0, 0, 0))

    def before(self, place: Place, at: int, end: int) -> None:
        left = self._end - self._move.at
        records = self._data[at:end]
        if _cri.ends_open(records):
            self._begins()
        # A part of the batch ends between two records, so that counting them is exact.
        taken = left if end == len(self._data) else min(left, _cri.lost(records)[0])
        self._ledger.begin(self._move, taken, place)
        self._last = records, place

    def after(self) -> None:
        self._ledger.consume(self._move)
        self._stored(*self._last)


class SlotFile:
    """Writer of ``DIR/SLOT.log``. Used by one thread; never raises because of the disk.

    Methods that write take ``when`` (a `_cri.stamp`) and ``now_s`` (monotonic).
    """

    def __init__(
        self,
        directory: Path,
        slot: str,
        log: Log,
        report: Callable[[LogEvent], None],
        ledger: Ledger | None = None,
    ) -> None:
        self._slot = slot
        self._ledger = ledger or Ledger(None, directory)
        self._file = RotatingFile(directory, f"{slot}.log")
        self._report = report
        self._copied = _forward.Copied(directory / f"{slot}.copied")
        self._scanned = False
        # Whose line the last record of a stream left open; None: that of an earlier pump.
        self._open: dict[str, object | None] = {}
        self._outage: _Outage | None = None
        self._bytes = self._lines = self._lost_bytes = self._lost_lines = 0
        self.configure(log)

    @property
    def failing(self) -> bool:
        """Whether output is being dropped."""
        return self._outage is not None

    def stats(self) -> SlotStats:
        return SlotStats(self._bytes, self._lines, self._lost_bytes, self._lost_lines)

    def configure(self, log: Log) -> None:
        """Take new rotation settings; files beyond the new count are deleted."""
        self._file.max_size = log.max_size
        self._file.files = log.files
        self._file.prune()
        self._forward = log.forward == "stdout"
        if not self._forward:
            self._copied.forget()

    def adopt(self, stream: str, writer: object, pipe: int = 0) -> None:
        """``writer`` goes on with the line that an earlier pump left open, if there is one and it
        came out of the same pipe, as far as that is known."""
        with suppress(OSError):
            self._scan()
        if stream in self._open and self._ledger.owner(self._slot, stream) in (None, pipe):
            self._open[stream] = writer

    def is_open(self, stream: str, writer: object) -> bool:
        """Whether the last record of ``stream`` is the beginning of a line of ``writer``."""
        return stream in self._open and self._open[stream] is writer

    def write(
        self,
        batch: _cri.Batch,
        stream: str,
        writer: object,
        when: bytes,
        now_s: float,
        move: Move | None = None,
    ) -> None:
        """Store the records of ``writer``; a line that another one left open is ended first.

        What ``batch`` was made of, the beginning of ``move``, is taken out of its pipe, whether it
        could be stored or not: the services come first.
        """
        if not batch.data:
            return
        move = move or Move(b"", -1, b"")
        if self.retry(when, now_s):
            self._store(batch, stream, writer, when, now_s, move)
        else:
            self._drop(batch.size_bytes, batch.lines)
            self._copy(batch.data)
        self._ledger.skip(move, batch.size_bytes)

    def _store(
        self,
        batch: _cri.Batch,
        stream: str,
        writer: object,
        when: bytes,
        now_s: float,
        move: Move,
    ) -> None:
        stored = 0
        data = batch.data
        steps = _Steps(
            self._ledger,
            move,
            data,
            batch.size_bytes,
            lambda: self._ledger.own(self._slot, stream, move.pipe),
            self._copy,
        )
        try:
            self._scan()
            if self._open.get(stream, writer) is not writer:
                self._append_own(_cri.record(when, stream, b""))
                del self._open[stream]
            self._file.append(data, steps)
        except OSError as error:
            failure = error
        except StoppedError as stop:
            failure = stop.error
            stored = stop.stored
        else:
            self._mark(data, stream, writer)
            self._bytes += batch.size_bytes
            self._lines += batch.lines
            return
        size_bytes, lines = batch.size_bytes, batch.lines
        self._copy(data[stored:])
        if stored:
            self._mark(data[:stored], stream, writer)
            rest_bytes, rest_lines = _cri.lost(data[stored:])
            size_bytes, lines = min(size_bytes, rest_bytes), min(lines, rest_lines)
            self._bytes += batch.size_bytes - size_bytes
            self._lines += batch.lines - lines
        self._fail(failure, now_s, size_bytes, lines)

    def _copy(self, records: bytes, place: Place | None = None) -> None:
        """Records go to everup's own stdout, too; those in a file once they are there."""
        if self._forward and records:
            _forward.stdout.put(self._slot, records, self._copied, place)

    def _append_own(self, records: bytes) -> None:
        """Records that are nobody's output."""
        self._file.append(records, _Steps(self._ledger, Move(b"", -1, b""), records, 0, _nobody))

    def discard(self, size_bytes: int, lines: int, reason: str, now_s: float) -> None:
        """Count output that could not even be made into records, and say so."""
        self._fail(OSError(0, reason), now_s, size_bytes, lines)

    def retry(self, when: bytes, now_s: float) -> bool:
        """Try to end an outage, at most once a second. True when records can be stored."""
        outage = self._outage
        if outage is None:
            return True
        if now_s < outage.retry_s:
            return False
        outage.retry_s = now_s + _RETRY_S
        self._file.close()  # the path may lead to another file by now
        text = (
            f"everup: {outage.lost_lines} lines ({outage.lost_bytes} bytes) lost: {outage.reason}"
        )
        # Lines that were open when the outage began have lost their end.
        ends = b"".join(_cri.record(when, stream, b"") for stream in self._open)
        marker = _cri.record(when, _cri.OWN_STREAM, text.encode(errors="replace"))
        try:
            if outage.errno in _FULL and self._file.free_bytes() < _ROOM_BYTES:
                return False
            self._append_own(ends + marker)
        except OSError:
            return False
        except StoppedError as stop:
            if stop.stored:
                self._open.clear()
            return False
        self._open.clear()
        self._outage = None
        self._tell(LogRecovered(self._slot, outage.lost_bytes, outage.lost_lines, outage.reason))
        return True

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        self._file.close()
        if self._forward:
            _forward.stdout.flush(_FLUSH_S)

    def _scan(self) -> None:
        """Once: find the lines that an earlier pump left open."""
        if self._scanned:
            return
        for line in self._file.end_of_file(_SCAN_BYTES).split(b"\n"):
            found = _cri.parse(line)
            if found is not None and found.partial:
                self._open[found.stream] = None
            elif found is not None:
                self._open.pop(found.stream, None)
        self._scanned = True
        if self._forward and (last := self._copied.read()) is not None:
            for records, place in self._file.after(last, _forward.MOST_BYTES // 2):
                self._copy(records, place)  # the engine before had stored them, and died

    def _mark(self, data: bytes, stream: str, writer: object) -> None:
        if _cri.ends_open(data):
            self._open[stream] = writer
        else:
            self._open.pop(stream, None)

    def _fail(self, error: OSError, now_s: float, size_bytes: int, lines: int) -> None:
        reason = error.strerror or str(error)
        first = self._outage is None
        if self._outage is None:
            self._outage = _Outage(reason, error.errno, now_s + _RETRY_S)
        self._drop(size_bytes, lines)
        if first:
            self._tell(LogLoss(self._slot, size_bytes, lines, reason))

    def _drop(self, size_bytes: int, lines: int) -> None:
        self._lost_bytes += size_bytes
        self._lost_lines += lines
        if self._outage is not None:
            self._outage.lost_bytes += size_bytes
            self._outage.lost_lines += lines

    def _tell(self, event: LogEvent) -> None:
        # Whatever goes wrong with the report must not stop the storing.
        with suppress(Exception):
            self._report(event)


def _nobody() -> None:
    """Our own records leave no line open."""
