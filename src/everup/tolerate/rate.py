"""So many calls in so much time."""

import sys
from array import array
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, ParamSpec, TypeVar

from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._forks import on_fork, renew
from everup.tolerate._options import Seconds, real, seconds, whole
from everup.tolerate.errors import RateLimited

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["RateLimit"]

_CLOSE_S = 1e-6  # rounding: who waits for ``retry_after_s`` and not a bit more is admitted
_ONE_AT_A_TIME: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether a few steps without a call or a loop in them are one for all other threads: under the GIL
they are, since it changes hands at those alone. A lock would be half of what such a call costs."""
_MOST = 1_000_000  # places of a sliding window: 8 bytes each


class _Place(NamedTuple):
    """A place booked in the future."""

    at: float
    before: float  # what undoes the booking
    after: float  # what the bucket shows while this is the last one


class _Tokens:
    """A token bucket in one number, when the next call may go: the generic cell rate algorithm
    (ITU-T I.371, annex A) with ``next_at`` = theoretical arrival time - tolerance."""

    __slots__ = ("every_s", "next_at", "slack_s")

    def __init__(self, every_s: float, burst: int) -> None:
        self.every_s = every_s
        self.slack_s = (burst - 1) * every_s
        self.next_at = -inf

    def take(self, now: float) -> float | None:
        """Take a place now; None: taken, else when the next one is free."""
        at = self.next_at
        if at > now + _CLOSE_S:
            return at
        early = now - self.slack_s
        self.next_at = (at if at > early else early) + self.every_s
        return None

    def book(self) -> _Place:
        """Take the next place, which is in the future."""
        at = self.next_at
        self.next_at = after = at + self.every_s
        return _Place(at, at, after)

    def undo(self, place: _Place) -> bool:
        """Give a place back: works for the last one alone, those behind it count on it."""
        if self.next_at != place.after:
            return False
        self.next_at = place.before
        return True


class _Window:
    """A sliding window: the times of the last ``size`` calls, in a ring. Exact: the next call may
    go when the oldest of them leaves the window."""

    __slots__ = ("per_s", "ring", "size", "taken")

    def __init__(self, size: int, per_s: float) -> None:
        self.size = size
        self.per_s = per_s
        self.ring = array("d", [-inf]) * size
        self.taken = 0

    def take(self, now: float) -> float | None:
        """Take a place now; None: taken, else when the next one is free."""
        index = self.taken % self.size
        at = self.ring[index] + self.per_s
        if at > now + _CLOSE_S:
            return at
        self.taken += 1  # first: a fork in between costs its child no place
        self.ring[index] = now
        return None

    def book(self) -> _Place:
        """Take the next place, which is in the future."""
        index = self.taken % self.size
        before = self.ring[index]
        at = before + self.per_s
        self.taken += 1
        self.ring[index] = at
        return _Place(at, before, self.taken)

    def undo(self, place: _Place) -> bool:
        """Give a place back: works for the last one alone, those behind it count on it."""
        if self.taken != place.after:
            return False
        self.taken -= 1
        self.ring[self.taken % self.size] = place.before
        return True


class _Line:
    """The tasks of one event loop that wait, and the places booked for them: the first task gets
    the first place, so those behind one that gave up move up. Never fewer places than tasks."""

    __slots__ = ("loop", "places", "tasks", "timer")

    def __init__(self, loop: "asyncio.AbstractEventLoop") -> None:
        self.loop = loop
        self.places: deque[_Place] = deque()
        self.tasks: OrderedDict[asyncio.Future[_Place], None] = OrderedDict()
        self.timer: asyncio.TimerHandle  # set as it enters the map


class RateLimit(Policy):
    """At most ``rate`` calls in ``per_s`` seconds.

    ``rate``: > 0. ``per_s``: seconds > 0, default 1. ``kind``: ``"token"`` (default), a token
    bucket: ``rate / per_s`` on average, ``burst`` at once after a pause (>= 1; default: ``rate``,
    at least 1), so up to ``burst + rate`` in one ``per_s``. ``"window"``: never more than ``rate``
    in any ``per_s``; ``rate`` is a whole number up to a million, 8 bytes are kept for each.

    ``wait_s``: how long a call may wait for its place, seconds, default 0: not at all. Calls that
    wait go in the order they came; threads wait by ``clock.sleep``, tasks by a timer of their
    loop. A call that would have to wait longer is refused at once. One that is cancelled while it
    waits gives its place to those behind it (except to threads: they sleep on).

    Also for ``with`` and ``async with``: the block is the call.

    Raises ``RateLimited``; its ``retry_after_s`` says after how many seconds a call would be
    admitted (or may wait), provided that no other comes before it.

    Events: ``rejected`` (retry_after_s); ``delayed`` (wait_s).
    """

    _looks = False

    def __init__(
        self,
        rate: float,
        per_s: Seconds = 1.0,
        burst: int | None = None,
        kind: Literal["token", "window"] = "token",
        wait_s: Seconds = 0.0,
        *,
        name: str = "rate",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock)
        real("rate", rate, above=True)
        per_s = seconds("per_s", per_s, above=True)
        wait_s = seconds("wait_s", wait_s)  # it bounds the queue
        self.rate, self.kind = rate, kind
        self.per_s: float = per_s
        self.wait_s: float = wait_s
        self._reason = f"more than {rate:g} in {per_s:g} s"
        self._bucket: _Tokens | _Window
        if kind == "token":
            burst = max(1, int(rate)) if burst is None else whole("burst", burst)
            self._bucket = _Tokens(per_s / rate, burst)
        elif kind == "window":
            if burst is not None:
                raise ValueError("burst is for kind 'token'")
            rate = whole("rate", int(rate) if rate == int(rate) else rate, 1, _MOST)  # type: ignore[arg-type]
            self._bucket = _Window(rate, per_s)
        else:
            raise ValueError("kind must be 'token' or 'window'")
        # Never held across the user's call. Reentrant: a collection that starts while it is held
        # may close a coroutine that was thrown away, which then gives back what it had.
        self._lock = RLock()
        on_fork(self)
        self._lines: dict[asyncio.AbstractEventLoop, _Line] = {}

    def forked(self) -> None:
        """In the child of a fork: nobody waits."""
        renew(self._lock)
        self._lines.clear()

    def __enter__(self) -> "RateLimit":
        """Take a place, waiting for it as a call would. Leaving the block does nothing."""
        self._wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    async def __aenter__(self) -> "RateLimit":
        await self._await()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    # -- around a function: alike but for ``await``. The step of a token bucket is written out: a
    # call of it takes as long as all of the rest.

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        """The closure for a synchronous call."""
        lock, now, bucket = self._lock, self.clock.now, self._bucket
        if isinstance(bucket, _Window):
            return self._around_window(call, bucket.take)
        tokens = bucket

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            with lock:  # the clock, too: times must come in order
                time = now()
                at = tokens.next_at
                if at <= time + _CLOSE_S:
                    early = time - tokens.slack_s
                    tokens.next_at = (at if at > early else early) + tokens.every_s
                    at = 0.0
            if at:
                self._no_place(at - time)
            return call(*args, **kwargs)

        return guarded

    def _around_window(
        self, call: Callable[P, T], take: Callable[[float], float | None]
    ) -> Callable[P, T]:
        lock, now = self._lock, self.clock.now

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            with lock:
                at = take(time := now())
            if at is not None:
                self._no_place(at - time)
            return call(*args, **kwargs)

        return guarded

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """The closure for an asynchronous call."""
        now, bucket = self.clock.now, self._bucket
        if isinstance(bucket, _Window) or not _ONE_AT_A_TIME:
            return self._around_locked_async(call, bucket.take)
        tokens = bucket

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            time = now()
            at = tokens.next_at  # from here to where it is set no other thread can come between
            if at <= time + _CLOSE_S:
                early = time - tokens.slack_s
                tokens.next_at = (at if at > early else early) + tokens.every_s
            else:
                await self._no_place_async(at - time)
            return await call(*args, **kwargs)

        return guarded

    def _around_locked_async(
        self, call: Callable[P, Awaitable[T]], take: Callable[[float], float | None]
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        lock, now = self._lock, self.clock.now

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            with lock:
                at = take(time := now())
            if at is not None:
                await self._no_place_async(at - time)
            return await call(*args, **kwargs)

        return guarded

    def _no_place(self, wait_s: float) -> None:
        if not self.wait_s:
            raise self._rejection(wait_s)
        self._wait()

    async def _no_place_async(self, wait_s: float) -> None:
        if not self.wait_s:
            raise self._rejection(wait_s)
        await self._await()

    # -- where there is no place at once

    def _wait(self) -> None:
        bucket = self._bucket
        with self._lock:
            now = self.clock.now()
            at = bucket.take(now)
            if at is None:
                return
            wait_s = at - now
            place = bucket.book() if wait_s <= self.wait_s + _CLOSE_S else None
            if place is not None:
                wait_s = place.at - now  # a call without the lock may have come between
        if place is None:
            raise self._rejection(wait_s)
        if self._listeners:
            self._tell("delayed", wait_s=wait_s)
        try:
            self.clock.sleep(wait_s)
        except BaseException:
            with self._lock:
                bucket.undo(place)
            raise

    async def _await(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        with self._lock:
            now = self.clock.now()
            at = self._bucket.take(now)
            if at is None:
                return
            line, spare = self._lines.get(loop), False
            if line is not None and len(line.places) > len(line.tasks):
                at, spare = line.places[len(line.tasks)].at, True
            wait_s = at - now
            future = None
            if wait_s <= self.wait_s + _CLOSE_S:
                line = self._new_line(loop, wait_s) if line is None else line
                future = loop.create_future()
                line.tasks[future] = None  # first: a place too many would be given back
                if not spare:
                    line.places.append(self._bucket.book())
        if line is None or future is None:
            raise self._rejection(wait_s)
        if self._listeners:
            self._tell("delayed", wait_s=wait_s)
        try:
            await future
        except BaseException:
            with self._lock:
                self._gave_up(line, future)
            raise

    def _rejection(self, wait_s: float) -> RateLimited:
        after = max(0.0, wait_s - self.wait_s)
        if self._listeners:
            self._tell("rejected", retry_after_s=after)
        return RateLimited(self.name, self._reason, after)

    def _new_line(self, loop: "asyncio.AbstractEventLoop", wait_s: float) -> _Line:
        for other in [other for other in self._lines if other.is_closed()]:
            del self._lines[other]  # abandoned with tasks in it
        line = self._lines[loop] = _Line(loop)
        line.timer = loop.call_later(wait_s, self._due, line)
        return line

    def _due(self, line: _Line) -> None:
        """A place has come."""
        with self._lock:
            now = self.clock.now()
            places = line.places
            while places and places[0].at <= now + _CLOSE_S:
                self._hand_over(line, places.popleft())
            if places:
                line.timer = line.loop.call_later(places[0].at - now, self._due, line)
            elif self._lines.get(line.loop) is line:
                del self._lines[line.loop]

    def _hand_over(self, line: _Line, place: _Place) -> None:
        """Give a place that has come to the first task that still waits, or back."""
        while line.tasks:
            future, _ = line.tasks.popitem(last=False)
            if not future.done():  # else cancelled, and it has not run since
                future.set_result(place)
                return
        self._bucket.undo(place)

    def _gave_up(self, line: _Line, future: "asyncio.Future[_Place]") -> None:
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
