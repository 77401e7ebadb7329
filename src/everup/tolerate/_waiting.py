"""The half of ``RateLimit`` in which tasks wait for their places."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from everup.tolerate._base import Policy
from everup.tolerate._loops import elsewhere
from everup.tolerate._quota import CLOSE_S, Place, Tokens, Window
from everup.tolerate.errors import RateLimited

if TYPE_CHECKING:
    import asyncio


class Line:
    """The tasks of one event loop that wait, and the places booked for them: the first task gets
    the first place, so those behind one that gave up move up. Never fewer places than tasks."""

    __slots__ = ("loop", "places", "tasks", "timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.places: deque[Place] = deque()
        self.tasks: OrderedDict[asyncio.Future[Place], None] = OrderedDict()
        self.timer: asyncio.TimerHandle  # set as it enters the map


class Waiting(Policy):
    """Tasks that wait, each loop in a line of its own."""

    wait_s: float
    _bucket: Tokens | Window
    _lock: Any
    _lines: dict[asyncio.AbstractEventLoop, Line]

    def _rejection(self, wait_s: float, call: object) -> RateLimited:
        """Of a call that would have to wait so long."""
        raise NotImplementedError

    async def _await(self, call: object) -> None:
        import asyncio

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            elsewhere(self.name, "waiting for a place")
        with self._lock:
            now = self.clock.now()
            at = self._bucket.take(now)
            if at is None or self._off:
                return
            line, spare = self._lines.get(loop), False
            if line is not None and len(line.places) > len(line.tasks):
                at, spare = line.places[len(line.tasks)].at, True
            wait_s = at - now
            future = None
            if wait_s <= self.wait_s + CLOSE_S:
                line = self._new_line(loop, wait_s) if line is None else line
                future = loop.create_future()
                line.tasks[future] = None  # first: a place too many would be given back
                if not spare:
                    line.places.append(self._bucket.book())
        if line is None or future is None:
            raise self._rejection(wait_s, call)
        if self._listeners:
            self._tell("delayed", call, wait_s=wait_s)
        try:
            await future
        except BaseException:
            with self._lock:
                self._gave_up(line, future)
            raise

    def _new_line(self, loop: asyncio.AbstractEventLoop, wait_s: float) -> Line:
        for other in [other for other in self._lines if other.is_closed()]:
            del self._lines[other]  # abandoned with tasks in it
        line = self._lines[loop] = Line(loop)
        line.timer = loop.call_later(wait_s, self._due, line)
        return line

    def _due(self, line: Line) -> None:
        """A place has come."""
        with self._lock:
            now = self.clock.now()
            places = line.places
            while places and places[0].at <= now + CLOSE_S:
                self._hand_over(line, places.popleft())
            if places:
                line.timer = line.loop.call_later(places[0].at - now, self._due, line)
            elif self._lines.get(line.loop) is line:
                del self._lines[line.loop]

    def _hand_over(self, line: Line, place: Place) -> None:
        """Give a place that has come to the first task that still waits, or back."""
        while line.tasks:
            future, _ = line.tasks.popitem(last=False)
            if not future.done():  # else cancelled, and it has not run since
                future.set_result(place)
                return
        self._bucket.undo(place)

    def _gave_up(self, line: Line, future: asyncio.Future[Place]) -> None:
        """A task that waited does not any longer: one place too many."""
        line.tasks.pop(future, None)
        if line.loop.is_closed():
            return  # all of it is over; _new_line forgets it
        if future.done() and not future.cancelled():
            self._hand_over(line, future.result())  # cancelled after its place had come
        places = line.places
        while len(places) > len(line.tasks) and self._bucket.undo(places[-1]):
            places.pop()
        # Places that others booked behind stay here, for a task that comes before they pass.
        if not places and not line.tasks and self._lines.get(line.loop) is line:
            line.timer.cancel()
            del self._lines[line.loop]
