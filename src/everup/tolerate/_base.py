"""What all policies share: how they are put around a function, and how they tell what they do."""

import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple, ParamSpec, Self, TypeVar

from everup.tolerate._clock import SYSTEM, Clock
from everup.tolerate._functions import is_async, is_function, name_of, plain
from everup.tolerate._options import shown

P = ParamSpec("P")
T = TypeVar("T")


class Event(NamedTuple):
    """Something that a policy did."""

    policy: str
    """Name of the policy."""
    kind: str
    """What: each policy's page lists its own."""
    at: float
    """Monotonic seconds, by the policy's clock."""
    detail: Mapping[str, Any]
    function: str = ""
    """Name of the guarded function; empty: it was a block, or of no call at all."""


Listener = Callable[[Event], None]
_LONGEST_NAME = 200


class Policy:
    """One way to tolerate faults. Use it as a decorator, or call ``call`` and ``acall``.

    ``name`` says in events and errors which one it is. One object may guard many functions and is
    shared by threads and tasks; what it counts, it counts over all of them.
    """

    _looks = True
    """Whether it looks at the arguments of a call, or hands them to others than its function."""
    _number: ClassVar[str | None] = None
    """The option that a number in the place of the name is most likely meant for."""

    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Keep what it is made with, for ``but`` and for its looks."""
        made = super().__new__(cls)
        made._given = args, options
        return made

    def __init__(self, name: str, clock: Clock | None = None) -> None:
        if not isinstance(name, str):
            raise TypeError(self._misnamed(name))
        if not (clock is None or isinstance(clock, Clock)):
            raise TypeError(f"clock must be a Clock, not {clock!r}")
        self.name = name
        self.clock = SYSTEM if clock is None else clock
        self._listeners: tuple[Listener, ...] = ()
        self._complained: tuple[str, ...] = ()
        self._off: list[object] = []
        """Who wants that it does nothing. Looked at where it would, so calls pay nothing. A list,
        since a number would lose one of two that come at once, without the GIL."""

    def __repr__(self) -> str:
        _, options = self._options()
        for known in ("name", "clock"):
            options.pop(known, None)
        words = [f"{option}={shown(value)}" for option, value in options.items()]
        return f"<{' '.join([type(self).__name__, repr(self.name), *words])}>"

    def _options(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What it was made with: what has no name, and what has."""
        code = type(self).__init__.__code__  # inspect would do it, and costs 10 ms
        names = code.co_varnames[1 : code.co_argcount]
        args, options = self._given
        return args[len(names) :], {**dict(zip(names, args, strict=False)), **options}

    # -- another one, and none

    def but(self, **options: Any) -> Self:
        """Make another one like it, with these options instead: ``retry.but(attempts=1)``. It
        begins anew, without listeners; what it was given to share, a budget or a clock, is shared.
        Raises as the constructor does."""
        more, given = self._options()
        return type(self)(*more, **{**given, **options})

    @contextmanager
    def off(self) -> Iterator[None]:
        """Switch it off within the block, for all threads and tasks: calls pass as if it were not
        there, those that began before as well. It goes on counting what it can see without acting.
        A class of your own looks at nothing: it stays as it is."""
        who = object()
        self._off.append(who)
        try:
            yield
        finally:
            self._off.remove(who)

    @classmethod
    def _misnamed(cls, given: Any) -> str:
        """What to say of a name that is none."""
        kind = cls.__name__
        meant = ""
        if isinstance(given, type) and issubclass(given, BaseException):
            meant = f"exceptions are given as on={given.__name__}"
        elif isinstance(given, type) or is_function(given):
            meant = f"as a decorator it is made first: @{kind}()"
        elif cls._number is not None and isinstance(given, (int, float)):
            meant = f"a number may be meant as {cls._number.format(given)}"
        elif isinstance(given, (tuple, list)):
            meant = "exceptions are given as on=(...)"
        return f"{kind}: name must be text, not {given!r}" + (f"; {meant}" if meant else "")

    # -- around a function

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Guard a function; its signature stays, and its attribute ``policy`` is this one. Raises
        ``TypeError`` for generator functions, whose body runs only after the call: guard a function
        that uses them."""
        around: Any = self.around_async if is_async(function) else self.around
        guarded: Callable[P, Any] = around(function)
        if guarded is function:
            return function
        functools.update_wrapper(guarded, function)
        guarded.policy = self  # type: ignore[attr-defined]
        return guarded

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function guarded, once. Raises ``TypeError`` where its body would not be guarded:
        for ``async def`` (use ``acall``) and for generator functions."""
        if is_async(function):
            raise TypeError(f"{name_of(function)} is asynchronous: use acall")
        return self.around(function)(*args, **kwargs)

    async def acall(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call an asynchronous function guarded, once. It may be any function that returns an
        awaitable. Raises ``TypeError`` for generator functions."""
        is_async(function)
        return await self.around_async(function)(*args, **kwargs)

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        """The closure for a synchronous call. Each policy gives its own."""
        raise NotImplementedError

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """The closure for an asynchronous call: an ``async def`` of its own, since frameworks look
        for that. Each policy gives its own."""
        raise NotImplementedError

    # -- telling

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Tell ``listener`` of every event, on the thread where it happens; returns what ends it.
        What a listener raises is dropped, and logged the first time: telling must not break what
        is told of. Raises ``TypeError`` for an ``async def``, which nobody would await."""
        plain("listener", listener)
        self._listeners = (*self._listeners, listener)

        def end() -> None:
            # By identity, and once: the same one may have been subscribed twice.
            left = list(self._listeners)
            for index, one in enumerate(left):
                if one is listener:
                    del left[index]
                    break
            self._listeners = tuple(left)

        return end

    def _tell(self, kind: str, call: object = None, /, **detail: Any) -> None:
        """Of a call of this function, if any. Callers look at ``self._listeners`` first where speed
        matters."""
        if not self._listeners:
            return
        function = "" if call is None else name_of(call)[:_LONGEST_NAME]
        event = Event(self.name, kind, self.clock.now(), detail, function)
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:
                self._complain("listener", listener, error)

    def _complain(self, what: str, function: object, error: Exception) -> None:
        """Log that something of the user's own failed: once, as it may do so at every call."""
        if what not in self._complained:
            self._complained = (*self._complained, what)
            from logging import getLogger

            getLogger("everup.tolerate").warning(
                "%s: its %s %s failed; what fails again is not told",
                self.name,
                what,
                name_of(function),
                exc_info=error,
            )


def takes(policy: Policy, option: str) -> bool:
    """Whether the constructor of a policy has an option of this name."""
    code = type(policy).__init__.__code__
    return option in code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
