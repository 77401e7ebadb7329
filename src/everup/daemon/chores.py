"""What the engine does now and then, whatever happens: samples, the journal's upkeep, memory."""

import asyncio
import time
from typing import TYPE_CHECKING

from everup.adapters import aside
from everup.daemon import memory
from everup.model.event import Remembered
from everup.model.journal import Kind

if TYPE_CHECKING:
    from everup.daemon.runtime import Runtime

_EVERY_S = 5.0
_LOOK_S = 10.0
_PRUNE_EVERY_S = 600.0
_SIGN_EVERY_S = 600.0
_REMEMBER_S = 3 * 86400.0


class Chores:
    """Of one engine."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime

    async def run(self) -> None:
        """Until the engine ends."""
        runtime, journal = self._runtime, self._runtime.journal
        sampled, pruned = -1e9, time.monotonic()
        written, quiet_since = journal.last_seq, pruned
        while True:
            now, settings = time.monotonic(), runtime.engine.spec.everup
            try:
                if now - sampled >= settings.metrics_interval:
                    sampled = now
                    runtime.sample()
                if now - pruned >= _PRUNE_EVERY_S:
                    pruned = now
                    runtime.spawn_task(self._prune(settings.journal_retention))
                if journal.last_seq != written:
                    written, quiet_since = journal.last_seq, now
                elif now - quiet_since >= _SIGN_EVERY_S:
                    runtime.record(Kind.ENGINE_ALIVE, "everup", durable=True)
                journal.retry()
            except Exception as error:
                runtime.voice.say(f"housekeeping: {type(error).__name__}: {error}")
            await asyncio.sleep(min(_EVERY_S, settings.metrics_interval))

    async def _prune(self, retention_s: float) -> None:
        """Delete what is too old, once it is counted."""
        runtime = self._runtime
        try:
            if await aside.run(_LOOK_S, memory.is_due, runtime.place, retention_s):
                await memory.keep(runtime.place)
        except (OSError, TimeoutError) as error:
            runtime.voice.say(f"housekeeping: {error or 'the history took too long'}")
        runtime.journal.prune(retention_s)

    async def remember(self) -> None:
        """Tell the engine what was before it, as far as objectives go by it."""
        runtime = self._runtime
        names = [name for name, service in runtime.engine.services.items() if service.slo]
        if not names:
            return
        try:
            runtime.dispatch(await memory.remember(runtime.place, names, _REMEMBER_S))
        except (OSError, TimeoutError, ValueError) as error:
            runtime.voice.say(f"error budgets start anew: {error or 'the history took too long'}")
            runtime.dispatch(Remembered(()))
