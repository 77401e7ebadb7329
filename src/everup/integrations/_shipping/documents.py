"""Documents of the Elastic Common Schema (ECS 8.11) from journal entries and incidents. Pure.

The same entry gives the same document with the same id each time, whoever makes it.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from hashlib import blake2b
from typing import Any, Final

from everup import __version__, app
from everup.model.entry import Severity
from everup.model.incident import Incident
from everup.model.journal import Entry

ECS: Final = "8.11.0"
EVENTS: Final = "everup.events"
INCIDENTS: Final = "everup.incidents"
_NS_PER_S: Final = 1_000_000_000
_LONGEST: Final = (1 << 63) - 1
_LEVELS: Final = {
    Severity.NOTE: "info",
    Severity.GOOD: "info",
    Severity.WARNING: "warning",
    Severity.BAD: "error",
}
_BAD: Final = frozenset(
    {"engine.defect", "instance.unhealthy", "instance.exited", "instance.parked", "instance.failed",
     "instance.lost", "sockets.failed", "log.lost", "journal.degraded"}
)  # fmt: skip
_WARNING: Final = frozenset(
    {"instance.suspected", "instance.backoff", "instance.spared", "instance.killing",
     "instance.leftover", "instance.escaped", "storm.braking", "rollout.stopped", "slo.burning",
     "config.rolling_back", "config.invalid", "sockets.lost", "sockets.strangers",
     "facility.missing", "verdict.postponed", "notify.refused"}
)  # fmt: skip
_NO_SERVICE: Final = frozenset({"", "everup", "machine"})
_WORDS: Final = ("sentence", "text", "detail", "says")
_REASONS: Final = ("reason", "cause", "why", "error")
_KEPT: Final[Mapping[str, type | tuple[type, ...]]] = {
    "run": int,
    "cause": str,
    "exit_kind": str,
    "killed_for": str,
    "by": str,
    "condition": str,
    "severity": str,
    "state": str,
    "dependency": str,
    "up_s": (int, float),
    "took_s": (int, float),
    "delay_s": (int, float),
    "after_s": (int, float),
    "burn_rate": (int, float),
}
"""Keys of payloads that can be searched for; the whole payload is kept beside them."""


def entry_id(entry: Entry, node: str) -> str:
    """Give the id of the document of an entry: 22 characters, the same each time it is shipped.

    The number alone would not do: a journal that was lost begins at 1 again.
    """
    return _hashed(node, entry.seq, f"{entry.time:.6f}", entry.kind, entry.subject)


def incident_id(incident: Incident, node: str) -> str:
    """Give the id of the one document of an incident."""
    return _hashed(node, "incident", incident.number, f"{incident.since:.3f}")


def of_entry(entry: Entry, node: str, namespace: str) -> dict[str, Any]:
    """Give the document of a journal entry."""
    payload = entry.payload
    event: dict[str, Any] = {
        "kind": "event",
        "module": "everup",
        "dataset": EVENTS,
        "action": entry.kind,
        "sequence": entry.seq,
        "id": entry_id(entry, node),
    }
    reason = _first(payload, _REASONS)
    if reason:
        event["reason"] = reason
    lasted = payload.get("up_s", payload.get("after_s"))
    if isinstance(lasted, int | float) and 0 <= lasted < _LONGEST / _NS_PER_S:
        event["duration"] = int(lasted * _NS_PER_S)
    level = level_of(entry)
    event["outcome"] = "failure" if level == "error" else "success"
    own: dict[str, Any] = {"kind": entry.kind, "subject": entry.subject, "payload": dict(payload)}
    for key, kind in _KEPT.items():
        value = payload.get(key)
        if isinstance(value, kind) and not isinstance(value, bool):
            own[key] = value
    number = payload.get("number")
    if entry.kind.startswith("incidents.") and isinstance(number, int):
        own["incident"] = {"number": number}
    document = _common(entry.time, node, namespace, EVENTS, event, level)
    document["message"] = message_of(entry, reason)
    document["everup"] = own
    process = {
        name: value
        for name, value in (
            ("pid", payload.get("pid")),
            ("exit_code", payload.get("value") if payload.get("exit_kind") == "code" else None),
        )
        if isinstance(value, int)
    }
    if process:
        document["process"] = process
    service = _service(entry.subject)
    if service:
        document["service"] = service
    return document


def of_incident(incident: Incident, node: str, namespace: str) -> dict[str, Any]:
    """Give the document of an incident as it is now."""
    reason = incident.reason
    end = incident.resolved_at
    event: dict[str, Any] = {
        "kind": "alert",
        "module": "everup",
        "dataset": INCIDENTS,
        "id": incident_id(incident, node),
        "start": iso(incident.since),
    }
    if end is not None:
        event["end"] = iso(end)
        event["duration"] = max(0, int((end - incident.since) * _NS_PER_S))
    own: dict[str, Any] = {
        "number": incident.number,
        "state": incident.state,
        "severity": str(incident.severity),
        "sentence": incident.sentence,
        "services": list(incident.services),
        "symptoms": list(incident.symptoms),
        "occurrences": incident.occurrences,
    }
    if incident.acknowledged_by:
        own["acknowledged_by"] = incident.acknowledged_by
    if reason is not None:
        event["reason"] = reason.says or reason.sentence
        own |= {
            "cause": reason.cause,
            "confidence": reason.confidence,
            "root": reason.root,
            "path": list(reason.path),
            "evidence": list(reason.evidence),
            "then": list(reason.then),
            "runner_up": reason.runner_up,
        }
    level = "error" if str(incident.severity) == "critical" else "warning"
    document = _common(incident.since, node, namespace, INCIDENTS, event, level)
    document["message"] = incident.sentence or f"{incident.subject}: cause not known yet"
    document["everup"] = {"subject": incident.subject, "incident": own}
    service = _service(incident.subject)
    if service:
        document["service"] = service
    return document


def encode(document: Mapping[str, Any]) -> bytes:
    """Give a document as one line of JSON in UTF-8, without its end.

    What no reader of JSON takes is replaced: half characters, and numbers that are not finite.
    """
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        finite = _finite(document)
        text = json.dumps(finite, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace")


def level_of(entry: Entry) -> str:
    """Say how grave an entry is: ``info``, ``warning`` or ``error``."""
    told = entry.payload.get("severity")
    if told == "critical" and entry.kind in ("detect.began", "incidents.opened"):
        return "error"
    if entry.kind == "instance.exited" and entry.payload.get("exit_kind") == "code":
        return "info" if entry.payload.get("value") == 0 else "error"
    return _level_of_kind(entry.kind)


def message_of(entry: Entry, reason: str = "") -> str:
    """Say in one line what an entry tells."""
    words = _first(entry.payload, _WORDS)
    if words:
        return words if entry.subject in words else f"{entry.subject}: {words}"
    family, _, what = entry.kind.partition(".")
    did = what.replace("_", " ")
    if family not in ("instance", "engine"):
        did = f"{family.replace('_', ' ')} {did}"
    subject = entry.subject or "everup"
    return f"{subject} {did}: {reason}" if reason else f"{subject} {did}"


def iso(seconds: float) -> str:
    """Give a moment as ISO 8601 in UTC with microseconds."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _common(
    at: float, node: str, namespace: str, dataset: str, event: Mapping[str, Any], level: str
) -> dict[str, Any]:
    return {
        "@timestamp": iso(at),
        "ecs": {"version": ECS},
        "event": event,
        "log": {"level": level},
        "host": {"name": node, "hostname": node},
        "agent": {"type": "everup", "version": __version__, "name": node},
        "data_stream": {"type": "logs", "dataset": dataset, "namespace": namespace},
    }


def _service(subject: str) -> dict[str, Any]:
    """The service that a subject is of: ``web``, or ``web.1`` for one of its instances."""
    if subject in _NO_SERVICE or subject.startswith(("/", "@")) or " " in subject:
        return {}
    name, _, number = subject.rpartition(".")
    if name and number.isdecimal():
        return {"name": name, "node": {"name": subject}}
    return {"name": subject}


@cache
def _level_of_kind(kind: str) -> str:
    known = app.kinds().get(kind)
    if known is not None:
        return _LEVELS[known.severity]
    if kind in _BAD:
        return "error"
    return "warning" if kind in _WARNING else "info"


def _first(payload: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    for key in keys:
        value = payload.get(key)
        if isinstance(value, str) and value:
            return value
    return ""


def _hashed(*parts: object) -> str:
    data = "\0".join(str(part) for part in parts).encode("utf-8", "surrogatepass")
    return urlsafe_b64encode(blake2b(data, digest_size=16).digest()).rstrip(b"=").decode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0.0 else str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value
