"""The statistics of a report, from sums and lists of microseconds."""

from collections.abc import Mapping, Sequence
from math import fsum

from everup.reliability._account_types import Failures, Part, Repairs, Requests, Times
from everup.reliability._history_line import DEGRADED, DOWN, PLANNED, UNKNOWN, UP
from everup.reliability.interval import Interval

_US = 1e6
_TREND_LEAST = 5
_Repair = tuple[int | None, int | None, int | None, int | None]


def times_of(sums: Sequence[int]) -> Times:
    return Times(
        sums[UP] / _US, sums[DEGRADED] / _US, sums[DOWN] / _US, sums[PLANNED] / _US,
        sums[UNKNOWN] / _US,
    )  # fmt: skip


def weighted(lines: Sequence[Sequence[int]]) -> float | None:
    """Mean over the instances' valid time: up seconds of all by valid seconds of all."""
    up = sum(line[UP] for line in lines)
    down = sum(line[DOWN] for line in lines)
    return up / (up + down) if up + down else None


def interval_of(times: Times, outages: int, mttr_s: float | None) -> Interval | None:
    """Availability with its interval from so many independent outages
    (``availability.exponential_interval``: exponential up and down times). Without an outage: as if
    one would last ``mttr_s``, the mean recovery of an instance; None: nothing is known of that."""
    from everup.reliability.availability import exponential_interval

    share, up_s = times.availability, times.up_s + times.degraded_s
    if share is None:
        return None
    if up_s <= 0:
        return Interval(share, 0.0, 1.0)
    if times.down_s <= 0:
        return exponential_interval(up_s, 0.0, 0, mttr_s=mttr_s)
    return exponential_interval(up_s, times.down_s, max(1, outages))


def requests_of(calls: tuple[int, int, int]) -> Requests | None:
    from everup.reliability.availability import request_availability

    ok, failed, rejected = calls
    if not ok + failed + rejected:
        return None
    return Requests(ok, failed, rejected, request_availability(ok, ok + failed + rejected))


def failures_of(
    kinds: Mapping[str, int],
    relapses: int,
    up_s: float,
    windows: Sequence[tuple[list[float], float]],
) -> Failures:
    """``windows``: up time at each failure, and in all; for the trend."""
    from everup.reliability.growth import Window, trend
    from everup.reliability.rates import failure_rate, mttf_s

    count = sum(kinds.values())
    rate = mttf = None
    if up_s > 0:
        rate, mttf = failure_rate(count - relapses, up_s), mttf_s(count - relapses, up_s)
    verdict, p, beta = "", None, None
    usable = [Window([t for t in at if 0 < t < end], end) for at, end in windows if end > 0]
    if sum(len(w.failures_s) for w in usable) >= _TREND_LEAST:
        found = trend(usable)
        verdict, p, beta = str(found.verdict), found.p_value, found.beta
    ordered = dict(sorted(kinds.items(), key=lambda item: -item[1]))
    return Failures(count, ordered, relapses, rate, mttf, verdict, p, beta)


def repairs_of(found: Sequence[_Repair], old: Sequence[int]) -> Repairs:
    """``old``: count and sum of each part, of repairs whose details are gone: they are in the
    counts and the means, and not in medians, percentiles and intervals."""
    detect, decide, recover, total = (
        _part([r[n] for r in found], old[2 * n], old[2 * n + 1], interval=n == 3) for n in range(4)
    )
    return Repairs(total, detect, decide, recover)


def _part(values: Sequence[int | None], old_count: int, old_sum: int, *, interval: bool) -> Part:
    from everup.reliability.repair import quantile_interval

    known = sorted(value / _US for value in values if value is not None)
    count = len(known) + old_count
    if not count:
        return Part(0, None, None, None, None)
    mean_s = (fsum(known) + old_sum / _US) / count
    if not known:
        return Part(count, None, None, mean_s, None)
    median_s, p95_s = _quantile(known, 0.5), _quantile(known, 0.95)
    median = quantile_interval(known, 0.5) if interval else None
    return Part(count, median_s, p95_s, mean_s, median)


def _quantile(ordered: Sequence[float], q: float) -> float:
    """Linear between order statistics."""
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])
