"""When a breaker trips: the options, and the windows that count for them.

A window is pure: it is told the time and reads no clock. Successes are the many, so they cost one
atomic step, ``hit()``, and need no lock; failures and slow calls are the few, and only they are
judged. The holder calls everything but ``hit`` under its lock, and ``ok`` in place of ``hit`` from
the time ``ends`` on.
"""

from collections import deque
from enum import Enum
from itertools import count
from math import inf
from typing import NamedTuple

from everup.tolerate._options import Seconds, Spec, real, seconds, whole


class Why(Enum):
    """Why a breaker opened."""

    FAILURES = "failures"
    """So many failures in a row."""
    RATE = "rate"
    """The share of failures in the window."""
    SLOW = "slow"
    """The share of slow calls in the window, or a slow call that completed the row."""
    PROBE = "probe"
    """A probe failed."""
    SLOW_PROBE = "slow_probe"
    """A probe came back, but as slow as what opens the breaker."""
    HAND = "hand"
    """Somebody called ``open``."""


class State(Enum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    """Lets them through and counts."""
    OPEN = "open"
    """Rejects them, until its time is over and the next call becomes a probe."""
    HALF_OPEN = "half-open"
    """Lets a few through, to find out."""
    ISOLATED = "isolated"
    """Rejects them until ``reset``."""


class Counts(NamedTuple):
    """What a window holds."""

    calls: int
    failures: int
    slow: int


class Consecutive(Spec):
    """Trips after ``failures`` failures in a row (1 or more, default 5).

    ``slow_s``: a call that takes so many seconds or longer counts in the row as well (above 0;
    default None: however long). A row has no share of slow calls, so there is no ``slow_rate``.
    Raises ``ValueError`` out of range.
    """

    __slots__ = ("failures", "slow_s")

    def __init__(self, failures: int = 5, *, slow_s: Seconds | None = None) -> None:
        self.failures = whole("failures", failures)
        self.slow_s = None if slow_s is None else seconds("slow_s", slow_s, above=True)

    def window(self, now: float) -> "Row":
        """An empty one."""
        return Row(self)


class CountWindow(Spec):
    """Trips on what the last ``size`` calls say (1 or more, default 100).

    ``rate``: at this share of failures or above (above 0, up to 1, default 0.5). ``least``: not
    before so many calls are in the window (1 to ``size``, default 10). ``slow_s``: a call that
    takes so many seconds or longer is slow (above 0; default None: none is), failed or not;
    ``slow_rate``: at this share of slow calls it trips too (above 0, up to 1, default 0.5).
    A call that is neither failed nor slow never trips. Raises ``ValueError`` out of range.
    """

    __slots__ = ("least", "rate", "size", "slow_rate", "slow_s")

    def __init__(
        self,
        size: int = 100,
        rate: float = 0.5,
        least: int = 10,
        *,
        slow_s: Seconds | None = None,
        slow_rate: float = 0.5,
    ) -> None:
        self.size = whole("size", size)
        self.rate = real("rate", rate, 0, 1, above=True)
        self.least = whole("least", least)
        if least > size:
            raise ValueError(f"least ({least}) is above size ({size}): it would never trip")
        self.slow_s = None if slow_s is None else seconds("slow_s", slow_s, above=True)
        self.slow_rate = real("slow_rate", slow_rate, 0, 1, above=True)

    def window(self, now: float) -> "Counted":
        """An empty one."""
        return Counted(self)


class TimeWindow(Spec):
    """Trips on what the calls of the last ``window_s`` seconds say (above 0, default 10).

    The time is cut into ``buckets`` (1 or more, default 10); the oldest is dropped whole, so what
    is looked at is between ``window_s`` less one bucket and ``window_s``. The rest is as in
    ``CountWindow``. Raises ``ValueError`` out of range.
    """

    __slots__ = ("buckets", "least", "rate", "slow_rate", "slow_s", "window_s")

    def __init__(
        self,
        window_s: Seconds = 10.0,
        buckets: int = 10,
        rate: float = 0.5,
        least: int = 10,
        *,
        slow_s: Seconds | None = None,
        slow_rate: float = 0.5,
    ) -> None:
        self.window_s = seconds("window_s", window_s, above=True)
        self.buckets = whole("buckets", buckets)
        self.rate = real("rate", rate, 0, 1, above=True)
        self.least = whole("least", least)
        self.slow_s = None if slow_s is None else seconds("slow_s", slow_s, above=True)
        self.slow_rate = real("slow_rate", slow_rate, 0, 1, above=True)

    def window(self, now: float) -> "Timed":
        """An empty one, from ``now`` on."""
        return Timed(self, now)


Trip = Consecutive | CountWindow | TimeWindow


def _why(spec: CountWindow | TimeWindow, calls: int, failures: int, slow: int) -> Why | None:
    # Quotients, not products: 3 / 30 >= 0.1 holds, 3 >= 0.1 * 30 does not.
    if calls < spec.least:
        return None
    if failures / calls >= spec.rate:
        return Why.RATE
    return Why.SLOW if slow / calls >= spec.slow_rate else None


class Row:
    """Failures since the last good call. A good call changes nothing while there are none: there is
    nothing to ``hit``, and ``ends`` sends it to ``ok`` otherwise."""

    __slots__ = ("_failures", "_row", "_slow", "_spec", "ends")
    hit = None

    def __init__(self, spec: Consecutive) -> None:
        self._spec = spec
        self.ok(0.0)

    def ok(self, now: float) -> None:
        """A good call."""
        self._row = self._failures = self._slow = 0
        self.ends = inf

    def bad(self, now: float, failed: bool, slow: bool) -> Why | None:
        """A call that failed, was slow, or both; why to open, if so."""
        self._row += 1
        self._failures += failed
        self._slow += slow
        self.ends = -inf
        if self._row < self._spec.failures:
            return None
        return Why.FAILURES if failed else Why.SLOW

    def counts(self, now: float) -> Counts:
        """The row."""
        return Counts(self._row, self._failures, self._slow)


# Why ``itertools.count`` counts the good calls: ``n += 1`` is a read and a write, and a thread that
# comes between them loses one. ``next`` of a count is one step, under the GIL and without it
# (python/cpython#119268), at a fifth of the price of a lock; and a signal handler or a finalizer
# that comes in the middle of a call can never find a lock held. What it lacks is reading without
# counting, so a reader takes a number too, which is then left out: ``_read``.


class Counted:
    """The last ``size`` calls: how many there were, and the numbers of those that were bad. Numbers
    that have left the window are dropped when the next bad call comes: constant time for each on
    the whole, at most ``size`` numbers held."""

    __slots__ = ("_failed", "_read", "_slow", "_spec", "hit")
    ends = inf

    def __init__(self, spec: CountWindow) -> None:
        self._spec = spec
        self._failed: deque[int] = deque()
        self._slow: deque[int] = deque()
        self._read = -1  # numbers start at 0, calls at 1
        self.hit = count().__next__
        """A good call. Needs no lock."""

    def ok(self, now: float) -> None:
        """A good call."""
        self.hit()

    def bad(self, now: float, failed: bool, slow: bool) -> Why | None:
        """A call that failed, was slow, or both; why to open, if so."""
        number = self.hit() - self._read
        if failed:
            self._failed.append(number)
        if slow:
            self._slow.append(number)
        return _why(self._spec, *self._count(number))

    def counts(self, now: float) -> Counts:
        """What the window holds."""
        number = self.hit() - self._read - 1
        self._read += 1
        return self._count(number)

    def _count(self, calls: int) -> Counts:
        gone = calls - self._spec.size
        for numbers in (self._failed, self._slow):
            while numbers and numbers[0] <= gone:
                numbers.popleft()
        return Counts(min(calls, self._spec.size), len(self._failed), len(self._slow))


class Timed:
    """The last buckets of time, the current one open until ``ends``. A good call at or after
    ``ends`` goes through ``ok``. One that is counted while another thread turns to the next bucket
    falls into either: it happened at the border."""

    __slots__ = (
        "_at",
        "_calls",
        "_failed",
        "_mark",
        "_read",
        "_slow",
        "_spec",
        "_width",
        "ends",
        "hit",
    )

    def __init__(self, spec: TimeWindow, now: float) -> None:
        self._spec = spec
        self._width = spec.window_s / spec.buckets
        self._at = 0
        self._calls = [0] * spec.buckets  # the current bucket's is 0 until it ends
        self._failed = [0] * spec.buckets
        self._slow = [0] * spec.buckets
        self._mark = 0  # calls before the current bucket
        self._read = 0
        self.hit = count().__next__
        """A good call before ``ends``. Needs no lock."""
        self.ends = now + self._width

    def ok(self, now: float) -> None:
        """A good call."""
        self._turn(now)
        self.hit()

    def bad(self, now: float, failed: bool, slow: bool) -> Why | None:
        """A call that failed, was slow, or both; why to open, if so."""
        self._turn(now)
        self.hit()
        self._failed[self._at] += failed
        self._slow[self._at] += slow
        return _why(self._spec, *self.counts(now))

    def counts(self, now: float) -> Counts:
        """What the window holds. Sums over the buckets, so that no sum can come apart from them."""
        self._turn(now)
        calls = sum(self._calls) + self._so_far() - self._mark
        return Counts(calls, sum(self._failed), sum(self._slow))

    def _so_far(self) -> int:
        calls = self.hit() - self._read
        self._read += 1
        return calls

    def _turn(self, now: float) -> None:
        if now < self.ends:
            return
        calls = self._so_far()
        self._calls[self._at] = calls - self._mark
        self._mark = calls
        steps = int((now - self.ends) / self._width) + 1
        for _ in range(min(steps, self._spec.buckets)):
            self._at = (self._at + 1) % self._spec.buckets
            self._calls[self._at] = self._failed[self._at] = self._slow[self._at] = 0
        self.ends += steps * self._width


Window = Row | Counted | Timed


class Growing(Spec):
    """How long to stay open, longer each time that a probe fails.

    ``first_s`` the first time (above 0, default 30), then ``factor`` times as long as before (1 or
    more, default 2), up to ``cap_s`` (``first_s`` or more, default 600). Each time is shortened by
    a random share of up to ``jitter`` (0 up to, not including, 1; default 0), so that many clients
    do not probe in step. Closing starts over. Raises ``ValueError`` out of range.
    """

    __slots__ = ("cap_s", "factor", "first_s", "jitter")

    def __init__(
        self,
        first_s: Seconds = 30.0,
        factor: float = 2.0,
        cap_s: Seconds = 600.0,
        jitter: float = 0.0,
    ) -> None:
        self.first_s = seconds("first_s", first_s, above=True)
        self.cap_s = seconds("cap_s", cap_s, self.first_s)
        self.factor = real("factor", factor, 1)
        self.jitter = real("jitter", jitter, 0, 1, below=True)

    def after(self, last_s: float) -> float:
        """The time without jitter; ``last_s`` is the one before, 0 for the first. Step by step: a
        power overflows after a thousand times."""
        return min(self.cap_s, last_s * self.factor) if last_s else self.first_s


class Phase:
    """One generation: from one change of state to the next. Half-open ones count their successes
    and hold the permits of their probes and since when, oldest first. Nothing else in one
    changes."""

    __slots__ = (
        "base_s",
        "cause",
        "generation",
        "open_s",
        "state",
        "succeeded",
        "under_way",
        "until",
        "window",
    )

    def __init__(
        self,
        state: State,
        generation: int,
        window: Window | None = None,
        base_s: float = 0.0,
        open_s: float = 0.0,
        until: float = 0.0,
    ) -> None:
        self.state = state
        self.generation = generation
        self.window = window
        self.base_s = base_s
        self.open_s = open_s
        self.until = until
        self.succeeded = 0
        self.under_way: dict[object, float] = {}
        self.cause = ""
        """What opened it, in words: the error itself would be kept alive, and all that it holds."""
