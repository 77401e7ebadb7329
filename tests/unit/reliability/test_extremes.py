"""Extreme but legal arguments: a right value, or an error that says what is wrong."""

import math
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.reliability import availability, rates, rejuvenation, repair
from everup.reliability.interval import Interval
from everup.reliability.repairable import Group, solve

POSITIVE = st.floats(min_value=5e-324, max_value=1.7e308, exclude_min=False)


@pytest.mark.parametrize("units", [54, 55, 200, 1000])
def test_groups_that_practically_never_fail(units: int) -> None:
    with pytest.raises(ValueError, match=r"solve\(Group.*beyond the range of floating-point"):
        solve(Group(units, 1, 1e-6, 1.0))


def test_groups_that_nearly_never_fail_have_their_value() -> None:
    found = solve(Group(40, 1, 1e-6, 1.0))
    # All 40 fail before one is mended: n lambda prod_(j=1..n-1) ((n-j) lambda / (j mu)).
    rate = 40e-6 * math.prod((40 - j) * 1e-6 / j for j in range(1, 40))
    assert found.frequency_per_s == pytest.approx(rate, rel=1e-3)
    assert found.mttf_s == pytest.approx(1 / rate, rel=1e-3)


def test_a_mean_is_not_told_beside_another_one() -> None:
    found = repair.summary([0.0, 1.0])
    assert found.mean_s == 0.5
    assert found.mean.value == 0.5
    assert found.mean.low <= 0.5 <= found.mean.high


@pytest.mark.parametrize("function", [repair.lognormal_mean, repair.lognormal_median])
def test_times_beyond_floating_point(function: Callable[[list[float]], Interval]) -> None:
    found = function([1.7e308, 1.6e308])  # as large as they are, they are alike
    assert found.value == pytest.approx(1.65e308, rel=0.01)
    with pytest.raises(ValueError, match="beyond the range"):
        repair.lognormal_mean([1.0, 1e300])


def _numbers(value: object) -> Iterator[tuple[str, float]]:
    if isinstance(value, Interval):
        yield from (("value", value.value or 0.0), ("low", value.low), ("high", value.high))
    elif isinstance(value, tuple):
        names = getattr(value, "_fields", ("",) * len(value))
        for name, each in zip(names, value, strict=True):
            if isinstance(each, float):
                yield name, each
            else:
                yield from _numbers(each)
    elif isinstance(value, float):
        yield "", value


@settings(max_examples=400, deadline=None)
@given(POSITIVE, POSITIVE, st.sampled_from([1e-6, 0.5, 1.0, 3.0, 50.0]), st.integers(1, 60))
def test_no_infinity_without_a_word(a: float, b: float, shape: float, units: int) -> None:
    calls: list[Callable[[], object]] = [
        lambda: solve(Group(units, 1, a, b)),
        lambda: solve(Group(units, units, a, b)),
        lambda: solve(Group(units, 1, a, b, common_cause=0.1)),
        lambda: solve(Group(units, 1, a, b, coverage=0.9, recovery_rate_per_s=b)),
        lambda: repair.summary([a, b]),
        lambda: repair.lognormal_median([a, b]),
        lambda: repair.lognormal_mean([a, b, b]),
        lambda: rates.failure_rate(units, a),
        lambda: rates.mttf_s(units, a),
        lambda: rates.compare_rates(units, a, 3, b),
        lambda: rates.pooled_rate([(units, a), (3, b)]),
        lambda: availability.point(a, b),
        lambda: availability.exponential_interval(a, b, units),
        lambda: rejuvenation.optimal(shape, a, 1.0, b),
        lambda: rejuvenation.cost_rate(a, shape, b, 1.0, 5.0),
    ]
    for call in calls:
        try:
            found = call()
        except ValueError as error:
            if "beyond the range" not in str(error) and "is not" not in str(error):
                raise
            continue
        for name, number in _numbers(found):
            assert not math.isnan(number)
            assert math.isfinite(number) or name in ("high", "interval_s")
