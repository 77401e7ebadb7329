"""What is left of an instance whose main process has ended because it was asked to.

After a crash what is left is killed at once, since it must not meet the successor. After a stop
it gets the stop signal, too, and the time that the main process has not used: the shell in
front of a program ends first, and the program has its data still to write.
"""

import contextlib
import os
from collections.abc import Callable

from everup.keeper import wire
from everup.keeper.children import Child, Children

LOOK_S = 0.05


class Remains:
    """Those of whom only the rest is left. ``send`` tells the engine, ``ended`` is called with the
    child once nobody of it is left."""

    def __init__(
        self,
        children: Children,
        send: Callable[[wire.Message], None],
        ended: Callable[[Child], None],
    ) -> None:
        self._children = children
        self._send = send
        self._ended = ended
        self._waiting: list[Child] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self, child: Child) -> bool:
        """Its main process has ended: whether others are left that were promised time. They have
        their signal once this returns."""
        left = self._children.members(child) if child.rest else []
        if not left:
            return False
        for pid in left:
            if pid not in child.asked:  # who takes a second signal for haste gets no second one
                with contextlib.suppress(OSError):
                    os.kill(pid, child.rest)
        child.left = left
        self.resume(child)
        self._send(child.left_report())
        return True

    def resume(self, child: Child) -> None:
        """Wait for the rest of it, as a keeper before this one did."""
        self._waiting.append(child)

    def look(self) -> None:
        """Is anybody left? To be asked when somebody has ended, and every ``LOOK_S``."""
        waiting, self._waiting = self._waiting, []
        for child in waiting:
            if self._children.members(child):
                self._waiting.append(child)
            else:
                self._ended(child)
