"""Copies of what services write, for everup's own stdout: what a container's log is made of.

The files are the record. Whoever reads everup's stdout may be slow or stand still: then what does
not fit is left out here, and counted.
"""

import os
import threading
import time
from collections import deque
from contextlib import suppress

from everup.adapters.logs import _cri

_MOST_BYTES = 4 << 20


class Forward:
    """One queue and one thread, which begins with the first line."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._todo: deque[bytes] = deque()
        self._size = 0
        self._left_out = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, slot: str, records: bytes) -> None:
        """Whole records of one instance; returns at once."""
        head = slot.encode() + b" | "
        known = filter(None, map(_cri.parse, records.splitlines()))
        text = b"".join(head + record.text + b"\n" for record in known)
        with self._changed:
            if self._size + len(text) > _MOST_BYTES:
                self._left_out += text.count(b"\n")
                return
            if self._left_out:
                note = f"everup | {self._left_out} lines were not copied here; everup logs has them"
                text, self._left_out = note.encode() + b"\n" + text, 0
            self._todo.append(text)
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
                text = self._todo.popleft()
            rest = memoryview(text)
            with suppress(OSError):  # nobody is there to read it
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
            with self._changed:
                self._size -= len(text)
                self._changed.notify_all()


stdout = Forward()
