"""A call may take so long, and no longer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._forks import on_fork, renew
from everup.tolerate._options import Seconds, whole
from everup.tolerate._options import seconds as duration
from everup.tolerate._workers import Workers
from everup.tolerate.deadline import (
    AT,
    CUT,
    SLACK_S,
    TASK,
    Entry,
    current,
    cut,
    cut_ended,
    leave,
    no_task,
    task_of,
    within,
)
from everup.tolerate.errors import DeadlineExceeded, Rejected, TimedOut

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

P = ParamSpec("P")
T = TypeVar("T")

_MANY = 64
"""Ended calls that a lane keeps, in vain, behind a slow one before it looks for them."""


class _Lane:
    """The calls of one ``Timeout`` on one event loop. As all may take equally long, the first that
    began is the first that is due: a deque holds them, and one timer serves all. A call that ends
    leaves the timer alone: it finds out when it fires, at most once per timeout."""

    # It must not hold the loop: the loop is what it is kept under.
    __slots__ = ("armed", "blocks", "context", "dead", "now", "queue")

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.queue: deque[Entry] = deque()
        self.dead = 0
        """Entries of ended calls in the queue."""
        self.armed = False
        self.context = Context()  # empty: a timer must not keep some call's variables alive
        self.blocks: dict[Any, list[Entry]] = {}
        """What each task has entered with ``async with``."""

    def arm(self, loop: asyncio.AbstractEventLoop, left: float) -> None:
        """Look again in so many seconds."""
        self.armed = True
        loop.call_later(left, self._fire, loop, context=self.context)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self.armed = False
        queue, now = self.queue, self.now()
        due: list[Entry] = []
        while queue:
            entry = queue[0]
            if entry[TASK] is None:
                self.dead -= 1
            elif entry[AT] > now + SLACK_S:
                self.arm(loop, entry[AT] - now)
                break
            else:
                entry[AT] = None
                due.append(entry)
            queue.popleft()
        if due:
            loop.call_soon(cut, loop, due, self.context, True, context=self.context)

    def leave(self, entry: Entry) -> None:
        """A call has ended, wherever it stands."""
        entry[TASK] = None
        if entry[AT] is None:
            return
        queue = self.queue
        self.dead += 1
        while queue and queue[0][TASK] is None:
            queue.popleft()
            self.dead -= 1
        if self.dead > _MANY and self.dead * 2 > len(queue):
            alive = [one for one in queue if one[TASK] is not None]
            queue.clear()
            queue.extend(alive)
            self.dead = 0


class _Job:
    """One call in a thread of its own."""

    __slots__ = ("abandoned", "done", "error", "over", "result")

    def __init__(self) -> None:
        self.done = threading.Lock()
        self.done.acquire()
        self.over = self.abandoned = False
        self.result: Any = None
        self.error: BaseException | None = None


class Timeout(Policy):
    """A call may take ``seconds`` (above 0). Raises ``TimedOut``.

    **Asynchronous**: the call is cancelled when its time is over. ``TimedOut`` is raised only if
    that ended it: a result that is there wins; so does what the call raises while it cleans up; and
    so does whoever else cancels the task, before or after: then it stays cancelled. Cancelling is
    tried once: a call that swallows it runs on. ``async with`` works alike; do not ``yield`` inside
    it (PEP 789). ``remaining()`` does not show this time: use ``Deadline`` for what is sent on.

    **Synchronous**: nothing can stop a running function, so this sets a deadline for it (see
    ``Deadline``), on which code inside looks: with ``check()``, or ``remaining()`` as a timeout for
    a socket. What ``check()`` raises becomes ``TimedOut``. A result that comes too late is returned
    all the same, since the work is done and asking again would do it twice; it is told as ``late``.
    ``with`` works alike.

    **thread=True** (synchronous functions): the call runs in a thread of its own, with a copy of
    the context variables, and the caller waits only so long, in real time. The thread goes on,
    hung; what it brings in the end is dropped and told as ``late``. While ``max_hung`` (default 8,
    1 or more) hang, calls are refused with ``Rejected``; a thread that ends makes room again. Those
    under way may still come to hang, so there are never more than ``max_hung`` - 1 plus the calls
    made at once: a ``Bulkhead`` around it bounds these. Up to 32 threads whose calls are over wait
    5 s for the next, which may find their ``threading.local`` variables. An earlier deadline around
    it ends the wait too, with ``DeadlineExceeded``.

    Events: ``timed_out``, ``late`` (``error``: its type, None when it brought a result),
    ``rejected`` (``hung``). Asynchronous calls of one object share one timer per event loop.
    """

    _looks = False

    def __init__(
        self,
        seconds: Seconds,
        name: str = "timeout",
        clock: Clock | None = None,
        *,
        thread: bool = False,
        max_hung: int = 8,
    ) -> None:
        super().__init__(name, clock)
        self.seconds = duration("seconds", seconds, above=True)
        self.thread = thread
        self.max_hung = whole("max_hung", max_hung)
        self.hung = 0
        """Threads that hang now."""
        if thread:
            self._workers = Workers(name)
        # Re-entrant: garbage collection may run any __del__ in the middle of what it guards.
        self._lock = threading.RLock()
        on_fork(self)
        self._lanes: WeakKeyDictionary[Any, _Lane] = WeakKeyDictionary()
        self._here: tuple[Any, _Lane] = (None, _Lane(self.clock.now))
        """The loop used last, and its lane: looking into the dictionary costs as much again."""

    @property
    def forgettable(self) -> bool:
        """Whether nothing of weight is lost with it: no thread hangs. ``Keyed`` asks."""
        return self.hung == 0

    def _lane_of(self, loop: Any) -> _Lane:
        with self._lock:
            lane = self._lanes.get(loop)
            if lane is None:
                # Calls that a closed loop left behind hold it: it would never be collected.
                for ref in self._lanes.keyrefs():
                    old = ref()
                    if old is not None and old.is_closed():
                        self._lanes.pop(old, None)
                lane = self._lanes.setdefault(loop, _Lane(self.clock.now))
            self._here = (loop, lane)
            return lane

    def _timed_out(self, error: BaseException | None) -> NoReturn:
        self._tell("timed_out")
        raise TimedOut(f"{self.name}: took longer than {self.seconds:g} s") from error

    # -- asynchronous

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """The closure for an asynchronous call."""
        from asyncio import get_running_loop

        find, lane_of, now, seconds = task_of(), self._lane_of, self.clock.now, self.seconds

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            loop = get_running_loop()
            here, lane = self._here
            if here is not loop:
                lane = lane_of(loop)
            task = find(loop)
            if task is None:
                no_task()
            entry = [task, now() + seconds, task.cancelling(), False]
            queue = lane.queue
            queue.append(entry)
            if not lane.armed:
                lane.arm(loop, seconds)
            try:
                result = await call(*args, **kwargs)
            except BaseException as error:
                lane.leave(entry)
                if entry[3]:
                    self._after_cut(task, entry, error)
                raise
            if queue and queue[0] is entry:
                queue.popleft()
            else:
                lane.leave(entry)
                if entry[3]:
                    self._after_cut(task, entry, None)
            return result

        return guarded

    def _after_cut(self, task: Any, entry: Entry, error: BaseException | None) -> None:
        if cut_ended(task, entry, error):
            self._timed_out(error)
        self._tell_late(error)

    def _tell_late(self, error: BaseException | None) -> None:
        self._tell("late", error=None if error is None else type(error).__name__)

    async def __aenter__(self) -> Timeout:
        import asyncio

        task = asyncio.current_task()
        if task is None:
            no_task()
        loop = task.get_loop()
        lane = self._lane_of(loop)
        entry = [task, self.clock.now() + self.seconds, task.cancelling(), False]
        lane.queue.append(entry)
        lane.blocks.setdefault(task, []).append(entry)
        if not lane.armed:
            lane.arm(loop, self.seconds)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import asyncio

        loop = asyncio._get_running_loop()
        if loop is None:
            return  # thrown away together with its loop
        task = asyncio.current_task()
        lane = self._lane_of(loop)
        stack = lane.blocks.get(task)
        if stack is None:
            raise RuntimeError(f"{self.name}: left in another task than it was entered in")
        entry = stack.pop()
        if not stack:
            del lane.blocks[task]
        lane.leave(entry)
        if entry[CUT]:
            self._after_cut(task, entry, error)

    # -- synchronous

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        """The closure for a synchronous call."""
        if self.thread:
            return self._in_thread(call)
        get, put, now, seconds = current.get, current.set, self.clock.now, self.seconds

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            outer = get()
            limit = now() + seconds
            at = limit if outer is None else within(limit, now, outer)
            put((at, now, outer, self))
            try:
                result = call(*args, **kwargs)
            except DeadlineExceeded as error:
                if at == limit <= now():
                    self._timed_out(error)
                raise
            finally:
                put(outer)
            if self._listeners and now() > limit:
                self._tell_late(None)
            return result

        return guarded

    def __enter__(self) -> Timeout:
        if self.thread:
            raise TypeError(f"{self.name}: a block cannot run in a thread; guard a function")
        outer, now = current.get(), self.clock.now
        limit = now() + self.seconds
        current.set((within(limit, now, outer), now, outer, (self, limit)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        span = leave(lambda use: isinstance(use, tuple) and use[0] is self)
        if span is None:
            return
        at, now, _outer, (_self, limit) = span
        if isinstance(error, DeadlineExceeded) and at == limit <= now():
            self._timed_out(error)
        if error is None and self._listeners and now() > limit:
            self._tell_late(None)

    # -- in a thread

    def _in_thread(self, call: Callable[P, T]) -> Callable[P, T]:
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            hung = self.hung
            if hung >= self.max_hung:
                self._tell("rejected", hung=hung)
                raise Rejected(self.name, f"{hung} threads hang")
            now, outer = self.clock.now, current.get()
            began = now()
            at = within(began + self.seconds, now, outer)
            context = copy_context()
            context.run(current.set, (at, now, outer, self))
            job = _Job()
            self._workers.run(partial(self._work, job, context, call, args, kwargs))
            try:
                job.done.acquire(timeout=min(max(0.0, at - began), threading.TIMEOUT_MAX))
            finally:
                # Also where the wait was interrupted: nobody will fetch the result.
                abandoned = self._abandon(job)
            if abandoned:
                if at < began + self.seconds:
                    raise DeadlineExceeded(f"{self.name}: the deadline around it is over")
                self._timed_out(None)
            error, job.error = job.error, None
            if error is None:
                return job.result  # type: ignore[no-any-return]
            try:
                if isinstance(error, DeadlineExceeded) and at == began + self.seconds <= now():
                    self._timed_out(error)
                raise error
            finally:
                del error, job  # the traceback holds this frame: break the circle

        return guarded

    def _abandon(self, job: _Job) -> bool:
        """Nobody waits for it any longer. False: it is over, its result can be taken."""
        with self._lock:
            if job.over:
                return False
            job.abandoned = True
            self.hung += 1
            return True

    def _work(
        self,
        job: _Job,
        context: Context,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Callable[[], object]:
        """In the thread: returns what wakes the caller."""
        try:
            job.result = context.run(call, *args, **kwargs)
        except BaseException as error:  # all of it belongs to the caller
            job.error = error
        with self._lock:
            job.over = True
            if job.abandoned:
                self.hung -= self.hung > 0  # a fork's child counts none
        if job.abandoned:
            late, job.error = job.error, None
            self._tell_late(late)
        return job.done.release

    def forked(self) -> None:
        """In the child of a fork: what hangs does so in the parent alone."""
        self.hung = 0
        renew(self._lock)
