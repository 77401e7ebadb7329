"""What a euro costs, asked over HTTP of another service, which may be slow, refuse, or be gone."""

from __future__ import annotations

import os
import time

import httpx

from everup.tolerate import Breaker, Consecutive, Fallback, Meter, Pipeline, Retry, Timeout
from everup.tolerate.http.httpx import AsyncTransport
from everup.tolerate.sinks import EverupSink

Rates = dict[str, float]
FRESH_S = 0.2
PRINTED: Rates = {"CHF": 0.95, "EUR": 1.0, "GBP": 0.85, "USD": 1.1}
"""Of the day of the release. Prices in other currencies are for information: these will do."""


class Exchange:
    """The rates at ``url``. While nobody gives any, those of up to ten minutes ago are used,
    and else the printed ones."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/rates"
        self.breaker = Breaker("rates", trip=Consecutive(5), open_s=1.0)
        # Each attempt may take a quarter of a second, and after five failures nobody waits at all.
        asked = Pipeline(Retry(attempts=2, backoff=0.02), self.breaker, Timeout(0.25))
        self._client = httpx.AsyncClient(transport=AsyncTransport(asked), timeout=None)
        meter = Meter("rates", watch=self.breaker)
        self._asked = Pipeline(Fallback(PRINTED, last_good_s=600.0), meter)(self._ask)
        self._fresh: Rates = {}
        self._fresh_until_s = 0.0
        # Tells everup, if that runs this service: see `everup status` and its metrics.
        self._sink = EverupSink(meter)

    async def rates(self) -> Rates:
        """As of now, a fifth of a second ago at most, or as of when they were had last."""
        now_s = time.monotonic()
        if now_s >= self._fresh_until_s:
            self._fresh = await self._asked()
            self._fresh_until_s = now_s + FRESH_S
        return self._fresh

    async def _ask(self) -> Rates:
        answer = await self._client.get(self._url)
        answer.raise_for_status()
        found: Rates = answer.json()
        return found

    async def close(self) -> None:
        """Close the connections."""
        self._sink.close()
        await self._client.aclose()


def exchange() -> Exchange:
    """At SHOP_RATES."""
    return Exchange(os.environ.get("SHOP_RATES", "http://127.0.0.1:8081"))
