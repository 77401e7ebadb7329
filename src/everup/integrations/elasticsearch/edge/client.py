"""HTTP with Elasticsearch or OpenSearch: raw requests over aiohttp.

Not the official client: it refuses OpenSearch and older servers, and knows no pinned certificate
of OpenSearch's. Nothing here follows a redirect, which would take the password along.
"""

import asyncio
import gzip
import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from everup import __version__
from everup.integrations._shipping.tls import client_context
from everup.integrations.elasticsearch.config import Elasticsearch

MOST_ANSWER_BYTES: Final = 16 << 20
_CONNECT_S: Final = 5.0
_COMPRESS_FROM: Final = 1024
_LONGEST_WAIT_S: Final = 60.0
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class UnreachedError(Exception):
    """No server gave a whole answer; the text says why, without secrets."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server says."""

    status: int
    body: bytes
    retry_after_s: float | None = None
    """What it asks to wait; None: it does not."""

    def json(self) -> Any:
        """Give what the body holds; None: it holds no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class Client:
    """Asks the nodes of one server, the next one where one fails.

    ``secret`` and ``secret_bytes`` read what the config's ``..._file`` keys name; ``more`` headers
    go with each request. The constructor raises ``OSError`` and ``ValueError`` with what is wrong
    with these.
    """

    def __init__(
        self,
        table: Elasticsearch,
        secret: Callable[[str], str],
        secret_bytes: Callable[[str], bytes],
        more: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        self._urls = [url.rstrip("/") for url in table.urls]
        self._at = 0
        self._gzip = table.gzip
        self._ssl: Any = True
        if table.fingerprint is not None:
            self._ssl = aiohttp.Fingerprint(bytes.fromhex(table.fingerprint.replace(":", "")))
        elif any(url.startswith("https:") for url in self._urls):
            self._ssl = client_context(secret_bytes, table.ca_file)
        headers = {"Accept": "application/json", "User-Agent": f"everup/{__version__}", **more}
        if (authorization := _authorization(table, secret)) is not None:
            headers["Authorization"] = authorization
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=4, ssl=self._ssl),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=table.timeout, sock_connect=_CONNECT_S),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    @property
    def where(self) -> str:
        """The node that is asked next, as ``host:port``."""
        return urlsplit(self._urls[self._at]).netloc

    async def ask(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        """Give the answer of the first node that has one, whatever it says. Raises
        ``UnreachedError``."""
        why = ""
        for _ in self._urls:
            try:
                return await self._ask(self._urls[self._at] + path, method, data, content_type)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                why = f"{self.where}: {_words(error)}"
                self._at = (self._at + 1) % len(self._urls)
        raise UnreachedError(why)

    async def _ask(self, url: str, method: str, data: bytes | None, content_type: str) -> Answer:
        headers = {}
        if data is not None:
            headers["Content-Type"] = content_type
            if self._gzip and len(data) >= _COMPRESS_FROM:
                data = gzip.compress(data, 1, mtime=0)
                headers["Content-Encoding"] = "gzip"
        async with self._session.request(
            method, url, data=data, headers=headers, allow_redirects=False
        ) as answer:
            body = bytearray()
            async for part in answer.content.iter_chunked(1 << 18):
                body += part
                if len(body) > MOST_ANSWER_BYTES:
                    raise ValueError(f"its answer is longer than {MOST_ANSWER_BYTES >> 20} MiB")
            return Answer(answer.status, bytes(body), _wait_of(answer.headers.get("Retry-After")))


def _authorization(table: Elasticsearch, secret: Callable[[str], str]) -> str | None:
    if table.api_key_file is not None:
        return f"ApiKey {_header(table.api_key_file, secret(table.api_key_file))}"
    if table.user is not None and table.password_file is not None:
        pair = f"{table.user}:{secret(table.password_file)}"
        return f"Basic {b64encode(pair.encode()).decode()}"
    return None


def _header(path: str, key: str) -> str:
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"{path}: its first line is no API key (the server's `encoded` form)")
    return key


def _wait_of(text: str | None) -> float | None:
    if text is not None and text.isascii() and text.isdecimal() and len(text) < 10:
        return min(float(text), _LONGEST_WAIT_S)
    return None


def _words(error: Exception) -> str:
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return f"its certificate has the fingerprint {error.got.hex()}, not the configured one"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error is not None:
        return f"no connection: {error.os_error.strerror or error.os_error}"
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection instead of answering"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "its answer ended early"
    return str(error).partition("\n")[0][:300] or type(error).__name__
