"""Listens with a bound on connections, and ends those that ask for nothing."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import web

MOST_CONNECTIONS: Final = 128
IDLE_S: Final = 20.0
"""A connection must bring a whole request within this time, the first as well as the next."""
_LOOK_S: Final = 2.0
_BACKLOG: Final = 64


class _Full(asyncio.Protocol):
    """There are enough: whoever else comes is sent away at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class Connections:
    """Every connection of one server, and since when it asks for nothing."""

    def __init__(self, most: int = MOST_CONNECTIONS, idle_s: float = IDLE_S) -> None:
        self._most = most
        self._idle_s = idle_s
        self._idle_since: dict[Any, float] = {}

    @web.middleware
    async def count(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Know that a connection is in use while its request is answered."""
        self._idle_since.pop(request.protocol, None)
        try:
            found: web.StreamResponse = await handler(request)
            return found
        finally:
            if request.transport is not None:
                self._idle_since[request.protocol] = asyncio.get_running_loop().time()

    @contextlib.asynccontextmanager
    async def serve(self, runner: web.AppRunner, sock: socket.socket) -> AsyncIterator[None]:
        """Serve an application by that socket, which listens afterwards."""
        await runner.setup()
        server = runner.server
        assert server is not None
        loop = asyncio.get_running_loop()

        def made() -> asyncio.Protocol:
            if len(server.connections) >= self._most:
                return _Full()
            protocol: Any = server()
            self._idle_since[protocol] = loop.time()
            return protocol  # type: ignore[no-any-return]

        listening = await loop.create_server(made, sock=sock, backlog=_BACKLOG)
        reaper = loop.create_task(self._reap(server))
        try:
            yield
        finally:
            reaper.cancel()
            listening.close()
            await runner.cleanup()

    async def _reap(self, server: web.Server) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_S, self._idle_s / 2))
            now = asyncio.get_running_loop().time()
            there = set(server.connections)
            for protocol, since in list(self._idle_since.items()):
                gone = protocol not in there and now - since > _LOOK_S
                if gone or now - since > self._idle_s:
                    del self._idle_since[protocol]
                    protocol.force_close()
