"""The observer's way to the engine: HTTP over the socket that the engine opened for it."""

import asyncio
import contextlib
import json
import ssl  # noqa: F401 - loaded before the process gives up its rights
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiohttp

from everup.model.journal import Entry
from everup.observer.shown import entry_of

_ANSWER_S = 30.0
_AGAIN_S, _MOST_AGAIN_S = 0.2, 2.0
_LONGEST_LINE = 4 << 20
_BATCH = 1000


class RefusedError(Exception):
    """The engine refuses a request; the text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Link:
    """One connection pool to the engine. Every method raises ``OSError`` while there is none."""

    def __init__(self, path: str) -> None:
        self._session = aiohttp.ClientSession(
            "http://everup",
            connector=aiohttp.UnixConnector(path, limit=32),
            timeout=aiohttp.ClientTimeout(total=_ANSWER_S),
            read_bufsize=_LONGEST_LINE,
        )

    async def close(self) -> None:
        await self._session.close()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Ask for something. Raises ``RefusedError``, ``OSError``."""
        async with _plain(self._session.get(path, params=query)) as answer:
            return await _taken(answer)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Have something done. Raises ``RefusedError``, ``OSError``."""
        async with _plain(self._session.post(path, json=body)) as answer:
            return await _taken(answer)

    async def read(self, query: Sequence[tuple[str, str]]) -> list[Entry]:
        """Read what the journal has by now. Raises ``RefusedError``, ``OSError``."""
        return [entry async for batch in self._stream(query) for entry in batch]

    async def lines(self, path: str, query: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """Read lines of JSON to their end. Raises ``RefusedError``, ``OSError``."""
        async with _plain(self._session.get(path, params=list(query))) as answer:
            if answer.status >= 400:
                await _taken(answer)
            return [json.loads(line) for line in (await answer.read()).split(b"\n") if line]

    async def entries(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        """Follow the journal from the entry behind ``after`` on, over the death of engines."""
        delay_s = _AGAIN_S
        while True:
            try:
                query = (("after", str(after)), ("follow", "1"))
                async for batch in self._stream(query):
                    delay_s, after = _AGAIN_S, batch[-1].seq
                    yield batch
            except (OSError, RefusedError):
                pass
            await asyncio.sleep(delay_s)
            delay_s = min(_MOST_AGAIN_S, 2 * delay_s)

    async def _stream(self, query: Sequence[tuple[str, str]]) -> AsyncIterator[Sequence[Entry]]:
        ask = self._session.get(
            "/v1/events", params=list(query), timeout=aiohttp.ClientTimeout(total=None)
        )
        async with _plain(ask) as answer:
            if answer.status >= 400:
                await _taken(answer)
            rest = b""
            async for data in answer.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                found = [entry_of(json.loads(line)) for line in lines if line]
                for start in range(0, len(found), _BATCH):
                    yield found[start : start + _BATCH]


@contextlib.asynccontextmanager
async def _plain(ask: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    """What aiohttp raises where nobody answers is an ``OSError`` in each case."""
    try:
        async with ask as answer:
            yield answer
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise OSError(f"everup's engine does not answer: {error}") from error


async def _taken(answer: aiohttp.ClientResponse) -> Any:
    found = await answer.json()
    if answer.status >= 500:
        raise OSError(str(found.get("error")))
    if answer.status >= 400:
        raise RefusedError(answer.status, str(found.get("error")))
    return found
