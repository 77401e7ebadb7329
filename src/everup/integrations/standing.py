"""How each service stands, for other monitoring systems: from what ``GET /v1/status`` gives.

Pure, and of the standard library alone: ``check_everup`` is to be quick.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

_TROUBLE: Final = ("backoff", "parked", "failed")
_COMING: Final = ("starting", "running")
_LONGEST_REASON: Final = 300


class Level(IntEnum):
    """How bad it is, as Nagios counts."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Standing:
    """One service now. Equal ones need not be told twice: nothing in ``text`` counts time."""

    service: str
    level: Level
    text: str
    """What is the matter, in one line; control characters are still in it."""
    failing: tuple[str, ...] = ()
    """Instances that should be ready and are not."""
    numbers: Mapping[str, float] = field(default_factory=dict, compare=False)
    """``ready``, ``wanted``, ``restarts``, ``cpu_percent``, ``memory_bytes``."""


def of_all(status: Mapping[str, Any]) -> tuple[Standing, ...]:
    """Say how each service stands, in the order of the config."""
    return tuple(_of(service) for service in status["services"])


def of_everup(status: Mapping[str, Any], services: Sequence[Standing]) -> Standing:
    """Say how everup itself is, and in short what it keeps."""
    bad = [s.service for s in services if s.level is Level.CRITICAL]
    numbers = {"services": float(len(services)), "critical": float(len(bad))}
    if status.get("journal_degraded"):
        why = status.get("journal_degraded_reason") or "no reason known"
        text = f"everup's journal cannot be written: {why}"
        return Standing("everup", Level.WARNING, text, numbers=numbers)
    if status.get("stopping"):
        return Standing("everup", Level.WARNING, "everup is stopping", numbers=numbers)
    serve = f"{len(services) - len(bad)} of {len(services)} services serve"
    rest = f"; not: {', '.join(bad[:10])}" if bad else ""
    return Standing("everup", Level.OK, f"everup {status['version']}: {serve}{rest}", (), numbers)


def _of(service: Mapping[str, Any]) -> Standing:
    instances = service["instances"]
    wanted = [i for i in instances if i["want"]]
    ready = service["ready"]
    usage = [i["usage"] for i in instances if i["usage"]]
    numbers = {
        "ready": float(ready),
        "wanted": float(len(wanted)),
        "restarts": float(sum(i["restarts"] for i in instances)),
        "cpu_percent": float(sum(u.get("cpu_percent") or 0.0 for u in usage)),
        "memory_bytes": float(sum(u.get("rss_bytes") or 0 for u in usage)),
    }
    if service["type"] == "oneshot":
        level, text, failing = _oneshot(instances)
    else:
        level, text, failing = _serving(service, wanted, ready)
    return Standing(service["name"], level, text, failing, numbers)


def _oneshot(instances: Sequence[Mapping[str, Any]]) -> tuple[Level, str, tuple[str, ...]]:
    failing = tuple(i["slot"] for i in instances if i["state"] in _TROUBLE and not i["done"])
    if failing:
        last = next(i for i in instances if i["slot"] == failing[0])
        return Level.CRITICAL, f"{failing[0]} failed: {reason(last)}", failing
    if all(i["done"] for i in instances):
        return Level.OK, "done", ()
    return Level.OK, "runs" if any(i["pid"] for i in instances) else "waits", ()


def _serving(
    service: Mapping[str, Any], wanted: Sequence[Mapping[str, Any]], ready: int
) -> tuple[Level, str, tuple[str, ...]]:
    name = service["name"]
    if not service["instances"]:
        return Level.OK, f"{name} is scaled to nothing", ()
    if not wanted:
        return Level.WARNING, f"{name} is stopped, as asked", ()
    missing = [i for i in wanted if i["state"] != "ready"]
    failing = tuple(i["slot"] for i in missing)
    # Warm standbys need not be ready for the service to serve in full.
    lacking = min(int(service["replicas"]), len(wanted)) - ready
    if lacking <= 0:
        return Level.OK, f"{name} is ready ({ready} of {len(wanted)})", failing
    worst = max(missing, key=lambda i: (i["state"] in _TROUBLE, bool(i["last_exit"])))
    says = f"{worst['slot']} is {worst['state']}: {reason(worst)}"
    if ready:
        return Level.WARNING, f"{name}: {ready} of {len(wanted)} are ready; {says}", failing
    fresh = all(i["state"] in _COMING and not i["last_exit"] for i in missing)
    level = Level.WARNING if fresh else Level.CRITICAL
    return level, f"{name} does not serve: {says}", failing


def reason(instance: Mapping[str, Any]) -> str:
    """Say in a line why an instance is not ready, as far as the status tells."""
    failed = [
        f"{kind} probe: {probe['detail']}"
        for kind, probe in instance["probes"].items()
        if not probe["ok"]
    ]
    found = instance["reason"] or next(iter(failed), "") or instance["last_exit"]
    found = found or instance.get("doing") or "no reason known"
    return str(found)[:_LONGEST_REASON]
