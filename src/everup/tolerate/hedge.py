"""Ask again before the first answer is there, and take the one that comes first."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from itertools import count
from math import ceil
from threading import RLock
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._forks import on_fork, renew
from everup.tolerate._loops import elsewhere
from everup.tolerate._options import Seconds, as_seconds, real, seconds, whole
from everup.tolerate._outcome import Errors, Judge, Outcome
from everup.tolerate._race import (
    GIVEN,
    RACE,
    Entry,
    Lane,
    Race,
    Tasks,
    ThreadRace,
    numbered,
)
from everup.tolerate._threads import Arguments, Threads
from everup.tolerate.budget import RetryBudget, check_budget, deposit_of
from everup.tolerate.deadline import no_task, task_of

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
T = TypeVar("T")


class Hedge(Policy):
    """Starts a further copy of a call that has not answered after a while; the first good answer
    wins, and the other copies are cancelled. Dean and Barroso, "The Tail at Scale" (CACM 56(2),
    2013): with a delay of the 95th percentile, 5 % more calls take most of the tail away.

    **Only for calls that may be made twice**, since they are: reads, and idempotent writes. A copy
    that is cancelled may have done its work all the same; what losers return is dropped.

    ``delay_s``: seconds from the start of the newest copy to that of the next, 0 or more (0: all at
    once). With ``percentile`` (in (0, 1), default None; try 0.95) it is the start value only: from
    the first quarter of a ``window`` on the delay is that percentile of the latency of the last
    ``window`` (default 400, 4 or more, and enough that one call lies above the percentile) first
    copies, measured anew each quarter, held in ``min_delay_s`` to ``max_delay_s`` (default 0.001 to
    10, above 0). A first copy that lost, or failed later than the delay, counts with the time it
    had until then: without the slow ones the percentile would sink and sink.

    ``attempts``: copies in all, the first included; 1 or more, default 2. ``on_failure`` (default
    True): a copy that failed starts the next at once. ``on``, ``unless``, ``when``, ``result``:
    what a failure is, see ``Judge``; an error that is none is an answer, and wins. A copy that is
    ``Rejected`` is out, no more: it starts no other, and fails the call only as the last one left.

    ``budget``: a ``RetryBudget``, charged before each further copy. A budget that is used up, a
    deadline that is over, no free thread: no further copy, never a failed call.

    When all copies fail, the last failure is raised, the others in its notes; a value that is a
    failure is returned; a rejection is raised only where no copy failed.

    **Asynchronous**: the first copy runs in the caller's task, the others in tasks with copies of
    the context variables as they were at the call. When another wins, the first is cancelled as
    ``asyncio.timeout`` does it; whoever else cancels the caller cancels all. Every copy has ended
    before the answer is given: one that takes long to clean up delays it.

    **Synchronous**: nothing can stop a running function, so it is ``TypeError`` to decorate one
    without ``threads`` (1 or more; default 0): every copy then runs in a thread of its own, with
    a copy of the context variables, at most ``threads`` at once over all calls. Losers run on, as
    some of them (``losers`` says how many). A call for which no thread is free is made in the
    caller's own, alone. Costs a thread per copy; the waiting is in real time.

    A further copy finds its number in ``attempt``: it may ask somebody else.

    Events: ``hedged`` (``copy``: its number, ``why``: delay or failure), ``not_hedged`` (``why``:
    budget, deadline or threads), ``won`` (``copy``, ``copies``: how many there were; only told when
    there was more than one). Raises ``ValueError`` for options out of range.
    """

    _looks = False

    def __init__(
        self,
        delay_s: Seconds,
        *,
        percentile: float | None = None,
        min_delay_s: Seconds = 0.001,
        max_delay_s: Seconds = 10.0,
        window: int = 400,
        attempts: int = 2,
        on_failure: bool = True,
        on: Errors = Exception,
        unless: Errors = (),
        when: Callable[[Exception], bool] | None = None,
        result: Callable[[Any], bool] | None = None,
        budget: RetryBudget | None = None,
        threads: int = 0,
        name: str = "hedge",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock)
        self._delay_s = seconds("delay_s", delay_s)
        whole("attempts", attempts)
        check_budget(name, budget)
        whole("threads", threads, 0)
        if percentile is not None:
            real("percentile", percentile, 0, 1, above=True, below=True)
            min_delay_s = seconds("min_delay_s", min_delay_s, above=True)
            max_delay_s = seconds("max_delay_s", max_delay_s, min_delay_s)
            real("delay_s", self._delay_s, min_delay_s, max_delay_s)
            # 1 / (1 - 0.95) is above 20
            whole("window", window, max(4, ceil(1 / (1 - percentile) - 1e-9)))
        self.percentile = percentile
        self.min_delay_s: float = as_seconds(min_delay_s)
        self.max_delay_s: float = as_seconds(max_delay_s)
        self.window = window
        self.attempts = attempts
        self.on_failure = on_failure
        self.judge = Judge(on, unless, when, result)
        self.budget = budget
        self._seen: deque[float] = deque(maxlen=window)
        self._tick = count(1).__next__  # its step is atomic
        self._threads = Threads(threads, name)
        self._lock = RLock()
        on_fork(self)
        self._lanes: WeakKeyDictionary[Any, Lane] = WeakKeyDictionary()
        self._here: tuple[Any, Lane] = (None, self._new_lane())
        """The loop used last, and its lane: looking into the dictionary costs as much again."""

    @property
    def delay_s(self) -> float:
        """Seconds until a further copy, as of now."""
        return self._delay_s

    @property
    def busy(self) -> int:
        """Threads under way now."""
        return self._threads.busy

    @property
    def losers(self) -> int:
        """Threads whose answer nobody waits for any more."""
        return self._threads.losers

    # -- the delay

    def _learn(self, seconds: float) -> None:
        """How long a first copy took, or has taken without an answer."""
        if self.percentile is None:
            return
        self._seen.append(seconds)
        if self._tick() % (self.window // 4):
            return
        # Copying is one step for other threads; sorting and looking at it is not.
        seen = sorted(self._seen.copy())
        delay_s = seen[ceil(self.percentile * len(seen) - 1e-9) - 1]
        delay_s = min(self.max_delay_s, max(self.min_delay_s, delay_s))
        shorter = delay_s < self._delay_s
        self._delay_s = delay_s
        if shorter:
            with self._lock:
                for lane in self._lanes.values():
                    lane.armed = False  # the next call sets a timer anew

    def _lane_of(self, loop: Any) -> Lane:
        with self._lock:
            lane = self._lanes.get(loop)
            if lane is None:
                lane = self._lanes[loop] = self._new_lane()
            self._here = (loop, lane)
            return lane

    def _new_lane(self) -> Lane:
        return Lane(self.clock.now, lambda: self._delay_s, self._due)

    # -- asynchronous

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """The closure for an asynchronous call."""
        from asyncio import get_running_loop

        find, lane_of, now, learn = task_of(), self._lane_of, self.clock.now, self._learn
        deposit = deposit_of(self.budget)
        measures, bad = self.percentile is not None, self.judge.result

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                loop = get_running_loop()
            except RuntimeError:
                elsewhere(self.name, "a second copy")
            here, lane = self._here
            if here is not loop:
                lane = lane_of(loop)
            task = find(loop)
            if task is None:
                no_task()
            if deposit is not None:
                deposit()
            began = now()
            given = (began, task, task.cancelling(), copy_context(), call, args, kwargs)
            entry: Entry = [began, None, given]
            queue = lane.queue
            queue.append(entry)
            if not lane.armed:
                lane.arm(loop, self._delay_s)
            # The first copy needs no task: the others can end it as a timeout does.
            try:
                value = await call(*args, **kwargs)
            except BaseException as error:
                race = self._raised(loop, lane, entry, given, error)
                if race is None:
                    raise
            else:
                race = entry[RACE]
                if race is not None:
                    race.first_ended(value, None)
                else:
                    if queue and queue[0] is entry:
                        queue.popleft()
                    else:
                        lane.leave(entry)
                    if bad is None or not bad(value):
                        if measures:
                            learn(now() - began)
                        return value
                    race = self._failed(loop, lane, given, value, None)
                    if race is None:
                        return value
            return await race.finish()  # type: ignore[no-any-return]

        return guarded

    def _raised(
        self,
        loop: asyncio.AbstractEventLoop,
        lane: Lane,
        entry: Entry,
        given: _Given,
        error: BaseException,
    ) -> _TaskRace | None:
        """The first copy has raised. None: so does the call."""
        lane.leave(entry)
        race: _TaskRace | None = entry[RACE]
        if race is not None:
            if isinstance(error, GeneratorExit):  # closed: nothing can be awaited any more
                race.abandon()
                return None
            race.first_ended(None, error)
            return race
        outcome = self.judge.error(error)
        if outcome is Outcome.FAILED:
            return self._failed(loop, lane, given, None, error)
        if outcome is Outcome.OK:
            self._learn(self.clock.now() - given[0])
        return None

    def _failed(
        self,
        loop: asyncio.AbstractEventLoop,
        lane: Lane,
        given: _Given,
        value: Any,
        error: BaseException | None,
    ) -> _TaskRace | None:
        """The first copy has failed before there was another. None: so does the call."""
        if not self.on_failure or self.attempts == 1 or self._off:
            return None
        race = _TaskRace(self, loop, lane, given)
        race.first = False
        race.judged(1, value, error, Outcome.FAILED)
        return race if race.tasks.alive else None

    def _due(self, loop: asyncio.AbstractEventLoop, lane: Lane, entry: Entry) -> None:
        """So long without an answer."""
        race: _TaskRace | None = entry[RACE]
        if race is None:
            if entry[GIVEN] is None or self._off:
                return  # it came in the meantime
            race = entry[RACE] = _TaskRace(self, loop, lane, entry[GIVEN])
        race.context.run(race.due)

    # -- synchronous

    def forked(self) -> None:
        """In the child of a fork: no other thread holds the lock."""
        renew(self._lock)

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        """The closure for a synchronous call. Raises ``TypeError`` without ``threads``."""
        if not self._threads.most:
            raise TypeError(
                f"{self.name}: a running function cannot be cancelled. Hedge an async function, or "
                "give threads: how many may be under way at once, with losers that run on"
            )
        deposit = deposit_of(self.budget)

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            if self._off:
                return call(*args, **kwargs)
            if deposit is not None:
                deposit()
            race = ThreadRace(self, call, (args, kwargs))
            if not race.spawn(1):
                self._tell("not_hedged", call, why="threads")
                return call(*args, **kwargs)
            return race.finish()  # type: ignore[no-any-return]

        return guarded


_Given = tuple[float, Any, int, Context, Callable[..., Awaitable[Any]], Any, Any]
"""A call: since when, its task, ``cancelling()`` of that, context, function and arguments."""


class _TaskRace(Race):
    """The first copy in the caller's task, the others in their own."""

    __slots__ = ("base", "context", "cut", "entry", "given", "lane", "tasks", "us")

    def __init__(
        self, hedge: Hedge, loop: asyncio.AbstractEventLoop, lane: Lane, given: _Given
    ) -> None:
        began, self.us, self.base, self.context, call, args, kwargs = given
        super().__init__(hedge, began, call)
        self.given: Arguments = (args, kwargs)
        self.lane = lane
        self.cut = False
        """The first copy was cancelled by us."""
        self.entry: Entry = [None, self, None]
        self.tasks = Tasks(loop, self.context, self.copy_ended)

    def spawn(self, number: int) -> bool:
        self.tasks.start(number, numbered(number, self.call), self.given)
        self.lane.leave(self.entry)
        if number < self.hedge.attempts:
            self.entry = [self.lane.now(), self, None]
            self.lane.join(self.tasks.loop, self.entry)
        return True

    def due(self) -> None:
        """So long without an answer from the newest copy."""
        if self.answer is not None or self.tasks.off or self.us.cancelling() > self.base:
            return  # in the last case the caller is being cancelled
        self.slow = self.slow or self.first
        self.start("delay")

    def copy_ended(self, number: int, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if self.answer is not None or task.cancelled():
            return
        self.ended(number, task.result() if error is None else None, error)
        if self.answer is not None and self.first and self.us.cancelling() == self.base:
            # One who is being cancelled anyway must not be disturbed while it cleans up.
            self.outlived()
            self.cut = True
            self.us.cancel()

    def first_ended(self, value: Any, error: BaseException | None) -> None:
        from asyncio import CancelledError

        self.first = False
        ours = self.cut and self.us.uncancel() <= self.base
        if error is None or isinstance(error, Exception):
            if self.answer is None:
                self.ended(1, value, error)
        elif not (ours and isinstance(error, CancelledError)):
            self.answer = (1, None, error)

    def abandon(self) -> None:
        self.lane.leave(self.entry)
        self.tasks.cancel()

    async def finish(self) -> Any:
        """The first copy has ended: wait for the others, as far as needed."""
        try:
            while self.answer is None and self.tasks.alive:
                await self.tasks.wait()
        except GeneratorExit:
            self.abandon()
            raise
        except BaseException:
            self.abandon()
            await self.tasks.clear()
            raise
        self.abandon()
        await self.tasks.clear()
        return self.result()
