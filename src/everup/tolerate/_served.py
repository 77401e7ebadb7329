"""What the middlewares for servers, ASGI and WSGI, share: what a request says of itself, and what
to answer where a policy says no."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token

from everup.tolerate._base import Policy
from everup.tolerate._clock import SYSTEM, Clock
from everup.tolerate._options import Seconds, seconds
from everup.tolerate.deadline import Deadline, parse_grpc_timeout
from everup.tolerate.errors import DeadlineExceeded, Rejected, TimedOut
from everup.tolerate.http import after_header
from everup.tolerate.http._dates import waited_s
from everup.tolerate.pipeline import Pipeline
from everup.tolerate.shed import arrived, priority

Answer = tuple[int, str, str | None]
"""Status, text, and what ``Retry-After`` says."""


class Answered(Exception):  # noqa: N818 - control flow
    """The app has answered, with a status that is a failure: policies shall see it."""


class Request:
    """What one request says: how long it has waited, how little it matters, and until when its
    client waits."""

    __slots__ = ("arrived_at", "level", "within_s")

    def __init__(
        self,
        header: Callable[[str], str | None],
        options: Options,
        asked_s: float | None = None,
    ) -> None:
        now = options.clock.now()
        self.arrived_at = now - waited_s(header, options.arrival)
        self.level = _urgency(header("priority"))
        self.within_s = options.within_s
        asked = _timeout_s(header("grpc-timeout")) if asked_s is None else asked_s
        if asked is not None and (self.within_s is None or asked < self.within_s):
            self.within_s = asked
        if self.within_s is not None:  # the client has been waiting since then
            self.within_s = max(0.0, self.within_s - (now - self.arrived_at))

    def set(self) -> tuple[Token[float], Token[int] | None]:
        """For ``Shed`` and for what is asked meanwhile, which ``http`` tells."""
        return arrived.set(self.arrived_at), None if self.level is None else priority.set(
            self.level
        )

    def reset(self, tokens: tuple[Token[float], Token[int] | None]) -> None:
        """Undo it."""
        arrived.reset(tokens[0])
        if tokens[1] is not None:
            priority.reset(tokens[1])

    def guarded(self, policy: Policy, options: Options) -> Policy:
        """The policy, within the deadline if there is one."""
        if self.within_s is None:
            return policy
        return Pipeline(Deadline(self.within_s, "request", clock=options.clock), policy)


class Options:
    """Of a middleware."""

    __slots__ = ("arrival", "clock", "retry_after_s", "within_s")

    def __init__(
        self,
        within_s: Seconds | None,
        arrival: str | None,
        retry_after_s: Seconds,
        clock: Clock | None,
    ) -> None:
        self.within_s = None if within_s is None else seconds("within_s", within_s, above=True)
        if not (arrival is None or isinstance(arrival, str)):
            raise TypeError(f"arrival must be the name of a header, not {arrival!r}")
        self.arrival = None if arrival is None else arrival.lower()
        self.retry_after_s = seconds("retry_after_s", retry_after_s)
        self.clock = SYSTEM if clock is None else clock

    def answer(self, error: BaseException) -> Answer | None:
        """What to say of an error; None: it is not one of a policy."""
        if isinstance(error, Rejected):
            after = after_header(error.retry_after_s, self.retry_after_s)
            return 503, "Service Unavailable", after
        if isinstance(error, (TimedOut, DeadlineExceeded)):
            return 504, "Gateway Timeout", None
        return None


def check_policy(policy: Policy | None) -> Policy:
    """The policy of a middleware; none is one that does nothing."""
    if policy is None:
        return Pipeline(name="server")
    if not isinstance(policy, Policy):
        raise TypeError(f"expected a policy, like Shed() or Limit(), not {policy!r}")
    return policy


def _urgency(text: str | None) -> int | None:
    """Of ``Priority: u=3, i`` (RFC 9218): 0 to 7, 3 where it says none; None: no such header."""
    if text is None:
        return None
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name == "u" and len(value) == 1 and value in "01234567":
            return int(value)
    return 3


def _timeout_s(text: str | None) -> float | None:
    try:
        return None if text is None else parse_grpc_timeout(text.strip())
    except ValueError:
        return None
