"""Incidents: the record of a failure and of the response to it, one for each cause."""

from dataclasses import dataclass, field

from everup.model.condition import Condition, Key, Severity


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something failed, as it was found."""

    number: int
    sentence: str
    cause: str = ""
    says: str = ""
    confidence: float = 0.0
    root: str = ""
    """The service where it began."""
    path: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    runner_up: str = ""


@dataclass(slots=True)
class Incident:
    """One incident, as it is by now."""

    number: int
    subject: str
    """Where it began: a service, a file system, ``machine``, ..."""
    since: float
    severity: Severity
    sentence: str = ""
    state: str = "open"
    """``open``, ``acknowledged``, ``mitigated``, ``resolved`` or ``merged`` into another one."""
    active: dict[Key, Condition] = field(default_factory=dict)
    symptoms: list[str] = field(default_factory=list)
    """Every condition that ever belonged to it, as words."""
    services: dict[str, None] = field(default_factory=dict)
    """Who is or was hurt by it."""
    reason: Reason | None = None
    acknowledged_by: str = ""
    resolved_at: float | None = None
    """Seconds since the epoch; also of one that was merged."""
    merged_into: int = 0
    """The number of the incident that it is a part of; 0: none."""
    quiet_since: float | None = None
    """Since when no condition of it is active."""
    did: list[str] = field(default_factory=list)
    """What everup has done about it, and what came of it."""
    proposal: str = ""
    """What everup would like to do, and a person has to approve."""
    occurrences: int = 1
    """How often it came back while it was still open."""


@dataclass(frozen=True, slots=True)
class Responded:
    """Something was done about an incident, or is to be approved."""

    number: int
    did: str = ""
    proposal: str = ""
    page: bool = False
    """People are to be told again, all of them."""


@dataclass(frozen=True, slots=True)
class IncidentChanged:
    """Something about an incident is new, or an observer has just begun and tells of each one."""

    incident: Incident
    what: str
    """``opened``, ``explained``, ``graver``, ``acknowledged``, ``mitigated``, ``merged``,
    ``resolved``, ``responded``, ``paged``; ``resumed``: told again by an observer that has just
    begun."""
