"""How many retries a whole process may make: a share of its calls, and a few on top."""

from collections.abc import Callable
from contextvars import ContextVar
from itertools import count
from threading import RLock
from typing import Any, TypeVar

from everup.tolerate._clock import SYSTEM, Clock
from everup.tolerate._forks import on_fork, renew
from everup.tolerate._options import Seconds, real, seconds

T = TypeVar("T")

_SLICES = 10
_ENOUGH = 1.0 - 1e-9  # 0.29 * 100 is less than 29


class RetryBudget:
    """Keeps retries from multiplying the load on a dependency that fails already.

    Of the calls of the last ``window_s`` seconds the share ``ratio`` may be repeated, and
    ``floor_per_s`` times ``window_s`` more, so that a process with few calls can retry at all: that
    many may go at once. Share one object between all that call the same dependency: ``Retry`` and
    ``Hedge`` take it. Every call deposits, every repetition withdraws before it waits (charged
    after the wait, all that wait at one time would pass: envoy#30205).

    ``ratio``: 0 or more, default 0.2. ``floor_per_s``: 0 or more, default 10. ``window_s``:
    seconds, more than 0, default 10. ``name``: default "budget", for sinks and meters, which show
    what is ``left``. Raises ``ValueError``.

    Of the members of a ``Pipeline`` that have the same budget the outermost alone counts the calls:
    what it repeats is no new call for those inside.

    The defaults and the sliding window in ten slices are those of Finagle's ``RetryBudget``. A
    budget limits how much worse retries make an overload; it does not end one: that takes a breaker
    or shedding.
    """

    __slots__ = (
        "__weakref__",
        "_calls",
        "_end",
        "_lock",
        "_now",
        "_off",
        "_origin",
        "_placed",
        "_repeated",
        "_retries",
        "_seen",
        "_slice",
        "_slice_s",
        "_tick",
        "floor_per_s",
        "name",
        "ratio",
        "window_s",
    )

    def __init__(
        self,
        ratio: float = 0.2,
        floor_per_s: float = 10.0,
        window_s: Seconds = 10.0,
        clock: Clock | None = None,
        *,
        name: str = "budget",
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"RetryBudget: name must be text, not {name!r}")
        self.name = name
        self.ratio = real("ratio", ratio)
        self.floor_per_s = real("floor_per_s", floor_per_s)
        self.window_s = seconds("window_s", window_s, above=True)
        self._now = (SYSTEM if clock is None else clock).now
        # One that the same thread may take again: a signal handler may retry something, too.
        self._lock = RLock()
        on_fork(self)
        self._slice_s = self.window_s / _SLICES
        self._reset()

    def __repr__(self) -> str:
        words = (f"{name}={getattr(self, name):g}" for name in ("ratio", "floor_per_s", "window_s"))
        return f"<RetryBudget {self.name!r} {' '.join(words)}>"

    def _reset(self) -> None:
        """An empty window."""
        # Its step is atomic, so a deposit takes no lock. Looking at it is a step as well.
        self._tick = count().__next__
        self._off = 0  # steps that were a look, and calls that have left the window
        self._seen = 0
        self._calls = [0] * _SLICES
        self._retries = [0] * _SLICES
        self._repeated = 0  # retries in the window
        self._placed = 0  # those of them that stand in a slice
        self._slice = 0
        self._origin = self._now()
        self._end = self._origin + self._slice_s

    def forked(self) -> None:
        """In the child of a fork: what another thread was adding up begins anew."""
        if renew(self._lock):
            self._reset()

    def deposit(self) -> None:
        """Count a call: once each, however often it is repeated."""
        if (now := self._now()) >= self._end:
            with self._lock:
                self._advance(now)
        self._tick()

    def withdraw(self) -> bool:
        """Pay for one repetition; False: there is not enough left, do not repeat."""
        now = self._now()
        with self._lock:
            if now >= self._end:
                self._advance(now)
            # _left, written out: half of what a retry costs
            calls = self._tick() - self._off
            self._off += 1
            left = self.floor_per_s * self.window_s + self.ratio * calls - self._repeated
            if left < _ENOUGH:
                return False
            self._repeated += 1
            return True

    @property
    def left(self) -> float:
        """How many repetitions could be paid for now; 0 or more."""
        now = self._now()
        with self._lock:
            return max(0.0, self._left(now))

    def _left(self, now: float) -> float:
        """With the lock held. Below 0 when calls leave the window before what they paid for."""
        if now >= self._end:
            self._advance(now)
        calls = self._tick() - self._off
        self._off += 1
        return self.floor_per_s * self.window_s + self.ratio * calls - self._repeated

    def _credit(self) -> None:
        """Put the deposits since the last look into the slice that is open. With the lock held."""
        calls = self._tick() - self._off
        self._off += 1
        self._calls[self._slice % _SLICES] += calls - self._seen
        self._seen = calls
        self._retries[self._slice % _SLICES] += self._repeated - self._placed
        self._placed = self._repeated

    def _advance(self, now: float) -> None:
        """Open the slice of ``now`` and empty those that it leaves behind. With the lock held."""
        self._credit()
        new = int((now - self._origin) / self._slice_s)
        # Never back: another thread may have read a later time and come here first.
        for number in range(max(self._slice + 1, new - _SLICES + 1), new + 1):
            place = number % _SLICES
            self._off += self._calls[place]
            self._seen -= self._calls[place]
            self._repeated -= self._retries[place]
            self._placed = self._repeated
            self._calls[place] = self._retries[place] = 0
        if new > self._slice:
            self._slice = new
            self._end = self._origin + (new + 1) * self._slice_s


def check_budget(name: str, budget: object) -> None:
    """Refuse for the option ``budget`` of a policy what is none."""
    if not (budget is None or isinstance(budget, RetryBudget)):
        raise TypeError(f"{name}: budget must be a RetryBudget, not {budget!r}")


# Who deposits is decided when a pipeline is compiled, so that calls pay nothing for it.
counted: ContextVar[tuple[RetryBudget, ...]] = ContextVar("everup.budgets", default=())
"""The budgets into which something further out pays, while a closure is made."""


def making(budgets: tuple[RetryBudget, ...], around: Callable[[Any], T], call: object) -> T:
    """``around(call)``, where something further out pays into these."""
    token = counted.set(budgets)
    try:
        return around(call)
    finally:
        counted.reset(token)


def deposit_of(budget: RetryBudget | None) -> Callable[[], None] | None:
    """What the closure that is made now does for each call; None: nothing."""
    if budget is None or any(one is budget for one in counted.get()):
        return None
    return budget.deposit
