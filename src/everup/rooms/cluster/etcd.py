"""etcd as the engine of agreement, by its JSON gateway.

Not by gRPC: its Python clients hang on a member that is stopped, and lose the session. Here each
request has a short time of its own and goes to another member when that is over.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from everup import __version__
from everup.rooms.cluster import wire
from everup.rooms.cluster.lease import Look, RefusedError, Renewed, UnreachedError

_MOST_ANSWER_BYTES: Final = 16 << 20
_LEAST_TRY_S: Final = 0.2
_IDLE_S: Final = 3.0
"""A watch over which nothing came for so long goes on at another member."""
_MOST_REFUSED_S: Final = 2.0
_UNAVAILABLE: Final = ("no leader", "leader changed", "timed out", "not capable", "stopped")


class Etcd:
    """Asks the members of one etcd in turn, each for a part of ``timeout_s``; the one that answered
    last is asked first. It is a ``Lease``."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        timeout_s: float,
        ssl: Any = True,
        user: str = "",
        password: str = "",
        idle_s: float = _IDLE_S,
    ) -> None:
        self._urls = [url.rstrip("/") for url in endpoints]
        self._at = 0
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._login = (user, password)
        self._ticket = ""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=8, ssl=ssl),
            headers={"User-Agent": f"everup/{__version__}"},
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    @property
    def where(self) -> str:
        """The member that is asked next, as ``host:port``."""
        return urlsplit(self._urls[self._at]).netloc

    # -- the engine of agreement

    async def begin(self, ttl_s: float) -> tuple[int, float]:
        """Begin a session: a lease of etcd's. It knows whole seconds alone."""
        body = {"TTL": str(max(1, int(ttl_s))), "ID": "0"}
        session, granted_s = wire.begun_of(await self._ask("/v3/lease/grant", body))
        return session, min(granted_s, ttl_s)

    async def renew(self, session: int) -> Renewed:
        """Have a session go on."""
        return wire.renewed_of(await self._ask("/v3/lease/keepalive", {"ID": str(session)}))

    async def end(self, session: int) -> None:
        """End a session; one that is over already is no fault."""
        try:
            await self._ask("/v3/lease/revoke", {"ID": str(session)})
        except RefusedError as error:
            if "not found" not in str(error):
                raise

    async def acquire(self, key: str, value: str, session: int, drop: Sequence[str] = ()) -> bool:
        """Make a key that nobody has."""
        body = wire.acquire_body(key, value, session, drop)
        return wire.done_of(await self._ask("/v3/kv/txn", body))

    async def release(self, key: str, token: int) -> bool:
        """Drop a key if it is still the same."""
        return wire.done_of(await self._ask("/v3/kv/txn", wire.release_body(key, token)))

    async def put(self, key: str, value: str, session: int) -> None:
        """Write a key."""
        await self._ask("/v3/kv/put", wire.put_body(key, value, session))

    async def look(self, prefix: str) -> Look:
        """Read everything under a prefix; etcd asks a majority before it answers."""
        return wire.look_of(await self._ask("/v3/kv/range", wire.look_body(prefix)), prefix)

    async def watch(self, prefix: str, after: int) -> AsyncIterator[int]:
        """Tell the revision of each change."""
        at, delay_s = self._at, 0.0
        while True:
            began = time.monotonic()
            try:
                async for revision in self._watch(self._urls[at], prefix, after):
                    after, delay_s = revision, 0.0
                    yield revision
            except (wire.MalformedError, RefusedError):
                # What was compacted cannot be told any more: who watches looks at all of it.
                with contextlib.suppress(UnreachedError, RefusedError):
                    after = max(after, (await self.look(prefix)).revision)
                    yield after
                delay_s = min(_MOST_REFUSED_S, delay_s * 2 or 0.1)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                quick = time.monotonic() - began < self._idle_s / 2
                delay_s = min(_MOST_REFUSED_S, delay_s * 2 or 0.1) if quick else 0.0
            at = (at + 1) % len(self._urls)
            await asyncio.sleep(delay_s)

    async def _watch(self, url: str, prefix: str, after: int) -> AsyncIterator[int]:
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._try_s, sock_read=self._idle_s
        )
        body = wire.watch_body(prefix, after)
        async with self._session.post(
            url + "/v3/watch",
            json=body,
            headers=await self._headers(),
            timeout=timeout,
            allow_redirects=False,
        ) as answer:
            if answer.status >= 400:
                self._ticket = ""
                raise ValueError(wire.words_of(await _taken(answer)))
            rest = b""
            async for part in answer.content.iter_any():
                *lines, rest = (rest + part).split(b"\n")
                if len(rest) > _MOST_ANSWER_BYTES:
                    raise ValueError("a change is longer than everup reads")
                for line in filter(None, lines):
                    revision, changed = wire.told_of(line)
                    if changed:
                        yield revision

    # -- requests

    @property
    def _try_s(self) -> float:
        return max(_LEAST_TRY_S, self._timeout_s / len(self._urls))

    async def _ask(self, path: str, body: wire.Body) -> Any:
        """Give the first whole answer. Raises ``UnreachedError`` and ``RefusedError``."""
        by = time.monotonic() + self._timeout_s
        why = ""
        for _ in self._urls:
            left_s = by - time.monotonic()
            if left_s <= 0:
                break
            try:
                async with asyncio.timeout(min(left_s, self._try_s)):
                    return await self._signed_in(self._urls[self._at], path, body)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                why = f"{self.where}: {_words(error)}"
                self._at = (self._at + 1) % len(self._urls)
        raise UnreachedError(why or "no time was left")

    async def _signed_in(self, url: str, path: str, body: wire.Body) -> Any:
        try:
            return await self._post(url, path, body, await self._headers())
        except RefusedError as error:
            if wire.UNAUTHENTICATED not in str(error) or not self._login[0]:
                raise
            self._ticket = ""  # they last for minutes, and go with a restart
            return await self._post(url, path, body, await self._headers())

    async def _headers(self) -> dict[str, str]:
        name, password = self._login
        if not name:
            return {}
        if not self._ticket:
            said = {"name": name, "password": password}
            url = self._urls[self._at]
            answer = await self._post(url, "/v3/auth/authenticate", said, {})
            found = answer.get("token") if isinstance(answer, dict) else None
            if not isinstance(found, str) or not found.isascii() or not found.isprintable():
                raise wire.MalformedError("etcd let us in without a token")
            self._ticket = found
        return {"Authorization": self._ticket}

    async def _post(self, url: str, path: str, body: wire.Body, headers: dict[str, str]) -> Any:
        async with self._session.post(
            url + path, json=body, headers=headers, allow_redirects=False
        ) as answer:
            found = await _taken(answer)
        words = wire.words_of(found) if answer.status >= 400 or "error" in found else ""
        if not words and answer.status < 300:
            return found
        words = words or f"it answered with status {answer.status}"
        if answer.status >= 500 and any(word in words for word in _UNAVAILABLE):
            raise ValueError(words)  # of this member: another one may know more
        raise RefusedError(words)


async def _taken(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    body = bytearray()
    async for part in answer.content.iter_chunked(1 << 18):
        body += part
        if len(body) > _MOST_ANSWER_BYTES:
            raise ValueError(f"its answer is longer than {_MOST_ANSWER_BYTES >> 20} MiB")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"its answer (status {answer.status}) is no object in JSON")
    return found


def _words(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error is not None:
        return f"no connection: {error.os_error.strerror or error.os_error}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection instead of answering"
    return str(error).partition("\n")[0][:300] or type(error).__name__
