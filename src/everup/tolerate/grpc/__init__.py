"""Policies around gRPC calls, in clients and in servers: calls are judged by their status codes,
only those are repeated that may be, deadlines and priorities are told on.

``sync`` in this package has the interceptors for ``grpc``, ``aio`` those for ``grpc.aio``; each
needs grpcio, and imports it. What they share is here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._options import Seconds
from everup.tolerate._served import Answered, Options, Request, check_policy
from everup.tolerate.deadline import check, remaining
from everup.tolerate.shed import priority

__all__ = ["FAILURES", "Call", "Rules"]

FAILURES = frozenset(
    {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN", "DATA_LOSS"}
)
"""Codes that are failures: the server is away, overloaded, or failed itself. All others answer."""
_PUSHBACK = "grpc-retry-pushback-ms"  # gRFC A6
_LONGEST_S = 86_400.0


class Rules:
    """How calls are treated.

    ``codes``: names of status codes that are failures, default ``FAILURES``. ``repeat``: full names
    of the methods that may be called twice, ``"/shop.Stock/Level"``, all of a service as
    ``"/shop.Stock/*"``, or True for all methods; default: none, since gRPC does not say which are
    idempotent. ``tell``: send the priority on (metadata ``priority: u=...``, RFC 9218), default
    True; the caller's own stays. The deadline always goes on. Raises ``ValueError`` for a code that
    there is not, ``TypeError`` for a text in the place of a list.
    """

    __slots__ = ("codes", "repeat", "tell")

    def __init__(
        self,
        *,
        codes: Collection[str] = FAILURES,
        repeat: Collection[str] | bool = (),
        tell: bool = True,
    ) -> None:
        for option, given in (("codes", codes), ("repeat", repeat)):
            if isinstance(given, str):
                raise TypeError(f"{option} must be a list of names, not {given!r}")
        self.codes = frozenset(codes)
        wrong = sorted(self.codes - set(_NUMBERS.values()))
        if wrong:
            raise ValueError(f"codes: {wrong[0]!r} is no status code of gRPC")
        self.repeat: frozenset[str] | bool = (
            repeat if isinstance(repeat, bool) else frozenset(repeat)
        )
        self.tell = tell

    def may_repeat(self, method: str) -> bool:
        """Whether a method, as ``"/shop.Stock/Level"``, may be called twice."""
        if isinstance(self.repeat, bool):
            return self.repeat
        return method in self.repeat or f"{method.rpartition('/')[0]}/*" in self.repeat

    def fails(self, code: str | None) -> bool:
        """Whether a status code of this name is a failure."""
        return code in self.codes


class Call:
    """One call with all its attempts: what a policy's ``key``, ``each`` and the like get.

    ``method``: its full name, ``"/shop.Stock/Level"``; ``request``: the message, or what the
    messages come from; ``number``: of the attempt or copy that began last, 1 for the first.
    """

    __slots__ = ("begin", "details", "method", "number", "request")

    def __init__(self, details: Any, request: Any, begin: Callable[..., Any]) -> None:
        method = details.method
        self.method: str = method.decode() if isinstance(method, bytes) else method
        self.details = details
        self.request = request
        self.number = 0
        self.begin = begin


class Told(NamedTuple):
    """What one attempt says: seconds, and pairs of metadata."""

    timeout: float | None
    metadata: list[tuple[str, Any]]


def told(details: Any, rules: Rules) -> Told:
    """With what is left of the deadline, and the priority. Raises ``DeadlineExceeded`` when it is
    over: nobody would wait."""
    check()
    timeout, left = details.timeout, remaining()
    if left is not None and (timeout is None or left < timeout):
        timeout = left
    metadata: list[tuple[str, Any]] = list(details.metadata or ())
    level = priority.get(None) if rules.tell else None
    if level is not None and all(name.lower() != "priority" for name, _ in metadata):
        metadata.append(("priority", f"u={min(max(int(level), 0), 7)}"))
    return Told(timeout, metadata)


def heed(error: Any) -> None:
    """Let ``Retry`` and ``Breaker`` find in an error how long its server asks to wait."""
    try:
        trailing: Iterable[Any] = error.trailing_metadata() or ()
        found = [value for name, value in trailing if name == _PUSHBACK]
        wait_s = int(found[-1]) / 1000 if found else -1.0
    except (AttributeError, TypeError, ValueError):
        return
    if wait_s >= 0:
        error.retry_after_s = wait_s


# -- servers


class Serving:
    """What interceptors of both kinds of servers do with a call."""

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        within_s: Seconds | None = None,
        retry_after_s: Seconds = 1.0,
        codes: Collection[str] = FAILURES,
        clock: Clock | None = None,
    ) -> None:
        self._policy = check_policy(policy)
        self._options = Options(within_s, None, retry_after_s, clock)
        self._rules = Rules(codes=codes)

    def _asked(self, context: Any) -> Request:
        """What a call says of itself."""
        metadata = dict(context.invocation_metadata() or ())
        left = context.time_remaining()
        if left is not None and left > _LONGEST_S:  # without a deadline, grpc says 292 years
            left = None

        def header(name: str) -> str | None:
            value = metadata.get(name)
            return value if isinstance(value, str) else None

        return Request(header, self._options, left)

    def _refusal(self, error: Exception) -> tuple[str, str, str | None] | None:
        """Code, text and pushback for what a policy raised; None: it is no policy's."""
        answer = self._options.answer(error)
        if answer is None:
            return None
        if answer[0] != 503:
            return "DEADLINE_EXCEEDED", str(error), None
        wait_s = getattr(error, "retry_after_s", None)
        if wait_s is None:
            wait_s = self._options.retry_after_s
        return "UNAVAILABLE", str(error), str(int(min(wait_s, _LONGEST_S) * 1000))

    def _judged(self, context: Any, error: Exception | None, answer: Any = None) -> Any:
        """What policies shall see of how a handler ended: an exception where it failed."""
        code = name_of(context.code())
        if error is None:
            if self._rules.fails(code):
                raise Answered(answer)
            return answer
        if code in (None, "OK") or self._rules.fails(code):
            raise error
        return Raised(error)


class Raised:
    """An error that is an answer: policies shall take it for one."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def kept(got: Any) -> Any:
    """The answer, or the error that is one."""
    if isinstance(got, Raised):
        raise got.error
    return got


def name_of(code: Any) -> str | None:
    """Of a status code, ``grpc.StatusCode`` or a number; None: there is none yet."""
    return _NUMBERS.get(code) if isinstance(code, int) else getattr(code, "name", None)


_NUMBERS = {
    0: "OK", 1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND", 6: "ALREADY_EXISTS", 7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION", 10: "ABORTED", 11: "OUT_OF_RANGE", 12: "UNIMPLEMENTED",
    13: "INTERNAL", 14: "UNAVAILABLE", 15: "DATA_LOSS", 16: "UNAUTHENTICATED",
}  # fmt: skip


def pushback(trailing: Any, after: str | None) -> tuple[tuple[str, Any], ...] | None:
    """Metadata with which a refusal ends; None: it adds nothing."""
    return None if after is None else (*(trailing or ()), (_PUSHBACK, after))
