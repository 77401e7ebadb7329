"""Faults on purpose: errors, latency and results, at a rate, to see what the rest makes of them.

The four strategies of Polly 8 (Simmy) in one policy: fault, latency, outcome, and any behaviour by
way of a factory. What is added: a limit, so that a forgotten switch cannot do harm for ever.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from threading import RLock
from typing import Any, Final, ParamSpec, TypeVar

from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._forks import on_fork, renew
from everup.tolerate._functions import plain
from everup.tolerate._options import Seconds, real, seconds, whole
from everup.tolerate.errors import ChaosError

P = ParamSpec("P")
T = TypeVar("T")
Maker = Callable[[], BaseException | None]
"""An exception class, or a function that makes an exception."""
_NOTHING: Final = object()


class Chaos(Policy):
    """Puts faults in the way of calls. Innermost in a pipeline: the other policies then take it
    for the dependency.

    ``enabled``: False (default): calls pass untouched; True; or a function asked at each call. It
    can be set at any time. Nothing else switches it on: no variable of the environment is read.

    For each call, in this order, with chances that are independent:

    - ``latency_rate``: at this rate wait ``latency_s`` first: seconds, or a range (low, high) from
      which each is drawn evenly (0 or more, default 1).
    - ``error_rate``: at this rate raise an error instead of calling. ``errors``: exception classes
      (made with one argument, a text) and functions that make an exception, or None for none this
      time; one or several, each as likely as the others. Default ``ChaosError``.
    - ``result_rate``: at this rate give what ``result()`` gives instead of calling.

    Rates are from 0 (default: never) to 1 (always). ``limit``: at most so many injections (1 or
    more, default 100) within ``window_s`` seconds (above 0, default 60; None: in all). A window
    begins with its first injection. Beyond it calls pass untouched.

    Cancelled while it waits, a call is not made. What ``enabled``, ``errors`` or ``result`` raise
    comes out.

    Events: ``injected`` (``what``: ``latency``, ``error`` or ``result``; with ``delay_s`` or
    ``error``), ``limited`` (``limit``, ``window_s``; once per window). Raises ``ValueError`` for
    options out of range and ``TypeError`` for what is neither exception class nor function: an
    exception object raised again and again would gather tracebacks.
    """

    _looks = False

    def __init__(
        self,
        *,
        enabled: bool | Callable[[], bool] = False,
        error_rate: float = 0.0,
        errors: Maker | Sequence[Maker] = ChaosError,
        latency_rate: float = 0.0,
        latency_s: Seconds | tuple[Seconds, Seconds] = 1.0,
        result_rate: float = 0.0,
        result: Callable[[], Any] | None = None,
        limit: int = 100,
        window_s: Seconds | None = 60.0,
        name: str = "chaos",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock)
        rates = {"error_rate": error_rate, "latency_rate": latency_rate, "result_rate": result_rate}
        for what, rate in rates.items():
            real(what, rate, 0, 1)
        low, high = latency_s if isinstance(latency_s, tuple) else (latency_s, latency_s)
        low, high = seconds("latency_s", low), seconds("latency_s", high)
        if high < low:
            raise ValueError(f"latency_s must be (low, high), not {latency_s!r}")
        if result_rate and result is None:
            raise ValueError("result_rate needs result, a function that gives it")
        whole("limit", limit)
        if window_s is not None:
            window_s = seconds("window_s", window_s, above=True)
        several = errors if isinstance(errors, Sequence) else (errors,)
        self._makers = tuple(_maker(one, name) for one in several)
        if error_rate and not self._makers:
            raise ValueError("error_rate needs errors")
        plain("result", result)
        self.enabled = enabled
        self._error_rate, self._latency_rate, self._result_rate = rates.values()
        self._latency_low_s, self._latency_high_s = low, high
        self._result = result
        self.limit = limit
        self.window_s: float | None = window_s
        # Taken for injections alone. Twice by one thread: a signal handler may come in the middle.
        self._lock = RLock()
        on_fork(self)
        self._injected = 0
        self._left = limit
        self._told = False
        self._ends_at: float | None = None
        """When the window does; None: none has begun."""

    @property
    def enabled(self) -> bool | Callable[[], bool]:
        """As it was set."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool | Callable[[], bool]) -> None:
        if callable(enabled):
            plain("enabled", enabled)
        self._enabled = enabled

    @property
    def injected(self) -> int:
        """Injections so far, of all kinds."""
        return self._injected

    # -- around a function: alike but for the waiting

    def forked(self) -> None:
        """In the child of a fork: no other thread holds the lock."""
        renew(self._lock)

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        """The closure for a synchronous call."""

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            if not self._enabled or self._off or not (self._enabled is True or self._enabled()):
                return call(*args, **kwargs)
            if self._latency_rate and (delay_s := self._delay(call)):
                self.clock.sleep(delay_s)
            if (instead := self._instead(call)) is not _NOTHING:
                return instead  # type: ignore[no-any-return]
            return call(*args, **kwargs)

        return guarded

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """The closure for an asynchronous call."""

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            if not self._enabled or self._off or not (self._enabled is True or self._enabled()):
                return await call(*args, **kwargs)
            if self._latency_rate and (delay_s := self._delay(call)):
                await self.clock.asleep(delay_s)
            if (instead := self._instead(call)) is not _NOTHING:
                return instead  # type: ignore[no-any-return]
            return await call(*args, **kwargs)

        return guarded

    # -- what is injected

    def _delay(self, call: object) -> float:
        """Seconds to wait; 0: none this time."""
        random = self.clock.random
        if random() >= self._latency_rate:
            return 0.0
        low, high = self._latency_low_s, self._latency_high_s
        delay_s = low if low == high else low + (high - low) * random()
        if delay_s <= 0 or not self._take(call):
            return 0.0
        self._tell("injected", call, what="latency", delay_s=delay_s)
        return delay_s

    def _instead(self, call: object) -> Any:
        """What comes in place of the call, raised or given; ``_NOTHING``: the call."""
        random, makers = self.clock.random, self._makers
        if self._error_rate and random() < self._error_rate:
            maker = makers[0] if len(makers) == 1 else makers[int(random() * len(makers))]
            error = maker()
            if error is not None and self._take(call):
                self._tell("injected", call, what="error", error=error)
                raise error
        if self._result is not None and random() < self._result_rate and self._take(call):
            self._tell("injected", call, what="result")
            return self._result()
        return _NOTHING

    def _take(self, call: object) -> bool:
        """One injection of those that the limit leaves."""
        now = self.clock.now()
        with self._lock:
            if self._ends_at is None or now >= self._ends_at:
                self._ends_at = float("inf") if self.window_s is None else now + self.window_s
                self._left, self._told = self.limit, False
            if self._left:
                self._left -= 1
                self._injected += 1
                return True
            told, self._told = self._told, True
        if not told:
            self._tell("limited", call, limit=self.limit, window_s=self.window_s)
        return False


def _maker(what: Maker, name: str) -> Maker:
    if isinstance(what, type):
        if not issubclass(what, BaseException):
            raise TypeError(f"{what!r} is no exception class")
        kind: Callable[[str], BaseException] = what
        text = f"injected by {name}"
        kind(text)  # one that takes other arguments is refused here, not in the middle of a drill
        return lambda: kind(text)
    if not callable(what):
        raise TypeError(f"{what!r} is neither an exception class nor a function that makes one")
    plain("errors", what)
    return what
