"""What a callable is: looked up once, when a policy is made or put around it."""

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200  # inspect.CO_*: inspect costs 10 ms
_MARKS = frozenset({"_is_coroutine", "_is_coroutine_mark", "_is_coroutine_marker"})
"""What asyncio and versions of inspect set."""


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: it is an ``async def``, or marked as one, as
    ``inspect.markcoroutinefunction`` does. Raises ``TypeError`` for what cannot be called, and for
    generator functions."""
    if not callable(function):
        raise TypeError(f"{function!r} is no function: a policy guards what can be called")
    flags = _flags(function)
    if flags & (_GENERATOR | _ASYNC_GENERATOR) and not flags & _COROUTINE:
        raise TypeError(
            f"{name_of(function)} is a generator function: its body runs after the call has "
            "returned, so it would not be guarded. Guard a function that goes through it"
        )
    return bool(flags & _COROUTINE)


def plain(option: str, function: object) -> None:
    """Refuse with ``TypeError`` what an option cannot call: what is no function, and one whose body
    a call does not run. What such a call gives counts as true, whatever the body would have said.
    None is no function given, and right."""
    if function is None:
        return
    if not callable(function):
        raise TypeError(f"{option} must be a function, not {function!r}")
    flags = _flags(function)
    if flags & (_COROUTINE | _GENERATOR | _ASYNC_GENERATOR):
        kind = "asynchronous" if flags & _COROUTINE else "a generator function"
        raise TypeError(
            f"{option} must be a plain function, and {name_of(function)} is {kind}: it is called "
            "without await, so its body would never run. Give a plain `def`"
        )


def is_function(thing: object) -> bool:
    """Whether it was made by ``def`` or ``lambda``, or is a method of that kind."""
    return hasattr(thing, "__code__") or hasattr(getattr(thing, "__func__", None), "__code__")


def name_of(function: object) -> str:
    """What to call it in a message."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or getattr(function, "guards", None)
    return str(name or repr(function))


def hearing(call: Callable[P, T], heard: Callable[[Exception], object]) -> Callable[P, T]:
    """The same, and somebody hears what it raises."""

    def listened(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except Exception as error:
            heard(error)
            raise

    listened.__qualname__ = name_of(call)
    return listened


def hearing_async(
    call: Callable[P, Awaitable[T]], heard: Callable[[Exception], object]
) -> Callable[P, Coroutine[Any, Any, T]]:
    """``hearing`` of an asynchronous function."""

    async def listened(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await call(*args, **kwargs)
        except Exception as error:
            heard(error)
            raise

    listened.__qualname__ = name_of(call)
    return listened


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
