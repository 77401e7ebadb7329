"""Repair times: the three parts of a recovery, their median, 95th percentile and mean."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from everup.reliability.interval import (
    Interval,
    check_choice,
    check_confidence,
    check_count,
    check_not_negative,
    check_positive,
    in_range,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FLOOR_S = 1e-3
"""Times below this count as this in the log-normal formulas: what no clock here resolves."""


class Recovery(NamedTuple):
    """One recovery: seconds from the failure to its detection, from there to the decision, and
    from there to the service being back. MTTR is the mean of their sum."""

    detect_s: float
    decide_s: float
    recover_s: float

    @property
    def total_s(self) -> float:
        return self.detect_s + self.decide_s + self.recover_s


class Summary(NamedTuple):
    """Seconds. ``median_s``, ``p95_s`` and ``mean_s`` are the sample's own, None without values.
    ``median`` holds the estimate of the log-normal model as its value; ``mean`` the sample's mean,
    for the model's hangs on the spread of a few values: 4795 s for 0 s and 1 s."""

    number: int
    median_s: float | None
    p95_s: float | None
    mean_s: float | None
    median: Interval
    mean: Interval


class RecoverySummary(NamedTuple):
    total: Summary
    detect: Summary
    decide: Summary
    recover: Summary


@in_range()
def summary(
    values_s: Sequence[float], confidence: float = 0.95, floor_s: float = FLOOR_S
) -> Summary:
    """Median, 95th percentile (linear between order statistics) and mean of times, with the
    intervals of `lognormal_median` and `lognormal_mean`, the latter around the sample's mean.

    Without values everything is None and the intervals are ``[0, inf)``; one value has no
    measurable spread, so the intervals are ``[0, inf)`` too; two give very wide ones, and rightly.
    """
    median = lognormal_median(values_s, confidence, floor_s)
    mean = lognormal_mean(values_s, confidence, floor_s)
    if not len(values_s):
        return Summary(0, None, None, None, median, mean)
    import numpy as np

    middle, p95 = np.quantile(values_s, [0.5, 0.95])
    own = math.fsum(values_s) / len(values_s)
    mean = Interval(own, min(mean.low, own), max(mean.high, own), confidence)
    return Summary(len(values_s), float(middle), float(p95), own, median, mean)


def recovery_summary(
    recoveries: Sequence[Recovery], confidence: float = 0.95, floor_s: float = FLOOR_S
) -> RecoverySummary:
    """`summary` of the whole recovery and of its three parts. The means of the parts add up to the
    mean of the whole; medians and percentiles do not."""
    return RecoverySummary(
        summary([r.total_s for r in recoveries], confidence, floor_s),
        summary([r.detect_s for r in recoveries], confidence, floor_s),
        summary([r.decide_s for r in recoveries], confidence, floor_s),
        summary([r.recover_s for r in recoveries], confidence, floor_s),
    )


@in_range()
def lognormal_median(
    values_s: Sequence[float], confidence: float = 0.95, floor_s: float = FLOOR_S
) -> Interval:
    """Median of a log-normal, ``exp(m)``, with the exact interval ``exp(m +- t s / sqrt(n))``.

    ``m`` and ``s`` are mean and standard deviation of the logarithms, ``t`` the quantile of
    Student's distribution with ``n - 1`` degrees of freedom. It lies when the logarithms are far
    from normal (two kinds of recovery mixed, such as restarts and failovers: split them).
    Source: Olsson, Journal of Statistics Education 13(1), 2005.
    """
    alpha = check_confidence(confidence)
    logs = _logs(values_s, floor_s)
    if len(logs) < 2:
        return _unbounded(logs, confidence)
    from scipy.special import stdtrit

    mean, variance = _moments(logs)
    reach = -float(stdtrit(len(logs) - 1, alpha / 2)) * math.sqrt(variance / len(logs))
    return Interval(_exp(mean), _exp(mean - reach), _exp(mean + reach), confidence)


@in_range()
def lognormal_mean(
    values_s: Sequence[float],
    confidence: float = 0.95,
    floor_s: float = FLOOR_S,
    method: Literal["mover", "olsson", "cox"] = "mover",
) -> Interval:
    """Mean of a log-normal, ``exp(m + s^2 / 2)``, with an interval.

    ``mover`` (default): limits of ``mu`` and of ``sigma^2 / 2`` recovered into limits of their sum,
    ``L = e - sqrt(l1^2 + l2^2)``, ``U = e + sqrt(u1^2 + u2^2)`` with ``e = m + s^2/2``,
    ``l1 = u1 = t s / sqrt(n)``, ``l2 = s^2/2 (1 - (n-1)/chi2(1-a/2))`` and
    ``u2 = s^2/2 ((n-1)/chi2(a/2) - 1)`` (Zou, Huo and Taleban, Environmetrics 20 (2009) 172, with
    Student's t where they take the normal quantile: it holds for two values).
    ``olsson``: ``e +- t sqrt(s^2/n + s^4/(2(n-1)))`` (Olsson, J. Statistics Education 13(1), 2005);
    ``cox``: the same with the normal quantile (Zhou and Gao, Statistics in Medicine 16 (1997) 783);
    both miss on the upper side below about 20 values.

    It lies as `lognormal_median` does, and harder: the mean hangs on the longest times.
    """
    alpha = check_confidence(confidence)
    check_choice("method", method, ("mover", "olsson", "cox"))
    logs = _logs(values_s, floor_s)
    n = len(logs)
    if n < 2:
        return _unbounded(logs, confidence)
    mean, variance = _moments(logs)
    below, above = lognormal_reach(n, variance, alpha, method)
    centre = mean + variance / 2
    return Interval(_exp(centre), _exp(centre - below), _exp(centre + above), confidence)


def lognormal_reach(n: int, variance: float, alpha: float, method: str) -> tuple[float, float]:
    """How far the interval of the logarithm of the mean reaches below and above its estimate.
    Methods as for `lognormal_mean`; ``mover-normal`` is ``mover`` with the normal quantile."""
    from scipy.special import gammaincinv, ndtri, stdtrit

    student = method in ("mover", "olsson")
    quantile = -float(stdtrit(n - 1, alpha / 2) if student else ndtri(alpha / 2))
    if method in ("olsson", "cox"):
        reach = quantile * math.sqrt(variance / n + variance * variance / (2 * (n - 1)))
        return reach, reach
    first = quantile * math.sqrt(variance / n)
    half_df = (n - 1) / 2
    # chi2 quantile / (n - 1) = gamma quantile / half_df.
    shrink = half_df / float(gammaincinv(half_df, 1 - alpha / 2))
    grow = half_df / float(gammaincinv(half_df, alpha / 2))
    below = math.hypot(first, variance / 2 * (1 - shrink))
    above = math.hypot(first, variance / 2 * (grow - 1))
    return below, above


def quantile_interval(values_s: Sequence[float], q: float, confidence: float = 0.95) -> Interval:
    """The ``q`` quantile of times of any distribution, between two order statistics.

    ``low`` and ``high`` are the order statistics whose ranks leave at most ``(1-confidence)/2`` of
    Binomial(n, q) outside on each side; where no rank does (too few values for a far quantile:
    below 72 for the upper bound of the 95th percentile), ``low`` is 0 or ``high`` infinite. It
    covers at least as often as promised. Source: David and Nagaraja, Order Statistics, 3rd ed.,
    7.1.
    """
    alpha = check_confidence(confidence)
    if not 0.0 < q < 1.0:
        raise ValueError(f"q: {q!r} is not between 0 and 1 (both excluded)")
    for value in values_s:
        check_not_negative("values_s", value)
    n = len(values_s)
    if not n:
        return Interval(None, 0.0, math.inf, confidence)
    import numpy as np
    from scipy.special import bdtr

    ordered = np.sort(np.asarray(values_s, float))
    below = bdtr(np.arange(n), n, q)  # P(at most k values lie below the quantile), k = 0..n-1
    ranks_low = int(np.searchsorted(below, alpha / 2, side="right"))
    high_rank = int(np.searchsorted(below, 1 - alpha / 2, side="left"))
    return Interval(
        float(np.quantile(ordered, q)),
        float(ordered[ranks_low - 1]) if ranks_low else 0.0,
        float(ordered[high_rank]) if high_rank < n else math.inf,
        confidence,
    )


def bootstrap(
    values_s: Sequence[float],
    rng: "np.random.Generator",
    statistic: Literal["mean", "median", "p95"] = "mean",
    confidence: float = 0.95,
    resamples: int = 2000,
    method: Literal["bca", "percentile"] = "bca",
) -> Interval:
    """Bootstrap interval of a statistic of times, without a model of their distribution.

    ``percentile``: quantiles of the statistic over ``resamples`` samples drawn with replacement;
    ``bca``: the quantiles corrected for bias ``z0`` and acceleration ``a`` (jackknife). Randomness
    comes from ``rng`` alone. It lies for few values: it can know no time longer than the longest
    one seen, so below about 50 values its interval of a mean is too short (`lognormal_mean` is
    not). Fewer than two values: ``[0, inf)``.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), 13.3 and 14.3.
    """
    alpha = check_confidence(confidence)
    check_choice("statistic", statistic, ("mean", "median", "p95"))
    check_choice("method", method, ("bca", "percentile"))
    check_count("resamples", resamples, 100)
    for value in values_s:
        check_not_negative("values_s", value)
    n = len(values_s)
    import numpy as np

    data = np.asarray(values_s, float)
    if n < 2:
        return Interval(float(data[0]) if n else None, 0.0, math.inf, confidence)
    value = float(_statistic(data[np.newaxis, :], statistic)[0])
    # Blocks, so that a year of recoveries does not need a matrix of its size times ``resamples``.
    block = max(1, 1_000_000 // n)
    drawn = np.concatenate(
        [
            _statistic(data[rng.integers(0, n, (min(block, resamples - at), n))], statistic)
            for at in range(0, resamples, block)
        ]
    )
    levels = (alpha / 2, 1 - alpha / 2)
    if method == "bca" and drawn.min() < drawn.max():
        levels = _bca_levels(data, drawn, value, statistic, levels)
    low, high = np.quantile(drawn, levels)
    return Interval(value, float(low), float(high), confidence)


def _statistic(rows: "NDArray[np.float64]", statistic: str) -> "NDArray[np.float64]":
    import numpy as np

    if statistic == "mean":
        return np.asarray(rows.mean(axis=1), float)
    return np.asarray(np.quantile(rows, 0.5 if statistic == "median" else 0.95, axis=1), float)


def _bca_levels(
    data: "NDArray[np.float64]",
    drawn: "NDArray[np.float64]",
    value: float,
    statistic: str,
    levels: tuple[float, float],
) -> tuple[float, float]:
    import numpy as np
    from scipy.special import ndtr, ndtri

    n, many = len(data), len(drawn)
    # Ties count half; kept off 0 and 1, where the normal quantile is infinite.
    share = (np.count_nonzero(drawn < value) + np.count_nonzero(drawn <= value)) / (2 * many)
    bias = float(ndtri(min(max(share, 0.5 / many), 1 - 0.5 / many)))
    if statistic == "mean":
        left_out = (data.sum() - data) / (n - 1)
    else:
        left_out = np.array(
            [_statistic(np.delete(data, i)[np.newaxis, :], statistic)[0] for i in range(n)]
        )
    spread = left_out.mean() - left_out
    scale = float((spread**2).sum()) ** 1.5
    acceleration = float((spread**3).sum()) / (6 * scale) if scale > 0 else 0.0

    def corrected(level: float) -> float:
        shifted = bias + float(ndtri(level))
        return float(ndtr(bias + shifted / (1 - acceleration * shifted)))

    return corrected(levels[0]), corrected(levels[1])


def _logs(values_s: Sequence[float], floor_s: float) -> list[float]:
    check_positive("floor_s", floor_s)
    for value in values_s:
        check_not_negative("values_s", value)
    return [math.log(max(value, floor_s)) for value in values_s]


def _moments(logs: list[float]) -> tuple[float, float]:
    mean = math.fsum(logs) / len(logs)
    return mean, math.fsum((x - mean) ** 2 for x in logs) / (len(logs) - 1)


def _unbounded(logs: list[float], confidence: float) -> Interval:
    return Interval(_exp(logs[0]) if logs else None, 0.0, math.inf, confidence)


def _exp(x: float) -> float:
    """No OverflowError: two very different times bound the mean by nothing finite."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf
