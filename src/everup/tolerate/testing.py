"""For the tests of those who use these policies: time that a test moves, chance that it sets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from everup.tolerate._base import Event
from everup.tolerate._clock import Clock
from everup.tolerate._options import Seconds, as_seconds

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


@contextmanager
def no_waits() -> Iterator[None]:
    """Within it nobody waits on the system's clock, neither a ``Retry`` for its backoff nor a
    thread for its place in a ``RateLimit``: for tests of modules whose policies were made when
    they were imported. Time passes as it does; who waits for others, in a ``Bulkhead``, still does.
    """
    from everup.tolerate import _clock

    _clock.skipping += 1
    try:
        yield
    finally:
        _clock.skipping -= 1


class FakeClock(Clock):
    """A clock that stands still until somebody waits on it.

    ``random``: numbers in [0, 1) to give out in turn, over and over; default 0.5. An iterator may
    be endless: it is read as it goes, and not repeated (``RuntimeError`` at its end). ``seed``,
    instead: the numbers of ``random.Random(seed)``. ``slept`` is what was waited for so far. Raises
    ``ValueError`` for both, or for no numbers at all.
    """

    __slots__ = ("slept", "time")

    def __init__(
        self,
        start: float = 1000.0,
        random: Iterable[float] | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        self.time = start
        self.slept: list[float] = []
        super().__init__(self._now, self._wait, self._await, _source(random, seed))

    def advance(self, seconds: Seconds) -> None:
        """Let time pass."""
        self.time += as_seconds(seconds)

    def _now(self) -> float:
        return self.time

    def _wait(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += max(0.0, seconds)

    async def _await(self, seconds: float) -> None:
        import asyncio

        self.slept.append(seconds)
        await asyncio.sleep(seconds)  # the loop of ``run`` makes time pass

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on an event loop whose time is this clock's: it passes whenever every
        task waits. Raises ``RuntimeError`` when all wait for ever."""
        import asyncio

        loop = _loop(self)
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                return runner.run(main)
        finally:
            loop.close()


def _source(numbers: Iterable[float] | None, seed: int | None) -> Callable[[], float]:
    if seed is not None:
        if numbers is not None:
            raise ValueError("give random or seed, not both")
        return Random(seed).random  # noqa: S311 - for tests
    left = iter((0.5,) if numbers is None else numbers)
    if left is not numbers:
        numbers = tuple(left)
        if not numbers:
            raise ValueError("random has no numbers")
        left = itertools.cycle(numbers)

    def random() -> float:
        for number in left:
            return number
        raise RuntimeError("the random numbers are used up")

    return random


def _loop(clock: FakeClock) -> asyncio.AbstractEventLoop:
    import asyncio
    import selectors

    class Selector(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> Any:
            ready = super().select(0)
            if ready:
                return ready
            if timeout is None:
                # Another thread may still have something to say (run_in_executor).
                ready = super().select(5.0)
                if not ready:
                    raise RuntimeError("every task waits for ever")
                return ready
            if timeout > 0:
                clock.time += timeout
            return ready

    class Loop(asyncio.SelectorEventLoop):
        def time(self) -> float:
            return clock.time

    return Loop(Selector())


class Recorder:
    """Collects the events of policies: ``Recorder(retry, breaker)``."""

    def __init__(self, *policies: Any) -> None:
        self.events: list[Event] = []
        self._ends: list[Callable[[], None]] = [p.subscribe(self.events.append) for p in policies]

    @property
    def kinds(self) -> list[str]:
        """What happened, in order."""
        return [event.kind for event in self.events]

    def stop(self) -> None:
        """Listen no longer."""
        while self._ends:
            self._ends.pop()()
