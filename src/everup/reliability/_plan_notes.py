"""What-ifs that change nothing: each is answered with the reason, for a plan that does not move
would otherwise read as one that was not asked."""

from collections.abc import Callable
from dataclasses import replace

from everup.reliability._plan_solve import State
from everup.reliability._plan_types import WhatIf

_NOTHING = 1e-3
"""Of the downtime: less is nothing."""
Build = Callable[[WhatIf], State | None]


def notes(what_if: WhatIf, state: State, scope: str, build: Build) -> tuple[str, ...]:
    """``build`` makes the state with another what-if; None where that leaves nothing to plan."""
    found = []
    units = state.scope(scope)
    down = state.down(units)
    for field, name in what_if.names():
        given = dict(getattr(what_if, field))
        value = given.pop(name)
        without = build(replace(what_if, **{field: given}))
        if without is None or name not in without.structure.members:
            continue  # there would be no such service
        before = without.down(without.scope(scope))
        if abs(down - before) <= _NOTHING * max(down, before):
            why = _why(field, name, value, what_if, state, without, scope)
            what = field.removesuffix("_s").replace("_", " ")
            found.append(f"{what} of {name} changes {why}")
    return tuple(found)


def _why(
    field: str,
    name: str,
    value: float,
    what_if: WhatIf,
    state: State,
    without: State,
    scope: str,
) -> str:
    member, unit = state.structure.members[name], state.units[state.unit_of(name)]
    if unit.name not in state.scope(scope):
        return f"nothing: {scope} does not need {name}"
    if (
        field in ("replicas", "standby")
        and getattr(without.structure.members[name], field) == value
    ):
        return f"nothing: {value:g} is what the config says"
    if unit.together and field in ("replicas", "standby", "common_cause"):
        return "next to nothing: any failure restarts its group as a whole"
    if field == "common_cause" and member.units == 1:
        return "nothing: it has one replica and no standby, so nothing strikes several at once"
    if field == "coverage" and name in what_if.mttr_s:
        return "nothing: the mttr that was given is that of all its failures, whoever mends them"
    if field in ("replicas", "standby"):
        part = state.common_part(name)
        if part > 0.5:
            return (
                f"next to nothing: {100 * part:.3g} % of its own downtime is the common cause, what"
                " strikes all replicas at once; no number of them helps against that"
            )
    return "next to nothing: too little of the downtime hangs on it"
