"""When the calls of a ``Timeout`` are over: all after the same time, or each after its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from everup.tolerate.deadline import AT, SLACK_S, TASK, Entry, cut

if TYPE_CHECKING:
    import asyncio

_MANY = 64
"""Ended calls that a lane keeps, in vain, behind a slow one before it looks for them."""


class Lane:
    """The calls of one ``Timeout`` on one event loop. As all may take equally long, the first that
    began is the first that is due: a deque holds them, and one timer serves all. A call that ends
    leaves the timer alone: it finds out when it fires, at most once per timeout."""

    # It must not hold the loop: the loop is what it is kept under.
    __slots__ = ("armed", "blocks", "context", "dead", "now", "off", "queue")

    def __init__(self, now: Callable[[], float], off: Callable[[], object]) -> None:
        self.now = now
        self.off = off
        """Whether nothing is to be cut off now."""
        self.queue: deque[Entry] = deque()
        self.dead = 0
        """Entries of ended calls in the queue."""
        self.armed = False
        self.context = Context()  # empty: a timer must not keep some call's variables alive
        self.blocks: dict[Any, list[Entry]] = {}
        """What each task has entered with ``async with``."""

    def arm(self, loop: asyncio.AbstractEventLoop, left: float) -> None:
        """Look again in so many seconds."""
        self.armed = True
        loop.call_later(left, self._fire, loop, context=self.context)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self.armed = False
        queue, now = self.queue, self.now()
        due: list[Entry] = []
        while queue:
            entry = queue[0]
            if entry[TASK] is None:
                self.dead -= 1
            elif entry[AT] > now + SLACK_S:
                self.arm(loop, entry[AT] - now)
                break
            else:
                entry[AT] = None
                due.append(entry)
            queue.popleft()
        if due and not self.off():
            loop.call_soon(cut, loop, due, self.context, True, context=self.context)

    def leave(self, entry: Entry) -> None:
        """A call has ended, wherever it stands."""
        entry[TASK] = None
        if entry[AT] is None:
            return
        queue = self.queue
        self.dead += 1
        while queue and queue[0][TASK] is None:
            queue.popleft()
            self.dead -= 1
        if self.dead > _MANY and self.dead * 2 > len(queue):
            alive = [one for one in queue if one[TASK] is not None]
            queue.clear()
            queue.extend(alive)
            self.dead = 0


class Timer:
    """One call that has a time of its own."""

    __slots__ = ("context", "entry", "handle", "now", "off")

    handle: asyncio.TimerHandle

    def __init__(
        self, task: asyncio.Task[Any], left_s: float, now: Callable[[], float], off: Any
    ) -> None:
        self.now = now
        self.off = off
        self.context = Context()
        self.entry: Entry = [task, now() + left_s, task.cancelling(), False]
        self._arm(task.get_loop(), left_s)

    def _arm(self, loop: asyncio.AbstractEventLoop, left_s: float) -> None:
        self.handle = loop.call_later(left_s, self._due, loop, context=self.context)

    def _due(self, loop: asyncio.AbstractEventLoop) -> None:
        left_s = self.entry[AT] - self.now()
        if left_s > SLACK_S:
            self._arm(loop, left_s)
        elif not self.off():
            loop.call_soon(cut, loop, [self.entry], self.context, True, context=self.context)

    def end(self) -> None:
        """The call is over."""
        self.entry[TASK] = None
        self.handle.cancel()
