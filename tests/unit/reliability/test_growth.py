"""Crow-AMSAA and trend tests against published examples, closed forms and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from everup.reliability.growth import (
    Window,
    cramer_von_mises,
    laplace_test,
    mil_hdbk_189_test,
    mtbf_bounds,
    power_law,
    trend,
)

THREE_SYSTEMS = (
    (4.3, 4.4, 10.2, 23.5, 23.8, 26.4, 74.0, 77.1, 92.1, 197.2),
    (0.1, 5.6, 18.6, 19.5, 24.2, 26.7, 45.1, 45.8, 75.7, 79.7, 98.6, 120.1, 161.8, 180.6, 190.8),
    (8.4, 32.5, 44.7, 48.4, 50.6, 73.6, 98.7, 112.2, 129.8, 136.0, 195.8),
)
PROTOTYPE = (
    *(2.7, 10.3, 12.5, 30.6, 57.0, 61.3, 80.0, 109.5, 125.0, 128.6, 143.8, 167.9, 229.2, 296.7),
    *(320.6, 328.2, 366.2, 396.7, 421.1, 438.2, 501.2, 620.0),
)
IMPROVEMENT = (5.0, 40.0, 43.0, 175.0, 389.0, 712.0, 747.0, 795.0, 1299.0, 1478.0)
SHARES = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=30)


def test_crow_three_systems() -> None:
    """Crow, Reliability Analysis for Complex, Repairable Systems, AMSAA TR 138 (1975), and
    MIL-HDBK-189: three systems observed for 200 h, 36 failures, beta 0.615, lambda 0.461."""
    law = power_law([Window(times, 200.0) for times in THREE_SYSTEMS])
    assert law is not None
    assert law.failures == 36
    assert round(law.beta, 3) == 0.615
    assert round(law.scale, 3) == 0.461


def test_reliawiki_failure_terminated_prototype() -> None:
    """ReliaWiki, Crow-AMSAA (NHPP), parameter estimation: 22 failures, ended by the one at 620 h:
    beta 0.6142, lambda 0.4239; instantaneous MTBF about 46 h."""
    law = power_law([Window(PROTOTYPE, 620.0, "failure")])
    assert law is not None
    assert law.mtbf_s is not None
    assert (round(law.beta, 4), round(law.scale, 4)) == (0.6142, 0.4239)
    assert law.mtbf_s.value == pytest.approx(1 / law.rate_per_s(620.0), rel=1e-12)
    assert round(law.mtbf_s.value or 0) == 46
    assert law.expected_failures(620.0) == pytest.approx(22, rel=1e-12)
    assert law.beta_unbiased == pytest.approx(law.beta * 20 / 22, rel=1e-12)


def test_improvement_data_of_nist() -> None:
    """The repair times of case study 1 of NIST/SEMATECH e-Handbook 8.2.2.3, ended at 1500 h, by the
    closed form of the Military Handbook test: an improvement."""
    windows = [Window(IMPROVEMENT, 1500.0)]
    test = mil_hdbk_189_test(windows)
    assert test.statistic == pytest.approx(2 * sum(math.log(1500 / t) for t in IMPROVEMENT))
    assert test.used == 10
    assert test.p_value == pytest.approx(2 * stats.chi2.sf(test.statistic, 20), rel=1e-9)
    assert trend(windows).verdict == "less frequent"


@pytest.mark.parametrize(
    ("used", "table"),
    [
        (2, {0.2: 0.138, 0.15: 0.149, 0.1: 0.162, 0.05: 0.175, 0.01: 0.186}),
        (3, {0.2: 0.121, 0.15: 0.135, 0.1: 0.154, 0.05: 0.184, 0.01: 0.23}),
        (5, {0.2: 0.121, 0.15: 0.137, 0.1: 0.160, 0.05: 0.199, 0.01: 0.30}),
        (10, {0.2: 0.125, 0.15: 0.142, 0.1: 0.167, 0.05: 0.212, 0.01: 0.32}),
        (20, {0.2: 0.128, 0.15: 0.146, 0.1: 0.172, 0.05: 0.217, 0.01: 0.33}),
        (30, {0.2: 0.128, 0.15: 0.146, 0.1: 0.172, 0.05: 0.218, 0.01: 0.33}),
    ],
)
def test_critical_values_of_cramer_von_mises(used: int, table: dict[float, float]) -> None:
    """The published critical values of the Cramer-von Mises test of the Crow-AMSAA model, as
    reprinted in the RTK Project's CrowAMSAA.py (CVM_TABLE). They were simulated, too: two units of
    their last digit."""
    from everup.reliability.growth import _fit_p

    for level, critical in table.items():
        unit = 0.01 if level == 0.01 else 0.001
        assert _fit_p(critical + 2 * unit, used) <= level
        assert _fit_p(critical - 2 * unit, used) >= level


def test_a_power_beyond_what_floats_hold() -> None:
    steep = power_law([Window([0.99999 * 2], 2.0)])
    assert steep is not None
    assert steep.scale == steep.expected_failures(2.0) == steep.rate_per_s(2.0) == 0
    flat = power_law([Window([1e-3, 2e-3], 1e9)])
    assert flat is not None
    assert flat.rate_per_s(0.0) == math.inf
    assert flat.expected_failures(0.0) == 0
    assert steep._replace(scale=1e-300).expected_failures(2.0) == math.inf


@settings(deadline=None)  # a busy machine is no failure
@given(SHARES, st.floats(0.01, 1e7), st.floats(0.5, 0.99))
def test_beta_by_its_formula(shares: list[float], end_s: float, confidence: float) -> None:
    times = sorted(share * end_s for share in shares)
    if times[0] == end_s:
        return
    log_sum = sum(math.log(end_s / t) for t in times)
    law = power_law([Window(times, end_s)], confidence)
    if log_sum == 0:
        assert law is None
        return
    assert law is not None
    n, tail = len(times), (1 - confidence) / 2
    assert law.beta == pytest.approx(n / log_sum, rel=1e-9)
    interval = law.beta_interval
    assert interval.low == pytest.approx(law.beta * stats.chi2.ppf(tail, 2 * n) / (2 * n), rel=1e-9)
    assert interval.high == pytest.approx(
        law.beta * stats.chi2.isf(tail, 2 * n) / (2 * n), rel=1e-9
    )
    assert law.expected_failures(end_s) == pytest.approx(n, rel=1e-6) or law.scale in (0, math.inf)


@settings(deadline=None)  # a busy machine is no failure
@given(SHARES, st.floats(0.01, 100))
def test_units_do_not_matter(shares: list[float], factor: float) -> None:
    one = [Window([share * 1000 for share in shares], 1000.0)]
    other = [Window([share * 1000 * factor for share in shares], 1000.0 * factor)]
    for test in (laplace_test, mil_hdbk_189_test):
        assert test(one).p_value == pytest.approx(test(other).p_value, rel=1e-6)


def test_laplace_closed_form() -> None:
    windows = [Window((10.0, 50.0, 90.0), 100.0), Window((150.0, 170.0), 200.0)]
    expected = (10 + 50 + 90 - 150 + 150 + 170 - 200) / math.sqrt((3 * 1e4 + 2 * 4e4) / 12)
    found = laplace_test(windows)
    assert found.statistic == pytest.approx(expected, rel=1e-12)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(expected)), rel=1e-9)


def test_product_of_gammas_against_sampling() -> None:
    """The failure-terminated bounds, by another way: a million products of gamma variables."""
    rng = np.random.default_rng(12)
    for n in (2, 5, 30):
        product = rng.standard_gamma(n - 1, 1_000_000) * rng.standard_gamma(n, 1_000_000)
        low, high = mtbf_bounds(n, 0.95, "failure")
        assert np.mean(product > n * n / low) == pytest.approx(0.025, abs=0.0008)
        assert np.mean(product < n * n / high) == pytest.approx(0.025, abs=0.0008)


def test_bessel_bounds_by_their_definition() -> None:
    """The time-terminated bounds solve tail sums of x^k / (k! (k-1)!), summed here term by term."""
    for n in (1, 2, 7, 300):
        low, high = mtbf_bounds(n, 0.95, "time")

        def tail(x: float, upto: int) -> float:
            terms = [k * math.log(x) - math.lgamma(k + 1) - math.lgamma(k) for k in range(1, 1500)]
            top = max(terms)
            weights = [math.exp(t - top) for t in terms]
            return sum(weights[:upto]) / sum(weights)

        assert tail(n * n / low, n) == pytest.approx(0.025, rel=1e-8)
        if n == 1:
            assert high == math.inf
        else:
            assert 1 - tail(n * n / high, n - 1) == pytest.approx(0.025, rel=1e-8)


def test_pooling_systems_with_different_windows() -> None:
    """Doubling every window with its failures doubles the evidence, not the estimate."""
    parts = [Window((100.0, 300.0), 400.0), Window((20.0, 21.0, 39.0), 40.0)]
    once, twice = power_law(parts), power_law(parts * 2)
    assert once is not None
    assert twice is not None
    assert once.mtbf_s is None  # the windows differ, so no one end to speak of
    assert once.beta == pytest.approx(twice.beta)
    assert twice.beta_interval.low > once.beta_interval.low
    total = once.scale * (400**once.beta + 40**once.beta)
    assert total == pytest.approx(5, rel=1e-9)


def test_verdicts() -> None:
    worse = Window([900.0, 950, 960, 970, 980, 990], 1000.0)
    better = Window([1.0, 2, 4, 9, 30, 70], 1000.0)
    even = Window([100.0, 300, 500, 700, 900, 950], 1000.0)
    assert trend([worse]).verdict == "more frequent"
    assert trend([better]).verdict == "less frequent"
    assert trend([even]).verdict == "no trend shown"
    few = trend([Window([998.0, 999.0], 1000.0)])
    assert (few.verdict, few.enough, few.used) == ("no trend shown", False, 2)
    assert few.p_value < 0.05
    none = trend([Window([], 1000.0)])
    assert none == ("no trend shown", 1.0, 0, False, None, 1.0)


def test_fit_needs_two_failures() -> None:
    assert cramer_von_mises([Window([5.0], 10.0)]) is None
    fit = cramer_von_mises([Window(PROTOTYPE, 620.0, "failure")])
    assert fit is not None
    assert fit.used == 21
    assert fit.p_value == 0.5
    clumped = cramer_von_mises([Window([*np.linspace(500, 502, 40)], 1000.0)])
    assert clumped is not None
    assert clumped.p_value == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power_law([]), "windows: empty"),
        (lambda: power_law([Window([0.0], 10.0)]), "failures_s: 0.0"),
        (lambda: power_law([Window([11.0], 10.0)]), "failures_s: 11.0"),
        (lambda: power_law([Window([5.0], 10.0, "failure")]), "end_s: 10.0"),
        (lambda: laplace_test([Window([5.0], -1.0)]), "end_s: -1.0"),
        (lambda: trend([Window([5.0], 10.0)], least=0), "least: 0"),
        (lambda: mtbf_bounds(1, 0.95, "failure"), "failures: 1"),
    ],
)
def test_wrong_arguments_are_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
