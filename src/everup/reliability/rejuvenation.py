"""When to restart an ageing process before it fails."""

import math
from typing import NamedTuple, cast

from everup.reliability.interval import in_range


class Rejuvenation(NamedTuple):
    """The best interval of planned restarts."""

    interval_s: float
    """Uptime after which to restart; ``inf``: never, planned restarts do not pay."""
    cost_rate: float
    """Mean cost per second of uptime with this interval."""
    cost_rate_without: float
    """The same without planned restarts."""

    @property
    def saves(self) -> float:
        """Part of the cost that planned restarts save, 0 to 1."""
        return 1 - self.cost_rate / self.cost_rate_without


@in_range()
def cost_rate(
    interval_s: float, shape: float, scale_s: float, planned: float, failed: float
) -> float:
    """Mean cost per second of uptime when each process is restarted at the age ``interval_s``.

    ``C(t) = (planned R(t) + failed F(t)) / integral_0^t R(u) du`` with the Weibull lifetime
    ``R(t) = exp(-(t/scale)^shape)``. ``planned`` and ``failed``: what a planned restart and a
    failure cost, in one unit, best the seconds of downtime; above 0. Holds for independent
    lifetimes of one distribution, where a restart makes the process as good as new. Source:
    Barlow and Proschan, Mathematical Theory of Reliability (1965), chapter 4 (age replacement).
    Raises ``ValueError``.
    """
    _check(shape, scale_s, planned, failed)
    if not interval_s > 0:
        raise ValueError(f"interval_s {interval_s}: above 0")
    if math.isinf(interval_s):
        return failed / (scale_s * math.gamma(1 + 1 / shape))
    survives = math.exp(-((interval_s / scale_s) ** shape))
    return (planned * survives + failed * (1 - survives)) / _mean_up_s(interval_s, shape, scale_s)


@in_range(infinite=("interval_s",))
def optimal(shape: float, scale_s: float, planned: float, failed: float) -> Rejuvenation:
    """The interval that costs least.

    Where ``h(t) integral_0^t R - F(t) = planned / (failed - planned)``, with the hazard
    ``h(t) = shape/scale (t/scale)^(shape-1)``; the left side grows from 0 without bound if the
    hazard grows, so there is one root. No interval pays where the hazard does not grow
    (``shape <= 1``) or a planned restart costs as much as a failure. Source and assumptions as of
    ``cost_rate``. Raises ``ValueError``.
    """
    _check(shape, scale_s, planned, failed)
    without = cost_rate(math.inf, shape, scale_s, planned, failed)
    if shape <= 1 or planned >= failed:
        return Rejuvenation(math.inf, without, without)
    from scipy.optimize import brentq

    goal = planned / (failed - planned)

    def excess(log_age: float) -> float:
        age = math.exp(log_age)  # in units of the scale
        hazard: float = shape * age ** (shape - 1)
        return hazard * _mean_up_s(age, shape, 1.0) + math.expm1(-(age**shape)) - goal

    # By the logarithm: a shape close to 1 puts the root many orders of magnitude away.
    high = 1.0
    while excess(high) < 0:
        high *= 2
        if high > _FURTHEST:
            return Rejuvenation(math.inf, without, without)
    low = -1.0
    while excess(low) > 0:
        low *= 2
    interval_s = scale_s * math.exp(cast(float, brentq(excess, low, high, xtol=1e-12)))
    best = cost_rate(interval_s, shape, scale_s, planned, failed)
    if best >= without:  # at an age that next to nobody reaches
        return Rejuvenation(math.inf, without, without)
    return Rejuvenation(interval_s, best, without)


_FURTHEST = 64.0  # e^64 scales: never


def _mean_up_s(age_s: float, shape: float, scale_s: float) -> float:
    """``integral_0^age R``, by the incomplete gamma function."""
    from scipy.special import gammainc

    whole = scale_s * math.gamma(1 + 1 / shape)
    return whole * float(gammainc(1 / shape, (age_s / scale_s) ** shape))


def _check(shape: float, scale_s: float, planned: float, failed: float) -> None:
    for name, value in (
        ("shape", shape),
        ("scale_s", scale_s),
        ("planned", planned),
        ("failed", failed),
    ):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} {value}: above 0 and finite")
