"""Serves the console."""

import asyncio
import socket
from typing import Any, Final

from aiohttp import web

from everup.api import malformed
from everup.config import parse_address
from everup.observer.feed import Feed
from everup.rooms.console.edge import pages
from everup.rooms.console.edge.bounded import Connections
from everup.rooms.console.edge.guard import LOG, Guard
from everup.rooms.console.edge.hub import Hub
from everup.rooms.console.edge.views import Views

_PAGES: Final = pages.read()
"""Read now: later the process may not read them any more."""
_MOST_BODY: Final = 8 << 10
_AGAIN_S: Final = 2.0
_END_S: Final = 0.5


async def serve(feed: Feed, listen: str) -> None:
    """Serve the console at that address, until cancelled."""
    sock = await _bound(feed, listen)
    hub = Hub(feed)
    connections = Connections()
    runner = web.AppRunner(
        application(feed, hub, listen, connections),
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,
        shutdown_timeout=_END_S,
        logger=malformed.logger(LOG, "the console"),
    )
    async with connections.serve(runner, sock):
        await hub.run()


def application(feed: Feed, hub: Hub, listen: str, connections: Connections) -> web.Application:
    """Give all of it, to be served."""
    guard = Guard(feed, listen)
    app = web.Application(middlewares=[connections.count, guard.check], client_max_size=_MOST_BODY)
    views = Views(feed, hub, guard)
    views.add_to(app.router)
    for path, page in _PAGES.items():
        app.router.add_get(path, _answering(page))
    return app


def _answering(page: pages.Page) -> Any:
    async def answer(request: web.Request) -> web.Response:
        return page.answer(request)

    return answer


async def _bound(feed: Feed, listen: str) -> socket.socket:
    """Bind, again and again where somebody else has the port: a condition tells of it."""
    address = parse_address(listen)
    family = socket.AF_INET6 if address.family == "inet6" else socket.AF_INET
    while True:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address.host, address.port))
        except OSError as error:
            sock.close()
            text = f"cannot listen on {listen}: {error.strerror or error}"
            feed.report("unreached", "console", False, text)
            await asyncio.sleep(_AGAIN_S)
        else:
            sock.setblocking(False)
            feed.report("unreached", "console", True, f"listens on {listen}")
            return sock
