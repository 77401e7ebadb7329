"""Settling: what may happen to a service now that something has changed.

Stops whose turn has come, rollouts, and starts that are allowed.
"""

from everup.engine import lanes, leasing, reload, rollout
from everup.engine.state import Supervised
from everup.model.action import CloseSockets, Forget, Quit
from everup.model.fact import ProcessEnded
from everup.model.instance import Slot, State
from everup.model.journal import Kind
from everup.model.record import Instance
from everup.model.replacing import replace
from everup.model.spec import Service, Strategy
from everup.supervise import order, storm
from everup.supervise.lifecycle import Happening, On
from everup.supervise.restart import is_failure


def settle(engine: Supervised, name: str, now: float) -> None:
    """Look at one service."""
    leasing.check(engine, name, now)
    _stop_pending(engine, name, now)
    before = engine.rolling.get(name)
    rollout.roll(engine, name, now)
    after = engine.rolling.get(name)
    if before is not None and after is not None and after.gen != before.gen:
        rollout.roll(engine, name, now)  # back: before anything starts as what has just failed
    _release_groups(engine, name)
    for instance in engine.of(name):
        gone = not instance.state.alive and instance.slot not in engine.outgoing
        if instance.slot in engine.removing and gone:
            engine.drop_slot(instance.slot)
            engine.emit(Forget(instance.slot))
        elif instance.want and instance.state is State.STOPPED and not instance.done:
            if instance.service is not None and name not in engine.rolling:
                # It ended after the rollout that was to give it another definition.
                instance = replace(instance, service=None)
                engine.put(instance, now)
            _start_if_allowed(engine, engine.definition(instance), instance, now)
    lanes.settle(engine, engine.services[name])
    reload.forget_removed(engine, name)


# -- stops


def _stop_pending(engine: Supervised, name: str, now: float) -> None:
    """Stop what is to be stopped, once nothing that depends on it is left to stop."""
    mine = [slot for slot in engine.pending_stop if slot.service == name]
    if not mine or _users_stopping(engine, name):
        return
    for slot in sorted(mine, reverse=True):
        engine.pending_stop.discard(slot)
        if slot not in engine.instances:
            continue
        reason = engine.instances[slot].reason
        if old := engine.outgoing.get(slot):
            engine.happen(slot, Happening(On.STOP, reason), now, old.run)
        engine.happen(slot, Happening(On.STOP, reason), now)
    engine.touch_all(engine.services[name].depends_on)  # their turn may have come


def _users_stopping(engine: Supervised, name: str) -> bool:
    for user in engine.dependents[name]:
        if any(slot.service == user for slot in engine.pending_stop):
            return True
        if any(i.state.alive and i.asked and not i.want for i in engine.of(user)):
            return True
    return False


def maybe_quit(engine: Supervised, now: float) -> None:
    """The last process is gone and everup is to end."""
    if not engine.quitting or engine.finished:
        return
    down = order.is_down([*engine.instances.values(), *engine.outgoing.values()])
    if down and not leasing.keeps(engine, now):
        engine.finished = True
        for name in list(engine.open_lanes):
            engine.record(Kind.SOCKETS_CLOSED, name)
            engine.emit(CloseSockets(name, engine.services[name].listen))
        engine.open_lanes.clear()
        engine.record(Kind.ENGINE_STOPPED, "everup")
        engine.emit(Quit(0))


# -- groups


def ended(engine: Supervised, fact: ProcessEnded, now: float) -> None:
    """A process has ended: if it crashed, its group may have to restart with it."""
    old, new = fact.before, fact.after
    if old.slot in engine.outgoing or old.slot.service in engine.rolling:
        return  # a rollout decides by itself what a crash in it means
    crashed = not old.asked and old.up_at is not None
    if crashed and new.want and new.last_exit and is_failure(new.last_exit, fact.service.restart):
        regroup(engine, old.slot, now)


def regroup(engine: Supervised, crashed: Slot, now: float) -> None:
    """A member of a group crashed: those that restart with it stop."""
    group = engine.group_of.get(crashed.service)
    if group is None or group.strategy is Strategy.ONE_FOR_ONE:
        return
    names = group.services
    if group.strategy is Strategy.REST_FOR_ONE:
        names = names[names.index(crashed.service) :]
    members = frozenset(i.slot for name in names for i in engine.of(name) if i.want)
    # Who waits since an earlier crash waits on, together with these.
    waiting = engine.regrouping.get(group.name, frozenset())
    engine.regrouping[group.name] = members | waiting
    engine.record(Kind.GROUP, group.name, crashed=str(crashed), members=sorted(map(str, members)))
    reason = f"{crashed} crashed ({group.strategy.value})"
    for name in names:
        rollout.cancel(engine, name, reason, now)
    for slot in sorted(members, reverse=True):
        if slot != crashed and engine.instances[slot].state.alive:
            engine.happen(slot, Happening(On.STOP, reason), now)
    engine.touch_all(names)


def _release_groups(engine: Supervised, name: str) -> None:
    """Let the members of a group start again once all of them are down. Who they are was said
    when one of them crashed: the config may have other groups, or none, by now."""
    for group, members in list(engine.regrouping.items()):
        names = dict.fromkeys(slot.service for slot in sorted(members))
        if name in names and not any(_alive(engine, slot) for slot in members):
            del engine.regrouping[group]
            engine.touch_all(names)


def _alive(engine: Supervised, slot: Slot) -> bool:
    instance = engine.instances.get(slot)
    return instance is not None and instance.state.alive


# -- starts


def _start_if_allowed(engine: Supervised, service: Service, instance: Instance, now: float) -> None:
    reason = leasing.obstacle(engine, service, now) or _obstacle(engine, service, instance)
    reason = reason or _brake(engine, instance, now)
    if reason:
        if engine.waiting.get(instance.slot) != reason:
            engine.waiting[instance.slot] = reason
            engine.record(Kind.WAITING, str(instance.slot), reason=reason)
        return
    if service.listen:
        instance = _with_lane(engine, service, instance, now)
    engine.happen(instance.slot, Happening(On.START, instance.reason), now)


def _with_lane(engine: Supervised, service: Service, instance: Instance, now: float) -> Instance:
    """Give it a lane that nobody else has, with its socket open."""
    name = service.name
    lane = lanes.lane_for(engine, instance)
    if lane != instance.lane:
        instance = replace(instance, lane=lane)
        engine.put(instance, now)
    count = max(service.slots, lane)
    if engine.open_lanes.get(name, 0) < count:
        lanes.open_up(engine, service, count)
    return instance


def _obstacle(engine: Supervised, service: Service, instance: Instance) -> str:
    if engine.quitting or instance.slot in engine.pending_stop:
        return "everup is stopping" if engine.quitting else "it is being stopped"
    if rollout.holds_back(engine, instance.slot.service):
        return "its sockets change: the others stop first"
    for members in engine.regrouping.values():
        if instance.slot in members:
            return "the rest of its group stops first"
    missing = [
        dependency
        for dependency in service.depends_on
        if dependency in engine.services
        and not order.satisfied(engine.services[dependency], engine.all_of(dependency))
    ]
    return f"waits for {', '.join(missing)}" if missing else ""


def calm(engine: Supervised, now: float) -> None:
    """Tell the end of a storm, whether or not anybody crashes again."""
    if not engine.storm.braking:
        return
    at = storm.passes_at(engine.storm, engine.spec.everup.storm_brake)
    if at is None or at <= now:
        engine.storm = storm.Bucket(engine.storm.spent, engine.storm.at)
        engine.record(Kind.STORM_OVER, "everup")


def _brake(engine: Supervised, instance: Instance, now: float) -> str:
    """A restart after a failure takes from the budget of all. The last quarter of it is for
    services that have nobody ready any more."""
    if not instance.attempt:
        return ""
    brake, before = engine.spec.everup.storm_brake, engine.storm
    others = engine.all_of(instance.slot.service)
    reserve = brake.limit // 4 if any(i.state is State.READY for i in others) else 0
    engine.storm, wait_s = storm.take(before, brake, now, reserve)
    if not wait_s:
        return ""
    if not before.braking:
        engine.record(Kind.STORM, "everup", limit=brake.limit, period_s=brake.period)
    engine.wake(instance.slot.service, now + wait_s)
    return f"storm brake: more than {brake.limit} restarts in {brake.period:g} s"
