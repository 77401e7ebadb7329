"""Verdicts that are not carried out: when killing would make it worse.

The last ready replica of a service is never killed on purpose while its readiness probe says that
it serves: where it can, a successor comes first. What depends on something that is down is not
killed for it, one after the other. And with the budget of restarts used up, nobody is killed who
could not be started again.
"""

from everup.engine import rollout
from everup.engine.records import How
from everup.engine.state import Supervised
from everup.model.instance import State
from everup.model.journal import Kind
from everup.model.record import Instance
from everup.model.signal import ProbeKind
from everup.supervise import order, storm

_AGAIN_S = 60.0
"""A successor for a condemned last replica is tried at most this often."""


def spared(engine: Supervised, instance: Instance, verdict: str, now: float) -> bool:
    """Whether this instance is not to be killed now, though the verdict is that it failed."""
    reason = depends_on_down(engine, instance) or _last(engine, instance) or braked(engine, now)
    told = engine.spared.get((instance.slot, instance.run))
    if not reason:
        engine.spared.pop((instance.slot, instance.run), None)
        return False
    if told != reason:
        engine.spared[instance.slot, instance.run] = reason
        engine.record(
            Kind.SPARED, str(instance.slot), run=instance.run, verdict=verdict, reason=reason
        )
    if reason == _LAST:
        _replace(engine, instance, now)
    return True


_LAST = "it is the last ready replica, and its readiness probe says that it serves"


def depends_on_down(engine: Supervised, instance: Instance) -> str:
    """Say which services that this one depends on are down; "": none."""
    down = [
        name
        for name in engine.definition(instance).depends_on
        if name in engine.services
        and not order.satisfied(engine.services[name], engine.all_of(name))
    ]
    return f"{', '.join(down)} is down, which it depends on" if down else ""


def _last(engine: Supervised, instance: Instance) -> str:
    service = engine.definition(instance)
    if service.probe.readiness is None or instance.state is not State.READY:
        return ""
    state = engine.probes.get((instance.slot, instance.run, ProbeKind.READINESS))
    if state is None or state.last is None or not state.last.ok:
        return ""
    others = any(
        other.state is State.READY and not other.suspected and other is not instance
        for other in engine.all_of(service.name)
    )
    return "" if others else _LAST


def braked(engine: Supervised, now: float) -> str:
    """Say that the budget of restarts is used up; "": it is not."""
    brake = engine.spec.everup.storm_brake
    if not storm.is_empty(engine.storm, brake, now):
        return ""
    return f"storm brake: more than {brake.limit} restarts in {brake.period:g} s"


def _replace(engine: Supervised, instance: Instance, now: float) -> None:
    name, slot = instance.slot.service, instance.slot
    free = name not in engine.rolling and not instance.outgoing and engine.reloading is None
    tried = engine.replaced_at.get(slot)
    if free and engine.services[name].overlaps and (tried is None or now - tried >= _AGAIN_S):
        engine.replaced_at[slot] = now
        rollout.begin(engine, (slot,), How.VERDICT, "everup", now)
