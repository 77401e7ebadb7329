"""So many calls in so much time."""

import sys
from collections.abc import Awaitable, Callable, Coroutine
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from everup.tolerate._clock import Clock
from everup.tolerate._forks import on_fork, renew
from everup.tolerate._functions import hearing, hearing_async, plain
from everup.tolerate._options import Seconds, real, seconds, whole
from everup.tolerate._quota import CLOSE_S, MOST, Place, Tokens, Window
from everup.tolerate._waiting import Line, Waiting
from everup.tolerate.errors import RateLimited

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["RateLimit"]

_ONE_AT_A_TIME: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether a few steps without a call or a loop in them are one for all other threads: under the GIL
they are, since it changes hands at those alone. A lock would be half of what such a call costs."""


class RateLimit(Waiting):
    """At most ``rate`` calls in ``per_s`` seconds.

    ``rate``: > 0. ``per_s``: seconds > 0, default 1. ``kind``: ``"token"`` (default), a token
    bucket: ``rate / per_s`` on average, ``burst`` at once after a pause (>= 1; default: ``rate``,
    at least 1), so up to ``burst + rate`` in one ``per_s``. ``"window"``: never more than ``rate``
    in any ``per_s``; ``rate`` is a whole number up to a million, 8 bytes are kept for each.

    ``wait_s``: how long a call may wait for its place, seconds, default 0: not at all. Calls that
    wait go in the order they came; threads wait by ``clock.sleep``, tasks by a timer of their
    loop. A call that would have to wait longer is refused at once. One that is cancelled while it
    waits gives its place to those behind it (except to threads: they sleep on).

    ``weight``: asked with the arguments of each call, gives how many places it takes, 1 or more, at
    most ``burst``; for ``"token"``. Weighted tasks that wait do not move up. ``drain``: asked about
    each exception of a call, gives the seconds for which no further call shall go (None: none): the
    other side has said 429.

    Also for ``with`` and ``async with``: the block is the call. By hand: ``try_take``,
    ``drain_for``, and ``set_rate`` at run time.

    Raises ``RateLimited``; its ``retry_after_s`` says after how many seconds a call would be
    admitted (or may wait), provided that no other comes before it.

    Events: ``rejected`` (retry_after_s); ``delayed`` (wait_s); ``drained`` (for_s).
    """

    def __init__(
        self,
        rate: float,
        per_s: Seconds = 1.0,
        burst: int | None = None,
        kind: Literal["token", "window"] = "token",
        wait_s: Seconds = 0.0,
        *,
        weight: Callable[..., int] | None = None,
        drain: Callable[[Exception], Seconds | None] | None = None,
        name: str = "rate",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock)
        self.wait_s: float = seconds("wait_s", wait_s)  # it bounds the queue
        if kind not in ("token", "window"):
            raise ValueError("kind must be 'token' or 'window'")
        plain("weight", weight)
        plain("drain", drain)
        if weight is not None and kind != "token":
            raise ValueError("weight is for kind 'token'")
        if burst is not None:
            if kind != "token":
                raise ValueError("burst is for kind 'token'")
            whole("burst", burst)
        self.kind = kind
        self._burst, self._weight, self._drain = burst, weight, drain
        self._looks = weight is not None
        self._check(rate, per_s)
        self._bucket: Tokens | Window
        if kind == "token":
            self._bucket = Tokens(self.per_s / rate, self._burst_now())
        else:
            self._bucket = Window(int(rate), self.per_s)
        # Never held across the user's call. Reentrant: a collection that starts while it is held
        # may close a coroutine that was thrown away, which then gives back what it had.
        self._lock = RLock()
        on_fork(self)
        self._lines: dict[asyncio.AbstractEventLoop, Line] = {}

    def _check(self, rate: float, per_s: Seconds) -> None:
        real("rate", rate, above=True)
        per_s = seconds("per_s", per_s, above=True)
        if self.kind == "window":
            whole("rate", int(rate) if rate == int(rate) else rate, 1, MOST)  # type: ignore[arg-type]
        self.rate, self.per_s = rate, per_s
        self._reason = f"more than {rate:g} in {per_s:g} s"

    def _burst_now(self) -> int:
        return max(1, int(self.rate)) if self._burst is None else self._burst

    # -- by hand

    def set_rate(self, rate: float, per_s: Seconds | None = None) -> None:
        """Another rate from now on, and another ``per_s`` where it is given. The calls made of late
        count for it; who waits already waits as long as before. Raises ``ValueError``."""
        with self._lock:
            self._check(rate, self.per_s if per_s is None else per_s)
            if isinstance(self._bucket, Tokens):
                self._bucket.set(self.per_s / rate, self._burst_now(), self.clock.now())
            else:
                self._bucket.set(int(rate), self.per_s)

    def try_take(self) -> bool:
        """Take a place if there is one now; False: there is none. Nothing is told."""
        with self._lock:
            return self._bucket.take(self.clock.now()) is None or bool(self._off)

    def drain_for(self, for_s: Seconds) -> None:
        """No call goes for so many seconds, 0 or more: the other side has said that it is too much.
        Raises ``ValueError``."""
        for_s = seconds("for_s", for_s)
        with self._lock:
            self._bucket.drain(self.clock.now() + for_s)
        if self._listeners:
            self._tell("drained", for_s=for_s)

    def _heard(self, error: Exception) -> None:
        for_s = None if self._drain is None else self._drain(error)
        if for_s is not None:
            self.drain_for(for_s)

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
        await self._await(None)
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
        if self._drain is not None:
            call = hearing(call, self._heard)
        if self._weight is not None:
            return self._around_weighted(call)
        if isinstance(bucket, Window):
            return self._around_window(call, bucket.take)
        tokens = bucket

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            with lock:  # the clock, too: times must come in order
                time = now()
                at = tokens.next_at
                if at <= time + CLOSE_S:
                    early = time - tokens.slack_s
                    tokens.next_at = (at if at > early else early) + tokens.every_s
                    at = 0.0
            if at:
                self._no_place(at - time, call)
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
                self._no_place(at - time, call)
            return call(*args, **kwargs)

        return guarded

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """The closure for an asynchronous call."""
        now, bucket = self.clock.now, self._bucket
        if self._drain is not None:
            call = hearing_async(call, self._heard)
        if self._weight is not None:
            return self._around_weighted_async(call)
        if isinstance(bucket, Window) or not _ONE_AT_A_TIME:
            return self._around_locked_async(call, bucket.take)
        tokens = bucket

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            time = now()
            at = tokens.next_at  # from here to where it is set no other thread can come between
            if at <= time + CLOSE_S:
                early = time - tokens.slack_s
                tokens.next_at = (at if at > early else early) + tokens.every_s
            else:
                await self._no_place_async(at - time, call)
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
                await self._no_place_async(at - time, call)
            return await call(*args, **kwargs)

        return guarded

    def _around_weighted(self, call: Callable[P, T]) -> Callable[P, T]:
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            self._wait(call, self._weigh(args, kwargs))
            return call(*args, **kwargs)

        return guarded

    def _around_weighted_async(
        self, call: Callable[P, Awaitable[T]]
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            place, wait_s = self._book(call, self._weigh(args, kwargs))
            if place is not None:
                try:
                    await self.clock.asleep(wait_s)
                except BaseException:
                    self._undo(place)
                    raise
            return await call(*args, **kwargs)

        return guarded

    def _weigh(self, args: Any, kwargs: Any) -> int:
        weight: int = self._weight(*args, **kwargs) if self._weight is not None else 1
        return whole("weight", weight, 1, self._burst_now())

    def _no_place(self, wait_s: float, call: object) -> None:
        if not self.wait_s and not self._off:
            raise self._rejection(wait_s, call)
        self._wait(call)

    async def _no_place_async(self, wait_s: float, call: object) -> None:
        if not self.wait_s and not self._off:
            raise self._rejection(wait_s, call)
        await self._await(call)

    # -- where there is no place at once

    def _book(self, call: object, weight: int = 1) -> tuple[Place | None, float]:
        """A place now (None), or one in so many seconds; or raise."""
        bucket = self._bucket
        with self._lock:
            now = self.clock.now()
            at = bucket.take(now, weight)
            if at is None or self._off:
                return None, 0.0
            wait_s = at - now
            place = None
            if wait_s <= self.wait_s + CLOSE_S:
                place = bucket.book(weight)
                wait_s = place.at - now  # a call without the lock may have come between
        if place is None:
            raise self._rejection(wait_s, call)
        if self._listeners:
            self._tell("delayed", call, wait_s=wait_s)
        return place, wait_s

    def _undo(self, place: Place) -> None:
        with self._lock:
            self._bucket.undo(place)

    def _wait(self, call: object = None, weight: int = 1) -> None:
        place, wait_s = self._book(call, weight)
        if place is not None:
            try:
                self.clock.sleep(wait_s)
            except BaseException:
                self._undo(place)
                raise

    def _rejection(self, wait_s: float, call: object) -> RateLimited:
        after = max(0.0, wait_s - self.wait_s)
        if self._listeners:
            self._tell("rejected", call, retry_after_s=after)
        return RateLimited(self.name, self._reason, after)
