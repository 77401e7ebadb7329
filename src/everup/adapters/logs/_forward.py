"""Copies of what services write, for everup's own stdout: what a container's log is made of.

The files are the record. Whoever reads everup's stdout may be slow or stand still: then what does
not fit is left out here, and counted. How far each file has been copied is noted beside it
(``SLOT.copied``) once a copy has been written, so that the engine after one that dies goes on from
there: no line is missing, though the last few may come twice.
"""

import os
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from everup.adapters import trusted
from everup.adapters.logs import _cri
from everup.adapters.logs._ledger import Place

MOST_BYTES = 4 << 20
_NOTE = struct.Struct("=QQQ")


class Copied:
    """How far the file of one slot has been copied. Never raises because of the disk."""

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)
        self._fd = -1

    def read(self) -> Place | None:
        """Give the last place that was copied; None where nothing is known."""
        with suppress(OSError, struct.error):
            note = os.pread(self._open(os.O_RDWR), _NOTE.size, 0)
            device, inode, end = _NOTE.unpack(note)
            return Place(device, inode, 0, end)
        return None

    def write(self, place: Place) -> None:
        """Note that all before the end of this place is copied."""
        with suppress(OSError):
            note = _NOTE.pack(place.device, place.inode, place.after)
            os.pwrite(self._open(os.O_RDWR | os.O_CREAT), note, 0)

    def forget(self) -> None:
        """Nothing is copied any more: what comes until it is again, is not to be."""
        with suppress(OSError):
            os.unlink(self._path)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, flags: int) -> int:
        if self._fd < 0:
            self._fd = trusted.open_file(self._path, flags, 0o640)
        return self._fd


class _Copy(NamedTuple):
    text: bytes
    copied: Copied | None
    place: Place | None
    """What is noted once it is written."""


class Forward:
    """One queue and one thread, which begins with the first line."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._todo: deque[_Copy] = deque()
        self._size = 0
        self._left_out = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(
        self, slot: str, records: bytes, copied: Copied | None = None, place: Place | None = None
    ) -> None:
        """Whole records of one instance, which are stored at ``place``; returns at once."""
        head = slot.encode() + b" | "
        known = filter(None, map(_cri.parse, records.splitlines()))
        text = b"".join(head + record.text + b"\n" for record in known)
        with self._changed:
            if self._size + len(text) > MOST_BYTES:
                self._left_out += text.count(b"\n")
                return
            if self._left_out:
                note = f"everup | {self._left_out} lines were not copied here; everup logs has them"
                text, self._left_out = note.encode() + b"\n" + text, 0
            self._todo.append(_Copy(text, copied, place))
            self._size += len(text)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="forward", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> None:
        """Wait for what is on its way, but no longer than that."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while self._size and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._todo:
                    self._changed.wait()
                copy = self._todo.popleft()
            rest = memoryview(copy.text)
            with suppress(OSError):  # nobody is there to read it
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
            if copy.copied is not None and copy.place is not None:
                copy.copied.write(copy.place)
            with self._changed:
                self._size -= len(copy.text)
                self._changed.notify_all()


stdout = Forward()
