"""Several copies of a call at once, as tasks or in threads: for ``Hedge`` and ``Vote``."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Protocol

from everup.tolerate._attempts import attempt
from everup.tolerate._clock import Clock
from everup.tolerate._outcome import Judge, Outcome
from everup.tolerate._threads import Arguments, Ended, Job, Threads
from everup.tolerate.budget import RetryBudget
from everup.tolerate.deadline import SLACK_S, remaining

if TYPE_CHECKING:
    import asyncio


class Hedging(Protocol):
    """What is needed of a ``Hedge``."""

    name: str
    clock: Clock
    attempts: int
    on_failure: bool
    judge: Judge
    budget: RetryBudget | None
    _delay_s: float
    _threads: Threads
    _off: list[object]

    def _learn(self, seconds: float) -> None: ...

    def _tell(self, kind: str, call: object = None, /, **detail: Any) -> None: ...


_MOST_NOTES = 8
_LONGEST_NOTE = 300
_MANY = 64
"""Ended calls that a lane keeps, in vain, behind a slow one before it looks for them."""


def note(error: BaseException, name: str, what: str, other: object) -> None:
    """Tell with an error of another one. Bounded: somebody may raise one and the same for ever."""
    if error is other or len(getattr(error, "__notes__", ())) >= _MOST_NOTES:
        return
    try:
        text = f"{type(other).__name__}: {other}" if isinstance(other, BaseException) else other
        error.add_note(f"{name}: {what}: {text}"[:_LONGEST_NOTE])
    except Exception:  # noqa: S110 - it cannot be written, or takes no notes
        pass


# -- tasks


class Tasks:
    """Copies of a call, each a task with a copy of the context variables. ``on_end`` is told of
    each that ends, with its number; not of those that were called off."""

    __slots__ = ("alive", "context", "loop", "off", "on_end", "waiter")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        on_end: Callable[[int, asyncio.Task[Any]], None],
    ) -> None:
        self.loop = loop
        self.context = context
        self.on_end = on_end
        self.alive: dict[asyncio.Task[Any], int] = {}
        self.off = False
        self.waiter: asyncio.Future[None] | None = None

    def start(self, number: int, call: Callable[..., Awaitable[Any]], given: Arguments) -> None:
        """One more. Through ``run``, as not every task factory takes a context; and in a copy, as
        this may run inside the context itself."""
        task = self.context.copy().run(self.loop.create_task, _awaited(call, given))
        self.alive[task] = number
        task.add_done_callback(self._ended, context=self.context)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        number = self.alive.pop(task)
        if self.off:
            if not task.cancelled():
                task.exception()  # looked at: the loop shall not complain of it
        else:
            self.on_end(number, task)
        self.wake()

    def wake(self) -> None:
        """End a ``wait``."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def wait(self) -> None:
        """Until one has ended, or ``wake``."""
        self.waiter = self.loop.create_future()
        await self.waiter

    def cancel(self) -> None:
        """Call all off. They are under way until they have ended."""
        self.off = True
        if not self.loop.is_closed():
            for task in self.alive:
                task.cancel()

    async def clear(self) -> None:
        """Call all off, and wait until they have ended. Whoever cancels the caller meanwhile is
        heard: it goes on to those that are left, and comes out when they have ended."""
        import asyncio

        self.cancel()
        again: asyncio.CancelledError | None = None
        while self.alive:
            try:
                await self.wait()
            except asyncio.CancelledError as error:
                again = error
                self.cancel()
        if again is not None:
            try:
                raise again
            finally:
                del again


async def _awaited(call: Callable[..., Awaitable[Any]], given: Arguments) -> Any:
    args, kwargs = given
    return await call(*args, **kwargs)


# -- the wait before a further copy

Entry = list[Any]
"""A call that waits: since when (None: not in the queue, or left in it though it is over), its race
if it has one, and what is needed to make one (None: it has one, or is over). A list: an object of a
class takes five times as long to make."""
AT, RACE, GIVEN = range(3)


class Lane:
    """The calls of one policy on one event loop. They all wait equally long, so the first that
    began is the first that is due: a deque holds them, and one timer serves all. A call that ends
    leaves the timer alone: it finds out when it fires, at most once per delay."""

    # It must not hold the loop: the loop is what it is kept under. A timer's handle would.
    __slots__ = ("armed", "context", "dead", "delay_s", "due", "now", "queue", "timer")

    def __init__(
        self,
        now: Callable[[], float],
        delay_s: Callable[[], float],
        due: Callable[[asyncio.AbstractEventLoop, Lane, Entry], None],
    ) -> None:
        self.now = now
        self.delay_s = delay_s
        self.due = due
        self.queue: deque[Entry] = deque()
        self.dead = 0
        """Entries of ended calls in the queue."""
        self.armed = False
        self.timer = 0
        """Number of the timer that counts: older ones fire in vain."""
        self.context = Context()  # empty: a timer must not keep some call's variables alive

    def arm(self, loop: asyncio.AbstractEventLoop, left_s: float) -> None:
        """Look again in so many seconds, instead of when it was said before."""
        self.armed = True
        self.timer += 1
        loop.call_later(left_s, self._fire, loop, self.timer, context=self.context)

    def _fire(self, loop: asyncio.AbstractEventLoop, timer: int) -> None:
        if timer != self.timer:
            return
        self.armed = False
        queue, now, delay_s = self.queue, self.now(), self.delay_s()
        while queue:
            entry = queue[0]
            if entry[AT] is None:
                self.dead -= 1
            elif entry[AT] + delay_s > now + SLACK_S:
                self.arm(loop, entry[AT] + delay_s - now)
                break
            else:
                entry[AT] = None
                loop.call_soon(self._soon, loop, entry, context=self.context)
            queue.popleft()

    def _soon(self, loop: asyncio.AbstractEventLoop, entry: Entry) -> None:
        """Two turns after the timer, so that an answer of the same moment is there, and seen."""
        loop.call_soon(self.due, loop, self, entry, context=self.context)

    def join(self, loop: asyncio.AbstractEventLoop, entry: Entry) -> None:
        """Wait from now on."""
        self.queue.append(entry)
        if not self.armed:
            self.arm(loop, self.delay_s())

    def leave(self, entry: Entry) -> None:
        """A call waits no longer, wherever it stands."""
        entry[GIVEN] = None  # the arguments must not live until the timer fires
        if entry[AT] is None:
            return
        entry[AT] = None
        queue = self.queue
        self.dead += 1
        while queue and queue[0][AT] is None:
            queue.popleft()
            self.dead -= 1
        if self.dead > _MANY and self.dead * 2 > len(queue):
            alive = [one for one in queue if one[AT] is not None]
            queue.clear()
            queue.extend(alive)
            self.dead = 0


# -- a hedged call


def numbered(number: int, call: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a call, which finds its number in ``attempt``: it runs in a context of its own."""
    if number == 1:
        return call

    def copied(*args: Any, **kwargs: Any) -> Any:
        attempt.set(number)
        return call(*args, **kwargs)

    return copied


class Race:
    """One hedged call with all its copies. Number 1 is the first."""

    __slots__ = (
        "answer",
        "began",
        "call",
        "failed",
        "first",
        "hedge",
        "rejected",
        "slow",
        "started",
    )

    def __init__(self, hedge: Hedging, began: float, call: Callable[..., Any]) -> None:
        self.hedge = hedge
        self.call = call
        self.began = began
        self.started = 1
        self.first = True
        """The first copy is under way."""
        self.slow = False
        """It has not answered within the delay."""
        self.answer: Ended | None = None
        self.failed: list[Ended] = []
        self.rejected: Ended | None = None

    def spawn(self, number: int) -> bool:
        """Start a copy; False: no thread is free."""
        raise NotImplementedError

    def start(self, why: str) -> bool:
        """One more copy, if that may be."""
        hedge = self.hedge
        if self.started >= hedge.attempts or hedge._off:
            return False
        refused = None
        if remaining() == 0.0:
            refused = "deadline"
        elif hedge.budget is not None and not hedge.budget.withdraw():
            refused = "budget"
        elif not self.spawn(self.started + 1):
            refused = "threads"
        if refused is not None:
            hedge._tell("not_hedged", self.call, why=refused)
            return False
        self.started += 1
        hedge._tell("hedged", self.call, copy=self.started, why=why)
        return True

    def ended(self, number: int, value: Any, error: BaseException | None) -> None:
        """A copy has ended, and nobody has won yet."""
        judge = self.hedge.judge
        try:
            outcome = judge.value(value) if error is None else judge.error(error)
        except BaseException as wrong:  # the judge's own: the caller shall see it
            self.answer = (number, None, wrong)
        else:
            self.judged(number, value, error, outcome)

    def judged(
        self, number: int, value: Any, error: BaseException | None, outcome: Outcome
    ) -> None:
        hedge, ended = self.hedge, (number, value, error)
        if number == 1 and (outcome is Outcome.OK or (self.slow and outcome is Outcome.FAILED)):
            hedge._learn(hedge.clock.now() - self.began)
        if outcome is Outcome.FAILED:
            self.failed.append(ended)
            if hedge.on_failure:
                self.start("failure")
        elif outcome is Outcome.NEUTRAL and isinstance(error, Exception):
            self.rejected = ended
        else:
            self.answer = ended
            if outcome is Outcome.OK and self.started > 1:
                hedge._tell("won", self.call, copy=number, copies=self.started)

    def outlived(self) -> None:
        """Another copy has won over the first, which would have taken longer than this."""
        self.hedge._learn(self.hedge.clock.now() - self.began)

    def result(self) -> Any:
        """What the caller gets."""
        best = self.answer or (self.failed[-1] if self.failed else self.rejected)
        assert best is not None  # the first copy leaves one of them
        error, others = best[2], self.failed
        self.answer = self.rejected = None
        self.failed = []
        if error is None:
            return best[1]
        try:
            if others and others[-1] is best:
                for number, _, other in others[:-1]:
                    what = f"copy {number} failed before"
                    note(error, self.hedge.name, what, other or "a value that is a failure")
                    del other
            raise error
        finally:
            del best, error, others  # the traceback holds this frame: break the circle


class ThreadRace(Race):
    """Each copy in a thread of its own."""

    __slots__ = ("given", "job", "newest", "open")

    def __init__(self, hedge: Hedging, call: Callable[..., Any], given: Arguments) -> None:
        super().__init__(hedge, hedge.clock.now(), call)
        self.given = given
        self.job = Job(copy_context())
        self.newest = self.began
        """When the newest copy was started."""
        self.open = 0
        """Copies that have not ended, as far as is known here."""

    def spawn(self, number: int) -> bool:
        if not self.hedge._threads.start(self.job, number, numbered(number, self.call), self.given):
            return False
        self.newest = self.hedge.clock.now()
        self.open += 1
        return True

    def finish(self) -> Any:
        from queue import Empty

        hedge, now = self.hedge, self.hedge.clock.now
        more = True
        try:
            while self.answer is None and self.open:
                left_s: float | None = None
                if more and self.started < hedge.attempts:
                    left_s = min(
                        max(0.0, self.newest + hedge._delay_s - now()), threading.TIMEOUT_MAX
                    )
                try:
                    number, value, error = self.job.ended.get(timeout=left_s)
                except Empty:
                    self.slow = self.slow or self.first
                    more = self.start("delay")
                    continue
                self.open -= 1
                self.first = self.first and number != 1
                self.ended(number, value, error)
                del error  # its traceback would hold this frame, and this frame it
            if self.first:
                self.outlived()
        finally:
            hedge._threads.leave(self.job)
        return self.result()
