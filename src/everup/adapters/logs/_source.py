"""One stream of one run: a pipe, and a look into it."""

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import termios
from contextlib import suppress

from everup.adapters.logs._file import SlotFile
from everup.adapters.logs._ledger import Move

TAKE_BYTES = 256 << 10
"""Seen of one pipe per round, so that one flood does not starve the others."""
WIDEST_BYTES = 1 << 20
"""The largest pipe that an ordinary user may make."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.tee.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)
_libc.tee.restype = ctypes.c_ssize_t


class Scratch:
    """A pipe of our own through which the content of another one is seen and stays there."""

    def __init__(self) -> None:
        self._read = self._write = -1
        self._make()

    def look(self, fd: int, limit: int) -> bytes | None:
        """What is in the pipe, at most ``limit`` bytes; empty at its end, None when there is
        nothing now. OSError when it can't be seen."""
        if self._write < 0:
            self._make()
        while True:
            size = _libc.tee(fd, self._write, limit, os.SPLICE_F_NONBLOCK)
            if size >= 0:
                break
            error = ctypes.get_errno()
            if error == errno.EAGAIN:
                return None
            if error != errno.EINTR:
                raise OSError(error, os.strerror(error))
        try:
            data = os.read(self._read, size) if size else b""
            while len(data) < size:  # a pipe of packets gives one at a time
                data += os.read(self._read, size - len(data))
        except BaseException:  # out of memory: what is left in there must not come next time
            self.close()
            raise
        return data

    def close(self) -> None:
        for fd in (self._read, self._write):
            with suppress(OSError):
                os.close(fd)
        self._read = self._write = -1

    def _make(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        size = WIDEST_BYTES
        while size > mmap.PAGESIZE:  # as wide as we may
            try:
                fcntl.fcntl(self._write, fcntl.F_SETPIPE_SZ, size)
                break
            except OSError:
                size //= 2


class Source:
    """One stream of one run. Its output stays in the pipe until it is in the log."""

    __slots__ = (
        "close_s",
        "delay_s",
        "fd",
        "file",
        "full",
        "hung_up",
        "key",
        "max_line",
        "more",
        "pipe",
        "rest",
        "since_s",
        "stream",
    )

    def __init__(self, key: tuple[str, int, str], fd: int, file: SlotFile, max_line: int) -> None:
        """OSError for a descriptor that is not open."""
        self.key = key
        self.stream = key[2]
        self.take_over(fd)
        self.file = file
        self.max_line = max_line
        self.rest = 0
        """Bytes of the unfinished line that was left in the pipe."""
        self.since_s = 0.0
        """Since when."""
        self.full = False
        """A writer may have been waiting for room when we looked."""
        self.delay_s = 0.0
        """After which it is to be looked at again, see `Turns`."""
        self.more = False
        """There is more in the pipe than we have looked at."""
        self.hung_up = False
        """Nobody can write into the pipe any more."""
        self.close_s: float | None = None
        """Set once the main process is dead: read no longer than this."""

    def take_over(self, fd: int) -> None:
        """Read from this descriptor from now on."""
        self.fd = fd
        self.pipe = os.fstat(fd).st_ino

    @property
    def name(self) -> bytes:
        """Of the pipe, the same for every pump; never that of another pipe of this boot."""
        slot, run, stream = self.key
        return f"{self.pipe} {run} {stream} {slot}".encode(errors="replace")

    def look(self, scratch: Scratch) -> Move | None:
        """What is in the pipe, for a round; no data at its end, None when there is nothing now.

        Where the kernel does not let us look, it is read: then a kill loses it. OSError when it
        can't be read either.
        """
        limit = max(TAKE_BYTES, self.max_line + 1)
        fd = self.fd
        try:
            data = scratch.look(fd, limit)
        except OSError:
            try:
                data = os.read(fd, limit)
            except BlockingIOError:
                return None
            fd = -1
        return None if data is None else Move(self.name, fd, data, self.pipe)

    def waiting(self) -> int:
        """Bytes in the pipe."""
        return int(struct.unpack("i", fcntl.ioctl(self.fd, termios.FIONREAD, b"\0" * 4))[0])

    def may_be_full(self, size: int) -> bool:
        """Whether a writer may be waiting for room while ``size`` bytes are in the pipe."""
        if size < mmap.PAGESIZE:
            return False
        try:
            pages = fcntl.fcntl(self.fd, fcntl.F_GETPIPE_SZ) // mmap.PAGESIZE
        except OSError:
            return True
        # A pipe is full when all its pages are in use, and small writes may leave nearly half of
        # every page empty; of the first one nearly all has been taken.
        return size >= (pages - 2) * mmap.PAGESIZE // 2

    def widen(self, most_bytes: int) -> bool:
        """Make the pipe wider; False when it is as wide as it may get."""
        try:
            size = 2 * fcntl.fcntl(self.fd, fcntl.F_GETPIPE_SZ)
            if size > most_bytes:
                return False
            fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, size)
        except OSError:
            return False
        return True
