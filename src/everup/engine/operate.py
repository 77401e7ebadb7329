"""What operators ask for."""

from everup.engine import reload, rollout, slots
from everup.engine.adopt import take_over
from everup.engine.records import CannotChangeError, How
from everup.engine.state import Supervised
from everup.model.action import Signal
from everup.model.event import Down, Operator, Reload, Restart, Scale, SendSignal, Start, Stop, Up
from everup.model.instance import Slot, State
from everup.model.journal import Kind
from everup.model.replacing import replace


def operate(engine: Supervised, event: Operator, now: float) -> None:
    match event:
        case Up():
            take_over(engine, event, now)
            if event.quitting:
                _down(engine, "", now)
                for service in engine.services.values():  # what the one before had opened, too
                    if service.listen:
                        engine.open_lanes.setdefault(service.name, service.slots)
        case Down(by=by):
            _down(engine, by, now)
        case Start(slots=those, by=by):
            those = _staying(engine, those)
            slots.want(engine, those, True, by, "started")
            for slot in those:
                _start(engine, slot, now)
        case Stop(slots=those, by=by):
            slots.want(engine, those, False, by, "stopped")
            slots.stop(engine, those, f"stopped by {by}" if by else "stopped", now)
        case Restart(slots=those, by=by, overlap=overlap):
            those = _staying(engine, those)
            slots.want(engine, those, True, by, "restarted")
            _restart(engine, those, by, now, overlap)
        case Scale(service=name, replicas=replicas, by=by) if name not in engine.leaving:
            slots.resize(engine, name, replicas, engine.services[name].standby, by, now)
        case Scale():
            pass  # it goes
        case Reload(spec=spec, by=by, overlap=overlap):
            if engine.reloading is not None:
                raise CannotChangeError("another reload is under way")
            reload.begin(engine, spec, by, now, overlap=overlap)
        case SendSignal(slots=those, signal=signal, by=by):
            for slot in those:
                instance = engine.instances[slot]
                if instance.has_process:
                    engine.record(Kind.SIGNALLED, str(slot), signal=signal, by=by)
                    engine.emit(Signal(slot, instance.run, signal))


def _staying(engine: Supervised, those: tuple[Slot, ...]) -> tuple[Slot, ...]:
    """Without those that are on their way out: scaled away, or removed from the config."""
    return tuple(slot for slot in those if slot not in engine.removing)


def _down(engine: Supervised, by: str, now: float) -> None:
    if engine.quitting:
        return
    engine.quitting = True
    reload.give_up(engine, "everup is stopping")
    engine.record(Kind.ENGINE_STOPPING, "everup", by=by)
    slots.stop(engine, tuple(engine.instances), "everup is stopping", now)
    engine.touch_all(engine.services)


def _start(engine: Supervised, slot: Slot, now: float) -> None:
    instance = engine.instances[slot]
    engine.pending_stop.discard(slot)
    if instance.state in slots.AT_REST:
        instance = replace(instance, state=State.STOPPED, since=now, deadline=None)
    if not instance.state.alive:
        instance = replace(
            instance, attempt=0, crashes=(), parked=False, done=False, reason="asked to start"
        )
    engine.put(replace(instance, want=True), now)
    engine.touch(slot.service)


def _restart(
    engine: Supervised, those: tuple[Slot, ...], by: str, now: float, overlap: bool
) -> None:
    """In batches of each service; services side by side."""
    for name in dict.fromkeys(slot.service for slot in those):
        rollout.cancel(engine, name, f"another restart was asked for by {by}", now)
        mine = tuple(slot for slot in those if slot.service == name)
        for slot in mine:
            if not engine.instances[slot].state.alive:
                _start(engine, slot, now)
            else:
                engine.put(replace(engine.instances[slot], want=True), now)
        alive = tuple(slot for slot in mine if engine.instances[slot].state.alive)
        back = engine.rolling.get(name)
        if alive and back is None:
            rollout.begin(engine, alive, How.RESTART, by, now, overlap=overlap)
        elif alive and back is not None:  # a reload ended here: one rollout does both
            both = tuple(sorted({*back.slots, *alive}))
            rollout.begin(engine, both, back.how, by, now, back.target)
