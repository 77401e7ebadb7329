"""One call that a breaker let through."""

from collections.abc import Callable
from typing import Any, Protocol

from everup.tolerate._outcome import Judge, Outcome
from everup.tolerate._windows import Phase

OK, FAILED, NEUTRAL = Outcome.OK, Outcome.FAILED, Outcome.NEUTRAL


class Admitting(Protocol):
    """What is needed of a breaker."""

    _judge: Judge

    def _settle(
        self, permit: "Permit", outcome: Outcome, error: BaseException | None = None
    ) -> None: ...


class Permit:
    """One call let through, to be settled once: ``ok``, ``failed`` or ``neutral``. What comes after
    the first of these is ignored. As a context manager it judges what leaves its body.

    Settle every permit. One that is lost counts nowhere, and half-open it keeps its slot until it
    expires.
    """

    __slots__ = ("_breaker", "_call", "_phase", "_settled", "_started")

    def __init__(self, breaker: Admitting, phase: Phase, started: float, call: object) -> None:
        self._breaker = breaker
        self._call = call
        self._phase = phase
        self._started = started
        self._settled = False

    @property
    def generation(self) -> int:
        """Of the breaker when it let this call through. Outcomes count in that one only."""
        return self._phase.generation

    def ok(self) -> None:
        """The call succeeded."""
        self._breaker._settle(self, OK)

    def failed(self) -> None:
        """The call failed."""
        self._breaker._settle(self, FAILED)

    def neutral(self) -> None:
        """The call says nothing: cancelled, or not made after all."""
        self._breaker._settle(self, NEUTRAL)

    def _raised(self, error: BaseException) -> None:
        self._settle(self._breaker._judge.error, error)

    def _returned(self, value: object) -> None:
        self._settle(self._breaker._judge.value, value)

    def _settle(self, judge: Callable[[Any], Outcome], what: object) -> None:
        try:
            outcome = judge(what)
        except BaseException:
            self.neutral()  # a predicate raised: the slot is free all the same
            raise
        self._breaker._settle(self, outcome, what if isinstance(what, BaseException) else None)

    def __enter__(self) -> "Permit":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.ok()
        else:
            self._raised(error)

    async def __aenter__(self) -> "Permit":
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.__exit__(kind, error, trace)
