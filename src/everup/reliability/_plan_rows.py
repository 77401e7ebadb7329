"""What carries an answer, and what to mend first."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from everup.reliability._plan_members import DEFAULT_PROBE, Member, Unit
from everup.reliability._plan_numbers import Number
from everup.reliability._plan_solve import State, parts, sums
from everup.reliability._plan_types import Assumption, Loss, Mend, ServiceImportance
from everup.reliability.importance import YEAR_S

_STEP = 0.01
DEFAULT_DETECT_S = (
    DEFAULT_PROBE.interval / 2
    + (DEFAULT_PROBE.failure_threshold - 1) * max(DEFAULT_PROBE.interval, DEFAULT_PROBE.timeout)
    + DEFAULT_PROBE.timeout
)
"""Of a liveness probe with everup's defaults."""

_ROWS: dict[str, tuple[str, Literal["s", "share"]]] = {
    "crash": ("time between crashes of a replica", "s"),
    "hang": ("time between hangs of a replica", "s"),
    "unready": ("time between unready times of a replica", "s"),
    "unready_s": ("length of an unready time", "s"),
    "detect": ("detection of a hang", "s"),
    "wait": ("wait before a restart", "s"),
    "start": ("start time", "s"),
    "mttr": ("time to repair, all kinds", "s"),
    "not_recovered": ("coverage: failures that everup recovers", "share"),
    "person": ("time until a person mends it", "s"),
    "unseen": ("length of a hang that nothing detects", "s"),
    "common": ("common cause: failures that strike all replicas", "share"),
}
_RATES = ("crash", "hang", "unready")


def used(member: Member) -> list[str]:
    """Numbers of a member that its downtime depends on."""
    numbers = member.numbers
    keys = [key for key in _RATES if numbers[key].value > 0]
    if "mttr" in numbers:
        keys.append("mttr")
    else:
        keys += ["start"]
        if numbers["wait"].value > 1e-3 or numbers["wait"].source == "measured":
            keys.append("wait")
        keys += ["detect"] if member.sees_hangs else ["unseen"]
        keys += ["unready_s"] if numbers["unready"].value > 0 else []
        keys += ["not_recovered", "person"] if member.restarts else ["person"]
    return [*keys, *(["common"] if member.units > 1 else [])]


def assumptions(state: State, scope: frozenset[str], names: Iterable[str]) -> list[Assumption]:
    """A row for each number, alike ones of several services in one, what carries most first.

    Elasticity: ``d ln U / d ln x`` by a central difference of one per cent. It of a time between
    failures is minus that of their rate.
    """
    groups: dict[tuple[str, Number], list[str]] = {}
    members = state.structure.members
    names = list(names)
    for name in names:
        for key in used(members[name]):
            groups.setdefault((key, members[name].numbers[key]), []).append(name)
    down = state.down(scope)
    rows = []
    for (key, number), services in groups.items():
        changed = []
        for factor in (1 + _STEP, 1 - _STEP):
            values = {n: {**state.values[n], key: state.values[n][key] * factor} for n in services}
            changed.append(state.down_with(scope, values))
        slope = (changed[0] - changed[1]) / (2 * _STEP * down) if down else 0.0
        everywhere = len(services) == len(names) > 1
        rows.append(_row(key, number, () if everywhere else tuple(services), slope))
    rows.sort(key=lambda row: -abs(row.elasticity))
    return rows


def _row(key: str, number: Number, services: tuple[str, ...], slope: float) -> Assumption:
    name, unit = _ROWS[key]
    value, (low, high), sample = number.now, number.bounds(), number.sample
    if key in _RATES:
        value, low, high, slope = 1 / value, 1 / high, 1 / low if low else float("inf"), -slope
        sample = 1 / sample if sample else None
    elif key == "not_recovered":
        value, low, high = 1 - value, 1 - high, 1 - low
    bursts = number.b if number.shape == "gamma" else 1.0
    note = number.note
    return Assumption(
        name, services, value, unit, low, high, number.source, note, sample, bursts, slope
    )


def losses(member: Member, values: Mapping[str, Any]) -> tuple[Loss, ...]:
    found = [
        Loss(part.kind, part.how, part.rate * YEAR_S, part.mean_s)
        for part in parts(member, values)
        if part.rate > 0
    ]
    return tuple(sorted(found, key=lambda loss: -loss.per_year * loss.mean_s))


def replica_times(member: Member, values: Mapping[str, Any]) -> tuple[float, float]:
    """MTTF and MTTR of one replica."""
    rate, mean_s = sums(parts(member, values))
    return 1 / rate, mean_s


def mend(state: State, scope: frozenset[str], names: Iterable[str]) -> list[Mend]:
    """What would be saved if one thing was gone, the most first."""
    down = state.down(scope)
    found = []
    for name in names:
        member, values = state.structure.members[name], state.values[name]
        for what, text, changes, seeing in _ways(member, values):
            members = {name: replace(member, sees_hangs=True)} if seeing else {}
            after = state.down_with(scope, {name: {**values, **changes}}, members)
            saved = (down - after) * YEAR_S
            if saved > 0:
                found.append(Mend(name, what, text, saved))
    found.sort(key=lambda each: -each.saved_s_per_year)
    return found


_Way = tuple[str, str, dict[str, float], bool]


def _ways(member: Member, v: Mapping[str, Any]) -> list[_Way]:
    """(what, text, values that say it is gone, whether hangs are seen then)."""
    if "mttr" in v:
        return [("failures", f"its failures take {v['mttr']:.3g} s each", {"mttr": 0.0}, False)]
    found: list[_Way] = []
    if not member.sees_hangs:
        text = "nothing detects its hangs: add a liveness probe"
        found.append(("unseen hangs", text, {"detect": DEFAULT_DETECT_S}, True))
    elif v["detect"] > 0:
        text = f"its hangs are detected after {v['detect']:.3g} s: probe more often"
        found.append(("detection", text, {"detect": 0.0}, False))
    found.append(("start", f"starting takes {v['start']:.3g} s", {"start": 0.0}, False))
    if v["wait"] > 1e-3:
        text = f"a restart begins {v['wait']:.3g} s after the verdict"
        found.append(("wait", text, {"wait": 0.0}, False))
    if v["unready"] > 0:
        text = "it is not ready from time to time though it runs"
        found.append(("unready", text, {"unready": 0.0}, False))
    if member.restarts:
        part = 100 * v["not_recovered"]
        text = f"{part:.2g} % of its failures wait for a person"
        found.append(("person", text, {"not_recovered": 0.0}, False))
    else:
        text = "all its failures wait for a person: its restart policy is never"
        found.append(("person", text, {"person": 0.0}, False))
    if member.units > 1 and v["common"] > 0:
        text = f"{100 * v['common']:.2g} % of its failures strike all replicas at once"
        found.append(("common cause", text, {"common": 0.0}, False))
    return found


def importance(state: State, scope: frozenset[str]) -> list[ServiceImportance]:
    """Of the units of the scope, by :func:`everup.reliability.importance.of_block`."""
    from everup.reliability import blocks
    from everup.reliability.importance import of_block

    units = [blocks.Unit(name, unavailability=state.solved[name].down) for name in sorted(scope)]
    block: blocks.Block = units[0] if len(units) == 1 else blocks.Series(*units)
    return [
        ServiceImportance(
            each.name,
            each.criticality,
            each.birnbaum,
            each.saved_s_per_year,
            each.saved_by_half_mttr_s_per_year,
        )
        for each in of_block(block, fussell_vesely=False)
    ]


def services_of(units: Iterable[Unit], scope: frozenset[str]) -> list[str]:
    """The services whose units are in the scope."""
    return [name for unit in units if unit.name in scope for name in unit.members]
