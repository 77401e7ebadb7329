"""The one guard for everything that everup does by itself: what an operator may ask for, and the
observer, a runbook or a drill may not."""

from collections.abc import Sequence

from everup.engine.spare import braked, depends_on_down
from everup.engine.state import Supervised
from everup.model.instance import Slot, State
from everup.model.record import Instance


def refusal(engine: Supervised, command: str, slots: Sequence[Slot], now: float) -> str:
    """Say why everup does not do this by itself now; "" where nothing speaks against it.

    ``command``: start, stop or restart.
    """
    if engine.quitting:
        return "everup is stopping"
    if engine.reloading is not None:
        return "a reload is under way"
    for slot in slots:
        if slot.service in engine.rolling:
            return f"a rollout of {slot.service} is under way"
        if reason := _of_one(engine, command, engine.instances[slot], slots, now):
            return f"{slot}: {reason}"
    return braked(engine, now) if command != "stop" else ""


def _of_one(
    engine: Supervised, command: str, instance: Instance, slots: Sequence[Slot], now: float
) -> str:
    if command != "stop" and not instance.want:
        return "an operator has stopped it"
    if command != "stop" and (down := depends_on_down(engine, instance)):
        return down
    overlaps = command == "restart" and engine.definition(instance).overlaps
    if command == "start" or overlaps or instance.state is not State.READY:
        return ""
    others = any(
        other.state is State.READY and other.slot not in slots
        for other in engine.all_of(instance.slot.service)
    )
    return "" if others else "it is the last ready replica"
