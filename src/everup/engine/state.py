"""The state of the supervisor, and how a change of an instance is carried through."""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from everup.detect import starvation
from everup.detect.probes import ProbeState
from everup.engine import narrate
from everup.engine.records import Lease, Reloading, Rollout
from everup.engine.signs import Sign, moment
from everup.kernel.ctx import Outbox
from everup.model.action import (
    Action,
    EmptyQueue,
    OpenSockets,
    Record,
    RunHook,
    Signal,
    Spawn,
    Unwatch,
    Watch,
    WatchDrain,
)
from everup.model.event import Notified
from everup.model.fact import ProcessEnded
from everup.model.instance import Slot, State
from everup.model.journal import Kind
from everup.model.record import Instance
from everup.model.signal import ProbeKind
from everup.model.spec import Service, Spec
from everup.supervise import lifecycle, order
from everup.supervise.awaited import asks_startup
from everup.supervise.lifecycle import Happening
from everup.supervise.storm import Bucket

_WATCHED = (State.RUNNING, State.READY)


class Supervised:
    """What runs, and what is to run: the supervisor writes it, every other room reads it.

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
        self.signs: dict[tuple[Slot, int], dict[str, Sign]] = {}
        """What each process's probes and pings have said, for when a failure began and ended."""
        self.early: dict[Slot, list[Notified]] = {}
        """What processes have said before it was known here that they were started."""
        self.turned: dict[Slot, float] = {}
        """When each slot really became ready, or ceased to be, last."""
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
        self.reloading: Reloading | None = None
        self.storm = Bucket()
        self.leases: dict[str, Lease] = {}
        """Until when each singleton is this machine's; see ``leasing``."""
        self.quits_by: float | None = None
        """So long everup waits, all down, for the cluster to hear of it."""
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
        self.steered: set[str] = set()
        """Services whose sockets this engine has set up."""
        self.box = Outbox()
        self._timers: list[tuple[float, Slot, int]] = []
        self._timer_of: dict[tuple[Slot, int], float] = {}
        self.rewire()
        for service in self.services.values():
            self.add_slots(service)

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

    def is_replacing(self, service: str) -> bool:
        """Tell whether processes of the service are being replaced on purpose."""
        return service in self.rolling

    def is_leaving(self, service: str) -> bool:
        """Tell whether the service is in the config no more."""
        return service in self.leaving

    def definition(self, instance: Instance) -> Service:
        """What its process was started with."""
        return instance.service or self.services[instance.slot.service]

    # -- for the supervisor

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
        self.early.pop(slot, None)
        self.turned.pop(slot, None)
        self.replaced_at.pop(slot, None)

    def forget_service(self, name: str) -> None:
        """The service is no more."""
        del self.services[name], self._slots_of[name]
        for table in (self.rolling, self.active, self.wanted, self.leases):
            table.pop(name, None)
        self.leaving.discard(name)
        self.rewire()

    def record(self, kind: Kind, subject: str, durable: bool = False, **payload: object) -> None:
        self.emit(Record(kind, subject, payload, durable))

    def emit(self, action: Action) -> None:
        self.box.actions.append(action)

    def touch(self, service: str) -> None:
        """Look at the service again before this event is done."""
        self.box.touch((service,))

    def touch_all(self, names: Iterable[str]) -> None:
        self.box.touch(names)

    def wake(self, service: str, when: float) -> None:
        """Look at the service again at that time, or before: who still has to wait asks again."""
        self.box.wake(service, when)

    def put(self, new: Instance, now: float, evidence: Mapping[str, Any] | None = None) -> None:
        """Replace an instance without an event of the table. ``evidence``: see ``onset``."""
        outgoing = self.outgoing.get(new.slot)
        is_old = outgoing is not None and outgoing.run == new.run
        old = outgoing if is_old and outgoing is not None else self.instances[new.slot]
        self.box.actions.extend(narrate.records(old, new, now, evidence or {}))
        self.store(old, new)

    def happen(self, slot: Slot, event: Happening, now: float, run: int | None = None) -> None:
        """Run one event through the table and carry the change through."""
        old = self.process(slot, run)
        if old is None:
            return
        service = self.definition(old)
        new, effects = lifecycle.step(service, old, event, self.random(), now)
        if new is old and not effects:
            return
        self.box.actions.extend(narrate.records(old, new, now, event.evidence))
        if (old.state is State.READY) is not (new.state is State.READY):
            self.turned[slot] = moment(event.evidence, now)
        self.store(old, new)
        for effect in effects:
            if isinstance(effect, RunHook):
                self.record(Kind.HOOK, str(slot), hook=effect.hook.value, run=effect.run)
            elif isinstance(effect, Signal) and effect.signal != "SIGKILL":
                self.record(Kind.SIGNALLED, str(slot), signal=effect.signal, run=effect.run)
            elif isinstance(effect, Signal) and not new.verdict and old.phase != "kill":
                self.record(Kind.KILLING, str(slot), run=effect.run, reason=new.reason)
            elif isinstance(effect, Spawn) and (lease := self.leases.get(slot.service)):
                effect = replace(effect, fence=lease.token, until=lease.boot_until)
            self.emit(effect)
        self._follow(service, old, new, now)

    def carry(self, service: Service, old: Instance, new: Instance, now: float) -> None:
        """Put a record that was made by hand in place, with all that follows from the change."""
        count = max(service.slots, new.lane)
        if service.listen and self.open_lanes.get(service.name, 0) < count:
            self.open_lanes[service.name] = count
            self.emit(OpenSockets(service.name, count))
        self.store(old, new)
        self._follow(service, old, new, now)

    def drop_probes(self, instance: Instance) -> None:
        for kind in ProbeKind:
            self.probes.pop((instance.slot, instance.run, kind), None)
        self.spared.pop((instance.slot, instance.run), None)

    def watch(self, new: Instance) -> None:
        """Run the probes that belong to its state, from the beginning."""
        probe = self.definition(new).probe
        self.drop_probes(new)
        if new.state is State.STARTING and new.pid and asks_startup(self.definition(new), new):
            self.emit(Watch(new.slot, new.run, startup=True))
        elif new.state in _WATCHED and (probe.readiness or probe.liveness):
            self.emit(Watch(new.slot, new.run, startup=False))

    # -- timers of processes

    @property
    def next_timer(self) -> float | None:
        """When the first process is due, in monotonic seconds."""
        return self._timers[0][0] if self._timers else None

    def due(self, now: float) -> Iterator[Instance]:
        """Give every process whose time has come, and set the next timer of each."""
        while self._timers and self._timers[0][0] <= now:
            at, slot, run = heapq.heappop(self._timers)
            if self._timer_of.get((slot, run)) == at:
                del self._timer_of[slot, run]
            if (instance := self.process(slot, run)) is not None:
                yield instance
                if (left := self.process(slot, run)) is not None:
                    self.arm(left)

    # -- bookkeeping

    def store(self, old: Instance, new: Instance) -> None:
        slot = new.slot
        if self.outgoing.get(slot) is old:
            if new.state.alive:
                self.outgoing[slot] = new
            else:
                del self.outgoing[slot]
        else:
            self.instances[slot] = new
        self.arm(new)
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

    def arm(self, instance: Instance) -> None:
        """One timer for each process: an earlier one than wanted is put right when it fires."""
        due, key = instance.next_deadline(), (instance.slot, instance.run)
        armed = self._timer_of.get(key)
        if due is not None and (armed is None or due < armed):
            self._timer_of[key] = due
            heapq.heappush(self._timers, (due, *key))

    def _follow(self, service: Service, old: Instance, new: Instance, now: float) -> None:
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
            self.emit(Unwatch(slot, old.run))
        if new.state is State.DRAINING and old.state is not State.DRAINING:
            self.emit(WatchDrain(slot, new.run))
        ended = old.state.alive and not new.state.alive
        if ended and not new.want and service.listen and not self._shares_lane(old):
            self.emit(EmptyQueue(slot.service, old.lane))
        if old.pid and not new.pid:
            self.box.facts.append(ProcessEnded(old, new, service))

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
