"""Apply a changed config to what runs: all of it, or nothing.

First what is added comes up, then the services whose processes must change are rolled over one
after the other, those that others depend on first. Only when all of them are ready the rest is
applied and what was removed stops. If one does not come to ready, all go back.
"""

from everup.engine import changes, rollout, slots
from everup.engine.definitions import alike, as_many
from everup.engine.records import CannotChangeError, Change, How, Plan, Reloading
from everup.engine.state import Supervised
from everup.model.action import Commit, Configure, Discard, Unwatch
from everup.model.fact import ConfigInForce
from everup.model.instance import State
from everup.model.journal import Kind
from everup.model.record import Instance
from everup.model.replacing import replace
from everup.model.spec import Service, Spec
from everup.supervise import order
from everup.supervise.awaited import missing
from everup.supervise.lifecycle import Happening, On

_AT_REST = (State.BACKOFF, State.PARKED, State.FAILED)


def plan_of(engine: Supervised, spec: Spec) -> Plan:
    """What ``spec`` would change. Raises ``CannotChangeError``."""
    plan = changes.compare(engine.spec, spec)
    going = [name for name in plan.added if name in engine.services]
    if going:
        raise CannotChangeError(
            f"{', '.join(going)} was removed and is still stopping: again when it is gone"
        )
    return plan


def begin(engine: Supervised, spec: Spec, by: str, now: float, *, overlap: bool = True) -> None:
    """Start applying the new config."""
    plan = plan_of(engine, spec)
    engine.record(
        Kind.RELOADING, "everup", durable=True, by=by, added=list(plan.added),
        removed=list(plan.removed), restarted=list(plan.restarted),
        changed=[change.service for change in plan.changed if not change.restart],
        settings=list(plan.settings), **({} if overlap else {"overlap": False}),
    )  # fmt: skip
    take_up(engine, spec, by, now, overlap=overlap)


def take_up(engine: Supervised, spec: Spec, by: str, now: float, *, overlap: bool = True) -> None:
    """From the beginning, or after an earlier engine died in the middle of it."""
    plan = plan_of(engine, spec)
    todo = tuple(name for name in _in_order(spec) if name in plan.restarted)
    engine.reloading = Reloading(spec, engine.spec, plan, todo, now, by=by, overlap=overlap)
    for name in plan.added:
        _add(engine, spec.service[name], now)


def _in_order(spec: Spec) -> list[str]:
    """Dependencies before those that depend on them."""
    out: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in out and name in spec.service:
            for dependency in spec.service[name].depends_on:
                visit(dependency)
            out[name] = None

    for name in spec.service:
        visit(name)
    return list(out)


def _add(engine: Supervised, service: Service, now: float) -> None:
    engine.services.setdefault(service.name, service)
    engine.add_slots(service)
    engine.rewire()
    assert engine.reloading is not None
    engine.reloading.deadlines[service.name] = now + service.start_timeout + service.min_ready
    for instance in engine.of(service.name):
        if not instance.state.alive and instance.state not in _AT_REST:
            slots.want(engine, (instance.slot,), service.autostart, "the config", "added")
            engine.put(replace(instance, want=service.autostart, reason="new"), now)
    engine.touch(service.name)


def advance(engine: Supervised, now: float) -> None:
    """Carry the reload on as far as it goes now."""
    now_at = engine.reloading
    assert now_at is not None
    if now_at.failed:
        _undo(engine, now_at, now)
        return
    for name, deadline in list(now_at.deadlines.items()):
        state = _added_state(engine, name, deadline, now)
        if isinstance(state, str):
            engine.reloading = replace(now_at, failed=f"{name}: {state}")
            _undo(engine, engine.reloading, now)
            return
        if not state:
            return
        del now_at.deadlines[name]
    under_way = {n for n, rolling in engine.rolling.items() if rolling.how is How.RELOAD}
    if not now_at.todo:
        if not under_way:
            _commit(engine, now_at, now)
        return
    if (following := _next(engine, now_at, under_way)) is None:
        return
    name = following
    engine.reloading = replace(now_at, todo=tuple(n for n in now_at.todo if n != name))
    target = target_of(engine, now_at.spec, name)
    mine = tuple(i.slot for i in engine.of(name) if i.want and not i.done)
    if mine:
        rollout.begin(engine, mine, How.RELOAD, now_at.by, now, target, overlap=now_at.overlap)
    else:  # nothing of it runs; what is started later gets the new definition at the commit
        advance(engine, now)


def _next(engine: Supervised, now_at: Reloading, under_way: set[str]) -> str | None:
    """Whose turn can come now: nobody that it needs, that needs it or that restarts with it is
    under way, or has to come before."""
    if len(under_way) >= now_at.spec.everup.rollout.parallel:
        return None
    before = under_way | engine.rolling.keys()
    for name in now_at.todo:
        if name not in before and not before & _bound_to(engine, now_at.spec, name):
            return name
        before.add(name)
    return None


def _bound_to(engine: Supervised, spec: Spec, name: str) -> set[str]:
    """What a service needs, what needs it, before the reload or after it, and its group."""
    found = set[str]()
    for services in (engine.services, spec.service):
        needs = {n: s.depends_on for n, s in services.items()}
        for table in (needs, order.dependents(services)):
            todo = [name]
            while todo:
                fresh = [n for n in table.get(todo.pop(), ()) if n not in found]
                found.update(fresh)
                todo += fresh
    for group in (*engine.spec.group.values(), *spec.group.values()):
        if name in group.services:
            found.update(group.services)
    return found - {name}


def target_of(engine: Supervised, spec: Spec, name: str) -> Service:
    """The new definition, with as many replicas as there are: that changes at the end."""
    return as_many(spec.service[name], engine.services[name])


def _added_state(engine: Supervised, name: str, deadline: float, now: float) -> bool | str:
    for instance in engine.of(name):
        if not instance.want or instance.done:
            continue
        if instance.last_exit is not None and not instance.state.alive:
            return f"{instance.slot} did not come to ready: it ended: {instance.last_exit}"
        if instance.state is not State.READY:
            if now >= deadline:
                why = engine.waiting.get(instance.slot) or instance.state.value
                return f"{instance.slot} did not come to ready in time: {why}"
            engine.wake(name, deadline)
            return False
        ready_at = instance.since + engine.services[name].min_ready
        if now < ready_at:
            engine.wake(name, ready_at)
            return False
    return True


# -- the good end


def _commit(engine: Supervised, now_at: Reloading, now: float) -> None:
    spec, plan = now_at.spec, now_at.plan
    engine.reloading = None
    engine.record(Kind.RELOADED, "everup", durable=True, took_s=round(now - now_at.began, 3))
    engine.emit(Commit())
    engine.spec = spec
    engine.box.facts.append(ConfigInForce())
    for change in plan.changed:
        _apply(engine, change, now)
    engine.rewire()
    for name in plan.removed:
        remove(engine, name, now)
    engine.touch_all(list(engine.services))


def _apply(engine: Supervised, change: Change, now: float) -> None:
    """What everup itself goes by, from now on."""
    name, before = change.service, engine.services[change.service]
    after = target_of(engine, engine.spec, name)
    engine.services[name] = after
    for instance in engine.all_of(name):
        was = instance.service or before
        if instance.service is not None and not instance.outgoing:
            engine.put(replace(instance, service=None), now)
        up = instance.state in (State.STARTING, State.RUNNING, State.READY)
        if up and was.probe != after.probe:
            _ask_anew(engine, instance, was, after, now)
    engine.emit(Configure(name))
    wanted = engine.spec.service[name]
    if "standby" in change.keys or "replicas" in change.keys:
        replicas = wanted.replicas if "replicas" in change.keys else after.replicas
        slots.resize(engine, name, replicas, wanted.standby, "the config", now)


def _ask_anew(
    engine: Supervised, instance: Instance, before: Service, after: Service, now: float
) -> None:
    slot, run = instance.slot, instance.run
    engine.emit(Unwatch(slot, run))
    engine.drop_probes(instance)
    probed = after.probe.readiness or after.probe.liveness
    if instance.suspected and not probed and instance.reloads_until is None:
        # Nobody would ever clear it: those who raised it ask no more.
        engine.put(replace(instance, suspected=False, reason=""), now)
    if after.probe.readiness is None and not instance.is_ready:
        engine.happen(slot, Happening(On.READY), now, run)
    if instance.state is State.STARTING and instance.pid and not missing(after, instance):
        engine.happen(slot, Happening(On.STARTED), now, run)
        return
    current = engine.process(slot, run)
    if current is not None:
        engine.watch(current)


def remove(engine: Supervised, name: str, now: float) -> None:
    """The service is no more: its processes stop, then its slots go."""
    mine = tuple(i.slot for i in engine.of(name))
    engine.leaving.add(name)
    engine.removing.update(mine)
    slots.stop(engine, mine, "removed from the config", now)
    engine.touch(name)


# -- the way back


def _undo(engine: Supervised, now_at: Reloading, now: float) -> None:
    """Everything back to where it was, then tell."""
    plan = now_at.plan
    if not now_at.undoing:
        engine.record(Kind.ROLLING_BACK, "everup", durable=True, reason=now_at.failed)
        engine.reloading = now_at = replace(now_at, undoing=True)
        for name in plan.added:
            remove(engine, name, now)
        for name in reversed([n for n in plan.restarted if n not in now_at.todo]):
            former = now_at.former.service[name]
            rolling = engine.rolling.get(name)
            if rolling is not None and rolling.how is not How.ROLLBACK:
                rollout.cancel(engine, name, now_at.failed, now)
            if alike(engine.services[name], former):
                continue
            mine = tuple(i.slot for i in engine.of(name) if i.want and not i.done)
            rollout.revert(engine, name, former, mine, now, overlap=now_at.overlap)
        return
    if any(rolling.how is How.ROLLBACK for rolling in engine.rolling.values()):
        return
    if any(name in engine.services for name in plan.added):
        return
    engine.reloading = None
    engine.record(Kind.ROLLED_BACK, "everup", durable=True, reason=now_at.failed)
    engine.emit(Discard())


def give_up(engine: Supervised, reason: str) -> None:
    """everup ends: the accepted config stays what it was."""
    if engine.reloading is not None:
        engine.reloading = None
        engine.record(Kind.ROLLED_BACK, "everup", durable=True, reason=reason)
        engine.emit(Discard())


def forget_removed(engine: Supervised, name: str) -> None:
    """Nothing of a service that was removed is left."""
    if name in engine.leaving and not engine.of(name) and name not in engine.open_lanes:
        engine.forget_service(name)
