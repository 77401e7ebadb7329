"""The last lines of files, read backwards."""

import heapq
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from everup.adapters.logs import _cri
from everup.adapters.logs._lines import (
    BLOCK,
    MAX_RECORD,
    TEXT_LIMIT,
    LogLine,
    identity,
    open_log,
    rotated,
)

_TAIL_BYTES = 64 << 20
"""Text that the tail of one slot holds at most."""
_LOOK_BACK_BYTES = 128 << 10
"""How far behind the last wanted line the beginning of a line in parts is searched."""


def tail(directory: Path, slots: Sequence[str], n: int) -> list[LogLine]:
    """The last ``n`` lines over all slots and their rotated files, oldest first.

    Reads backwards from the ends of the files and only as far as needed; at most 64 MiB of text
    per slot. A slot without files has no lines.
    """
    if n <= 0:
        return []
    return merge([tail_slot(directory, slot, n) for slot in slots])[-n:]


def merge(lists: Sequence[Sequence[LogLine]]) -> list[LogLine]:
    """One list by time; the order within each list stays, even where a clock was set back."""
    return list(heapq.merge(*lists, key=lambda line: line.time_ns))


class _Line:
    """A line that is put together from its end."""

    __slots__ = ("more", "parts", "size", "stream", "time_ns", "truncated")

    def __init__(self, time_ns: int, stream: str, text: bytes, *, more: bool = False) -> None:
        self.time_ns = time_ns
        self.stream = stream
        self.parts = deque((text,))
        self.size = len(text)
        self.more = more
        self.truncated = False

    def prepend(self, text: bytes) -> None:
        self.parts.appendleft(text)
        self.size += len(text)
        while self.size - len(self.parts[-1]) >= TEXT_LIMIT:
            self.size -= len(self.parts.pop())
            self.truncated = True

    def line(self, slot: str, time_ns: int) -> LogLine:
        text = b"".join(self.parts)
        truncated = self.truncated or len(text) > TEXT_LIMIT
        return LogLine(time_ns, slot, self.stream, text[:TEXT_LIMIT], self.more, truncated)


class _Back:
    """Takes the lines of a file chain from the last to the first; finds the last ``n``."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._found: list[_Line] = []  # newest first
        self._open: dict[str, _Line] = {}  # lines whose beginning is not seen yet
        self._size = 0
        self._idle = 0

    def feed(self, text: bytes) -> bool:
        """Take one line of the file; False when no more are needed."""
        full = len(self._found) >= self._n
        record = _cri.parse(text)
        if record is None:
            if not full:
                self._found.append(_Line(-1, "?", text[: TEXT_LIMIT + 1]))
        elif record.partial and record.stream in self._open:
            self._open[record.stream].prepend(record.text)
            self._idle = -len(text)
        else:
            self._open.pop(record.stream, None)
            if not full:
                line = _Line(record.time_ns, record.stream, record.text, more=record.partial)
                self._found.append(line)
                self._open[record.stream] = line
        if full:
            self._idle += len(text)
            return bool(self._open) and self._idle <= _LOOK_BACK_BYTES
        self._size += len(text)
        return self._size <= _TAIL_BYTES

    def lines(self, slot: str) -> list[LogLine]:
        """What was found, oldest first. A line that is no record gets its neighbour's time."""
        out: list[LogLine] = []
        time_ns = next((line.time_ns for line in reversed(self._found) if line.time_ns >= 0), 0)
        for line in reversed(self._found):
            time_ns = line.time_ns if line.time_ns >= 0 else time_ns
            out.append(line.line(slot, time_ns))
        return out


def tail_slot(
    directory: Path, slot: str, n: int, stop: tuple[tuple[int, int], int] | None = None
) -> list[LogLine]:
    """The last ``n`` lines of one slot; ``stop``: (identity, offset) of the end to start from."""
    back = _Back(n)
    for fd, end in _files(directory, slot, stop):
        try:
            if not all(map(back.feed, _lines_backwards(fd, end))):
                break
        finally:
            os.close(fd)
    return back.lines(slot)


def _files(
    directory: Path, slot: str, stop: tuple[tuple[int, int], int] | None
) -> Iterator[tuple[int, int]]:
    """(descriptor, end) of the files, newest first. Rotation only moves a file to a higher index,
    so that going upwards misses none; one that is met again is skipped."""
    seen: set[tuple[int, int]] = set()
    index = -1
    while True:
        index += 1
        fd = open_log(directory, slot, index)
        if fd is None:
            if all(other <= index for other in rotated(directory, slot)):
                return
            continue
        key = identity(fd)
        if key in seen or (stop is not None and not seen and key != stop[0]):
            os.close(fd)
            continue
        end = os.fstat(fd).st_size
        if stop is not None and not seen:
            end = min(end, stop[1])
        seen.add(key)
        yield fd, end


def _lines_backwards(fd: int, end: int) -> Iterator[bytes]:
    """Lines of a file before ``end``, the last first. Without what follows the last newline: it is
    still being written."""
    rest: bytes | None = None
    while end > 0:
        # A record longer than a block: read larger ones, lest joining becomes quadratic.
        start = max(0, end - max(BLOCK, len(rest or b"")))
        data = os.pread(fd, end - start, start)
        end = start
        if rest is None:
            newline = data.rfind(b"\n")
            if newline < 0:
                continue
            data = data[:newline]
        else:
            data += rest
        rest, *lines = data.split(b"\n")
        yield from reversed(lines)
        if len(rest) > MAX_RECORD:
            yield rest
            rest = b""
    if rest is not None:
        yield rest
