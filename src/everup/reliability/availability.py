"""Availability: point and measured, with intervals; per replica, per service, per request."""

import math
from collections.abc import Sequence
from typing import Literal

from everup.reliability.interval import (
    Interval,
    binomial_bounds,
    check_choice,
    check_confidence,
    check_count,
    check_not_negative,
    check_positive,
    in_range,
)
from everup.reliability.rates import Terminated
from everup.reliability.repair import FLOOR_S, lognormal_reach

YEAR_S = 365.25 * 86400.0
Span = tuple[float, float]
"""From and to, in seconds on one clock."""


@in_range()
def point(mttf_s: float, mttr_s: float) -> float:
    """Steady-state availability ``MTTF / (MTTF + MTTR)``, for any distribution of up and down
    times with these means (seconds, MTTF > 0, MTTR >= 0). Source: Trivedi, Probability and
    Statistics with Reliability, Queuing, and Computer Science Applications, 2nd ed."""
    check_positive("mttf_s", mttf_s)
    check_not_negative("mttr_s", mttr_s)
    return mttf_s / (mttf_s + mttr_s)


def measured(up_s: float, total_s: float, maintenance_s: float = 0.0) -> float:
    """Share of the time that counted: ``up / (total - maintenance)``, 0 to 1.

    ``up_s`` is the up time outside maintenance; planned maintenance counts neither as up nor as
    down, so name it beside the number. No model: it says what was, not what will be.
    """
    check_not_negative("up_s", up_s)
    check_not_negative("maintenance_s", maintenance_s)
    check_positive("total_s - maintenance_s", total_s - maintenance_s)
    share = up_s / (total_s - maintenance_s)
    if share > 1.0 + 1e-9:
        raise ValueError(f"up_s: {up_s!r} is more than total_s - maintenance_s")
    return min(1.0, share)


@in_range()
def exponential_interval(
    up_s: float,
    down_s: float,
    failures: int,
    confidence: float = 0.95,
    terminated: Terminated = "time",
    mttr_s: float | None = None,
) -> Interval:
    """Availability from ``n`` failures, all repaired, when up and down times are exponential.

    With ``r = MTTR / MTTF`` estimated by ``D / U`` (total down over total up time): ended by the
    last repair (``terminated="failure"``), ``r / (D/U)`` has the F distribution with 2n, 2n
    degrees of freedom, and ``A = 1 / (1 + r)``; exact. Ended by time, the number of failures is
    Poisson given the up time: the upper bound of ``r`` takes ``(n+1)/n F(2n+2, 2n)``; covers at
    least as promised. No failure: ``value`` is 1 and ``low = 1 / (1 + mttr_s * -ln(a) / U)``, the
    bound of the rate times an assumed ``mttr_s``; without that 0, for nothing is known of repair.

    It lies for repair times far from exponential: see `lognormal_interval`.
    Source: Trivedi, 2nd ed., chapter 10, example 10.27.
    """
    alpha = check_confidence(confidence)
    check_choice("terminated", terminated, ("time", "failure"))
    check_count("failures", failures, 0 if terminated == "time" else 1)
    check_positive("up_s", up_s)
    check_not_negative("down_s", down_s)
    if failures == 0:
        if down_s > 0.0:
            raise ValueError(f"down_s: {down_s!r} without a failure; it must be 0")
        if mttr_s is None:
            return Interval(1.0, 0.0, 1.0, confidence)
        check_not_negative("mttr_s", mttr_s)
        return Interval(1.0, 1.0 / (1.0 - math.log(alpha) / up_s * mttr_s), 1.0, confidence)
    from scipy.special import fdtri

    n = failures
    above = n + 1 if terminated == "time" else n
    ratio = down_s / up_s
    # fdtri is the quantile; the lower one as a reciprocal keeps its digits.
    low_ratio = ratio / float(fdtri(2 * n, 2 * n, 1 - alpha / 2))
    high_ratio = ratio * above / n * float(fdtri(2 * above, 2 * n, 1 - alpha / 2))
    return Interval(
        1.0 / (1.0 + ratio), 1.0 / (1.0 + high_ratio), 1.0 / (1.0 + low_ratio), confidence
    )


@in_range()
def lognormal_interval(
    up_s: float,
    repairs_s: Sequence[float],
    confidence: float = 0.95,
    floor_s: float = FLOOR_S,
) -> Interval:
    """Availability when failures come at a constant rate and repair times are log-normal.

    ``ln(MTTR / MTTF) = ln(rate) + mu + sigma^2 / 2``: the exact limits of the rate
    (`rates.failure_rate`, ended by time) and the limits of the mean repair time
    (as `repair.lognormal_mean`, with the normal quantile: the rate's bounds are cautious enough)
    are recovered into limits of their sum, ``e - sqrt(l1^2 + l2^2)`` and ``e + sqrt(u1^2 + u2^2)``
    (MOVER: Zou and Donner, Statistics in Medicine 27 (2008) 1693).
    ``repairs_s`` holds each repair time in seconds; ``up_s`` the total up time. Fewer than two
    repairs say nothing of their spread: ``[0, 1]``.

    It lies where `repair.lognormal_median` does, and when one repair delays another.
    """
    alpha = check_confidence(confidence)
    check_positive("up_s", up_s)
    check_positive("floor_s", floor_s)
    for value in repairs_s:
        check_not_negative("repairs_s", value)
    n = len(repairs_s)
    if n < 2:
        return Interval(up_s / (up_s + math.fsum(repairs_s)), 0.0, 1.0, confidence)
    from scipy.special import gammainccinv, gammaincinv

    logs = [math.log(max(value, floor_s)) for value in repairs_s]
    mean = math.fsum(logs) / n
    variance = math.fsum((x - mean) ** 2 for x in logs) / (n - 1)
    below, above = lognormal_reach(n, variance, alpha, "mover-normal")
    rate_below = math.log(n / float(gammaincinv(n, alpha / 2)))
    rate_above = math.log(float(gammainccinv(n + 1, alpha / 2)) / n)
    centre = math.log(n / up_s) + mean + variance / 2
    return Interval(
        _from_log_ratio(centre),
        _from_log_ratio(centre + math.hypot(above, rate_above)),
        _from_log_ratio(centre - math.hypot(below, rate_below)),
        confidence,
    )


def _from_log_ratio(x: float) -> float:
    return 1.0 / (1.0 + math.exp(x)) if x < 700.0 else 0.0


def replica_availability(
    down: Sequence[Sequence[Span]], window: Span, maintenance: Sequence[Span] = ()
) -> float:
    """Mean share of replicas that were up: each second of each replica counts the same.

    ``down`` holds one list of down spans per replica (they may overlap and reach over the window's
    ends). With one of four replicas down all the time this is 0.75 while `service_availability`
    may be 1: capacity, not service. Time in ``maintenance`` counts in neither.
    """
    lost, counted = _integrate(down, window, maintenance, None)
    return 1.0 - lost / counted


def service_availability(
    down: Sequence[Sequence[Span]],
    window: Span,
    maintenance: Sequence[Span] = (),
    needed: int = 1,
) -> float:
    """Share of the time in which at least ``needed`` replicas were up (1: any replica ready).

    Arguments as for `replica_availability`. It says nothing of how many requests met a replica
    that was down: see `request_availability`.
    """
    check_count("needed", needed, 1)
    if needed > len(down):
        raise ValueError(f"needed: {needed!r} is more than the {len(down)} replicas")
    lost, counted = _integrate(down, window, maintenance, needed)
    return 1.0 - lost / counted


def _integrate(
    down: Sequence[Sequence[Span]],
    window: Span,
    maintenance: Sequence[Span],
    needed: int | None,
) -> tuple[float, float]:
    """Seconds lost and seconds counted outside maintenance: one sweep over all edges."""
    start, end = window
    check_positive("window", end - start)
    if not down:
        raise ValueError("down: empty; one list of spans per replica is needed")
    edges: list[tuple[float, int, int]] = []
    for who, spans in enumerate((maintenance, *down)):
        for begin, finish in spans:
            if not finish >= begin:
                raise ValueError(f"span: {(begin, finish)!r} ends before it begins")
            if min(finish, end) > max(begin, start):
                edges.append((max(begin, start), who, 1))
                edges.append((min(finish, end), who, -1))
    edges.sort()
    depth = [0] * (len(down) + 1)
    replicas, missing = len(down), 0
    lost: list[float] = []
    counted: list[float] = []
    at = start
    for time_s, who, step in [*edges, (end, 0, 0)]:
        if depth[0] == 0 and time_s > at:
            counted.append(time_s - at)
            if needed is None:
                lost.append((time_s - at) * missing / replicas)
            elif replicas - missing < needed:
                lost.append(time_s - at)
        at = time_s
        before = depth[who]
        depth[who] += step
        if who:
            missing += (depth[who] > 0) - (before > 0)
    total_s = math.fsum(counted)
    if total_s <= 0.0:
        raise ValueError("maintenance: covers the whole window; nothing is left to measure")
    return math.fsum(lost), total_s


def request_availability(
    good: int,
    valid: int,
    confidence: float = 0.95,
    method: Literal["exact", "wilson"] = "exact",
) -> Interval:
    """Share of valid requests that were answered well, ``good / valid``, with an interval.

    ``exact``: Clopper-Pearson, covers at least as promised. ``wilson``: Wilson's score interval
    (JASA 22 (1927) 209), shorter, covers about as promised on average but less than that where
    only a few requests fail, which is where services live. No valid request: ``[0, 1]``.

    Both take requests as independent. Failures come in bursts, so with bursts the interval is too
    short: then count minutes, or resample whole incidents.
    """
    alpha = check_confidence(confidence)
    check_choice("method", method, ("exact", "wilson"))
    check_count("valid", valid)
    check_count("good", good)
    if good > valid:
        raise ValueError(f"good: {good!r} is more than valid ({valid!r})")
    if valid == 0:
        return Interval(None, 0.0, 1.0, confidence)
    value = good / valid
    if method == "exact":
        return Interval(value, *binomial_bounds(good, valid, alpha), confidence)
    from scipy.special import ndtri

    z2 = float(ndtri(alpha / 2)) ** 2
    centre = (good + z2 / 2) / (valid + z2)
    reach = math.sqrt(z2 * (value * (1 - value) * valid + z2 / 4)) / (valid + z2)
    return Interval(value, max(0.0, centre - reach), min(1.0, centre + reach), confidence)


def nines(availability: float) -> float:
    """``-log10(1 - A)``: 0.999 is 3 nines; infinite for 1. Range of A: 0 to 1."""
    _check_availability(availability)
    return -math.log10(1.0 - availability) if availability < 1.0 else math.inf


def downtime_s_per_year(availability: float) -> float:
    """Expected down time in seconds per year of 365.25 days: ``(1 - A) * 31 557 600``."""
    _check_availability(availability)
    return (1.0 - availability) * YEAR_S


def _check_availability(availability: float) -> None:
    if not 0.0 <= availability <= 1.0:
        raise ValueError(f"availability: {availability!r} is not between 0 and 1")
