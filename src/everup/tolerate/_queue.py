"""Places, and the queue of those who wait for one: threads and tasks of any loop in one queue.

A place is a ``None`` in a deque: taking and putting back are one atomic step each, so that a call
that need not wait needs no lock. The lock guards the queue. Two rules keep a place from being lost
between the two: who puts a place back looks at the queue afterwards, and who joins the queue looks
at the places afterwards; so one of them sees the other (Dekker).
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from math import inf
from typing import TYPE_CHECKING, Any

from everup.tolerate._clock import Clock, system_sleep
from everup.tolerate._forks import renew
from everup.tolerate.deadline import SLACK_S

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

WAITING, HELD, LATE, GONE = range(4)
"""Of a waiter: in the queue; has a place; waited too long; cancelled."""

# Re-entrant: garbage collection may close a waiting coroutine in any thread, in the middle of what
# the lock guards; that coroutine then leaves the queue. Each step under the lock stands alone.
new_lock: Callable[[], Any] = threading.RLock
new_gate: Callable[[], Any] = threading.Lock


class Waiter:
    """A thread (``gate`` is a lock that it blocks on) or a task (a future)."""

    __slots__ = ("future", "gate", "loop", "state", "timer", "until", "why")

    def __init__(self, gate: Any = None, loop: Any = None, future: Any = None) -> None:
        self.gate = gate
        self.loop: asyncio.AbstractEventLoop | None = loop
        self.future: asyncio.Future[None] | None = future
        self.state = WAITING
        self.until = inf
        self.why = ""
        """What its waiting time came from."""
        self.timer: asyncio.TimerHandle | None = None

    def alive(self) -> bool:
        """Whether a place would be of use to it: a cancelled task that has not run yet would only
        hand it on."""
        return self.future is None or not self.future.done()

    def wake(self) -> bool:
        """Let it see its state. False: its loop is closed, so it never will."""
        loop = self.loop
        if loop is None:
            self.gate.release()
            return True
        from asyncio import _get_running_loop

        if loop is _get_running_loop():
            self.resolve()
            return True
        try:
            loop.call_soon_threadsafe(self.resolve)
        except RuntimeError:
            return False
        return True

    def resolve(self) -> None:
        """On its own loop: end the wait."""
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


class Places:
    """``limit`` places and a queue of at most ``size``.

    ``wait_s``: how long one may wait. ``target_s``, ``interval_s``: CoDel's (see ``Bulkhead``).
    ``lifo``: the newest first; with ``target_s`` only while the queue stands.
    """

    __slots__ = (
        "_clock",
        "_interval_s",
        "_lifo",
        "_lock",
        "_now",
        "_since",
        "_size",
        "_target_s",
        "_wait_s",
        "free",
        "waiting",
    )

    def __init__(
        self,
        limit: int,
        size: int,
        lifo: bool,
        clock: Clock,
        wait_s: float | None,
        target_s: float | None,
        interval_s: float,
    ) -> None:
        # Of so many at most: one that a fork's child gets back twice is one all the same.
        self.free: deque[None] = deque([None] * limit, limit)
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()
        self._size = size
        self._lifo = lifo
        self._clock = clock
        self._now = clock.now
        self._wait_s = inf if wait_s is None else wait_s
        self._target_s = target_s
        self._interval_s = interval_s
        self._since = 0.0
        """When the queue was empty last, while it is not."""
        self._lock = new_lock()

    def forked(self, held: int) -> None:
        """In the child of a fork: nobody waits, and the thread that forked holds so many places."""
        renew(self._lock)
        while self.waiting:
            waiter = self.waiting.popitem()[0]
            waiter.state = LATE  # of this thread, where a signal handler forked: who would wake it?
            if waiter.gate is not None:
                waiter.gate.release()
        most = self.free.maxlen or 0
        self.free.clear()
        self.free.extend([None] * max(0, most - held))

    # -- joining and leaving the queue

    def join(self, waiter: Waiter) -> bool:
        """Stand in the queue, or get a place at once (``state`` tells). False: it is full."""
        with self._lock:
            if len(self.waiting) >= self._size:
                return False
            now = self._now()
            if not self.waiting:
                self._since = now
            wait_s, waiter.why = self._wait_s, "waited"
            if self._target_s is not None:
                allowed = self._target_s if self._stands(now) else self._interval_s
                if allowed < wait_s:
                    wait_s, waiter.why = allowed, "codel"
            waiter.until = now + wait_s
            self.waiting[waiter] = None
        if self.free:
            self.match()
        return True

    def _stands(self, now: float) -> bool:
        return now - self._since > self._interval_s

    def abandon(self, waiter: Waiter) -> None:
        """It was cancelled. Hands on the place that it may have been given in the same moment."""
        with self._lock:
            held = waiter.state == HELD
            waiter.state = GONE
            self.waiting.pop(waiter, None)
        if held:
            self.give_back()

    def give_up(self, waiter: Waiter) -> None:
        """Its time is over, unless it has a place by now."""
        with self._lock:
            if waiter.state == WAITING:
                waiter.state = LATE
                self.waiting.pop(waiter, None)

    # -- handing over

    def give_back(self) -> None:
        """A call is over: its place goes to the next in the queue, never past it."""
        if self.waiting:
            self.pass_on()
        else:
            self.free.append(None)
            if self.waiting:
                self.match()

    def match(self) -> None:
        """While there are both, bring free places and waiters together."""
        while self.waiting:
            try:
                self.free.pop()
            except IndexError:
                return
            self.pass_on()

    def pass_on(self) -> None:
        """Hand one place to the next, or put it back."""
        while True:
            with self._lock:
                chosen, late = self._choose()
                if chosen is None:
                    self.free.append(None)
            for one in late:
                one.wake()
            if chosen is None or chosen.wake():
                return
            with self._lock:
                # Its loop is closed. If its coroutine was closed meanwhile, that handed it on.
                if chosen.state != HELD:
                    return
                chosen.state = GONE

    def _choose(self) -> tuple[Waiter | None, list[Waiter]]:
        """The next, and those before it whose time is over: nobody needs their answers any more."""
        late: list[Waiter] = []
        now = self._now()
        newest = self._lifo and (self._target_s is None or self._stands(now))
        while self.waiting:
            waiter = self.waiting.popitem(last=newest)[0]
            if waiter.until < now:
                waiter.state = LATE
                late.append(waiter)
            elif waiter.alive() and waiter.state == WAITING:
                # Its state is looked at last: garbage collection may have closed its coroutine
                # since it was taken out of the queue. Between here and there nothing is made.
                waiter.state = HELD
                return waiter, late
        return None, late

    # -- waiting

    def hold(self, waiter: Waiter) -> bool:
        """Block the thread until it has a place or waited too long."""
        try:
            if waiter.until == inf:
                waiter.gate.acquire()
            else:
                self._block(waiter.gate, max(0.0, waiter.until - self._now()))
        except BaseException:
            self.abandon(waiter)
            raise
        self.give_up(waiter)
        return waiter.state == HELD

    def _block(self, gate: Any, left: float) -> None:
        if self._clock.sleep is system_sleep:
            gate.acquire(timeout=min(left, threading.TIMEOUT_MAX))
        else:
            # Under a replaced clock time passes only where somebody sleeps.
            self._clock.sleep(left)

    async def hold_async(self, waiter: Waiter) -> bool:
        """Let the task wait until it has a place or waited too long."""
        future = waiter.future
        assert future is not None
        try:
            if waiter.until != inf:
                self._watch(waiter)
            await future
        except BaseException:
            self.abandon(waiter)
            raise
        finally:
            if waiter.timer is not None:
                waiter.timer.cancel()
        return waiter.state == HELD

    def _watch(self, waiter: Waiter) -> None:
        """Runs when its time may be over."""
        left = waiter.until - self._now()
        if left > SLACK_S:
            assert waiter.loop is not None
            waiter.timer = waiter.loop.call_later(left, self._watch, waiter)
            return
        self.give_up(waiter)
        waiter.resolve()
