"""What a probe's command says: its last words, whatever comes before them."""

import asyncio
import os

_KEPT_BYTES = 4096
_TAKE_BYTES = 64 << 10
_PAUSE_S = 0.005
"""Between two looks: a command that writes without end waits for room in its pipe."""


class Said:
    """Takes the output of one command as it comes and forgets all but its end. ``write`` is for the
    command; nobody here closes it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._read, self.write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)
        self._end = b""
        self._pause: asyncio.TimerHandle | None = None
        loop.add_reader(self._read, self._readable)

    def last_line(self) -> str:
        """The last of what was said until now."""
        self._take()
        lines = self._end.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """Once the command has ended, or nobody wants to know any more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._read)
        os.close(self._read)

    def _readable(self) -> None:
        self._loop.remove_reader(self._read)
        if self._take():
            again = lambda: self._loop.add_reader(self._read, self._readable)  # noqa: E731
            self._pause = self._loop.call_later(_PAUSE_S, again)

    def _take(self) -> bool:
        """False: nobody can say anything more."""
        try:
            data = os.read(self._read, _TAKE_BYTES)
        except BlockingIOError:
            return True
        self._end = (self._end + data)[-_KEPT_BYTES:]
        return bool(data)
