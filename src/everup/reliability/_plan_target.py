"""The way to a target: which changes, cheapest first."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from everup.model.spec import Probe, Service, Spec
from everup.reliability._plan_members import (
    DEFAULT_PROBE,
    Member,
    altered,
    closure,
    member,
    planned,
    seeing_probe,
    structure,
)
from everup.reliability._plan_numbers import Number
from everup.reliability._plan_rows import mend
from everup.reliability._plan_solve import State, now
from everup.reliability._plan_types import (
    COSTS,
    Assumptions,
    Change,
    Observed,
    Route,
    WhatIf,
)
from everup.reliability.importance import YEAR_S

_LEAST = 0.001
"""A change must bring so much of the way that is left to the target."""
_MAX_CHANGES = 1000
_BACKOFF_S = 0.1
_MAX_UNITS = 8
_HALVINGS = 3
"""Engineering makes a number at most eight times better."""
_ENGINEERING = {
    "start": "halve the start time of {}",
    "not_recovered": "halve the failures of {} that everup's restart does not mend",
    "person": "halve the time until a person mends {}",
    "common": "halve what strikes all replicas of {} at once",
    "failures": "double the time between failures of {}",
}
_LIMITS = {
    "unseen hangs": "hangs of {} that nothing detects",
    "detection": "the detection of hangs of {}",
    "start": "the start time of {}",
    "wait": "the waits before restarts of {}",
    "unready": "times in which {} is not ready though it runs",
    "person": "coverage: failures of {} that wait for a person",
    "common cause": "the common cause: failures that strike all replicas of {}",
    "failures": "the failures of {}",
}


@dataclass(frozen=True, slots=True)
class _Draft:
    """A service with changes that were made to it."""

    service: Service
    factors: Mapping[str, float]
    """Number -> what engineering made of it."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A change that can be made."""

    service: str
    kind: str
    text: str
    cost: int
    apply: Callable[[_Draft], _Draft]


class _Search:
    """A structure with the changes made so far."""

    def __init__(
        self,
        spec: Spec,
        scope: str,
        seen: Mapping[str, Observed],
        assumed: Assumptions,
        what_if: WhatIf,
    ) -> None:
        self.seen, self.assumed, self.what_if = seen, assumed, what_if
        changed = altered(spec, what_if)
        services = planned(changed)
        if scope and scope not in services:
            known = ", ".join(services)
            raise ValueError(f"scope {scope!r}: no service to plan; there are {known}")
        self.names = list(closure(services, scope)) if scope else list(services)
        self.begin = {name: _Draft(services[name], {}) for name in self.names}
        self.drafts = dict(self.begin)
        self.state = State(structure(changed, assumed, what_if, seen, {}))
        self.scope = self.state.scope(scope)

    def down(self) -> float:
        return self.state.down(self.scope)

    def member(self, name: str, draft: _Draft) -> Member:
        needs = self.state.structure.members[name].needs
        tuning = {(name, key): factor for key, factor in draft.factors.items()}
        seen = self.seen.get(name)
        return member(draft.service, needs, self.assumed, self.what_if, seen, tuning)

    def down_with(self, name: str, draft: _Draft) -> float:
        new = self.member(name, draft)
        return self.state.down_with(self.scope, {name: now(new)}, {name: new})

    def put(self, name: str, draft: _Draft) -> None:
        self.drafts[name] = draft
        self.state.put(self.member(name, draft))


def route(
    spec: Spec,
    target: float,
    *,
    scope: str = "",
    seen: Mapping[str, Observed] | None = None,
    assumed: Assumptions | None = None,
    what_if: WhatIf | None = None,
) -> Route:
    """What would have to change for an availability of ``target`` (above 0, below 1), cheapest
    first.

    Greedy: of the changes of the lowest cost that still bring at least a thousandth of the way,
    the one that saves most downtime, until the estimate reaches the target; then every change
    without which it still does is taken out again, the dearest first. Costs: 0 config only (a
    liveness probe, a faster one, a shorter backoff, restarts), 1 a standby, 2 a replica, 3
    engineering (times halved, failures half as often: each up to three times). Not always the
    cheapest set of all, but none of it can be left out. Raises ``ValueError``.
    """
    if not 0 < target < 1:
        raise ValueError(f"target: {target!r} is not between 0 and 1 (both excluded)")
    search = _Search(spec, scope, seen or {}, assumed or Assumptions(), what_if or WhatIf())
    goal = 1 - target
    before = search.down()
    steps = _greedy(search, goal)
    reached = search.down() <= goal
    limits = () if reached else _limits(search)
    if reached:
        steps = _pruned(search, steps, goal)
    for name, draft in search.begin.items():
        search.put(name, draft)
    changes, down = [], before
    for step in steps:
        search.put(step.service, step.apply(search.drafts[step.service]))
        after = search.down()
        saved = (down - after) * YEAR_S
        changes.append(Change(step.service, step.kind, step.text, step.cost, saved, 1 - after))
        down = after
    notes = [
        f"no second replica of {name} is proposed: its clients know port {draft.service.port}"
        " alone; with `listen` in place of `port` everup would spread them"
        for name, draft in search.begin.items()
        if _has_one_port(draft.service) and (changes or not reached)
    ]
    return Route(target, 1 - before, 1 - down, reached, tuple(changes), limits, tuple(notes))


def _greedy(search: _Search, goal: float) -> list[_Step]:
    made: list[_Step] = []
    down = search.down()
    for cost in range(len(COSTS)):
        gains: dict[str, list[tuple[float, _Step]]] = {}
        while down > goal and len(made) < _MAX_CHANGES:
            for name in search.names:
                if name not in gains:
                    gains[name] = _gains(search, name, cost)
            most = max(
                (each for found in gains.values() for each in found), key=_gain, default=None
            )
            if most is None or most[0] < _LEAST * (down - goal):
                break
            best = most[1]
            made.append(best)
            search.put(best.service, best.apply(search.drafts[best.service]))
            # What others would bring changes by the share that is down alone: too little to ask.
            for name in search.state.together(best.service):
                gains.pop(name, None)
            down = search.down()
    return made


def _gain(found: tuple[float, _Step]) -> float:
    return found[0]


def _gains(search: _Search, name: str, cost: int) -> list[tuple[float, _Step]]:
    draft, down = search.drafts[name], search.down()
    numbers = search.state.structure.members[name].numbers
    return [
        (down - search.down_with(name, step.apply(draft)), step)
        for step in _steps(draft, numbers, name in search.what_if.mttr_s)
        if step.cost == cost
    ]


def _pruned(search: _Search, steps: list[_Step], goal: float) -> list[_Step]:
    """A change that was right at its time may be needless after later ones. Of alike ones the last
    goes first: the texts count."""
    kept = list(steps)
    dearest = sorted(range(len(steps)), key=lambda n: (-steps[n].cost, -n))
    for step in (steps[n] for n in dearest):
        rest = [each for each in kept if each is not step]
        draft = search.begin[step.service]
        for each in rest:
            if each.service == step.service:
                draft = each.apply(draft)
        if search.down_with(step.service, draft) <= goal:
            kept = rest
            search.put(step.service, draft)
    return kept


def _limits(search: _Search) -> tuple[str, ...]:
    found = mend(search.state, search.scope, search.names)
    return tuple(_LIMITS[each.what].format(each.service) for each in found[:3])


# -- the changes there are


def _steps(draft: _Draft, numbers: Mapping[str, Number], fixed: bool) -> Iterable[_Step]:
    """``fixed``: a what-if says how long its repairs take."""
    service = draft.service
    name = service.name
    yield from _of_config(service, fixed)
    listens = any(not each.address.startswith("unix:") for each in service.listen)
    if listens and service.standby < 1:
        yield _Step(name, "standby", f"a warm standby for {name}", 1, _edit(_one_standby))
    if service.slots < _MAX_UNITS and not _has_one_port(service):
        text = f"one more replica of {name}: {service.replicas + 1}"
        yield _Step(name, "replica", text, 2, _edit(_one_replica))
    for key, words in _ENGINEERING.items():
        keys = ("crash", "hang", "unready") if key == "failures" else (key,)
        if fixed and key == "start":
            keys, words = ("mttr",), "halve the time to repair {}"
        known = numbers.get(keys[0])
        if known and known.value and draft.factors.get(keys[0], 1.0) > 0.5**_HALVINGS:
            yield _Step(name, key, words.format(name), 3, _tune(keys))


def _has_one_port(service: Service) -> bool:
    """Its clients know one port, and a second replica gets another: nobody asks that one."""
    return bool(service.port) and not service.listen and service.slots == 1


def _of_config(service: Service, fixed: bool) -> Iterable[_Step]:
    name, probe = service.name, seeing_probe(service)
    if service.restart.policy == "never":
        text = f'restart {name} after a failure: policy = "always"'
        yield _Step(name, "restart", text, 0, _edit(_always))
    if probe is None and service.watchdog is None:
        text = f"a liveness probe for {name} (every {DEFAULT_PROBE.interval:g} s)"
        yield _Step(name, "liveness", text, 0, _edit(_with_liveness))
    elif probe is not None:
        faster = _faster(probe)
        if faster != probe:
            text = (
                f"a faster liveness probe of {name}: every {faster.interval:g} s, timeout"
                f" {faster.timeout:g} s (now {probe.interval:g} s and {probe.timeout:g} s)"
            )
            yield _Step(name, "probe", text, 0, _edit(_with_faster))
    if not fixed and service.restart.delay > _BACKOFF_S:
        text = f"a shorter backoff of {name}: delay 100 ms (now {service.restart.delay:g} s)"
        yield _Step(name, "backoff", text, 0, _edit(_with_backoff))


def _edit(change: Callable[[Service], Service]) -> Callable[[_Draft], _Draft]:
    return lambda draft: _Draft(change(draft.service), draft.factors)


def _tune(keys: tuple[str, ...]) -> Callable[[_Draft], _Draft]:
    def halve(draft: _Draft) -> _Draft:
        factors = {key: draft.factors.get(key, 1.0) * 0.5 for key in keys}
        return _Draft(draft.service, {**draft.factors, **factors})

    return halve


def _always(service: Service) -> Service:
    return replace(service, restart=replace(service.restart, policy="always"))


def _with_liveness(service: Service) -> Service:
    return replace(service, probe=replace(service.probe, liveness=DEFAULT_PROBE))


def _faster(probe: Probe) -> Probe:
    """Not below what a busy machine answers in."""
    return replace(probe, interval=min(probe.interval, 0.5), timeout=min(probe.timeout, 0.5))


def _with_faster(service: Service) -> Service:
    probe = seeing_probe(service)
    if probe is None:  # what it was to make faster was taken out again
        return service
    return replace(service, probe=replace(service.probe, liveness=_faster(probe)))


def _with_backoff(service: Service) -> Service:
    return replace(service, restart=replace(service.restart, delay=_BACKOFF_S))


def _one_standby(service: Service) -> Service:
    return replace(service, standby=service.standby + 1)


def _one_replica(service: Service) -> Service:
    return replace(service, replicas=service.replicas + 1)
