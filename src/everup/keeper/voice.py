"""What everup says of itself, never at the price of standing still.

Its stderr may be a pipe that nobody reads any more (a log driver that hangs) or a terminal that is
held up (Ctrl-S). A line that does not fit is kept for later, within bounds; what is beyond these is
dropped, counted, and told of as soon as something can be told again. A file cannot be asked whether
it takes something now, and on a disk that stalls it does not for minutes: a thread writes there.
"""

import _thread
import atexit
import contextlib
import io
import os
import select
import stat
import sys
import time
from collections import deque

_MOST_LINES = 500
_LAST_S = 0.5
_MOST_BYTES = 4000
"""Of one write: a pipe takes as much whole or not at all."""


class Outlet:
    """Lines for one descriptor; nothing here waits, nothing raises."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._own: int | None = None
        self._whole = True
        self._lines: deque[bytes] = deque()
        self._wake: _thread.LockType | None = None
        """The thread that writes to a file takes it for each round; None: there is no such thread,
        or not yet. (A threading.Event would have every keeper load ``threading``.)"""
        self.dropped = 0
        """Lines that nobody will read."""

    def put(self, text: str) -> None:
        """Write a line, or keep it until it can be written."""
        data = text.encode("utf-8", "backslashreplace")
        if len(self._lines) >= _MOST_LINES:
            self.dropped += 1
        else:
            self._lines.extend(
                data[at : at + _MOST_BYTES] for at in range(0, len(data), _MOST_BYTES)
            )
        self.flush()

    def flush(self) -> None:
        """Write what waits, as far as somebody takes it."""
        if self._wake is not None:
            _set(self._wake)
        elif self._lines and self._is_file():
            self._start()
        else:
            self._send()

    def drain(self, timeout_s: float) -> None:
        """At the end of the process: give a file some time to take what waits."""
        until = time.monotonic() + timeout_s
        while self._wake is not None and self._lines and time.monotonic() < until:
            _set(self._wake)
            time.sleep(0.002)

    def _is_file(self) -> bool:
        try:
            return stat.S_ISREG(os.fstat(self._fd).st_mode)
        except OSError:
            return False

    def _start(self) -> None:
        wake = self._wake = _thread.allocate_lock()
        try:
            _thread.start_new_thread(self._work, (wake,))  # its start never waits
        except (
            RuntimeError
        ):  # no thread can be had: better to wait for the disk than to say nothing
            self._wake = None
            self._send()

    def forked(self) -> None:
        """In the child of a fork there is no thread."""
        self._wake = None

    def _work(self, wake: _thread.LockType) -> None:
        while True:
            wake.acquire()
            self._send()

    def _send(self) -> None:
        while self._lines and (done := self._write(self._lines[0])) is not None:
            self._lines.popleft()
            if done and self.dropped and not self._lines:
                note = f"everup: {self.dropped} lines of its own could not be written here\n"
                self.dropped = 0
                self._lines.append(note.encode())

    def _write(self, data: bytes) -> bool | None:
        """True: written; False: nobody will ever take it; None: to be tried again."""
        try:
            fd = self.open()
            if not self._whole and not _takes(fd):
                return None
            written = os.write(fd, data)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            self.dropped += 1
            return False
        if written < len(data):
            self._lines[0] = data[written:]
            return None
        return True

    def open(self) -> int:
        """A description of the file that is ours alone, so that it can be non-blocking: to make the
        shared one so would change it for whoever started everup."""
        if self._own is None:
            self._own = self._fd
            mode = os.fstat(self._fd).st_mode
            if not stat.S_ISSOCK(mode):
                flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                with contextlib.suppress(OSError):
                    self._own = os.open(f"/proc/self/fd/{self._fd}", flags)
            self._whole = self._own != self._fd
        return self._own


def _set(wake: _thread.LockType) -> None:
    with contextlib.suppress(RuntimeError):  # it is set already
        wake.release()


def _takes(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return any(
        event & (select.POLLOUT | select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)
    )


class Stream(io.TextIOBase):
    """In place of ``sys.stdout`` or ``sys.stderr``: whatever writes there never waits."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self.outlet = outlet
        self._begun = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._begun += text
        *lines, self._begun = self._begun.split("\n")
        if len(self._begun) > _MOST_BYTES:
            lines, self._begun = [*lines, self._begun], ""
        for line in lines:
            self.outlet.put(f"{line}\n")
        return len(text)

    def flush(self) -> None:
        self.outlet.flush()


_own = Outlet(2)


def say(text: str) -> None:
    """To the log of everup, or the terminal: nothing in it is obeyed there."""
    harmless = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    _own.put(f"everup keeper: {harmless}\n")


def flush() -> None:
    """Try again what could not be said."""
    _own.flush()


def never_wait() -> None:
    """From now on nothing that this process says of itself can hold it up."""
    out = Outlet(1)
    sys.stdout, sys.stderr = Stream(out), Stream(_own)

    def ends() -> None:
        for outlet in (out, _own):
            outlet.drain(_LAST_S)

    def forked() -> None:
        for outlet in (out, _own):
            outlet.forked()

    atexit.register(ends)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forked)
    with contextlib.suppress(OSError):
        _own.open()  # now: there may be no descriptor left when there is something to say
