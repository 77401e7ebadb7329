"""Storm brake: the budget of restarts over all services together.

A token bucket (Turner, "New directions in communications", 1986): it holds ``limit`` tokens, a
restart after a failure takes one, and the whole bucket is full again after ``period`` seconds.
"""

from dataclasses import dataclass

from everup.model.spec import StormBrake

_SLACK = 1e-9
"""Tokens: what many additions of fractions leave over is no missing token."""
_LEAST_WAIT_S = 0.001
"""Who has to wait asks again at a later time than now, whatever the rounding."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """``spent`` tokens were missing at time ``at`` (monotonic seconds)."""

    spent: float = 0.0
    at: float = 0.0
    braking: bool = False
    """A restart had to wait; until the bucket is half full again, that is one storm."""


def missing(bucket: Bucket, brake: StormBrake, now: float) -> float:
    """Tokens that are missing now."""
    return max(0.0, bucket.spent - (now - bucket.at) * brake.limit / brake.period)


def take(bucket: Bucket, brake: StormBrake, now: float, reserve: int = 0) -> tuple[Bucket, float]:
    """Take a token, but none of the last ``reserve``. Returns the bucket, and 0 or the seconds
    until there is one."""
    if brake.limit == 0:
        return bucket, 0.0
    spent = missing(bucket, brake, now)
    limit = brake.limit - reserve
    if spent + 1 <= limit + _SLACK:
        return Bucket(spent + 1, now, bucket.braking), 0.0
    wait_s = (spent + 1 - limit) * brake.period / brake.limit
    return Bucket(spent, now, braking=True), max(wait_s, _LEAST_WAIT_S)


def is_empty(bucket: Bucket, brake: StormBrake, now: float) -> bool:
    """Whether a restart would have to wait."""
    return brake.limit > 0 and missing(bucket, brake, now) + 1 > brake.limit + _SLACK


def passes_at(bucket: Bucket, brake: StormBrake) -> float | None:
    """When the storm will be over if nothing more is taken; None: there is none."""
    if not bucket.braking or not brake.limit:
        return None
    left = max(0.0, bucket.spent - brake.limit / 2)
    return bucket.at + left * brake.period / brake.limit
