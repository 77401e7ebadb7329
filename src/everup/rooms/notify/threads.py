"""What people know of one subject, and what they are to be told next. Pure."""

from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Final

from everup.model.condition import GRAVITY, Severity
from everup.model.incident import Incident
from everup.rooms.notify.config import Route
from everup.rooms.notify.hours import opens_at
from everup.rooms.notify.silences import Silences, about

_QUIET_S: Final = 5.0


@dataclass(slots=True)
class Known:
    """What was told by one route."""

    first_at: float
    """Seconds since the epoch, as all times here."""
    at: float
    """When it was told last, or began to be."""
    severity: Severity
    waiting: str = ""
    """The message that is under way."""
    counts: dict[str, int] = field(default_factory=dict)
    """By stage: how often that was told."""
    proposal: str = ""
    """What people were asked to approve."""


@dataclass(slots=True)
class Thread:
    """One subject: all that fails of it until people were told that it is over."""

    subject: str
    incident: Incident | None = None
    """The newest."""
    known: dict[str, Known] = field(default_factory=dict)
    """By route."""
    held: dict[str, str] = field(default_factory=dict)
    """By route: why it is not told, as it was journaled."""
    paged: set[str] = field(default_factory=set)
    """Routes that everup still has to call for help."""
    times: int = 1
    """How often it has failed since people were told first."""


@dataclass(frozen=True, slots=True)
class Next:
    """What is to be done for a route: tell ``stage`` by ``route``, or hold it back, or look again
    at ``due``."""

    route: str
    stage: str = ""
    hold: str = ""
    due: float | None = None


def following(
    thread: Thread, name: str, route: Route, silences: Silences, zone: tzinfo | None, now: float
) -> Next:
    """Decide what is next for a route. It must not have a message under way."""
    incident, known = thread.incident, thread.known.get(name)
    assert incident is not None
    if incident.resolved_at is not None:
        if known is None:
            return Next(name)
        due = incident.resolved_at + route.settle
        return Next(name, due=due) if now < due else Next(name, "resolved")
    if name in thread.paged:
        return Next(name, "escalated")
    if known is None:
        return _first(thread, incident, name, route, silences, zone, now)
    if GRAVITY[incident.severity] > GRAVITY[known.severity]:
        return Next(name, "graver")
    if incident.proposal and incident.proposal != known.proposal:
        return Next(name, "asked")
    if incident.state != "open":
        return Next(name)
    return _unanswered(thread, incident, known, name, route, silences, zone, now)


def _first(
    thread: Thread, incident: Incident, name: str, route: Route, silences: Silences,
    zone: tzinfo | None, now: float,
) -> Next:  # fmt: skip
    if route.only_escalated:
        return Next(name)
    due = incident.since + route.hold
    if now < due:
        return Next(name, due=due)
    if incident.quiet_since is not None:  # it may be over: that is known in a moment
        return Next(name, due=now + _QUIET_S)
    if incident.subject == own_subject(name):
        return Next(name, hold="it is about this route itself")
    if GRAVITY[incident.severity] < GRAVITY[Severity(route.severity)]:
        return Next(name, hold=f"it is a {incident.severity.value}, and the route is for criticals")
    if not about(incident, route.services):
        return Next(name, hold=f"none of {', '.join(incident.services)} is among its services")
    why, until = _not_now(incident, route, silences, zone, now)
    return Next(name, hold=why, due=until) if why else Next(name, "opened")


def _unanswered(
    thread: Thread, incident: Incident, known: Known, name: str, route: Route, silences: Silences,
    zone: tzinfo | None, now: float,
) -> Next:  # fmt: skip
    """Nobody has acknowledged it: tell another route, or again."""
    dues = []
    other = route.escalate_to
    if other is not None and route.escalate_after is not None and other not in thread.known:
        due = known.first_at + route.escalate_after
        if now >= due:
            return Next(other, "escalated")
        dues.append(due)
    if route.repeat is not None:
        due = known.at + route.repeat
        why, until = _not_now(incident, route, silences, zone, now)
        if now >= due and not why:
            return Next(name, "reminder")
        dues.append(due if until is None else max(due, until))
    return Next(name, due=min(dues, default=None))


def _not_now(
    incident: Incident, route: Route, silences: Silences, zone: tzinfo | None, now: float
) -> tuple[str, float | None]:
    silence = silences.of(incident, now)
    if silence is not None:
        return silence.words, silence.until
    opens = opens_at(now, zone, route.hours, route.days)
    if opens > now:
        return "it is outside of the route's hours", opens
    return "", None


def own_subject(route: str) -> str:
    """Give the subject of incidents about a route itself."""
    return f"route {route}"
