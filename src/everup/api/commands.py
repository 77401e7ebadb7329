"""Requests of operators to events of the engine; what makes no sense is refused with a reason."""

import difflib
from collections.abc import Iterable
from typing import Any

from everup.config import SIGNALS
from everup.engine.core import Engine
from everup.model.event import Event, Restart, Scale, SendSignal, Start, Stop
from everup.model.instance import Slot

MAX_REPLICAS = 1000


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault of ours
    """Not done; ``hint`` says what to do instead."""

    def __init__(self, status: int, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.hint = hint


def command(
    name: str, body: dict[str, Any], engine: Engine, by: str
) -> tuple[Event, tuple[Slot, ...]]:
    """The event for a command, and the instances that it is about."""
    if engine.quitting:
        raise Refusal(409, "everup is stopping", "wait for it, then: everup up")
    if name == "scale":
        return _scale(body, engine, by)
    slots = slots_of(body.get("targets"), engine)
    if not body.get("targets"):
        slots = _meant(name, slots, engine)
    match name:
        case "start":
            return Start(slots, by), slots
        case "stop":
            return Stop(slots, by), slots
        case "restart":
            busy = [name for name in engine.rolling if any(s.service == name for s in slots)]
            if busy or engine.reloading is not None:
                what = "a reload" if engine.reloading is not None else f"a restart of {busy[0]}"
                raise Refusal(409, f"{what} is under way", "look: everup status")
            return Restart(slots, by, overlaps(body)), slots
        case _:
            alive = tuple(slot for slot in slots if engine.instances[slot].has_process)
            number = _signal(body.get("signal"))
            if not alive:
                raise Refusal(409, "none of them has a process to signal", "everup status")
            return SendSignal(alive, number, by), alive


def overlaps(body: dict[str, Any]) -> bool:
    """Whether a successor may start beside the old process, where the config has it so."""
    overlap = body.get("overlap", True)
    if not isinstance(overlap, bool):
        raise Refusal(400, f"overlap = {overlap!r}: expected true or false")
    return overlap


def _meant(name: str, slots: tuple[Slot, ...], engine: Engine) -> tuple[Slot, ...]:
    """What "all" means: not once more what has done its work, and no restart for what an
    operator has stopped."""
    instances = [engine.instances[slot] for slot in slots]
    if name == "start":
        return tuple(i.slot for i in instances if not i.done)
    if name == "restart":
        return tuple(i.slot for i in instances if i.want and not i.done)
    return slots


def _scale(body: dict[str, Any], engine: Engine, by: str) -> tuple[Event, tuple[Slot, ...]]:
    service, replicas = body.get("service"), body.get("replicas")
    if not isinstance(service, str) or service not in engine.services:
        raise unknown(str(service), engine)
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise Refusal(400, f"replicas = {replicas!r}: expected a whole number")
    if not 0 <= replicas <= MAX_REPLICAS:
        raise Refusal(400, f"replicas = {replicas}: expected 0 to {MAX_REPLICAS}")
    if engine.services[service].type == "oneshot":
        raise Refusal(400, f"{service} is a oneshot: it runs once and is not scaled")
    if engine.services[service].singleton:
        raise Refusal(400, f"{service} is a singleton: there is one of it in the whole cluster")
    count = replicas + engine.services[service].standby
    return Scale(service, replicas, by), tuple(Slot(service, n + 1) for n in range(count))


def slots_of(targets: Any, engine: Engine) -> tuple[Slot, ...]:
    """Instances named by service, by instance, or all (an empty list)."""
    if targets is None or targets == []:
        return tuple(engine.instances)
    if not isinstance(targets, list) or not all(isinstance(t, str) for t in targets):
        raise Refusal(400, "targets: expected a list of services or instances")
    slots: dict[Slot, None] = {}
    for target in targets:
        if target in engine.services:
            slots |= {i.slot: None for i in engine.of(target)}
            continue
        try:
            slot = Slot.parse(target)
        except ValueError:
            raise unknown(target, engine) from None
        if slot not in engine.instances:
            raise unknown(target, engine)
        slots[slot] = None
    return tuple(slots)


def unknown(name: str, engine: Engine) -> Refusal:
    known = [*engine.services, *(str(slot) for slot in engine.instances)]
    hint = did_you_mean(name, known) or f"there are: {', '.join(engine.services)}"
    return Refusal(404, f"there is no service or instance {name!r}", hint)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint, or nothing where no known name is close."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]}?" if close else ""


def _signal(name: Any) -> str:
    text = str(name or "").upper()
    text = text if text.startswith("SIG") else f"SIG{text}"
    if text not in SIGNALS:
        raise Refusal(400, f"{name!r} is no signal", "for example SIGHUP, SIGUSR1, SIGTERM")
    return text
