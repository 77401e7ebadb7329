"""Answers a Zabbix server and ``zabbix_get`` as a Zabbix agent would: passive checks."""

import asyncio
import ipaddress
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from everup.integrations.zabbix import agent, status, wire
from everup.observer.feed import Feed

_MOST_ASKERS: Final = 64
"""At one time; who comes then is turned away."""
_QUESTION_S: Final = 3.0
_ANSWER_S: Final = 3.0
_FRESH_S: Final = 1.0
"""So long an answer of everup's is good for further questions: a template asks for dozens."""
_AGAIN_S: Final = 5.0
_WORDS: Final = "cannot answer Zabbix' questions"


class Agent:
    """The listener. Invariant: at most ``_MOST_ASKERS`` are served, each for a bounded time."""

    def __init__(
        self,
        feed: Feed,
        address: str,
        allowed: Sequence[str],
        host: str,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._feed = feed
        self._tls = tls
        ((self._address, self._port),) = wire.nodes(address)
        self._shown = address
        self._allowed = [ipaddress.ip_network(text, strict=False) for text in allowed]
        self._host = host
        self._askers = 0
        self._looking = asyncio.Lock()
        self._looked = float("-inf")
        self._document: Mapping[str, Any] = {}

    async def run(self) -> None:
        """Answer until cancelled; wait for an address that is not there, or not free, yet."""
        while True:
            try:
                server = await asyncio.start_server(
                    self._asked,
                    self._address,
                    self._port,
                    limit=agent.MOST_BYTES,
                    ssl=self._tls,
                    ssl_handshake_timeout=None if self._tls is None else _QUESTION_S,
                )
            except OSError as error:
                self._tell(False, f"{_WORDS} at {self._shown}: {error.strerror or error}")
                await asyncio.sleep(_AGAIN_S)
                continue
            self._tell(True, "it listens")
            try:
                await server.serve_forever()
            finally:  # not as a context: that waits for whoever is being served
                server.close()

    def _tell(self, ok: bool, text: str) -> None:
        self._feed.report("unreached", "zabbix agent", ok, text)

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._askers += 1
        try:
            if self._askers <= _MOST_ASKERS and self._may(writer):
                async with asyncio.timeout(_QUESTION_S):
                    asked = await _question(reader)
                async with asyncio.timeout(_ANSWER_S):
                    writer.write(await self._answer(asked))
                    await writer.drain()
        except (OSError, TimeoutError, wire.WireError):
            # Who asks so gets no answer, as from Zabbix' own agent; nothing waits for its reading.
            writer.transport.abort()
        finally:
            self._askers -= 1
            writer.close()

    def _may(self, writer: asyncio.StreamWriter) -> bool:
        peername = writer.get_extra_info("peername")
        if not peername:  # it is gone already
            return False
        peer = ipaddress.ip_address(peername[0].partition("%")[0])
        mapped = getattr(peer, "ipv4_mapped", None)
        return any((mapped or peer) in network for network in self._allowed)

    async def _answer(self, asked: agent.Question) -> bytes:
        document = await self._now()
        values: Sequence[str | agent.Unsupported]
        if document:
            values = [agent.value(key, self._host, document) for key in asked.keys]
            version = str(document["everup"]["version"])
        else:
            values = [agent.Unsupported("everup's engine does not answer")] * len(asked.keys)
            version = "0"
        return agent.message(asked, values, version)

    async def _now(self) -> Mapping[str, Any]:
        async with self._looking:
            if time.monotonic() - self._looked >= _FRESH_S:
                await self._look()
                self._looked = time.monotonic()
            return self._document

    async def _look(self) -> None:
        incidents = self._feed.incidents()
        try:
            found = await self._feed.status()
        except OSError:
            if self._document:
                text = json.dumps(self._document)
                self._document = json.loads(status.silent(text).text)
            return
        told = status.told(time.time(), self._feed.node, found, incidents)
        self._document = json.loads(told.text)


async def _question(reader: asyncio.StreamReader) -> agent.Question:
    data = b""
    while True:
        piece = await reader.read(agent.MOST_BYTES)
        data += piece
        if len(data) > agent.MOST_BYTES + wire.HEADER_BYTES:
            raise wire.WireError("the question is too long")
        asked = agent.question(data, ended=not piece)
        if asked is not None:
            return asked
