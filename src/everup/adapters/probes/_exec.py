"""One probe that runs a command."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from everup.adapters.probes._base import Attempt, Owner
from everup.adapters.probes._plan import Plan
from everup.adapters.probes._words import one_line
from everup.model.signal import ProbeTarget

_LATE_S: Final = 0.02
_EXTENSION_S: Final = 0.05

RunExec = Callable[[ProbeTarget], Awaitable[tuple[bool | None, str]]]
"""Whether it succeeded, None: the command itself does not know; and the detail."""


class ExecAttempt(Attempt):
    """Awaits ``run_exec`` up to the timeout, then cancels it."""

    __slots__ = ("_extended", "_over", "_run_exec", "_task")

    def __init__(
        self,
        owner: Owner,
        plan: Plan,
        started_s: float,
        lateness_s: float,
        run_exec: RunExec,
    ) -> None:
        super().__init__(owner, plan, started_s, lateness_s)
        self._run_exec = run_exec
        self._task: asyncio.Future[tuple[bool | None, str]] | None = None
        self._extended = False
        self._over = False
        """A verdict is out or no longer wanted."""

    def begin(self) -> None:
        task = asyncio.ensure_future(self._run_exec(self.plan.target))
        self._task = task
        task.add_done_callback(self._on_done)

    def on_timer(self, now_s: float) -> None:
        self.wake_s = float("inf")
        task = self._task
        if self._over or task is None or task.done():
            return
        if now_s - self.deadline_s > _LATE_S and not self._extended:
            # The loop was held up. The command may have ended in time; the word of it needs some
            # turns of the loop to get here.
            self._extended = True
            self.wake_s = now_s + _EXTENSION_S
            return
        self._over = self.lingers = True
        task.cancel()
        self.owner.finished(self, False, f"still running after {self.plan.timeout_words}, killed")

    def cancel(self) -> bool:
        task, cancelled = self._task, self._over
        self._over = True
        if task is None or task.done():
            return True
        if not cancelled:  # a second time would cut off the killing of the command
            task.cancel()
        return False

    def _on_done(self, task: asyncio.Future[tuple[bool | None, str]]) -> None:
        # Asking for the exception keeps asyncio from logging it as never retrieved.
        error = None if task.cancelled() else task.exception()
        if self._over:
            self.owner.ended(self)
            return
        self._over = True
        if task.cancelled():
            self.owner.finished(self, False, "cancelled")
        elif error is not None:
            words = str(error) or type(error).__name__
            self.owner.finished(self, False, one_line(f"cannot be run: {words}"))
        else:
            ok, detail = task.result()
            if ok is None:
                self.could_not_ask()
            self.owner.finished(self, ok is True, one_line(detail))
