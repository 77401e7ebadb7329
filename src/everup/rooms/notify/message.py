"""Words of a message: what, since when, because of what, and what to do. Pure."""

from datetime import datetime, tzinfo
from typing import Final

from everup.model.display import shown_line
from everup.model.incident import Incident
from everup.model.units import format_duration
from everup.observer.shown import plain_incident
from everup.rooms.notify.actions import Message

_MOST_DID: Final = 5
_HEADS: Final = {
    "opened": "{severity}",
    "graver": "now {severity}",
    "reminder": "still {severity}",
    "escalated": "help is needed: {severity}",
    "asked": "may everup?",
    "resolved": "over",
}


def message(
    incident: Incident, stage: str, *, id: str, node: str, now: float, times: int,
    zone: tzinfo | None,
) -> Message:  # fmt: skip
    """Write a message. ``times``: how often it has failed since people were told first."""
    head = _HEADS[stage].format(severity=incident.severity.value)
    sentence = shown_line(incident.sentence)
    lines = [f"{sentence}.", "", *_lines(incident, stage, node, now, times, zone)]
    return Message(
        id,
        f"[{node}] {head}: {sentence}"[:200],
        "\n".join(lines),
        {
            "id": id,
            "node": node,
            "stage": stage,
            "times": times,
            "text": "\n".join(lines),
            "incident": plain_incident(incident),
        },
    )


def trial(route: str, *, id: str, node: str, by: str) -> Message:
    """Write the message that shows that a route works."""
    text = f"This is a test of everup's route {route} on {node}, asked for by {shown_line(by)}."
    data = {"id": id, "node": node, "stage": "test", "times": 1, "text": text, "incident": None}
    return Message(id, f"[{node}] test of route {route}", text, data)


def _lines(
    incident: Incident, stage: str, node: str, now: float, times: int, zone: tzinfo | None
) -> list[str]:
    began = datetime.fromtimestamp(incident.since, zone).astimezone(zone)
    over = incident.resolved_at
    lasted = format_duration(max(0, round((over or now) - incident.since)))
    out = [f"Since {began:%Y-%m-%d %H:%M:%S %Z} on {node}, for {lasted}."]
    if times > 1:
        out.append(f"It has failed {times} times since you were told first.")
    out.append(f"Hurt: {shown_line(', '.join(incident.services))}.")
    if incident.acknowledged_by:
        out.append(f"Taken on by {shown_line(incident.acknowledged_by)}.")
    out += [shown_line(f"everup did: {did}.") for did in incident.did[-_MOST_DID:]]
    if incident.proposal and stage != "resolved":
        out += ["", shown_line(f"everup would {incident.proposal}.")]
        out += [f"Allow it: everup approve {incident.number}"]
    if stage == "resolved":
        return [*out, "", f"everup incident {incident.number}"]
    if incident.reason is not None and incident.reason.cause:
        out += ["", *(shown_line(f"- {seen}") for seen in incident.reason.evidence)]
        out += [shown_line(f"Next: {step}") for step in incident.reason.then]
    out += ["", f"Look: everup incident {incident.number}", f"Yours? everup ack {incident.number}"]
    return out
