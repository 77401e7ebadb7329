"""The safety properties of the design, checked at every step of a simulation."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from everup.model.action import Action, CloseSockets, Record, SetBalance, Signal, Spawn
from everup.model.event import Down, Event, Restart, Scale, Start, Stop
from everup.model.instance import Slot, State
from everup.model.journal import Kind

if TYPE_CHECKING:
    from everup.testing.sim import Process, SimWorld

_KILL_INTENTS = (Kind.UNHEALTHY, Kind.KILLING, Kind.STOPPING, Kind.SIGNALLED)
_ASKED = (Kind.STARTING, Kind.BACKOFF, Kind.PARKED)


class Violation(AssertionError):  # noqa: N818 - the field's word
    """A property does not hold; the text names the seed, which replays it."""


class Auditor:
    """Watches one SimWorld."""

    def __init__(self, world: "SimWorld") -> None:
        self._world = world
        self._stopped: set[Slot] = set()
        self._intents: dict[str, list[object]] = defaultdict(list)
        self._spawns: dict[Slot, list[float]] = defaultdict(list)
        self._gens: dict[Slot, int] = {}
        self._runs: set[tuple[Slot, int]] = set()
        self._were_ready: set[str] = set()
        self._needed: dict[str, tuple[str, ...]] = {}
        self._ones_ready: set[tuple[str, int]] = set()
        """Before the step."""

    def _fail(self, text: str) -> None:
        tail = "\n".join(
            f"  {e.time:9.3f} {e.subject:10} {e.kind} {e.payload}"
            for e in self._world.journal[-25:]
        )
        world = self._world
        raise Violation(f"seed {world.seed} at {world.now:.3f} s: {text}\n{tail}")

    def before(self, event: Event) -> None:
        match event:
            case Stop(slots=slots):
                self._stopped.update(slots)
            case Start(slots=slots) | Restart(slots=slots):
                self._stopped.difference_update(slots)
                for slot in slots:
                    self._spawns.pop(slot, None)
            case Scale(service=service):
                self._stopped = {s for s in self._stopped if s.service != service}
            case Down():
                self._stopped.update(self._world.engine.instances)

    def actions(self, event: Event, actions: list[Action]) -> None:
        last = {a.service: a for a in actions if isinstance(a, SetBalance)}
        records = [a for a in actions if isinstance(a, Record)]
        ready = {(r.subject, r.payload["run"]) for r in records if r.kind is Kind.READY}
        ready |= self._ones_ready
        for action in actions:
            match action:
                case Record(kind=kind, subject=subject, payload=payload):
                    self._intents[subject].append(kind)
                    del self._intents[subject][:-12]
                    if kind is Kind.STARTING:
                        self._check_dependencies(Slot.parse(subject))
                    found = kind is Kind.ADOPTED and payload["state"] == State.READY
                    if kind is Kind.READY or found:
                        self._were_ready.add(Slot.parse(subject).service)
                    if kind is Kind.WANTED and payload["want"]:
                        self._stopped.discard(Slot.parse(subject))
                    if kind is Kind.SCALED:
                        self._stopped = {s for s in self._stopped if s.service != subject}
                        for member in [s for s in self._spawns if s.service == subject]:
                            del self._spawns[member]
                    if kind is Kind.ROLLOUT:  # nor are those that operators ask for
                        for member in payload["slots"]:
                            self._spawns.pop(Slot.parse(member), None)
                    if kind is Kind.DRAINING:
                        self._replacing(Slot.parse(subject), payload, ready)
                    if kind is Kind.GROUP:  # restarts for another's crash are not one's own
                        for member in payload["members"]:
                            self._spawns.pop(Slot.parse(member), None)
                case Spawn(slot=slot, run=run):
                    self._spawning(slot, run)
                case Signal(slot=slot):
                    if not any(k in _KILL_INTENTS for k in self._intents[str(slot)]):
                        self._fail(f"{action} without an intent in the journal")
                case CloseSockets(service=service):
                    self._closing(service, event)
                case SetBalance(service=service, lanes=lanes) if last[service] is action:
                    self._balancing(service, lanes)

    def _replacing(self, slot: Slot, payload: dict[str, Any], ready: set[tuple[str, int]]) -> None:
        """Who is replaced leaves only when its successor is ready, or has become so in this step:
        what comes later in the step may already have told that one to stop as well."""
        replaced, _, run = str(payload.get("reason", "")).rpartition(" by run ")
        if replaced != "replaced" or (str(slot), int(run)) in ready:
            return
        successor = self._world.engine.process(slot, int(run))
        if successor is None or successor.state is not State.READY:
            self._fail(f"{slot} is told to stop though its successor is not ready")

    def _spawning(self, slot: Slot, run: int) -> None:
        world = self._world
        if Kind.STARTING not in self._intents[str(slot)]:
            self._fail(f"{slot} spawned without an intent in the journal")
        if slot in self._stopped:
            self._fail(f"{slot} was stopped by an operator and is started")
        if (slot, run) in self._runs:
            self._fail(f"{slot} run {run} is started twice")
        self._runs.add((slot, run))
        alive = [p for p in world.processes.values() if p.alive and p.slot == slot]
        may_be_two = slot in world.engine.outgoing and world.service(slot, run).overlaps
        if [p for p in alive if not may_be_two or not world.engine.process(slot, p.run)]:
            self._fail(f"{slot} is started while a process of it lives: two owners")
        instance = world.engine.process(slot, run)
        for other in world.processes.values():
            same = other.slot.service == slot.service and other.alive
            lane = instance.lane if instance is not None else 0
            if same and world.service(slot, run).listen and other.lane == lane:
                self._fail(f"{slot} gets lane {other.lane}, which {other.slot} has")
        if instance is not None and self._gens.get(slot, 0) != instance.gen:
            self._gens[slot] = instance.gen  # what replaces it has crashed never yet
            self._spawns.pop(slot, None)
        self._check_intensity(slot)

    def _check_dependencies(self, slot: Slot) -> None:
        """Ready before the step or after it: in between it may have been told to restart. A step
        that ends a reload may have started it by what the service needed before."""
        after = self._world.engine.services[slot.service].depends_on
        lacking = self._lacking(after)
        if lacking and self._lacking(self._needed.get(slot.service, after)):
            self._fail(f"{slot} is started though {lacking[0]} is not ready")

    def _lacking(self, names: tuple[str, ...]) -> list[str]:
        return [n for n in names if n not in self._were_ready and not self._is_satisfied(n)]

    def _is_satisfied(self, name: str) -> bool:
        engine = self._world.engine
        if name not in engine.services:
            return True  # the reload that removed it is about to end who needs it
        service, instances = engine.services[name], engine.all_of(name)
        if service.type == "oneshot":
            return all(i.done for i in instances)
        return not service.replicas or any(i.state is State.READY for i in instances)

    def look(self) -> None:
        """What holds before the next step."""
        services = self._world.engine.services
        self._were_ready = {n for n in services if self._is_satisfied(n)}
        instances = self._world.engine.instances.values()
        self._ones_ready = {(str(i.slot), i.run) for i in instances if i.state is State.READY}
        self._needed = {name: service.depends_on for name, service in services.items()}

    def _check_intensity(self, slot: Slot) -> None:
        """Within any period: the first start, ``limit`` restarts and the one that parks, and the
        slow retries of a parked one."""
        world = self._world
        restart = world.engine.services[slot.service].restart
        intensity = restart.intensity
        spawns = self._spawns[slot]
        spawns.append(world.now)
        recent = [t for t in spawns if world.now - t < intensity.period]
        self._spawns[slot] = recent
        slow = intensity.period / restart.park_interval
        if len(recent) > intensity.limit + 2 + slow:
            self._fail(f"{slot} was started {len(recent)} times in {intensity.period:g} s")

    def _closing(self, service: str, event: Event) -> None:
        engine = self._world.engine
        alive = [p for p in self._world.processes.values() if p.slot.service == service and p.alive]
        if alive:
            self._fail(f"the sockets of {service} are closed while {alive[0].slot} lives")
        rolling = engine.rolling.get(service)
        if engine.quitting or service not in engine.services or (rolling and rolling.cold):
            return
        if any(i.want and not i.done for i in engine.of(service)):
            self._fail(f"the sockets of {service} are closed though it should run")

    def _balancing(self, service: str, lanes: tuple[int, ...]) -> None:
        if service not in self._world.engine.services:
            return  # removed in the same step, after its last process
        instances = {i.lane: i for i in self._world.engine.all_of(service)}
        if not lanes:
            self._fail(f"nobody gets the connections of {service}")
        trusted = {n for n, i in instances.items() if i.state is State.READY and not i.suspected}
        if trusted and not set(lanes) <= trusted:
            self._fail(f"{service}: lanes {lanes} get connections, ready are {sorted(trusted)}")

    def born(self, process: "Process") -> None:
        """A process exists from now on."""

    def after(self) -> None:
        """The engine's view against the world."""
        world = self._world
        for slot, instance in world.engine.instances.items():
            process = world.process_of(slot)
            if process is not None and not instance.state.alive and process.run == instance.run:
                self._fail(f"{slot} is {instance.state.value} while its process lives")
            if instance.state is State.READY and not instance.pid:
                self._fail(f"{slot} is ready without a process")
            if instance.state in (State.BACKOFF, State.PARKED) and instance.deadline is None:
                self._fail(f"{slot} waits for ever")

    def taken_over(self) -> None:
        """A new engine: what it starts is checked as before, what was started stays known."""
        self._spawns.clear()
