"""Passive results by Icinga 2's API, over one connection that is kept."""

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from everup import __version__
from everup.integrations._shipping.tls import client_context
from everup.integrations.delivery import ChannelError
from everup.integrations.nagios import icinga
from everup.integrations.nagios.command import Result
from everup.integrations.nagios.config import Icinga
from everup.integrations.nagios.edge.words import words
from everup.integrations.nagios.icinga import Outcome
from everup.observer.feed import Feed

_ANSWER_S: Final = 10.0
_CONNECT_S: Final = 4.0
_MOST_ANSWER_BYTES: Final = 64 << 10
_MOST_AT_ONCE: Final = 100
_NAMED: Final = 5


class Api:
    """Hands results to one Icinga, one after the other: newer ones never overtake.

    What it does not know, or does not take, holds up nothing else; it is told.
    """

    def __init__(self, feed: Feed, table: Icinga, ttl_s: int) -> None:
        """Raises ``OSError`` and ``ValueError`` with what is wrong with the files of the table."""
        self._feed = feed
        self._url = table.url.rstrip("/") + icinga.PATH
        self._ttl_s = ttl_s
        self._server_name = table.server_name
        tls: Any = True
        if table.fingerprint is not None:
            tls = aiohttp.Fingerprint(bytes.fromhex(table.fingerprint.replace(":", "")))
        else:
            tls = client_context(feed.secret_bytes, table.ca_file)
        pair = f"{table.user}:{feed.secret(table.password_file)}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, ssl=tls),
            headers={
                "Accept": "application/json",
                "Authorization": f"Basic {b64encode(pair.encode()).decode()}",
                "User-Agent": f"everup/{__version__}",
            },
            timeout=aiohttp.ClientTimeout(total=_ANSWER_S, sock_connect=_CONNECT_S),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._refused: dict[Any, str] = {}
        """What was not taken, by whom it is about."""

    @property
    def name(self) -> str:
        return "icinga"

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()

    async def send(self, items: Sequence[Result]) -> int:
        """Hand over the first ones. Raises ``ChannelError``."""
        count = 0
        for item in items[:_MOST_AT_ONCE]:
            try:
                await self._hand_over(item)
            except ChannelError:
                if count == 0:
                    raise
                break
            count += 1
        self._tell()
        return count

    async def _hand_over(self, item: Result) -> None:
        try:
            status, data = await self._post(item)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ChannelError(_words(error)) from None
        found, said = icinga.outcome(status, data)
        if found is Outcome.AGAIN:
            raise ChannelError(said)
        if found is Outcome.TAKEN:
            self._refused.pop(item.key, None)
            return
        name = "!".join(filter(None, item.key))
        unknown = "is not known there" if found is Outcome.UNKNOWN else f"is refused: {said}"
        self._refused[item.key] = f"{name} {unknown}"

    async def _post(self, item: Result) -> tuple[int, bytes]:
        options: dict[str, Any] = {}
        if self._server_name is not None:
            options["server_hostname"] = self._server_name
        async with self._session.post(
            self._url,
            params=icinga.parameters(item),
            json=icinga.body(item, self._ttl_s),
            allow_redirects=False,
            **options,
        ) as answer:
            data = bytearray()
            async for part in answer.content.iter_chunked(1 << 14):
                data += part
                if len(data) > _MOST_ANSWER_BYTES:
                    raise ValueError("its answer is too long")
            return answer.status, bytes(data)

    def _tell(self) -> None:
        names = list(self._refused.values())
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        text = f"{'; '.join(names[:_NAMED])}{more} (everup nagios objects --icinga)"
        ok = not names
        self._feed.report("unreached", "icinga objects", ok, "all are known" if ok else text)


def _words(error: Exception) -> str:
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return f"its certificate has the fingerprint {error.got.hex()}, not the configured one"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}"
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return "it does not answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return words(error.os_error)
    return str(error).partition("\n")[0][:300] or type(error).__name__
