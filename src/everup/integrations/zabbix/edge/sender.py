"""Sends values to a Zabbix server or proxy, and looks at what it took."""

import asyncio
import functools
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from everup.integrations.delivery import ChannelError
from everup.integrations.zabbix import wire
from everup.integrations.zabbix.status import KEY

_CONNECT_S: Final = 4.0
_ALL_S: Final = 10.0
"""For all of one exchange: a server that accepts and says nothing costs no more."""
_MOST_ANSWER_BYTES: Final = 64 << 10
_MOST_REDIRECTS: Final = 3


@dataclass(frozen=True, slots=True)
class Push:
    """The whole status, for the host of that name."""

    host: str
    text: str

    @property
    def key(self) -> str:
        return self.host


class Sender:
    """One server, or the nodes of one cluster: the first that answers is told."""

    def __init__(self, server: str, tls: ssl.SSLContext | None = None) -> None:
        self._server = server
        self._tls = tls
        self._nodes = list(wire.nodes(server))

    @property
    def name(self) -> str:
        return f"zabbix {self._server}"

    async def send(self, items: Sequence[Push]) -> int:
        item = items[-1]
        packet = wire.trapped(item.host, {KEY: item.text})
        trouble = []
        for node in list(self._nodes):
            try:
                answer = await self._ask(node, packet)
            except (OSError, EOFError, wire.WireError, TimeoutError) as error:
                trouble.append(f"{node[0]}:{node[1]}: {_words(error)}")
                continue
            self._nodes.remove(node)
            self._nodes.insert(0, node)
            if answer.failed or not answer.processed:
                text = (
                    f"{node[0]}:{node[1]} did not take the value: it knows no host {item.host!r} "
                    f"with the item {KEY}, or takes it from other addresses or with TLS alone "
                    f"(everup zabbix setup makes both; Zabbix needs a minute to know them)"
                )
                raise ChannelError(text)
            return len(items)
        raise ChannelError("; ".join(trouble))

    async def _ask(self, node: tuple[str, int], packet: bytes) -> wire.Answer:
        for _ in range(_MOST_REDIRECTS):
            async with asyncio.timeout(_ALL_S):
                answer = wire.answer(await self._exchange(node, packet))
            if not answer.redirect:
                return answer
            try:
                (node,) = wire.nodes(answer.redirect)
            except ValueError:
                raise wire.WireError(f"it sends us to {answer.redirect!r:.100}") from None
        raise wire.WireError("it sends us from one proxy to the next")

    async def _exchange(self, node: tuple[str, int], packet: bytes) -> bytes:
        connecting = asyncio.open_connection(*node, ssl=self._tls, limit=_MOST_ANSWER_BYTES)
        reader, writer = await asyncio.wait_for(connecting, _CONNECT_S)
        try:
            writer.write(packet)
            await writer.drain()
            head = await reader.readexactly(wire.HEADER_BYTES)
            header = wire.Header.parse(head, _MOST_ANSWER_BYTES)
            return header.text(await reader.readexactly(header.length))
        finally:  # not closed: that would wait for a server that never reads what it is sent
            writer.transport.abort()


@functools.singledispatch
def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


@_words.register
def _(error: TimeoutError) -> str:
    return "it does not answer in time"


@_words.register
def _(error: asyncio.IncompleteReadError) -> str:
    if not error.partial:
        return "it closed the connection without an answer: a node that is not the active one?"
    return f"it closed the connection after {len(error.partial)} bytes of its answer"


@_words.register
def _(error: ConnectionRefusedError) -> str:
    return "nobody listens there"


@_words.register
def _(error: ConnectionResetError) -> str:
    return "it cut the connection: does it know another key, or none?"
