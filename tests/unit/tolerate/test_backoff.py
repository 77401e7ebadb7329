"""Waits by attempt: their values, their bounds, and what no options may do to them."""

import asyncio
import itertools
import math
import random
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.tolerate.backoff import (
    Backoff,
    added,
    constant,
    decorrelated,
    equal,
    exponential,
    full,
    linear,
    steps,
)

LOW, MIDDLE, HIGH = (lambda: 0.0), (lambda: 0.5), (lambda: 1.0 - 2**-53)


def waits(backoff: Backoff, number: int, chance: Callable[[], float] = MIDDLE) -> list[float]:
    previous_s, given_s = 0.0, []
    for failed in range(1, number + 1):
        previous_s = backoff(failed, previous_s, chance)
        given_s.append(previous_s)
    return given_s


def test_constant() -> None:
    assert waits(constant(0.7), 3) == [0.7, 0.7, 0.7]
    assert waits(constant(), 1) == [1.0]
    assert waits(constant(0), 1) == [0]


def test_exponential_up_to_its_cap() -> None:
    assert waits(exponential(1.0, 10.0), 6) == [1, 2, 4, 8, 10, 10]
    assert waits(exponential(1.0, 100.0, factor=3.0), 4) == [1, 3, 9, 27]
    assert waits(exponential(2.0, 10.0, factor=1.0), 3) == [2, 2, 2]
    assert waits(exponential(0.0), 3) == [0, 0, 0]


def test_full_jitter_is_anything_up_to_exponential() -> None:
    assert waits(full(1.0, 10.0), 5, LOW) == [0, 0, 0, 0, 0]
    assert waits(full(1.0, 10.0), 5) == [0.5, 1, 2, 4, 5]
    assert waits(full(1.0, 10.0), 5, HIGH) == pytest.approx([1, 2, 4, 8, 10])


def test_equal_jitter_is_never_less_than_half() -> None:
    assert waits(equal(1.0, 10.0), 5, LOW) == [0.5, 1, 2, 4, 5]
    assert waits(equal(1.0, 10.0), 5) == [0.75, 1.5, 3, 6, 7.5]
    assert waits(equal(1.0, 10.0), 5, HIGH) == pytest.approx([1, 2, 4, 8, 10])


def test_decorrelated_jitter_goes_by_the_wait_before() -> None:
    assert waits(decorrelated(1.0, 10.0), 4, LOW) == [1, 1, 1, 1]
    assert waits(decorrelated(1.0, 10.0), 4) == [2.0, 3.5, 5.75, 9.125]
    assert waits(decorrelated(1.0, 10.0), 5, HIGH) == pytest.approx([3, 9, 10, 10, 10])


def test_linear_up_to_its_cap() -> None:
    assert waits(linear(2.0, 7.0), 5) == [2, 4, 6, 7, 7]
    assert waits(linear(), 2) == [1, 2]
    assert waits(linear(0), 2) == [0, 0]
    assert linear(1.0, 10.0)(10**12, 0.0, MIDDLE) == 10.0
    with pytest.raises(ValueError, match="cap_s"):
        linear(5.0, 4.0)


def test_steps_go_through_a_list_and_stay_at_its_end() -> None:
    assert waits(steps(0.1, timedelta(seconds=2), 1), 5) == [0.1, 2.0, 1, 1, 1]
    assert waits(steps(3), 2) == [3, 3]
    with pytest.raises(ValueError, match="delays_s: give one at least"):
        steps()
    with pytest.raises(ValueError, match="delays_s must be 0 or more"):
        steps(1, -1)


def test_added_jitter_is_on_top() -> None:
    assert waits(added(exponential(1.0, 4.0), 2.0), 4, LOW) == [1, 2, 4, 4]
    assert waits(added(exponential(1.0, 4.0), 2.0), 4) == [2, 3, 5, 5]
    assert waits(added(constant(0.0)), 1) == [0.5]
    for wrong in (None, asyncio.sleep, 5):
        with pytest.raises(TypeError, match="inner"):
            added(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="jitter_s"):
        added(constant(0), -1)


@pytest.mark.parametrize(
    ("backoff", "name"),
    [
        (constant(2), "constant(2)"),
        (exponential(), "exponential(0.1, 10, 2)"),
        (full(1, 5), "full(1, 5, 2)"),
        (equal(1, timedelta(minutes=1)), "equal(1, 60, 2)"),
        (decorrelated(), "decorrelated(0.1, 10, 3)"),
        (linear(2, 7), "linear(2, 7)"),
        (steps(1, 2.5), "steps(1, 2.5)"),
        (added(linear(), 0.5), "added(linear(1, 10), 0.5)"),
    ],
)
def test_each_says_what_it_is(backoff: Backoff, name: str) -> None:
    assert backoff.__qualname__ == name  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", [exponential, full, equal, decorrelated])
def test_a_retry_without_a_limit_never_overflows(make: Callable[..., Backoff]) -> None:
    backoff = make(0.1, 10.0)
    for failed in (1000, 1024, 1025, 10**6, 10**12):
        assert 0.0 <= backoff(failed, 10.0, MIDDLE) <= 10.0
    assert exponential(0.0)(10**6, 0.0, MIDDLE) == 0.0
    assert exponential(1e-300, 5.0, 1e300)(3, 0.0, MIDDLE) == 5.0  # overflows at once


@given(
    make=st.sampled_from([exponential, full, equal, decorrelated]),
    base_s=st.floats(0, 100),
    more_s=st.floats(0, 1000),
    factor=st.floats(1, 100),
    seed=st.integers(0, 2**32),
)
def test_always_within_bounds(
    make: Callable[..., Backoff], base_s: float, more_s: float, factor: float, seed: int
) -> None:
    cap_s = base_s + more_s
    given_s = waits(make(base_s, cap_s, factor), 30, random.Random(seed).random)
    most_s = waits(exponential(base_s, cap_s, factor), 30)
    assert all(0.0 <= one <= cap_s for one in given_s)
    if make is not decorrelated:
        assert all(one <= most for one, most in zip(given_s, most_s, strict=True))
        assert most_s == sorted(most_s)
    else:
        assert all(one >= base_s for one in given_s)
    if make is equal:
        assert all(one >= most / 2 for one, most in zip(given_s, most_s, strict=True))


def test_the_averages_are_those_of_the_formulas() -> None:
    chance = random.Random(4).random
    for backoff, mean_s in ((full(1.0, 64.0), 4.0), (equal(1.0, 64.0), 6.0)):
        drawn = [backoff(4, 0.0, chance) for _ in range(20_000)]
        assert sum(drawn) / len(drawn) == pytest.approx(mean_s, rel=0.02)
    drawn = [decorrelated(1.0, 64.0)(4, 5.0, chance) for _ in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(8.0, rel=0.02)


def test_clients_that_failed_together_do_not_come_back_together() -> None:
    seeds = [random.Random(seed).random for seed in range(50)]
    for backoff, apart in ((exponential(), 1), (full(), 50), (equal(), 50), (decorrelated(), 50)):
        assert len({waits(backoff, 3, seed)[-1] for seed in seeds}) == apart


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, -math.inf])
def test_options_out_of_range_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="delay_s"):
        constant(bad)
    for make in (exponential, full, equal, decorrelated):
        with pytest.raises(ValueError, match="base_s"):
            make(bad)
        with pytest.raises(ValueError, match="cap_s"):
            make(0.0, bad)
        with pytest.raises(ValueError, match="factor"):
            make(factor=bad)
    for make, factor in itertools.product((exponential, full, equal, decorrelated), (0.99, 0.0)):
        with pytest.raises(ValueError, match="factor"):
            make(factor=factor)
        with pytest.raises(ValueError, match="cap_s"):
            make(2.0, 1.0)
