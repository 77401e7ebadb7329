"""The one type for an estimate with its confidence interval, and what every estimator checks."""

import math
from typing import NamedTuple


class Interval(NamedTuple):
    """A point estimate and the interval ``[low, high]`` that covers the true value with
    probability ``confidence`` (0 < confidence < 1) in repeated use.

    ``value`` is None where the data hold no point estimate (the mean time to failure when nothing
    failed); ``low`` is 0 and ``high`` is ``math.inf`` where nothing bounds it on that side. The
    unit of the three is that of the quantity, named by the field or function that holds the
    interval.
    """

    value: float | None
    low: float
    high: float
    confidence: float = 0.95


def check_confidence(confidence: float) -> float:
    """The error probability ``1 - confidence``."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: {confidence!r} is not between 0 and 1 (both excluded)")
    return 1.0 - confidence


def check_count(name: str, value: int, least: int = 0) -> None:
    if value != int(value) or value < least:
        raise ValueError(f"{name}: {value!r} is not a whole number of at least {least}")


def check_positive(name: str, value: float) -> None:
    if not (value > 0.0 and math.isfinite(value)):
        raise ValueError(f"{name}: {value!r} is not a finite number above 0")


def check_not_negative(name: str, value: float) -> None:
    if not (value >= 0.0 and math.isfinite(value)):
        raise ValueError(f"{name}: {value!r} is not a finite number of at least 0")


def check_choice(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(valid)}")


def binomial_bounds(successes: int, trials: int, alpha: float) -> tuple[float, float]:
    """Exact two-sided bounds of a binomial probability, ``alpha / 2`` left out on each side.

    Clopper and Pearson, Biometrika 26 (1934) 404: quantiles of Beta(k, n-k+1) and Beta(k+1, n-k).
    They cover at least as often as promised for every probability, mostly more often.
    """
    from scipy.special import betaincinv

    low = float(betaincinv(successes, trials - successes + 1, alpha / 2)) if successes else 0.0
    failed = trials - successes
    # 1 - quantile of the mirrored Beta: keeps the digits of a probability close to 1.
    high = 1.0 - float(betaincinv(failed, successes + 1, alpha / 2)) if failed else 1.0
    return low, high
