"""A call may take so long, and no longer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from everup.tolerate._clock import Clock
from everup.tolerate._expiry import Lane, Timer
from everup.tolerate._forks import on_fork
from everup.tolerate._functions import plain
from everup.tolerate._loops import elsewhere, trio_now
from everup.tolerate._options import Seconds, whole
from everup.tolerate._options import seconds as duration
from everup.tolerate._threaded import Threaded
from everup.tolerate.deadline import (
    CUT,
    Entry,
    current,
    cut_ended,
    leave,
    no_task,
    task_of,
    within,
)
from everup.tolerate.errors import DeadlineExceeded, TimedOut

if TYPE_CHECKING:
    from types import TracebackType

P = ParamSpec("P")
T = TypeVar("T")


class Timeout(Threaded):
    """A call may take ``seconds`` (above 0). Raises ``TimedOut``.

    ``seconds``: None: as long as it likes. ``each``: asked with the arguments of each call, gives
    the seconds that this one may take; None: ``seconds``. Such calls have a timer each.

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

    Events: ``timed_out`` (``seconds``: what it had), ``late`` (``error``: its type, None when it
    brought a result), ``rejected`` (``hung``). Asynchronous calls of one object share one timer per
    event loop.
    """

    def __init__(
        self,
        seconds: Seconds | None,
        name: str = "timeout",
        clock: Clock | None = None,
        *,
        each: Callable[..., Seconds | None] | None = None,
        thread: bool = False,
        max_hung: int = 8,
    ) -> None:
        super().__init__(name, clock)
        self.seconds: float | None = None
        if seconds is not None:
            self.seconds = duration("seconds", seconds, above=True)
        plain("each", each)
        self._each = each
        self._looks = each is not None
        self.thread = thread
        self.max_hung = whole("max_hung", max_hung)
        self._begin_threads(thread)
        on_fork(self)
        self._lanes: WeakKeyDictionary[Any, Lane] = WeakKeyDictionary()
        self._here: tuple[Any, Lane] = (None, self._new_lane())
        """The loop used last, and its lane: looking into the dictionary costs as much again."""

    @property
    def forgettable(self) -> bool:
        """Whether nothing of weight is lost with it: no thread hangs. ``Keyed`` asks."""
        return self.hung == 0

    def _lane_of(self, loop: Any) -> Lane:
        with self._lock:
            lane = self._lanes.get(loop)
            if lane is None:
                # Calls that a closed loop left behind hold it: it would never be collected.
                for ref in self._lanes.keyrefs():
                    old = ref()
                    if old is not None and old.is_closed():
                        self._lanes.pop(old, None)
                lane = self._lanes.setdefault(loop, self._new_lane())
            self._here = (loop, lane)
            return lane

    def _new_lane(self) -> Lane:
        return Lane(self.clock.now, lambda: self._off)

    def _limit_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
        """Seconds that one call may take; None: as long as it likes."""
        if self._off:
            return None
        given = None if self._each is None else self._each(*args, **kwargs)
        return self.seconds if given is None else duration("each", given, above=True)

    def _timed_out(
        self, error: BaseException | None, call: object, limit_s: float | None
    ) -> NoReturn:
        self._tell("timed_out", call, seconds=limit_s)
        raise TimedOut(f"{self.name}: took longer than {limit_s:g} s") from error

    # -- asynchronous

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """The closure for an asynchronous call."""
        from asyncio import get_running_loop

        find, lane_of, now, seconds = task_of(), self._lane_of, self.clock.now, self.seconds
        if seconds is None or self._each is not None:
            return self._around_each(call)

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                loop = get_running_loop()
            except RuntimeError:
                return await self._in_trio(call, args, kwargs, seconds)
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
                    self._after_cut(task, entry, error, call, seconds)
                raise
            if queue and queue[0] is entry:
                queue.popleft()
            else:
                lane.leave(entry)
                if entry[3]:
                    self._after_cut(task, entry, None, call, seconds)
            return result

        return guarded

    def _around_each(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Each call with a time of its own."""
        from asyncio import current_task

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            limit_s = self._limit_of(args, kwargs)
            if limit_s is None:
                return await call(*args, **kwargs)
            try:
                task = current_task()
            except RuntimeError:
                return await self._in_trio(call, args, kwargs, limit_s)
            if task is None:
                no_task()
            timer = Timer(task, limit_s, self.clock.now, lambda: self._off)
            try:
                result = await call(*args, **kwargs)
            except BaseException as error:
                timer.end()
                if timer.entry[CUT]:
                    self._after_cut(task, timer.entry, error, call, limit_s)
                raise
            timer.end()
            if timer.entry[CUT]:
                self._after_cut(task, timer.entry, None, call, limit_s)
            return result

        return guarded

    async def _in_trio(
        self, call: Callable[..., Awaitable[T]], args: Any, kwargs: Any, limit_s: float
    ) -> T:
        trio = trio_now(self.name)
        with trio.move_on_after(float("inf") if self._off else limit_s):
            return await call(*args, **kwargs)
        self._timed_out(None, call, limit_s)

    def _after_cut(
        self,
        task: Any,
        entry: Entry,
        error: BaseException | None,
        call: object,
        limit_s: float | None,
    ) -> None:
        if cut_ended(task, entry, error):
            self._timed_out(error, call, limit_s)
        self._tell_late(error, call)

    def _tell_late(self, error: BaseException | None, call: object) -> None:
        self._tell("late", call, error=None if error is None else type(error).__name__)

    async def __aenter__(self) -> Timeout:
        import asyncio

        try:
            task = asyncio.current_task()
        except RuntimeError:
            elsewhere(self.name, "a block")
        if task is None:
            no_task()
        seconds = self._of_block()
        loop = task.get_loop()
        lane = self._lane_of(loop)
        entry = [task, self.clock.now() + seconds, task.cancelling(), False]
        lane.queue.append(entry)
        lane.blocks.setdefault(task, []).append(entry)
        if not lane.armed:
            lane.arm(loop, seconds)
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
            self._after_cut(task, entry, error, None, self.seconds)

    def _of_block(self) -> float:
        if self.seconds is None:
            raise TypeError(f"{self.name}: a block needs a number of seconds")
        return self.seconds

    # -- synchronous

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        """The closure for a synchronous call."""
        if self.thread:
            return self._in_thread(call)
        if self.seconds is None or self._each is not None:
            return self._around_each_sync(call)
        return self._within(self.seconds, call)

    def _within(self, seconds: float, call: Callable[P, T]) -> Callable[P, T]:
        get, put, now = current.get, current.set, self.clock.now

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            if self._off:
                return call(*args, **kwargs)
            outer = get()
            limit = now() + seconds
            at = limit if outer is None else within(limit, now, outer)
            put((at, now, outer, self))
            try:
                result = call(*args, **kwargs)
            except DeadlineExceeded as error:
                if at == limit <= now():
                    self._timed_out(error, call, seconds)
                raise
            finally:
                put(outer)
            if self._listeners and now() > limit:
                self._tell_late(None, call)
            return result

        return guarded

    def _around_each_sync(self, call: Callable[P, T]) -> Callable[P, T]:
        """Each call with a time of its own."""

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            limit_s = self._limit_of(args, kwargs)
            if limit_s is None:
                return call(*args, **kwargs)
            return self._within(limit_s, call)(*args, **kwargs)

        return guarded

    def __enter__(self) -> Timeout:
        if self.thread:
            raise TypeError(f"{self.name}: a block cannot run in a thread; guard a function")
        outer, now = current.get(), self.clock.now
        limit = now() + (float("inf") if self._off else self._of_block())
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
            self._timed_out(error, None, self.seconds)
        if error is None and self._listeners and now() > limit:
            self._tell_late(None, None)
