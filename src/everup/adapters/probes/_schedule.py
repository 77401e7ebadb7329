"""When a probe is due: pure arithmetic on a fixed grid, so that no round's delay adds up."""

from dataclasses import dataclass
from math import ceil
from typing import Final

ROUND_JITTER: Final = 0.05
"""A round starts at most this part of the interval after its place on the grid."""
FIRST_SPREAD_S: Final = 0.1
"""The first probe starts within this time (or ROUND_JITTER of a shorter interval)."""
PHASE_SPREAD_S: Final = 10.0
"""Targets are spread over this much of an interval (or all of a shorter one)."""
MIN_GAP: Final = 0.25
"""A round closer than this part of the interval to a late one before it is skipped."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Round 0 is at ``first_s``, round k >= 1 at ``origin_s + k * interval_s`` plus its jitter."""

    first_s: float
    origin_s: float
    interval_s: float


def make_schedule(
    now_s: float, interval_s: float, first_after_s: float | None, first: float, phase: float
) -> Schedule:
    """The schedule of a target that starts now; ``first`` and ``phase`` are random in [0, 1).

    Targets that start together are asked together once and spread evenly from then on: round 1
    follows half an interval to one and a half after round 0, and whole intervals after that.
    """
    if first_after_s is None:
        first_after_s = first * min(ROUND_JITTER * interval_s, FIRST_SPREAD_S)
    first_s = now_s + max(0.0, first_after_s)
    spread_s = min(interval_s, PHASE_SPREAD_S)
    return Schedule(first_s, first_s + (phase - 0.5) * spread_s, interval_s)


def next_round(schedule: Schedule, last: int, now_s: float) -> int:
    """The number of the round that follows ``last``, which was handled at ``now_s``.

    Rounds whose time has gone by are skipped, never caught up with.
    """
    interval_s = schedule.interval_s
    return max(last + 1, ceil((now_s - schedule.origin_s) / interval_s + MIN_GAP))


def round_due_s(schedule: Schedule, number: int, jitter: float) -> float:
    """When round ``number`` is due; ``jitter`` is random in [0, 1)."""
    if number == 0:
        return schedule.first_s
    return schedule.origin_s + (number + ROUND_JITTER * jitter) * schedule.interval_s
