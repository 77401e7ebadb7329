"""What the page is given: small, plain, and harmless to show. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from everup import app
from everup.integrations.standing import Level, Standing
from everup.integrations.standing import reason as reason_of
from everup.model.display import shown_line
from everup.model.incident import Incident
from everup.model.journal import Entry, Kind
from everup.rooms.console.strips import Strip

_LONGEST: Final = 2000
_MINUTE_S: Final = 60
_TELLING: Final = {
    "sentence": "", "rung": "", "outcome": "", "did": "", "name": "", "cause": "",
    "reason": "", "text": "", "condition": "", "detail": "", "command": "", "signal": "",
    "state": "", "how": "", "why": "because:", "by": "by", "user": "by", "note": "note:",
    "delay_s": "in", "after_s": "after", "again_s": "again in", "replicas": "", "pid": "pid",
}  # fmt: skip
"""What is told of an entry, in this order, and the word before it."""
_BAD: Final = frozenset({
    Kind.PARKED, Kind.FAILED, Kind.UNHEALTHY, Kind.ENGINE_DEFECT, Kind.JOURNAL_DEGRADED,
    Kind.SLO_BURNING, Kind.STORM, Kind.CONFIG, Kind.SOCKETS_FAILED,
})  # fmt: skip
_WARNING: Final = frozenset({
    Kind.EXITED, Kind.BACKOFF, Kind.SUSPECTED, Kind.LOST, Kind.ROLLOUT_STOPPED, Kind.ROLLING_BACK,
    Kind.SPARED, Kind.POSTPONED, Kind.SOCKETS_LOST, Kind.LOG_LOST, Kind.FACILITY, Kind.KILLING,
})  # fmt: skip
_GOOD: Final = frozenset({
    Kind.READY, Kind.CLEARED, Kind.STABLE, Kind.RELOADED, Kind.ROLLOUT_DONE, Kind.SLO_CALM,
    Kind.STORM_OVER, Kind.LOG_RECOVERED,
})  # fmt: skip
_TELLS: Final = _BAD | _WARNING | frozenset({
    Kind.READY, Kind.RELOADED, Kind.ROLLED_BACK, Kind.ROLLOUT, Kind.ROLLOUT_DONE, Kind.WANTED,
    Kind.SCALED, Kind.ENGINE_STARTED, Kind.ENGINE_STOPPING, Kind.UPGRADING, Kind.SLO_CALM,
    Kind.STORM_OVER, Kind.SIGNALLED,
})  # fmt: skip
_TELLS_TOO: Final = ("recover.began", "recover.proposed", "recover.answered", "recover.ended",
                     "incidents.opened", "incidents.explained", "incidents.acknowledged",
                     "incidents.mitigated", "incidents.resolved", "console.acted",
                     "observer.ended")  # fmt: skip


def clean(value: Any) -> Any:
    """Give a value of JSON in which no text holds a control character, or is endless."""
    match value:
        case str():
            return shown_line(value if len(value) <= _LONGEST else f"{value[:_LONGEST]} ...")
        case Mapping():
            return {clean(str(key)): clean(item) for key, item in value.items()}
        case list() | tuple():
            return [clean(item) for item in value]
        case _:
            return value


def is_news(entry: Entry) -> bool:
    """Tell whether an entry is something that a person wants to see among what changed last."""
    return entry.kind in _TELLS or entry.kind in _TELLS_TOO


def entry(entry: Entry) -> dict[str, Any]:
    """Give an entry of the journal with its words and how good or bad it is."""
    return {
        "seq": entry.seq,
        "at": round(entry.time, 3),
        "kind": entry.kind,
        "subject": entry.subject,
        "words": words(entry.payload),
        "tone": _tone(entry),
    }


def words(payload: Mapping[str, Any]) -> str:
    """Say in a line what an entry tells."""
    parts = []
    for key, label in _TELLING.items():
        value = payload.get(key)
        if value is None or value == "" or isinstance(value, (dict, list)):
            continue
        if key.endswith("_s") and isinstance(value, (int, float)):
            value = _duration(value)
        parts.append(f"{label} {value}".strip())
    return " · ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < _MINUTE_S:
        return f"{seconds:.3g} s"
    minutes, left = divmod(round(seconds), 60)
    return (
        f"{minutes} min {left} s"
        if minutes < _MINUTE_S
        else f"{minutes // 60} h {minutes % 60} min"
    )


def _tone(entry: Entry) -> str:
    kind = entry.kind
    if kind == Kind.EXITED and entry.payload.get("cause") == "exit 0":
        return "note"
    if kind in _BAD:
        return "bad"
    if kind in _WARNING:
        return "warning"
    if kind in _GOOD:
        return "good"
    found = app.kinds().get(kind)
    return str(found.severity.value) if found is not None else "note"


def row(service: Mapping[str, Any], standing: Standing, strip: Strip, now: float) -> dict[str, Any]:
    """Give a service as a row of the table."""
    instances: Sequence[Mapping[str, Any]] = service["instances"]
    wanted = [i for i in instances if i["want"]]
    unwell = [i for i in wanted if i["state"] != "ready" and not i["done"]]
    worst = max(unwell, key=lambda i: (i["state"] in _TROUBLE, bool(i["last_exit"])), default=None)
    exits = [i for i in instances if i["last_exit"]]
    last = max(exits, key=lambda i: i["restarts"], default=None)
    numbers = standing.numbers
    out = {
        "name": service["name"],
        "state": state_of(service, standing),
        "level": int(standing.level),
        "ready": int(service["ready"]),
        "wanted": len(wanted),
        "restarts": int(numbers["restarts"]),
        "cpu": round(numbers["cpu_percent"], 1),
        "mem": int(numbers["memory_bytes"]),
        "since": _since(service, strip, now),
        "why": reason_of(worst) if worst is not None else (str(last["last_exit"]) if last else ""),
        "next": _next(service, worst, now),
        "strip": strip.bins,
        "down_s": round(strip.down_s, 1),
        "valid_s": round(strip.valid_s, 0),
        "needs": list(service.get("depends_on", ())),
        "addresses": list(service.get("addresses", ())),
    }
    return {key: clean(value) for key, value in out.items()}


_TROUBLE: Final = ("backoff", "parked", "failed")


def state_of(service: Mapping[str, Any], standing: Standing) -> str:
    """Give the one word of a service: ``up``, ``degraded``, ``down``, ``starting``, ``stopped``,
    ``done``, ``running`` or ``none`` (scaled to nothing)."""
    wanted = [i for i in service["instances"] if i["want"]]
    if service["type"] == "oneshot":
        if standing.level is Level.CRITICAL:
            return "down"
        if service["instances"] and all(i["done"] for i in service["instances"]):
            return "done"
        return "running" if wanted else "stopped"
    if not service["instances"]:
        return "none"
    if not wanted:
        return "stopped"
    match standing.level:
        case Level.OK:
            return "up"
        case Level.CRITICAL:
            return "down"
        case _:
            return "degraded" if service["ready"] else "starting"


def _since(service: Mapping[str, Any], strip: Strip, now: float) -> float | None:
    if strip.since is not None:
        return round(strip.since)
    oldest = max((i["since_s"] for i in service["instances"]), default=None)
    return None if oldest is None else round(now - oldest)


def _next(
    service: Mapping[str, Any], worst: Mapping[str, Any] | None, now: float
) -> dict[str, Any] | None:
    """What everup does about it, for the page to put into words."""
    if service.get("rollout"):
        return {"what": "rollout"}
    if worst is None:
        return None
    out: dict[str, Any] = {"what": str(worst["state"]), "slot": worst["slot"]}
    if (after := worst.get("retry_in_s")) is not None:
        out["at"] = round(now + after)
    if worst.get("doing"):
        out["doing"] = worst["doing"]
    return out


def incident(found: Incident) -> dict[str, Any]:
    """Give an incident, whole."""
    reason = found.reason
    out: dict[str, Any] = {
        "number": found.number,
        "subject": found.subject,
        "state": found.state,
        "severity": found.severity.value,
        "since": round(found.since, 1),
        "resolved": None if found.resolved_at is None else round(found.resolved_at, 1),
        "sentence": found.sentence,
        "services": list(found.services),
        "symptoms": list(found.symptoms)[:50],
        "acknowledged_by": found.acknowledged_by,
        "occurrences": found.occurrences,
        "did": list(found.did)[-20:],
        "proposal": found.proposal,
        "cause": None,
    }
    if reason is not None and reason.cause:
        out["cause"] = {
            "kind": reason.cause,
            "says": reason.says,
            "confidence": round(reason.confidence, 2),
            "path": list(reason.path),
        }
    if reason is not None:
        out["evidence"] = list(reason.evidence)
        out["then"] = list(reason.then)
        out["runner_up"] = reason.runner_up
    return {key: clean(value) for key, value in out.items()}


def instance(found: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Give an instance of a service, for its own view."""
    usage = found["usage"] or {}
    retry = found.get("retry_in_s")
    out = {
        "slot": found["slot"],
        "state": found["state"],
        "since": round(now - found["since_s"]),
        "want": found["want"],
        "pid": found["pid"],
        "restarts": found["restarts"],
        "why": "" if found["state"] == "ready" else reason_of(found),
        "status": found["status_text"],
        "last_exit": found["last_exit"] or "",
        "retry_at": None if retry is None else round(now + retry),
        "standby": bool(found.get("standby")),
        "cpu": usage.get("cpu_percent"),
        "mem": usage.get("rss_bytes"),
        "fds": usage.get("fds"),
        "probes": found["probes"],
    }
    return {key: clean(value) for key, value in out.items()}


def config_of(text: str, service: str) -> str:
    """Give the part of a config's text that is about one service, and nothing of the others."""
    heads = (f"[service.{service}]", f"[service.{service}.", f'[service."{service}"')
    blocks = [block for block in text.split("\n\n") if block.startswith(heads)]
    return "\n\n".join(blocks)
