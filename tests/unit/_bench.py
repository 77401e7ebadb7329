"""A bench for the engine: events go in, actions come out, on a clock of the test's own.

``tell`` gives it one event and carries nothing out; ``settle`` gives it what it asks for. ``play``
does the whole loop of the engine process with a keeper that outlives it, so that the engine can
die at every step (``die_at``) and the next one takes over from the journal.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from everup.engine.core import Engine
from everup.engine.fold import ChildFact, fold, reload_is_open, replicas
from everup.engine.records import Rollout as Rolling
from everup.model.action import (
    Action,
    CloseSockets,
    Commit,
    Discard,
    OpenSockets,
    Quit,
    Record,
    RunHook,
    SetBalance,
    Signal,
    Spawn,
    Watch,
    WatchDrain,
)
from everup.model.event import (
    Drained,
    Event,
    Exited,
    HookDone,
    Operator,
    Probed,
    Reload,
    Spawned,
    SpawnFailed,
    Tick,
    Up,
)
from everup.model.instance import ExitCause, ExitKind, Slot, State
from everup.model.journal import Entry, Kind
from everup.model.record import Instance
from everup.model.signal import ProbeKind, ProbeResult
from everup.model.spec import Everup, Group, Listener, Probe, Probes, Service, Spec
from everup.supervise.awaited import asks_startup

BOOT = "this-boot"
KILLED = ExitCause(ExitKind.SIGNAL, 9, "SIGKILL")
CLEAN = ExitCause(ExitKind.CODE, 0)
CRASH = ExitCause(ExitKind.CODE, 1)
LISTEN = (Listener("main", "127.0.0.1:8080"),)
READINESS = Probes(readiness=Probe(tcp="listen"))
BOTH = Probes(readiness=Probe(tcp="listen"), liveness=Probe(tcp="listen", failure_threshold=2))
DB, WEB, WEB2, WEB3 = Slot("db", 1), Slot("web", 1), Slot("web", 2), Slot("web", 3)
_MOST_STEPS = 1500


class DiedError(Exception):
    """The engine dies here."""


@dataclass(slots=True)
class Process:
    """A living one, as the keeper knows it."""

    pid: int
    lane: int
    gen: int
    restarts: int
    command: tuple[str, ...]


class Bench:
    """An engine with a clock. Every step is checked: the record stands before the action.

    What a process does is in its command: ``("serve", "crash")`` ends as soon as it runs,
    ``("serve", "mute")`` never comes to ready, ``("serve", "refused")`` can't be started. ``sick``
    are processes that behave like ``mute`` whatever their command says.
    """

    def __init__(self, *services: Service, groups: Sequence[Group] = (), **settings: Any) -> None:
        self.spec = spec_of(*services, groups=groups, **settings)
        self.engine = Engine(self.spec, random=lambda: 0.5)
        self.now = 1000.0
        self.records: list[Record] = []
        self.journal: list[Entry] = []
        self._latest: dict[tuple[str, str], Entry] = {}
        self.done: list[Action] = []
        self.pids = iter(range(100, 10_000))
        self.processes: dict[tuple[Slot, int], Process] = {}
        self.births: list[tuple[Slot, int]] = []
        """All that ever came to be."""
        self.sick: set[tuple[Slot, int]] = set()
        self.candidate: Spec | None = None
        self.steps = 0
        self.die_at: set[int] = set()
        self.all_die = False
        """Every process dies together with the engine."""
        self.deaths = 0
        self._todo: list[Event] = []

    # -- one event at a time

    def tell(self, event: Event, after_s: float = 0.01) -> list[Action]:
        self.now += after_s
        if isinstance(event, Reload):
            self.candidate = event.spec
        actions = self.engine.handle(event, self.now)
        self._note(event)
        check_order(actions)
        self._write(actions)
        for action in actions:
            self._config(action)
        self.done += actions
        return actions

    def up(self) -> None:
        """Up, with every process born and every probe answered."""
        self.settle(self.tell(Up()))

    def settle(self, actions: list[Action]) -> None:
        """Give the engine what it asks for until it asks no more. Time hardly passes."""
        todo = list(actions)
        for _ in range(_MOST_STEPS):
            if not todo:
                return
            for event in self._answers(todo.pop(0)):
                todo += self.tell(event)
        raise AssertionError("it does not settle")

    def finish(self, actions: Iterable[Action] = (), *, at_most_s: float = 1000.0) -> None:
        """The same, and time passes until nothing is being replaced or reloaded any more."""
        self.settle(list(actions))
        until = self.now + at_most_s
        while self.is_busy():
            due = self.engine.next_deadline()
            assert due is not None, "nothing would ever happen again"
            assert due <= until, "it takes too long"
            self.settle(self.tell(Tick(), max(0.0, due - self.now)))

    def born(self, slot: Slot, run: int | None = None) -> list[Action]:
        run = self.engine.instances[slot].run if run is None else run
        actions = self.tell(Spawned(slot, run, next(self.pids)))
        return actions + self.accept(slot, run)

    def accept(self, slot: Slot, run: int) -> list[Action]:
        """It takes a connection in, if that is all that is waited for."""
        instance = self.engine.process(slot, run)
        if instance is None or instance.state is not State.STARTING:
            return []
        service = self.engine.definition(instance)
        if service.probe.startup is not None or not asks_startup(service, instance):
            return []
        return self.tell(probed(slot, run, True, ProbeKind.STARTUP), 0.0)

    def ended(self, slot: Slot, cause: ExitCause = CLEAN, run: int | None = None) -> list[Action]:
        run = self.engine.instances[slot].run if run is None else run
        return self.tell(Exited(slot, run, cause))

    def probe(
        self,
        slot: Slot,
        ok: bool = True,
        kind: ProbeKind = ProbeKind.READINESS,
        *,
        run: int | None = None,
        late_s: float = 0.0,
        after_s: float = 0.01,
    ) -> list[Action]:
        run = self.engine.instances[slot].run if run is None else run
        return self.tell(probed(slot, run, ok, kind, late_s), after_s)

    # -- what it is like

    def state(self, slot: Slot, run: int | None = None) -> State:
        instance = self.engine.process(slot, run)
        assert instance is not None
        return instance.state

    def runs(self, service: str) -> list[int]:
        return [instance.run for instance in self.engine.of(service)]

    def kinds(self, subject: object) -> list[Kind]:
        return [r.kind for r in self.records if r.subject == str(subject)]

    def last(self, kind: Kind) -> Record:
        return next(r for r in reversed(self.records) if r.kind is kind)

    def told(self, *kinds: Kind) -> list[tuple[Kind, str]]:
        """What was written of these kinds, in order."""
        return [(r.kind, r.subject) for r in self.records if r.kind in kinds]

    def rolling(self, service: str = "web") -> Rolling:
        return self.engine.rolling[service]

    def outgoing(self, slot: Slot) -> Instance:
        return self.engine.outgoing[slot]

    def is_busy(self) -> bool:
        engine = self.engine
        return bool(engine.rolling or engine.outgoing or engine.reloading or engine.removing)

    def check_quiet(self) -> None:
        """Nothing is left over from a rollout or a reload; the engine and the keeper agree."""
        engine = self.engine
        assert not self.is_busy()
        assert self.candidate is None
        assert engine.spec == self.spec
        assert set(engine.services) == set(self.spec.service)
        for instance in engine.instances.values():
            assert instance.service is None, f"{instance.slot} goes by an old definition"
            alive = [run for slot, run in self.processes if slot == instance.slot]
            assert alive == ([instance.run] if instance.pid else []), instance
        for name in engine.open_lanes:
            lanes = [i.lane for i in engine.of(name) if i.state.alive]
            assert len(set(lanes)) == len(lanes), lanes

    # -- the loop of the engine process

    def play(self, *events: Event) -> None:
        """Events and what follows from them, until all is quiet."""
        self._todo += events
        for _ in range(_MOST_STEPS):
            if not self._todo:
                if not self.is_busy():
                    return
                due = self.engine.next_deadline()
                assert due is not None, "nothing would ever happen again"
                self.now = max(self.now, due)
                self._todo.append(Tick())
            event = self._todo.pop(0)
            try:
                self._step(event)
            except DiedError:
                self.take_over()
        raise AssertionError("it does not come to an end")

    def die(self) -> None:
        """The engine is killed between two events."""
        self._todo.clear()
        self.take_over()

    def take_over(self) -> None:
        """A new engine folds the journal and the keeper's list."""
        self.deaths += 1
        latest = self.latest()
        if not reload_is_open(latest):
            self.candidate = None
        self.engine = Engine(self.spec, random=lambda: 0.5, scaled=replicas(latest))
        if self.all_die:
            self.processes.clear()
        children = []
        for (slot, run), p in list(self.processes.items()):
            if self._is_known(slot):
                children.append(ChildFact(slot, run, p.pid, p.restarts, p.lane, p.gen))
            else:  # killed
                del self.processes[slot, run]
        up = fold(self.spec, latest, children, BOOT, self.now, candidate=self.candidate)
        kept = [e for e in self._todo if isinstance(e, Exited | Operator)]
        self._todo = [up, *kept]

    def _is_known(self, slot: Slot) -> bool:
        """Whether it is a slot of the config, or of one that is about to be."""
        if slot.service in self.engine.services:
            return slot in self.engine.instances
        added = self.candidate.service.get(slot.service) if self.candidate else None
        return added is not None and slot.replica <= added.slots

    def latest(self) -> list[Entry]:
        return sorted(self._latest.values())

    def _step(self, event: Event) -> None:
        try:
            self._boundary()
            self.now += 0.01
            if isinstance(event, Reload):
                self.candidate = event.spec
            actions = self.engine.handle(event, self.now)
            self._boundary()
        except DiedError:  # as if it had never come: the keeper, or the operator, says it again
            if isinstance(event, Exited | Operator) and not isinstance(event, Up):
                self._todo.insert(0, event)
            raise
        check_order(actions)
        self._note(event)
        self._write(actions)
        self.done += actions
        for action in actions:
            self._config(action)
        for action in actions:
            if not isinstance(action, Record):
                self._boundary()
                self._todo += self._answers(action)

    def _boundary(self) -> None:
        self.steps += 1
        if self.steps in self.die_at:
            raise DiedError

    def _write(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Record):
                self.records.append(action)
                kind, subject, payload = action.kind.value, action.subject, action.payload
                seq = len(self.journal) + 1
                entry = Entry(seq, 1e9 + seq, self.now, BOOT, kind, subject, payload)
                self.journal.append(entry)
                self._latest[kind, subject] = entry

    def _note(self, event: Event) -> None:
        match event:
            case Up(adopted=adopted):
                for one in adopted:
                    process = Process(one.pid, one.lane, one.gen, one.restarts, ())
                    self.processes.setdefault((one.slot, one.run), process)
            case Spawned(slot=slot, run=run, pid=pid):
                self._born(slot, run, pid)
            case Exited(slot=slot, run=run):
                self.processes.pop((slot, run), None)

    def _born(self, slot: Slot, run: int, pid: int) -> None:
        instance = self.engine.process(slot, run)
        if (slot, run) not in self.processes and instance is not None:
            command = self.engine.definition(instance).command
            process = Process(pid, instance.lane, instance.gen, instance.restarts, command)
            self.processes[slot, run] = process
            self.births.append((slot, run))

    def _config(self, action: Action) -> None:
        if isinstance(action, Commit):
            assert self.candidate is not None
            self.spec, self.candidate = self.candidate, None
        elif isinstance(action, Discard):
            self.candidate = None

    def _answers(self, action: Action) -> list[Event]:
        """What the world says to an action."""
        match action:
            case Spawn(slot=slot, run=run):
                return self._spawn(slot, run)
            case RunHook(slot=slot, run=run, hook=hook):
                return [HookDone(slot, run, hook, True)]
            case Watch(slot=slot, run=run, startup=startup) if (slot, run) in self.processes:
                process = self.processes[slot, run]
                ok = "mute" not in process.command and (slot, run) not in self.sick
                kind = ProbeKind.STARTUP if startup else ProbeKind.READINESS
                return [probed(slot, run, ok, kind)]
            case WatchDrain(slot=slot, run=run):
                return [Drained(slot, run)]
            case Signal(slot=slot, run=run, signal=signal) if (slot, run) in self.processes:
                return [Exited(slot, run, KILLED if signal == "SIGKILL" else CLEAN)]
        return []

    def _spawn(self, slot: Slot, run: int) -> list[Event]:
        instance = self.engine.process(slot, run)
        assert instance is not None
        service = self.engine.definition(instance)
        if "refused" in service.command:
            return [SpawnFailed(slot, run, "cannot run it")]
        self._born(slot, run, pid := next(self.pids))
        out: list[Event] = [Spawned(slot, run, pid)]
        if service.type == "oneshot":
            out.append(Exited(slot, run, CLEAN))
        elif "crash" in service.command:
            out.append(Exited(slot, run, CRASH))
        return out


ANNOUNCED_BY: dict[type, Callable[[Any], tuple[str, tuple[Kind, ...]]]] = {
    Spawn: lambda a: (str(a.slot), (Kind.STARTING, Kind.HOOK_ENDED)),
    RunHook: lambda a: (str(a.slot), (Kind.HOOK,)),
    OpenSockets: lambda a: (a.service, (Kind.SOCKETS_OPENED, Kind.ADOPTED)),
    CloseSockets: lambda a: (a.service, (Kind.SOCKETS_CLOSED,)),
    SetBalance: lambda a: (a.service, (Kind.BALANCE,)),
    Commit: lambda _: ("everup", (Kind.RELOADED,)),
    Discard: lambda _: ("everup", (Kind.ROLLED_BACK,)),
    Quit: lambda _: ("everup", (Kind.ENGINE_STOPPED,)),
}
KILLS = (Kind.STOPPING, Kind.KILLING, Kind.UNHEALTHY, Kind.SIGNALLED, Kind.HOOK_ENDED, Kind.SPAWNED)


def check_order(actions: list[Action]) -> None:
    """Every action has the record that announces it before it, in the same answer."""
    seen: set[tuple[str, Kind]] = set()
    # A new balance is moved up before the first signal, and leaves its record behind: see
    # test_the_record_of_a_new_balance_stands_before_it.
    seen |= {(a.subject, a.kind) for a in of(actions, Record) if a.kind is Kind.BALANCE}
    for action in actions:
        if isinstance(action, Record):
            seen.add((action.subject, action.kind))
            if action.kind is Kind.ADOPTED:
                seen.add((Slot.parse(action.subject).service, action.kind))
        elif isinstance(action, Signal):
            assert any((str(action.slot), k) in seen for k in KILLS), (action, actions)
        elif type(action) in ANNOUNCED_BY:
            subject, kinds = ANNOUNCED_BY[type(action)](action)
            assert any((subject, k) in seen for k in kinds), (action, actions)


def of(actions: Iterable[Action], kind: type) -> list[Any]:
    return [a for a in actions if isinstance(a, kind)]


def probed(
    slot: Slot, run: int, ok: bool, kind: ProbeKind = ProbeKind.READINESS, late_s: float = 0.0
) -> Probed:
    detail = "200 OK" if ok else "refused"
    return Probed(ProbeResult(slot, kind, run, ok, detail, 0.001, late_s))


def spec_of(*services: Service, groups: Sequence[Group] = (), **settings: Any) -> Spec:
    return Spec({s.name: s for s in services}, {g.name: g for g in groups}, Everup(**settings))


def web(replicas: int = 2, **more: Any) -> Service:
    """A service with sockets: it overlaps."""
    given: dict[str, Any] = {"command": ("serve",), "listen": LISTEN, "replicas": replicas}
    return Service(name="web", **(given | more))


def db(**more: Any) -> Service:
    """A service without: it stops before it starts again."""
    given: dict[str, Any] = {"command": ("serve",)}
    return Service(name="db", **(given | more))


def changed(spec: Spec, **services: Service | None) -> Spec:
    """The spec with these services put in, or left out where None."""
    merged = {**spec.service, **services}
    return replace(spec, service={n: s for n, s in merged.items() if s is not None})
