"""What everup says of itself, never at the price of standing still.

Its stderr may be a pipe that nobody reads any more (a log driver that hangs) or a terminal that is
held up (Ctrl-S). A line that does not fit is kept for later, within bounds; what is beyond these is
dropped, counted, and told of as soon as something can be told again.
"""

import contextlib
import io
import os
import select
import stat
import sys
from collections import deque

_MOST_LINES = 500
_MOST_BYTES = 4000
"""Of one write: a pipe takes as much whole or not at all."""


class Outlet:
    """Lines for one descriptor; nothing here waits, nothing raises."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._own: int | None = None
        self._whole = True
        self._lines: deque[bytes] = deque()
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
    sys.stdout, sys.stderr = Stream(Outlet(1)), Stream(_own)
    with contextlib.suppress(OSError):
        _own.open()  # now: there may be no descriptor left when there is something to say
