"""SimWorld: the engine in a simulated world, from one seed.

Simulated are the clock, the processes with their faults, the probes, the keeper's reports and
operators. Thousands of hours run in seconds, and a failing seed replays exactly.

    world = SimWorld(seed=7)
    world.run_faults(120.0)     # seconds of simulated time with faults
    world.heal(300.0)           # no more faults: everything must become ready again
    world.shut_down()

Each step is checked against the safety properties in ``everup.testing.audit``.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from everup.engine.core import Engine
from everup.engine.fold import ChildFact, fold, replicas
from everup.engine.observe import probe_of
from everup.model.action import (
    Action,
    CloseSockets,
    EmptyQueue,
    Forget,
    MainPid,
    OpenSockets,
    Quit,
    Record,
    RunHook,
    SetBalance,
    Signal,
    Spawn,
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
    Spawned,
    SpawnFailed,
    Start,
    Stop,
    Tick,
    Up,
)
from everup.model.instance import ExitCause, ExitKind, Slot, State
from everup.model.journal import Entry, Kind
from everup.model.signal import ProbeKind, ProbeResult
from everup.model.spec import Service, Spec
from everup.testing.audit import Auditor, Violation
from everup.testing.specs import random_spec

_BOOT = "simulated"


@dataclass(slots=True)
class Process:
    """A fake process. What it will do is drawn when it is born."""

    slot: Slot
    run: int
    pid: int
    up_at: float
    """From then on it answers probes."""
    ignores_term: bool = False
    stop_takes_s: float = 0.0
    hung: bool = False
    unready: bool = False
    silent: bool = False
    """Sends no watchdog pings."""
    alive: bool = True


@dataclass(slots=True)
class Watching:
    """The probes of one process."""

    run: int
    startup: bool
    kinds: list[ProbeKind] = field(default_factory=list)


class SimWorld:
    """``spec`` None: drawn from the seed. ``faults`` False: nothing goes wrong by itself."""

    def __init__(self, seed: int, spec: Spec | None = None, *, engine_deaths: bool = True) -> None:
        self.seed = seed
        self.rng = random.Random(seed)  # noqa: S311 - a simulation must replay
        self.spec = random_spec(self.rng) if spec is None else spec
        self.now = 0.0
        self.faulty = False
        self.engine_deaths = engine_deaths
        self.journal: list[Entry] = []
        self.processes: dict[int, Process] = {}
        self.watching: dict[Slot, Watching] = {}
        self.balance: dict[str, tuple[int, ...]] = {}
        self.quit: int | None = None
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._pids = itertools.count(100)
        self._starved_until = 0.0
        self.audit = Auditor(self)
        self.engine = self._new_engine()
        self.dispatch(Up())
        self.every(0.5, self._measure_lag)

    def _new_engine(self) -> Engine:
        counts = replicas(self.latest())
        services = {
            name: replace(s, replicas=counts.get(name, s.replicas))
            for name, s in self.spec.service.items()
        }
        return Engine(replace(self.spec, service=services), random=self.rng.random)

    # -- time

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._order), what))

    def after(self, delay_s: float, what: Callable[[], None]) -> None:
        self.at(self.now + delay_s, what)

    def every(self, interval_s: float, what: Callable[[], None]) -> None:
        def turn() -> None:
            what()
            self.after(interval_s, turn)

        self.after(interval_s, turn)

    def run_until(self, end: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Let time pass; ends early when ``stop`` says so."""
        while self.now < end and not stop():
            due = self.engine.next_deadline()
            if self._queue and (due is None or self._queue[0][0] <= due):
                when, _order, what = heapq.heappop(self._queue)
                if when > end:
                    heapq.heappush(self._queue, (when, _order, what))
                    break
                self.now = max(self.now, when)
                what()
            elif due is not None and due <= end:
                self.now = max(self.now, due)
                self.dispatch(Tick())
            else:
                break
        self.now = max(self.now, end) if not stop() else self.now

    # -- the loop of the engine process, simulated

    def dispatch(self, event: Event) -> None:
        self.audit.before(event)
        actions = self.engine.handle(event, self.now)
        self.audit.actions(event, actions)
        for action in actions:  # all records first, as the runtime does
            if isinstance(action, Record):
                self._write(action)
        for action in actions:
            self._do(action)
        self.audit.after()

    def _write(self, record: Record) -> None:
        seq = len(self.journal) + 1
        kind, subject, payload = record.kind.value, record.subject, record.payload
        self.journal.append(Entry(seq, self.now, self.now, _BOOT, kind, subject, payload))

    def latest(self) -> list[Entry]:
        by = {(e.kind, e.subject): e for e in self.journal}
        return sorted(by.values())

    def _do(self, action: Action) -> None:
        match action:
            case Spawn(slot=slot, run=run):
                self._spawn(slot, run)
            case Signal():
                self._signal(action)
            case Watch(slot=slot, run=run, startup=startup):
                self._watch(slot, run, startup)
            case Unwatch(slot=slot):
                self.watching.pop(slot, None)
            case RunHook(slot=slot, run=run, hook=hook):
                ok = not (self.faulty and self.rng.random() < 0.3)
                done = HookDone(slot, run, hook, ok, "" if ok else "exit 1")
                self.after(self.rng.uniform(0.01, 2.0), lambda: self.dispatch(done))
            case WatchDrain(slot=slot, run=run):
                drained = Drained(slot, run)
                self.after(self.rng.uniform(0.0, 3.0), lambda: self.dispatch(drained))
            case SetBalance(service=service, replicas=chosen):
                self.balance[service] = chosen
            case CloseSockets(service=service):
                self.balance.pop(service, None)
            case Quit(status=status):
                self.quit = status
            case MainPid() | OpenSockets() | EmptyQueue() | Forget() | Record():
                pass

    # -- processes

    def service(self, slot: Slot) -> Service:
        return self.engine.services[slot.service]

    def process_of(self, slot: Slot) -> Process | None:
        return next((p for p in self.processes.values() if p.slot == slot and p.alive), None)

    def _spawn(self, slot: Slot, run: int) -> None:
        rng, delay = self.rng, self.rng.uniform(0.001, 0.05)
        if self.faulty and rng.random() < 0.1:
            failed = SpawnFailed(slot, run, "cannot run it")
            self.after(delay, lambda: self.dispatch(failed))
            return
        pid = next(self._pids)
        slow = rng.uniform(5.0, 40.0) if self.faulty and rng.random() < 0.1 else 0.0
        process = Process(slot, run, pid, self.now + rng.uniform(0.01, 0.5) + slow)
        process.ignores_term = rng.random() < 0.1
        process.stop_takes_s = rng.choice((0.0, 0.01, 0.5, 3.0))
        self.processes[pid] = process
        self.audit.born(process)
        self.after(delay, lambda: self.dispatch(Spawned(slot, run, pid)))
        service = self.service(slot)
        if service.type == "oneshot":
            code = 1 if self.faulty and rng.random() < 0.3 else 0
            self.after(delay + rng.uniform(0.0, 2.0), lambda: self.end(process, code=code))
        elif self.faulty and rng.random() < 0.25:  # exits at once, or soon
            lives = rng.choice((0.0, 0.002, 0.1, 3.0))
            self.after(lives, lambda: self.end(process, code=rng.choice((0, 1, 3))))
        if service.notify:
            self.at(process.up_at + delay, lambda: self._notify(process, "READY"))
        if service.watchdog is not None:
            every = service.watchdog.interval / 2
            self.at(process.up_at + delay + every, lambda: self._ping(process, every))

    def _notify(self, process: Process, name: str) -> None:
        if process.alive and not process.hung:
            self.dispatch(Notified(process.slot, ((name, "1"),)))

    def _ping(self, process: Process, every: float) -> None:
        if process.alive:
            if not process.silent:
                self._notify(process, "WATCHDOG")
            self.after(every, lambda: self._ping(process, every))

    def end(self, process: Process, *, code: int | None = None, number: int = 9) -> None:
        """The process ends; the report reaches the engine a moment later."""
        if not process.alive:
            return
        process.alive = False
        kind = ExitKind.SIGNAL if code is None else ExitKind.CODE
        cause = ExitCause(kind, number if code is None else code, "SIGKILL" if code is None else "")
        exited = Exited(process.slot, process.run, cause)

        def report() -> None:
            del self.processes[process.pid]
            self.dispatch(exited)

        self.after(self.rng.uniform(0.0, 0.06), report)

    def _signal(self, action: Signal) -> None:
        process = self.process_of(action.slot)
        if process is None or process.run != action.run:
            return
        if action.signal == "SIGKILL":
            self.after(0.001, lambda: self.end(process))
        elif not process.ignores_term and not process.hung:
            self.after(process.stop_takes_s, lambda: self.end(process, code=0))

    # -- probes

    def _watch(self, slot: Slot, run: int, startup: bool) -> None:
        kinds = [ProbeKind.STARTUP] if startup else [ProbeKind.READINESS, ProbeKind.LIVENESS]
        watching = self.watching[slot] = Watching(run, startup, kinds)
        for kind in kinds:
            probe = probe_of(self.service(slot), kind)
            if probe is not None:
                first = self.rng.uniform(0.0, probe.interval)
                self.after(first, lambda kind=kind: self._probe(slot, watching, kind))  # type: ignore[misc]

    def _probe(self, slot: Slot, watching: Watching, kind: ProbeKind) -> None:
        if self.watching.get(slot) is not watching:
            return
        probe = probe_of(self.service(slot), kind)
        process = self.process_of(slot)
        if probe is None:
            return
        ok = process is not None and self.now >= process.up_at and not process.hung
        if kind is ProbeKind.READINESS and process is not None and process.unready:
            ok = False
        late = max(0.0, self._starved_until - self.now)
        took = self.rng.uniform(0.0005, 0.01) if ok else min(probe.timeout, 0.001)
        if process is not None and process.hung:
            took = probe.timeout
        if late and self.rng.random() < 0.5:
            ok = False  # the answer came, but everup was not there to read it
        result = ProbeResult(slot, kind, watching.run, ok, "ok" if ok else "no answer", took, late)

        def report() -> None:
            if self.watching.get(slot) is watching:
                self.dispatch(Probed(result))

        self.after(took + late, report)
        self.after(max(probe.interval, took + late), lambda: self._probe(slot, watching, kind))

    def _measure_lag(self) -> None:
        if self.quit is None:
            lag = max(0.0, self._starved_until - self.now)
            self.dispatch(Lag(lag, 0.0))

    # -- faults

    def run_faults(self, seconds: float) -> None:
        """Random faults and random operators, for so long."""
        self.faulty = True
        end = self.now + seconds
        while self.now < end:
            self.run_until(min(end, self.now + self.rng.expovariate(1.5)))
            self._fault()
        self.faulty = False

    def _fault(self) -> None:
        rng = self.rng
        alive = [p for p in self.processes.values() if p.alive]
        kind = rng.random()
        if alive and kind < 0.55:
            process = rng.choice(alive)
            match rng.randrange(6):
                case 0:
                    self.end(process)
                case 1:
                    self.end(process, code=rng.choice((0, 1, 7)))
                case 2:
                    process.hung = True
                case 3:
                    process.unready = not process.unready
                case 4:
                    process.silent = True
                case _:
                    process.ignores_term = True
        elif kind < 0.65:
            self._starved_until = self.now + rng.uniform(0.1, 5.0)
        elif kind < 0.72 and self.engine_deaths:
            self.kill_engine()
        else:
            self._operate()

    def _operate(self) -> None:
        rng, slots = self.rng, list(self.engine.instances)
        if not slots:
            return
        some = tuple(rng.sample(slots, rng.randint(1, min(3, len(slots)))))
        match rng.randrange(5):
            case 0 | 1:
                self.dispatch(Start(some, "operator"))
            case 2:
                self.dispatch(Stop(some, "operator"))
            case 3:
                self.dispatch(Restart(some, "operator"))
            case _:
                names = [n for n, s in self.engine.services.items() if s.type == "service"]
                if names:
                    self.dispatch(Scale(rng.choice(names), rng.randint(0, 4), "operator"))

    def kill_engine(self) -> None:
        """kill -9 of the engine; a new one folds the journal and takes over from the keeper."""
        self.watching.clear()
        # Reports under way reach nobody: the keeper keeps what was not acknowledged.
        pending = [what for _when, _order, what in sorted(self._queue[:], key=lambda x: x[:2])]
        del pending
        children = [
            ChildFact(p.slot, p.run, p.pid, 0) for p in self.processes.values()
            if p.slot in self.engine.instances
        ]  # fmt: skip
        self.engine = self._new_engine()
        known = [c for c in children if c.slot in self.engine.instances]
        for process in list(self.processes.values()):
            if process.slot not in self.engine.instances:
                self.end(process)
        self.audit.taken_over()
        self.dispatch(fold(self.engine.spec, self.latest(), known, _BOOT, self.now))

    # -- ends

    def heal(self, within_s: float) -> None:
        """Faults stop and operators start everything: all must be ready within the bound."""
        self._starved_until = 0.0
        for process in self.processes.values():
            process.hung = process.unready = process.silent = False
        self.dispatch(Start(tuple(self.engine.instances), "operator"))
        self.run_until(self.now + within_s, self.is_well)
        if not self.is_well():
            bad = [
                f"{i.slot} {i.state.value} ({i.reason})"
                for i in self.engine.instances.values()
                if not self._is_well(i.slot)
            ]
            raise Violation(
                f"seed {self.seed}: not well {within_s:g} s after the last fault: {bad}"
            )

    def is_well(self) -> bool:
        return all(self._is_well(slot) for slot in self.engine.instances)

    def _is_well(self, slot: Slot) -> bool:
        instance = self.engine.instances[slot]
        if self.service(slot).type == "oneshot":
            return instance.done
        return instance.state is State.READY or not instance.want

    def shut_down(self, within_s: float = 120.0) -> None:
        """Down, in order; nothing may be left."""
        self.dispatch(Down("operator"))
        self.run_until(self.now + within_s, lambda: self.quit is not None)
        left = [str(p.slot) for p in self.processes.values() if p.alive]
        if self.quit is None or left:
            raise Violation(f"seed {self.seed}: not down after {within_s:g} s; left: {left}")

    def entries(self, kind: Kind) -> list[Entry]:
        return [entry for entry in self.journal if entry.kind == kind.value]
