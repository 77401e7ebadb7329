"""Lanes: the listening sockets of a service, who has which, and who gets new connections.

A lane is one socket in each of the service's SO_REUSEPORT groups. Every slot has one, a process
that is being replaced keeps its own until it is gone, and a successor gets one that is free.
Lanes stay open as long as the service is up: the kernel finds them by their number.
"""

from everup.engine import balance
from everup.engine.state import Supervised
from everup.model.action import CloseSockets, OpenSockets, SetBalance
from everup.model.instance import State
from everup.model.journal import Kind
from everup.model.record import Instance
from everup.model.spec import Service
from everup.supervise import order


def lane_for(engine: Supervised, instance: Instance) -> int:
    """The lane of its next process: its own one as long as that is free, else its number's, else
    the first that is free."""
    slot = instance.slot
    old = engine.outgoing.get(slot)
    if old is not None and not engine.can_steer(slot.service):
        return old.lane
    taken = {other.lane for other in engine.of(slot.service) if other.slot != slot}
    taken |= {o.lane for s, o in engine.outgoing.items() if s.service == slot.service}
    if instance.lane and instance.lane not in taken:
        return instance.lane
    if slot.replica not in taken:
        return slot.replica
    return next(n for n in range(1, len(taken) + 2) if n not in taken)


def open_up(engine: Supervised, service: Service, count: int) -> None:
    """Open what is missing of so many lanes."""
    name = service.name
    engine.open_lanes[name] = count
    addresses = [x.address for x in service.listen]
    engine.record(Kind.SOCKETS_OPENED, name, addresses=addresses, lanes=count)
    engine.emit(OpenSockets(name, count))
    choose(engine, service)


def settle(engine: Supervised, service: Service) -> None:
    """Close the sockets when nobody needs them, else choose the balance."""
    if not service.listen or service.name not in engine.open_lanes:
        return
    instances = engine.all_of(service.name)
    if order.is_down(instances) and not any(i.want and not i.done for i in instances):
        close(engine, service.name)
        return
    choose(engine, service)


def close(engine: Supervised, name: str) -> None:
    """Nobody is to be served any more."""
    del engine.open_lanes[name]
    engine.active.pop(name, None)
    engine.steered.discard(name)
    engine.record(Kind.SOCKETS_CLOSED, name)
    engine.emit(CloseSockets(name, engine.services[name].listen))


def hand_on(engine: Supervised, target: Service) -> None:
    """Nothing of the service runs, and it is about to be ``target``: a listener that stays keeps
    its sockets, and the clients that wait there; the others close."""
    before = engine.services[target.name]
    stays = {(x.name, x.address) for x in before.listen} & {
        (x.name, x.address) for x in target.listen
    }
    if not stays:
        close(engine, target.name)
        return
    gone = tuple(x for x in before.listen if (x.name, x.address) not in stays)
    if gone:
        addresses = [listener.address for listener in gone]
        engine.record(Kind.SOCKETS_CLOSED, target.name, addresses=addresses)
        kept = tuple(sorted(name for name, _ in stays))
        engine.emit(CloseSockets(target.name, gone, kept))


def choose(engine: Supervised, service: Service) -> None:
    """Choose who gets new connections, and say so where it has changed."""
    by_lane: dict[int, Instance] = {}
    for instance in engine.all_of(service.name):
        lane = instance.lane or instance.slot.replica
        if lane not in by_lane or instance.state is State.READY:
            by_lane[lane] = instance
    before = engine.active.get(service.name, ())
    after = balance.choose(before, service.replicas, by_lane)
    steered = service.name in engine.steered
    engine.steered.add(service.name)
    if after != before or not steered:
        engine.active[service.name] = after
        replicas = sorted(by_lane[lane].slot.replica for lane in after)
        engine.record(
            Kind.BALANCE, service.name, replicas=replicas, lanes=list(after), before=list(before)
        )
        engine.emit(SetBalance(service.name, after))
