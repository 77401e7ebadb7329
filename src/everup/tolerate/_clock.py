"""Time, waiting and chance, all in one place so that tests can replace them."""

import time
from collections.abc import Awaitable, Callable
from random import random as _random

from everup.tolerate._functions import plain
from everup.tolerate._loops import running_trio

skipping = 0
"""So many tests want that nobody waits: ``testing.no_waits``. Looked at where somebody would."""


def system_sleep(seconds: float) -> None:
    """Wait in a thread."""
    if not skipping:
        time.sleep(seconds)


async def _asleep(seconds: float) -> None:
    seconds = 0.0 if skipping else seconds
    trio = running_trio()
    if trio is not None:
        await trio.sleep(seconds)
        return
    import asyncio  # only where something asynchronous is guarded: it costs more than all of this

    await asyncio.sleep(seconds)


class Clock:
    """What policies know of time. All of it can be replaced, most simply by
    ``everup.tolerate.testing.FakeClock``.

    ``now``: seconds, monotonic. ``sleep`` and ``asleep`` wait so many seconds. ``random`` gives
    numbers in [0, 1).
    """

    __slots__ = ("asleep", "now", "random", "sleep")

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = system_sleep,
        asleep: Callable[[float], Awaitable[None]] = _asleep,
        random: Callable[[], float] = _random,
    ) -> None:
        for option, function in (("now", now), ("sleep", sleep), ("random", random)):
            plain(option, function)
        self.now = now
        self.sleep = sleep
        self.asleep = asleep
        self.random = random


SYSTEM = Clock()
"""The real one."""
