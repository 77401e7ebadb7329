"""Constant failure rates: estimate, interval, comparison of two periods, pooling."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from everup.reliability.interval import (
    Interval,
    binomial_bounds,
    check_choice,
    check_confidence,
    check_count,
    check_positive,
    in_range,
)

Terminated = Literal["time", "failure"]
"""Whether the observation ended at a time chosen beforehand, or at the last failure."""


@in_range()
def failure_rate(
    failures: int,
    time_s: float,
    confidence: float = 0.95,
    terminated: Terminated = "time",
) -> Interval:
    """Failures per second of up time, ``n / T``, with an exact chi-square interval.

    Ended by time: ``[chi2(a/2; 2n), chi2(1-a/2; 2n+2)] / 2T`` with ``a = 1 - confidence``;
    ended by the last failure: ``[chi2(a/2; 2n), chi2(1-a/2; 2n)] / 2T``. No failure: the value is
    0, ``low`` is 0 and ``high = -ln(a) / T`` is the one-sided upper bound (of full confidence,
    since there is no lower one).

    ``time_s`` is the up time summed over all instances, above 0. It lies when failures do not come
    at a constant rate or come in bursts: see `growth.trend` and `lifetimes.weibull`.

    Source: NIST/SEMATECH e-Handbook 8.4.5.1; Garwood, Biometrika 28 (1936) 437.
    """
    low, high = _expected(failures, confidence, terminated)
    check_positive("time_s", time_s)
    return Interval(failures / time_s, low / time_s, high / time_s, confidence)


@in_range()
def mttf_s(
    failures: int,
    time_s: float,
    confidence: float = 0.95,
    terminated: Terminated = "time",
) -> Interval:
    """Mean time to failure in seconds, ``T / n``: the reciprocal of `failure_rate` with its bounds.

    No failure: the value is None, ``low = T / -ln(1 - confidence)``, ``high`` is infinite.
    Assumptions and source as for `failure_rate`.
    """
    low, high = _expected(failures, confidence, terminated)
    check_positive("time_s", time_s)
    return Interval(
        time_s / failures if failures else None,
        time_s / high,
        time_s / low if low > 0.0 else math.inf,
        confidence,
    )


def _expected(failures: int, confidence: float, terminated: str) -> tuple[float, float]:
    """Bounds of the expected number of failures: half a chi-square quantile is a gamma one."""
    alpha = check_confidence(confidence)
    check_choice("terminated", terminated, ("time", "failure"))
    check_count("failures", failures, 0 if terminated == "time" else 1)
    if failures == 0:
        return 0.0, -math.log(alpha)
    from scipy.special import gammainccinv, gammaincinv

    above = failures + 1 if terminated == "time" else failures
    return float(gammaincinv(failures, alpha / 2)), float(gammainccinv(above, alpha / 2))


class RateComparison(NamedTuple):
    """``ratio``: rate of the second period over that of the first; ``p_value``: probability of
    data at least as one-sided as these if both rates are the same."""

    ratio: Interval
    p_value: float


@in_range()
def compare_rates(
    first_failures: int,
    first_time_s: float,
    second_failures: int,
    second_time_s: float,
    confidence: float = 0.95,
) -> RateComparison:
    """Whether the failure rate changed from a first period to a second one: exact for any count.

    Given the total ``n = n1 + n2``, ``n2`` is binomial with ``p = r T2 / (T1 + r T2)``, where
    ``r`` is the ratio of the rates. The p-value doubles the smaller tail at ``r = 1``; the interval
    of ``r`` comes from the Clopper-Pearson interval of ``p``, so both agree: ``p_value < a``
    exactly when the interval leaves 1 out. No failure at all: no value, ``[0, inf)``, p = 1.
    No failure in the first period only: no value, a lower bound.

    It lies when the periods were chosen after looking at the failures, and when failures come in
    bursts. Source: Przyborowski and Wilenski, Biometrika 31 (1940) 313.
    """
    alpha = check_confidence(confidence)
    check_count("first_failures", first_failures)
    check_count("second_failures", second_failures)
    check_positive("first_time_s", first_time_s)
    check_positive("second_time_s", second_time_s)
    total = first_failures + second_failures
    if total == 0:
        return RateComparison(Interval(None, 0.0, math.inf, confidence), 1.0)
    from scipy.special import bdtr, bdtrc

    share = second_time_s / (first_time_s + second_time_s)
    at_most = float(bdtr(second_failures, total, share))
    at_least = float(bdtrc(second_failures - 1, total, share)) if second_failures else 1.0
    # From the mirrored counts where p is close to 1: 1 - p keeps its digits.
    low_p, _ = binomial_bounds(second_failures, total, alpha)
    low_q, _ = binomial_bounds(first_failures, total, alpha)
    scale = first_time_s / second_time_s
    ratio = Interval(
        second_failures / first_failures * scale if first_failures else None,
        low_p / (1.0 - low_p) * scale,
        (1.0 - low_q) / low_q * scale if low_q > 0.0 else math.inf,
        confidence,
    )
    return RateComparison(ratio, min(1.0, 2.0 * min(at_most, at_least)))


class PooledRate(NamedTuple):
    """``rate`` in failures per second; ``p_same``: probability of differences between the parts
    at least as large as these if all have that one rate."""

    rate: Interval
    p_same: float


@in_range()
def pooled_rate(parts: Sequence[tuple[int, float]], confidence: float = 0.95) -> PooledRate:
    """One rate for several instances or periods, each ``(failures, time_s)``: ``sum n / sum T``.

    ``p_same`` is the chi-square test of homogeneity, ``sum (n_i - e_i)^2 / e_i`` with
    ``e_i = T_i sum n / sum T`` and ``k - 1`` degrees of freedom; approximate below about five
    expected failures a part (1 when nothing failed or there is one part). A small one says that
    the parts do not belong together and the pooled interval is too narrow.

    Source: Cox and Lewis, The Statistical Analysis of Series of Events (1966).
    """
    if not parts:
        raise ValueError("parts: empty; at least one (failures, time_s) is needed")
    for failures, time_s in parts:
        check_count("failures", failures)
        check_positive("time_s", time_s)
    total = sum(n for n, _ in parts)
    time_total_s = math.fsum(t for _, t in parts)
    rate = failure_rate(total, time_total_s, confidence)
    if total == 0 or len(parts) == 1:
        return PooledRate(rate, 1.0)
    from scipy.special import chdtrc

    expected = [total * t / time_total_s for _, t in parts]
    statistic = math.fsum((n - e) ** 2 / e for (n, _), e in zip(parts, expected, strict=True))
    return PooledRate(rate, float(chdtrc(len(parts) - 1, statistic)))
