"""What listens: a bounded number of connections, each with an end in time, from whom it may."""

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from everup.config import parse_address
from everup.integrations.nagios.edge.words import words
from everup.observer.feed import Feed

MOST_CONNECTIONS: Final = 64
"""Whoever comes when so many are open is closed at once."""
WHOLE_S: Final = 10.0
"""From the first byte to the end of a connection, TLS included."""
_HANDSHAKE_S: Final = 5.0
_AGAIN_S: Final = 5.0
_FULL_S: Final = 0.2
_BACKLOG: Final = 128
_MOST_BYTES: Final = 16 << 10

Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Speaks with one client. What it raises of ``OSError``, ``EOFError``, ``ValueError`` ends the
connection, and nothing else."""


class Door:
    """Lets in who is allowed to speak, and no more of them than there is room for."""

    def __init__(
        self, feed: Feed, subject: str, listen: str, allowed: Sequence[str], converse: Converse
    ) -> None:
        self._feed = feed
        self._subject = subject
        self._listen = listen
        self._allowed = [ipaddress.ip_network(text) for text in allowed]
        self._converse = converse
        self._open: set[asyncio.Task[None]] = set()
        self._told = ""

    async def run(self, context: ssl.SSLContext | None = None) -> None:
        """Serve, for ever; tell everup where that is not possible."""
        if os.geteuid() == 0:
            self.tell(False, "it is not opened: everup's observer runs as root here")
            return
        while True:
            try:
                listening = _listen(self._listen)
            except OSError as error:
                self.tell(False, f"cannot listen on {self._listen}: {words(error)}")
                await asyncio.sleep(_AGAIN_S)
                continue
            self.tell(True, "it listens again")
            with listening:
                try:
                    await self._accept(listening, context)
                finally:
                    for task in self._open:
                        task.cancel()

    async def _accept(self, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, address = await loop.sock_accept(listening)
            except OSError:  # no descriptors, or the client is gone already
                await asyncio.sleep(_FULL_S)
                continue
            if len(self._open) >= MOST_CONNECTIONS or not self.allows(address[0]):
                peer.close()
                continue
            task = loop.create_task(self._serve(peer, context))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    def allows(self, host: str) -> bool:
        """Tell whether that address may speak."""
        found = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in network for network in self._allowed)

    async def _serve(self, peer: socket.socket, context: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(_MOST_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport: asyncio.Transport | None = None
        # Who says nothing that is understood, or does not come to an end, gets no answer.
        with contextlib.suppress(ValueError, OSError, TimeoutError, EOFError):
            try:
                async with asyncio.timeout(WHOLE_S):
                    transport, _ = await loop.connect_accepted_socket(
                        lambda: protocol,
                        peer,
                        ssl=context,
                        ssl_handshake_timeout=_HANDSHAKE_S if context else None,
                        ssl_shutdown_timeout=1.0 if context else None,
                    )
                    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
                    await self._converse(reader, writer)
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
            finally:
                if transport is not None:
                    transport.abort()
                else:
                    peer.close()

    def tell(self, ok: bool, text: str) -> None:
        """Tell everup whether it is open, and why not."""
        if text == self._told:
            return
        if not ok:  # another reason than before is another condition
            self._feed.report("unreached", self._subject, True, "it is tried anew")
        self._feed.report("unreached", self._subject, ok, text)
        self._told = text


def _listen(text: str) -> socket.socket:
    address = parse_address(text)
    family = socket.AF_INET6 if address.family == "inet6" else socket.AF_INET
    both = address.host == "::"
    found = socket.create_server(
        (address.host, address.port), family=family, backlog=_BACKLOG, dualstack_ipv6=both
    )
    found.setblocking(False)
    return found
