"""How calls went, counted around a pipeline, for whoever asks."""

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from itertools import accumulate
from math import inf
from typing import Any, NamedTuple, ParamSpec, TypeVar

from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._functions import plain
from everup.tolerate._look import Watchable, Watched, check_names, look
from everup.tolerate._options import Seconds
from everup.tolerate._options import seconds as duration
from everup.tolerate._outcome import Errors, Judge, Outcome
from everup.tolerate.budget import RetryBudget
from everup.tolerate.errors import Rejected

P = ParamSpec("P")
T = TypeVar("T")
OK, FAILED = Outcome.OK, Outcome.FAILED
_PER_OCTAVE, _OCTAVES = 4, 24
BOUNDS_S: tuple[float, ...] = tuple(
    1e-5 * 2.0 ** (n / _PER_OCTAVE) for n in range(_PER_OCTAVE * _OCTAVES + 1)
)
"""Upper bounds of the latency buckets, inclusive: from 10 us to 168 s, four to each doubling. One
more bucket has what is above."""


class Snapshot(NamedTuple):
    """What a ``Meter`` has counted, from its beginning or (``since``) from an earlier one."""

    name: str
    """Of the meter: what the calls go to."""
    at: float
    """When it was taken, monotonic seconds."""
    ok: int
    failed: int
    neutral: int
    """Cancelled, interrupted: they say nothing."""
    rejected: int
    """Not made: an inner policy said no."""
    total_s: float
    """Seconds that the calls took which were ok or failed, together."""
    buckets: tuple[int, ...]
    """The same calls by their latency, see ``BOUNDS_S``; each in one bucket."""
    watched: tuple[Watched, ...]
    """The policies it was given to watch, as they are now."""

    @property
    def calls(self) -> int:
        """All of them."""
        return self.ok + self.failed + self.neutral + self.rejected

    def since(self, previous: "Snapshot") -> "Snapshot":
        """What has come since an earlier one of the same meter."""
        return self._replace(
            ok=self.ok - previous.ok,
            failed=self.failed - previous.failed,
            neutral=self.neutral - previous.neutral,
            rejected=self.rejected - previous.rejected,
            total_s=self.total_s - previous.total_s,
            buckets=tuple(map(int.__sub__, self.buckets, previous.buckets)),
        )

    def quantile(self, q: float) -> float | None:
        """Seconds that the share ``q`` (0 to 1) of the calls that were ok or failed stayed within;
        None: there was none.

        Interpolated within a bucket, so it lies within a factor of 1.19 of the true one, above
        10 us; of more than 168 s it says 168 s. Raises ``ValueError`` outside of 0 to 1.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q is {q!r}: it must be from 0 to 1")
        sums = list(accumulate(self.buckets))
        if not sums[-1]:
            return None
        # The q-th of n values in order is number ceil(q * n), and the first at the least.
        rank = max(q * sums[-1], 1.0)
        index = bisect_left(sums, rank)
        if index == len(BOUNDS_S):
            return BOUNDS_S[-1]
        low = BOUNDS_S[index - 1] if index else 0.0
        before = sums[index] - self.buckets[index]
        within: float = (rank - before) / self.buckets[index]
        return low + (BOUNDS_S[index] - low) * within

    @property
    def p50_s(self) -> float | None:
        """See ``quantile``."""
        return self.quantile(0.5)

    @property
    def p95_s(self) -> float | None:
        """See ``quantile``."""
        return self.quantile(0.95)

    @property
    def p99_s(self) -> float | None:
        """See ``quantile``."""
        return self.quantile(0.99)


class _Hook:
    __slots__ = ("due", "every_s", "what")

    def __init__(self, due: float, every_s: float, what: Callable[[], object]) -> None:
        self.due = due
        self.every_s = every_s
        self.what = what


class Meter(Policy):
    """Counts how calls go and how long they take. Outermost in a pipeline: it sees what callers
    see. One for each thing that is called, and ``name`` says which.

    ``watch``: policies whose state a snapshot shows (a breaker's state, the places of a bulkhead,
    a limit) and budgets (what is left): one or several, of different names. Of a ``Keyed`` it shows
    at most 64 keys, the worst, as ``keyed[key]``; of a ``Pipeline`` its members. ``on``,
    ``unless``, ``when``, ``result``: which outcomes are failures, see ``Judge``. A ``Rejected``
    counts as rejected, unless ``on`` names it; what is no ``Exception``, and a call whose outcome a
    predicate fails to judge, as neutral.

    Counting takes no lock: it is plain additions. Under the GIL they are exact, since no other
    thread comes between the parts of one. Without it (a free-threaded build) two calls that end at
    the same moment in the same bucket can count as one. Snapshots are taken while calls go on, so
    one may miss part of a call that ends just then; the next one has it.

    Memory is bounded: it keeps the buckets and nothing of single calls. It tells no events. Raises
    ``ValueError`` where two policies to watch have one name.
    """

    _looks = False

    def __init__(
        self,
        name: str = "meter",
        *,
        watch: Watchable | Iterable[Watchable] = (),
        on: Errors = Exception,
        unless: Errors = (),
        when: Callable[[Exception], bool] | None = None,
        result: Callable[[Any], bool] | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock)
        self.watch = (watch,) if isinstance(watch, Policy | RetryBudget) else tuple(watch)
        check_names(self.watch)
        self._judge = Judge(on, unless, when, result)
        self._ok = [0] * (len(BOUNDS_S) + 1)
        self._failed = [0] * (len(BOUNDS_S) + 1)
        self._neutral = 0
        self._rejected = 0
        self._total_s = 0.0
        self._hooks: tuple[_Hook, ...] = ()
        self._due = inf

    # -- looking

    def snapshot(self) -> Snapshot:
        """Everything so far."""
        ok, failed = list(self._ok), list(self._failed)
        return Snapshot(
            self.name,
            self.clock.now(),
            sum(ok),
            sum(failed),
            self._neutral,
            self._rejected,
            self._total_s,
            tuple(map(int.__add__, ok, failed)),
            tuple(seen for source in self.watch for seen in look(source)),
        )

    def every(self, seconds: Seconds, what: Callable[[], object]) -> Callable[[], None]:
        """Call ``what()`` at the end of a guarded call, on its thread, when ``seconds`` (above 0)
        have passed since the last time or since now: for those who tell the world without a thread
        of their own. It should be quick; an ``Exception`` of it is dropped. Returns what ends it.
        """
        plain("what", what)
        every_s = duration("seconds", seconds, above=True)
        hook = _Hook(self.clock.now() + every_s, every_s, what)
        self._hooks = (*self._hooks, hook)
        self._set_due()

        def end() -> None:
            self._hooks = tuple(one for one in self._hooks if one is not hook)
            self._set_due()

        return end

    def _set_due(self) -> None:
        self._due = min((hook.due for hook in self._hooks), default=inf)

    def _turn(self, now: float) -> None:
        due = [hook for hook in self._hooks if hook.due <= now]
        for hook in due:
            hook.due = now + hook.every_s
        self._set_due()
        for hook in due:
            try:
                hook.what()
            except Exception as error:  # telling must not break what is told of
                self._complain("hook", hook.what, error)

    # -- around a function: alike but for ``await``

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        """The closure for a synchronous call."""
        now, ok, bad = self.clock.now, self._ok, self._judge.result
        bounds, bucket = BOUNDS_S, bisect_left

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            started = now()
            try:
                value = call(*args, **kwargs)
            except BaseException as error:
                self._raised(error, started)
                raise
            ended = now()
            took_s = ended - started
            if bad is None:
                ok[bucket(bounds, took_s)] += 1
                self._total_s += took_s
            else:
                self._returned(value, took_s)
            if ended >= self._due:
                self._turn(ended)
            return value

        return guarded

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """The closure for an asynchronous call."""
        now, ok, bad = self.clock.now, self._ok, self._judge.result
        bounds, bucket = BOUNDS_S, bisect_left

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            started = now()
            try:
                value = await call(*args, **kwargs)
            except BaseException as error:
                self._raised(error, started)
                raise
            ended = now()
            took_s = ended - started
            if bad is None:
                ok[bucket(bounds, took_s)] += 1
                self._total_s += took_s
            else:
                self._returned(value, took_s)
            if ended >= self._due:
                self._turn(ended)
            return value

        return guarded

    def _returned(self, value: object, took_s: float) -> None:
        try:
            outcome = self._judge.value(value)
        except BaseException:
            self._neutral += 1
            raise
        self._count(outcome, took_s)

    def _raised(self, error: BaseException, started: float) -> None:
        ended = self.clock.now()
        if isinstance(error, Rejected) and not isinstance(error, self._judge.rejections):
            self._rejected += 1
        else:
            try:
                outcome = self._judge.error(error)
            except BaseException:
                self._neutral += 1
                raise
            self._count(outcome, ended - started)
        if ended >= self._due:
            self._turn(ended)

    def _count(self, outcome: Outcome, took_s: float) -> None:
        index = bisect_left(BOUNDS_S, took_s)
        if outcome is OK:
            self._ok[index] += 1
        elif outcome is FAILED:
            self._failed[index] += 1
        else:
            self._neutral += 1
            return
        self._total_s += took_s
