"""Which rung of a ladder applies to an incident. Pure: what a rung is against is in one table."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from everup.model.condition import Condition, Severity
from everup.model.incident import Incident

SURE: Final = 0.6
"""A cause that is less certain leads to nothing that is done to another service."""
_STUCK: Final = frozenset({"hung", "queue_full", "descriptors_short", "leaking"})
_DEAD: Final = frozenset({"down", "parked", "crash_looping", "hung"})
_LOAD: Final = frozenset({"queue_full", "throttled", "starved"})
_UNREADY_S: Final = 30.0
_UP: Final = ("ready", "running")


@dataclass(frozen=True, slots=True)
class Step:
    """One rung that applies."""

    rung: str
    owner: str
    """The service whose ladder it is of."""
    subject: str
    why: str


@dataclass(frozen=True, slots=True)
class Case:
    """An incident, and what a rung has to know of the world."""

    incident: Incident
    owner: str
    world: Any
    now: float

    @property
    def root(self) -> str:
        """Where it began, as far as that is known."""
        reason = self.incident.reason
        return reason.root if reason is not None and reason.root else self.incident.subject

    def lasting(self) -> list[Condition]:
        """Give the conditions that have been active long enough for a rung: what everup's engine
        does by itself is over sooner."""
        wait_s = self.world.services[self.owner].recover.wait
        return [c for c in self.incident.active.values() if self.now - c.since >= wait_s]

    def own(self) -> list[Condition]:
        """Give those of the owner of the ladder."""
        return [c for c in self.lasting() if c.service == self.owner]

    def is_stuck(self, condition: Condition) -> bool:
        """Whether the process that a condition was found of is still there."""
        seen = self.world.instances.get(condition.subject)
        return seen is None or (seen.started <= condition.since and seen.state in _UP)


def steps(case: Case) -> Iterator[Step]:
    """Give the rungs of the owner's ladder that apply now, in their order."""
    for rung in case.world.services[case.owner].recover.ladder:
        found = _APPLIES[rung](case)
        if found is not None:
            subject, why = found
            yield Step(rung, case.owner, subject, why)


_Found = tuple[str, str] | None


def _restart(case: Case) -> _Found:
    for condition in case.own():
        if condition.kind in _STUCK and case.is_stuck(condition):
            return condition.subject, f"{condition.subject} {condition.text}"
    for seen in case.world.of(case.owner):
        lives = seen.state == "running" and case.now - seen.since >= _UNREADY_S
        if lives and any(c.kind in ("down", "degraded") for c in case.own()):
            return seen.name, f"{seen.name} lives and is not ready"
    reason = case.incident.reason
    blamed = reason is not None and reason.confidence >= SURE and case.root == case.owner
    own = any(c.service == case.owner for c in case.incident.active.values())
    if blamed and reason is not None and reason.cause and not own and case.lasting():
        return case.owner, f"others fail because of it: {reason.says}"
    return None


def _restart_dependency(case: Case) -> _Found:
    reason = case.incident.reason
    if case.root == case.owner or case.root not in case.world.services or reason is None:
        return None
    if reason.confidence < SURE or case.root not in case.world.needs(case.owner):
        return None
    if not case.own():
        return None
    return case.root, f"{case.owner} fails because of it: {reason.says or reason.sentence}"


def _clean_restart(case: Case) -> _Found:
    if not case.world.services[case.owner].recover.clean:
        return None
    return _first(case, _DEAD | _STUCK)


def _scale(case: Case) -> _Found:
    service = case.world.services[case.owner]
    most = service.recover.scale_to
    if most is None or most <= case.world.replicas(case.owner):
        return None
    found = _first(case, _LOAD)
    return None if found is None else (case.owner, found[1])


def _degrade(case: Case) -> _Found:
    if not case.world.services[case.owner].recover.degrade_on:
        return None
    for condition in case.lasting():
        if condition.severity is Severity.CRITICAL:
            return case.owner, f"{condition.subject} {condition.text}"
    return None


def _failover(case: Case) -> _Found:
    other = case.world.services[case.owner].recover.failover_to
    found = _first(case, _DEAD)
    return None if other is None or found is None else (other, found[1])


def _page(case: Case) -> _Found:
    if not case.lasting():
        return None
    return case.owner, "nothing else has helped, or nothing else applies"


def _first(case: Case, kinds: frozenset[str]) -> _Found:
    for condition in case.own():
        if condition.kind in kinds:
            return condition.subject, f"{condition.subject} {condition.text}"
    return None


_APPLIES: Final[Mapping[str, Callable[[Case], _Found]]] = {
    "restart": _restart,
    "restart_dependency": _restart_dependency,
    "clean_restart": _clean_restart,
    "scale": _scale,
    "degrade": _degrade,
    "failover": _failover,
    "page": _page,
}
UNDONE: Final = ("scale", "degrade")
"""What is undone when the incident is over."""
WORDS: Final[Mapping[str, str]] = {
    "restart": "restart {subject}",
    "restart_dependency": "restart {subject}",
    "clean_restart": "clean up after {subject} and restart it",
    "scale": "scale {subject} up",
    "degrade": "let {subject} do with less",
    "failover": "start {subject} in its place",
    "page": "tell people",
}
