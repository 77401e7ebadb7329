"""Processes of everup that are dead and cannot end: a thread of theirs waits for a disk.

A thread inside a write to a disk that does not answer (frozen, a dead volume) takes no signal.
Until the disk answers, its process cannot be reaped and its descriptors stay open, so none of the
usual signs of its end come; but nothing of it will ever run again. Nobody waits for such a one:
another takes its place, and leaves alone what this one may still be writing until it is gone.
"""

import contextlib
import os
import select
import time
from collections.abc import Callable

from everup.keeper.spawn import start_ticks

DOOMED = "EVERUP_DOOMED"
"""Environment of an engine or keeper that takes the place of such ones: ``PID:START`` of each, with
spaces between."""
_SIGKILL = 1 << 8
_LOOK_MS = 100


def is_doomed(pid: int) -> bool:
    """Tell whether a process has ended or been killed, though a thread of it is still there."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/status", "rb", 0) as file:
            lines = dict(line.split(b":", 1) for line in file.read(8192).splitlines())
        if lines[b"State"].split()[0] in (b"Z", b"X"):
            return True
        pending = int(lines[b"SigPnd"], 16) | int(lines[b"ShdPnd"], 16)
        return bool(pending & _SIGKILL)
    return False


class Doomed:
    """Those that are known, by pid and start time. Begins with ``text`` (see ``DOOMED``); what in
    it names nobody is left out."""

    def __init__(self, text: str = "") -> None:
        self._known: dict[int, int] = {}
        for word in text.split():
            pid, _, start = word.partition(":")
            if pid.isdigit() and start.isdigit():
                self._known[int(pid)] = int(start)

    def add(self, pid: int) -> None:
        """Keep one in mind."""
        if start := start_ticks(pid):
            self._known[pid] = start

    def left(self) -> list[int]:
        """Give the pids of those that are still there."""
        self._known = {
            pid: start for pid, start in self._known.items() if start_ticks(pid) == start
        }
        return list(self._known)

    @property
    def gate(self) -> Callable[[], bool] | None:
        """Give ``wait`` where there is somebody to wait for."""
        return self.wait if self.left() else None

    def __str__(self) -> str:
        self.left()
        return " ".join(f"{pid}:{start}" for pid, start in self._known.items())

    def wait(self, over: Callable[[], bool] = lambda: False) -> bool:
        """Wait until all of them have ended, or ``over`` says that nobody needs to know any more;
        returns whether they have. It may take as long as a disk takes: for a thread."""
        while left := self.left():
            if over():
                return False
            _wait_for(left[0])
        return True


def _wait_for(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except OSError:  # gone this moment, or none can be had
        time.sleep(_LOOK_MS / 1000)
        return
    try:
        ready = select.poll()
        ready.register(fd, select.POLLIN)
        ready.poll(_LOOK_MS)
    finally:
        os.close(fd)
