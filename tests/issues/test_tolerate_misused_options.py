"""Options of ``everup.tolerate`` that would count as true, or as something else, without a word:
each is refused at once, with what was probably meant."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from everup.tolerate import (
    Breaker,
    Bulkhead,
    Chaos,
    Clock,
    Consecutive,
    CountWindow,
    Deadline,
    Fallback,
    Gradient2,
    Growing,
    Hedge,
    Keyed,
    Limit,
    Meter,
    Pipeline,
    Policy,
    RateLimit,
    Retry,
    RetryBudget,
    Shed,
    Timeout,
    TimeWindow,
    Vote,
    backoff,
    pipelines,
)
from everup.tolerate.sinks import EverupSink
from everup.tolerate.testing import FakeClock


async def unheard(*_: Any) -> bool:
    return False


def yields(*_: Any) -> Any:
    yield False


class Callable_:  # noqa: N801
    async def __call__(self, *_: Any) -> bool:
        return False


JUDGES: list[Callable[..., Any]] = [
    Retry, Breaker, Limit, Meter, lambda **o: Hedge(1, **o), lambda **o: Fallback(1, **o), Shed,
]  # fmt: skip
CALLED: list[Callable[[Any], Any]] = [
    *(lambda f, make=make: make(when=f) for make in JUDGES),
    *(lambda f, make=make: make(result=f) for make in JUDGES),
    lambda f: Retry(retry_after=f),
    lambda f: Retry(backoff=f),
    lambda f: Fallback(1, key=f),
    lambda f: Keyed(f, key=str),
    lambda f: Keyed(Breaker, key=f),
    lambda f: Shed(waited=f),
    lambda f: Shed(since=f),
    lambda f: Shed("priority", matters=f, load=lambda: 0.0),
    lambda f: Shed("priority", load=f),
    lambda f: Chaos(enabled=f),
    lambda f: setattr(Chaos(), "enabled", f),
    lambda f: Chaos(errors=f),
    lambda f: Chaos(errors=[ValueError, f]),
    lambda f: Chaos(result=f, result_rate=0.5),
    lambda f: Vote(len, same=f),
    lambda f: Meter().every(1, f),
    lambda f: Retry().subscribe(f),
    lambda f: Pipeline(Retry()).subscribe(f),
    lambda f: Keyed(Breaker, key=str).subscribe(f),
    lambda f: Clock(now=f),
    lambda f: Clock(sleep=f),
    lambda f: Clock(random=f),
]


@pytest.mark.parametrize("use", CALLED)
@pytest.mark.parametrize("function", [unheard, yields, partial(unheard), Callable_()])
def test_a_function_whose_body_would_never_run_is_refused(
    use: Callable[[Any], Any], function: Any
) -> None:
    with pytest.raises(TypeError, match="plain function"):
        use(function)


@pytest.mark.parametrize(
    "use",
    [
        lambda f: Retry(when=f),
        lambda f: Retry(result=f),
        lambda f: Breaker(result=f),
        lambda f: Retry(retry_after=f),
        lambda f: Fallback(function=f),
        lambda f: Fallback(1, key=f),
        lambda f: Keyed(Breaker, key=f),
        lambda f: Retry().subscribe(f),
    ],
)
def test_what_cannot_be_called_is_refused_where_a_function_is_wanted(use: Any) -> None:
    with pytest.raises(TypeError, match="must be a function, not 5"):
        use(5)


def test_plain_functions_of_every_form_are_taken() -> None:
    class Says:
        def __call__(self, *_: Any) -> bool:
            return False

        def method(self, *_: Any) -> bool:
            return False

    for function in (len, partial(int), Says(), Says().method, lambda *_: False, bool):
        Retry(when=function, result=function, retry_after=function)  # type: ignore[arg-type]


# -- a name that is none


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: Retry(5), r"not 5; a number may be meant as attempts=5"),
        (lambda: Retry(0.5), r"attempts=0.5"),
        (lambda: Breaker(3), r"not 3; a number may be meant as trip=Consecutive\(3\)"),
        (lambda: Retry(OSError), r"exceptions are given as on=OSError"),
        (lambda: Breaker(OSError), r"exceptions are given as on=OSError"),
        (lambda: Meter(ValueError), r"on=ValueError"),
        (lambda: Retry((OSError, ValueError)), r"on=\(\.\.\.\)"),
        (lambda: Retry(None), r"name must be text, not None"),
        (lambda: Timeout(1.0, 2), r"name must be text, not 2"),
        (lambda: Deadline(1.0, 2), r"name must be text, not 2"),
        (lambda: Bulkhead(3, 2, 1), r"name must be text, not 1"),
        (lambda: RetryBudget(name=3), r"name must be text, not 3"),
        (lambda: Pipeline(name=3), r"name must be text, not 3"),
        (lambda: Hedge(1, name=b"db"), r"name must be text, not b'db'"),
    ],
)
def test_a_name_that_is_none_is_refused_with_what_was_probably_meant(make: Any, hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        make()


@pytest.mark.parametrize(
    "kind", [Retry, Breaker, Meter, Timeout, Deadline, Bulkhead, Limit, RateLimit, Shed, Hedge,
             Fallback],
)  # fmt: skip
@pytest.mark.parametrize("function", [lambda: 1, unheard, Callable_.__call__])
def test_a_policy_used_as_a_decorator_without_parentheses_is_refused_at_once(
    kind: Any, function: Any
) -> None:
    with pytest.raises(TypeError):
        kind(function)


def test_vote_used_without_parentheses_says_so_at_the_call() -> None:
    @Vote  # type: ignore[arg-type]
    def double(x: int) -> int:
        return 2 * x

    with pytest.raises(TypeError, match="3 is no function"):
        double(3)  # type: ignore[type-var]


@pytest.mark.parametrize("given", [3, None, "f"])
def test_what_cannot_be_called_is_not_guarded(given: Any) -> None:
    for use in (Retry(), Retry().call, Pipeline(Retry()), Pipeline(Retry()).call):
        with pytest.raises(TypeError, match="is no function"):
            use(given)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Breaker(trip=5), "trip must be Consecutive"),
        (lambda: Retry(budget=5), "budget must be a RetryBudget, not 5"),
        (lambda: Limit(20), "estimator must be Gradient2"),
        (lambda: Retry(clock=5), "clock must be a Clock, not 5"),
        (lambda: Hedge(1, budget=5), "budget must be a RetryBudget, not 5"),
    ],
)
def test_a_part_of_another_kind_is_refused(make: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        make()


# -- durations


def second(count: float) -> timedelta:
    return timedelta(seconds=count)


@pytest.mark.parametrize(
    ("made", "attribute", "seconds"),
    [
        (lambda: Retry(total_s=second(5)), "total_s", 5.0),
        (lambda: Retry(max_delay_s=second(5)), "max_delay_s", 5.0),
        (lambda: Timeout(second(1.5)), "seconds", 1.5),
        (lambda: Deadline(second(1.5)), "seconds", 1.5),
        (lambda: RateLimit(1, second(2), wait_s=second(3)), "wait_s", 3.0),
        (lambda: RateLimit(1, second(2)), "per_s", 2.0),
        (lambda: Limit(window_s=second(2)), "window_s", 2.0),
        (lambda: Fallback(1, last_good_s=second(9)), "last_good_s", 9.0),
        (lambda: Hedge(second(0.1)), "delay_s", 0.1),
        (lambda: Hedge(second(0.1), percentile=0.9, min_delay_s=second(0.01)), "min_delay_s", 0.01),
        (lambda: Hedge(second(0.1), percentile=0.9, max_delay_s=second(4)), "max_delay_s", 4.0),
        (lambda: Chaos(window_s=second(7)), "window_s", 7.0),
        (lambda: Growing(second(5), cap_s=second(50)), "cap_s", 50.0),
        (lambda: Growing(second(5)), "first_s", 5.0),
        (lambda: Consecutive(slow_s=second(2)), "slow_s", 2.0),
        (lambda: CountWindow(slow_s=second(2)), "slow_s", 2.0),
        (lambda: TimeWindow(second(20), slow_s=second(2)), "window_s", 20.0),
        (lambda: RetryBudget(window_s=second(20)), "window_s", 20.0),
    ],
)
def test_a_duration_may_be_a_timedelta(made: Any, attribute: str, seconds: float) -> None:
    assert getattr(made(), attribute) == seconds


def test_every_other_duration_may_be_a_timedelta_too() -> None:
    Bulkhead(1, 1, wait_s=second(1), target_s=second(0.01), interval_s=second(1))
    Shed(max_wait_s=second(1), target_s=second(0.1), interval_s=second(1))
    Shed("throttle", window_s=second(30))
    Chaos(latency_s=(second(0.1), second(0.2)))
    Chaos(latency_s=second(0.1))
    Breaker(open_s=second(3))
    EverupSink(interval_s=second(3))
    Gradient2()
    for make in (backoff.constant, backoff.full, backoff.exponential, backoff.decorrelated):
        assert make(second(2))(1, 0.0, lambda: 0.0) in (2.0, 0.0)
    assert backoff.full(1.0, second(3))(9, 0.0, lambda: 1.0) == 3.0
    Meter().every(second(1), lambda: None)
    clock = FakeClock(start=0.0)
    clock.advance(second(3))
    assert clock.time == 3.0
    assert pipelines({"pipeline": {"a": [{"policy": "timeout", "seconds": second(3)}]}})


@pytest.mark.parametrize("seconds", [-1, 0])
def test_a_timedelta_out_of_range_is_refused_as_a_number_is(seconds: int) -> None:
    with pytest.raises(ValueError, match="seconds must be above 0"):
        Timeout(second(seconds))


class Busy(Exception):  # noqa: N818
    retry_after_s: Any = None


@pytest.mark.parametrize("wish", [timedelta(seconds=7), 7, "7", 7.0])
def test_what_retry_after_gives_may_be_a_timedelta(wish: Any) -> None:
    for retry_after, attribute in ((lambda _: wish, None), (None, wish)):
        clock = FakeClock()
        retry: Policy = Retry(attempts=2, retry_after=retry_after, clock=clock)

        def call(attribute: Any = attribute) -> None:
            error = Busy()
            error.retry_after_s = attribute
            raise error

        with pytest.raises(Busy):
            retry.call(call)
        assert clock.slept == [7.0]


def test_what_a_backoff_and_a_wait_give_may_be_a_timedelta() -> None:
    clock = FakeClock()
    retry = Retry(attempts=2, backoff=lambda *_: second(4), clock=clock)  # type: ignore[arg-type, return-value]
    with pytest.raises(Busy):
        retry.call(_raise)
    assert clock.slept == [4.0]
    assert Shed(waited=lambda: second(0.1)).call(lambda: 1) == 1


def _raise() -> None:
    raise Busy
