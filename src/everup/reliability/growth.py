"""Whether failures become more or less frequent: Crow-AMSAA power law and trend tests."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from everup.reliability.interval import (
    Interval,
    check_choice,
    check_confidence,
    check_count,
    check_positive,
)
from everup.reliability.rates import Terminated

_MOST_LOG = 700.0
"""Of what ``exp`` can tell."""


class Window(NamedTuple):
    """One system watched from second 0 to ``end_s``: the times of its failures since the start.

    ``terminated`` "failure": watching ended with the last failure, ``end_s`` is its time.
    """

    failures_s: Sequence[float]
    end_s: float
    terminated: Terminated = "time"


class PowerLaw(NamedTuple):
    """The expected failures of one system up to ``t`` are ``scale * t ** beta``.

    ``beta`` below 1: failures become rarer; above 1: more frequent. ``beta`` is the maximum
    likelihood estimate, ``beta_unbiased`` its bias-corrected form (None below two usable times),
    ``beta_interval`` exact. ``mtbf_s``: seconds between failures of one system at the end of the
    window, ``1 / (scale * beta * T ** (beta - 1))``; None where the windows differ in length.
    """

    failures: int
    beta: float
    beta_unbiased: float | None
    beta_interval: Interval
    scale: float
    mtbf_s: Interval | None

    def expected_failures(self, time_s: float) -> float:
        return self._power(self.beta, time_s)

    def rate_per_s(self, time_s: float) -> float:
        return self.beta * self._power(self.beta - 1.0, time_s)

    def _power(self, exponent: float, time_s: float) -> float:
        """``scale * time_s ** exponent``: ``inf`` beyond what floats hold, 0 where scale is."""
        if time_s > 0 and 0 < self.scale < math.inf:
            log = math.log(self.scale) + exponent * math.log(time_s)
            return math.exp(log) if log < _MOST_LOG else math.inf
        if time_s > 0 or self.scale == 0:
            return self.scale
        return math.inf if exponent < 0 else 0.0 if exponent > 0 else self.scale


class TrendTest(NamedTuple):
    """``p_value`` (two-sided): probability of a trend at least as strong if the rate is constant;
    ``used``: the failures that carry information (the last one of a failure-terminated window does
    not)."""

    statistic: float
    p_value: float
    used: int


class Fit(NamedTuple):
    """``statistic``: Cramer-von Mises; ``p_value``: probability of a fit at least as bad if the
    power law holds, interpolated between 0.5 and 0.005 (those are the least and the greatest
    value it takes beyond them)."""

    statistic: float
    p_value: float
    used: int


Verdict = Literal["more frequent", "less frequent", "no trend shown"]


class Trend(NamedTuple):
    """``verdict`` with the p-value behind it and the number of failures used; ``enough`` says
    whether they are at least the least number asked for, below which no trend is ever claimed."""

    verdict: Verdict
    p_value: float
    used: int
    enough: bool
    beta: Interval | None
    laplace_p: float


def power_law(windows: Sequence[Window], confidence: float = 0.95) -> PowerLaw | None:
    """Fits the Crow-AMSAA model (Poisson process of intensity ``scale * beta * t**(beta-1)``).

    With ``S = sum ln(T_q / t_qi)`` over all systems q, N failures and M of them usable (all of a
    time-terminated window, all but the last of a failure-terminated one): ``beta = N / S``,
    unbiased ``(M - 1) / S``, interval ``chi2(a/2, 1-a/2; 2M) / 2S``, ``scale = N / sum T_q**beta``.
    Several systems share ``beta``; their scales may differ. None without a usable failure.

    The interval of the MTBF is exact, too. Failure-terminated (one system, at least two failures):
    quantiles of a product of Gamma(N-1) and Gamma(N). Time-terminated (any number of systems with
    one ``end_s``): given S, N has probabilities proportional to ``x**n / (n! (n-1)!)`` with
    ``x = T S / MTBF``, a Bessel distribution; its bounds cover at least as promised.

    It lies when failures come in bursts, when a change made a step rather than a trend, and when
    the start of the window means nothing to the system. Source: MIL-HDBK-189C, continuous
    tracking model; Crow, AMSAA TR 138 (1975) and TR 197 (1977).
    """
    alpha = check_confidence(confidence)
    used, log_sum = _log_sum(windows)
    if used == 0 or log_sum <= 0.0:
        return None
    from scipy.special import gammainccinv, gammaincinv

    failures = sum(len(w.failures_s) for w in windows)
    beta = failures / log_sum
    longest_s = max(w.end_s for w in windows)
    # Relative to the longest window: T ** beta overflows for long windows and great betas.
    relative = math.fsum((w.end_s / longest_s) ** beta for w in windows)
    log_scale = math.log(failures / relative) - beta * math.log(longest_s)
    return PowerLaw(
        failures,
        beta,
        (used - 1) / log_sum if used > 1 else None,
        Interval(
            beta,
            float(gammaincinv(used, alpha / 2)) / log_sum,
            float(gammainccinv(used, alpha / 2)) / log_sum,
            confidence,
        ),
        math.exp(log_scale) if log_scale < _MOST_LOG else math.inf,
        _mtbf(windows, failures, log_sum, alpha),
    )


@lru_cache(maxsize=256)
def mtbf_bounds(failures: int, confidence: float, terminated: Terminated) -> tuple[float, float]:
    """Factors by which the estimate of the MTBF at the end of the window is multiplied to get its
    exact two-sided bounds (tabulated in MIL-HDBK-189C). Time-terminated: at least
    one failure, and the upper factor for one is infinite; failure-terminated: at least two."""
    alpha = check_confidence(confidence)
    check_choice("terminated", terminated, ("time", "failure"))
    check_count("failures", failures, 1 if terminated == "time" else 2)
    square = float(failures) ** 2
    if terminated == "failure":
        tail = _product_below(failures)
        return (
            square / _solve(lambda x: tail(x) - (1 - alpha / 2), square),
            square / _solve(lambda x: tail(x) - alpha / 2, square),
        )
    most = _bessel_at_most(failures)
    low = square / _solve(lambda x: alpha / 2 - most(x), square)
    if failures == 1:
        return low, math.inf
    fewer = _bessel_at_most(failures - 1)
    return low, square / _solve(lambda x: 1 - alpha / 2 - fewer(x), square)


def _mtbf(
    windows: Sequence[Window], failures: int, log_sum: float, alpha: float
) -> Interval | None:
    end_s, terminated = windows[0].end_s, windows[0].terminated
    if any(w.end_s != end_s or w.terminated != terminated for w in windows):
        return None
    if terminated == "failure" and (len(windows) > 1 or failures < 2):
        return None
    value = len(windows) * end_s * log_sum / failures**2
    low, high = mtbf_bounds(failures, 1 - alpha, terminated)
    return Interval(value, value * low, value * high, 1 - alpha)


def _bessel_at_most(n: int) -> Callable[[float], float]:
    """``P(N <= n)`` for probabilities ``x**k / (k! (k-1)!) / (sqrt(x) I_1(2 sqrt(x)))``."""
    import numpy as np
    from scipy.special import gammaln, ive

    k = np.arange(1, n + 1, dtype=float)
    fixed = -gammaln(k + 1) - gammaln(k)

    def at_most(x: float) -> float:
        root = math.sqrt(x)
        norm = math.log(root) + math.log(float(ive(1, 2 * root))) + 2 * root
        return float(np.exp(fixed + k * math.log(x) - norm).sum())

    return at_most


def _product_below(n: int) -> Callable[[float], float]:
    """``P(G1 G2 <= x)`` for independent Gamma(n-1) and Gamma(n) variables.

    The trapezoidal rule over the normal score of G2: its error falls faster than any power of the
    step, so 361 points give all digits.
    """
    import numpy as np
    from scipy.special import gammainc, gammainccinv, gammaincinv, ndtr

    z = np.linspace(-9.0, 9.0, 361)
    weight = np.exp(-z * z / 2)
    weight /= weight.sum()
    # The complement above 0: 1 - ndtr(9) has no digits left.
    second = np.where(z < 0, gammaincinv(n, ndtr(z)), gammainccinv(n, ndtr(-z)))

    def below(x: float) -> float:
        return float(weight @ gammainc(n - 1, x / second))

    return below


def _solve(rising: Callable[[float], float], start: float) -> float:
    """The root of a function that rises with its positive argument, to 1e-13 of itself.

    Halving by hand: importing scipy.optimize takes longer than all of it.
    """
    low = high = math.log(start)
    while rising(math.exp(low)) > 0:
        low -= 1.0
    while rising(math.exp(high)) < 0:
        high += 1.0
    while high - low > 1e-13 * max(1.0, abs(low)):
        middle = (low + high) / 2
        if rising(math.exp(middle)) > 0:
            high = middle
        else:
            low = middle
    return math.exp((low + high) / 2)


def laplace_test(windows: Sequence[Window]) -> TrendTest:
    """Laplace's test: ``U = sum (t - T/2) / sqrt(sum T^2 / 12)`` over the usable failures, normal
    with mean 0 and variance 1 if the rate is constant (closely from four failures on); above 0:
    more frequent towards the end. Best against a rate that grows exponentially.

    It lies when failures come in bursts: the p-value is then too small (give incidents, not every
    failure of a crash loop). Source: NIST/SEMATECH e-Handbook 8.2.3.4; Cox and Lewis (1966).
    """
    total, variance, used = [], [], 0
    for window in windows:
        times = _usable(window)
        used += len(times)
        total += [t - window.end_s / 2 for t in times]
        variance.append(len(times) * window.end_s**2 / 12)
    if used == 0:
        return TrendTest(0.0, 1.0, 0)
    from scipy.special import ndtr

    statistic = math.fsum(total) / math.sqrt(math.fsum(variance))
    return TrendTest(statistic, min(1.0, 2 * float(ndtr(-abs(statistic)))), used)


def mil_hdbk_189_test(windows: Sequence[Window]) -> TrendTest:
    """The Military Handbook test: ``2 sum ln(T / t)`` over the M usable failures is chi-square
    with 2M degrees of freedom if the rate is constant: exact for any number of failures. Small:
    more frequent towards the end; large: less. Best against a power law.

    It lies as `laplace_test` does. Source: MIL-HDBK-189C; NIST/SEMATECH e-Handbook 8.2.3.4.
    """
    used, log_sum = _log_sum(windows)
    if used == 0:
        return TrendTest(0.0, 1.0, 0)
    from scipy.special import gammainc, gammaincc

    tail = min(float(gammainc(used, log_sum)), float(gammaincc(used, log_sum)))
    return TrendTest(2 * log_sum, min(1.0, 2 * tail), used)


def trend(windows: Sequence[Window], confidence: float = 0.95, least: int = 5) -> Trend:
    """The plain answer: are failures becoming more frequent?

    The verdict is that of `mil_hdbk_189_test` (exact, pooled over the systems) at the given
    confidence, and "no trend shown" below ``least`` usable failures: a test of one or two is exact
    as well, but what it shows is a coincidence. "No trend shown" is not "constant": look at the
    interval of ``beta``. Assumptions as for the test.
    """
    alpha = check_confidence(confidence)
    check_count("least", least, 1)
    test = mil_hdbk_189_test(windows)
    law = power_law(windows, confidence)
    verdict: Verdict = "no trend shown"
    if test.used >= least and test.p_value < alpha:
        # The statistic has mean 2M: below it the failures crowd at the end.
        verdict = "more frequent" if test.statistic < 2 * test.used else "less frequent"
    return Trend(
        verdict,
        test.p_value,
        test.used,
        test.used >= least,
        law.beta_interval if law else None,
        laplace_test(windows).p_value,
    )


def cramer_von_mises(windows: Sequence[Window]) -> Fit | None:
    """Whether the power law fits: ``1/12M + sum ((t/T)**b - (2i-1)/2M)^2`` over the M usable
    failures of all systems, ordered by ``t/T``, with ``b = (M-1) / S``. None below two.

    The distribution of the statistic depends on M alone; the p-value is interpolated in a table of
    its quantiles from at least a million samples for each M (within 0.002 of the
    published table). Source: MIL-HDBK-189C, continuous tracking model, goodness of fit.
    """
    used, log_sum = _log_sum(windows)
    if used < 2 or log_sum <= 0.0:
        return None
    import numpy as np

    beta = (used - 1) / log_sum
    share = np.sort([(t / w.end_s) ** beta for w in windows for t in _usable(w)])
    expected = (2 * np.arange(1, used + 1) - 1) / (2 * used)
    statistic = 1 / (12 * used) + float(((share - expected) ** 2).sum())
    return Fit(statistic, _fit_p(statistic, used), used)


_FIT_P = (0.5, 0.2, 0.15, 0.1, 0.05, 0.02, 0.01, 0.005)
_FIT_QUANTILES: dict[int, tuple[float, ...]] = {
    2: (0.1018, 0.1373, 0.1487, 0.1612, 0.1747, 0.1834, 0.1863, 0.1879),
    3: (0.0813, 0.1202, 0.1344, 0.1536, 0.1826, 0.2126, 0.2303, 0.2458),
    4: (0.0746, 0.1204, 0.1343, 0.1541, 0.1909, 0.2414, 0.2799, 0.3215),
    5: (0.0733, 0.1209, 0.1367, 0.1594, 0.1992, 0.2538, 0.2966, 0.3421),
    6: (0.0725, 0.1225, 0.1387, 0.1622, 0.2036, 0.2611, 0.3080, 0.3572),
    8: (0.0723, 0.1242, 0.1411, 0.1656, 0.2091, 0.2693, 0.3178, 0.3693),
    10: (0.0724, 0.1252, 0.1425, 0.1674, 0.2118, 0.2735, 0.3223, 0.3746),
    15: (0.0727, 0.1267, 0.1443, 0.1697, 0.2150, 0.2782, 0.3283, 0.3808),
    20: (0.0730, 0.1276, 0.1454, 0.1712, 0.2171, 0.2808, 0.3314, 0.3838),
    40: (0.0733, 0.1287, 0.1466, 0.1728, 0.2193, 0.2842, 0.3346, 0.3864),
    100: (0.0737, 0.1293, 0.1474, 0.1737, 0.2208, 0.2857, 0.3367, 0.3882),
}


def _fit_p(statistic: float, used: int) -> float:
    import numpy as np

    sizes = sorted(_FIT_QUANTILES)
    rows = np.array([_FIT_QUANTILES[m] for m in sizes])
    # Quantiles are close to linear in 1/M, and log p in the statistic.
    inverse = -1.0 / np.array(sizes, float)
    quantiles = [np.interp(-1.0 / used, inverse, column) for column in rows.T]
    return float(np.exp(np.interp(statistic, quantiles, np.log(_FIT_P))))


def _usable(window: Window) -> Sequence[float]:
    check_positive("end_s", window.end_s)
    check_choice("terminated", window.terminated, ("time", "failure"))
    times = window.failures_s
    for t in times:
        if not 0.0 < t <= window.end_s:
            raise ValueError(f"failures_s: {t!r} is not above 0 and at most end_s {window.end_s!r}")
    if window.terminated == "time":
        return times
    if not times or max(times) != window.end_s:
        raise ValueError(f"end_s: {window.end_s!r} is not the time of the last failure")
    return sorted(times)[:-1]


def _log_sum(windows: Sequence[Window]) -> tuple[int, float]:
    if not windows:
        raise ValueError("windows: empty; at least one is needed")
    logs = [math.log(w.end_s / t) for w in windows for t in _usable(w)]
    return len(logs), math.fsum(logs)
