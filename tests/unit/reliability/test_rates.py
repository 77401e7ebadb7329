"""Constant failure rates against closed forms and published numbers."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from everup.reliability.rates import compare_rates, failure_rate, mttf_s, pooled_rate

COUNTS = st.integers(1, 2000)
TIMES = st.floats(1e-3, 1e9)
LEVELS = st.floats(0.5, 0.999)


@settings(deadline=None)  # a busy machine is no failure
@given(COUNTS, TIMES, LEVELS)
def test_rate_is_the_chi_square_interval(n: int, time_s: float, confidence: float) -> None:
    tail = (1 - confidence) / 2
    rate = failure_rate(n, time_s, confidence)
    assert rate.value == n / time_s
    assert rate.low == pytest.approx(stats.chi2.ppf(tail, 2 * n) / (2 * time_s), rel=1e-9)
    assert rate.high == pytest.approx(stats.chi2.isf(tail, 2 * n + 2) / (2 * time_s), rel=1e-9)
    ended = failure_rate(n, time_s, confidence, terminated="failure")
    assert ended.low == rate.low
    assert ended.high == pytest.approx(stats.chi2.isf(tail, 2 * n) / (2 * time_s), rel=1e-9)


@settings(deadline=None)  # a busy machine is no failure
@given(COUNTS, TIMES, LEVELS)
def test_mttf_is_the_reciprocal(n: int, time_s: float, confidence: float) -> None:
    rate, mean = failure_rate(n, time_s, confidence), mttf_s(n, time_s, confidence)
    assert mean.value == pytest.approx(1 / (rate.value or 0), rel=1e-12)
    assert mean.low == pytest.approx(1 / rate.high, rel=1e-12)
    assert mean.high == pytest.approx(1 / rate.low, rel=1e-12)
    assert mean.low < (mean.value or 0) < mean.high


def test_nist_example_two_failures_in_800_hours() -> None:
    """NIST/SEMATECH e-Handbook 8.4.5.1, example: 800 h, 2 failures, MTBF 400 h, 90 % interval
    (400 x 0.3177, 400 x 5.6281) = (127, 2251)."""
    mean = mttf_s(2, 800, 0.9)
    assert mean.value == 400
    assert round(mean.low / 400, 4) == 0.3177
    assert round(mean.high / 400, 4) == 5.6281
    assert (round(mean.low), round(mean.high)) == (127, 2251)


def test_no_failure_gives_a_bound_only() -> None:
    """NIST/SEMATECH e-Handbook 8.4.5.1: the lower bound of the MTBF is T / -ln(alpha)."""
    assert failure_rate(0, 1000) == (0.0, 0.0, -math.log(1 - 0.95) / 1000, 0.95)
    mean = mttf_s(0, 1000, 0.9)
    assert (mean.value, mean.high) == (None, math.inf)
    assert mean.low == pytest.approx(1000 / -math.log(0.1), rel=1e-12)


def test_comparison_published_in_the_manual_of_r() -> None:
    """The example of R's manual page of poisson.test, c(11, 6+8+7) in c(800, 1083+1050+878): R
    prints the ratio 1.971488 with the 95 % interval 0.8584264 to 4.2772659. (Its p-value, 0.07967,
    adds up less likely outcomes instead of doubling a tail, and disagrees with that interval.)"""
    ratio = compare_rates(6 + 8 + 7, 1083 + 1050 + 878, 11, 800).ratio
    assert round(ratio.value or 0, 6) == 1.971488
    assert round(ratio.low, 7) == 0.8584264
    assert round(ratio.high, 7) == 4.2772659


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(0, 40), TIMES, st.integers(0, 40), TIMES)
def test_comparison_agrees_with_itself(n1: int, t1: float, n2: int, t2: float) -> None:
    there, back = compare_rates(n1, t1, n2, t2), compare_rates(n2, t2, n1, t1)
    assert there.p_value == pytest.approx(back.p_value, rel=1e-6, abs=1e-12)
    assert there.ratio.low * back.ratio.high == pytest.approx(1, rel=1e-6) or (
        there.ratio.low == 0 and back.ratio.high == math.inf
    )
    inside = there.ratio.low <= 1 <= there.ratio.high
    assert inside == (there.p_value >= 0.05) or abs(there.p_value - 0.05) < 1e-9


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(0, 30), st.integers(1, 30), st.floats(0.01, 100))
def test_comparison_is_the_conditional_binomial(n1: int, n2: int, times: float) -> None:
    found = compare_rates(n1, 1.0, n2, times)
    exact = stats.binomtest(n2, n1 + n2, times / (1 + times)).proportion_ci(0.95, "exact")
    assert found.ratio.low == pytest.approx(exact.low / (1 - exact.low) / times, rel=1e-6)
    share = times / (1 + times)
    tails = stats.binom.cdf(n2, n1 + n2, share), stats.binom.sf(n2 - 1, n1 + n2, share)
    assert found.p_value == pytest.approx(min(1, 2 * min(tails)), rel=1e-6)


def test_comparison_without_failures() -> None:
    nothing = compare_rates(0, 10, 0, 20)
    assert nothing.ratio == (None, 0.0, math.inf, 0.95)
    assert nothing.p_value == 1.0
    one_sided = compare_rates(0, 10, 4, 10)
    assert one_sided.ratio.value is None
    assert one_sided.ratio.high == math.inf
    assert one_sided.p_value == pytest.approx(2 * 0.5**4, rel=1e-12)


def test_pooling() -> None:
    pooled = pooled_rate([(5, 100.0), (7, 200.0)])
    assert pooled.rate == failure_rate(12, 300.0)
    expected = (4.0, 8.0)
    statistic = sum((n - e) ** 2 / e for n, e in zip((5, 7), expected, strict=True))
    assert pooled.p_same == pytest.approx(stats.chi2.sf(statistic, 1), rel=1e-9)
    assert pooled_rate([(0, 5.0), (0, 6.0)]).p_same == 1.0
    assert pooled_rate([(50, 100.0), (2, 100.0)]).p_same < 1e-6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: failure_rate(-1, 10), "failures: -1"),
        (lambda: failure_rate(1, 0), "time_s: 0"),
        (lambda: failure_rate(1, math.inf), "time_s: inf"),
        (lambda: failure_rate(1, 10, 1.0), "confidence: 1.0"),
        (lambda: failure_rate(0, 10, terminated="failure"), "failures: 0"),
        (lambda: failure_rate(1, 10, terminated="never"), "time, failure"),  # type: ignore[arg-type]
        (lambda: failure_rate(1.5, 10), "failures: 1.5"),  # type: ignore[arg-type]
        (lambda: compare_rates(1, 10, 1, -2), "second_time_s: -2"),
        (lambda: pooled_rate([]), "parts: empty"),
    ],
)
def test_wrong_arguments_are_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
