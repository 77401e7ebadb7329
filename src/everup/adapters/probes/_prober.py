"""The prober: one heap of wake-up times, one timer in the loop, one attempt per target."""

import asyncio
import random as _random
from collections.abc import Awaitable, Callable
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from everup.adapters import python
from everup.adapters.probes import _search
from everup.adapters.probes._attempt import SocketAttempt
from everup.adapters.probes._base import Attempt
from everup.adapters.probes._exec import ExecAttempt
from everup.adapters.probes._plan import Plan, make_plan
from everup.adapters.probes._reactor import Reactor
from everup.adapters.probes._resolve import Resolver
from everup.adapters.probes._response import Check
from everup.adapters.probes._schedule import Schedule, make_schedule, next_round, round_due_s
from everup.adapters.probes._search import Searcher
from everup.adapters.probes._tls import Contexts
from everup.adapters.probes._words import one_line
from everup.model.instance import Slot
from everup.model.signal import ProbeKind, ProbeResult, ProbeTarget

_BATCH: Final = 32
"""Wake-ups handled per turn of the loop, so that answers are read in between."""
_SLACK: Final = 256
"""Stale heap entries allowed beyond one per target."""

_Key = tuple[Slot, int, ProbeKind]
"""Slot, incarnation and kind."""


def _key(target: ProbeTarget) -> _Key:
    return target.slot, target.run, target.kind


class _Watch:
    """One target and where it is in its schedule."""

    __slots__ = (
        "alive",
        "attempt",
        "blocked",
        "due_s",
        "key",
        "owed",
        "plan",
        "round",
        "schedule",
        "trigger_s",
        "wake_s",
    )

    def __init__(self, key: _Key, plan: Plan, schedule: Schedule) -> None:
        self.key = key
        self.plan = plan
        self.schedule = schedule
        self.round = 0
        self.due_s = schedule.first_s
        self.trigger_s = inf
        """When an extra probe was asked for."""
        self.attempt: Attempt | None = None
        self.wake_s = inf
        """Time of the heap entry that counts; others of this target are stale."""
        self.blocked = False
        """Waits for the command of its predecessor to end."""
        self.owed = False
        """A round came due while the probe before it was under way: it follows at once, else a
        target that times out would be asked only every other time."""
        self.alive = True

    def next_s(self) -> float:
        """When there is something to do."""
        next_s = self.due_s if self.due_s < self.trigger_s else self.trigger_s
        attempt = self.attempt
        return next_s if attempt is None or next_s <= attempt.wake_s else attempt.wake_s


class Prober:
    """Runs all probes concurrently on the running asyncio loop, at most one at a time per
    (slot, incarnation, kind).

    ``report`` is called on the loop with every result, never from within a call of the prober's
    own methods; it may call them. ``run_exec`` runs the command of an exec probe, says whether it
    succeeded and in words how, and is cancelled when the time is up. ``random`` gives numbers in
    [0, 1) for phases and jitter.

    A result whose ``lateness_s`` is large proves little: the loop was late, or everup had no
    descriptor, memory or local port to ask with (then it is at least 1 s, the timeout and the
    interval). Must be made and used on the loop's thread.
    """

    def __init__(
        self,
        report: Callable[[ProbeResult], None],
        run_exec: Callable[[ProbeTarget], Awaitable[tuple[bool | None, str]]],
        *,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self.now = loop.time
        self.reactor = Reactor(loop)
        self.resolver = Resolver(loop)
        self._report = report
        self._run_exec = run_exec
        self._random = random
        self.contexts = Contexts()
        self.searcher = Searcher(python.command(_search.__file__))
        self._watches: dict[_Key, _Watch] = {}
        self._ending: set[_Key] = set()
        """Commands that were cancelled and have not ended yet."""
        self._heap: list[tuple[float, int, _Watch]] = []
        self._pushed = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = inf
        self._closed = False

    def start(self, target: ProbeTarget, *, first_after_s: float | None = None) -> None:
        """Asks the target from now on, replacing an older one of the same incarnation and kind.

        The first probe comes ``first_after_s`` from now (0 or more; default: at once, with a
        jitter of at most 100 ms or 5 % of the interval). Raises ``RuntimeError`` after ``close``.
        A target that cannot be asked (a bad URL, say) is no error here: its probes fail and say
        why.
        """
        if self._closed:
            raise RuntimeError("the prober is closed")
        key = _key(target)
        self._drop(key)
        schedule = make_schedule(
            self.now(), target.probe.interval, first_after_s, self._random(), self._random()
        )
        plan = make_plan(target, self.contexts.get)
        if isinstance(plan.check, Check):
            plan.check.look = self.searcher.quick
        watch = _Watch(key, plan, schedule)
        self._watches[key] = watch
        self._sleep(watch)
        self._arm()

    def stop(self, slot: Slot, run: int, kind: ProbeKind | None = None) -> None:
        """Ends one probe of a process, or all of them. A probe under way is cut off, and no
        report of it comes afterwards. Nothing to stop is no error."""
        for each in ProbeKind if kind is None else (kind,):
            self._drop((slot, run, each))

    def trigger(self, slot: Slot, run: int, kind: ProbeKind) -> None:
        """Probes now, beside the schedule, unless a probe is under way or there is no target."""
        watch = self._watches.get((slot, run, kind))
        if watch is None or watch.trigger_s != inf or self._busy(watch):
            return
        watch.trigger_s = self.now()
        self._sleep(watch)
        self._arm()

    def asked_at(self, slot: Slot, run: int) -> float | None:
        """Since when a probe of the process has waited for its answer; None: none does."""
        watches = (self._watches.get((slot, run, kind)) for kind in ProbeKind)
        attempts = (watch.attempt for watch in watches if watch is not None)
        begun = (a.started_s for a in attempts if a is not None and not a.lingers)
        return min(begun, default=None)

    def close(self) -> None:
        """Ends everything; nothing is reported any more. Idempotent."""
        self._closed = True
        for key in list(self._watches):
            self._drop(key)
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.resolver.close()
        self.contexts.close()
        self.searcher.close()
        self.reactor.close()

    # What attempts call.

    def finished(self, attempt: Attempt, ok: bool, detail: str) -> None:
        """An attempt has its verdict."""
        watch = self._watch_of(attempt)
        if watch is None:
            return
        if attempt.lingers:
            self._sleep(watch)
            self._arm()
        else:
            watch.attempt = None
        now_s = self.now()
        target = attempt.plan.target
        result = ProbeResult(
            target.slot,
            target.kind,
            target.run,
            ok,
            detail,
            max(0.0, now_s - attempt.started_s),
            max(attempt.lateness_s, now_s - attempt.deadline_s),
        )
        try:
            self._report(result)
        except Exception as error:
            self._complain("the report of a probe failed", error)
        self._pay(watch)

    def ended(self, attempt: Attempt) -> None:
        """Nothing of an attempt is left after its verdict or its cancelling."""
        watch = self._watch_of(attempt)
        if watch is not None:
            watch.attempt = None
            self._pay(watch)
            return
        key = _key(attempt.plan.target)
        self._ending.discard(key)
        successor = self._watches.get(key)
        if successor is not None and successor.blocked:
            successor.blocked = False
            self.trigger(*key)

    # The schedule.

    def _tick(self) -> None:
        self._timer = None
        self._timer_s = inf
        heap = self._heap
        try:
            for _ in range(_BATCH):
                if not heap:
                    break
                now_s = self.now()
                if heap[0][0] > now_s:
                    break
                when_s, _, watch = heappop(heap)
                if watch.alive and when_s == watch.wake_s:
                    watch.wake_s = inf
                    try:
                        self._wake(watch, now_s)
                    finally:
                        self._sleep(watch)
        finally:
            self._arm()

    def _wake(self, watch: _Watch, now_s: float) -> None:
        attempt = watch.attempt
        if attempt is not None and now_s >= attempt.wake_s:
            self._guard(attempt.on_timer, attempt, now_s)
        scheduled_s = watch.trigger_s
        watch.trigger_s = inf
        if now_s >= watch.due_s:
            scheduled_s = min(scheduled_s, watch.due_s)
            watch.round = next_round(watch.schedule, watch.round, now_s)
            watch.due_s = round_due_s(watch.schedule, watch.round, self._random())
        if scheduled_s > now_s or not watch.alive:
            return
        if self._busy(watch):
            watch.owed = True
        else:
            self._begin(watch, now_s, now_s - scheduled_s)

    def _pay(self, watch: _Watch) -> None:
        """Begin the round that is owed, if the way is free."""
        if watch.owed and watch.alive and watch.attempt is None:
            watch.owed = False
            self.trigger(*watch.key)

    def _begin(self, watch: _Watch, now_s: float, lateness_s: float) -> None:
        if watch.key in self._ending:  # the command of the target that this one replaced
            watch.blocked = True
            return
        plan = watch.plan
        attempt: Attempt
        if plan.target.probe.exec is None:
            attempt = SocketAttempt(self, plan, now_s, lateness_s)
        else:
            attempt = ExecAttempt(self, plan, now_s, lateness_s, self._run_exec)
        watch.attempt = attempt
        self._guard(attempt.begin, attempt)

    def _busy(self, watch: _Watch) -> bool:
        """Whether a probe is under way; one that only reads out its connection is ended."""
        attempt = watch.attempt
        if attempt is None:
            return False
        if not attempt.lingers or not attempt.cancel():
            return True
        watch.attempt = None
        return False

    def _sleep(self, watch: _Watch) -> None:
        """Makes sure that the heap wakes the target in time."""
        if watch.alive and (wake_s := watch.next_s()) < watch.wake_s:
            watch.wake_s = wake_s
            self._pushed += 1
            heappush(self._heap, (wake_s, self._pushed, watch))

    def _arm(self) -> None:
        heap = self._heap
        if len(heap) > 2 * len(self._watches) + _SLACK:
            # In place: _tick holds on to the list.
            heap[:] = [e for e in heap if e[2].alive and e[0] == e[2].wake_s]
            heapify(heap)
        while heap:
            when_s, _, watch = heap[0]
            if watch.alive and when_s == watch.wake_s:
                if watch.next_s() <= when_s:
                    break
                # Mostly the deadline of a probe that was answered: not worth waking up for.
                watch.wake_s = inf
            heappop(heap)
            self._sleep(watch)
        else:
            return
        if when_s < self._timer_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(when_s, self._tick)
            self._timer_s = when_s

    def _drop(self, key: _Key) -> None:
        watch = self._watches.pop(key, None)
        if watch is None:
            return
        watch.alive = False
        attempt = watch.attempt
        watch.attempt = None
        if attempt is not None and not attempt.cancel():
            self._ending.add(key)

    def _watch_of(self, attempt: Attempt) -> _Watch | None:
        watch = self._watches.get(_key(attempt.plan.target))
        return watch if watch is not None and watch.attempt is attempt else None

    def _guard(self, call: Callable[..., None], attempt: Attempt, *args: float) -> None:
        """A bug, or an error nobody thought of, costs one probe and not the schedule."""
        try:
            call(*args)
        except Exception as error:
            self._complain("a probe failed by itself", error)
            watch = self._watch_of(attempt)
            attempt.cancel()
            if watch is None:
                return
            if attempt.lingers:  # its verdict is out already
                watch.attempt = None
                return
            attempt.could_not_ask()
            self.finished(attempt, False, one_line(f"everup could not ask: {error!r}"))

    def _complain(self, message: str, error: Exception) -> None:
        self._loop.call_exception_handler({"message": message, "exception": error})
