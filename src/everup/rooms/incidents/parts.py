"""What belongs to an incident, and how it grows."""

from typing import Any, Final

from everup.model.condition import Condition, Key, Severity
from everup.model.incident import Incident, Reason

_MOST_DID: Final = 100
_MOST: Final = 500
"""Symptoms of one incident that are remembered as words."""


def add(incident: Incident, condition: Condition) -> None:
    """Make a condition a part of an incident. A note is a symptom alone: it lasts for its own
    reasons, and holds no incident open."""
    if condition.severity is not Severity.NOTE:
        incident.active[condition.key] = condition
    words = f"{condition.subject} {condition.text}"
    if words not in incident.symptoms and len(incident.symptoms) < _MOST:
        incident.symptoms.append(words)
    incident.services.setdefault(condition.service)


def respond(incident: Incident, did: str, proposal: str) -> None:
    """Note what was done about an incident, and what is to be approved."""
    incident.proposal = proposal
    if did and len(incident.did) < _MOST_DID:
        incident.did.append(did)


def take_over(part: Incident, whole: Incident) -> None:
    """Make all of one incident a part of another."""
    whole.active.update(part.active)
    part.active.clear()
    whole.symptoms += [words for words in part.symptoms if words not in whole.symptoms]
    for name in part.services:
        whole.services.setdefault(name)


def remember(incident: Incident, key: Key) -> None:
    """Make a condition a part of an incident of which the journal has no more than its name."""
    incident.active[key] = Condition(key.kind, key.subject, Severity.WARNING, "", 0.0)
    incident.services.setdefault(incident.active[key].service)


def is_about(incident: Incident, root: str, reason: Reason | None) -> bool:
    """Whether a finding with that cause belongs to an incident."""
    if root in (incident.subject, incident.reason.root if incident.reason else ""):
        return True
    return reason is not None and incident.subject in reason.path


def needs_of(service: str, world: Any) -> set[str]:
    """All services that one needs, directly or not."""
    found: set[str] = set()
    waiting = [service]
    while waiting:
        for name in world.needs(waiting.pop()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found
