"""Block diagrams: the availability of a whole from that of its units.

A diagram is a tree of :class:`Unit`, :class:`Series`, :class:`Parallel` and :class:`KofN`. A unit
whose name occurs more than once is one unit shared by several branches (a host, a database): it is
counted once, by conditioning on it (a binary decision diagram), where the product rule would count
it again at each place.

Every function here assumes that units fail and are repaired independently of each other: as many
repairs at a time as there are failed units, no common cause but units that are drawn as shared, no
unit that fails faster when another is down. Where one crew repairs all, a spare takes over, or a
failover can go wrong, see :mod:`everup.reliability.repairable`. Steady-state availability depends
on the mean up and down times alone, not on their distributions; mission reliability and MTTF
assume constant failure rates.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from everup.reliability._bdd import Formula, Structure, compile_formula


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit. Give rates, or the availability, or the unavailability (better near 1), or one of
    these with the failure rate.

    ``name``: units of one name are one unit and must agree in all numbers. ``failure_rate_per_s``:
    ``lambda = 1 / MTTF``, 0 for a unit that never fails. ``repair_rate_per_s``: ``mu = 1 / MTTR``;
    without it the unit is not repaired. Raises ``ValueError``.
    """

    name: str
    failure_rate_per_s: float | None = None
    repair_rate_per_s: float | None = None
    availability: float | None = None
    unavailability: float | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name '': a unit needs a name")
        _check_rate(self.name, "failure_rate_per_s", self.failure_rate_per_s, zero=True)
        _check_rate(self.name, "repair_rate_per_s", self.repair_rate_per_s, zero=False)
        for field in ("availability", "unavailability"):
            value = getattr(self, field)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{field} {value} of unit {self.name}: between 0 and 1")
        given = [self.repair_rate_per_s, self.availability, self.unavailability]
        if sum(value is not None for value in given) > 1:
            raise ValueError(
                f"unit {self.name}: give one of repair_rate_per_s, availability, unavailability"
            )
        if self.failure_rate_per_s is None and (
            self.repair_rate_per_s is not None or all(value is None for value in given)
        ):
            raise ValueError(
                f"unit {self.name}: failure_rate_per_s, availability or unavailability is needed"
            )

    @property
    def steady(self) -> tuple[float, float]:
        """Steady-state (unavailability, availability), ``lambda / (lambda + mu)`` and complement.

        Raises ``ValueError`` for a unit that fails and is never repaired.
        """
        if self.availability is not None:
            return 1 - self.availability, self.availability
        if self.unavailability is not None:
            return self.unavailability, 1 - self.unavailability
        failure, repair = self.failure_rate_per_s, self.repair_rate_per_s
        if not failure:
            return 0.0, 1.0
        if repair is None:
            raise ValueError(
                f"repair_rate_per_s of unit {self.name} is not given: without repair it has no"
                " steady-state availability but 0"
            )
        return failure / (failure + repair), repair / (failure + repair)

    def mission(self, time_s: Any) -> tuple[Any, Any]:
        """(Probability of a failure before ``time_s``, of none), without repair:
        ``1 - exp(-lambda t)`` and ``exp(-lambda t)``; a number, or a numpy array of times."""
        rate = self.failure_rate_per_s
        if rate is None:
            raise ValueError(
                f"failure_rate_per_s of unit {self.name} is not given: needed for a mission"
            )
        if isinstance(time_s, (int, float)):
            return -math.expm1(-rate * time_s), math.exp(-rate * time_s)
        import numpy as np

        return -np.expm1(-rate * time_s), np.exp(-rate * time_s)


@dataclass(frozen=True, slots=True, init=False)
class Series:
    """Up where every part is up."""

    parts: "tuple[Block, ...]"

    def __init__(self, *parts: "Block") -> None:
        object.__setattr__(self, "parts", _checked_parts("Series", parts))


@dataclass(frozen=True, slots=True, init=False)
class Parallel:
    """Up where at least one part is up."""

    parts: "tuple[Block, ...]"

    def __init__(self, *parts: "Block") -> None:
        object.__setattr__(self, "parts", _checked_parts("Parallel", parts))


@dataclass(frozen=True, slots=True, init=False)
class KofN:
    """Up where at least ``k`` of the parts are up; ``1 <= k <= number of parts``."""

    k: int
    parts: "tuple[Block, ...]"

    def __init__(self, k: int, *parts: "Block") -> None:
        object.__setattr__(self, "k", k)
        object.__setattr__(self, "parts", _checked_parts("KofN", parts))
        if not 1 <= k <= len(parts):
            raise ValueError(f"k {k}: between 1 and the number of parts, {len(parts)}")


Block: TypeAlias = Unit | Series | Parallel | KofN


class SteadyState(NamedTuple):
    """What a diagram does in the long run. The last three are None where a unit that matters has
    no failure rate."""

    availability: float
    unavailability: float
    """Kept apart: near availability 1 it has the digits."""
    frequency_per_s: float | None
    """Failures of the whole per second."""
    mean_up_s: float | None
    """Between a repair of the whole and its next failure; inf where it never fails."""
    mean_down_s: float | None


class Mission(NamedTuple):
    """Of a time without repair."""

    reliability: float
    """Probability of no failure of the whole."""
    unreliability: float


@dataclass(frozen=True, slots=True)
class Replicated:
    """A service for :func:`from_graph`: up where ``need`` of its ``replicas`` and all services that
    it depends on are up. A replica is a unit, or a block such as ``Series(host, process)``."""

    name: str
    replicas: tuple[Block, ...]
    need: int = 1
    depends_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.need <= len(self.replicas):
            raise ValueError(
                f"need {self.need} of service {self.name}: between 1 and its replicas,"
                f" {len(self.replicas)}"
            )


def steady_state(block: Block) -> SteadyState:
    """Availability, failure frequency, mean up and down time in the long run.

    ``A`` by conditioning on each unit (module text); frequency ``w = sum_i B_i A_i lambda_i`` with
    the Birnbaum importance ``B_i``; mean up time ``A / w``, mean down time ``(1 - A) / w``. Both
    ``A`` and ``1 - A`` are sums of positive terms, without a subtraction: relative error about
    1e-14. Lies where units share repair crews or fail together. Source: Rausand, Barros and
    Hoyland, System Reliability Theory (3rd ed. 2021), on availability of systems of independent
    repairable items; Vesely, A time-dependent methodology for fault tree evaluation (1970).
    Raises ``ValueError``.
    """
    structure, units = compiled(block)
    down, up = steady_inputs(units)
    unavailability, availability = structure.pair(down, up)
    frequency: float | None = 0.0
    for name, slope in structure.slopes(down, up).items():
        rate = units[name].failure_rate_per_s
        if slope == 0 or frequency is None:
            continue
        frequency = None if rate is None else frequency + slope * up[name] * rate
    if frequency is None:
        return SteadyState(availability, unavailability, None, None, None)
    if frequency == 0:
        return SteadyState(availability, unavailability, 0.0, math.inf, 0.0)
    return SteadyState(
        availability,
        unavailability,
        frequency,
        availability / frequency,
        unavailability / frequency,
    )


def availability(block: Block) -> float:
    """Steady-state availability, 0 to 1: see :func:`steady_state`."""
    structure, units = compiled(block)
    return float(structure.pair(*steady_inputs(units))[1])


def unavailability(block: Block) -> float:
    """Steady-state unavailability with its own digits (1e-12 has as many as 0.5)."""
    structure, units = compiled(block)
    return float(structure.pair(*steady_inputs(units))[0])


def mission(block: Block, time_s: float) -> Mission:
    """Probability that the whole survives ``time_s`` (>= 0) with no repair of any unit.

    Each unit survives with ``exp(-lambda t)`` (constant failure rate, as good as new at the
    start). Raises ``ValueError``, also where a unit has no failure rate.
    """
    if not 0 <= time_s < math.inf:
        raise ValueError(f"time_s {time_s}: finite and not negative")
    structure, units = compiled(block)
    pairs = {name: units[name].mission(float(time_s)) for name in structure.order}
    failed, survived = structure.pair(
        {name: pair[0] for name, pair in pairs.items()},
        {name: pair[1] for name, pair in pairs.items()},
    )
    return Mission(survived, failed)


def mttf_s(block: Block) -> float:
    """Mean time to the first failure of the whole, all units new and none repaired, seconds.

    ``MTTF = integral_0^inf R(t) dt``, by the trapezoid rule in ``x = ln t``, which converges
    exponentially here (Trefethen and Weideman, The Exponentially Convergent Trapezoidal Rule, SIAM
    Review 56 (2014)): relative error below 1e-11. ``inf`` where units that never fail (rate 0) keep
    the whole up. With repair: :func:`steady_state` has the mean up time, which starts at a repair
    of the whole instead. Raises ``ValueError``, also where a unit has no failure rate.
    """
    import numpy as np

    structure, units = compiled(block)
    rates = {name: units[name].failure_rate_per_s for name in structure.order}
    for name in structure.order:
        units[name].mission(0.0)
    moving = [rate for rate in rates.values() if rate]
    ends = {name: (1.0, 0.0) if rates[name] else (0.0, 1.0) for name in structure.order}
    if structure.pair({n: e[0] for n, e in ends.items()}, {n: e[1] for n, e in ends.items()})[1]:
        return math.inf
    if not moving:
        return 0.0
    step = 0.125
    first = -math.log(sum(moving)) - 40
    last = math.log((45 + math.log(len(moving))) / min(moving))
    times = np.exp(np.arange(first, last + step, step))
    pairs = {name: units[name].mission(times) for name in structure.order}
    _, survived = structure.pair(
        {name: pair[0] for name, pair in pairs.items()},
        {name: pair[1] for name, pair in pairs.items()},
    )
    return float(step * np.sum(np.sort(survived * times)))


def from_graph(services: Iterable[Replicated], service: str | None = None) -> Block:
    """The diagram of one service with all that it needs, or of the whole (every service up).

    Dependencies are followed to the end; what two services both need appears once. Raises
    ``ValueError`` for an unknown dependency, a name twice and a circle of dependencies.
    """
    found: dict[str, Replicated] = {}
    for each in services:
        if each.name in found:
            raise ValueError(f"service {each.name}: given twice")
        found[each.name] = each
    if not found:
        raise ValueError("services: at least one is needed")
    for each in found.values():
        for needed in each.depends_on:
            if needed not in found:
                raise ValueError(
                    f"depends_on {needed!r} of service {each.name}: no such service; there are"
                    f" {', '.join(sorted(found))}"
                )
    if service is not None and service not in found:
        raise ValueError(f"service {service!r}: no such; there are {', '.join(sorted(found))}")
    _refuse_circles(found)
    wanted: dict[str, None] = {}
    stack = [service] if service is not None else list(found)
    while stack:
        name = stack.pop()
        if name not in wanted:
            wanted[name] = None
            stack.extend(found[name].depends_on)
    blocks: list[Block] = []
    for name in (name for name in found if name in wanted):
        each = found[name]
        one = len(each.replicas) == 1
        blocks.append(each.replicas[0] if one else KofN(each.need, *each.replicas))
    return blocks[0] if len(blocks) == 1 else Series(*blocks)


def compiled(block: Block) -> tuple[Structure, dict[str, Unit]]:
    """The decision diagram of "the whole is down" and the units by name. For the other modules of
    this package."""
    formula, units = Formula(), dict[str, Unit]()
    formula.top = _add(formula, units, block, {})
    return compile_formula(formula), units


def steady_inputs(units: Mapping[str, Unit]) -> tuple[dict[str, float], dict[str, float]]:
    pairs = {name: unit.steady for name, unit in units.items()}
    return {n: pair[0] for n, pair in pairs.items()}, {n: pair[1] for n, pair in pairs.items()}


def _add(formula: Formula, units: dict[str, Unit], block: Block, seen: dict[int, int]) -> int:
    """The part is down where: series, any of its parts; parallel, all; k of n, ``n - k + 1``."""
    at = seen.get(id(block))
    if at is not None:
        return at
    if isinstance(block, Unit):
        if units.setdefault(block.name, block) != block:
            raise ValueError(f"unit {block.name}: occurs twice with different numbers")
        at = formula.event(block.name)
    else:
        parts = [_add(formula, units, part, seen) for part in block.parts]
        if isinstance(block, Series):
            needed = 1
        else:
            needed = len(parts) if isinstance(block, Parallel) else len(parts) - block.k + 1
        at = formula.vote(needed, parts)
    seen[id(block)] = at
    return at


def _refuse_circles(found: Mapping[str, Replicated]) -> None:
    done: set[str] = set()
    for start in found:
        path: dict[str, Any] = {start: iter(found[start].depends_on)}
        while path:
            name = next(reversed(path))
            following = next((n for n in path[name] if n not in done), None)
            if following is None:
                done.add(name)
                del path[name]
            elif following in path:
                names = list(path)
                circle = [*names[names.index(following) :], following]
                raise ValueError(f"depends_on: a circle, {' -> '.join(circle)}")
            else:
                path[following] = iter(found[following].depends_on)


def _checked_parts(kind: str, parts: "tuple[Block, ...]") -> "tuple[Block, ...]":
    if not parts:
        raise ValueError(f"parts of {kind}: at least one is needed")
    for part in parts:
        if not isinstance(part, (Unit, Series, Parallel, KofN)):
            raise ValueError(f"part {part!r} of {kind}: a Unit, Series, Parallel or KofN")
    return parts


def _check_rate(name: str, field: str, value: float | None, zero: bool) -> None:
    if value is not None and not (0 < value < math.inf or (zero and value == 0)):
        least = "not negative" if zero else "above 0"
        raise ValueError(f"{field} {value} of unit {name}: finite and {least}, per second")
