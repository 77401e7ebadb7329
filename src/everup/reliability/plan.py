"""Plan: from a config's structure and rates to the availability to expect.

What it is a prediction of: the part of the valid time in which any replica of a service is ready
(as :func:`everup.reliability.account.account` measures it), and in which all that it depends on is
too. The machine, its network and planned work are left out. It is a long-run mean; failures come
at constant rates and independently of each other, but for the common cause, and for services that
restart together. Numbers come from the journal where there are enough, and are assumed elsewhere
(:class:`Assumptions`); each is given with where it comes from and what hangs on it.

When it lies: load that moves to the replicas that are left and brings them down too (raise the
common cause); standbys that take over from a hung replica serve after the first failed probe,
which counts as up here; a service that survives the loss of what it depends on.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from everup.model.spec import Spec
from everup.reliability._plan_draws import Draws, compared, seen_enough, times, up_interval
from everup.reliability._plan_members import (
    Structure,
    altered,
    closure,
    detect_s,
    planned,
    structure,
    wait_s,
    warnings_of,
)
from everup.reliability._plan_notes import notes
from everup.reliability._plan_observed import observed
from everup.reliability._plan_rows import (
    assumptions,
    importance,
    losses,
    mend,
    replica_times,
)
from everup.reliability._plan_solve import State
from everup.reliability._plan_target import route
from everup.reliability._plan_types import (
    COSTS,
    Assumption,
    Assumptions,
    Change,
    Comparison,
    Loss,
    Mend,
    Observed,
    Plan,
    Route,
    ServiceImportance,
    ServicePlan,
    WhatIf,
)
from everup.reliability.importance import YEAR_S

if TYPE_CHECKING:
    from numpy.random import Generator

__all__ = [
    "COSTS",
    "YEAR_S",
    "Assumption",
    "Assumptions",
    "Change",
    "Comparison",
    "Loss",
    "Mend",
    "Observed",
    "Plan",
    "Route",
    "ServiceImportance",
    "ServicePlan",
    "WhatIf",
    "closure",
    "detect_s",
    "observed",
    "plan",
    "planned",
    "route",
    "wait_s",
]


def plan(
    spec: Spec,
    rng: "Generator",
    *,
    scope: str = "",
    seen: Mapping[str, Observed] | None = None,
    whole: tuple[float, float] | None = None,
    assumed: Assumptions | None = None,
    what_if: WhatIf | None = None,
) -> Plan:
    """Availability and downtime per year (of 365.25 days) of each service and of the whole.

    ``scope``: of this service and what it depends on alone. ``seen``: what the journal says
    (:func:`observed`). ``whole``: seconds valid and availability measured of all services
    together, to compare with. ``what_if``: other numbers.

    A replica with failures of kinds i (rate ``r_i``, mean time down ``m_i = detect + decide +
    recover``) is down ``q = x / (1 + x)`` of the time, ``x = sum r_i m_i``; n replicas and standbys
    ``q^n``, and beside that the common cause with ``beta`` of the rate, in series; services in
    series along ``depends_on``, each counted once. Intervals of 95 %: 4000 draws of all numbers
    from their distributions (rates gamma, times log-normal, shares beta) with ``rng``. Exact but
    for these draws where replicas fail and are mended independently. Sources: Trivedi, Probability
    and Statistics with Reliability, Queuing and Computer Science Applications (2nd ed. 2002),
    chapters 6 and 8; IEC 61508-6 annex D (beta factor). Raises ``ValueError``.
    """
    assumed, what_if, seen = assumed or Assumptions(), what_if or WhatIf(), seen or {}
    changed = altered(spec, what_if)
    services = planned(changed)
    if scope and scope not in services:
        raise ValueError(f"scope {scope!r}: no service to plan; there are {', '.join(services)}")
    if not services:
        raise ValueError("spec: no service that is to be up all the time")
    names = list(closure(services, scope)) if scope else list(services)
    of = structure(changed, assumed, what_if, seen, {})
    state = State(of)
    draws = Draws(of, rng)

    def another(other: WhatIf) -> State | None:
        rest = altered(spec, other)
        there = planned(rest)
        if not there or (scope and scope not in there):
            return None
        return State(structure(rest, assumed, other, seen, {}))

    comparable = not what_if.changes_structure
    units = state.scope(scope)
    down = draws.down(units, state.down(units))
    comparison = None
    if comparable and whole is not None and whole[0] > 0 and not scope:
        comparison = compared(draws, units, whole[0], whole[1], state.down(units))
    return Plan(
        scope,
        up_interval(down),
        times(down, YEAR_S),
        state.per_s(units) * YEAR_S,
        tuple(_service(name, of, state, draws, seen if comparable else {}) for name in names),
        tuple(mend(state, units, names)),
        tuple(importance(state, units)),
        tuple(assumptions(state, units, names)),
        comparison,
        warnings_of(changed, names),
        notes(what_if, state, scope, another),
    )


def _service(
    name: str, of: Structure, state: State, draws: Draws, seen: Mapping[str, Observed]
) -> ServicePlan:
    member, units = of.members[name], of.needed[name]
    alone = draws.down(of.own[name], state.down(of.own[name]))
    down = draws.down(units, state.down(units))
    mttf_s, mttr_s = replica_times(member, state.values[name])
    comparison = None
    found = seen.get(name)
    if seen_enough(found):
        assert found is not None
        assert found.availability is not None
        comparison = compared(
            draws, of.own[name], found.valid_s, found.availability, state.down(of.own[name])
        )
    return ServicePlan(
        name,
        member.replicas,
        member.standby,
        up_interval(alone),
        up_interval(down),
        times(down, YEAR_S),
        state.per_s(units) * YEAR_S,
        mttf_s,
        mttr_s,
        tuple(_needs(member.needs)),
        losses(member, state.values[name]),
        comparison,
    )


def _needs(needs: Iterable[str]) -> list[str]:
    return list(needs)[1:]
