"""What a probe's command says: its last words, or what a plugin has to say first."""

import asyncio
import os
from typing import Protocol

from everup.integrations.nagios import plugin
from everup.model.spec import Probe

_KEPT_BYTES = 4096
_TAKE_BYTES = 64 << 10
_PAUSE_S = 0.005
"""Between two looks: a command that writes without end waits for room in its pipe."""


class Listener(Protocol):
    """Reads what one command of a probe says."""

    @property
    def given(self) -> dict[int, int]:
        """What the command gets as its descriptors 1 and 2; nobody here closes them."""
        ...

    def verdict(self, status: int | None, cause: str) -> tuple[bool | None, str]:
        """Say whether the probe succeeded (None: nobody knows), and the detail. ``status`` is that
        of ``waitpid``."""
        ...

    def close(self) -> None:
        """Once the command has ended, or nobody wants to know any more."""
        ...


class Said:
    """Takes the output of one command as it comes and forgets all but its end, or its beginning.
    ``write`` is for the command; nobody here closes it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, first_bytes: int = 0) -> None:
        self._loop = loop
        self._first_bytes = first_bytes
        self._read, self.write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)
        self._kept = b""
        self._pause: asyncio.TimerHandle | None = None
        loop.add_reader(self._read, self._readable)

    @property
    def given(self) -> dict[int, int]:
        return {1: self.write, 2: self.write}

    def verdict(self, status: int | None, cause: str) -> tuple[bool | None, str]:
        """Go by the exit status alone."""
        line = self.last_line()
        return status == 0, f"{cause}: {line}" if line else cause

    def last_line(self) -> str:
        """The last of what was said until now."""
        lines = self.kept().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def kept(self) -> bytes:
        """Give what is kept of all that was said until now."""
        size = -1
        while len(self._kept) > size:  # a pipe may hold more than one look takes
            size = len(self._kept)
            self._take()
        return self._kept

    def close(self) -> None:
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
        if self._first_bytes:
            self._kept += data[: self._first_bytes - len(self._kept)]
        else:
            self._kept = (self._kept + data)[-_KEPT_BYTES:]
        return bool(data)


class PluginSaid:
    """Reads the output of a Nagios plugin, its errors apart."""

    def __init__(self, loop: asyncio.AbstractEventLoop, strict: bool) -> None:
        self._strict = strict
        self._out = Said(loop, plugin.MOST_BYTES)
        try:
            self._err = Said(loop)
        except OSError:
            self._out.close()
            os.close(self._out.write)
            raise

    @property
    def given(self) -> dict[int, int]:
        return {1: self._out.write, 2: self._err.write}

    def verdict(self, status: int | None, cause: str) -> tuple[bool | None, str]:
        if status is None:
            return None, cause
        code = os.waitstatus_to_exitcode(status)
        found = plugin.judge(code, self._out.kept(), self._err.kept())
        text = f"{found.state.name}: {found.text}"
        if found.said:
            text = f"{text} ({found.said})"
        return False if found.serves is None and self._strict else found.serves, text

    def close(self) -> None:
        self._out.close()
        self._err.close()


def listener(loop: asyncio.AbstractEventLoop, probe: Probe) -> Listener:
    """Make the one that a probe asks for. Raises ``OSError``."""
    if probe.plugin == "no":
        return Said(loop)
    return PluginSaid(loop, probe.plugin == "strict")
