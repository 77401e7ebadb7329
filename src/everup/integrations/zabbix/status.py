"""everup's whole status as one value: what the template of ``everup zabbix template`` takes apart.

Pure. A problem in Zabbix is an incident of everup, never a symptom: it belongs to one service, the
one where it began, and what else is hurt by it has no problem of its own.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from everup.integrations import standing
from everup.integrations.standing import Level
from everup.model.condition import Severity
from everup.model.display import shown_line
from everup.model.incident import Incident

KEY: Final = "everup.status"
"""The item that takes the value."""
HOLD_S: Final = 1.5
"""An incident that is no more than a warning waits so long: most become critical meanwhile, and
would be two problems."""
MOST_BYTES: Final = 1 << 20
SAYS: Final = "Zabbix says: "
"""Begins the text of a condition that Zabbix itself has told of."""
_MOST_TEXT: Final = 500
_MOST_INCIDENTS: Final = 50

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """The value, and what of it counts as a change."""

    text: str
    essence: str
    """Equal as long as nothing has happened: without numbers that always change."""
    again_s: float | None = None
    """Look again after so many seconds: an incident waits until then."""


def told(now: float, node: str, status: Mapping[str, Any], incidents: Iterable[Incident]) -> Told:
    """Put together what Zabbix is told. ``now`` in seconds since 1970."""
    found = standing.of_all(status)
    itself = standing.of_everup(status, found)
    names = {s.service for s in found}
    problems = {name: _Problems() for name in names}
    rest = _Problems()
    known = [i for i in incidents if i.resolved_at is None and not _echo(i)]
    waiting = [HOLD_S - (now - i.since) for i in known if _waits(i, now)]
    for incident in known:
        if not _waits(incident, now):
            problems.get(owner(incident, names), rest).add(incident)
    services = [
        {
            "name": s.service,
            "level": int(s.level),
            "text": _line(s.text),
            **{key: round(number, 3) for key, number in s.numbers.items()},
            **problems[s.service].texts(),
        }
        for s in found
    ]
    everup = {
        "level": int(itself.level),
        "text": _line(itself.text),
        "version": str(status["version"]),
        "node": _line(node),
        "services": len(found),
        "serving": sum(s.level in (Level.OK, Level.WARNING) for s in found),
        "incidents": len(known),
        **rest.texts(),
    }
    document: Json = {
        "everup": everup,
        "services": services,
        "instances": [_instance(s["name"], i) for s in status["services"] for i in s["instances"]],
        "incidents": [_incident(i) for i in known[-_MOST_INCIDENTS:]],
    }
    document["discovery"] = {
        "services": [{"{#SERVICE}": s["name"]} for s in services],
        "instances": [
            {"{#INSTANCE}": i["name"], "{#SERVICE}": i["service"]} for i in document["instances"]
        ],
    }
    return Told(_bounded(document), _essence(document), min(waiting, default=None))


def silent(before: str) -> Told:
    """Put together what Zabbix is told while the engine does not answer: what was told last, and
    that it is old."""
    document = json.loads(before)
    document["everup"]["level"] = int(Level.UNKNOWN)
    document["everup"]["text"] = "everup's engine does not answer; what it says of services is old"
    return Told(_bounded(document), _essence(document))


class _Problems:
    """The open incidents of one service, or of no service."""

    def __init__(self) -> None:
        self._found: list[Incident] = []

    def add(self, incident: Incident) -> None:
        self._found.append(incident)

    def texts(self) -> dict[str, str]:
        """Give one text for each gravity, and only one of them: "" is no problem."""
        grave = [i for i in self._found if i.severity is Severity.CRITICAL]
        return {
            "critical": _line("; ".join(i.sentence for i in grave)),
            "warning": "" if grave else _line("; ".join(i.sentence for i in self._found)),
        }


def _waits(incident: Incident, now: float) -> bool:
    # A clock that was set back makes nothing wait for long.
    return incident.severity is not Severity.CRITICAL and 0 <= now - incident.since < HOLD_S


def _echo(incident: Incident) -> bool:
    """Tell whether Zabbix alone knows of it: it has a problem of its own for that."""
    texts = [condition.text for condition in incident.active.values()] or [incident.sentence]
    return all(SAYS in text for text in (*texts, *incident.symptoms))


def owner(incident: Incident, names: Collection[str]) -> str:
    """Give the service whose problem an incident is, of those in ``names``; "": of none."""
    root = incident.reason.root if incident.reason is not None else ""
    for name in (incident.subject, root, *incident.services):
        if name in names:
            return name
    return ""


def _incident(incident: Incident) -> Json:
    return {
        "number": incident.number,
        "subject": _line(incident.subject),
        "severity": incident.severity.value,
        "state": incident.state,
        "since": round(incident.since, 3),
        "text": _line(incident.sentence),
        "cause": incident.reason.cause if incident.reason is not None else "",
        "services": [_line(name) for name in list(incident.services)[:_MOST_INCIDENTS]],
        "acknowledged_by": _line(incident.acknowledged_by),
    }


def _instance(service: str, instance: Mapping[str, Any]) -> Json:
    usage = instance["usage"] or {}
    return {
        "name": instance["slot"],
        "service": service,
        "state": str(instance["state"]),
        "ready": int(instance["state"] == "ready"),
        "restarts": int(instance["restarts"]),
        "cpu_percent": round(float(usage.get("cpu_percent") or 0.0), 3),
        "memory_bytes": int(usage.get("rss_bytes") or 0),
    }


def _essence(document: Json) -> str:
    """What makes a change: how services and instances stand, and what incidents say."""
    everup = document["everup"]
    found = [
        [everup["level"], everup["text"], everup["critical"], everup["warning"]],
        [[s["name"], s["level"], s["critical"], s["warning"]] for s in document["services"]],
        [[i["name"], i["state"], i["restarts"]] for i in document["instances"]],
        [[i["number"], i["severity"], i["state"], i["text"]] for i in document["incidents"]],
    ]
    return json.dumps(found)


def _bounded(document: Json) -> str:
    """Leave instances out, then services, from the end, where all would be too large; it is told
    how many."""
    text = _dump(document)
    for part, macros in (("instances", "{#INSTANCE}"), ("services", "{#SERVICE}")):
        rows: Sequence[Json] = document[part]
        while len(text) > MOST_BYTES and rows:
            rows = rows[: len(rows) * MOST_BYTES // (len(text) + MOST_BYTES // 8)]
            names = {row["name"] for row in rows}
            kept = [row for row in document["discovery"][part] if row[macros] in names]
            left_out = len(document[part]) - len(rows)
            document = document | {
                part: rows,
                "discovery": document["discovery"] | {part: kept},
                f"{part}_left_out": left_out + document.get(f"{part}_left_out", 0),
            }
            text = _dump(document)
    return text


def _dump(document: Json) -> str:
    return json.dumps(document, separators=(",", ":"))


def _line(text: str) -> str:
    line = shown_line(text)
    return line if len(line) <= _MOST_TEXT else f"{line[: _MOST_TEXT - 3]}..."
