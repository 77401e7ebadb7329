"""Intervals by simulation: every number drawn from its distribution, the structure solved for all
draws at once."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from everup.reliability._plan_members import Member, Structure
from everup.reliability._plan_numbers import Number
from everup.reliability._plan_solve import Outages, Solved, solve
from everup.reliability._plan_types import Comparison, Observed
from everup.reliability.interval import Interval

if TYPE_CHECKING:
    from numpy.random import Generator

DRAWS = 4000
CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2
SHARED = ("not_recovered", "person", "unseen", "common")
"""Assumed alike for all services, they are wrong alike: one draw for all."""


class Draws:
    """The units of a structure for ``DRAWS`` draws of its numbers."""

    def __init__(self, structure: Structure, rng: "Generator") -> None:
        self._rng = rng
        shared: dict[Number, Any] = {}
        self.values: dict[str, dict[str, Any]] = {}
        for name in sorted(structure.members):
            self.values[name] = _draw(structure.members[name], rng, shared)
        self.solved: dict[str, Solved] = {
            unit.name: solve(unit, structure.members, self.values) for unit in structure.units
        }

    def down(self, units: Iterable[str], value: float) -> Interval:
        """Unavailability of units in series, with its estimate ``value``."""
        import numpy as np

        logs: Any = np.zeros(DRAWS)
        for name in sorted(units):
            logs = logs + np.log1p(-np.minimum(self.solved[name].down, 1 - 1e-16))
        low, high = np.quantile(-np.expm1(logs), (_TAIL, 1 - _TAIL))
        return Interval(value, min(float(low), value), max(float(high), value), CONFIDENCE)

    def in_window(self, units: Iterable[str], valid_s: float, value: float) -> Interval:
        """Availability of units in series in a window of ``valid_s``.

        For each draw of the numbers the outages of each way are Poisson with its rate, and their
        times exponential with its mean: a sum of so many is a gamma variate.
        """
        import numpy as np

        rng = self._rng
        down: Any = np.zeros(DRAWS)
        for name in sorted(units):
            solved = self.solved[name]
            up = 1 - np.asarray(solved.down, float)
            for way in solved.ways:
                down = down + _times_down(way, up * valid_s, rng)
        share = np.clip(1 - down / valid_s, 0.0, 1.0)
        low, high = np.quantile(share, (_TAIL, 1 - _TAIL))
        return Interval(value, min(float(low), value), max(float(high), value), CONFIDENCE)


def _draw(member: Member, rng: "Generator", shared: dict[Number, Any]) -> dict[str, Any]:
    found = {}
    for key, number in member.numbers.items():
        if key in SHARED and number.source == "assumed":
            if number not in shared:
                shared[number] = number.draw(rng, DRAWS)
            found[key] = shared[number]
        else:
            found[key] = number.draw(rng, DRAWS)
    return found


def _times_down(way: Outages, up_s: Any, rng: "Generator") -> Any:
    import numpy as np

    expected = np.broadcast_to(np.minimum(way.rate * up_s, 1e9), (DRAWS,))
    counts = rng.poisson(expected)
    return rng.standard_gamma(np.maximum(counts, 1e-9)) * way.mean_s * (counts > 0)


def compared(
    draws: Draws, units: Iterable[str], valid_s: float, measured: float, down: float
) -> Comparison:
    """The measured availability beside the predicted one of such a window."""
    predicted = draws.in_window(units, valid_s, 1 - down)
    errs = ""
    if measured < predicted.low - 1e-12:
        errs = "optimistic"
    elif measured > predicted.high + 1e-12:
        errs = "pessimistic"
    return Comparison(valid_s, measured, predicted, not errs, errs)  # type: ignore[arg-type]


def seen_enough(seen: Observed | None) -> bool:
    return seen is not None and seen.availability is not None and seen.valid_s > 0


def up_interval(down: Interval) -> Interval:
    """Availability from unavailability."""
    assert down.value is not None
    return Interval(1 - down.value, 1 - down.high, 1 - down.low, down.confidence)


def times(interval: Interval, factor: float) -> Interval:
    value = None if interval.value is None else interval.value * factor
    return Interval(value, interval.low * factor, interval.high * factor, interval.confidence)
