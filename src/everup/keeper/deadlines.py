"""Children that may live until a time, and no longer unless somebody says so.

A service that one machine alone may run is this machine's for a while; who renews that may be dead,
stopped or starved. So whoever has started it has said when it must be gone. Times are those of
CLOCK_BOOTTIME: it also counts while the machine sleeps.
"""

import signal
import time

from everup.keeper.children import Child, Children
from everup.keeper.voice import say

_LOOK_S = 1.0
"""A wait does not count while the machine sleeps: after that it must not go on for long."""
_AGAIN_S = 0.5


def now() -> float:
    """Give seconds since the machine was booted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Deadlines:
    """Those of all children."""

    def __init__(self, children: Children) -> None:
        self._children = children

    def _bound(self) -> list[Child]:
        return [child for child in self._children.known() if child.until and not child.ended_at]

    def check(self, until: float) -> None:
        """Refuse to start what must be gone by now: the machine may have slept since that was
        asked for. Raises ``ValueError``."""
        if until and now() >= until:
            raise ValueError("its time is over, and nobody has said that it may go on")

    def set(self, child_id: str, until: float) -> None:
        """Take another time for a child that is still known; 0: none."""
        for child in self._children.known():
            if child.id == child_id:
                child.until = float(until)

    def wait_s(self) -> float | None:
        """Seconds until ``enforce`` is to be asked; None while nobody is bound."""
        bound = self._bound()
        if not bound:
            return None
        return min(_LOOK_S, max(0.0, min(child.until for child in bound) - now()))

    def enforce(self) -> None:
        """Kill all whose time is over, whole."""
        for child in self._bound():
            at = now()
            if at >= child.until:
                say(f"{child.id}: its time was over and nobody has said that it may go on; killed")
                child.until = at + _AGAIN_S  # until it is seen to have ended
                self._children.signal(child.id, signal.SIGKILL, "all")
