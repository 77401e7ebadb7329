"""Repair times: log-normal, distribution-free and bootstrap intervals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from everup.reliability.repair import (
    Recovery,
    bootstrap,
    lognormal_mean,
    lognormal_median,
    quantile_interval,
    recovery_summary,
    summary,
)

CO_PPM = [12.5, 20, 4, 20, 25, 170, 15, 20, 15]
VALUES = st.lists(st.floats(0.01, 1e5), min_size=2, max_size=40)


def test_olsson_example() -> None:
    """Olsson, J. Statistics Education 13(1), 2005, carbon monoxide example: the modified Cox
    interval of the mean is 12.31 to 78.72 (12.30929 and 78.72254 in the R listing of the answer at
    stats.stackexchange.com/q/112829)."""
    found = lognormal_mean(CO_PPM, method="olsson")
    assert round(found.low, 5) == 12.30929
    assert round(found.high, 5) == 78.72254


@settings(deadline=None)  # a busy machine is no failure
@given(VALUES, st.floats(0.5, 0.99))
def test_median_is_students_interval_of_the_logarithms(
    values: list[float], confidence: float
) -> None:
    logs = np.log(values)
    found = lognormal_median(values, confidence)
    assert found.value == pytest.approx(stats.gmean(values), rel=1e-9)
    reach = stats.t.isf((1 - confidence) / 2, len(values) - 1) * logs.std(ddof=1)
    reach /= math.sqrt(len(values))
    assert found.high == pytest.approx(np.exp(logs.mean() + reach), rel=1e-7)
    assert found.low == pytest.approx(np.exp(logs.mean() - reach), rel=1e-7)


def test_mover_closed_form() -> None:
    logs = np.log(CO_PPM)
    n, m, v = len(logs), logs.mean(), logs.var(ddof=1)
    t = stats.t.isf(0.025, n - 1)
    low2 = v / 2 * (1 - (n - 1) / stats.chi2.isf(0.025, n - 1))
    high2 = v / 2 * ((n - 1) / stats.chi2.ppf(0.025, n - 1) - 1)
    found = lognormal_mean(CO_PPM)
    centre = m + v / 2
    assert found.value == pytest.approx(math.exp(centre), rel=1e-9)
    assert found.low == pytest.approx(
        math.exp(centre - math.sqrt(t * t * v / n + low2**2)), rel=1e-9
    )
    assert found.high == pytest.approx(
        math.exp(centre + math.sqrt(t * t * v / n + high2**2)), rel=1e-9
    )


@settings(deadline=None)  # a busy machine is no failure
@given(VALUES, st.floats(0.1, 1000))
def test_units_do_not_matter(values: list[float], factor: float) -> None:
    """Seconds or minutes: the interval only scales (no value reaches the floor here)."""
    scaled = [v * factor for v in values]
    for method in ("mover", "olsson", "cox"):
        one = lognormal_mean(values, floor_s=1e-9, method=method)  # type: ignore[arg-type]
        other = lognormal_mean(scaled, floor_s=1e-9, method=method)  # type: ignore[arg-type]
        if one.high < 1e200:
            assert other.low == pytest.approx(one.low * factor, rel=1e-6)
            assert other.high == pytest.approx(one.high * factor, rel=1e-6)


def test_few_values_are_told_honestly() -> None:
    empty = summary([])
    assert (empty.number, empty.median_s, empty.p95_s, empty.mean_s) == (0, None, None, None)
    assert empty.mean == empty.median == (None, 0.0, math.inf, 0.95)
    one = summary([7.0])
    assert (one.number, one.median_s, one.p95_s, one.mean_s) == (1, 7.0, 7.0, 7.0)
    assert (one.mean.low, one.mean.high) == (0.0, math.inf)
    assert one.mean.value == pytest.approx(7.0)
    two = summary([5.0, 9.0])
    assert two.mean.low < 1 < 7 < 100 < two.mean.high < math.inf


def test_wildly_different_times_do_not_overflow() -> None:
    assert lognormal_mean([1e-3, 1e5]).high == math.inf


def test_zero_counts_as_the_floor() -> None:
    assert lognormal_mean([0.0, 1.0, 2.0]) == lognormal_mean([0.001, 1.0, 2.0])


def test_summary_against_numpy() -> None:
    found = summary(CO_PPM)
    assert found.median_s == np.median(CO_PPM)
    assert found.p95_s == pytest.approx(np.quantile(CO_PPM, 0.95))
    assert found.mean_s == pytest.approx(np.mean(CO_PPM))


def test_the_parts_add_up() -> None:
    recoveries = [Recovery(1, 0.5, 10), Recovery(2, 0.1, 20), Recovery(0.3, 0, 7)]
    found = recovery_summary(recoveries)
    assert recoveries[0].total_s == 11.5
    parts = (found.detect, found.decide, found.recover)
    assert found.total.mean_s == pytest.approx(sum(part.mean_s or 0 for part in parts))


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(1, 300), st.floats(0.02, 0.98), st.floats(0.5, 0.99))
def test_order_statistics_leave_out_what_they_may(n: int, q: float, confidence: float) -> None:
    """With values 0..n-1 the bounds are ranks, and binomial tails tell what they leave out."""
    found = quantile_interval([float(i + 1) for i in range(n)], q, confidence)
    tail = (1 - confidence) / 2
    below = stats.binom(n, q)
    if found.low > 0:
        assert below.cdf(found.low - 1) <= tail + 1e-12
        assert below.cdf(found.low) > tail - 1e-12
    else:
        assert below.cdf(0) > tail - 1e-12
    if found.high < math.inf:
        assert below.sf(found.high - 1) <= tail + 1e-12
    else:
        assert below.sf(n - 1) > tail - 1e-12


def test_upper_bound_of_a_far_quantile_needs_72_values() -> None:
    values = [float(i) for i in range(72)]
    assert quantile_interval(values[:71], 0.95).high == math.inf
    assert quantile_interval(values, 0.95).high == 71.0


@pytest.mark.parametrize("statistic", ["mean", "median", "p95"])
@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_bootstrap_against_scipy(statistic: str, method: str) -> None:
    """scipy.stats.bootstrap with as many resamples and another order of random numbers: equal
    within the noise of the resampling."""
    values = np.random.default_rng(5).lognormal(1, 0.8, 60)
    function = {
        "mean": np.mean,
        "median": np.median,
        "p95": lambda x, axis: np.quantile(x, 0.95, axis=axis),
    }[statistic]
    found = bootstrap(
        values.tolist(),
        np.random.default_rng(1),
        statistic,  # type: ignore[arg-type]
        resamples=8000,
        method=method,  # type: ignore[arg-type]
    )
    other = stats.bootstrap(
        (values,),
        function,
        n_resamples=8000,
        method="BCa" if method == "bca" else "percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = other.high - other.low
    assert found.low == pytest.approx(other.low, abs=0.06 * width)
    assert found.high == pytest.approx(other.high, abs=0.06 * width)
    assert found.value == pytest.approx(function(values, axis=0))


def test_bootstrap_has_no_hidden_randomness() -> None:
    runs = [bootstrap(CO_PPM, np.random.default_rng(3)) for _ in range(2)]
    assert runs[0] == runs[1] != bootstrap(CO_PPM, np.random.default_rng(4))
    assert bootstrap([4.0], np.random.default_rng(3)) == (4.0, 0.0, math.inf, 0.95)
    assert bootstrap([], np.random.default_rng(3)).value is None
    assert bootstrap([2.0, 2.0], np.random.default_rng(3))[:3] == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: summary([1, -2.0]), "values_s: -2.0"),
        (lambda: summary([1, math.nan]), "values_s: nan"),
        (lambda: lognormal_mean([1, 2], 2), "confidence: 2"),
        (lambda: lognormal_mean([1, 2], method="best"), "method: 'best'"),  # type: ignore[arg-type]
        (lambda: lognormal_median([1, 2], floor_s=0), "floor_s: 0"),
        (lambda: quantile_interval([1, 2], 1.0), "q: 1.0"),
        (lambda: bootstrap([1, 2], np.random.default_rng(1), resamples=5), "resamples: 5"),
    ],
)
def test_wrong_arguments_are_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
