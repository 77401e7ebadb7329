"""One call with all its attempts: what ``Retry`` decides after each, in a closure or by hand."""

from contextvars import ContextVar
from math import isnan
from typing import Any, Literal, Protocol

from everup.tolerate._clock import Clock
from everup.tolerate._options import as_seconds
from everup.tolerate._outcome import Judge, Outcome
from everup.tolerate.backoff import Backoff
from everup.tolerate.budget import RetryBudget
from everup.tolerate.deadline import current, remaining
from everup.tolerate.errors import Rejected

__all__ = ["Attempt", "Attempts", "attempt"]

attempt: ContextVar[int] = ContextVar("everup.tolerate.attempt", default=1)
"""Which attempt of a ``Retry``, or copy of a ``Hedge``, is under way: 2 or more, of the innermost
that is at its second or a later one; else 1. For who is called: another host, a mark in the log."""

Why = Literal["attempts", "total", "deadline", "budget", "error"]
_NOTES = {
    "attempts": "no attempts left",
    "total": "the wait would end after total_s",
    "deadline": "the wait would end after the deadline",
    "budget": "the retry budget is empty",
    "error": "not an error to repeat after",
}
_JUDGED = (Rejected, ExceptionGroup)
FAILED = Outcome.FAILED  # a look at a member of an enum costs 100 ns before CPython 3.12
_MOST_NOTES = 8  # somebody may raise one and the same exception for ever


class Repeating(Protocol):
    """What is needed of a ``Retry``."""

    name: str
    clock: Clock
    judge: Judge
    backoff: Backoff
    retry_after: Any
    total_s: float | None
    max_delay_s: float
    budget: RetryBudget | None
    _most: float
    _any_error: bool
    _off: list[object]
    _listeners: tuple[Any, ...]

    def _tell(self, kind: str, call: object = None, /, **detail: Any) -> None: ...


class Run:
    """One call with all its attempts: says how long to wait for the next, None: there is none."""

    __slots__ = ("backed_off_s", "call", "made", "retry", "started")

    def __init__(self, retry: Repeating, started: float, call: object) -> None:
        self.retry = retry
        self.started = started
        self.call = call
        self.made = 0
        self.backed_off_s = 0.0

    def after(self, subject: Any, error: Exception | None) -> float | None:
        """An attempt has failed: with an error (the subject, too), or with a value."""
        retry = self.retry
        self.made = made = self.made + 1
        if retry._off:
            return None
        # ``_any_error``: what the judge would say, sooner.
        if (
            error is not None
            and (not retry._any_error or isinstance(error, _JUDGED))
            and retry.judge.error(error) is not FAILED
        ):
            return self._give_up("error", error)
        if made >= retry._most:
            return self._give_up("attempts", error)
        wish = None
        if retry.retry_after is not None:
            wish = _seconds(retry.retry_after(subject))
        if wish is None and error is not None:
            wish = getattr(error, "retry_after_s", None)
            if wish is not None:
                wish = _seconds(wish)
        if wish is None:
            delay_s = retry.backoff(made, self.backed_off_s, retry.clock.random)
            if type(delay_s) is not float:
                delay_s = as_seconds(delay_s)
            self.backed_off_s = delay_s
        else:
            delay_s = wish
        if not delay_s > 0.0:
            delay_s = 0.0
        elif delay_s > retry.max_delay_s:
            delay_s = retry.max_delay_s
        if retry.total_s is not None or current.get() is not None:
            why = self._too_late(delay_s)
            if why is not None:
                return self._give_up(why, error)
        # Last, so that nothing is paid for an attempt that is not made; but before the wait.
        budget = retry.budget
        if budget is not None and not budget.withdraw():
            return self._give_up("budget", error)
        if retry._listeners:
            retry._tell("retry", self.call, attempt=made, delay_s=delay_s, error=error)
        return delay_s

    def end(self, before: int) -> None:
        """Leave ``attempt`` as it was; 0: it is. A coroutine may be closed in another context,
        which has a value of its own."""
        if before and attempt.get() - self.made in (0, 1):
            attempt.set(before)

    def succeeded(self) -> None:
        """It was well."""
        retry = self.retry
        if retry._listeners:
            elapsed_s = retry.clock.now() - self.started
            retry._tell("recovered", self.call, attempts=self.made + 1, elapsed_s=elapsed_s)

    def is_over(self, error: Exception | None) -> bool:
        """After a wait, which may have taken longer than it should."""
        why = self._too_late(0.0)
        if why is None:
            return False
        self._give_up(why, error)
        return True

    def _too_late(self, delay_s: float) -> Why | None:
        retry, total_s = self.retry, self.retry.total_s
        if total_s is not None and retry.clock.now() - self.started + delay_s >= total_s:
            return "total"
        left_s = remaining()
        if left_s is not None and delay_s >= left_s:
            return "deadline"
        return None

    def _give_up(self, why: Why, error: Exception | None) -> float | None:
        """None, always."""
        retry = self.retry
        elapsed_s = retry.clock.now() - self.started
        made = self.made
        if error is not None and (made > 1 or why != "error"):
            times = "attempt" if made == 1 else "attempts"
            note = f"{retry.name}: {made} {times} in {elapsed_s:.3g} s; {_NOTES[why]}"
            try:
                if len(getattr(error, "__notes__", ())) < _MOST_NOTES:
                    error.add_note(note)
            except Exception:  # noqa: S110 - a frozen exception; it is itself that matters
                pass
        if retry._listeners:
            retry._tell(
                "gave_up", self.call, attempts=made, why=why, elapsed_s=elapsed_s, error=error
            )
        return None


def _seconds(wish: Any) -> float | None:
    """An attribute of that name may be anything at all; a header is text."""
    if hasattr(wish, "total_seconds"):
        wish = as_seconds(wish)
    if isinstance(wish, str) and len(wish) < 10 and wish.isdecimal():
        return float(wish)
    return wish if isinstance(wish, (int, float)) and not isnan(wish) else None


class Attempt:
    """One attempt by hand: a context manager, of one use. ``number``: 1 for the first."""

    __slots__ = ("_before", "_delay_s", "_entered", "_error", "_run", "number")

    def __init__(self, run: Run) -> None:
        self.number = run.made + 1
        self._run = run
        self._before = 0
        """What ``attempt`` was; 0: it is as it was."""
        self._entered = False
        self._error: Exception | None = None
        self._delay_s: float | None = None

    def __enter__(self) -> "Attempt":
        if self._entered:
            raise RuntimeError("an attempt is good for one `with` only")
        self._entered = True
        if self.number > 1:
            self._before = attempt.get()
            attempt.set(self.number)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, where: Any) -> bool:
        run = self._run
        try:
            if not isinstance(error, Exception):
                if error is None and self._before:
                    run.succeeded()
                return False
            self._delay_s = run.after(error, error)
            if self._delay_s is None:
                return False
            self._error = error
            return True
        finally:
            # In another context a generator was closed: it has a value of its own.
            if self._before and attempt.get() == self.number:
                attempt.set(self._before)


class Attempts:
    """What ``Retry.attempts_of`` gives: one call, to go through once."""

    __slots__ = ("_attempt", "_retry", "_run")

    def __init__(self, retry: Repeating) -> None:
        self._retry = retry
        self._run: Run | None = None
        self._attempt: Attempt | None = None

    def __iter__(self) -> "Attempts":
        return self

    def __aiter__(self) -> "Attempts":
        return self

    def __next__(self) -> Attempt:
        delay_s = self._wait_s()
        if delay_s is None:
            raise StopIteration
        if delay_s:
            self._retry.clock.sleep(delay_s)
        return self._begin(delay_s)

    async def __anext__(self) -> Attempt:
        delay_s = self._wait_s()
        if delay_s is None:
            raise StopAsyncIteration
        if delay_s:
            await self._retry.clock.asleep(delay_s)
        return self._begin(delay_s)

    def _wait_s(self) -> float | None:
        """Seconds until the next attempt; None: there is none."""
        if self._attempt is None:
            return 0.0
        if not self._attempt._entered:
            raise RuntimeError("each attempt must be used: `with attempt:`")
        return self._attempt._delay_s

    def _begin(self, waited_s: float) -> Attempt:
        run, last = self._run, self._attempt
        if run is None or last is None:
            run = self._run = Run(self._retry, self._retry.clock.now(), None)
            if self._retry.budget is not None:
                self._retry.budget.deposit()
        else:
            error, last._error = last._error, None
            last._delay_s = None  # whatever happens next, it is over with this one
            try:
                if error is not None and waited_s and run.is_over(error):
                    raise error
            finally:
                del error  # its traceback holds this frame
        self._attempt = Attempt(run)
        return self._attempt
