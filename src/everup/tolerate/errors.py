"""What a policy raises of its own."""


class Rejected(Exception):  # noqa: N818 - the field's word
    """The call was not made, by a decision of a policy on this side.

    Every rejection is an object of its own. ``retry_after_s``: when trying again may help, seconds
    from now; None: not known. A rejection says nothing of the dependency: it is neutral for
    breakers and limits, and ``Retry`` repeats it only where it is told to.
    """

    __slots__ = ("policy", "reason", "retry_after_s")

    # Without super().__init__, which would set ``args`` once more: __new__ has done it. A rejection
    # is what an open breaker gives to each of thousands of calls.
    def __init__(self, policy: str, reason: str, retry_after_s: float | None = None, /) -> None:
        self.policy = policy
        self.reason = reason
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        after = "" if self.retry_after_s is None else f"; again in {self.retry_after_s:.3g} s"
        return f"{self.policy}: {self.reason}{after}"


class BreakerOpen(Rejected):
    """The breaker is open, half-open with all its probes under way, or isolated.

    ``cause``: the failure that opened it, in words (``"ConnectionError: refused"``, at most 200
    characters); empty: it was no error, or is not known.
    """

    __slots__ = ("cause",)

    def __init__(
        self, policy: str, reason: str, retry_after_s: float | None = None, cause: str = "", /
    ) -> None:
        self.policy = policy
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.cause = cause

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}; {self.cause}" if self.cause else text


class BulkheadFull(Rejected):
    """No place, and none in the queue or not within its time."""

    __slots__ = ()


class LimitReached(Rejected):
    """More calls are under way than the adaptive limit allows."""

    __slots__ = ()


class RateLimited(Rejected):
    """More calls than the rate allows."""

    __slots__ = ()


class Overloaded(Rejected):
    """Shed: calls wait too long, or this one matters too little."""

    __slots__ = ()


class NoQuorum(Exception):  # noqa: N818 - the field's word
    """Not enough versions agree. ``answers`` and ``errors`` are what there was."""

    def __init__(self, text: str, answers: list[object], errors: list[BaseException]) -> None:
        super().__init__(text, answers, errors)  # what a copy is made from
        self.answers = answers
        self.errors = errors

    def __str__(self) -> str:
        return str(self.args[0])


class TimedOut(TimeoutError):  # noqa: N818 - the field's word
    """The call took longer than its ``Timeout``."""


class DeadlineExceeded(TimeoutError):  # noqa: N818 - the field's word
    """The deadline of the whole operation is over."""


class ChaosError(Exception):
    """Injected by ``Chaos``."""
