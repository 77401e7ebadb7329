"""The keeper's end of the talk with one life of the engine."""

import errno
import select
import socket
from collections import deque
from collections.abc import Callable

from everup.keeper import wire


class Link:
    """``handle`` takes each message and its descriptors; when it raises the engine is told."""

    def __init__(
        self,
        epoll: select.epoll,
        handlers: dict[int, Callable[[], None]],
        handle: Callable[[wire.Message, list[int]], None],
    ) -> None:
        self._epoll = epoll
        self._handlers = handlers
        self._handle = handle
        self._sock: socket.socket | None = None
        self._outbox: deque[tuple[wire.Message, list[int]]] = deque()

    def open(self, sock: socket.socket) -> None:
        """A new engine is at the other end of ``sock``."""
        self._sock = sock
        self._handlers[sock.fileno()] = self.readable
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """The engine is gone; what it was still to be told is told to the next one afresh."""
        if self._sock is not None:
            del self._handlers[self._sock.fileno()]
            self._epoll.unregister(self._sock.fileno())
            self._sock.close()
            self._sock = None
        self._outbox.clear()

    def readable(self) -> None:
        """Take in all that has come."""
        while self._sock is not None:
            try:
                message, fds = wire.receive(self._sock)
            except BlockingIOError:
                break
            except wire.ClosedError:
                self.close()
                return
            except wire.CutError as error:
                self._cut(error)
                continue
            except ValueError as error:
                self.send({"ev": "error", "text": f"no message: {error!r}"[:300]})
                continue
            try:
                self._handle(message, fds)
            except MemoryError:
                raise
            except Exception as error:
                self.send({"ev": "error", "text": f"{message.get('op')}: {error!r}"[:300]})
        self._flush()

    def _cut(self, error: wire.CutError) -> None:
        """Who asked must not wait for an answer for ever."""
        message = error.message
        if message.get("op") == "spawn":
            note = {"stage": "descriptors", "errno": errno.EMFILE, "text": str(error)}
            self.send({"ev": "failed", "id": message["id"], **note})
        else:
            self.send({"ev": "error", "text": f"{message.get('op')}: {error}"})

    def send(self, message: wire.Message, fds: list[int] | None = None) -> None:
        """Tell the engine, if there is one."""
        self._outbox.append((message, fds or []))
        self._flush()

    def beat(self) -> None:
        """Say that we live, unless more waits to be read already."""
        if not self._outbox:
            self.send({"ev": "alive"})

    def _flush(self) -> None:
        """Send what waits. What an engine does not read stays here; a new engine is told the
        state afresh, so the queue is bounded by what one engine asked for."""
        if self._sock is None:
            self._outbox.clear()
            return
        mask = select.EPOLLIN
        while self._outbox:
            message, fds = self._outbox[0]
            try:
                wire.send(self._sock, message, fds)
            except BlockingIOError:
                mask |= select.EPOLLOUT
                break
            except wire.ClosedError:
                self._outbox.clear()  # it may have said something before: readable ends this
                return
            self._outbox.popleft()
        self._epoll.modify(self._sock.fileno(), mask)
