"""Policies around an HTTP client: answers are judged by their status, those that are given up are
closed, and only what may be repeated is.

``httpx``, ``aiohttp``, ``requests`` and ``urllib3`` in this package put a policy into the client of
that name; each needs that library, and imports it. What they share is here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from everup.tolerate import deadline
from everup.tolerate._base import Policy
from everup.tolerate.hedge import Hedge
from everup.tolerate.http._dates import retry_after
from everup.tolerate.pipeline import Pipeline
from everup.tolerate.retry import Retry
from everup.tolerate.shed import priority

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = ["FAILURES", "IDEMPOTENT", "BadStatus", "Exchange", "Rules", "retry_after"]

FAILURES = frozenset({429, 500, 502, 503, 504})
"""Statuses that are failures: the server is overloaded, or failed itself."""
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods whose requests may be made twice (RFC 9110, 9.2.2)."""


class BadStatus(Exception):  # noqa: N818 - what HTTP calls it
    """The answer has a status that is a failure. Policies see it; the caller gets the answer.

    ``status``; ``answer``: the response of the client's own kind (None in a copy);
    ``retry_after_s``: what its ``Retry-After`` says, in seconds, which ``Retry`` waits for.
    """

    def __init__(self, status: int, answer: Any = None, retry_after_s: float | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.answer = answer
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"status {self.status}"

    def __reduce__(self) -> Any:
        return type(self), (self.status, None, self.retry_after_s), getattr(self, "__notes__", None)

    def __setstate__(self, notes: Any) -> None:
        for note in notes or ():
            self.add_note(note)


class Rules:
    """How requests are treated.

    ``statuses``: which are failures, default ``FAILURES``. ``methods``: which may be repeated,
    default ``IDEMPOTENT``; a request with an ``Idempotency-Key`` may be as well, whatever its
    method, and none may whose body can be read once only. ``hosts``: origins, as
    ``"http://10.0.0.2:8080"``, to which a second and later attempt or copy goes in turn; default:
    where the first went. ``tell``: send the deadline (``grpc-timeout``, what is left of it at each
    attempt) and the priority (``Priority: u=...``, RFC 9218) on, default True; a header of the
    caller's own stays. Raises ``ValueError`` for an origin that is none.
    """

    def __init__(
        self,
        *,
        statuses: Collection[int] = FAILURES,
        methods: Collection[str] = IDEMPOTENT,
        hosts: Sequence[str] = (),
        tell: bool = True,
    ) -> None:
        self.statuses = frozenset(statuses)
        self.methods = frozenset(method.upper() for method in methods)
        if isinstance(hosts, str):
            raise TypeError(f"hosts must be a list of origins, not {hosts!r}")
        self.hosts: tuple[SplitResult, ...] = tuple(map(_origin, hosts))
        self.tell = tell

    def may_repeat(self, method: str, headers: Mapping[str, Any]) -> bool:
        """Whether a request may be made twice, by its method and headers."""
        return method.upper() in self.methods or any(
            name.lower() == "idempotency-key" for name in headers
        )

    def told(self, headers: Mapping[str, Any]) -> dict[str, str]:
        """Headers to add. Raises ``DeadlineExceeded`` when it is over: nobody would wait."""
        if not self.tell:
            return {}
        found = deadline.headers()
        level = priority.get(None)
        if level is not None:
            found["priority"] = f"u={min(max(int(level), 0), 7)}"
        present = {name.lower() for name in headers}
        return {name: value for name, value in found.items() if name not in present}

    def host(self, number: int) -> SplitResult | None:
        """Where attempt ``number`` goes instead; None: where the request says."""
        if number == 1 or not self.hosts:
            return None
        return self.hosts[(number - 2) % len(self.hosts)]


def _origin(text: str) -> SplitResult:
    parts = urlsplit(text)
    right = parts.scheme in ("http", "https") and parts.hostname and parts.path in ("", "/")
    if not right or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f'hosts: expected origins like "http://10.0.0.2:8080", not {text!r}')
    return parts


def within_deadline(seconds: float | None) -> float | None:
    """A timeout, or what is left of the deadline where that is less. None: no limit."""
    left = deadline.remaining()
    if left is None:
        return seconds
    return left if seconds is None else min(seconds, left)


class Exchange:
    """One request with all its attempts: what a policy's ``key``, ``waited`` and the like get.

    ``method``, ``host``, ``url`` as they were asked for; ``request``: of the client's own kind;
    ``number``: of the attempt or copy that began last, 1 for the first.
    """

    __slots__ = ("answers", "host", "method", "number", "options", "over", "request", "url")

    def __init__(self, method: str, url: str, request: Any, options: Any = None) -> None:
        self.method = method.upper()
        self.url = url
        self.host = urlsplit(url).hostname or ""
        self.request = request
        self.options = options
        self.number = 0
        self.answers: list[Any] = []
        """Those that are open and not given to anybody yet."""
        self.over = False

    def begin(self) -> tuple[int, list[Any]]:
        """One more attempt: its number, and the answers that are given up with it."""
        self.number += 1
        given_up, self.answers = self.answers, []
        return self.number, given_up

    def came(self, answer: Any) -> bool:
        """An answer. False: nobody waits for it any more, it is to be closed."""
        self.answers.append(answer)
        return not self.over

    def last(self, bad: BadStatus) -> Any:
        """The answer that a failure is about, for the caller. Raises it where that is closed: a
        later attempt was begun, and then not made."""
        if not any(one is bad.answer for one in self.answers):
            raise bad
        return bad.answer

    def end(self, kept: Any) -> list[Any]:
        """All is over; what to close, which is all but what the caller gets."""
        self.over = True
        given_up, self.answers = [one for one in self.answers if one is not kept], []
        return given_up


class Guard:
    """A policy around the attempts of a client: one closure for what may be repeated, one without
    ``Retry`` and ``Hedge`` for what may not."""

    __slots__ = ("once", "repeated")

    def __init__(self, policy: Policy, attempt: Callable[[Any], Any]) -> None:
        if not isinstance(policy, Policy):
            raise TypeError(f"expected a policy, like Pipeline(Retry(), Breaker()), not {policy!r}")
        self.repeated = policy(attempt)
        self.once = without_repeats(policy)(attempt)

    def of(self, repeats: bool) -> Callable[[Any], Any]:
        """The closure for a request that may, or may not, be made twice."""
        return self.repeated if repeats else self.once


def without_repeats(policy: Policy) -> Policy:
    """The same, with all that it keeps, but what would make a call twice."""
    members = policy.policies if isinstance(policy, Pipeline) else (policy,)
    return Pipeline(
        *(one for one in members if not isinstance(one, (Retry, Hedge))), name=policy.name
    )


def after_header(seconds: float | None, default_s: float = 1.0) -> str:
    """A ``Retry-After`` for so many seconds, whole ones, one at least."""
    return str(max(1, ceil(default_s if seconds is None else seconds)))
