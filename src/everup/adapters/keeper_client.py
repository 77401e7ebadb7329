"""The engine's side of the talk with the keeper."""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from everup.keeper import wire

Handler = Callable[[wire.Message, list[int]], None]


class KeeperClient:
    """Sends requests in order and hands every report to ``handle``. ``lost`` is called when the
    keeper is gone."""

    def __init__(self, sock: socket.socket, handle: Handler, lost: Callable[[], None]) -> None:
        self._sock = sock
        self._handle = handle
        self._lost = lost
        self._queue: deque[tuple[wire.Message, list[int]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def from_fd(cls, fd: int, handle: Handler, lost: Callable[[], None]) -> "KeeperClient":
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        os.set_inheritable(fd, False)
        return cls(sock, handle, lost)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.add_reader(self._sock.fileno(), self._readable)

    def close(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()

    def _readable(self) -> None:
        for _ in range(64):  # then let the others have their turn
            try:
                message, fds = wire.receive(self._sock)
            except BlockingIOError:
                return
            except wire.ClosedError:
                self.close()
                self._lost()
                return
            self._handle(message, fds)

    def _send(self, message: wire.Message, fds: Sequence[int] = (), close: bool = False) -> None:
        """Send, or queue behind what waits. ``close``: the descriptors are ours to close."""
        if not self._queue:
            try:
                wire.send(self._sock, message, fds)
                if close:
                    for fd in fds:
                        os.close(fd)
                return
            except BlockingIOError:
                assert self._loop is not None
                self._loop.add_writer(self._sock.fileno(), self._writable)
            except (wire.ClosedError, OSError):
                return  # the reader sees it too and tells
        # Every message has an action of the engine behind it, so the queue is bounded by those.
        copies = list(fds) if close else [os.dup(fd) for fd in fds]
        self._queue.append((message, copies))

    def _writable(self) -> None:
        while self._queue:
            message, fds = self._queue[0]
            try:
                wire.send(self._sock, message, fds)
            except BlockingIOError:
                return
            except wire.ClosedError:
                break
            self._queue.popleft()
            for fd in fds:
                os.close(fd)
        assert self._loop is not None
        self._loop.remove_writer(self._sock.fileno())

    def spawn(
        self,
        child_id: str,
        request: Mapping[str, Any],
        *,
        given: Mapping[int, int],
        held: Mapping[int, str],
        meta: Mapping[str, Any],
        hold: Mapping[str, int] | None = None,
    ) -> None:
        """``given``: descriptors by their number in the child, closed here once sent; ``held``:
        the same by their name at the keeper; ``hold``: more for the keeper to hold from now on,
        which stay ours as well."""
        hold = hold or {}
        fds = list(dict.fromkeys(given.values()))
        kept = [os.dup(fd) for fd in hold.values()]
        index = {fd: position for position, fd in enumerate(fds)}
        message = {
            **request,
            "op": "spawn",
            "id": child_id,
            "given": {str(number): index[fd] for number, fd in given.items()},
            "held": {str(number): name for number, name in held.items()},
            "hold": list(hold),
            "meta": meta,
        }
        self._send(message, [*fds, *kept], close=True)

    def signal(self, child_id: str, number: int, scope: str) -> None:
        self._send({"op": "signal", "id": child_id, "sig": number, "scope": scope})

    def ack(self, child_id: str) -> None:
        """Its end is in the journal: the keeper may forget it."""
        self._send({"op": "ack", "id": child_id})

    def hold(self, names: Sequence[str], fds: Sequence[int]) -> None:
        for start in range(0, len(names), wire.MAX_FDS - 4):
            end = start + wire.MAX_FDS - 4
            self._send({"op": "hold", "names": list(names[start:end])}, fds[start:end])

    def drop(self, names: Sequence[str]) -> None:
        self._send({"op": "drop", "names": list(names)})

    def main_pid(self, child_id: str, pid: int) -> None:
        self._send({"op": "main", "id": child_id, "pid": pid})

    def quit(self, status: int) -> None:
        self._send({"op": "quit", "status": status})
