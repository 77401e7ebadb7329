"""The one type for an estimate with its confidence interval, and what every estimator checks."""

import math
from collections.abc import Callable, Collection
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


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


def in_range(*, infinite: Collection[str] = ()) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Decorate a function so that it raises ``ValueError`` where a result is beyond the range of
    floating-point numbers, rather than to give infinity, NaN or a ``ZeroDivisionError``.

    Bounds of intervals may be infinite, which is how they say that nothing bounds them; of other
    fields only those named ``infinite``.
    """

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            try:
                found = function(*args, **kwargs)
            except (ZeroDivisionError, OverflowError, FloatingPointError):
                found = None
            if found is None or not _is_in_range(found, infinite):
                given = ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())])
                raise ValueError(
                    f"{function.__name__}({given[:300]}): the result is beyond the range of"
                    " floating-point numbers, about 1e-300 to 1e300; expected numbers less extreme"
                    " (are the units right: seconds, and rates per second?)"
                )
            return found

        return call

    return decorate


def _is_in_range(value: object, infinite: Collection[str]) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Interval):
        if value.value is not None and not math.isfinite(value.value):
            return False
        return math.isfinite(value.low) and not math.isnan(value.high)
    if isinstance(value, tuple):
        names = getattr(value, "_fields", ("",) * len(value))
        pairs = zip(names, value, strict=True)
        return all(
            _is_in_range(each, infinite) or (name in infinite and each == math.inf)
            for name, each in pairs
        )
    return True


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
