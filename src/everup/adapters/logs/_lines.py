"""Lines put together from the records of one file chain."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from everup.adapters.logs import _cri

TEXT_LIMIT = 1 << 20
"""Bytes of one line that are kept for display."""
BLOCK = 64 << 10
MAX_RECORD = 4 << 20
"""Longer stretches without a newline are no records of ours; they are cut."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a service's output."""

    time_ns: int
    """When its end was read from the pipe, nanoseconds since 1970."""
    slot: str
    stream: str
    """``stdout``, ``stderr``, ``everup`` for everup's own words, ``?`` for what is no record."""
    text: bytes
    """Its parts joined, without the newline."""
    more: bool = False
    """The line has no end yet (a prompt); what follows comes as the next line of this stream."""
    truncated: bool = False
    """Longer than 1 MiB: ``text`` is its beginning."""


class _Pending:
    """A line whose end is still to come."""

    __slots__ = ("parts", "size", "time_ns", "truncated", "unshown")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.time_ns = 0
        self.truncated = False
        self.unshown = False

    def add(self, record: _cri.Record) -> None:
        self.time_ns = record.time_ns
        self.unshown = True
        text = record.text[: TEXT_LIMIT - self.size]
        if len(text) < len(record.text):
            self.truncated = True
        self.size += len(text)
        if text:
            self.parts.append(text)

    def line(self, slot: str, stream: str, *, more: bool) -> LogLine:
        text = b"".join(self.parts)
        self.parts.clear()
        self.unshown = False
        return LogLine(self.time_ns, slot, stream, text, more, self.truncated)


class Assembler:
    """Joins the records of one slot, in the order of the file, to lines."""

    def __init__(self, slot: str) -> None:
        self._slot = slot
        self._pending: dict[str, _Pending] = {}  # at most one per stream
        self.last_ns = 0
        """Time of the last record."""

    def feed(self, line: bytes) -> LogLine | None:
        """Take one line of the file; return the service's line that it ends."""
        record = _cri.parse(line)
        if record is None:
            text = line[:TEXT_LIMIT]
            return LogLine(self.last_ns, self._slot, "?", text, truncated=len(text) < len(line))
        self.last_ns = record.time_ns
        if record.partial:
            self._pending.setdefault(record.stream, _Pending()).add(record)
            return None
        pending = self._pending.pop(record.stream, None)
        if pending is None and len(record.text) <= TEXT_LIMIT:
            return LogLine(record.time_ns, self._slot, record.stream, record.text)
        pending = pending or _Pending()
        pending.add(record)
        return pending.line(self._slot, record.stream, more=False)

    def unfinished(self) -> list[LogLine]:
        """What there is of lines without an end, each piece once."""
        return [
            pending.line(self._slot, stream, more=True)
            for stream, pending in self._pending.items()
            if pending.unshown and pending.parts
        ]


def log_path(directory: Path, slot: str, index: int) -> str:
    """Path of the current (0) or a rotated file."""
    name = f"{slot}.log" if index == 0 else f"{slot}.log.{index}"
    return os.path.join(directory, name)


def open_log(directory: Path, slot: str, index: int) -> int | None:
    """Open for reading; None when there is no such file, or it can't be read."""
    try:
        fd = os.open(log_path(directory, slot, index), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return fd


def identity(fd: int) -> tuple[int, int]:
    """Device and inode; unique while the descriptor is open."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def rotated(directory: Path, slot: str) -> list[int]:
    """Indexes of the rotated files that exist, newest (1) first."""
    prefix = f"{slot}.log."
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    ends = (name[len(prefix) :] for name in names if name.startswith(prefix))
    return sorted(int(end) for end in ends if end.isdecimal() and end.isascii())
