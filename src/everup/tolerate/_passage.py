"""The way of a call through a breaker: its closures, apart from the states that it goes through."""

from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from typing import Any, ParamSpec, TypeVar

from everup.tolerate._base import Policy
from everup.tolerate._outcome import Judge
from everup.tolerate._permit import Permit
from everup.tolerate._windows import Consecutive, Phase, TimeWindow, Trip, Window
from everup.tolerate.errors import BreakerOpen

P = ParamSpec("P")
T = TypeVar("T")


class Passage(Policy):
    """The half of ``Breaker`` that is around a function."""

    _trip: Trip
    _judge: Judge
    _slow_s: float
    _phase: Phase

    def _admit(self, call: object) -> Permit:
        """Let one call through, or raise."""
        raise NotImplementedError

    def _rejection(self, phase: Phase, now: float, call: object) -> BreakerOpen:
        """Of an open or (for ever) isolated phase."""
        raise NotImplementedError

    def _raised(
        self, phase: Phase, window: Window, started: float, error: Exception, call: object
    ) -> None:
        """A call of a closed phase raised."""
        raise NotImplementedError

    def _count(
        self,
        phase: Phase,
        window: Window,
        at: float,
        failed: bool,
        slow: bool,
        error: BaseException | None = None,
        call: object = None,
    ) -> None:
        """A call of a closed phase has ended."""
        raise NotImplementedError

    # Alike but for ``await``. The clock is read only where it matters.

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        """The closure for a synchronous call."""
        now, result, slow_s = self.clock.now, self._judge.result, self._slow_s
        timed = slow_s < inf
        clocked = timed or isinstance(self._trip, TimeWindow)

        if not timed and result is None and isinstance(self._trip, Consecutive):

            def plain(*args: P.args, **kwargs: P.kwargs) -> T:
                # As below, less what is decided.
                phase = self._phase
                window = phase.window
                if window is None:
                    if phase.until > (at := now()) and not self._off:
                        raise self._rejection(phase, at, call)
                    return self._not_closed(call, args, kwargs)
                try:
                    value = call(*args, **kwargs)
                except Exception as error:  # all else is neutral
                    self._raised(phase, window, 0.0, error, call)
                    raise
                if window.ends < 0.0:
                    self._count(phase, window, now(), False, False)
                return value

            return plain

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            phase = self._phase
            window = phase.window
            if window is None:
                if phase.until > (at := now()) and not self._off:
                    raise self._rejection(phase, at, call)
                return self._not_closed(call, args, kwargs)
            started = now() if timed else 0.0
            try:
                value = call(*args, **kwargs)
            except Exception as error:  # all else is neutral
                self._raised(phase, window, started, error, call)
                raise
            at = now() if clocked else 0.0
            failed = result is not None and bool(result(value))
            slow = at - started >= slow_s
            if failed or slow or at >= window.ends:
                self._count(phase, window, at if clocked else now(), failed, slow, None, call)
            elif (hit := window.hit) is not None:
                hit()
            return value

        return guarded

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """The closure for an asynchronous call."""
        now, result, slow_s = self.clock.now, self._judge.result, self._slow_s
        timed = slow_s < inf
        clocked = timed or isinstance(self._trip, TimeWindow)

        if not timed and result is None and isinstance(self._trip, Consecutive):

            async def plain(*args: P.args, **kwargs: P.kwargs) -> T:
                # As below, less what is decided.
                phase = self._phase
                window = phase.window
                if window is None:
                    if phase.until > (at := now()) and not self._off:
                        raise self._rejection(phase, at, call)
                    return await self._not_closed_async(call, args, kwargs)
                try:
                    value = await call(*args, **kwargs)
                except Exception as error:  # all else is neutral
                    self._raised(phase, window, 0.0, error, call)
                    raise
                if window.ends < 0.0:
                    self._count(phase, window, now(), False, False)
                return value

            return plain

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            phase = self._phase
            window = phase.window
            if window is None:
                if phase.until > (at := now()) and not self._off:
                    raise self._rejection(phase, at, call)
                return await self._not_closed_async(call, args, kwargs)
            started = now() if timed else 0.0
            try:
                value = await call(*args, **kwargs)
            except Exception as error:  # all else is neutral
                self._raised(phase, window, started, error, call)
                raise
            at = now() if clocked else 0.0
            failed = result is not None and bool(result(value))
            slow = at - started >= slow_s
            if failed or slow or at >= window.ends:
                self._count(phase, window, at if clocked else now(), failed, slow, None, call)
            elif (hit := window.hit) is not None:
                hit()
            return value

        return guarded

    def _not_closed(self, call: Callable[..., T], args: Any, kwargs: Any) -> T:
        if self._off:
            return call(*args, **kwargs)
        permit = self._admit(call)
        try:
            value = call(*args, **kwargs)
        except BaseException as error:
            permit._raised(error)
            raise
        permit._returned(value)
        return value

    async def _not_closed_async(
        self, call: Callable[..., Awaitable[T]], args: Any, kwargs: Any
    ) -> T:
        if self._off:
            return await call(*args, **kwargs)
        permit = self._admit(call)
        try:
            value = await call(*args, **kwargs)
        except BaseException as error:
            permit._raised(error)
            raise
        permit._returned(value)
        return value
