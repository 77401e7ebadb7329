"""Stop calling what keeps failing, and find out carefully when it is well again.

After M. Nygard, *Release It!* (2007), 5.2 Circuit Breaker, with the rate windows and the probe
limit of resilience4j, and generation numbers so that a late outcome cannot decide for a later time.

What needs a lock, and what does not. All state is one reference, ``_phase``: a call reads it once
and keeps what it read, which is its generation; an outcome goes to that phase alone, and a phase
that is over is looked at by nobody. A change of phase is a compare-and-set under the lock. Within a
phase, bad calls, probes and their slots are counted under the lock; good calls in a closed breaker
take none (``_windows`` says how they are counted). This holds with the GIL and without. The lock is
held for a few steps of this package alone: never across the guarded call, the predicates of the
judge, the clock or a listener. It may be taken twice by one thread, since a signal handler or a
finalizer may come in the middle and use the same breaker.
"""

from collections.abc import Callable
from contextvars import ContextVar
from math import inf
from threading import RLock
from typing import Any

from everup.tolerate._clock import Clock
from everup.tolerate._forks import on_fork, renew
from everup.tolerate._options import Seconds, whole
from everup.tolerate._options import seconds as duration
from everup.tolerate._outcome import Errors, Judge, Outcome, in_words
from everup.tolerate._passage import Passage
from everup.tolerate._permit import Permit
from everup.tolerate._windows import (
    Consecutive,
    Counts,
    Growing,
    Phase,
    State,
    Trip,
    Why,
    Window,
)
from everup.tolerate.errors import BreakerOpen

# A look at a member of an enum costs 100 ns before CPython 3.12.
OK, FAILED, NEUTRAL = Outcome.OK, Outcome.FAILED, Outcome.NEUTRAL
CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
ALL_PROBES = "half-open, and every probe is under way"


# The permits of ``with breaker:``, innermost last. One breaker may be entered by many threads and
# tasks at once, so they cannot be kept in it; a context is what each of these has of its own.
_entered: ContextVar[tuple[Permit, ...]] = ContextVar("everup.breaker", default=())


class Breaker(Passage):
    """Rejects calls while what they call keeps failing.

    ``trip``: when it opens: ``Consecutive`` (the default, 5 failures in a row), ``CountWindow`` or
    ``TimeWindow``. ``open_s``: seconds until a call is let through as a probe (above 0, default
    30), or ``Growing``. ``probes``: how many may be under way at once in half-open (1 or more,
    default 1). ``closes_after``: so many successful probes close it (1 or more, default 1); one
    that fails, or is as slow as ``slow_s`` of ``trip``, opens it again. A probe that hangs loses
    its slot to the next call after the time that the breaker was open; its outcome still counts
    while the breaker is half-open. ``retry_after_max_s``: where the failure that opens it has a
    ``retry_after_s`` (the ``Retry-After`` of an answer), it is open for that long instead, but not
    longer than this (default 0: not heeded). ``watch_only``: count and tell, reject nothing; where
    it would open it tells ``would_open`` and begins anew. ``on``, ``unless``, ``when``, ``result``:
    see ``Judge``. A neutral outcome gives its slot back and changes nothing else.

    As a decorator, ``call`` and ``acall``, ``with breaker:`` and ``async with breaker:`` (in
    generators rather ``with breaker.admit():``, since their body may end in another context), or by
    hand: ``permit = breaker.admit()``. A rejected call raises ``BreakerOpen``.

    Events: ``opened`` (``why``, see ``Why``; ``calls``, ``failures``, ``slow``, ``rate`` of
    failures, ``open_s``, ``error``: the failure that was too much, None for a value or a slow
    call), ``would_open`` (the same), ``half_open``, ``closed``, ``isolated``, ``reset``, each with
    ``generation``; and ``rejected`` (``reason``, ``retry_after_s``). Raises ``ValueError`` for
    options out of range.
    """

    _looks = False
    _number = "trip=Consecutive({!r})"

    def __init__(
        self,
        name: str = "breaker",
        *,
        trip: Trip | None = None,
        open_s: Seconds | Growing = 30.0,
        probes: int = 1,
        closes_after: int = 1,
        retry_after_max_s: Seconds = 0.0,
        watch_only: bool = False,
        on: Errors = Exception,
        unless: Errors = (),
        when: Callable[[Exception], bool] | None = None,
        result: Callable[[Any], bool] | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock)
        if not (trip is None or isinstance(trip, Trip)):
            raise TypeError(
                f"{name}: trip must be Consecutive(...), CountWindow(...) or TimeWindow(...), "
                f"not {trip!r}"
            )
        self._trip: Trip = Consecutive() if trip is None else trip
        if not isinstance(open_s, Growing):
            each_s = duration("open_s", open_s, above=True)
            open_s = Growing(each_s, 1.0, each_s)
        self._growing = open_s
        self._probes = whole("probes", probes)
        self._closes_after = whole("closes_after", closes_after)
        self.retry_after_max_s = duration("retry_after_max_s", retry_after_max_s)
        self.watch_only = watch_only
        self._judge = Judge(on, unless, when, result)
        slow_s = self._trip.slow_s
        self._slow_s = inf if slow_s is None else slow_s
        self._lock = RLock()
        self._phase = Phase(CLOSED, 0, self._trip.window(self.clock.now()))
        on_fork(self)

    def forked(self) -> None:
        """In the child of a fork: the probes of other threads are no more. A window that one of
        them was counting in begins anew."""
        phase = self._phase
        if renew(self._lock) and phase.window is not None:
            self._phase = Phase(CLOSED, phase.generation, self._trip.window(self.clock.now()))
        phase.under_way.clear()

    # -- looking at it, and changing it by hand

    @property
    def state(self) -> State:
        """Now. An open breaker whose time is over is open until the next call."""
        return self._phase.state

    @property
    def generation(self) -> int:
        """Counts the changes of state, from 0."""
        return self._phase.generation

    @property
    def forgettable(self) -> bool:
        """Whether nothing of weight is lost with it: it is closed. ``Keyed`` asks."""
        return self._phase.window is not None

    def counts(self) -> Counts:
        """What the window holds; zeros unless closed."""
        now = self.clock.now()
        window = self._phase.window
        if window is None:
            return Counts(0, 0, 0)
        with self._lock:
            return window.counts(now)

    def isolate(self) -> None:
        """Reject every call until ``reset``."""
        while (phase := self._phase).state is not State.ISOLATED:
            if self._move(phase, Phase(State.ISOLATED, phase.generation + 1, until=inf)):
                self._tell("isolated", generation=phase.generation + 1)
                return

    def open(self, seconds: Seconds) -> None:
        """Open it now, whatever the state, for so many seconds (above 0): somebody knows that the
        other side is away. Raises ``ValueError``."""
        open_s = duration("seconds", seconds, above=True)
        while True:
            phase, at = self._phase, self.clock.now()
            new = Phase(OPEN, phase.generation + 1, None, phase.base_s, open_s, at + open_s)
            new.cause = "opened by hand"
            if self._move(phase, new):
                break
        detail = {"why": Why.HAND.value, "calls": 0, "failures": 0, "slow": 0, "rate": 0.0}
        self._tell("opened", **detail, open_s=open_s, error=None, generation=new.generation)

    def reset(self) -> None:
        """Close, whatever the state, and count from nothing."""
        while not self._close(phase := self._phase, self.clock.now()):
            pass
        self._tell("reset", generation=phase.generation + 1)

    # -- by hand, and as a context manager

    def admit(self) -> Permit:
        """Let one call through. Raises ``BreakerOpen``."""
        return self._admit(None)

    def _admit(self, call: object) -> Permit:
        now = self.clock.now()
        while True:  # until the phase stands still: each turn but the last, it has just changed
            phase = self._phase
            if phase.window is not None or self._off:
                return Permit(self, phase, now, call)
            if phase.until > now:
                raise self._rejection(phase, now, call)
            if phase.state is OPEN:
                # Told before a slot is taken: nothing that a listener does can leak one.
                half = Phase(HALF_OPEN, phase.generation + 1, None, phase.base_s, phase.open_s)
                half.cause = phase.cause
                if self._move(phase, half):
                    self._tell("half_open", call, generation=half.generation)
                    now = self.clock.now()
                continue
            permit = Permit(self, phase, now, call)
            with self._lock:
                under_way = phase.under_way
                oldest, since = next(iter(under_way.items()), (None, now))
                if oldest is not None and now - since >= phase.open_s:
                    del under_way[oldest]  # hung
                stands = self._phase is phase
                if stands and len(under_way) < self._probes:
                    under_way[permit] = now
                    return permit
            if stands:
                after = max(0.0, since + phase.open_s - now)
                self._tell("rejected", call, reason=ALL_PROBES, retry_after_s=after)
                raise BreakerOpen(self.name, ALL_PROBES, after, phase.cause)

    def _rejection(self, phase: Phase, now: float, call: object) -> BreakerOpen:
        """Of an open or (for ever) isolated phase."""
        after = None if phase.until == inf else phase.until - now
        reason = "isolated" if after is None else "open"
        if self._listeners:
            self._tell("rejected", call, reason=reason, retry_after_s=after)
        return BreakerOpen(self.name, reason, after, phase.cause)

    def __enter__(self) -> Permit:
        permit = self.admit()
        _entered.set((*_entered.get(), permit))
        return permit

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        entered = _entered.get()
        for index in range(len(entered) - 1, -1, -1):
            permit = entered[index]
            if permit._breaker is self:
                _entered.set(entered[:index] + entered[index + 1 :])
                permit.__exit__(kind, error, trace)
                return
        # Entered in another context: a generator that the loop finalizes. The permit expires.

    async def __aenter__(self) -> Permit:
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.__exit__(kind, error, trace)

    # -- what follows from a call

    def _raised(
        self, phase: Phase, window: Window, started: float, error: Exception, call: object
    ) -> None:
        # ``started``: 0 where the time does not matter.
        outcome = self._judge.error(error)
        if outcome is not NEUTRAL:
            at = self.clock.now()
            slow = at - started >= self._slow_s
            self._count(phase, window, at, outcome is FAILED, slow, error, call)

    def _settle(self, permit: Permit, outcome: Outcome, error: BaseException | None = None) -> None:
        at = self.clock.now()
        phase = permit._phase
        with self._lock:
            if permit._settled:
                return
            permit._settled = True
            phase.under_way.pop(permit, None)
        if outcome is NEUTRAL or self._phase is not phase:
            return
        failed, slow = outcome is FAILED, at - permit._started >= self._slow_s
        if phase.window is not None:
            self._count(phase, phase.window, at, failed, slow, error, permit._call)
        elif self._off:
            return
        elif failed or slow:
            counts = Counts(phase.succeeded + 1, int(failed), int(slow))
            why = Why.PROBE if failed else Why.SLOW_PROBE
            self._trip_on(phase, at, why, counts, error, permit._call)
        else:
            with self._lock:
                phase.succeeded += 1
                enough = phase.succeeded == self._closes_after
            if enough and self._close(phase, at):
                self._tell("closed", permit._call, generation=phase.generation + 1)

    def _count(
        self,
        phase: Phase,
        window: Window,
        at: float,
        failed: bool,
        slow: bool,
        error: BaseException | None = None,
        call: object = None,
    ) -> None:
        with self._lock:
            if not (failed or slow):
                window.ok(at)
                return
            why = window.bad(at, failed, slow)
            if why is None:
                return
            counts = window.counts(at)
        if not self._off:
            self._trip_on(phase, at, why, counts, error, call)

    def _trip_on(
        self,
        phase: Phase,
        at: float,
        why: Why,
        counts: Counts,
        error: BaseException | None,
        call: object,
    ) -> None:
        base_s = self._growing.after(phase.base_s)
        open_s = base_s * (1.0 - self._growing.jitter * self.clock.random())
        wish_s = getattr(error, "retry_after_s", None) if self.retry_after_max_s else None
        if isinstance(wish_s, (int, float)) and wish_s > 0:
            open_s = min(wish_s, self.retry_after_max_s)
        detail = {
            "why": why.value,
            **counts._asdict(),
            "rate": counts.failures / counts.calls,
            "open_s": open_s,
            "error": error,
        }
        if self.watch_only:
            if self._close(phase, at):  # a window of its own for the next one
                self._tell("would_open", call, **detail, generation=phase.generation + 1)
            return
        new = Phase(OPEN, phase.generation + 1, None, base_s, open_s, at + open_s)
        new.cause = in_words(error)
        if self._move(phase, new):
            self._tell("opened", call, **detail, generation=new.generation)

    def _close(self, phase: Phase, at: float) -> bool:
        return self._move(phase, Phase(CLOSED, phase.generation + 1, self._trip.window(at)))

    def _move(self, old: Phase, new: Phase) -> bool:
        """Whether it was still ``old``. Who gets True tells of it."""
        with self._lock:
            if self._phase is not old:
                return False
            self._phase = new
            return True
