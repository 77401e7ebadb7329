"""At most so many calls at once, so that one slow dependency cannot take all threads or memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, NoReturn, ParamSpec, TypeVar

from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._forks import blocks_inside, enter, frames_inside, leave, on_fork
from everup.tolerate._loops import elsewhere
from everup.tolerate._options import Seconds, seconds, whole
from everup.tolerate._queue import HELD, WAITING, Places, Waiter, new_gate
from everup.tolerate.errors import BulkheadFull

if TYPE_CHECKING:
    from types import TracebackType

P = ParamSpec("P")
T = TypeVar("T")


class Bulkhead(Policy):
    """At most ``limit`` calls at once (default 10, 1 or more), over threads and tasks of all event
    loops together. Works as a decorator, as ``with`` and as ``async with``.

    ``queue``: how many may wait for a place (default 0: none, 0 or more). ``wait_s``: how long at
    most (above 0; default None: until there is one). ``order``: who is next, ``"fifo"`` (default)
    or ``"lifo"``, the newest, whose caller most likely still waits. A place that gets free goes
    straight to the next waiter: nobody gets in between, and nobody else wakes up. ``"codel"`` is
    ``"fifo"`` with controlled delay and a ``target_s`` of 0.005.

    ``target_s`` and ``interval_s`` (default 0.1, above 0): controlled delay, after Nichols and
    Jacobson, "Controlling Queue Delay" (ACM Queue 10(5), 2012), in the form for servers of Maurer,
    "Fail at Scale" (ACM Queue 13(8), 2015). A queue that was empty within ``interval_s`` is a
    burst: who joins may wait ``interval_s``. One that was not is a standing queue, which only adds
    delay: who joins may wait ``target_s`` (above 0, at most ``interval_s``; try 0.005). With
    ``order="lifo"`` the newest goes first only while the queue stands: Maurer's adaptive LIFO.

    Do not wait with ``with`` on an event loop's own thread: the tasks that could give a place back
    cannot run meanwhile.

    Raises ``BulkheadFull``, whose ``retry_after_s`` is None: nobody knows when a call will end.
    Events: ``rejected`` (``why``: ``full``, ``waited`` or ``codel``), ``queued`` (``waiting``).
    """

    _looks = False

    def __init__(
        self,
        limit: int = 10,
        queue: int = 0,
        name: str = "bulkhead",
        wait_s: Seconds | None = None,
        order: Literal["fifo", "lifo", "codel"] = "fifo",
        target_s: Seconds | None = None,
        interval_s: Seconds = 0.1,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock)
        whole("limit", limit)
        whole("queue", queue, 0)
        if order not in ("fifo", "lifo", "codel"):
            raise ValueError(f'order must be "fifo", "lifo" or "codel", not {order!r}')
        interval_s = seconds("interval_s", interval_s, above=True)
        if order == "codel" and target_s is None:
            target_s = min(_TARGET_S, interval_s)
        if wait_s is not None:
            wait_s = seconds("wait_s", wait_s, above=True)
        if target_s is not None:
            target_s = seconds("target_s", target_s, above=True)
        for value, what in ((wait_s, "wait_s"), (target_s, "target_s")):
            if value is not None and not queue:
                raise ValueError(f"{what} needs a queue")
        if target_s is not None and target_s > interval_s:
            raise ValueError(f"target_s must be at most interval_s, not {target_s!r}")
        self.limit = limit
        self.queue = queue
        self._places = Places(
            limit, queue, order == "lifo", self.clock, wait_s, target_s, interval_s
        )
        on_fork(self)

    def forked(self) -> None:
        """In the child of a fork: the places that other threads held are free."""
        calls = frames_inside(self, "waiting", self._places.waiting)
        held = sum(names.get("held", False) for names in calls)
        self._places.forked(held + blocks_inside(self))

    @property
    def in_use(self) -> int:
        """Calls under way now."""
        return self.limit - len(self._places.free)

    @property
    def waiting(self) -> int:
        """Calls that wait now."""
        return len(self._places.waiting)

    @property
    def forgettable(self) -> bool:
        """Whether nothing of weight is lost with it: no call is under way. ``Keyed`` asks."""
        return self.in_use == 0

    # -- around a function

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        """The closure for a synchronous call."""
        places, wait = self._places, self._wait
        free, waiting = places.free, places.waiting
        take, put, pass_on, match = free.pop, free.append, places.pass_on, places.match

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            held = False
            if not waiting:
                try:
                    take()
                    held = True
                except IndexError:
                    pass
            if not held:
                wait(call)
                held = True
            try:
                return call(*args, **kwargs)
            finally:
                # This is places.give_back, written out: a call of it takes as long as all of it.
                if waiting:
                    pass_on()
                else:
                    put(None)
                    if waiting:
                        match()

        return guarded

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """The closure for an asynchronous call."""
        places, wait = self._places, self._wait_async
        free, waiting = places.free, places.waiting
        take, put, pass_on, match = free.pop, free.append, places.pass_on, places.match

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            held = False
            if not waiting:
                try:
                    take()
                    held = True
                except IndexError:
                    pass
            if not held:
                await wait(call)
                held = True
            try:
                return await call(*args, **kwargs)
            finally:
                if waiting:
                    pass_on()
                else:
                    put(None)
                    if waiting:
                        match()

        return guarded

    # -- around a block

    def __enter__(self) -> Bulkhead:
        if not self._take():
            self._wait(None)
        enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        leave(self)
        self._places.give_back()

    async def __aenter__(self) -> Bulkhead:
        if not self._take():
            await self._wait_async(None)
        enter(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        leave(self)
        self._places.give_back()

    # -- waiting

    def _take(self) -> bool:
        """A place, if nobody waits for one."""
        if self._places.waiting:
            return False
        try:
            self._places.free.pop()
        except IndexError:
            return False
        return True

    # Switched off, it lets in more than there are places. Each of them gives one back that it did
    # not take; of so many at most, so all is right again when those have gone who took theirs.

    def _wait(self, call: object) -> None:
        if self._off:
            return
        self._refuse_full(call)
        gate = new_gate()
        gate.acquire()
        waiter = Waiter(gate)
        self._join(waiter, call)
        if waiter.state == HELD:
            return
        if not self._places.hold(waiter):
            self._reject(waiter.why, call)

    async def _wait_async(self, call: object) -> None:
        if self._off:
            return
        self._refuse_full(call)
        from asyncio import get_running_loop

        try:
            loop = get_running_loop()
        except RuntimeError:
            elsewhere(self.name, "waiting for a place")
        waiter = Waiter(None, loop, loop.create_future())
        self._join(waiter, call)
        if waiter.state == HELD:
            return
        if not await self._places.hold_async(waiter):
            self._reject(waiter.why, call)

    def _refuse_full(self, call: object = None) -> None:
        """Before there is anything to wait with: a rejection needs no event loop."""
        if len(self._places.waiting) >= self.queue:
            self._reject("full", call)

    def _join(self, waiter: Waiter, call: object = None) -> None:
        if not self._places.join(waiter):
            self._reject("full", call)
        if self._listeners and waiter.state == WAITING:
            try:
                self._tell("queued", call, waiting=self.waiting)
            except BaseException:
                self._places.abandon(waiter)
                raise

    def _reject(self, why: str, call: object) -> NoReturn:
        self._tell("rejected", call, why=why)
        raise BulkheadFull(self.name, _REASONS[why])


_TARGET_S = 0.005
"""CoDel's own."""

_REASONS = {
    "full": "full",
    "waited": "no place within the time to wait",
    "codel": "no place soon enough: the queue stands",
}
