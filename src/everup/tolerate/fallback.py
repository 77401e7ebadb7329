"""Something else instead of a failure."""

from collections.abc import Awaitable, Callable, Coroutine, Hashable
from threading import RLock
from typing import Any, Final, ParamSpec, TypeVar

from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._forks import on_fork, renew
from everup.tolerate._functions import is_async, is_function, name_of, plain
from everup.tolerate._options import Seconds, seconds, whole
from everup.tolerate._outcome import Errors, Judge, Outcome
from everup.tolerate.errors import Rejected

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["Fallback"]


class _Nothing:
    __slots__ = ()

    def __repr__(self) -> str:
        return "NOTHING"


_NOTHING: Final = _Nothing()


class Fallback(Policy):
    """Gives something else where a call fails: the last good value, what a function gives, or a
    value, in this order; if it has none of them for this call, the failure itself.

    ``value``: given as it is, the same object each time. ``function``: called with what went wrong
    (the exception, or the value that ``result`` called a failure) and then the arguments of the
    call; it may be an ``async def`` where it guards one. One of the two, or neither.

    ``last_good_s``: the last value of a call that succeeded with the same ``key`` is given while
    it is not older than so many seconds, > 0; default None: none is kept. ``key`` makes of the
    arguments of a call what tells its answers apart, hashable; default: the arguments themselves
    (``TypeError`` before the call where they are not hashable). ``keys``: for so many the value is
    kept, >= 1, default 1000; the one not renewed for longest goes first. Functions do not share
    values.

    ``on``, ``unless``, ``when``, ``result``: which outcomes are failures, see ``Judge``. Default:
    every ``Exception``, and ``Rejected``, too. Cancellation and the like are never replaced.

    What the function raises comes out, with the original error as its ``__context__``.

    Events: ``fell_back`` (source: ``"last_good"``, ``"function"`` or ``"value"``; error: the
    exception or None; age_s of a last good value, else None).
    """

    def __init__(
        self,
        value: Any = _NOTHING,
        function: Callable[..., Any] | None = None,
        *,
        last_good_s: Seconds | None = None,
        key: Callable[..., Hashable] | None = None,
        keys: int = 1000,
        on: Errors = (Exception, Rejected),
        unless: Errors = (),
        when: Callable[[Exception], bool] | None = None,
        result: Callable[[Any], bool] | None = None,
        name: str = "fallback",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock)
        if value is not _NOTHING and function is not None:
            raise ValueError("give value or function, not both")
        if value is _NOTHING and function is None and last_good_s is None:
            raise ValueError("give value, function or last_good_s")
        if last_good_s is not None:
            last_good_s = seconds("last_good_s", last_good_s, above=True)
        whole("keys", keys)
        plain("key", key)
        if function is not None and not callable(function):
            raise TypeError(f"function must be a function, not {function!r}")
        if is_function(value):
            raise TypeError(
                f"value is the function {name_of(value)}, which would be given as it is: a "
                "function to call is function=..., and a decorator is made first, @Fallback(...)"
            )
        self.value = value
        self.function = function
        self.last_good_s: float | None = last_good_s
        self.key = key
        self.keys = keys
        self.judge = Judge(on, unless, when, result)
        self._looks = function is not None or last_good_s is not None
        self._awaits = function is not None and is_async(function)
        # Never held across the user's call. Reentrant: a collection that starts while it is held
        # may close a coroutine that was thrown away, which then gives back what it had.
        self._lock = RLock()
        on_fork(self)
        self._good: dict[Hashable, tuple[float, Any]] = {}

    def forked(self) -> None:
        """In the child of a fork: no other thread holds the lock."""
        renew(self._lock)

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        if self._awaits:
            raise TypeError(f"{self.name}: its function is async, what it would guard is not")
        bad, keeps = self.judge.result, self.last_good_s is not None

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            key = self._key(call, args, kwargs) if keeps else None
            try:
                got = call(*args, **kwargs)
            except Exception as error:
                if self._off or self.judge.error(error) is not Outcome.FAILED:
                    raise
                found = self._found(key, error, call)
                if found is not _NOTHING:
                    return found  # type: ignore[no-any-return]
                if self.function is None:
                    raise
                return self.function(error, *args, **kwargs)  # type: ignore[no-any-return]
            if bad is not None and bad(got):
                if self._off:
                    return got
                found = self._found(key, None, call)
                if found is not _NOTHING:
                    return found  # type: ignore[no-any-return]
                return got if self.function is None else self.function(got, *args, **kwargs)
            if keeps:
                self._keep(key, got)
            return got

        return guarded

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        bad, keeps = self.judge.result, self.last_good_s is not None

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            key = self._key(call, args, kwargs) if keeps else None
            try:
                got = await call(*args, **kwargs)
            except Exception as error:
                if self._off or self.judge.error(error) is not Outcome.FAILED:
                    raise
                found = self._found(key, error, call)
                if found is not _NOTHING:
                    return found  # type: ignore[no-any-return]
                if self.function is None:
                    raise
                other = self.function(error, *args, **kwargs)
                return await other if self._awaits else other  # type: ignore[no-any-return]
            if bad is not None and bad(got):
                if self._off:
                    return got
                found = self._found(key, None, call)
                if found is not _NOTHING:
                    return found  # type: ignore[no-any-return]
                if self.function is None:
                    return got
                other = self.function(got, *args, **kwargs)
                return await other if self._awaits else other  # type: ignore[no-any-return]
            if keeps:
                self._keep(key, got)
            return got

        return guarded

    def _key(self, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        if self.key is not None:
            key = self.key(*args, **kwargs)
        else:
            key = (args, tuple(sorted(kwargs.items()))) if kwargs else args
        try:
            hash(key)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}, so it tells no calls apart: give key") from None
        return call, key

    def _keep(self, key: Hashable, value: Any) -> None:
        now = self.clock.now()
        with self._lock:
            self._good.pop(key, None)  # to the end: the order is that of age
            self._good[key] = now, value
            if len(self._good) > self.keys:
                del self._good[next(iter(self._good))]

    def _found(self, key: Hashable, error: Exception | None, call: object) -> Any:
        """What there is without calling anything, told; also tells that ``function`` will be."""
        if self.last_good_s is not None:
            good = self._good.get(key)
            if good is not None:
                age_s = self.clock.now() - good[0]
                if age_s <= self.last_good_s:
                    self._fell("last_good", error, age_s, call)
                    return good[1]
        if self.function is not None:
            self._fell("function", error, None, call)
        elif self.value is not _NOTHING:
            self._fell("value", error, None, call)
        return self.value

    def _fell(
        self, source: str, error: Exception | None, age_s: float | None, call: object
    ) -> None:
        if self._listeners:
            self._tell("fell_back", call, source=source, error=error, age_s=age_s)
