"""What has to be read before a process can be started, without anybody else waiting for it.

An environment file may lie on a mount that is gone, and a user's entry come from a directory
service that does not answer: then that start fails, in words, and no other is late.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from everup.adapters import aside, launch
from everup.adapters.launch import LaunchError
from everup.model.spec import Service

Request = dict[str, Any]
WAIT_S = 5.0
_CANCELLED = "stopped before it was started"


class Preparing:
    """Requests to the keeper that are being made. ``start`` runs a coroutine."""

    def __init__(self, start: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._start = start
        self._waiting: dict[str, Callable[[str], None]] = {}

    def make(
        self,
        key: str,
        service: Service,
        make: Callable[[], Request],
        go: Callable[[Request], None],
        failed: Callable[[str], None],
    ) -> None:
        """Call ``go`` with what ``make`` gives, or ``failed`` with the reason: at once if nothing
        has to be read for it."""
        if launch.reads(service):
            self._waiting[key] = failed
            self._start(self._aside(key, make, go, failed))
            return
        try:
            request = make()
        except (LaunchError, OSError) as error:
            failed(words(error))
        else:
            go(request)

    async def _aside(
        self,
        key: str,
        make: Callable[[], Request],
        go: Callable[[Request], None],
        failed: Callable[[str], None],
    ) -> None:
        try:
            request = await aside.run(WAIT_S, make)
        except (LaunchError, OSError) as error:
            if self._waiting.pop(key, None) is not None:
                failed(words(error))
        else:
            if self._waiting.pop(key, None) is not None:
                go(request)

    def cancel(self, prefix: str) -> None:
        """They are not to be started any more; whoever waits for them is told."""
        for key in [key for key in self._waiting if key.startswith(prefix)]:
            asyncio.get_running_loop().call_soon(self._waiting.pop(key), _CANCELLED)


async def ready(service: Service, make: Callable[[], Request]) -> Request:
    """The same for who can wait. Raises ``LaunchError``, ``OSError``."""
    return await aside.run(WAIT_S, make) if launch.reads(service) else make()


def words(error: LaunchError | OSError) -> str:
    """Why it cannot be started."""
    if isinstance(error, aside.LateError):
        return f"its environment file or user cannot be looked up: {error}"
    return str(error) if isinstance(error, LaunchError) else error.strerror or str(error)
