"""How late the engine's loop is, and the sign of life that the keeper waits for."""

import asyncio
import sys
from collections.abc import Callable

from everup.adapters.pressure import cpu_pressure
from everup.model.event import Lag

_EVERY_S = 0.5
_ALIVE_EVERY = 2
"""Measurements of the lag between two signs of life to the keeper."""


class Heartbeat:
    """Of one engine. ``alive`` tells the keeper."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        dispatch: Callable[[Lag], None],
        alive: Callable[[], None],
    ) -> None:
        self._loop, self._dispatch, self._alive = loop, dispatch, alive
        self._due = loop.time() + _EVERY_S
        self._turn = 0
        loop.call_at(self._due, self._beat)

    def _beat(self) -> None:
        now = self._loop.time()
        self._dispatch(Lag(max(0.0, now - self._due), cpu_pressure()))
        self._due = now + _EVERY_S
        self._loop.call_at(self._due, self._beat)
        sys.stderr.flush()  # what could not be said before; it never waits, see ``never_wait``
        sys.stdout.flush()
        self._turn += 1
        if self._turn % _ALIVE_EVERY == 0:
            self._alive()
