"""Do it again, but not for ever, not too soon, and not all at once."""

from collections.abc import Awaitable, Callable, Coroutine
from math import inf, isnan
from typing import Any, Literal, ParamSpec, TypeVar

from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._functions import plain
from everup.tolerate._options import Seconds, as_seconds, seconds, whole
from everup.tolerate._outcome import Errors, Judge, Outcome
from everup.tolerate.backoff import Backoff, constant, full
from everup.tolerate.budget import RetryBudget, check_budget, deposit_of
from everup.tolerate.deadline import current, remaining
from everup.tolerate.errors import Rejected

P = ParamSpec("P")
T = TypeVar("T")

Why = Literal["attempts", "total", "deadline", "budget", "error"]
_NOTES = {
    "attempts": "no attempts left",
    "total": "the wait would end after total_s",
    "deadline": "the wait would end after the deadline",
    "budget": "the retry budget is empty",
    "error": "not an error to repeat after",
}
_MOST_NOTES = 8  # somebody may raise one and the same exception for ever


class Retry(Policy):
    """Repeats a call that fails.

    ``attempts``: how many in all, the first included; 1 or more, default 3; None: no limit but
    ``total_s``, which is needed then.
    ``total_s``: seconds, more than 0; default None, no limit. No attempt begins later than that
    after the call: a wait that would end then is not begun (what tenacity#423 is about). Nor does
    one that would end after the current ``Deadline``. An attempt that is under way goes on:
    ``Timeout`` is what ends it.
    ``backoff``: how long to wait, see ``everup.tolerate.backoff``, or a number of seconds; default
    ``full()``. A wait of 0 is no wait at all: a loop of tasks gets no turn.
    ``on``, ``unless``, ``when``, ``result``: what a failure is, as ``Judge`` says. All other errors
    pass at once. Cancellation is never repeated, a ``Rejected`` only when ``on`` names it.
    ``retry_after``: asked about the exception, or the value that ``result`` calls a failure; gives
    the seconds that the server asks to wait, which count instead of ``backoff``: a number, or the
    digits of a ``Retry-After`` header; None, and all else: it does not say. Then, and by default,
    an attribute ``retry_after_s`` of the exception counts.
    ``max_delay_s``: no wait is longer, whoever asks for it; 0 or more, default 60.
    ``budget``: a ``RetryBudget``, best shared by all that call the same dependency. Charged
    before the wait.

    The last error is raised itself, with a note of how often and how long it was tried. A value
    that is a failure to the last is returned, as Polly and failsafe (with ``ReturnLastFailure``) do
    it: the caller can see what it is. Values that are given up are not closed.

    Events: ``retry`` (``attempt``: the number of the one that failed, ``delay_s``, ``error``: None
    after a value) and ``gave_up`` (``attempts``, ``why``: attempts, total, deadline, budget, or
    error for one that is not to be repeated, ``elapsed_s``, ``error``).

    Raises ``ValueError`` for options out of range, ``TypeError`` for an ``async def`` among the
    functions, and whatever ``when``, ``result``, ``backoff``
    and ``retry_after`` raise.
    """

    _looks = False
    _number = "attempts={!r}"

    def __init__(
        self,
        name: str = "retry",
        *,
        attempts: int | None = 3,
        total_s: Seconds | None = None,
        backoff: Backoff | Seconds | None = None,
        on: Errors = Exception,
        unless: Errors = (),
        when: Callable[[Exception], bool] | None = None,
        result: Callable[[Any], bool] | None = None,
        retry_after: Callable[[Any], Seconds | str | None] | None = None,
        max_delay_s: Seconds = 60.0,
        budget: RetryBudget | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock)
        if attempts is None:
            if total_s is None:
                raise ValueError("without a limit of attempts there must be a total_s")
        else:
            whole("attempts", attempts)
        if total_s is not None:
            total_s = seconds("total_s", total_s, above=True)
        max_delay_s = seconds("max_delay_s", max_delay_s)
        if backoff is None:
            backoff = full()
        elif not callable(backoff):
            each_s = seconds("backoff", backoff)
            if each_s > max_delay_s:
                raise ValueError(f"backoff {each_s!r} is longer than max_delay_s {max_delay_s!r}")
            backoff = constant(each_s)
        plain("backoff", backoff)
        plain("retry_after", retry_after)
        check_budget(name, budget)
        self.attempts = attempts
        self.total_s: float | None = total_s
        self.backoff: Backoff = backoff
        self.judge = Judge(on, unless, when, result)
        self.retry_after = retry_after
        self.max_delay_s: float = max_delay_s
        self.budget = budget
        self._most: float = inf if attempts is None else attempts
        self._any_error = on is Exception and not unless and when is None

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        now, sleep, bad = self.clock.now, self.clock.sleep, self.judge.result
        deposit = deposit_of(self.budget)

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            started = now()
            if deposit is not None:
                deposit()
            run: _Run | None = None
            while True:
                try:
                    value = call(*args, **kwargs)
                except Exception as error:
                    # The wait is in here, but never the next attempt: what that raises would have
                    # this one as its context. Left without a name, nothing keeps the error alive.
                    if run is None:
                        run = _Run(self, started)
                    delay_s = run.after(error, error)
                    if delay_s is None:
                        raise
                    if delay_s:
                        sleep(delay_s)
                        if run.is_over(error):
                            raise
                else:
                    if bad is None or not bad(value):
                        return value
                    if run is None:
                        run = _Run(self, started)
                    delay_s = run.after(value, None)
                    if delay_s is None:
                        return value
                    if delay_s:
                        sleep(delay_s)
                        if run.is_over(None):
                            return value

        return guarded

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        now, asleep, bad = self.clock.now, self.clock.asleep, self.judge.result
        deposit = deposit_of(self.budget)

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            started = now()
            if deposit is not None:
                deposit()
            run: _Run | None = None
            while True:
                try:
                    value = await call(*args, **kwargs)
                except Exception as error:  # as above
                    if run is None:
                        run = _Run(self, started)
                    delay_s = run.after(error, error)
                    if delay_s is None:
                        raise
                    if delay_s:
                        await asleep(delay_s)
                        if run.is_over(error):
                            raise
                else:
                    if bad is None or not bad(value):
                        return value
                    if run is None:
                        run = _Run(self, started)
                    delay_s = run.after(value, None)
                    if delay_s is None:
                        return value
                    if delay_s:
                        await asleep(delay_s)
                        if run.is_over(None):
                            return value

        return guarded

    def attempts_of(self) -> "Attempts":
        """Repeat a piece of code instead of a function::

            for attempt in retry.attempts_of():
                with attempt:
                    ...

        or the same with ``async for`` (and a plain ``with``). Ends after the first attempt that
        raises nothing, raises what is not to be repeated. Raises ``TypeError`` when ``result`` is
        set: there is none to be seen here.
        """
        if self.judge.result is not None:
            raise TypeError(f"{self.name} judges results, and an attempt by hand has none")
        return Attempts(self)


class _Run:
    """One call with all its attempts: says how long to wait for the next, None: there is none."""

    __slots__ = ("backed_off_s", "made", "retry", "started")

    def __init__(self, retry: Retry, started: float) -> None:
        self.retry = retry
        self.started = started
        self.made = 0
        self.backed_off_s = 0.0

    def after(self, subject: Any, error: Exception | None) -> float | None:
        """An attempt has failed: with an error (the subject, too), or with a value."""
        self.made += 1
        retry = self.retry
        # ``_any_error``: what the judge would say, sooner.
        if (
            error is not None
            and (not retry._any_error or isinstance(error, Rejected))
            and retry.judge.error(error) is not Outcome.FAILED
        ):
            return self._give_up("error", error)
        if self.made >= retry._most:
            return self._give_up("attempts", error)
        wish = None if retry.retry_after is None else _seconds(retry.retry_after(subject))
        if wish is None and error is not None:
            wish = _seconds(getattr(error, "retry_after_s", None))
        if wish is None:
            delay_s = retry.backoff(self.made, self.backed_off_s, retry.clock.random)
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
            retry._tell("retry", attempt=self.made, delay_s=delay_s, error=error)
        return delay_s

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
            _note(error, f"{retry.name}: {made} {times} in {elapsed_s:.3g} s; {_NOTES[why]}")
        if retry._listeners:
            retry._tell("gave_up", attempts=made, why=why, elapsed_s=elapsed_s, error=error)
        return None


def _seconds(wish: Any) -> float | None:
    """An attribute of that name may be anything at all; a header is text."""
    if hasattr(wish, "total_seconds"):
        wish = as_seconds(wish)
    if isinstance(wish, str) and len(wish) < 10 and wish.isdecimal():
        return float(wish)
    return wish if isinstance(wish, (int, float)) and not isnan(wish) else None


def _note(error: Exception, text: str) -> None:
    if len(getattr(error, "__notes__", ())) < _MOST_NOTES:
        try:
            error.add_note(text)
        except Exception:  # noqa: S110 - a frozen exception; it is itself that matters
            pass


class Attempt:
    """One attempt by hand: a context manager, of one use. ``number``: 1 for the first."""

    __slots__ = ("_delay_s", "_entered", "_error", "_run", "number")

    def __init__(self, run: _Run) -> None:
        self.number = run.made + 1
        self._run = run
        self._entered = False
        self._error: Exception | None = None
        self._delay_s: float | None = None

    def __enter__(self) -> "Attempt":
        if self._entered:
            raise RuntimeError("an attempt is good for one `with` only")
        self._entered = True
        return self

    def __exit__(self, kind: Any, error: BaseException | None, where: Any) -> bool:
        if not isinstance(error, Exception):
            return False
        self._delay_s = self._run.after(error, error)
        if self._delay_s is None:
            return False
        self._error = error
        return True


class Attempts:
    """What ``Retry.attempts_of`` gives: one call, to go through once."""

    __slots__ = ("_attempt", "_retry", "_run")

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._run: _Run | None = None
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
            run = self._run = _Run(self._retry, self._retry.clock.now())
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
