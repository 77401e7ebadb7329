"""What all policies share: how they are put around a function, and how they tell what they do."""

import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar, overload

from everup.tolerate._clock import SYSTEM, Clock

P = ParamSpec("P")
T = TypeVar("T")
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200  # inspect.CO_*: inspect costs 10 ms
_MARKS = frozenset({"_is_coroutine", "_is_coroutine_mark", "_is_coroutine_marker"})
"""What asyncio and versions of inspect set."""


class Event(NamedTuple):
    """Something that a policy did."""

    policy: str
    """Name of the policy."""
    kind: str
    """What: each policy's page lists its own."""
    at: float
    """Monotonic seconds, by the policy's clock."""
    detail: Mapping[str, Any]


Listener = Callable[[Event], None]


class Policy:
    """One way to tolerate faults. Use it as a decorator, or call ``call`` and ``acall``.

    ``name`` says in events and errors which one it is. One object may guard many functions and is
    shared by threads and tasks; what it counts, it counts over all of them.
    """

    def __init__(self, name: str, clock: Clock | None = None) -> None:
        self.name = name
        self.clock = SYSTEM if clock is None else clock
        self._listeners: tuple[Listener, ...] = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    # -- around a function

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, T]]
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, function: Callable[P, T]) -> Callable[P, T]: ...
    def __call__(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """Guard a function; its signature stays. Raises ``TypeError`` for generator functions,
        whose body runs only after the call: guard a function that uses them."""
        around = self.around_async if is_async(function) else self.around
        guarded: Callable[P, Any] = around(function)
        if guarded is function:
            return function
        functools.update_wrapper(guarded, function)
        return guarded

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function guarded, once. Raises ``TypeError`` where its body would not be guarded:
        for ``async def`` (use ``acall``) and for generator functions."""
        if is_async(function):
            raise TypeError(f"{_name(function)} is asynchronous: use acall")
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
        What a listener raises is dropped: telling must not break what is told of."""
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

    def _tell(self, kind: str, **detail: Any) -> None:
        """Callers look at ``self._listeners`` first where speed matters."""
        if not self._listeners:
            return
        event = Event(self.name, kind, self.clock.now(), detail)
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # noqa: S110 - see subscribe
                pass


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: it is an ``async def``, or marked as one, as
    ``inspect.markcoroutinefunction`` does. Raises ``TypeError`` for generator functions."""
    flags = _flags(function)
    if flags & (_GENERATOR | _ASYNC_GENERATOR) and not flags & _COROUTINE:
        raise TypeError(
            f"{_name(function)} is a generator function: its body runs after the call has "
            "returned, so it would not be guarded. Guard a function that goes through it"
        )
    return bool(flags & _COROUTINE)


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", None) or repr(function))


def _flags(function: Any) -> int:
    """Of the code that a call runs, or as marked: through partials, bound methods and callable
    objects."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if not _MARKS.isdisjoint(getattr(function, "__dict__", ())):
        return _COROUTINE
    if not hasattr(function, "__code__") and not isinstance(function, type):
        function = getattr(type(function).__call__, "__func__", type(function).__call__)
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return flags if isinstance(flags, int) else 0
