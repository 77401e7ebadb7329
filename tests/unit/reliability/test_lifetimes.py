"""Censored lifetimes: Kaplan-Meier and Weibull against published examples and closed forms."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from everup.reliability.lifetimes import hazard_per_s, kaplan_meier, weibull

NIST_HOURS = [54, 187, 216, 240, 244, 335, 361, 373, 375, 386, *[500] * 10]
NIST_FAILED = [True] * 10 + [False] * 10
SAMPLES = st.lists(st.tuples(st.floats(0.01, 1e4), st.booleans()), min_size=1, max_size=40)


def test_nist_weibull_example() -> None:
    """NIST/SEMATECH e-Handbook 8.4.1.3: 10 failures, 10 units stopped at 500 h: shape 1.7208,
    log-likelihood -75.135, AIC 154.27, mean 540.737 h, standard deviation 323.806 h. The scale is
    printed as 606.5280; its last digits are where that program stopped: the likelihood is higher
    at 606.5276."""
    fit = weibull(NIST_HOURS, NIST_FAILED)
    assert fit is not None
    assert round(fit.shape.value or 0, 4) == 1.7208
    assert fit.scale_s.value == pytest.approx(606.5280, abs=0.0005)
    assert round(fit.log_likelihood, 3) == -75.135
    assert round(2 * 2 - 2 * fit.log_likelihood, 2) == 154.27
    assert round(fit.mean_s, 3) == 540.737
    assert round(fit.deviation_s, 3) == 323.806
    assert (fit.failures, fit.censored) == (10, 10)


def test_kaplan_meier_example() -> None:
    """Bewick, Cheek and Ball, Statistics review 12: Survival analysis, Critical Care 8 (2004) 389,
    table 2: eight patients, days 1 1 4 5 6+ 9 9+ 22: 0.750, 0.625, 0.500, 0.333, 0."""
    found = kaplan_meier(
        [1, 1, 4, 5, 6, 9, 9, 22], [True, True, True, True, False, True, False, True]
    )
    assert found.times_s == (1, 4, 5, 6, 9, 22)
    assert found.at_risk == (8, 6, 5, 4, 3, 1)
    assert found.failures == (2, 1, 1, 0, 1, 1)
    assert [round(s, 3) for s in found.survival] == [0.75, 0.625, 0.5, 0.5, 0.333, 0]
    assert found.median_s.value == 5


def test_greenwood_of_the_leukemia_control_arm() -> None:
    """Lecture on estimating the survival function with Cox and Oakes, table 1.1, control arm:
    S(10) = 8/21 = 0.381 with standard error 0.106. The log-log band at 0.381 follows from both."""
    weeks = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
    found = kaplan_meier(weeks, [True] * 21, band="log-log").survival_at(10)
    assert round(found.value or 0, 3) == 0.381
    s = 8 / 21
    error = s * math.sqrt(sum(d / (n * (n - d)) for n, d in _rows(weeks) if n > 8))
    assert round(error, 3) == 0.106
    reach = stats.norm.ppf(0.975) * error / (s * -math.log(s))
    assert found.low == pytest.approx(s ** math.exp(reach), rel=1e-9)
    assert found.high == pytest.approx(s ** math.exp(-reach), rel=1e-9)


def _rows(weeks: list[int]) -> list[tuple[int, int]]:
    return [(sum(w >= t for w in weeks), weeks.count(t)) for t in sorted(set(weeks))]


@settings(deadline=None)  # a busy machine is no failure
@given(SAMPLES)
def test_kaplan_meier_against_scipy(sample: list[tuple[float, bool]]) -> None:
    times, failed = [t for t, _ in sample], [f for _, f in sample]
    found = kaplan_meier(times, failed, band="log-log")
    assert sum(found.failures) == sum(failed)
    if not any(failed):
        assert set(found.survival) == {1.0}
        return
    data = stats.CensoredData.right_censored(times, [not f for f in failed])
    curve = stats.ecdf(data).sf
    for t in found.times_s:
        assert found.survival_at(t).value == pytest.approx(float(curve.evaluate(t)), abs=1e-9)


@settings(deadline=None)  # a busy machine is no failure
@given(SAMPLES, st.sampled_from(["beta", "log-log"]))
def test_bands_hold_the_estimate(sample: list[tuple[float, bool]], band) -> None:  # type: ignore[no-untyped-def]
    times, failed = [t for t, _ in sample], [f for _, f in sample]
    found = kaplan_meier(times, failed, band=band)
    for low, s, high in zip(found.low, found.survival, found.high, strict=True):
        assert 0 <= low <= s + 1e-9
        assert s - 1e-9 <= high <= 1
    if found.median_s.value is not None:
        assert found.median_s.low <= found.median_s.value <= found.median_s.high
    assert found.survival_at(max(times) + 1).low == 0
    if min(times) > 0:
        start = found.survival_at(0)
        assert (start.value, start.high) == (1.0, 1.0)
        assert start.low == pytest.approx(0.025 ** (1 / len(times)), rel=1e-12)


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(1, 60), st.integers(0, 60))
def test_without_censoring_the_beta_band_is_clopper_pearson(n: int, at: int) -> None:
    """Lifetimes 1..n, all failed: beyond ``at`` survive n - at of n."""
    at = min(at, n)
    found = kaplan_meier([float(i) for i in range(1, n + 1)], [True] * n).survival_at(at)
    exact = stats.binomtest(n - at, n).proportion_ci(0.95, "exact")
    assert found.value == pytest.approx((n - at) / n, abs=1e-12)
    assert found.low == pytest.approx(exact.low, rel=1e-6, abs=1e-12)
    assert found.high == pytest.approx(exact.high, rel=1e-6)


def _log_likelihood(shape: float, scale: float, times: np.ndarray, failed: np.ndarray) -> float:
    z = (times / scale) ** shape
    return float(
        (failed * (math.log(shape / scale) + (shape - 1) * np.log(times / scale))).sum() - z.sum()
    )


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(2, 60), st.floats(0.3, 5), st.floats(1, 1e6), st.integers(0, 10**6))
def test_weibull_is_the_maximum(n: int, shape: float, scale: float, seed: int) -> None:
    """The gradient of the likelihood is 0 there, and the intervals end where the profile says."""
    rng = np.random.default_rng(seed)
    times = scale * rng.weibull(shape, n)
    limit = np.quantile(times, 0.8) if n > 8 else times.max()
    failed, times = times <= limit, np.minimum(times, limit)
    fit = weibull(times.tolist(), failed.tolist())
    assert fit is not None
    k, eta = fit.shape.value or 0, fit.scale_s.value or 0
    z = (times / eta) ** k
    logs = np.log(times / eta)
    d = failed.sum()
    assert z.sum() == pytest.approx(d, rel=1e-9)
    assert d / k + logs[failed].sum() - (z * logs).sum() == pytest.approx(0, abs=1e-7 * n / k)
    assert fit.log_likelihood == pytest.approx(_log_likelihood(k, eta, times, failed), rel=1e-9)
    drop = (1 + (1.85 + 1.9 / (d - 1)) / d) * stats.chi2.isf(0.05, 1) / 2
    for bound in (fit.shape.low, fit.shape.high):
        top = times.max()
        best = top * float(((times / top) ** bound).sum() / d) ** (1 / bound)
        at = _log_likelihood(bound, best, times, failed)
        assert fit.log_likelihood - at == pytest.approx(drop, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_scale_interval_by_another_optimizer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = 100 * rng.weibull(1.4, 6 + 5 * seed)
    failed = rng.random(len(times)) < 0.8
    fit = weibull(times.tolist(), failed.tolist())
    assert fit is not None
    d = int(failed.sum())
    drop = (1 + (1.85 + 1.9 / (d - 1)) / d) * stats.chi2.isf(0.05, 1) / 2
    for bound in (fit.scale_s.low, fit.scale_s.high):
        best = optimize.minimize_scalar(
            lambda u, eta=bound: -_log_likelihood(math.exp(u), eta, times, failed),
            bounds=(-5, 5),
            method="bounded",
            options={"xatol": 1e-10},
        )
        assert fit.log_likelihood + best.fun == pytest.approx(drop, rel=1e-6)


def test_weibull_against_scipy() -> None:
    """scipy.stats.weibull_min.fit with CensoredData, as tight as its simplex gets."""
    data = stats.CensoredData.right_censored(NIST_HOURS, [not f for f in NIST_FAILED])

    def simplex(func, x0, args=(), disp=0):  # type: ignore[no-untyped-def]
        options = {"xatol": 1e-10, "fatol": 1e-12, "maxiter": 10000}
        return optimize.minimize(func, x0, args, method="Nelder-Mead", options=options).x

    shape, _, scale = stats.weibull_min.fit(data, floc=0, optimizer=simplex)
    fit = weibull(NIST_HOURS, NIST_FAILED)
    assert fit is not None
    assert fit.shape.value == pytest.approx(shape, rel=1e-7)
    assert fit.scale_s.value == pytest.approx(scale, rel=1e-7)


def test_fisher_errors_by_differences() -> None:
    fit = weibull(NIST_HOURS, NIST_FAILED)
    assert fit is not None
    times, failed = np.array(NIST_HOURS, float), np.array(NIST_FAILED)
    k, eta = math.log(fit.shape.value or 0), math.log(fit.scale_s.value or 0)
    h = 1e-4

    def f(a: float, b: float) -> float:
        return _log_likelihood(math.exp(k + a * h), math.exp(eta + b * h), times, failed)

    aa = -(f(1, 0) - 2 * f(0, 0) + f(-1, 0)) / h**2
    bb = -(f(0, 1) - 2 * f(0, 0) + f(0, -1)) / h**2
    ab = -(f(1, 1) - f(1, -1) - f(-1, 1) + f(-1, -1)) / (4 * h**2)
    covariance = np.linalg.inv([[aa, ab], [ab, bb]])
    z = stats.norm.ppf(0.975)
    for found, error in (
        (fit.shape_fisher, math.sqrt(covariance[0, 0])),
        (fit.scale_fisher_s, math.sqrt(covariance[1, 1])),
    ):
        assert math.log(found.high / (found.value or 0)) == pytest.approx(z * error, rel=1e-5)
        assert math.log((found.value or 0) / found.low) == pytest.approx(z * error, rel=1e-5)


def test_the_test_against_constant() -> None:
    fit = weibull(NIST_HOURS, NIST_FAILED)
    assert fit is not None
    rate = 10 / sum(NIST_HOURS)
    exponential = 10 * math.log(rate) - 10
    ratio = 2 * (fit.log_likelihood - exponential)
    assert fit.p_constant == pytest.approx(
        stats.chi2.sf(ratio / (1 + (1.85 + 1.9 / 9) / 10), 1), rel=1e-9
    )
    assert (fit.p_constant < 0.05) == (fit.kind != "constant")


def test_verdicts() -> None:
    rng = np.random.default_rng(2)
    kinds = [weibull((100 * rng.weibull(k, 80)).tolist(), [True] * 80) for k in (0.5, 1.0, 3.0)]
    assert [fit.kind for fit in kinds if fit] == ["infant mortality", "constant", "wear-out"]


@settings(deadline=None)  # a busy machine is no failure
@given(st.floats(0.1, 8), st.floats(0.01, 1e6), st.floats(0.01, 5))
def test_hazard_is_density_over_survival(shape: float, scale: float, share: float) -> None:
    t = share * scale
    model = stats.weibull_min(shape, scale=scale)
    assume(model.sf(t) > 1e-200)
    assert hazard_per_s(t, shape, scale) == pytest.approx(model.pdf(t) / model.sf(t), rel=1e-9)


def test_hazard_at_age_zero() -> None:
    assert hazard_per_s(0, 0.5, 10) == math.inf
    assert hazard_per_s(0, 1, 10) == 0.1
    assert hazard_per_s(0, 2, 10) == 0


def test_too_little_to_fit() -> None:
    assert weibull([5, 6], [False, False]) is None
    assert weibull([5, 6], [True, False]) is None
    assert weibull([6, 6], [True, True]) is None
    assert weibull([5, 6], [True, True]) is not None
    fit = weibull([5, 6], [True, True])
    assert fit is not None
    assert fit.kind == "constant"
    assert fit.shape.low < 1 < fit.shape.high


def test_a_year_of_seconds_does_not_overflow() -> None:
    fit = weibull([3e7, 3.1e7, 3.2e7, 3.15e7, 2.9e7], [True] * 5)
    assert fit is not None
    assert 10 < (fit.shape.value or 0) < 100
    close = weibull([1e9, 1e9 + 1], [True, True])
    assert close is not None
    assert math.isfinite(close.shape.high)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kaplan_meier([], []), "times_s: 0"),
        (lambda: kaplan_meier([1, 2], [True]), "times_s: 2"),
        (lambda: kaplan_meier([-1.0], [True]), "at least 0"),
        (lambda: kaplan_meier([1.0], [True], band="best"), "band: 'best'"),  # type: ignore[arg-type]
        (lambda: weibull([1.0], [True, False]), "failed: 2"),
        (lambda: weibull([0.0, 1.0], [True, True]), "above 0"),
        (lambda: hazard_per_s(1, 0, 1), "shape: 0"),
    ],
)
def test_wrong_arguments_are_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
