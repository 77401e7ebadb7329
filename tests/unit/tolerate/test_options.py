"""Options that are no numbers, or none of those that they can be: each refusal names the option,
the value, and what is valid."""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from everup.tolerate import (
    AIMD,
    Breaker,
    Bulkhead,
    Chaos,
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
    RateLimit,
    Retry,
    RetryBudget,
    Shed,
    Timeout,
    TimeWindow,
    Vegas,
    Vote,
    backoff,
)
from everup.tolerate._options import real, whole
from everup.tolerate.sinks import EverupSink, LogSink
from everup.tolerate.testing import FakeClock

WHOLE: list[tuple[Callable[..., Any], str]] = [
    (Retry, "attempts"),
    (lambda **options: Hedge(1, **options), "attempts"),
    (lambda **options: Hedge(1, **options), "threads"),
    (lambda **options: Hedge(1, percentile=0.5, **options), "window"),
    (lambda **options: RateLimit(1, **options), "burst"),
    (lambda **options: RateLimit(kind="window", **options), "rate"),
    (Limit, "samples"),
    (Gradient2, "initial"),
    (Gradient2, "min"),
    (Gradient2, "max"),
    (Gradient2, "long_window"),
    (AIMD, "min"),
    (Vegas, "max"),
    (Vegas, "probe"),
    (Bulkhead, "limit"),
    (Bulkhead, "queue"),
    (Breaker, "probes"),
    (Breaker, "closes_after"),
    (Consecutive, "failures"),
    (CountWindow, "size"),
    (CountWindow, "least"),
    (TimeWindow, "buckets"),
    (Shed, "levels"),
    (Shed, "least"),
    (lambda **options: Fallback(1, **options), "keys"),
    (Chaos, "limit"),
    (lambda **options: Keyed(Breaker, key=str, **options), "limit"),
    (lambda **options: Timeout(1, **options), "max_hung"),
    (lambda **options: Vote(len, len, **options), "quorum"),
    (lambda **options: Vote(len, len, **options), "threads"),
    (LogSink, "burst"),
]

NUMBERS: list[tuple[Callable[..., Any], str]] = [
    (Retry, "total_s"),
    (Retry, "max_delay_s"),
    (backoff.constant, "delay_s"),
    (backoff.full, "base_s"),
    (backoff.equal, "cap_s"),
    (backoff.decorrelated, "factor"),
    (RetryBudget, "ratio"),
    (RetryBudget, "floor_per_s"),
    (RetryBudget, "window_s"),
    (Breaker, "open_s"),
    (Growing, "first_s"),
    (Growing, "factor"),
    (Growing, "cap_s"),
    (Growing, "jitter"),
    (Consecutive, "slow_s"),
    (CountWindow, "rate"),
    (TimeWindow, "window_s"),
    (TimeWindow, "slow_rate"),
    (Timeout, "seconds"),
    (Deadline, "seconds"),
    (lambda **options: Bulkhead(queue=1, **options), "wait_s"),
    (lambda **options: Bulkhead(queue=1, **options), "target_s"),
    (Bulkhead, "interval_s"),
    (Limit, "window_s"),
    (Gradient2, "smoothing"),
    (Gradient2, "tolerance"),
    (Gradient2, "queue"),
    (AIMD, "backoff"),
    (AIMD, "timeout_s"),
    (Vegas, "alpha"),
    (Vegas, "beta"),
    (Vegas, "smoothing"),
    (RateLimit, "rate"),
    (lambda **options: RateLimit(1, **options), "per_s"),
    (lambda **options: RateLimit(1, **options), "wait_s"),
    (Shed, "max_wait_s"),
    (Shed, "target_s"),
    (Shed, "interval_s"),
    (Shed, "start"),
    (Shed, "k"),
    (Shed, "window_s"),
    (Hedge, "delay_s"),
    (lambda **options: Hedge(1, **options), "percentile"),
    (lambda **options: Hedge(1, percentile=0.5, **options), "min_delay_s"),
    (lambda **options: Hedge(1, percentile=0.5, **options), "max_delay_s"),
    (Fallback, "last_good_s"),
    (Chaos, "error_rate"),
    (Chaos, "latency_rate"),
    (Chaos, "latency_s"),
    (Chaos, "window_s"),
    (LogSink, "per_s"),
    (EverupSink, "interval_s"),
    (EverupSink, "changes_per_s"),
]


def refused(make: Callable[..., Any], option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=" must be ") as wrong:
        make(**{option: value})
    assert str(wrong.value).startswith(f"{option} must be "), wrong.value
    assert str(wrong.value).endswith(f", not {value!r}"), wrong.value


@pytest.mark.parametrize(
    ("make", "option"), WHOLE, ids=[f"{n}-{option}" for n, (_, option) in enumerate(WHOLE)]
)
def test_whole_numbers(make: Callable[..., Any], option: str) -> None:
    for value in (-1, 2.5, 3.0, math.inf, math.nan, True, "3", [3]):
        if option == "rate" and (value == 3.0 or value is True):
            continue  # a rate may be written as any number
        refused(make, option, value)


@pytest.mark.parametrize(
    ("make", "option"), NUMBERS, ids=[f"{n}-{option}" for n, (_, option) in enumerate(NUMBERS)]
)
def test_numbers(make: Callable[..., Any], option: str) -> None:
    for value in (-1, math.inf, -math.inf, math.nan, True, "3", 10**400):
        refused(make, option, value)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, "1"])
def test_every_is_a_time(value: Any) -> None:
    with pytest.raises(ValueError, match="seconds must be above 0, and finite, not "):
        Meter().every(value, print)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "0 or more, and finite"),
        ({"above": True}, "above 0, and finite"),
        ({"least": 1.5}, "1.5 or more, and finite"),
        ({"most": 1.0}, "from 0 to 1"),
        ({"most": 1.0, "below": True}, "from 0 to below 1"),
        ({"most": 1.0, "above": True}, "above 0 to 1"),
        ({"most": 1.0, "above": True, "below": True}, "above 0 to below 1"),
    ],
)
def test_what_is_valid_is_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=" must be ") as wrong:
        real("x", math.nan, **options)
    assert str(wrong.value) == f"x must be {told}, not nan"
    for edge, inside in (
        (options.get("least", 0.0), not options.get("above")),
        (options.get("most", 1e300), not options.get("below")),
    ):
        if inside:
            assert real("x", edge, **options) == edge
        else:
            refused(lambda x: real("x", x, **options), "x", edge)


def test_what_is_whole_is_told() -> None:
    assert [whole("x", value, 0, 5) for value in (0, 5)] == [0, 5]
    with pytest.raises(ValueError, match=r"^x must be a whole number, 0 to 5, not 6$"):
        whole("x", 6, 0, 5)
    with pytest.raises(ValueError, match=r"^x must be a whole number, 1 or more, not 0$"):
        whole("x", 0)


# -- what is of another kind: more of it in tests/issues


async def asynchronous(*_: Any) -> bool:
    return True


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Retry(5), "attempts=5"),
        (lambda: Retry(ValueError), "on=ValueError"),
        (lambda: Retry(len.__call__.__class__), "@Retry"),
        (lambda: Retry(asynchronous), "made first: @Retry"),
        (lambda: Retry((ValueError,)), "on="),
        (lambda: Retry(b"x"), "name must be text, not b'x'$"),
        (lambda: Retry(clock=5), "clock must be a Clock"),
        (lambda: Retry(budget=5), "budget must be a RetryBudget"),
        (lambda: RetryBudget(name=5), "name must be text"),
        (lambda: Retry(when=5), "when must be a function, not 5"),
        (lambda: Retry(when=asynchronous), "when must be a plain function"),
        (lambda: Retry()(5), "5 is no function"),
        (lambda: Timeout(asynchronous), "made first"),
        (lambda: Breaker(trip=5), "trip must be"),
        (lambda: Limit(5), "estimator must be"),
        (lambda: Shed(asynchronous), "made first"),
        (lambda: Fallback(asynchronous), "would be given as it is"),
        (lambda: Fallback(function=5), "function must be a function"),
    ],
)
def test_what_is_of_another_kind(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        make()


def test_a_timedelta_that_a_header_or_an_error_gives() -> None:
    clock = FakeClock()
    retry = Retry(attempts=2, retry_after=lambda _: timedelta(seconds=3), clock=clock)
    with pytest.raises(ZeroDivisionError):
        retry.call(lambda: 1 // 0)
    assert clock.slept == [3.0]
    retry = Retry(attempts=2, backoff=lambda *_: timedelta(seconds=4), clock=clock)
    with pytest.raises(ZeroDivisionError):
        retry.call(lambda: 1 // 0)
    assert clock.slept == [3.0, 4.0]
