"""Do it again, but not for ever, not too soon, and not all at once."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from math import inf
from typing import Any, ParamSpec, TypeVar, cast

from everup.tolerate._attempts import Attempt, Attempts, Run, attempt
from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._functions import plain
from everup.tolerate._options import Seconds, seconds, whole
from everup.tolerate._outcome import Errors, Judge
from everup.tolerate.backoff import Backoff, constant, full, steps
from everup.tolerate.budget import RetryBudget, check_budget, deposit_of

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["Attempt", "Attempts", "Retry"]


class Retry(Policy):
    """Repeats a call that fails.

    ``attempts``: how many in all, the first included; 1 or more, default 3; None: no limit but
    ``total_s``, which is needed then.
    ``total_s``: seconds, more than 0; default None, no limit. No attempt begins later than that
    after the call: a wait that would end then is not begun (what tenacity#423 is about). Nor does
    one that would end after the current ``Deadline``. An attempt that is under way goes on:
    ``Timeout`` is what ends it.
    ``backoff``: how long to wait, see ``everup.tolerate.backoff``, or a number of seconds, or a
    list of them, of which the last goes on; default ``full()``. A wait of 0 is no wait at all: a
    loop of tasks gets no turn.
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

    What is called finds in ``attempt`` the number of the attempt, from the second on.

    Events: ``retry`` (``attempt``: the number of the one that failed, ``delay_s``, ``error``: None
    after a value), ``recovered`` (``attempts``, ``elapsed_s``) where a later attempt was well, and
    ``gave_up`` (``attempts``, ``why``: attempts, total, deadline, budget, or error for one that is
    not to be repeated, ``elapsed_s``, ``error``).

    Raises ``ValueError`` for options out of range, ``TypeError`` for an ``async def`` among the
    functions, and whatever ``when``, ``result``, ``backoff`` and ``retry_after`` raise.
    """

    _looks = False
    _number = "attempts={!r}"

    def __init__(
        self,
        name: str = "retry",
        *,
        attempts: int | None = 3,
        total_s: Seconds | None = None,
        backoff: Backoff | Seconds | Sequence[Seconds] | None = None,
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
        elif isinstance(backoff, (tuple, list)):
            backoff = steps(*backoff)
        elif not callable(backoff):
            each_s = seconds("backoff", cast(Seconds, backoff))
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
        get_attempt, set_attempt = attempt.get, attempt.set
        deposit = deposit_of(self.budget)

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            started = now()
            if deposit is not None:
                deposit()
            run: Run | None = None
            before = 0  # what ``attempt`` was; 0: it is as it was
            try:
                while True:
                    try:
                        value = call(*args, **kwargs)
                    except Exception as error:
                        # The wait is in here, but never the next attempt: what that raises would
                        # have this one as its context. Left without a name, nothing keeps it alive.
                        if run is None:
                            run = Run(self, started, call)
                        delay_s = run.after(error, error)
                        if delay_s is None:
                            raise
                        if delay_s:
                            sleep(delay_s)
                            if run.is_over(error):
                                raise
                    else:
                        if run is None:
                            if bad is None or not bad(value):
                                return value
                            run = Run(self, started, call)
                        elif bad is None or not bad(value):
                            run.end(before)
                            run.succeeded()
                            return value
                        delay_s = run.after(value, None)
                        if delay_s is None:
                            run.end(before)
                            return value
                        if delay_s:
                            sleep(delay_s)
                            if run.is_over(None):
                                run.end(before)
                                return value
                    before = before or get_attempt()
                    set_attempt(run.made + 1)
            except BaseException:  # instead of finally, which costs where all is well
                if before:
                    set_attempt(before)
                raise

        return guarded

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        now, asleep, bad = self.clock.now, self.clock.asleep, self.judge.result
        get_attempt, set_attempt = attempt.get, attempt.set
        deposit = deposit_of(self.budget)

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            started = now()
            if deposit is not None:
                deposit()
            run: Run | None = None
            before = 0  # what ``attempt`` was; 0: it is as it was
            try:
                while True:
                    try:
                        value = await call(*args, **kwargs)
                    except Exception as error:  # as above
                        if run is None:
                            run = Run(self, started, call)
                        delay_s = run.after(error, error)
                        if delay_s is None:
                            raise
                        if delay_s:
                            await asleep(delay_s)
                            if run.is_over(error):
                                raise
                    else:
                        if run is None:
                            if bad is None or not bad(value):
                                return value
                            run = Run(self, started, call)
                        elif bad is None or not bad(value):
                            run.end(before)
                            run.succeeded()
                            return value
                        delay_s = run.after(value, None)
                        if delay_s is None:
                            run.end(before)
                            return value
                        if delay_s:
                            await asleep(delay_s)
                            if run.is_over(None):
                                run.end(before)
                                return value
                    before = before or get_attempt()
                    set_attempt(run.made + 1)
            except BaseException:
                if before and run is not None:
                    run.end(before)
                raise

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
