"""What the journal says about one injected fault."""

from dataclasses import dataclass

from _demo.control import Event

_NOTICED = {"instance.exited", "instance.suspected", "instance.unhealthy"}
_OTHER = {"instance.stable"}
"""Comes by itself a while after a start."""
_AFTER_S = 0.05
"""What everup does about a ready replica follows at once; later events are another story."""


@dataclass(slots=True)
class Step:
    """One row of the result."""

    name: str
    from_s: float
    fault_s: float
    to_s: float = float("inf")
    noticed_s: float | None = None
    ready_s: float | None = None
    slot: str = ""
    all_events: bool = False
    """Whether everything up to ``to_s`` belongs to it, not only what comes before ready again."""

    def journal(self, events: list[Event]) -> list[Event]:
        """The events of this step."""
        end_s = self.fault_s + (0.0 if self.ready_s is None else self.ready_s + _AFTER_S)
        end_s = self.to_s if self.all_events else end_s
        inside = [event for event in events if self.fault_s <= event.mono_s <= end_s]
        return [event for event in inside if event.kind not in _OTHER]


def recovery(
    events: list[Event], slot: str, from_s: float, exits: int
) -> tuple[float, float] | None:
    """When the fault was noticed and when the replica was ready again; None: not yet."""
    own = [event for event in events if event.subject == slot and event.mono_s >= from_s]
    ended = [event.mono_s for event in own if event.kind == "instance.exited"]
    if len(ended) < exits:
        return None
    ready = [e.mono_s for e in own if e.kind == "instance.ready" and e.mono_s > ended[exits - 1]]
    noticed = [event.mono_s for event in own if event.kind in _NOTICED]
    return (noticed[0] - from_s, ready[0] - from_s) if ready else None
