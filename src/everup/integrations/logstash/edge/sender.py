"""The connection to Logstash: one window at a time, to the first host that takes it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Final

from everup.integrations.logstash.config import address
from everup.integrations.logstash.lumberjack import (
    Acknowledgements,
    ProtocolError,
    WindowSize,
    window,
)

_CONNECT_S: Final = 5.0
_IDLE_S: Final = 30.0
"""Logstash closes a connection that was silent for 60 s; what is sent then would be lost time."""
_NO_TLS: Final = "it does not speak TLS; if that is meant so, set logstash.tls = false"
_MOST_WINDOW_BYTES: Final = 1 << 20


class UnreachedError(Exception):
    """A host did not take what it was sent; the text says why."""


class Sender:
    """Sends documents to one of several hosts, and goes to the next one where that fails."""

    def __init__(
        self,
        hosts: Sequence[str],
        context: ssl.SSLContext | None,
        timeout_s: float,
        level: int,
        most: int,
    ) -> None:
        self._hosts = list(hosts)
        self._at = 0
        self._context = context
        self._timeout_s = timeout_s
        self._level = level
        self._size = WindowSize(most)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._hearing: asyncio.Task[bytes] | None = None
        """Reads what comes next, also between windows: nothing should come then."""
        self._used_at = 0.0

    @property
    def where(self) -> str:
        """The host that is spoken to, as the config names it."""
        return self._hosts[self._at]

    def close(self) -> None:
        """Close the connection at once."""
        if self._hearing is not None:
            self._hearing.cancel()
            if self._hearing.done() and not self._hearing.cancelled():
                self._hearing.exception()  # nobody else looks at it
            self._hearing = None
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def send(self, documents: Sequence[bytes]) -> AsyncIterator[int]:
        """Send all, and give for each acknowledgement how many more are taken.

        Raises ``UnreachedError``: what was not acknowledged may be there all the same, and has to
        be sent again. The next call goes to the next host.
        """
        at = 0
        while at < len(documents):
            part = _fitting(documents, at, self._size.now)
            acks = Acknowledgements(len(part))
            try:
                writer = await self._connected()
                writer.write(window(part, self._level))
                async with asyncio.timeout(self._timeout_s):
                    await writer.drain()
                while not acks.whole:
                    before = acks.done
                    await self._hear(acks)
                    if acks.done > before:
                        yield acks.done - before
            except (OSError, TimeoutError, ProtocolError, ssl.SSLError, EOFError) as error:
                text = f"{self.where}: {_words(error)}"
                self._failed()
                raise UnreachedError(text) from error
            self._used_at = asyncio.get_running_loop().time()
            self._size.taken()
            at += len(part)

    async def _hear(self, acks: Acknowledgements) -> None:
        assert self._streams is not None
        if self._hearing is None:
            self._hearing = asyncio.create_task(self._streams[0].read(4096))
        done, _ = await asyncio.wait({self._hearing}, timeout=self._timeout_s)
        if not done:
            raise TimeoutError
        data, self._hearing = self._hearing.result(), None
        if not data:
            raise EOFError("it closed the connection before it had acknowledged all")
        acks.feed(data)
        self._hearing = asyncio.create_task(self._streams[0].read(4096))

    async def _connected(self) -> asyncio.StreamWriter:
        idle_s = asyncio.get_running_loop().time() - self._used_at
        # What has come since the last window was taken is its end, or an acknowledgement too many,
        # which must not count for the next one.
        if idle_s > _IDLE_S or (self._hearing is not None and self._hearing.done()):
            self.close()
        if self._streams is None:
            name, port = address(self.where)
            try:
                async with asyncio.timeout(_CONNECT_S):
                    self._streams = await asyncio.open_connection(name, port, ssl=self._context)
            except (ConnectionResetError, ssl.SSLEOFError) as error:
                raise EOFError(_NO_TLS) from error
        return self._streams[1]

    def _failed(self) -> None:
        self.close()
        self._size.failed()
        self._at = (self._at + 1) % len(self._hosts)


def _fitting(documents: Sequence[bytes], at: int, most: int) -> Sequence[bytes]:
    """What goes into one window: at least one document, not much more than a megabyte."""
    size, end = 0, at
    while end < len(documents) and end - at < most:
        size += len(documents[end])
        if size > _MOST_WINDOW_BYTES and end > at:
            break
        end += 1
    return documents[at:end]


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        if error.reason == "WRONG_VERSION_NUMBER":
            return _NO_TLS
        return f"TLS fails: {error.reason or error}"
    if isinstance(error, OSError):
        return f"no connection: {(error.strerror or str(error)).lower()}"
    return str(error)
