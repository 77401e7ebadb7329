"""Take over from an earlier engine: its processes as they run, and what it had begun."""

from typing import Any

from everup.engine import reload, rollout
from everup.engine.definitions import as_many, is_cold
from everup.engine.records import How, Rollout, Turn
from everup.engine.state import Supervised
from everup.model.action import GiveTime, Signal
from everup.model.event import Adopted, Unfinished, Up
from everup.model.fact import TakenOver
from everup.model.instance import State
from everup.model.journal import Kind
from everup.model.record import Instance
from everup.model.replacing import replace
from everup.model.spec import Service
from everup.supervise.lifecycle import Happening, On


def take_over(engine: Supervised, event: Up, now: float) -> None:
    """Start from what the journal and the keeper know."""
    said, runs = dict(event.wanted), dict(event.runs)
    engine.last_runs |= runs
    engine.gens |= dict(event.gens)
    engine.active |= {name: on for name, on in event.active if name in engine.services}
    if event.reload is not None:
        pending = event.reload
        reload.take_up(engine, pending.spec, pending.by, now, overlap=pending.overlap)
    for slot, instance in list(engine.instances.items()):
        want = said.get(slot, engine.services[slot.service].autostart)
        run, done = runs.get(slot, 0), slot in event.done
        gen = engine.gens.get(slot.service, 0)
        fresh = replace(instance, want=want, done=done, run=run, spent=run, gen=gen, since=now)
        engine.put(fresh, now)
        engine.touch(slot.service)
    for slot, attempt, parked in event.crashes:
        if slot in engine.instances:
            failing = replace(engine.instances[slot], attempt=attempt, parked=parked)
            engine.put(failing, now)
    for slot, run in event.lost:
        engine.record(Kind.LOST, str(slot), run=run)
    formers = {} if event.reload is None else _redo(engine, event)
    for adopted in sorted(event.adopted, key=lambda a: (not a.outgoing, a.slot, a.run)):
        gen, former = formers.get(adopted.slot.service, (0, None))
        adopt(engine, adopted, former if adopted.gen < gen else None, now)
    for unfinished in event.rollouts:
        if unfinished.service in engine.services and unfinished.service not in engine.rolling:
            _go_on(engine, unfinished, now)
    _one_each(engine, now)


def _one_each(engine: Supervised, now: float) -> None:
    """Two processes in a slot and nothing known that would replace the one by the other: the
    newer one stays if it is ready."""
    for slot, old in list(engine.outgoing.items()):
        rolling = engine.rolling.get(slot.service)
        if old.asked or (rolling and any(turn.slot == slot for turn in rolling.turns)):
            continue
        leaving, reason = old, "another one has its place"
        if engine.instances[slot].state is not State.READY and old.state is State.READY:
            new = engine.instances[slot]
            leaving = engine.outgoing[slot] = replace(new, outgoing=True, want=False)
            engine.instances[slot] = replace(
                old, outgoing=False, want=new.want, spent=max(old.spent, new.spent)
            )
        engine.happen(slot, Happening(On.STOP, reason), now, leaving.run)


def _redo(engine: Supervised, event: Up) -> dict[str, tuple[int, Service]]:
    """What the reload had already changed when the engine before died. By service, the generation
    that it brought and the definition of those before."""
    pending, reloading = event.reload, engine.reloading
    assert pending is not None
    assert reloading is not None
    gens, formers = dict(pending.gens), {}
    for name in gens:
        if name not in reloading.plan.restarted:
            continue
        former = engine.services[name]
        target = reload.target_of(engine, reloading.spec, name)
        before = any(a.slot.service == name and a.gen < gens[name] for a in event.adopted)
        if before and is_cold(former, target):
            continue  # its sockets are still the old ones
        engine.services[name] = target
        formers[name] = (gens[name], former)
    todo = tuple(name for name in reloading.todo if name not in gens)
    engine.reloading = replace(reloading, todo=todo, failed=pending.failed)
    engine.rewire()
    return formers


def _go_on(engine: Supervised, unfinished: Unfinished, now: float) -> None:
    """The rollout goes on with the slots that are not of its generation yet."""
    name, gen = unfinished.service, unfinished.gen
    how, target = How(unfinished.how), engine.services[name]
    former, reloading = target, engine.reloading
    if how is How.RELOAD and reloading is not None and name in reloading.plan.restarted:
        former = as_many(reloading.former.service[name], target)
        target = reload.target_of(engine, reloading.spec, name)
    turns, waiting = [], []
    for slot in unfinished.slots:
        instance = engine.instances.get(slot)
        if instance is None or not instance.want:
            continue
        old = engine.outgoing.get(slot)
        if instance.gen < gen:
            waiting.append(slot)
        elif old is not None or instance.state is not State.READY:
            before = old.run if old else instance.run - instance.state.alive
            turns.append(Turn(slot, before, now + target.start_timeout + target.min_ready))
    cold = is_cold(former, target)
    went_on = Rollout(
        gen, how, unfinished.slots, tuple(waiting), former, target, now, unfinished.by, cold,
        tuple(turns), overlap=unfinished.overlap,
    )  # fmt: skip
    engine.rolling[name] = went_on
    engine.touch(name)


def adopt(engine: Supervised, found: Adopted, former: Service | None, now: float) -> None:
    """The instance goes on where the journal says that it was. ``former``: what it was started
    with, if that is not what the service is by now."""
    slot, state = found.slot, found.state.value
    told: dict[str, Any] = {} if found.since is None else {"since": found.since}
    engine.record(Kind.ADOPTED, str(slot), run=found.run, pid=found.pid, state=state, **told)
    old = engine.instances[slot] = replace(engine.instances[slot], service=former)
    if found.outgoing:  # its successor comes next
        old = replace(old, run=found.run, outgoing=True, want=False, state=State.STARTING)
        engine.outgoing[slot] = old
    service = engine.definition(old)
    new = _stopping(service, old, found, now) if _leaves(found) else _up(service, old, found, now)
    engine.carry(service, old, new, now)
    if found.heard:
        engine.box.facts.append(TakenOver(slot, found.run, found.heard))
    if _leaves(found):
        if found.state is State.DRAINING:
            _drain_again(engine, new, now)
            return
        engine.emit(GiveTime(slot, found.run, service.stop_signal))
        if not found.signalled:
            engine.record(Kind.SIGNALLED, str(slot), signal=service.stop_signal, run=found.run)
            engine.emit(Signal(slot, found.run, service.stop_signal, service.stop_scope))
        return
    if new.state is State.STARTING:  # nobody saw how its start went: go on from there
        spawned = Happening(On.SPAWNED, pid=found.pid, facts=found.facts)
        engine.happen(slot, spawned, now, found.run)
    if not new.want and not new.outgoing:
        engine.pending_stop.add(slot)


def _leaves(found: Adopted) -> bool:
    return found.state in (State.STOPPING, State.DRAINING)


def _up(service: Service, old: Instance, found: Adopted, now: float) -> Instance:
    up = found.state in (State.RUNNING, State.READY)
    new = replace(
        old,
        state=found.state if up else State.STARTING,
        since=found.since if up and found.since is not None else now,
        run=found.run,
        spent=max(old.spent, found.run),
        lane=found.lane or old.slot.replica,
        gen=found.gen,
        facts=found.facts if up else {},
        pid=found.pid if up else 0,
        phase="" if up else "spawn",
        said_ready=found.said_ready,
        spawned_at=found.spawned_at,
        up_at=found.spawned_at if up else None,
        is_ready=found.state is State.READY or service.probe.readiness is None,
        restarts=found.restarts,
        deadline=now + service.restart.reset_after if up else None,
    )
    if up and service.watchdog is not None:
        every = service.watchdog.interval
        new = replace(new, watchdog_s=every, watchdog_at=now + every)
    return new


def _stopping(service: Service, old: Instance, found: Adopted, now: float) -> Instance:
    """What is left of its time is not known, so it gets all of it."""
    return replace(
        old,
        state=State.STOPPING,
        since=now,
        run=found.run,
        spent=max(old.spent, found.run),
        lane=found.lane or old.slot.replica,
        gen=found.gen,
        facts=found.facts,
        pid=found.pid,
        asked=True,
        spawned_at=found.spawned_at,
        restarts=found.restarts,
        reason="stopping",
        deadline=now + service.stop_timeout,
    )


def _drain_again(engine: Supervised, stopping: Instance, now: float) -> None:
    """As if its stop had just been asked for."""
    ready = replace(stopping, state=State.READY, asked=False, deadline=None)
    if stopping.outgoing:
        engine.outgoing[stopping.slot] = ready
    else:
        engine.instances[stopping.slot] = ready
    stop = Happening(On.STOP, "stopping", drain_s=rollout.SETTLE_S)
    engine.happen(stopping.slot, stop, now, stopping.run)
