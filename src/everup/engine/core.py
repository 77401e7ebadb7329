"""The engine: events in, actions out. It has no clock, no randomness and no I/O of its own.

``handle`` runs one event through the deciders and returns what is to be done, in order, every
journal record before the action that it announces.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from everup.detect import starvation
from everup.detect.probes import ProbeState
from everup.engine import (
    hearsay,
    narrate,
    objective,
    observe,
    onset,
    operate,
    reload,
    settle,
    starting,
)
from everup.engine.objective import Objective
from everup.engine.rollout import Rollout
from everup.model.action import (
    Action,
    EmptyQueue,
    OpenSockets,
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
    Heard,
    HookDone,
    Lag,
    Left,
    Notified,
    Probed,
    Reload,
    Remembered,
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
from everup.model.spec import Service, Spec
from everup.supervise import lifecycle, order, storm
from everup.supervise.lifecycle import Happening, On
from everup.supervise.restart import is_failure
from everup.supervise.storm import Bucket

_SAME_S = 0.001
"""Two wakes that are no further apart are one: the same time, worked out twice."""
_WATCHED = (State.RUNNING, State.READY)
_MOST_ROUNDS = 10_000
"""Looks at one service within one step. A rollout of a thousand replicas needs some thousand; a
rule that wakes itself would need no end."""


class DefectError(Exception):
    """A step went wrong by everup's own fault. What it has changed so far is half of it, so the
    process ends and the next engine rebuilds its state from the journal."""


class Engine:
    """The whole state of the loop. Not thread-safe: one owner.

    ``random`` gives numbers in [0, 1) for jitter; ``scaled`` the numbers of replicas that
    operators have set.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        random: Callable[[], float],
        scaled: Mapping[str, int] | None = None,
    ) -> None:
        self.spec = spec
        """As the config says."""
        self.services = scale(spec, scaled or {})
        """As they are by now."""
        self.random = random
        self.guard = starvation.Guard()
        self.instances: dict[Slot, Instance] = {}
        self.outgoing: dict[Slot, Instance] = {}
        """Processes that a successor in the same slot replaces; at most one for each slot."""
        self._slots_of: dict[str, list[Slot]] = {name: [] for name in self.services}
        self.probes: dict[tuple[Slot, int, ProbeKind], ProbeState] = {}
        """By slot, incarnation and kind."""
        self.answered: dict[Slot, float] = {}
        """When each instance last answered a probe."""
        self.signs: dict[tuple[Slot, int], dict[str, onset.Sign]] = {}
        """What each process's probes and pings have said, for when a failure began and ended."""
        self.turned: dict[Slot, float] = {}
        """When each slot really became ready, or ceased to be, last."""
        self.said: dict[tuple[Slot, int], hearsay.Said] = {}
        """What each process says of what it depends on."""
        self.active: dict[str, tuple[int, ...]] = {}
        """The lanes in the balance of each service."""
        self.open_lanes: dict[str, int] = {}
        self.can_steer: Callable[[str], bool] = lambda _service: True
        """Whether the kernel takes steering programs for a service; set by the owner. If not, the
        successor of a process shares its lane: connections would go to another one at once."""
        self.quitting = False
        self.finished = False
        self.pending_stop: set[Slot] = set()
        self.regrouping: dict[str, frozenset[Slot]] = {}
        self.rolling: dict[str, Rollout] = {}
        self.gens: dict[str, int] = {}
        """The last generation of each service."""
        self.reloading: reload.Reloading | None = None
        self.storm = Bucket()
        self.spared: dict[tuple[Slot, int], str] = {}
        """Who has been told to be spared, and why."""
        self.replaced_at: dict[Slot, float] = {}
        """When a successor was last tried for a condemned last replica."""
        self.removing: set[Slot] = set()
        self.wanted: dict[str, bool] = {}
        """Whether a service was to run when its number of replicas was changed last."""
        self.leaving: set[str] = set()
        """Services that are in the config no more and go when their last process has ended."""
        self.last_runs: dict[Slot, int] = {}
        """Incarnations of slots that were scaled away: their numbers go on if they come back."""
        self.waiting: dict[Slot, str] = {}
        """Why instances that should run are held back."""
        self.objectives: dict[str, Objective] = {}
        """Of the services that have one."""
        self.steered: set[str] = set()
        """Services whose sockets this engine has set up."""
        self._dirty: dict[str, None] = {}  # a set that keeps its order: the order is the same in
        self._out: list[Action] = []  # every run, and so is what a seed replays
        self._timers: list[tuple[float, Slot, int]] = []
        self._timer_of: dict[tuple[Slot, int], float] = {}
        self._wakes: list[tuple[float, str]] = []
        self._wake_of: dict[str, float] = {}
        self.rewire()
        for service in self.services.values():
            self.add_slots(service)

    # -- for the owner

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event; the actions are to be carried out in their order.

        Raises ``CannotChangeError`` for a reload that is refused: nothing has changed. Any other
        exception is a defect, and this engine must not be used any more.
        """
        self._out = []
        settle.calm(self, now)
        self._dispatch(event, now)
        self._settle(now)
        for _round in range(_MOST_ROUNDS):
            if (before := self.reloading) is None:
                break
            reload.advance(self, now)
            self._settle(now)
            if self.reloading is before:
                break
        else:
            raise DefectError(f"a reload goes on by itself without an end: {self.reloading}")
        settle.maybe_quit(self)
        return _balance_first(self._out)

    def next_deadline(self) -> float | None:
        """When ``Tick`` is due at the latest."""
        due = [heap[0][0] for heap in (self._timers, self._wakes) if heap]
        if (calm := storm.passes_at(self.storm, self.spec.everup.storm_brake)) is not None:
            due.append(calm)
        return min(due, default=None)

    def of(self, service: str) -> list[Instance]:
        """The instances of a service, by number."""
        return [self.instances[slot] for slot in self._slots_of[service]]

    def all_of(self, service: str) -> list[Instance]:
        """The same, and the processes that are being replaced."""
        slots = self._slots_of[service]
        return [
            *(self.instances[slot] for slot in slots),
            *(self.outgoing[slot] for slot in slots if slot in self.outgoing),
        ]

    def process(self, slot: Slot, run: int | None) -> Instance | None:
        """The instance of that incarnation; None: of the present one."""
        instance = self.instances.get(slot)
        if instance is None or run is None or instance.run == run:
            return instance
        old = self.outgoing.get(slot)
        return old if old is not None and old.run == run else None

    def definition(self, instance: Instance) -> Service:
        """What its process was started with."""
        return instance.service or self.services[instance.slot.service]

    # -- for the rooms of the engine

    def rewire(self) -> None:
        """The services or groups have changed."""
        self.group_of = {name: g for g in self.spec.group.values() for name in g.services}
        self.dependents = order.dependents(self.services)

    def add_slots(self, service: Service) -> None:
        slots = self._slots_of.setdefault(service.name, [])
        for number in range(1, service.slots + 1):
            slot = Slot(service.name, number)
            if slot not in self.instances:
                run, gen = self.last_runs.get(slot, 0), self.gens.get(service.name, 0)
                self.instances[slot] = Instance(slot, run=run, spent=run, gen=gen)
                slots.append(slot)
                slots.sort()

    def drop_slot(self, slot: Slot) -> None:
        """The slot is no more; its number goes on if it comes back."""
        self.removing.discard(slot)
        self.pending_stop.discard(slot)  # or what it depends on would wait for it for ever
        self.last_runs[slot] = self.instances.pop(slot).spent
        self._slots_of[slot.service].remove(slot)
        self.waiting.pop(slot, None)
        self.answered.pop(slot, None)
        self.turned.pop(slot, None)
        self.replaced_at.pop(slot, None)

    def forget_service(self, name: str) -> None:
        """The service is no more."""
        del self.services[name], self._slots_of[name]
        for table in (self.rolling, self.active, self.wanted, self.objectives):
            table.pop(name, None)
        self.leaving.discard(name)
        self.rewire()

    def record(self, kind: Kind, subject: str, durable: bool = False, **payload: object) -> None:
        self._out.append(Record(kind, subject, payload, durable))

    def emit(self, action: Action) -> None:
        self._out.append(action)

    def touch(self, service: str) -> None:
        """Look at the service again before this event is done."""
        self._dirty[service] = None

    def touch_all(self, names: Iterable[str]) -> None:
        for name in names:
            self.touch(name)

    def wake(self, service: str, when: float) -> None:
        """Look at the service again at that time, or before: who still has to wait asks again."""
        known = self._wake_of.get(service)
        if known is None or when < known - _SAME_S:
            self._wake_of[service] = when
            heapq.heappush(self._wakes, (when, service))

    def put(self, new: Instance, now: float, evidence: Mapping[str, Any] | None = None) -> None:
        """Replace an instance without an event of the table. ``evidence``: see ``onset``."""
        outgoing = self.outgoing.get(new.slot)
        is_old = outgoing is not None and outgoing.run == new.run
        old = outgoing if is_old and outgoing is not None else self.instances[new.slot]
        self._out.extend(narrate.records(old, new, now, evidence or {}))
        self._store(old, new)

    def happen(self, slot: Slot, event: Happening, now: float, run: int | None = None) -> None:
        """Run one event through the table and carry the change through."""
        old = self.process(slot, run)
        if old is None:
            return
        service = self.definition(old)
        new, effects = lifecycle.step(service, old, event, self.random(), now)
        if new is old and not effects:
            return
        self._out.extend(narrate.records(old, new, now, event.evidence))
        if (old.state is State.READY) is not (new.state is State.READY):
            self.turned[slot] = onset.moment(event.evidence, now)
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
        count = max(service.slots, new.lane)
        if service.listen and self.open_lanes.get(service.name, 0) < count:
            self.open_lanes[service.name] = count
            self._out.append(OpenSockets(service.name, count))
        self._store(old, new)
        self._after(service, old, new, now)

    def drop_probes(self, instance: Instance) -> None:
        for kind in ProbeKind:
            self.probes.pop((instance.slot, instance.run, kind), None)
        self.spared.pop((instance.slot, instance.run), None)

    def watch(self, new: Instance) -> None:
        """Run the probes that belong to its state, from the beginning."""
        probe = self.definition(new).probe
        self.drop_probes(new)
        if new.state is State.STARTING and new.pid and starting.is_due(self.definition(new), new):
            self._out.append(Watch(new.slot, new.run, startup=True))
        elif new.state in _WATCHED and (probe.readiness or probe.liveness):
            self._out.append(Watch(new.slot, new.run, startup=False))

    # -- one event

    def _dispatch(self, event: Event, now: float) -> None:
        match event:
            case Probed(result=result):
                observe.probed(self, result, now)
            case Tick():
                self._fire(now)
            case Exited(slot=slot, run=run, cause=cause, asked_at=asked_at):
                evidence = onset.ended(self, slot, run, asked_at, now)
                self.happen(slot, Happening(On.EXITED, cause=cause, evidence=evidence), now, run)
            case Left():
                observe.left(self, event, now)
            case Spawned(slot=slot, run=run, pid=pid, facts=facts):
                self.happen(slot, Happening(On.SPAWNED, pid=pid, facts=facts), now, run)
            case SpawnFailed(slot=slot, run=run, detail=detail):
                self.happen(slot, Happening(On.SPAWN_FAILED, reason=detail), now, run)
            case HookDone():
                self._hook_done(event, now)
            case Drained(slot=slot, run=run):
                self.happen(slot, Happening(On.DRAINED, reason="drained"), now, run)
            case Notified():
                observe.notified(self, event, now)
            case Heard():
                hearsay.heard(self, event, now)
            case Remembered():
                objective.remember(self, event)
            case Lag():
                self.guard = starvation.step(self.guard, event, self.spec.everup, now)
            case Up() | Down() | Start() | Stop() | Restart() | Scale() | Reload() | SendSignal():
                operate.operate(self, event, now)

    def _hook_done(self, event: HookDone, now: float) -> None:
        hook, ok, detail = event.hook.value, event.ok, event.detail
        self.record(Kind.HOOK_ENDED, str(event.slot), hook=hook, ok=ok, detail=detail)
        done = Happening(On.HOOK_DONE, hook=event.hook, ok=event.ok, reason=event.detail)
        self.happen(event.slot, done, now, event.run)

    def _settle(self, now: float) -> None:
        rounds: dict[str, int] = {}
        while self._dirty:
            name = next(iter(self._dirty))
            del self._dirty[name]
            rounds[name] = rounds.get(name, 0) + 1
            if rounds[name] > _MOST_ROUNDS:
                raise DefectError(f"{name} does not come to rest within one step")
            if name in self.services:
                settle.settle(self, name, now)

    def _fire(self, now: float) -> None:
        while self._wakes and self._wakes[0][0] <= now:
            due, service = heapq.heappop(self._wakes)
            if self._wake_of.get(service) == due:
                del self._wake_of[service]
            self.touch(service)
        while self._timers and self._timers[0][0] <= now:
            due, slot, run = heapq.heappop(self._timers)
            if self._timer_of.get((slot, run)) == due:
                del self._timer_of[slot, run]
            instance = self.process(slot, run)
            if instance is None:
                continue
            if instance.watchdog_at is not None and instance.watchdog_at <= now:
                observe.watchdog_missed(self, instance, now)
            elif instance.reloads_until is not None and instance.reloads_until <= now:
                observe.reload_overdue(self, instance, now)
            elif instance.deadline is not None and instance.deadline <= now:
                self.happen(slot, Happening(On.DEADLINE), now, run)
            if (left := self.process(slot, run)) is not None:
                self._arm(left)

    # -- bookkeeping

    def _store(self, old: Instance, new: Instance) -> None:
        slot = new.slot
        if self.outgoing.get(slot) is old:
            if new.state.alive:
                self.outgoing[slot] = new
            else:
                del self.outgoing[slot]
        else:
            self.instances[slot] = new
        self._arm(new)
        if (new.state, new.want, new.suspected, new.done) != (
            old.state,
            old.want,
            old.suspected,
            old.done,
        ):
            self.waiting.pop(slot, None)
            name = slot.service
            self.touch(name)
            self.touch_all(self.dependents[name])
            if not new.state.alive:
                self.touch_all(self.services[name].depends_on)

    def _arm(self, instance: Instance) -> None:
        """One timer for each process: an earlier one than wanted is put right when it fires."""
        due, key = instance.next_deadline(), (instance.slot, instance.run)
        armed = self._timer_of.get(key)
        if due is not None and (armed is None or due < armed):
            self._timer_of[key] = due
            heapq.heappush(self._timers, (due, *key))

    def _after(self, service: Service, old: Instance, new: Instance, now: float) -> None:
        """What follows from a change beside the effects of the table."""
        slot = new.slot
        if new.pid and not old.pid and new.state is State.STARTING:
            self.watch(new)
        if new.state in _WATCHED and old.state not in _WATCHED:
            self.watch(new)
        was_watched = old.state in (*_WATCHED, State.STARTING)
        if was_watched and new.state not in (*_WATCHED, State.STARTING):
            self.drop_probes(old)
            self.signs.pop((slot, old.run), None)
            self._out.append(Unwatch(slot, old.run))
        if new.state is State.DRAINING and old.state is not State.DRAINING:
            self._out.append(WatchDrain(slot, new.run))
        ended = old.state.alive and not new.state.alive
        if ended and not new.want and service.listen and not self._shares_lane(old):
            self._out.append(EmptyQueue(slot.service, old.lane))
        if old.pid and not new.pid:
            hearsay.ended(self, old)
        crashed = old.pid and not new.pid and not old.asked and old.up_at is not None
        if slot in self.outgoing or slot.service in self.rolling:
            return  # a rollout decides by itself what a crash in it means
        if crashed and new.want and new.last_exit and is_failure(new.last_exit, service.restart):
            settle.regroup(self, slot, now)

    def _shares_lane(self, instance: Instance) -> bool:
        """Whether somebody else of its service has its lane as well."""
        return any(
            other.lane == instance.lane
            for other in self.all_of(instance.slot.service)
            if (other.slot, other.run) != (instance.slot, instance.run) and other.state.alive
        )


def scale(spec: Spec, replicas: Mapping[str, int]) -> dict[str, Service]:
    """The services with the numbers of replicas that operators have set."""
    return {
        name: replace(service, replicas=replicas.get(name, service.replicas))
        for name, service in spec.service.items()
    }


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
