"""A policy in an aiohttp client, as its middleware (aiohttp 3.12 or later)::

guard = Pipeline(Retry(attempts=3), Breaker("stock"), Timeout(1.0), name="stock")
session = aiohttp.ClientSession(middlewares=(Middleware(guard),))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp.payload import BytesPayload

from everup.tolerate._base import Policy
from everup.tolerate.hedge import Hedge
from everup.tolerate.http import BadStatus, Exchange, Guard, Rules, retry_after
from everup.tolerate.pipeline import Pipeline

if TYPE_CHECKING:
    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

__all__ = ["Middleware"]


class Middleware:
    """Every request of a session that has it is guarded by ``policy``.

    A status that ``rules`` call a failure is one for the policy, and the answer is given to the
    caller if it is the last; ``raise_for_status`` of the session comes afterwards. What policies
    raise comes out. Raises ``TypeError`` for a ``Hedge``: aiohttp cannot send one request twice at
    once; guard a function that makes it.
    """

    def __init__(self, policy: Policy, *, rules: Rules | None = None) -> None:
        self.rules = Rules() if rules is None else rules
        self._guard = Guard(policy, self._attempt)
        members = policy.policies if isinstance(policy, Pipeline) else (policy,)
        if any(isinstance(one, Hedge) for one in members):
            raise TypeError(
                f"{policy.name}: aiohttp cannot send one request twice at once, as Hedge would. "
                "Guard a function that makes the request"
            )

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Called by the session."""
        again = request.body is None or isinstance(request.body, (bytes, BytesPayload))
        repeats = again and self.rules.may_repeat(request.method, request.headers)
        exchange = Exchange(
            request.method, str(request.url), request, (handler, dict(request.headers))
        )
        kept: Any = None
        try:
            kept = await self._guard.of(repeats)(exchange)
        except BadStatus as bad:
            kept = exchange.last(bad)
        finally:
            for given_up in exchange.end(kept):
                given_up.close()
        return kept  # type: ignore[no-any-return]

    async def _attempt(self, exchange: Exchange) -> ClientResponse:
        number, given_up = exchange.begin()
        for old in given_up:
            old.close()
        request: ClientRequest = exchange.request
        handler, headers = exchange.options
        if number > 1:
            host = self.rules.host(number)
            if host is not None:
                url = request.url.with_scheme(host.scheme).with_host(host.hostname or "")
                url = url.with_port(host.port)
                request.url = url
                request.update_host(url)
                request.headers["Host"] = host.netloc
        for name, value in self.rules.told(headers).items():
            request.headers[name] = value
        response: ClientResponse = await handler(request)
        exchange.came(response)
        if response.status in self.rules.statuses:
            after = retry_after(response.headers.get("Retry-After"))
            raise BadStatus(response.status, response, after)
        return response
