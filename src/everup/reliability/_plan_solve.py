"""The downtime of units from their numbers: floats for the estimate, arrays for its interval.

A replica: failures of kinds i at rates ``r_i``, each down for a mean of ``m_i``; with
``lambda = sum r_i`` and ``m = sum r_i m_i / lambda`` its unavailability is
``q = lambda m / (1 + lambda m)``, whatever the distributions. Replicas are repaired each by itself
(everup restarts as many at a time as have failed), so all n are down ``q^n`` of the time. The
common cause is a unit in series, which takes ``beta lambda`` of the rate and is down for as long
as one replica is: the replicas come back at about the same time. (A Markov model with one
exponential repair each, as in :mod:`everup.reliability.repairable`, would have the first one back
after ``m/n``: too good for starts that take about the same time.)
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from everup.reliability._plan_members import Member, Structure, Unit

Values = Mapping[str, Any]
"""Number -> a float, or an array of draws."""


class Part(NamedTuple):
    """Failures of one kind that are mended in one way."""

    kind: str
    how: str
    rate: Any
    """Of one replica, per second of up time."""
    mean_s: Any


class Outages(NamedTuple):
    """A way in which a unit goes down: how often per second, and for how long."""

    rate: Any
    mean_s: Any


class Solved(NamedTuple):
    """Of a unit."""

    down: Any
    """Unavailability."""
    per_s: Any
    """Outages per second."""
    ways: tuple[Outages, ...]


def now(member: Member) -> dict[str, float]:
    return {key: number.now for key, number in member.numbers.items()}


def parts(member: Member, v: Values) -> list[Part]:
    """How one replica fails and comes back."""
    if "mttr" in v:
        return [Part("failure", "restart", v["crash"] + v["hang"] + v["unready"], v["mttr"])]
    restart_s = v["wait"] + v["start"]
    lost = v["not_recovered"] if member.restarts else 1.0
    found = [
        Part("crash", "restart", (1 - lost) * v["crash"], restart_s),
        Part("crash", "person", lost * v["crash"], v["person"]),
        Part("unready", "itself", v["unready"], v["unready_s"]),
    ]
    if member.sees_hangs:
        found.append(Part("hang", "restart", (1 - lost) * v["hang"], v["detect"] + restart_s))
        found.append(Part("hang", "person", lost * v["hang"], v["detect"] + v["person"]))
    else:
        found.append(Part("hang", "unseen", v["hang"], v["unseen"]))
    return found


def sums(of: Iterable[Part]) -> tuple[Any, Any]:
    """Rate of all, and the mean time down."""
    rate: Any = 0.0
    load: Any = 0.0
    for part in of:
        rate = rate + part.rate
        load = load + part.rate * part.mean_s
    return rate, load / rate


def solve(unit: Unit, members: Mapping[str, Member], values: Mapping[str, Values]) -> Solved:
    if unit.together:
        ways = _together(unit, members, values)
        load = sum(way.rate * way.mean_s for way in ways)
        up = 1 / (1 + load)
        return Solved(load * up, sum(way.rate for way in ways) * up, tuple(ways))
    member, v = members[unit.name], values[unit.name]
    own, n = parts(member, v), member.units
    rate, mean = sums(own)
    if n == 1:
        up = 1 / (1 + rate * mean)
        ways = [Outages(part.rate, part.mean_s) for part in own]
        return Solved(rate * mean * up, rate * up, tuple(ways))
    beta = v["common"]
    alone = (1 - beta) * rate
    q = alone * mean / (1 + alone * mean)
    all_down = q**n
    # Of n replicas any one is the last to fail; the first of n is back after m/n.
    all_per_s = n * alone / (1 + alone * mean) * q ** (n - 1)
    common = beta * rate
    common_up = 1 / (1 + common * mean)
    common_down = common * mean * common_up
    ways = [Outages(beta * part.rate, part.mean_s) for part in own]
    ways.append(Outages(all_per_s, mean / n))
    return Solved(
        common_down + common_up * all_down,
        common * common_up * (1 - all_down) + all_per_s * common_up,
        tuple(ways),
    )


def _together(
    unit: Unit, members: Mapping[str, Member], values: Mapping[str, Values]
) -> list[Outages]:
    """Any failure takes all down, until the slowest has started."""
    slowest: Any = 0.0
    for name in unit.members:
        start = values[name]["start"]
        slowest = _larger(slowest, start)
    ways = []
    for name in unit.members:
        member, v = members[name], dict(values[name])
        v["start"] = slowest
        if "mttr" in v:
            v["mttr"] = _larger(v["mttr"], slowest)
        ways += [Outages(member.units * p.rate, p.mean_s) for p in parts(member, v)]
    return ways


def _larger(a: Any, b: Any) -> Any:
    if isinstance(a, float) and isinstance(b, float):
        return max(a, b)
    import numpy as np

    return np.maximum(a, b)


class State:
    """The units of a structure with their estimates, and what a change of one of them makes."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.values = {name: now(member) for name, member in structure.members.items()}
        self.units = {unit.name: unit for unit in structure.units}
        self.solved = {
            name: solve(unit, structure.members, self.values) for name, unit in self.units.items()
        }
        self._of = {name: unit.name for unit in structure.units for name in unit.members}

    def put(self, member: Member) -> None:
        """Another definition of a service, with the same needs."""
        self.structure.members[member.name] = member
        self.values[member.name] = now(member)
        unit = self.units[self._of[member.name]]
        self.solved[unit.name] = solve(unit, self.structure.members, self.values)

    def together(self, service: str) -> tuple[str, ...]:
        """The services of the same unit."""
        return self.units[self._of[service]].members

    def unit_of(self, service: str) -> str:
        """The unit that it is part of."""
        return self._of[service]

    def common_part(self, service: str) -> float:
        """The part of its own downtime that is the common cause's."""
        unit, values = self.units[self._of[service]], self.values[service]
        down = self.solved[unit.name].down
        without = solve(
            unit, self.structure.members, {**self.values, service: {**values, "common": 0.0}}
        )
        return 1 - float(without.down / down) if down else 0.0

    def scope(self, service: str) -> frozenset[str]:
        """Units that must be up; "": all."""
        return self.structure.needed[service] if service else frozenset(self.units)

    def down(self, units: Iterable[str]) -> float:
        """Unavailability of units in series, without losing its digits."""
        return down_of(self.solved[name].down for name in units)

    def per_s(self, units: Iterable[str]) -> float:
        """Outages of units in series per second: ``sum_i w_i prod_(j != i) A_j``."""
        names = list(units)
        up = 1 - self.down(names)
        if up <= 0:
            return 0.0
        return math.fsum(self.solved[n].per_s / (1 - self.solved[n].down) * up for n in names)

    def down_with(
        self,
        units: Iterable[str],
        changed: Mapping[str, Values],
        members: Mapping[str, Member] | None = None,
    ) -> float:
        """The same, with other values (or members) of some services."""
        values = {**self.values, **changed}
        others = {**self.structure.members, **(members or {})}
        touched = {self._of[name] for name in (*changed, *(members or ()))}
        return down_of(
            solve(self.units[name], others, values).down
            if name in touched
            else self.solved[name].down
            for name in units
        )


def down_of(downs: Iterable[Any]) -> float:
    """``1 - prod (1 - u)`` of numbers."""
    return -math.expm1(math.fsum(math.log1p(-down) if down < 1 else -math.inf for down in downs))
