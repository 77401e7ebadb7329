"""What operators ask for."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from everup.engine.adopt import adopt
from everup.model.action import Signal
from everup.model.event import Down, Operator, Restart, Scale, SendSignal, Start, Stop, Up
from everup.model.instance import Slot, State
from everup.model.journal import Kind
from everup.supervise.lifecycle import Happening, On

if TYPE_CHECKING:
    from everup.engine.core import Engine

_AT_REST = (State.BACKOFF, State.PARKED, State.FAILED)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A restart that goes through the replicas one by one."""

    waiting: tuple[Slot, ...]
    current: Slot
    run: int
    """Incarnation of the current one before its restart."""


def operate(engine: "Engine", event: Operator, now: float) -> None:
    match event:
        case Up():
            _up(engine, event, now)
        case Down(by=by):
            _down(engine, by, now)
        case Start(slots=slots, by=by):
            _want(engine, slots, True, by, "started")
            for slot in slots:
                _start(engine, slot, now)
        case Stop(slots=slots, by=by):
            _want(engine, slots, False, by, "stopped")
            _stop(engine, slots, f"stopped by {by}" if by else "stopped", now)
        case Restart(slots=slots, by=by):
            _want(engine, slots, True, by, "restarted")
            _restart(engine, slots, now)
        case Scale():
            _scale(engine, event, now)
        case SendSignal(slots=slots, signal=signal, by=by):
            for slot in slots:
                instance = engine.instances[slot]
                if instance.has_process:
                    engine.record(Kind.SIGNALLED, str(slot), signal=signal, by=by)
                    engine.emit(Signal(slot, instance.run, signal))


def _want(engine: "Engine", slots: tuple[Slot, ...], want: bool, by: str, how: str) -> None:
    for slot in slots:
        engine.record(Kind.WANTED, str(slot), durable=True, want=want, by=by, how=how)


def _up(engine: "Engine", event: Up, now: float) -> None:
    said, runs = dict(event.wanted), dict(event.runs)
    engine.last_runs |= runs
    engine.active |= {name: on for name, on in event.active if name in engine.services}
    for slot, instance in list(engine.instances.items()):
        want = said.get(slot, engine.services[slot.service].autostart)
        done = slot in event.done
        fresh = replace(instance, want=want, done=done, run=runs.get(slot, 0), since=now)
        engine.put(fresh, now)
        engine.touch(slot.service)
    for adopted in event.adopted:
        adopt(engine, adopted, now)
    if event.quitting:
        _down(engine, "", now)


def _down(engine: "Engine", by: str, now: float) -> None:
    if engine.quitting:
        return
    engine.quitting = True
    engine.rolling.clear()
    engine.record(Kind.ENGINE_STOPPING, "everup", by=by)
    _stop(engine, tuple(engine.instances), "everup is stopping", now)
    engine.touch_all(engine.services)


def _start(engine: "Engine", slot: Slot, now: float) -> None:
    instance = engine.instances[slot]
    engine.pending_stop.discard(slot)
    if instance.state in _AT_REST:
        instance = replace(instance, state=State.STOPPED, since=now, deadline=None)
    if not instance.state.alive:
        instance = replace(
            instance, attempt=0, crashes=(), parked=False, done=False, reason="asked to start"
        )
    engine.put(replace(instance, want=True), now)
    engine.touch(slot.service)


def _stop(engine: "Engine", slots: tuple[Slot, ...], reason: str, now: float) -> None:
    for slot in slots:
        instance = engine.instances[slot]
        engine.rolling.pop(slot.service, None)
        # ``want`` goes first: from here on nothing starts it again.
        if instance.state.alive or instance.state in _AT_REST:
            engine.pending_stop.add(slot)
            instance = replace(instance, reason=reason)
        engine.put(replace(instance, want=False), now)
        engine.touch(slot.service)


def _restart(engine: "Engine", slots: tuple[Slot, ...], now: float) -> None:
    """One replica of a service after the other; services side by side."""
    for name in dict.fromkeys(slot.service for slot in slots):
        mine = tuple(slot for slot in slots if slot.service == name)
        for slot in mine:
            if not engine.instances[slot].state.alive:
                _start(engine, slot, now)
        alive = tuple(slot for slot in mine if engine.instances[slot].state.alive)
        if alive:
            _roll_next(engine, alive, now)


def _roll_next(engine: "Engine", slots: tuple[Slot, ...], now: float) -> None:
    slots = tuple(slot for slot in slots if slot in engine.instances)  # some were scaled away
    if not slots:
        return
    slot, rest = slots[0], slots[1:]
    instance = engine.instances[slot]
    engine.rolling[slot.service] = Rollout(rest, slot, instance.run)
    engine.put(replace(instance, want=True, attempt=0, crashes=(), parked=False), now)
    if instance.state.alive:
        engine.happen(slot, Happening(On.STOP, "restart asked for"), now)
    engine.touch(slot.service)


def roll(engine: "Engine", service: str, now: float) -> None:
    """Carry a restart on: the next replica once the current one is back."""
    rollout = engine.rolling.get(service)
    if rollout is None:
        return
    instance = engine.instances.get(rollout.current)
    if instance is None:
        del engine.rolling[service]
        return
    if instance.run == rollout.run:
        return
    if instance.state is State.READY or instance.done:
        del engine.rolling[service]
        if rollout.waiting:
            _roll_next(engine, rollout.waiting, now)
    elif instance.state in _AT_REST:
        del engine.rolling[service]
        left = [str(slot) for slot in rollout.waiting]
        reason = f"{rollout.current} did not come back: {instance.reason}"
        engine.record(Kind.ROLLOUT_STOPPED, service, reason=reason, not_restarted=left)


def _scale(engine: "Engine", event: Scale, now: float) -> None:
    service = engine.services[event.service]
    engine.record(
        Kind.SCALED,
        event.service,
        durable=True,
        replicas=event.replicas,
        before=service.replicas,
        by=event.by,
    )
    running = any(instance.want for instance in engine.of(event.service))
    service = replace(service, replicas=event.replicas)
    engine.services[event.service] = service
    before = set(engine.instances)
    engine.add_slots(service)
    fresh = set(engine.instances) - before
    gone = []
    for instance in engine.of(event.service):
        slot = instance.slot
        if slot.replica > service.slots:
            gone.append(slot)
            engine.removing.add(slot)
            continue
        back = slot in fresh or slot in engine.removing
        engine.removing.discard(slot)
        if back:
            # A word of its own in the journal: else the next engine would go by autostart.
            _want(engine, (slot,), running, event.by, "scaled")
            engine.pending_stop.discard(slot)
            engine.put(replace(instance, want=running), now)
    _stop(engine, tuple(gone), f"scaled to {event.replicas}", now)
    engine.touch(event.service)
