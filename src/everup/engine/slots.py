"""Slots on their way out or in: stopping, and another number of replicas."""

from everup.engine import rollout
from everup.engine.state import Supervised
from everup.model.instance import Slot, State
from everup.model.journal import Kind
from everup.model.replacing import replace

AT_REST = (State.BACKOFF, State.PARKED, State.FAILED)


def want(engine: Supervised, slots: tuple[Slot, ...], want: bool, by: str, how: str) -> None:
    """Write down what somebody said."""
    for slot in slots:
        engine.record(Kind.WANTED, str(slot), durable=True, want=want, by=by, how=how)


def stop(engine: Supervised, slots: tuple[Slot, ...], reason: str, now: float) -> None:
    """Stop, and stay so; those that depend on them stop first."""
    for name in dict.fromkeys(slot.service for slot in slots):
        rollout.cancel(engine, name, reason, now)
    for slot in slots:
        instance = engine.instances[slot]
        # ``want`` goes first: from here on nothing starts it again.
        if instance.state.alive or instance.state in AT_REST or slot in engine.outgoing:
            engine.pending_stop.add(slot)
            instance = replace(instance, reason=reason)
        engine.put(replace(instance, want=False), now)
        engine.touch(slot.service)


def resize(engine: Supervised, name: str, replicas: int, standby: int, by: str, now: float) -> None:
    """Another number of replicas and standbys."""
    service = engine.services[name]
    before = service.replicas
    engine.record(Kind.SCALED, name, durable=True, replicas=replicas, before=before, by=by)
    running = engine.wanted[name] = _is_wanted(engine, name)
    service = engine.services[name] = replace(service, replicas=replicas, standby=standby)
    there = set(engine.instances)
    engine.add_slots(service)
    fresh = set(engine.instances) - there
    gone = []
    for instance in engine.of(name):
        slot = instance.slot
        if slot.replica > service.slots:
            gone.append(slot)
            engine.removing.add(slot)
            continue
        back = slot in fresh or slot in engine.removing
        engine.removing.discard(slot)
        if back:
            # A word of its own in the journal: else the next engine would go by autostart.
            want(engine, (slot,), running, by, "scaled")
            engine.pending_stop.discard(slot)
            since = now if slot in fresh else instance.since
            engine.put(replace(instance, want=running, since=since), now)
    if gone:
        stop(engine, tuple(gone), f"scaled to {replicas}", now)
    engine.touch(name)


def _is_wanted(engine: Supervised, name: str) -> bool:
    """Whether a new replica is to run: as the others do; where there is none, as they did when
    the last one was scaled away."""
    there = [i for i in engine.of(name) if i.slot not in engine.removing]
    if there:
        return any(instance.want for instance in there)
    return engine.wanted.get(name, engine.services[name].autostart)
