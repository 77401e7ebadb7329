"""Draining: the end of the last connection of a process that gets no new ones."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from everup.adapters import connections, metrics
from everup.adapters.cgroups import Cgroups
from everup.adapters.sockets import SocketBank
from everup.daemon.crew import Crew
from everup.engine.core import Engine
from everup.model.event import Drained, Event
from everup.model.instance import Slot, State
from everup.model.spec import Service

_EVERY_S = 0.1
_SHARE = 10
"""A look costs at most one part in so many of a core."""
_QUIET = 3
"""So many looks in a row without a connection. A client far away may have begun its handshake
before the balance changed, and gets into the old queue only with its end."""
Start = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Drains:
    """``dispatch`` takes the events; ``start`` runs a coroutine until the engine process ends."""

    def __init__(
        self,
        engine: Engine,
        bank: SocketBank,
        cgroups: Cgroups,
        crew: Crew,
        dispatch: Callable[[Event], None],
        start: Start,
    ) -> None:
        self._engine = engine
        self._bank = bank
        self._cgroups = cgroups
        self._crew = crew
        self._dispatch = dispatch
        self._start = start
        self._tasks: dict[tuple[Slot, int], asyncio.Task[None]] = {}

    def watch(self, slot: Slot, run: int) -> None:
        """Report once no connection is open, nor waits to be accepted."""
        self._tasks[slot, run] = self._start(self._watch(slot, run))

    async def _watch(self, slot: Slot, run: int) -> None:
        quiet, took_s = 0, 0.0
        try:
            while quiet < _QUIET:
                await asyncio.sleep(max(_EVERY_S, _SHARE * took_s))
                instance = self._engine.process(slot, run)
                if instance is None or instance.state is not State.DRAINING:
                    return
                service = self._engine.definition(instance)
                # First the queue: what is accepted in between is an open connection then.
                if self._bank.waiting(service, instance.lane or slot.replica):
                    quiet = 0
                    continue
                pids = self._cgroups.pids(slot, self._crew.second(slot, run)) or [instance.pid]
                try:
                    count, took_s = await asyncio.to_thread(self._open, service, pids)
                except OSError:  # nobody knows: until its time is up
                    continue
                quiet = 0 if count else quiet + 1
            self._dispatch(Drained(slot, run))
        finally:
            self._tasks.pop((slot, run), None)

    def _open(self, service: Service, pids: list[int]) -> tuple[int, float]:
        """The number, and the CPU time that it took to count them."""
        began_s = time.thread_time()
        count = self._bank.busy(service, pids)
        if not count:
            try:
                count = connections.open_connections(pids)
            except OSError:  # a kernel that does not tell: all sockets are gone through
                count = metrics.open_connections(pids)
        return count, time.thread_time() - began_s
