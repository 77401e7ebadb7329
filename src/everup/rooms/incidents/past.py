"""Reads incidents back from the journal."""

from collections.abc import Iterable

from everup.model.condition import GRAVITY, Key, Severity
from everup.model.incident import Incident, Reason
from everup.model.journal import Entry
from everup.rooms.incidents import entries
from everup.rooms.incidents.parts import remember, respond, take_over


def told(found: Iterable[Entry]) -> list[Incident]:
    """Read incidents from the journal, oldest first."""
    incidents: dict[int, Incident] = {}
    for entry in found:
        if entry.kind.startswith("incidents."):
            restore(incidents, entry)
    return list(incidents.values())


def restore(incidents: dict[int, Incident], entry: Entry) -> None:
    """Take one entry of the past: it makes an incident, or changes one."""
    kind, payload = entry.kind, entry.payload
    number = int(payload.get("number", 0))
    if kind == entries.OPENED.value:
        incidents[number] = _opened(entry)
    incident = incidents.get(number)
    if incident is None:
        return
    if kind == entries.EXPLAINED.value:
        _explained(incident, entry)
    elif kind == entries.JOINED.value:
        key = Key(str(payload.get("condition")), entry.subject)
        grave = Severity(str(payload.get("severity", "warning")))
        remember(incident, key)
        if grave is Severity.NOTE:
            del incident.active[key]
        incident.severity = max(incident.severity, grave, key=lambda s: GRAVITY[s])
    elif kind == entries.MERGED.value:
        whole = incidents.get(int(payload.get("into", 0)))
        if whole is not None:
            take_over(incident, whole)
        incident.state, incident.resolved_at = "merged", entry.time
        incident.merged_into = int(payload.get("into", 0))
    elif kind == entries.ACKNOWLEDGED.value:
        incident.acknowledged_by, incident.state = str(payload.get("by")), "acknowledged"
    elif kind == entries.RESPONDED.value:
        respond(incident, str(payload.get("did", "")), str(payload.get("proposal", "")))
    elif kind == entries.MITIGATED.value:
        incident.state = "mitigated"
    elif kind == entries.RESOLVED.value:
        incident.state, incident.resolved_at = "resolved", entry.time
        incident.active.clear()


def _opened(entry: Entry) -> Incident:
    said = entries.OPENED.decode(entry.payload)
    severity = Severity(said.severity)
    incident = Incident(said.number, entry.subject, said.since, severity, said.sentence)
    incident.services.setdefault(entry.subject)
    for words in said.conditions:
        name, _, subject = words.partition(" ")
        remember(incident, Key(name, subject))
    return incident


def _explained(incident: Incident, entry: Entry) -> None:
    told = entries.EXPLAINED.decode(entry.payload)
    incident.sentence = told.sentence or incident.sentence
    root = told.path[-1] if told.path else entry.subject
    incident.reason = Reason(
        told.number, told.sentence, told.cause, told.says, told.confidence, root,
        tuple(told.path), tuple(told.evidence), tuple(told.then), told.runner_up,
    )  # fmt: skip
    for name in told.path:
        incident.services.setdefault(name)
