"""When something that grows will be used up: a robust trend with an interval.

The slope is Theil and Sen's, the median of the slopes between all pairs of points; its interval is
Sen's (1968), with the variance made larger where neighbours are alike (Hamed and Rao 1998; here by
the lag-one autocorrelation of what the trend leaves over, as Yue and Wang 2004): memory that
wanders looks like a trend to a test that believes its points to be independent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

LEAST: Final = 30
"""Points below which nothing is forecast."""
_Z: Final = 3.0
_MOST_ALIKE: Final = 0.98


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a limit is met, if it goes on so; in seconds from the last point."""

    soonest_s: float
    likely_s: float
    latest_s: float
    """Infinite where it may as well not grow at all."""
    slope: float
    """By the second."""


def forecast(points: Sequence[tuple[float, float]], limit: float) -> Forecast | None:
    """Say when growing values meet a limit; None where they do not grow for certain.

    ``points`` are times in seconds and values, in order. What falls back by more than a quarter of
    what it has risen is a sawtooth and no trend.
    """
    if len(points) < LEAST or points[-1][1] >= limit:
        return None
    slopes = sorted(
        (b[1] - a[1]) / (b[0] - a[0])
        for i, a in enumerate(points)
        for b in points[i + 1 :]
        if b[0] > a[0]
    )
    if not slopes:
        return None
    slope = median(slopes)
    if slope <= 0 or _falls_back(points):
        return None
    half = _Z * math.sqrt(_variance(points, slope)) / 2
    middle = len(slopes) / 2
    low = slopes[max(0, int(middle - half))]
    high = slopes[min(len(slopes) - 1, math.ceil(middle + half))]
    if low <= 0 or middle - half < 0:
        return None
    left = limit - points[-1][1]
    return Forecast(left / high, left / slope, left / low, slope)


def _variance(points: Sequence[tuple[float, float]], slope: float) -> float:
    """Of Kendall's S, for points that are not independent."""
    n = len(points)
    rest = [value - slope * at for at, value in points]
    mean = sum(rest) / n
    whole = sum((value - mean) ** 2 for value in rest)
    pairs = sum((a - mean) * (b - mean) for a, b in pairwise(rest))
    alike = min(_MOST_ALIKE, max(0.0, pairs / whole)) if whole > 0 else 0.0
    # The estimate is too low for few points (Kendall 1954).
    alike = min(_MOST_ALIKE, alike + (1 + 3 * alike) / n)
    return n * (n - 1) * (2 * n + 5) / 18 * (1 + alike) / (1 - alike)


def _falls_back(points: Sequence[tuple[float, float]]) -> bool:
    top = points[0][1]
    fall = 0.0
    for _, value in points:
        top = max(top, value)
        fall = max(fall, top - value)
    rise = top - min(value for _, value in points)
    return rise <= 0 or fall > rise / 4
