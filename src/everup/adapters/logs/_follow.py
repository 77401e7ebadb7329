"""New lines of files as they are written, through rotation."""

import heapq
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from everup.adapters.logs import _cri
from everup.adapters.logs._lines import (
    BLOCK,
    MAX_RECORD,
    Assembler,
    LogLine,
    identity,
    log_path,
    open_log,
    rotated,
)
from everup.adapters.logs._tail import merge, tail_slot

_POLL_LINES = 1000
_POLL_BYTES = 1 << 20


class _SlotFollower:
    """Reads the files of one slot on, one block at a time."""

    def __init__(self, directory: Path, slot: str) -> None:
        self._directory = directory
        self._slot = slot
        self._assembler = Assembler(slot)
        self._fd: int | None = None
        self._id = (0, 0)
        self._offset = 0
        self._left = False  # the writer has gone on to another file
        self._busy = False
        self.pending: deque[LogLine] = deque()  # the lines of one block
        for index in (0, *rotated(directory, slot)):
            fd = open_log(directory, slot, index)
            if fd is not None:
                self._enter(fd)
                self._offset = self._last_newline()
                break

    @property
    def position(self) -> tuple[tuple[int, int], int] | None:
        """(identity, offset) of the file that is read, None while there is none."""
        return None if self._fd is None else (self._id, self._offset)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def fill(self) -> bool:
        """Read until there are pending lines; False when there is nothing new."""
        while not self.pending:
            data = b"" if self._fd is None else self._block()
            if data:
                self._busy = True
                for text in data[:-1].split(b"\n"):
                    line = self._assembler.feed(text)
                    if line is not None:
                        self.pending.append(line)
            elif not self._advance():
                break
        return bool(self.pending)

    def settle(self) -> list[LogLine]:
        """Called once per poll, after `fill` found nothing: lines without an end, once no new part
        of them came during a whole poll."""
        busy, self._busy = self._busy, False
        return [] if busy else self._assembler.unfinished()

    def _block(self) -> bytes:
        """Whole lines from the offset on, empty at the end of the file."""
        assert self._fd is not None
        size = os.fstat(self._fd).st_size
        if size < self._offset:
            self._offset = 0  # truncated by somebody
        want = BLOCK
        while True:
            data = os.pread(self._fd, want, self._offset)
            cut = data.rfind(b"\n") + 1
            if not cut and len(data) < want:
                if not (data and self._left):
                    return b""  # the rest of the record is still being written
                self._offset += len(data)
                return data + b"\n"
            if not cut and want >= MAX_RECORD:
                self._offset += len(data)
                return data + b"\n"
            if cut:
                self._offset += cut
                return data[:cut]
            want *= 2

    def _advance(self) -> bool:
        """At the end of the file: go on to the next one. False: there is none, or none yet."""
        if self._fd is None:
            fd = self._oldest(0)
        else:
            if not self._left:
                try:
                    status = os.stat(log_path(self._directory, self._slot, 0))
                except OSError:
                    return False  # between two steps of a rotation
                if (status.st_dev, status.st_ino) == self._id:
                    return False
                # What was written between our last read and the rotation comes first.
                self._left = True
                return True
            fd = self._next()
        if fd is None:
            return False
        self._enter(fd)
        return True

    def _next(self) -> int | None:
        """The file after the one that is read."""
        for _ in range(100):
            index = self._index()
            if index is None:
                return self._oldest(self._since_ns())
            # The next lower index, unless somebody has deleted that file.
            lower = (open_log(self._directory, self._slot, i) for i in range(index - 1, -1, -1))
            fd = next((found for found in lower if found is not None), None)
            if self._index() == index:  # not rotated meanwhile
                return fd
            if fd is not None:
                os.close(fd)
        return None

    def _since_ns(self) -> int:
        """What is newer than the file that is read begins at this time or later."""
        assert self._fd is not None
        return (
            self._assembler.last_ns
            or _cri.time_of(os.pread(self._fd, _cri.HEADER, 0))
            or os.fstat(self._fd).st_mtime_ns
        )

    def _index(self) -> int | None:
        """Where the file that is read has been moved to; None: it was deleted."""
        assert self._fd is not None
        for _ in range(100):
            found = next((index for index, key in self._chain() if index and key == self._id), None)
            # It may be there and missed, because it was moved while we looked.
            if found is not None or os.fstat(self._fd).st_nlink == 0:
                return found
        return None  # moved out of the chain by somebody

    def _chain(self) -> list[tuple[int, tuple[int, int]]]:
        """(index, identity) of the files, oldest first."""
        chain: list[tuple[int, tuple[int, int]]] = []
        for index in (*reversed(rotated(self._directory, self._slot)), 0):
            try:
                status = os.stat(log_path(self._directory, self._slot, index))
            except OSError:
                continue
            chain.append((index, (status.st_dev, status.st_ino)))
        return chain

    def _oldest(self, since_ns: int) -> int | None:
        """The oldest file that begins at ``since_ns`` or later."""
        for _ in range(100):
            chain = self._chain()
            fd = self._first_since(since_ns, [index for index, _ in chain])
            if self._chain() == chain:  # not rotated meanwhile
                return fd
            if fd is not None:
                os.close(fd)
        return None

    def _first_since(self, since_ns: int, indexes: Sequence[int]) -> int | None:
        for index in indexes:
            fd = open_log(self._directory, self._slot, index)
            if fd is None:
                continue
            if self._fd is None or identity(fd) != self._id:
                first = _cri.time_of(os.pread(fd, _cri.HEADER, 0))
                # A file without a record at its start is taken for new only if it is the current.
                if since_ns == 0 or (index == 0 and first is None) or (first or 0) >= since_ns:
                    return fd
            os.close(fd)
        return None

    def _enter(self, fd: int) -> None:
        self.close()
        self._fd = fd
        self._id = identity(fd)
        self._offset = 0
        self._left = False

    def _last_newline(self) -> int:
        assert self._fd is not None
        end = os.fstat(self._fd).st_size
        start = end
        while start > 0:
            stop, start = start, max(0, start - BLOCK)
            newline = os.pread(self._fd, stop - start, start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
        return 0


class Follower:
    """New lines of some slots since it was made. Used by one thread at a time; hold one descriptor
    per slot, so close it."""

    def __init__(self, directory: Path, slots: Sequence[str], *, last: int = 0) -> None:
        """``last``: how many lines from before go into `history`, default 0. Between them and the
        first poll nothing is missing and nothing is doubled."""
        self._slots = [_SlotFollower(directory, slot) for slot in slots]
        self.history: list[LogLine] = []
        """The last lines before this follower began, oldest first."""
        if last > 0:
            found = [
                tail_slot(directory, slot, last, follower.position)
                for slot, follower in zip(slots, self._slots, strict=True)
                if follower.position is not None
            ]
            self.history = merge(found)[-last:]

    def poll(self) -> list[LogLine]:
        """New lines, merged by time; at most 1000 and about 1 MiB, the rest comes next time.

        Survives rotation. A follower that falls behind further than the files that are kept goes
        on with the oldest of them. A line without an end comes with ``more`` set once nothing was
        added to it from one poll to the next.
        """
        out: list[LogLine] = []
        size = 0
        heap: list[tuple[int, int]] = []
        for number, slot in enumerate(self._slots):
            if slot.pending or slot.fill():
                heapq.heappush(heap, (slot.pending[0].time_ns, number))
            else:
                out += slot.settle()
        while heap and len(out) < _POLL_LINES and size < _POLL_BYTES:
            _, number = heapq.heappop(heap)
            slot = self._slots[number]
            line = slot.pending.popleft()
            out.append(line)
            size += len(line.text)
            if slot.pending or slot.fill():
                heapq.heappush(heap, (slot.pending[0].time_ns, number))
        return out

    def close(self) -> None:
        """Close the files."""
        for slot in self._slots:
            slot.close()

    def __enter__(self) -> "Follower":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
