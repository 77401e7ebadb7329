"""The NRPE server: a bounded number of connections, each with an end in time."""

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
from typing import Final

from everup.config import parse_address
from everup.integrations.nagios import nrpe
from everup.integrations.nagios.config import Nrpe
from everup.integrations.nagios.edge.asked import Answers
from everup.integrations.nagios.edge.tls import server_context
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
_SUBJECT: Final = "nagios nrpe"


class Server:
    """Answers what is allowed to ask. A client can do nothing but ask."""

    def __init__(self, feed: Feed, table: Nrpe) -> None:
        self._feed = feed
        self._table = table
        self._answers = Answers(feed)
        self._allowed = [ipaddress.ip_network(text) for text in table.allowed]
        self._open: set[asyncio.Task[None]] = set()
        self._told = ""

    async def run(self) -> None:
        """Serve, for ever; tell everup where that is not possible."""
        if os.geteuid() == 0:
            self._tell(False, "it is not opened: everup's observer runs as root here")
            return
        try:
            context = self._context()
        except OSError as error:
            self._tell(False, f"it is not opened: {error}")
            return  # the files are read anew when the observer begins
        while True:
            try:
                listening = _listen(self._table.listen)
            except OSError as error:
                self._tell(False, f"cannot listen on {self._table.listen}: {words(error)}")
                await asyncio.sleep(_AGAIN_S)
                continue
            self._tell(True, "it listens again")
            with listening:
                try:
                    await self._accept(listening, context)
                finally:
                    for task in self._open:
                        task.cancel()

    def _context(self) -> ssl.SSLContext | None:
        table = self._table
        if table.tls_cert_file is None or table.tls_key_file is None:
            return None
        files = table.tls_cert_file, table.tls_key_file, table.tls_client_ca_file
        return server_context(self._feed, *files)

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
        """Tell whether the table lets that address ask."""
        found = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in network for network in self._allowed)

    async def _serve(self, peer: socket.socket, context: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(nrpe.MOST_QUERY_BYTES + 64)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport: asyncio.Transport | None = None
        # What is no query, or has no end, gets no answer: as NRPE's own server does it.
        with contextlib.suppress(nrpe.PacketError, OSError, TimeoutError, EOFError):
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
            finally:
                if transport is not None:
                    transport.abort()
                else:
                    peer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(nrpe.HEAD_BYTES)
        query = nrpe.parse(head + await reader.readexactly(nrpe.rest_bytes(head)))
        answer = await self._answers.to(query)
        writer.write(nrpe.answer(query.version, int(answer.level), answer.text))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def _tell(self, ok: bool, text: str) -> None:
        if text == self._told:
            return
        if not ok:  # another reason than before is another condition
            self._feed.report("unreached", _SUBJECT, True, "it is tried anew")
        self._feed.report("unreached", _SUBJECT, ok, text)
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
