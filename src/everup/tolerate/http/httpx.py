"""A policy in an httpx client, as its transport::

guard = Pipeline(Retry(attempts=3), Breaker("stock"), Timeout(1.0), name="stock")
client = httpx.AsyncClient(transport=AsyncTransport(guard))
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import httpx

from everup.tolerate._base import Policy
from everup.tolerate.http import BadStatus, Exchange, Guard, Rules, retry_after, within_deadline

__all__ = ["AsyncTransport", "Transport"]


class _Shared:
    def __init__(self, rules: Rules | None) -> None:
        self.rules = Rules() if rules is None else rules

    def exchange(self, request: httpx.Request) -> tuple[Exchange, bool]:
        # A body that is not in memory can be read once.
        again = isinstance(request.stream, httpx.ByteStream)
        repeats = again and self.rules.may_repeat(request.method, request.headers)
        return Exchange(request.method, str(request.url), request), repeats

    def attempt(self, exchange: Exchange, number: int) -> httpx.Request:
        """The request as this attempt sends it."""
        request: httpx.Request = exchange.request
        host = self.rules.host(number)
        headers = request.headers.copy()
        headers.update(self.rules.told(headers))
        url = request.url
        if host is not None:
            url = url.copy_with(scheme=host.scheme, host=host.hostname, port=host.port)
            headers["host"] = url.netloc.decode("ascii")
        extensions = dict(request.extensions)
        if (left := within_deadline(None)) is not None:
            given = extensions.get("timeout") or {}
            extensions["timeout"] = {
                name: left if (limit := given.get(name)) is None else min(limit, left)
                for name in ("connect", "read", "write", "pool")
            }
        return httpx.Request(
            request.method, url, headers=headers, stream=request.stream, extensions=extensions
        )

    def judge(self, response: httpx.Response) -> httpx.Response:
        if response.status_code in self.rules.statuses:
            after = retry_after(response.headers.get("retry-after"))
            raise BadStatus(response.status_code, response, after)
        return response


class Transport(httpx.BaseTransport):
    """Sends through ``transport`` (default ``httpx.HTTPTransport()``), guarded by ``policy``.

    A status that ``rules`` call a failure is one for the policy, and the answer is given to the
    caller if it is the last. What policies raise comes out: ``Rejected``, ``TimedOut``,
    ``DeadlineExceeded``. Within a ``Deadline`` httpx' own timeouts are no longer than what is left.
    """

    def __init__(
        self,
        policy: Policy,
        transport: httpx.BaseTransport | None = None,
        *,
        rules: Rules | None = None,
    ) -> None:
        self._inner = httpx.HTTPTransport() if transport is None else transport
        self._shared = _Shared(rules)
        self._guard = Guard(policy, self._attempt)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Called by the client."""
        exchange, repeats = self._shared.exchange(request)
        kept: Any = None
        try:
            kept = self._guard.of(repeats)(exchange)
        except BadStatus as bad:
            kept = exchange.last(bad)
        finally:
            for given_up in exchange.end(kept):
                given_up.close()
        return kept  # type: ignore[no-any-return]

    def _attempt(self, exchange: Exchange) -> httpx.Response:
        number, given_up = exchange.begin()
        for old in given_up:
            old.close()
        response = self._inner.handle_request(self._shared.attempt(exchange, number))
        if not exchange.came(response):
            response.close()
        return self._shared.judge(response)

    def close(self) -> None:
        """Close the transport inside."""
        self._inner.close()

    def __enter__(self) -> Transport:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._inner.__exit__(kind, error, trace)


class AsyncTransport(httpx.AsyncBaseTransport):
    """``Transport`` for ``httpx.AsyncClient``."""

    def __init__(
        self,
        policy: Policy,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        rules: Rules | None = None,
    ) -> None:
        self._inner = httpx.AsyncHTTPTransport() if transport is None else transport
        self._shared = _Shared(rules)
        self._guard = Guard(policy, self._attempt)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Called by the client."""
        exchange, repeats = self._shared.exchange(request)
        kept: Any = None
        try:
            kept = await self._guard.of(repeats)(exchange)
        except BadStatus as bad:
            kept = exchange.last(bad)
        finally:
            for given_up in exchange.end(kept):
                await given_up.aclose()
        return kept  # type: ignore[no-any-return]

    async def _attempt(self, exchange: Exchange) -> httpx.Response:
        number, given_up = exchange.begin()
        for old in given_up:
            await old.aclose()
        response = await self._inner.handle_async_request(self._shared.attempt(exchange, number))
        exchange.came(response)
        return self._shared.judge(response)

    async def aclose(self) -> None:
        """Close the transport inside."""
        await self._inner.aclose()

    async def __aenter__(self) -> AsyncTransport:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)
