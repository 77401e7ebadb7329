"""A policy around a pool of urllib3::

guard = Pipeline(Retry(attempts=3), Breaker("stock"), Timeout(1.0), name="stock")
http = Pool(guard)
answer = http.request("GET", "http://stock.example/levels")
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from urllib3 import BaseHTTPResponse, PoolManager, Timeout

from everup.tolerate._base import Policy
from everup.tolerate.http import BadStatus, Exchange, Guard, Rules, retry_after, within_deadline

__all__ = ["Pool"]


class Pool:
    """Requests through ``pool`` (default ``PoolManager()``), guarded by ``policy``.

    urllib3's own retries are off: they would multiply. A status that ``rules`` call a failure is
    one for the policy, and the answer is given to the caller if it is the last. What policies raise
    comes out. Within a ``Deadline`` or a ``Timeout`` the timeout is no longer than what is left.
    """

    def __init__(
        self, policy: Policy, pool: PoolManager | None = None, *, rules: Rules | None = None
    ) -> None:
        self.rules = Rules() if rules is None else rules
        self.pool = PoolManager() if pool is None else pool
        self._guard = Guard(policy, self._attempt)

    def request(self, method: str, url: str, **options: Any) -> BaseHTTPResponse:
        """As ``PoolManager.request``, less ``retries``."""
        if options.get("retries"):
            raise TypeError("retries: give Pool a Retry; both would multiply")
        headers = options.get("headers")
        options["headers"] = dict(self.pool.headers if headers is None else headers)
        exchange = Exchange(method, url, None, options)
        body = options.get("body")
        again = body is None or isinstance(body, (bytes, str))
        repeats = again and self.rules.may_repeat(method, options["headers"])
        kept: Any = None
        try:
            kept = self._guard.of(repeats)(exchange)
        except BadStatus as bad:
            kept = exchange.last(bad)
        finally:
            for given_up in exchange.end(kept):
                given_up.close()
        return kept  # type: ignore[no-any-return]

    def _attempt(self, exchange: Exchange) -> BaseHTTPResponse:
        number, given_up = exchange.begin()
        for old in given_up:
            old.close()
        options = {**exchange.options, "retries": False}
        options["headers"] = {**options["headers"], **self.rules.told(options["headers"])}
        url, host = exchange.url, self.rules.host(number)
        if host is not None:
            url = urlsplit(url)._replace(scheme=host.scheme, netloc=host.netloc).geturl()
        given = options.get("timeout")
        if isinstance(given, (int, float, type(None))):
            left = within_deadline(given)
            if left is not None:
                options["timeout"] = Timeout(total=left)
        response = self.pool.request(exchange.method, url, **options)
        if not exchange.came(response):
            response.close()
        if response.status in self.rules.statuses:
            after = retry_after(response.headers.get("Retry-After"))
            raise BadStatus(response.status, response, after)
        return response
