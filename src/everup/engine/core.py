"""The engine: events in, actions out. It has no clock, no randomness and no I/O of its own.

``handle`` runs one event through the deciders and returns what is to be done, in order, every
journal record before the action that it announces.
"""

import heapq
from collections.abc import Callable, Iterable

from everup.detect import starvation
from everup.detect.probes import ProbeState
from everup.engine import balance, narrate, observe, operate
from everup.model.action import (
    Action,
    CloseSockets,
    EmptyQueue,
    Forget,
    OpenSockets,
    Quit,
    Record,
    RunHook,
    SetBalance,
    Signal,
    Unwatch,
    Watch,
    WatchDrain,
)
from everup.model.event import (
    Down,
    Drained,
    Event,
    Exited,
    HookDone,
    Lag,
    Notified,
    Probed,
    Restart,
    Scale,
    SendSignal,
    Spawned,
    SpawnFailed,
    Start,
    Stop,
    Tick,
    Up,
)
from everup.model.instance import Slot, State
from everup.model.journal import Kind
from everup.model.record import Instance
from everup.model.signal import ProbeKind
from everup.model.spec import Service, Spec, Strategy
from everup.supervise import lifecycle, order
from everup.supervise.lifecycle import Happening, On
from everup.supervise.restart import is_failure

_WATCHED = (State.RUNNING, State.READY)


class Engine:
    """The whole state of the loop. Not thread-safe: one owner.

    ``random`` gives numbers in [0, 1) for jitter.
    """

    def __init__(self, spec: Spec, *, random: Callable[[], float]) -> None:
        self.spec = spec
        self.services: dict[str, Service] = dict(spec.service)
        self.random = random
        self.guard = starvation.Guard()
        self.instances: dict[Slot, Instance] = {}
        self._slots_of: dict[str, list[Slot]] = {name: [] for name in self.services}
        self.probes: dict[tuple[Slot, ProbeKind], ProbeState] = {}
        self.answered: dict[Slot, float] = {}
        """When each instance last answered a probe."""
        self.active: dict[str, tuple[int, ...]] = {}
        self.open_slots: dict[str, int] = {}
        self.quitting = False
        self.finished = False
        self.pending_stop: set[Slot] = set()
        self.regrouping: dict[str, frozenset[Slot]] = {}
        self.rolling: dict[str, operate.Rollout] = {}
        self.removing: set[Slot] = set()
        self.last_runs: dict[Slot, int] = {}
        """Incarnations of slots that were scaled away: their numbers go on if they come back."""
        self.waiting: dict[Slot, str] = {}
        """Why instances that should run are held back."""
        self._group_of = {name: g for g in spec.group.values() for name in g.services}
        self._dependents = order.dependents(self.services)
        self._steered: set[str] = set()  # services whose sockets this engine has set up
        self._dirty: dict[str, None] = {}  # a set that keeps its order: the order is the same in
        self._out: list[Action] = []  # every run, and so is what a seed replays
        self._timers: list[tuple[float, Slot]] = []
        self._timer_of: dict[Slot, float] = {}
        for service in self.services.values():
            self.add_slots(service)

    # -- for the owner

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event; the actions are to be carried out in their order."""
        self._out = []
        self._dispatch(event, now)
        while self._dirty:
            name = next(iter(self._dirty))
            del self._dirty[name]
            if name in self.services:
                self._settle(name, now)
        self._maybe_quit()
        return _balance_first(self._out)

    def next_deadline(self) -> float | None:
        """When ``Tick`` is due at the latest."""
        return self._timers[0][0] if self._timers else None

    def of(self, service: str) -> list[Instance]:
        """The instances of a service, by number."""
        return [self.instances[slot] for slot in self._slots_of[service]]

    # -- for the rooms of the engine

    def add_slots(self, service: Service) -> None:
        for number in range(1, service.slots + 1):
            slot = Slot(service.name, number)
            if slot not in self.instances:
                self.instances[slot] = Instance(slot, run=self.last_runs.get(slot, 0))
                self._slots_of[service.name].append(slot)
                self._slots_of[service.name].sort()

    def record(self, kind: Kind, subject: str, durable: bool = False, **payload: object) -> None:
        self._out.append(Record(kind, subject, payload, durable))

    def emit(self, action: Action) -> None:
        self._out.append(action)

    def touch(self, service: str) -> None:
        """Look at the service again before this event is done."""
        self._dirty[service] = None

    def put(self, new: Instance, now: float) -> None:
        """Replace an instance without an event of the table."""
        old = self.instances[new.slot]
        self._out.extend(narrate.records(old, new, now))
        self._store(old, new)

    def happen(self, slot: Slot, event: Happening, now: float) -> None:
        """Run one event through the table and carry the change through."""
        old = self.instances[slot]
        service = self.services[slot.service]
        new, effects = lifecycle.step(service, old, event, self.random(), now)
        if new is old and not effects:
            return
        self._out.extend(narrate.records(old, new, now))
        self._store(old, new)
        for effect in effects:
            if isinstance(effect, RunHook):
                self.record(Kind.HOOK, str(slot), hook=effect.hook.value, run=effect.run)
            elif isinstance(effect, Signal) and effect.signal != "SIGKILL":
                self.record(Kind.SIGNALLED, str(slot), signal=effect.signal, run=effect.run)
            elif isinstance(effect, Signal) and not new.verdict and old.phase != "kill":
                self.record(Kind.KILLING, str(slot), run=effect.run, reason=new.reason)
            self._out.append(effect)
        self._after(service, old, new, now)

    def carry(self, service: Service, old: Instance, new: Instance, now: float) -> None:
        """Put a record that was made by hand in place, with all that follows from the change."""
        if service.listen and service.name not in self.open_slots:
            self.open_slots[service.name] = service.slots
            self._out.append(OpenSockets(service.name, service.slots))
        self._store(old, new)
        self._after(service, old, new, now)

    # -- one event

    def _dispatch(self, event: Event, now: float) -> None:
        match event:
            case Probed(result=result):
                observe.probed(self, result, now)
            case Tick():
                self._fire(now)
            case Exited(slot=slot, run=run, cause=cause):
                self._to(slot, run, Happening(On.EXITED, cause=cause), now)
            case Spawned(slot=slot, run=run, pid=pid):
                self._to(slot, run, Happening(On.SPAWNED, pid=pid), now)
            case SpawnFailed(slot=slot, run=run, detail=detail):
                self._to(slot, run, Happening(On.SPAWN_FAILED, reason=detail), now)
            case HookDone():
                self._hook_done(event, now)
            case Drained(slot=slot, run=run):
                self._to(slot, run, Happening(On.DRAINED, reason="drained"), now)
            case Notified(slot=slot, fields=fields):
                observe.notified(self, slot, dict(fields), now)
            case Lag():
                self.guard = starvation.step(self.guard, event, self.spec.everup, now)
            case Up() | Down() | Start() | Stop() | Restart() | Scale() | SendSignal():
                operate.operate(self, event, now)

    def _to(self, slot: Slot, run: int, event: Happening, now: float) -> None:
        """Only to the incarnation that it is about."""
        instance = self.instances.get(slot)
        if instance is not None and instance.run == run:
            self.happen(slot, event, now)

    def _hook_done(self, event: HookDone, now: float) -> None:
        hook, ok, detail = event.hook.value, event.ok, event.detail
        self.record(Kind.HOOK_ENDED, str(event.slot), hook=hook, ok=ok, detail=detail)
        done = Happening(On.HOOK_DONE, hook=event.hook, ok=event.ok, reason=event.detail)
        self._to(event.slot, event.run, done, now)

    def _fire(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            due, slot = heapq.heappop(self._timers)
            if self._timer_of.get(slot) == due:
                del self._timer_of[slot]
            instance = self.instances.get(slot)
            if instance is None:
                continue
            if instance.watchdog_at is not None and instance.watchdog_at <= now:
                observe.watchdog_missed(self, instance, now)
            elif instance.deadline is not None and instance.deadline <= now:
                self.happen(slot, Happening(On.DEADLINE), now)
            self._arm(self.instances[slot])

    # -- bookkeeping

    def _store(self, old: Instance, new: Instance) -> None:
        self.instances[new.slot] = new
        self._arm(new)
        if (new.state, new.want, new.suspected, new.done) != (
            old.state,
            old.want,
            old.suspected,
            old.done,
        ):
            self.waiting.pop(new.slot, None)
            name = new.slot.service
            self.touch(name)
            for other in self._dependents[name]:
                self.touch(other)
            if not new.state.alive:
                for other in self.services[name].depends_on:
                    self.touch(other)

    def _arm(self, instance: Instance) -> None:
        """One timer for each slot: an earlier one than wanted is put right when it fires."""
        due = instance.next_deadline()
        armed = self._timer_of.get(instance.slot)
        if due is not None and (armed is None or due < armed):
            self._timer_of[instance.slot] = due
            heapq.heappush(self._timers, (due, instance.slot))

    def _after(self, service: Service, old: Instance, new: Instance, now: float) -> None:
        """What follows from a change beside the effects of the table."""
        slot, has_probes = new.slot, service.probe
        if new.pid and not old.pid and new.state is State.STARTING and has_probes.startup:
            self._drop_probes(slot)
            self._out.append(Watch(slot, new.run, startup=True))
        if new.state in _WATCHED and old.state not in _WATCHED:
            self._drop_probes(slot)
            if has_probes.readiness or has_probes.liveness:
                self._out.append(Watch(slot, new.run, startup=False))
        was_watched = old.state in (*_WATCHED, State.STARTING)
        if was_watched and new.state not in (*_WATCHED, State.STARTING):
            self._drop_probes(slot)
            self._out.append(Unwatch(slot))
        if new.state is State.DRAINING and old.state is not State.DRAINING:
            self._out.append(WatchDrain(slot, new.run))
        if old.state.alive and not new.state.alive and not new.want and service.listen:
            self._out.append(EmptyQueue(slot))
        ended = old.pid and not new.pid and not old.asked and old.up_at is not None
        if ended and new.want and new.last_exit and is_failure(new.last_exit, service.restart):
            self._regroup(slot, now)

    def _drop_probes(self, slot: Slot) -> None:
        for kind in ProbeKind:
            self.probes.pop((slot, kind), None)

    def _regroup(self, crashed: Slot, now: float) -> None:
        group = self._group_of.get(crashed.service)
        if group is None or group.strategy is Strategy.ONE_FOR_ONE:
            return
        names = group.services
        if group.strategy is Strategy.REST_FOR_ONE:
            names = names[names.index(crashed.service) :]
        members = frozenset(i.slot for name in names for i in self.of(name) if i.want)
        self.regrouping[group.name] = members
        self.record(Kind.GROUP, group.name, crashed=str(crashed), members=sorted(map(str, members)))
        reason = f"{crashed} crashed ({group.strategy.value})"
        for slot in sorted(members, reverse=True):
            if slot != crashed and self.instances[slot].state.alive:
                self.happen(slot, Happening(On.STOP, reason), now)
        for name in names:
            self.touch(name)

    # -- settling: what may happen now that something has changed

    def _settle(self, name: str, now: float) -> None:
        service = self.services[name]
        self._stop_pending(name, now)
        operate.roll(self, name, now)
        self._release_groups(name)
        for instance in self.of(name):
            if instance.slot in self.removing and not instance.state.alive:
                self._remove(instance.slot)
            elif instance.want and instance.state is State.STOPPED and not instance.done:
                self._start_if_allowed(service, instance, now)
        self._settle_sockets(service)

    def _stop_pending(self, name: str, now: float) -> None:
        """Stop what is to be stopped, once nothing that depends on it is left to stop."""
        mine = [slot for slot in self.pending_stop if slot.service == name]
        if not mine or self._users_stopping(name):
            return
        for slot in sorted(mine, reverse=True):
            self.pending_stop.discard(slot)
            if slot in self.instances:
                self.happen(slot, Happening(On.STOP, self.instances[slot].reason), now)
        self.touch_all(self.services[name].depends_on)  # their turn may have come

    def _users_stopping(self, name: str) -> bool:
        for user in self._dependents[name]:
            if any(slot.service == user for slot in self.pending_stop):
                return True
            if any(i.state.alive and i.asked and not i.want for i in self.of(user)):
                return True
        return False

    def _release_groups(self, name: str) -> None:
        group = self._group_of.get(name)
        if group is not None and group.name in self.regrouping:
            members = self.regrouping[group.name]
            if not any(self._alive(slot) for slot in members):
                del self.regrouping[group.name]
                for other in group.services:
                    self.touch(other)

    def _alive(self, slot: Slot) -> bool:
        instance = self.instances.get(slot)
        return instance is not None and instance.state.alive

    def _start_if_allowed(self, service: Service, instance: Instance, now: float) -> None:
        reason = self._obstacle(service, instance)
        if reason:
            if self.waiting.get(instance.slot) != reason:
                self.waiting[instance.slot] = reason
                self.record(Kind.WAITING, str(instance.slot), reason=reason)
            return
        if service.listen and self.open_slots.get(service.name, 0) < service.slots:
            self.open_slots[service.name] = service.slots
            self.record(
                Kind.SOCKETS_OPENED, service.name, addresses=[x.address for x in service.listen]
            )
            self._out.append(OpenSockets(service.name, service.slots))
            self._settle_balance(service)
        self.happen(instance.slot, Happening(On.START, instance.reason), now)

    def _obstacle(self, service: Service, instance: Instance) -> str:
        if self.quitting or instance.slot in self.pending_stop:
            return "everup is stopping" if self.quitting else "it is being stopped"
        for members in self.regrouping.values():
            if instance.slot in members:
                return "the rest of its group stops first"
        missing = [
            dependency
            for dependency in service.depends_on
            if not order.satisfied(self.services[dependency], self.of(dependency))
        ]
        return f"waits for {', '.join(missing)}" if missing else ""

    def _settle_sockets(self, service: Service) -> None:
        if not service.listen or service.name not in self.open_slots:
            return
        instances = self.of(service.name)
        if order.is_down(instances) and not any(i.want and not i.done for i in instances):
            del self.open_slots[service.name]
            self.active.pop(service.name, None)
            self._steered.discard(service.name)
            self.record(Kind.SOCKETS_CLOSED, service.name)
            self._out.append(CloseSockets(service.name))
            return
        self._settle_balance(service)

    def _settle_balance(self, service: Service) -> None:
        instances = {i.slot.replica: i for i in self.of(service.name)}
        before = self.active.get(service.name, ())
        after = balance.choose(before, service.replicas, instances)
        steered = service.name in self._steered
        self._steered.add(service.name)
        if after != before or not steered:
            self.active[service.name] = after
            self.record(Kind.BALANCE, service.name, replicas=list(after), before=list(before))
            self._out.append(SetBalance(service.name, after))

    def _remove(self, slot: Slot) -> None:
        self.removing.discard(slot)
        self.last_runs[slot] = self.instances.pop(slot).run
        self._slots_of[slot.service].remove(slot)
        self.waiting.pop(slot, None)
        self.answered.pop(slot, None)
        self._timer_of.pop(slot, None)
        self._out.append(Forget(slot))

    def _maybe_quit(self) -> None:
        if self.quitting and not self.finished and order.is_down(self.instances.values()):
            self.finished = True
            for name in list(self.open_slots):
                self.record(Kind.SOCKETS_CLOSED, name)
                self._out.append(CloseSockets(name))
            self.open_slots.clear()
            self.record(Kind.ENGINE_STOPPED, "everup")
            self._out.append(Quit(0))

    def touch_all(self, names: Iterable[str]) -> None:
        for name in names:
            self.touch(name)


def _balance_first(actions: list[Action]) -> list[Action]:
    """Nobody is told to stop while new connections are still sent there."""
    first = next((n for n, action in enumerate(actions) if isinstance(action, Signal)), None)
    if first is None:
        return actions
    late = [action for action in actions[first:] if _is_balance(action)]
    rest = [action for action in actions[first:] if not _is_balance(action)]
    return [*actions[:first], *late, *rest]


def _is_balance(action: Action) -> bool:
    return isinstance(action, SetBalance) or (
        isinstance(action, Record) and action.kind is Kind.BALANCE
    )
