"""What the journal says about one injected fault."""

from dataclasses import dataclass

from _demo.control import Event

_NOTICED = {"instance.exited", "instance.suspected", "instance.unhealthy"}


@dataclass(slots=True)
class Step:
    """One row of the result."""

    name: str
    from_s: float
    to_s: float = 0.0
    detected_s: float | None = None
    ready_s: float | None = None
    slot: str = ""


def instance_events(events: list[Event], slot: str, from_s: float) -> list[Event]:
    """The events of one replica since a moment."""
    return [event for event in events if event.subject == slot and event.mono_s >= from_s]


def recovery(
    events: list[Event], slot: str, from_s: float, exits: int
) -> tuple[float, float] | None:
    """When the fault was noticed and when the replica was ready again; None: not yet."""
    own = instance_events(events, slot, from_s)
    ended = [event.mono_s for event in own if event.kind == "instance.exited"]
    if len(ended) < exits:
        return None
    ready = [e.mono_s for e in own if e.kind == "instance.ready" and e.mono_s > ended[exits - 1]]
    noticed = [event.mono_s for event in own if event.kind in _NOTICED]
    return (noticed[0] - from_s, ready[0] - from_s) if ready else None
