"""Singletons: what this machine may run only while the cluster has given it to it.

The engine asks the process to stop a little before its time is over; that it is killed then is the
keeper's, which needs no engine for it. Not being given a singleton is no operator's word: it is
wanted still, and waits.
"""

from typing import Any

from everup.engine.records import Lease
from everup.engine.state import Supervised
from everup.model.action import Bound, Signal
from everup.model.event import Leased
from everup.model.instance import Slot
from everup.model.record import Instance
from everup.model.spec import Service
from everup.supervise.lifecycle import Happening, On

ANOTHER, MOVES, LATE = (
    "the cluster has not given it to this machine",
    "it moves to another machine",
    "the cluster was not heard of in time: another machine may own it",
)
_TOLD_S = 2.0
_SUBJECT = "@cluster"
"""What the end of everup is woken by. No service can have this name."""
_UNTOLD_S = 15.0
"""So long one goes on of which this engine does not know whose it is: the engine before knew. The
keeper kills it sooner, if that was its time."""


def local(engine: Supervised, name: str) -> dict[str, Any]:
    """Show how a singleton stands here, for who decides whose it is."""
    lease = engine.leases.get(name)
    mine = engine.all_of(name)
    return {
        "wanted": any(i.want and not i.done for i in mine),
        "alive": any(i.state.alive for i in mine),
        "token": 0 if lease is None else lease.token,
        "given_up": lease is not None and lease.yields,
    }


def is_elsewhere(engine: Supervised, instance: Instance, now: float) -> bool:
    """Tell whether it does not run because the cluster has not given it to this machine."""
    service = engine.services.get(instance.slot.service)
    rests = service is not None and instance.want and not instance.state.alive
    return rests and service is not None and bool(obstacle(engine, service, now))


def given_up(event: Leased) -> Leased:
    """The same, not to be started by it."""
    return Leased(event.service, event.token, event.until, event.boot_until, event.stop_at, True)


def leased(engine: Supervised, event: Leased, now: float) -> None:
    """Take what the cluster says. What was given up is not taken back, and an older token says
    nothing any more."""
    name = event.service
    service = engine.services.get(name)
    if service is None or not service.singleton:
        return
    before = engine.leases.get(name)
    if not event.token:
        engine.leases.pop(name, None)
        for instance in engine.all_of(name):
            _end(engine, instance, ANOTHER, now, at_once=True)
        engine.touch(name)
        return
    if before is not None and event.token < before.token:
        return
    again = before is not None and event.token == before.token
    yields = event.yields or (again and before is not None and before.yields)
    engine.leases[name] = Lease(event.token, event.until, event.boot_until, event.stop_at, yields)
    for instance in engine.all_of(name):
        if instance.state.alive:
            engine.emit(Bound(instance.slot, instance.run, event.boot_until))
    engine.touch(name)


def obstacle(engine: Supervised, service: Service, now: float) -> str:
    """Say why a singleton may not start here; "" where it may."""
    if not service.singleton:
        return ""
    lease = engine.leases.get(service.name)
    if lease is None or not lease.token:
        return ANOTHER
    if lease.yields:
        return MOVES
    return LATE if now >= lease.stop_at else ""


def check(engine: Supervised, name: str, now: float) -> None:
    """Stop a singleton whose time is over, or that moves."""
    service = engine.services[name]
    if not service.singleton:
        engine.leases.pop(name, None)
        return
    alive = [i for i in engine.all_of(name) if i.state.alive]
    if not alive:
        return
    lease = engine.leases.get(name)
    if lease is None:
        lease = engine.leases[name] = Lease(0, now + _UNTOLD_S, 0.0, now + _UNTOLD_S)
    if not lease.yields and now < lease.stop_at:
        engine.wake(name, lease.stop_at)
        return
    for instance in alive:
        _end(engine, instance, MOVES if lease.yields else LATE, now)


def keeps(engine: Supervised, now: float) -> bool:
    """Tell whether everup, all down, waits a moment for the cluster to hear of it: else another
    machine would wait for the whole ``ttl``."""
    if not any(lease.token and now < lease.until for lease in engine.leases.values()):
        return False
    if engine.quits_by is None:
        engine.quits_by = now + _TOLD_S
        engine.wake(_SUBJECT, engine.quits_by)
    return now < engine.quits_by


def ended(engine: Supervised, slot: Slot, run: int, now: float) -> None:
    """A process of a singleton has ended: killed by the keeper because its time was over, it has
    not crashed."""
    instance = engine.process(slot, run)
    if instance is None or not engine.definition(instance).singleton or instance.asked:
        return
    lease = engine.leases.get(slot.service)
    if lease is None or not lease.token or now >= lease.stop_at:
        _end(engine, instance, LATE, now)


def _end(
    engine: Supervised, instance: Instance, reason: str, now: float, *, at_once: bool = False
) -> None:
    if not instance.state.alive:
        return
    if not instance.asked:
        engine.happen(instance.slot, Happening(On.STOP, reason), now, instance.run)
    if at_once:
        engine.emit(Signal(instance.slot, instance.run, "SIGKILL", "all"))
