"""When the whole operation must be over: absolute, carried along, handed on to those who are asked.

A deadline lives in a context variable. Tasks inherit it; threads do where ``carry`` takes it there;
another process gets it where a client sends ``headers()`` along.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, Token, copy_context
from functools import update_wrapper
from math import inf
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._loops import elsewhere, trio_now
from everup.tolerate._options import Seconds
from everup.tolerate._options import seconds as duration
from everup.tolerate.errors import DeadlineExceeded

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

P = ParamSpec("P")
T = TypeVar("T")

SLACK_S = 1e-9
"""A timer may fire this much early: a loop rounds to its clock's resolution."""

Span = tuple[float, Callable[[], float], Any, Any]
"""Until when, by which clock, the span around it, and what belongs to it. A plain tuple: a named
one takes four times as long to make."""

current: ContextVar[Span | None] = ContextVar("everup.deadline", default=None)

Entry = list[Any]
"""A call that is cut off at a time: its task (None: the call is over), when (None: taken out of its
queue), ``cancelling()`` of the task when it began, whether it was cut off. A list: an object of a
class takes five times as long to make."""
TASK, AT, BASE, CUT = range(4)


# -- what code inside a deadline asks


def deadline_at() -> float | None:
    """When the deadline is, on the clock of its policy (``time.monotonic`` unless replaced), in
    seconds; None: there is none."""
    span = current.get()
    return None if span is None or span[0] == inf else span[0]


def remaining() -> float | None:
    """Seconds left, 0.0 when it is over; None: there is no deadline."""
    span = current.get()
    return None if span is None or span[0] == inf else max(0.0, span[0] - span[1]())


def check() -> None:
    """Raise ``DeadlineExceeded`` when the deadline is over. Long synchronous work calls it between
    its steps."""
    if remaining() == 0.0:
        raise DeadlineExceeded("the deadline is over")


def carry(function: Callable[P, T]) -> Callable[P, T]:
    """``function`` with the context variables of now, the deadline among them, for whoever runs it:
    a thread, an executor. It may run many times, at once too."""
    context = copy_context()

    def carried(*args: P.args, **kwargs: P.kwargs) -> T:
        # A copy each time: a context can be entered by one thread only.
        return context.copy().run(function, *args, **kwargs)

    return update_wrapper(carried, function)


# -- on the wire


def headers() -> dict[str, str]:
    """What a client sends so that the server knows the deadline: ``{"grpc-timeout": "1500000u"}``,
    nothing when there is no deadline. Raises ``DeadlineExceeded`` when it is over: do not ask.

    The form is gRPC's (PROTOCOL-HTTP2.md, "Timeout"), relative, so that clocks need not agree. It
    is rounded down: the server must not work longer than anyone waits.
    """
    left = remaining()
    if left is None:
        return {}
    if left == 0.0:
        raise DeadlineExceeded("the deadline is over: nobody would wait for the answer")
    for unit, per_second in (("n", 1e9), ("u", 1e6), ("m", 1e3)):
        if left * per_second < 1e8:  # eight digits, no more
            return {"grpc-timeout": f"{max(1, int(left * per_second))}{unit}"}
    return {"grpc-timeout": f"{min(int(left), 99_999_999)}S"}


_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def parse_grpc_timeout(text: str) -> float:
    """Seconds that a ``grpc-timeout`` header grants: what a server gives to ``Deadline``. Raises
    ``ValueError`` for anything but one to eight digits and a unit of H M S m u n."""
    digits, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (1 <= len(digits) <= 8 and digits.isascii() and digits.isdigit()):
        raise ValueError(f"{text!r} is no grpc-timeout: up to 8 digits and one of H M S m u n")
    return int(digits) * _UNITS[unit]


# -- what policies share


def within(limit: float, now: Callable[[], float], outer: Span | None) -> float:
    """The earlier of a limit and the deadline around it, on the clock of the limit."""
    if outer is None:
        return limit
    if outer[1] is now:
        return min(limit, outer[0])
    return min(limit, now() + outer[0] - outer[1]())


def leave(belongs: Callable[[Any], bool]) -> Span | None:
    """Take out the innermost span whose use ``belongs``, and give it; None: it was not entered in
    this context. Those inside it, where blocks are left in the wrong order, stay."""
    span = current.get()
    inside: list[Span] = []
    while span is not None:
        outer = span[2]
        if belongs(span[3]):
            for at, now, _outer, use in reversed(inside):
                outer = (at, now, outer, use)
            current.set(outer)
            return span
        inside.append(span)
        span = outer
    return None


def task_of() -> Callable[[Any], Any]:
    """What gives the task that runs on a loop. On 3.11 ``asyncio.current_task`` is Python code and
    takes as long as the rest of a timeout; the dictionary that it looks into does not."""
    import asyncio

    if sys.version_info >= (3, 12):  # pragma: no cover - the other branch is
        return asyncio.current_task
    tasks: dict[Any, Any] = asyncio.tasks._current_tasks  # type: ignore[attr-defined]
    return tasks.get


def no_task() -> NoReturn:
    """Nothing could be cancelled."""
    raise RuntimeError("only what runs in a task can be cut off")


def cut(loop: asyncio.AbstractEventLoop, due: list[Entry], context: Context, patient: bool) -> None:
    """Cancel the tasks of calls whose time is over. Runs one turn of the loop after the timer, so
    that a result due at the same time is there; and where a result is there that the task has not
    seen yet, ``patient`` gives it one more turn: the result wins, and nothing that was acquired is
    lost. One turn only: a task that spins must be cut off too."""
    later = []
    for entry in due:
        task = entry[TASK]
        if task is None:
            continue
        waiter = getattr(task, "_fut_waiter", None)
        if patient and (waiter is None or waiter.done()):
            later.append(entry)
            continue
        entry[CUT] = True
        task.cancel()
    if later:
        loop.call_soon(cut, loop, later, context, False, context=context)


def cut_ended(task: Any, entry: Entry, error: BaseException | None) -> bool:
    """The call that was cut off has ended. Takes the cancellation back, as it was this policy's
    own; True when it is what ended the call, and nobody else wants the task cancelled."""
    import asyncio

    foreign = task.uncancel() > entry[BASE]
    return isinstance(error, asyncio.CancelledError) and not foreign


class _Use:
    """One block or call under a ``Deadline``."""

    __slots__ = ("call", "context", "entry", "loop", "owner", "task", "timer", "token")

    token: Token[Span | None]

    def __init__(self, owner: Deadline, call: object) -> None:
        self.owner = owner
        self.call = call
        self.task: Any = None
        self.timer: asyncio.TimerHandle | None = None

    def arm(self, loop: asyncio.AbstractEventLoop, task: Any, at: float) -> None:
        """Cut the task off at this time."""
        self.loop, self.task, self.context = loop, task, Context()
        self.entry: Entry = [task, at, task.cancelling(), False]
        self._due()

    def _due(self) -> None:
        left = self.entry[AT] - self.owner.clock.now()
        if left == inf:
            return
        if left > SLACK_S:
            self.timer = self.loop.call_later(left, self._due, context=self.context)
        elif not self.owner._off:
            self.loop.call_soon(
                cut, self.loop, [self.entry], self.context, True, context=self.context
            )

    def end(self, error: BaseException | None) -> None:
        """It is over. Raises ``DeadlineExceeded`` if it was cut off."""
        if self.task is None:
            return
        task, self.task, self.entry[TASK] = self.task, None, None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.entry[CUT] and cut_ended(task, self.entry, error):
            self.owner._tell("cut", self.call)
            raise DeadlineExceeded(f"{self.owner.name}: over before the call was") from error


class Deadline(Policy):
    """The whole operation must be over in so many seconds, however many calls it makes.

    ``seconds``: from the start of the block or call, 0 or more. Nested deadlines take the minimum.
    It works as ``with``, as ``async with`` and as a decorator, and one object may be used many
    times at once. ``with`` and synchronous functions are not stopped: code asks ``remaining()`` or
    calls ``check()``. ``async with`` and asynchronous functions are cancelled at the deadline.

    A result that is there wins: it is returned, late or not. Do not ``yield`` inside a block: a
    generator's body may go on, or end, in another task or context (PEP 789).

    Raises ``DeadlineExceeded``: when it is over before the call begins (which is then not made),
    from ``check()``, and where something asynchronous was cut off. Events: ``refused``, ``cut``.
    """

    _looks = False

    def __init__(
        self, seconds: Seconds, name: str = "deadline", clock: Clock | None = None
    ) -> None:
        super().__init__(name, clock)
        self.seconds = duration("seconds", seconds)

    def _open(self, call: object = None) -> tuple[_Use, float]:
        now, outer = self.clock.now, current.get()
        began = now()
        at = within(inf if self._off else began + self.seconds, now, outer)
        if at <= began and not self._off:
            self._tell("refused", call)
            raise DeadlineExceeded(f"{self.name}: over before the call was made")
        use = _Use(self, call)
        use.token = current.set((at, now, outer, use))
        return use, at

    def _open_async(self) -> _Use:
        import asyncio

        try:
            task = asyncio.current_task()
        except RuntimeError:
            elsewhere(self.name, "a block")
        if task is None:
            no_task()
        use, at = self._open()
        use.arm(task.get_loop(), task, at)
        return use

    def _close(self) -> _Use | None:
        """Leave the innermost block of this deadline; None: it was not entered here."""
        span = leave(lambda use: isinstance(use, _Use) and use.owner is self)
        return None if span is None else span[3]

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        """The closure for a synchronous call."""

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            outer = current.get()
            self._open(call)
            try:
                return call(*args, **kwargs)
            finally:
                current.set(outer)

        return guarded

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """The closure for an asynchronous call."""
        from asyncio import current_task

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                task = current_task()
            except RuntimeError:
                return await self._in_trio(call, args, kwargs)
            if task is None:
                no_task()
            use, at = self._open(call)
            use.arm(task.get_loop(), task, at)
            try:
                result = await call(*args, **kwargs)
            except BaseException as error:
                use.end(error)
                raise
            else:
                use.end(None)
                return result
            finally:
                try:
                    current.reset(use.token)
                except ValueError:
                    pass  # thrown away, and closed in another context: that one's deadline stays

        return guarded

    async def _in_trio(self, call: Callable[..., Awaitable[T]], args: Any, kwargs: Any) -> T:
        trio = trio_now(self.name)
        outer = current.get()
        _use, at = self._open(call)
        try:
            with trio.move_on_after(at - self.clock.now()):
                return await call(*args, **kwargs)
        finally:
            current.set(outer)
        self._tell("cut", call)
        raise DeadlineExceeded(f"{self.name}: over before the call was")

    def __enter__(self) -> Deadline:
        self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    async def __aenter__(self) -> Deadline:
        self._open_async()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        use = self._close()
        if use is not None:
            use.end(error)
