"""Names to addresses, off the loop and remembered for some seconds."""

import asyncio
import socket
from typing import Any, Final, Protocol

Address = tuple[str, int] | tuple[str, int, int, int]
Found = list[tuple[int, Address]]

TTL_S: Final = 10.0
TTL_FAILED_S: Final = 1.0
_ENTRIES: Final = 1024
_ADDRESSES: Final = 8


class Waiter(Protocol):
    """Who asked for a name."""

    def on_resolved(self, found: Found | str) -> None:
        """The addresses, at least one, or why there are none."""


class Resolver:
    """``getaddrinfo`` in the loop's executor; one look-up at a time per name."""

    __slots__ = ("_cache", "_loop", "_tasks", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._cache: dict[tuple[str, int], tuple[float, Found | str]] = {}
        self._waiting: dict[tuple[str, int], set[Waiter]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def lookup(self, name: tuple[str, int], waiter: Waiter) -> Found | str | None:
        """What is known of the name; None: the waiter will be called."""
        cached = self._cache.get(name)
        if cached is not None and self._loop.time() < cached[0]:
            return cached[1]
        waiting = self._waiting.get(name)
        if waiting is not None:
            waiting.add(waiter)
        else:
            self._waiting[name] = {waiter}
            task = self._loop.create_task(self._resolve(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return None

    def give_up(self, name: tuple[str, int], waiter: Waiter) -> None:
        """The waiter no longer wants to be called; the look-up itself goes on."""
        self._waiting.get(name, set()).discard(waiter)

    def close(self) -> None:
        """Calls nobody any more."""
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()

    async def _resolve(self, name: tuple[str, int]) -> None:
        found: Found | str
        try:
            rows = await self._loop.getaddrinfo(*name, type=socket.SOCK_STREAM)
            found = [row for row in map(_address, rows[:_ADDRESSES]) if row] or "no address"
        except OSError as error:
            found = error.strerror or str(error)
        except UnicodeError as error:
            found = str(error)
        ttl_s = TTL_FAILED_S if isinstance(found, str) else TTL_S
        if len(self._cache) >= _ENTRIES:
            self._cache.clear()
        self._cache[name] = (self._loop.time() + ttl_s, found)
        for waiter in self._waiting.pop(name, set()):
            waiter.on_resolved(found)


def _address(row: tuple[Any, ...]) -> tuple[int, Address] | None:
    """Family and address of a row of ``getaddrinfo``; None if it is not of the internet."""
    return (row[0], row[4]) if row[0] in (socket.AF_INET, socket.AF_INET6) else None
