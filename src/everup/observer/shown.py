"""Entries of the journal and incidents as they are shown to programs."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from everup.model.incident import Incident
from everup.model.journal import Entry

_OWN = ("seq", "time", "mono", "kind", "subject", "node")
_MOST_SYMPTOMS: Final = 50


def entry_of(shown: Mapping[str, Any]) -> Entry:
    """Read an entry as the API shows it."""
    payload = {key: value for key, value in shown.items() if key not in _OWN}
    time = datetime.fromisoformat(shown["time"]).timestamp()
    return Entry(shown["seq"], time, shown["mono"], "", shown["kind"], shown["subject"], payload)


def plain_incident(incident: Incident) -> dict[str, Any]:
    """Give an incident as plain values; times are in UTC."""
    reason = incident.reason
    over = incident.resolved_at
    return {
        "number": incident.number,
        "subject": incident.subject,
        "state": incident.state,
        "severity": incident.severity.value,
        "since": utc(incident.since),
        "resolved": None if over is None else utc(over),
        "sentence": incident.sentence,
        "services": list(incident.services),
        "symptoms": incident.symptoms[:_MOST_SYMPTOMS],
        "did": list(incident.did),
        "proposal": incident.proposal or None,
        "acknowledged_by": incident.acknowledged_by or None,
        "cause": None if reason is None or not reason.cause else {
            "kind": reason.cause,
            "says": reason.says,
            "confidence": reason.confidence,
            "path": list(reason.path),
            "evidence": list(reason.evidence),
            "then": list(reason.then),
            "runner_up": reason.runner_up or None,
        },
    }  # fmt: skip


def utc(at: float) -> str:
    """Write a time, in seconds since the epoch, for programs."""
    return datetime.fromtimestamp(at, UTC).isoformat()
