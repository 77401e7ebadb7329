"""Rollouts: replace running processes on purpose, without a gap.

Where a service overlaps, the successor comes to ready in a lane of its own while the old process
serves; only then the old one leaves the balance, drains and stops. Elsewhere the old one stops
first, and connections wait in the socket. The first successor that does not come to ready ends
the rollout, and what was before comes back.
"""

from everup.engine import lanes
from everup.engine.definitions import alike, as_many, is_cold
from everup.engine.narrate import spawned_payload
from everup.engine.records import How, Rollout, Turn
from everup.engine.state import Supervised
from everup.model.instance import Slot, State
from everup.model.journal import Kind
from everup.model.record import Instance
from everup.model.replacing import replace
from everup.model.spec import Service
from everup.supervise.awaited import missing
from everup.supervise.lifecycle import Happening, On

SETTLE_S = 1.0
"""A replaced process drains for at least this long if connections wait for it or are open: it may
have some in its queue that came before the balance changed."""
_AT_REST = (State.BACKOFF, State.PARKED, State.FAILED)
_SERVING = (State.READY, State.RUNNING, State.STARTING)
_UP = (State.READY, State.RUNNING)


def begin(
    engine: Supervised,
    slots: tuple[Slot, ...],
    how: How,
    by: str,
    now: float,
    target: Service | None = None,
    *,
    overlap: bool = True,
) -> None:
    """Replace the processes of these slots of one service; by ``target``, if its definition
    changes. ``overlap`` False: this once the old process ends before its successor starts."""
    name = slots[0].service
    former = engine.services[name]
    target = target or former
    gen = engine.gens[name] = engine.gens.get(name, 0) + 1
    cold = is_cold(former, target)
    engine.record(
        Kind.ROLLOUT, name, gen=gen, how=how.value, slots=[str(slot) for slot in slots],
        batch=len(slots) if cold else target.rollout.batch,
        overlap=target.overlaps and not cold and overlap, by=by,
    )  # fmt: skip
    fresh = Rollout(gen, how, slots, slots, former, target, now, by, cold, overlap=overlap)
    resume(engine, fresh, now)


def resume(engine: Supervised, rollout: Rollout, now: float) -> None:
    """Take the rollout up, from its beginning or from where an earlier engine was."""
    name = rollout.former.name
    if rollout.target != rollout.former:
        for instance in engine.all_of(name):
            if instance.service is None and instance.gen < rollout.gen:
                engine.put(replace(instance, service=rollout.former), now)
        if not rollout.cold:
            _redefine(engine, rollout.target)
    engine.rolling[name] = rollout
    engine.touch(name)


def _redefine(engine: Supervised, service: Service) -> None:
    engine.services[service.name] = as_many(service, engine.services[service.name])
    engine.rewire()


def roll(engine: Supervised, name: str, now: float) -> None:
    """Carry a rollout on as far as it goes now."""
    rollout = engine.rolling.get(name)
    if rollout is None:
        return
    if not _prepare(engine, name, rollout, now):
        return
    rollout = engine.rolling[name]
    left = []
    for turn in rollout.turns:
        verdict = _judge(engine, rollout, turn, now)
        if isinstance(verdict, str):
            fail(engine, name, f"{turn.slot} did not come to ready: {verdict}", now)
            return
        if verdict:
            _retire(engine, turn, now)
        if not verdict or turn.slot in engine.outgoing:
            left.append(turn)
    pause_s = engine.services[name].rollout.pause
    if rollout.turns and not left and rollout.waiting and pause_s:
        rollout = replace(rollout, not_before=now + pause_s)
    rollout = engine.rolling[name] = replace(rollout, turns=tuple(left))
    if rollout.waiting and (failed := _failed_since(engine, rollout)):
        reason = f"{failed.slot} failed after it had been ready: {failed.last_exit}"
        fail(engine, name, reason, now)
        return
    if left or now < rollout.not_before:
        due = [t for t in (rollout.not_before, *(turn.deadline for turn in left)) if t > now]
        if due:
            engine.wake(name, min(due))
        return
    if rollout.waiting:
        _next_batch(engine, name, rollout, now)
    elif missed := _missed(engine, name, rollout):
        _next_batch(engine, name, replace(rollout, waiting=missed), now)
    else:
        _done(engine, name, rollout, now)


def _prepare(engine: Supervised, name: str, rollout: Rollout, now: float) -> bool:
    """Where the old one stops first: once it is down, the slot has the new definition. False
    while a cold rollout waits for the last one to be down."""
    if holds_back(engine, name):
        if any(i.state.alive for i in engine.all_of(name)):
            _include(engine, name, rollout, now)
            return False
        rollout = engine.rolling[name] = _switch(engine, name, rollout, now)
    for turn in rollout.turns:
        instance = engine.instances.get(turn.slot)
        if instance is not None and instance.run == turn.before:
            _take_over(engine, rollout, instance, now)
    return True


def _include(engine: Supervised, name: str, rollout: Rollout, now: float) -> None:
    """Who was on his way out as the cold rollout began, and is to stay after all, stops with the
    others: as long as he lives nobody starts."""
    mine = {turn.slot for turn in rollout.turns}
    late = [
        i.slot
        for i in engine.of(name)
        if i.state in _SERVING and not i.asked and i.slot not in mine
    ]
    if late:
        turns = (*rollout.turns, *(_replace(engine, rollout, slot, now) for slot in late))
        slots = tuple(dict.fromkeys((*rollout.slots, *late)))
        engine.rolling[name] = replace(rollout, slots=slots, turns=turns)


def _switch(engine: Supervised, name: str, rollout: Rollout, now: float) -> Rollout:
    """Nothing of the service runs: its sockets and its definition are others from now on, for
    everybody at once."""
    if name in engine.open_lanes:
        lanes.hand_on(engine, rollout.target)
    _redefine(engine, rollout.target)
    if count := engine.open_lanes.get(name, 0):  # what stays is open; what is new comes to it
        engine.steered.discard(name)
        service = engine.services[name]
        lanes.open_up(engine, service, max(count, service.slots))
    until = now + rollout.target.start_timeout + rollout.target.min_ready
    for instance in engine.of(name):  # whoever starts from now on is of this generation
        if instance.slot not in rollout.slots:
            engine.put(replace(instance, gen=rollout.gen), now)
    mine = [i for i in engine.of(name) if i.slot in rollout.slots and i.want]
    turns = tuple(Turn(i.slot, i.run, until) for i in mine if not i.done)
    return replace(rollout, waiting=(), turns=turns)


def holds_back(engine: Supervised, name: str) -> bool:
    """Whether nothing of the service may start until all of it is down."""
    rollout = engine.rolling.get(name)
    if rollout is None or not rollout.cold or not rollout.turns:
        return False
    return not alike(engine.services[name], rollout.target)


def _judge(engine: Supervised, rollout: Rollout, turn: Turn, now: float) -> bool | str:
    """True: its successor is ready; False: not yet; else what went wrong."""
    instance = engine.instances.get(turn.slot)
    if instance is None or not instance.want:
        return True  # scaled away or stopped by somebody
    if instance.run in (0, turn.before):
        return False if now < turn.deadline else "it could not be started in time"
    if instance.done:
        return True
    if instance.verdict or not instance.state.alive:
        cause = instance.verdict or str(instance.last_exit or instance.reason)
        return f"it ended: {cause}" if not instance.state.alive else cause
    if instance.state is State.READY and not instance.suspected:
        ready_at = instance.since + engine.definition(instance).min_ready
        if now >= ready_at:
            return True
        engine.wake(turn.slot.service, ready_at)
        return False
    if now < turn.deadline:
        return False
    lacks = missing(engine.definition(instance), instance)
    why = f" ({lacks})" if lacks and instance.state is State.STARTING else ""
    return f"it is {instance.state.value} after {now - instance.since:.3g} s{why}"


def _next_batch(engine: Supervised, name: str, rollout: Rollout, now: float) -> None:
    service = rollout.target
    size = len(rollout.waiting) if rollout.cold else service.rollout.batch
    overlaps = service.overlaps and rollout.overlap
    if not overlaps and not rollout.cold:  # one that is ready has to be left
        ready = sum(i.state is State.READY for i in engine.of(name))
        size = min(size, max(1, ready - 1))
    slots = [s for s in rollout.waiting if s in engine.instances and engine.instances[s].want]
    # Nobody's turn comes before what is left of an earlier replacement has gone.
    blocked = [slot for slot in slots[:size] if slot in engine.outgoing]
    if blocked:
        return
    turns = []
    for slot in slots[:size]:
        turns.append(_replace(engine, rollout, slot, now))
    rollout = replace(rollout, waiting=tuple(slots[size:]), turns=tuple(turns))
    engine.rolling[name] = rollout
    engine.touch(name)
    if not turns:
        _done(engine, name, rollout, now)


def _replace(engine: Supervised, rollout: Rollout, slot: Slot, now: float) -> Turn:
    """Start the successor, or stop the old one first."""
    old = engine.instances[slot]
    service, leaving = rollout.target, engine.definition(old)
    patience_s = service.start_timeout + service.min_ready
    overlaps = service.overlaps and leaving.overlaps and not rollout.cold and rollout.overlap
    # One that does not serve yet has nothing to go on with, but what waits at its socket: that is
    # for the successor, which gets the same socket if it comes afterwards.
    if overlaps and old.state in _UP and old.has_process:
        _outgoing(engine, old)
        fresh = Instance(
            slot, spent=old.spent, since=now, want=True, gen=rollout.gen,
            restarts=old.restarts + 1, reason=f"replaces run {old.run}",
        )  # fmt: skip
        engine.instances[slot] = fresh
    else:
        # Where others serve meanwhile, what came before the balance changed is served first.
        others = any(i.slot != slot and i.state is State.READY for i in engine.all_of(slot.service))
        drain_s = SETTLE_S if leaving.listen and others and not rollout.cold else 0.0
        patience_s += leaving.stop_timeout + max(leaving.drain_timeout, drain_s)
        if old.state.alive:
            engine.put(replace(old, attempt=0, crashes=(), parked=False), now)
            reason = f"{rollout.how.value} asked for"
            engine.happen(slot, Happening(On.STOP, reason, drain_s=drain_s), now)
        if not rollout.cold:
            _take_over(engine, rollout, engine.instances[slot], now)
    return Turn(slot, old.run, now + patience_s)


def _outgoing(engine: Supervised, old: Instance) -> None:
    payload = spawned_payload(old) | {
        "state": old.state.value,
        "since": old.since,
        "spawned_mono": old.spawned_at,
    }
    engine.record(Kind.OUTGOING, str(old.slot), **payload)
    engine.outgoing[old.slot] = replace(old, outgoing=True, want=False)


def _take_over(engine: Supervised, rollout: Rollout, instance: Instance, now: float) -> None:
    if instance.state.alive or instance.gen == rollout.gen:
        return
    fresh = replace(
        instance, state=State.STOPPED, since=now, deadline=None, gen=rollout.gen, service=None,
        attempt=0, crashes=(), parked=False, done=False,
    )  # fmt: skip
    engine.put(fresh, now)


def _retire(engine: Supervised, turn: Turn, now: float) -> None:
    """Its successor is ready: it drains and stops."""
    old = engine.outgoing.get(turn.slot)
    if old is not None and not old.asked:
        run = engine.instances[turn.slot].run
        reason = f"replaced by run {run}"
        engine.happen(turn.slot, Happening(On.STOP, reason, drain_s=SETTLE_S), now, old.run)


def _failed_since(engine: Supervised, rollout: Rollout) -> Instance | None:
    """One that was replaced earlier in this rollout and has crashed since."""
    for slot in rollout.slots:
        instance = engine.instances.get(slot)
        if slot in rollout.waiting or instance is None or not instance.want:
            continue
        if instance.gen == rollout.gen and instance.attempt:
            return instance
    return None


def _missed(engine: Supervised, name: str, rollout: Rollout) -> tuple[Slot, ...]:
    """Who was started meanwhile with what it should no longer be."""
    return tuple(
        i.slot
        for i in engine.of(name)
        if i.service is not None and i.state.alive and i.want and i.gen < rollout.gen
    )


def _done(engine: Supervised, name: str, rollout: Rollout, now: float) -> None:
    del engine.rolling[name]
    engine.record(
        Kind.ROLLOUT_DONE, name, gen=rollout.gen, how=rollout.how.value,
        slots=[str(slot) for slot in rollout.slots], took_s=round(now - rollout.began, 3),
    )  # fmt: skip
    for instance in engine.of(name):  # those that nobody wants to run
        if instance.service is not None and not instance.state.alive:
            engine.put(replace(instance, service=None), now)


def fail(engine: Supervised, name: str, reason: str, now: float) -> None:
    """The rollout ends; what was before comes back."""
    rollout = engine.rolling.pop(name)
    back = [t.slot for t in rollout.turns if _swap_back(engine, t, reason, now)]
    replaced = tuple(i.slot for i in engine.of(name) if i.gen >= rollout.gen)
    engine.record(
        Kind.ROLLOUT_STOPPED, name, gen=rollout.gen, how=rollout.how.value, reason=reason,
        replaced=[str(slot) for slot in replaced],
        not_replaced=[str(slot) for slot in (*back, *rollout.waiting)],
    )  # fmt: skip
    if rollout.how is How.ROLLBACK:  # nothing to go back to any more: it is what it is
        for instance in engine.all_of(name):
            engine.put(replace(instance, service=None), now)
    if rollout.how is How.RELOAD:
        revert(engine, name, rollout.former, replaced, now, overlap=rollout.overlap)
        if engine.reloading is not None and not engine.reloading.failed:
            engine.reloading = replace(engine.reloading, failed=f"{name}: {reason}")
    engine.touch(name)


def revert(
    engine: Supervised,
    name: str,
    former: Service,
    slots: tuple[Slot, ...],
    now: float,
    *,
    overlap: bool = True,
) -> None:
    """Give the service its former definition back, and a process of it to these slots."""
    if slots:
        begin(engine, slots, How.ROLLBACK, "everup", now, former, overlap=overlap)
    else:
        _redefine(engine, former)
    for instance in engine.all_of(name):
        if instance.service is not None and alike(instance.service, former):
            engine.put(replace(instance, service=None), now)


def _swap_back(engine: Supervised, turn: Turn, reason: str, now: float) -> bool:
    """Whether the old process is there to go on."""
    slot = turn.slot
    new, old = engine.instances.get(slot), engine.outgoing.get(slot)
    if new is None or old is None or old.asked or old.state not in _SERVING:
        return False
    engine.instances[slot] = replace(old, outgoing=False, want=True, spent=new.spent)
    engine.waiting.pop(slot, None)
    if new.state.alive:
        engine.outgoing[slot] = replace(new, outgoing=True, want=False)
        engine.happen(slot, Happening(On.STOP, reason), now, new.run)
    else:
        del engine.outgoing[slot]
    return True


def cancel(engine: Supervised, name: str, reason: str, now: float) -> None:
    """Somebody stops the service, or its group restarts: nothing is replaced any more."""
    if name in engine.rolling:
        fail(engine, name, reason, now)
