"""A limit on calls at once that finds its own height."""

from collections.abc import Awaitable, Callable, Coroutine
from threading import RLock
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._estimators import AIMD, Estimator, Gradient2, Sample, Vegas
from everup.tolerate._forks import blocks_inside, enter, frames_inside, leave, on_fork, renew
from everup.tolerate._options import Seconds, seconds, whole
from everup.tolerate._outcome import Errors, Judge, Outcome
from everup.tolerate.errors import LimitReached

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["AIMD", "Estimator", "Gradient2", "Limit", "LimitPermit", "Sample", "Vegas"]

_FAILED = Outcome.FAILED
_TELL_S = 1.0  # "limit_changed" at most so often


class Limit(Policy):
    """Admits a call while fewer are under way than the limit, which follows the latency seen.

    ``estimator``: ``Gradient2()`` (default), ``Vegas()`` or ``AIMD()``.

    ``on``, ``unless``, ``when``, ``result``: which outcomes are drops, that is, speak of overload;
    see ``Judge``. Default: ``TimeoutError`` alone. A call that returned and is no drop gives its
    latency. All else, so any error that is no drop, changes nothing: how fast an error came says
    nothing of the load.

    The estimator sees windows of calls, not single ones: one ends after ``window_s`` seconds
    (>= 0, default 1), once it has ``samples`` latencies (>= 1, default 10) or a drop. With
    ``window_s=0, samples=1`` each call is a window.

    Raises ``LimitReached`` when the limit is reached, and what the function raises.

    Events: ``rejected`` (under_way, limit); ``limit_changed`` (limit, before), at most once a
    second: changes between are in the next one.
    """

    _looks = False

    def __init__(
        self,
        estimator: Estimator[Any] | None = None,
        *,
        on: Errors = TimeoutError,
        unless: Errors = (),
        when: Callable[[Exception], bool] | None = None,
        result: Callable[[Any], bool] | None = None,
        window_s: Seconds = 1.0,
        samples: int = 10,
        name: str = "limit",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock)
        if not (estimator is None or (hasattr(estimator, "start") and hasattr(estimator, "step"))):
            raise TypeError(
                f"{name}: estimator must be Gradient2(), Vegas() or AIMD(), not {estimator!r}"
            )
        self.estimator: Estimator[Any] = Gradient2() if estimator is None else estimator
        self.judge = Judge(on, unless, when, result)
        self.window_s = seconds("window_s", window_s)
        self.samples = whole("samples", samples)
        # Never held across the user's call. Reentrant: a collection that starts while it is held
        # may close a coroutine that was thrown away, which then gives back what it had.
        self._lock = RLock()
        on_fork(self)
        self._state = self.estimator.start()
        self._limit = max(1, int(self._state.limit))
        self._under_way = 0
        self._count = 0  # of the window: latencies, their sum, the most calls at once, drops
        self._total_s = 0.0
        self._peak = 0
        self._dropped = False
        self._ends_at = float("-inf")  # the first window waits for its samples alone
        self._told = self._limit
        self._told_at = float("-inf")

    def forked(self) -> None:
        """In the child of a fork: the calls of other threads are no more."""
        renew(self._lock)
        calls = frames_inside(self, "self", self)
        held = sum(names.get("admitted", False) for names in calls)
        self._under_way = held + blocks_inside(self)

    @property
    def limit(self) -> int:
        """How many calls may be under way at once, now."""
        return self._limit

    @property
    def under_way(self) -> int:
        """How many calls are under way."""
        return self._under_way

    def utilisation(self) -> float:
        """Calls under way per limit. Above 1 for a while after the limit has shrunk."""
        return self._under_way / self._limit

    def permit(self) -> "LimitPermit":
        """For ``with`` and ``async with``: the block is the call. Entering raises
        ``LimitReached``."""
        return LimitPermit(self)

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        lock, now, bad, samples = self._lock, self.clock.now, self.judge.result, self.samples

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            with lock:
                under_way = self._under_way + 1
                admitted = under_way <= self._limit
                if admitted:
                    self._under_way = under_way
            if not admitted:
                under_way = self._over(call)
                admitted = True
            started = now()
            try:
                got = call(*args, **kwargs)
                failed = bad is not None and bad(got)
            except BaseException as error:
                self._raised(error, under_way)
                raise
            if failed:
                self._drop(under_way)
                return got
            ended = now()
            with lock:  # as in _ok, which would cost a call
                self._under_way -= self._under_way > 0
                self._total_s += ended - started
                self._count = count = self._count + 1
                if under_way > self._peak:
                    self._peak = under_way
                due = ended >= self._ends_at and (count >= samples or self._dropped)
            if due:
                self._step(ended)
            return got

        return guarded

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        lock, now, bad, samples = self._lock, self.clock.now, self.judge.result, self.samples

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            with lock:
                under_way = self._under_way + 1
                admitted = under_way <= self._limit
                if admitted:
                    self._under_way = under_way
            if not admitted:
                under_way = self._over(call)
                admitted = True
            started = now()
            try:
                got = await call(*args, **kwargs)
                failed = bad is not None and bad(got)
            except BaseException as error:
                self._raised(error, under_way)
                raise
            if failed:
                self._drop(under_way)
                return got
            ended = now()
            with lock:
                self._under_way -= self._under_way > 0
                self._total_s += ended - started
                self._count = count = self._count + 1
                if under_way > self._peak:
                    self._peak = under_way
                due = ended >= self._ends_at and (count >= samples or self._dropped)
            if due:
                self._step(ended)
            return got

        return guarded

    def _enter(self) -> int:
        """Admit a call; how many are under way with it."""
        with self._lock:
            under_way = self._under_way + 1
            admitted = under_way <= self._limit
            if admitted:
                self._under_way = under_way
        return under_way if admitted else self._over(None)

    def _over(self, call: object) -> int:
        """More than the limit: how many are under way with it, where it is switched off."""
        if not self._off:
            raise self._rejection(call)
        with self._lock:
            self._under_way += 1
            return self._under_way

    def _rejection(self, call: object) -> LimitReached:
        under_way, limit = self._under_way, self._limit
        if self._listeners:
            self._tell("rejected", call, under_way=under_way, limit=limit)
        return LimitReached(self.name, f"the limit of {limit} calls at once is reached")

    def _ok(self, started: float, under_way: int) -> None:
        ended = self.clock.now()
        with self._lock:
            self._under_way -= self._under_way > 0
            self._total_s += ended - started
            self._count += 1
            self._peak = max(self._peak, under_way)
            due = ended >= self._ends_at and (self._count >= self.samples or self._dropped)
        if due:
            self._step(ended)

    def _raised(self, error: BaseException, under_way: int) -> None:
        with self._lock:  # before the judge, who may raise, too
            self._under_way -= self._under_way > 0
        if self.judge.error(error) is _FAILED:
            self._dropped_one(under_way)

    def _drop(self, under_way: int) -> None:
        with self._lock:
            self._under_way -= self._under_way > 0
        self._dropped_one(under_way)

    def _dropped_one(self, under_way: int) -> None:
        now = self.clock.now()
        with self._lock:
            self._dropped = True
            self._peak = max(self._peak, under_way)
            due = now >= self._ends_at
        if due:
            self._step(now)

    def _step(self, now: float) -> None:
        """End the window."""
        chance = self.clock.random()
        with self._lock:
            count = self._count
            if now < self._ends_at or (count < self.samples and not self._dropped):
                return  # another thread was first
            latency = self._total_s / count if count else None
            sample = Sample(latency, self._peak, self._dropped, chance)
            self._count = self._peak = 0
            self._total_s = 0.0
            self._dropped = False
            self._ends_at = now + self.window_s
            self._state = self.estimator.step(self._state, sample)
            self._limit = limit = max(1, int(self._state.limit))
            before = self._told
            tell = limit != before and now >= self._told_at + _TELL_S
            if tell:
                self._told, self._told_at = limit, now
        if tell:
            self._tell("limit_changed", limit=limit, before=before)


class LimitPermit:
    """What ``Limit.permit`` gives: one call, as a block."""

    __slots__ = ("_limit", "_started", "_under_way")

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._under_way = 0
        self._started = 0.0

    def __enter__(self) -> None:
        if self._under_way:
            raise RuntimeError("this permit is in use: take one for each block")
        self._under_way = self._limit._enter()
        self._started = self._limit.clock.now()
        enter(self._limit)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        under_way, self._under_way = self._under_way, 0
        leave(self._limit)
        if error is None:
            self._limit._ok(self._started, under_way)
        else:
            self._limit._raised(error, under_way)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)
