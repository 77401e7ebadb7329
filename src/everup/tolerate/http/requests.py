"""A policy in a session of requests, as its adapter::

guard = Pipeline(Retry(attempts=3), Breaker("stock"), Timeout(1.0), name="stock")
session = requests.Session()
session.mount("http://stock.example", Adapter(guard))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter, HTTPAdapter

from everup.tolerate._base import Policy
from everup.tolerate.http import BadStatus, Exchange, Guard, Rules, retry_after, within_deadline

__all__ = ["Adapter"]


class Adapter(BaseAdapter):
    """Sends through ``adapter`` (default ``HTTPAdapter()``, which repeats nothing), guarded by
    ``policy``.

    A status that ``rules`` call a failure is one for the policy, and the answer is given to the
    caller if it is the last. What policies raise comes out. Within a ``Deadline`` or a ``Timeout``
    the timeout of requests is no longer than what is left; without one of its own, too.
    """

    def __init__(
        self, policy: Policy, adapter: BaseAdapter | None = None, *, rules: Rules | None = None
    ) -> None:
        super().__init__()
        self.rules = Rules() if rules is None else rules
        self._inner = HTTPAdapter() if adapter is None else adapter
        self._guard = Guard(policy, self._attempt)

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Called by the session."""
        options = {"stream": stream, "verify": verify, "cert": cert, "proxies": proxies}
        exchange = Exchange(request.method or "", request.url or "", request, (timeout, options))
        again = request.body is None or isinstance(request.body, (bytes, str))
        repeats = again and self.rules.may_repeat(exchange.method, request.headers)
        kept: Any = None
        try:
            kept = self._guard.of(repeats)(exchange)
        except BadStatus as bad:
            kept = exchange.last(bad)
        finally:
            for given_up in exchange.end(kept):
                given_up.close()
        return kept  # type: ignore[no-any-return]

    def _attempt(self, exchange: Exchange) -> Response:
        number, given_up = exchange.begin()
        for old in given_up:
            old.close()
        timeout, options = exchange.options
        request = exchange.request.copy()
        request.headers.update(self.rules.told(request.headers))
        host = self.rules.host(number)
        if host is not None:
            parts = urlsplit(request.url)
            request.url = parts._replace(scheme=host.scheme, netloc=host.netloc).geturl()
            request.headers.pop("Host", None)
        connect_s, read_s = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        if isinstance(connect_s, (int, float, type(None))):  # else an object of urllib3's
            timeout = within_deadline(connect_s), within_deadline(read_s)
        response = self._inner.send(request, timeout=timeout, **options)
        if not exchange.came(response):
            response.close()
        if response.status_code in self.rules.statuses:
            after = retry_after(response.headers.get("Retry-After"))
            raise BadStatus(response.status_code, response, after)
        return response

    def close(self) -> None:
        """Close the adapter inside."""
        self._inner.close()
