"""One epoll of our own, itself readable in the event loop: a probe costs two cheap calls on it
instead of a selector key and a handle each time."""

import asyncio
import select
from typing import Final, Protocol

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT

_BATCH: Final = 64
"""Events handled per turn of the loop, so that others get their turn too."""


class Handler(Protocol):
    """What waits for a descriptor."""

    def on_event(self) -> None:
        """Something may be possible now; must bear being called for nothing."""


class Reactor:
    """Calls handlers when their descriptors become ready (level-triggered)."""

    __slots__ = ("_epoll", "_handlers", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handlers: dict[int, Handler] = {}
        self._epoll = select.epoll()
        loop.add_reader(self._epoll.fileno(), self._on_ready)

    def add(self, fd: int, events: int, handler: Handler) -> None:
        """Waits for ``events`` on ``fd``."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def modify(self, fd: int, events: int) -> None:
        """Waits for other events from now on."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Stops waiting. Must come before the close: where a forked process holds a copy of the
        descriptor, the close alone would leave its events behind."""
        del self._handlers[fd]
        self._epoll.unregister(fd)

    def close(self) -> None:
        """Ends it; idempotent."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._handlers.clear()

    def _on_ready(self) -> None:
        handlers = self._handlers
        for fd, _ in self._epoll.poll(0, _BATCH):
            # A handler earlier in the batch may have closed this one.
            handler = handlers.get(fd)
            if handler is not None:
                handler.on_event()
