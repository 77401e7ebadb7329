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

from everup import edges
from everup.engine.core import Engine
from everup.engine.fold import replicas
from everup.engine.observe import probe_of
from everup.engine.records import CannotChangeError
from everup.model.action import (
    Action,
    Asked,
    CloseSockets,
    Commit,
    Configure,
    Discard,
    EmptyQueue,
    Forget,
    GiveTime,
    MainPid,
    MendSockets,
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
    Left,
    Notified,
    Probed,
    Reload,
    Spawned,
    SpawnFailed,
    Start,
    Tick,
    Up,
)
from everup.model.instance import ExitCause, ExitKind, Slot, State
from everup.model.journal import Entry, Kind
from everup.model.signal import ProbeKind, ProbeResult
from everup.model.spec import Service, Spec
from everup.testing import deaths, faults, hangs
from everup.testing.audit import Auditor, Violation
from everup.testing.specs import random_spec

_MENDS = 10


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
    lane: int = 0
    gen: int = 0
    stranger: bool = False
    """Its keeper has died; a new one watches it."""
    rest_takes_s: float = 0.0
    """So long others of it go on after its main process."""
    given_time: bool = False
    left: ExitCause | None = None
    """How its main process has ended, while others have not."""


class KilledError(Exception):
    """The engine dies here, in the middle of what it does."""


@dataclass(slots=True)
class Watching:
    """The probes of one process."""

    run: int
    startup: bool
    kinds: list[ProbeKind] = field(default_factory=list)
    asked: dict[ProbeKind, float] = field(default_factory=dict)
    """Since when each waits for its answer."""


class SimWorld:
    """``spec`` None: drawn from the seed. ``faults`` False: nothing goes wrong by itself.
    ``own_hangs``: keeper and engine are stopped now and then, beside being killed."""

    def __init__(
        self,
        seed: int,
        spec: Spec | None = None,
        *,
        engine_deaths: bool = True,
        own_hangs: bool = False,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)  # noqa: S311 - a simulation must replay
        self.spec = random_spec(self.rng) if spec is None else spec
        self.now = 0.0
        self.faulty = False
        self.engine_deaths = engine_deaths
        self.own_hangs = random.Random(~seed) if own_hangs else None  # noqa: S311
        """Of its own, so that a seed is the same world without them."""
        self.hang: hangs.Hang | None = None
        """Of the engine or the keeper, while it lasts."""
        self.missed = 0
        """Hangs that ended in a kill by the other one."""
        self.journal: list[Entry] = []
        self.processes: dict[int, Process] = {}
        self.watching: dict[tuple[Slot, int], Watching] = {}
        self.balance: dict[str, tuple[int, ...]] = {}
        self.quit: int | None = None
        self.candidate: Spec | None = None
        """The config of a reload under way: what the real one keeps in a file."""
        self.steps = 0
        """Boundaries passed so far at which the engine can be killed."""
        self.kill_at: int | None = None
        """Kill at this one."""
        self.kills = "engine"
        """Who dies there: ``engine``, ``keeper`` or ``both``."""
        self.era = 0
        """Grows with each keeper; reports of one that has died reach nobody."""
        self.boot = "simulated"
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._pids = itertools.count(100)
        self.starved_until = 0.0
        self.audit = Auditor(self)
        self._performers = edges.performers("double")
        self.engine = self.new_engine()
        self.dispatch(Up())
        self.every(0.5, self._measure_lag)
        for source in edges.doubles():
            source(self)

    def new_engine(self) -> Engine:
        return Engine(self.spec, random=self.rng.random, scaled=replicas(self.latest()))

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
            stopped = self.hang is not None and self.hang.who == "engine"
            due = None if stopped else self.engine.next_deadline()
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
        try:
            self._dispatch(event)
        except KilledError:
            self.die(self.kills)

    def _dispatch(self, event: Event) -> None:
        if not hangs.takes_in(self, event):
            return
        self.boundary()
        self.audit.look()
        actions = self.engine.handle(event, self.now)
        if any(isinstance(action, Record) for action in actions):
            self.boundary()
        self.audit.before(event)
        self.audit.actions(event, actions)
        for action in actions:  # all records first and in one transaction, as the runtime does
            if isinstance(action, Record):
                self._write(action)
        for action in actions:
            if not isinstance(action, Record):
                self.boundary()
                self.perform(action)
        self.audit.after()
        self.engine.kernel.check_invariants()

    def boundary(self) -> None:
        """Between two steps of the engine process: here it can die."""
        self.steps += 1
        if self.steps == self.kill_at:
            raise KilledError

    def later(self, delay_s: float, event: Event) -> None:
        """A report of the keeper reaches the engine; not that of a keeper that has died."""
        era = self.era

        def report() -> None:
            if era == self.era:
                self.dispatch(event)

        self.after(delay_s, report)

    def _write(self, record: Record) -> None:
        seq = len(self.journal) + 1
        kind, subject, payload = record.kind.value, record.subject, record.payload
        self.journal.append(Entry(seq, self.now, self.now, self.boot, kind, subject, payload))

    def latest(self) -> list[Entry]:
        by = {(e.kind, e.subject): e for e in self.journal}
        return sorted(by.values())

    def perform(self, action: Action) -> None:
        """Carry an action out; what takes a keeper waits while that hangs."""
        if not isinstance(action, Spawn | Signal | RunHook) or hangs.carries_out(self, action):
            self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case Spawn(slot=slot, run=run, lane=lane):
                self._spawn(slot, run, lane)
            case Signal():
                self._signal(action)
            case GiveTime(slot=slot, run=run):
                if process := self.process_of(slot, run):
                    process.given_time = True
            case Watch(slot=slot, run=run, startup=startup):
                self._watch(slot, run, startup)
            case Unwatch(slot=slot, run=run):
                self.watching.pop((slot, run), None)
            case RunHook(slot=slot, run=run, hook=hook):
                ok = not (self.faulty and self.rng.random() < 0.3)
                done = HookDone(slot, run, hook, ok, "" if ok else "exit 1")
                self.later(self.rng.uniform(0.01, 2.0), done)
            case WatchDrain(slot=slot, run=run):
                drained = Drained(slot, run)
                self.after(self.rng.uniform(0.0, 3.0), lambda: self.dispatch(drained))
            case SetBalance(service=service, lanes=chosen):
                self.balance[service] = chosen
            case Commit():
                assert self.candidate is not None
                self.spec, self.candidate = self.candidate, None
            case Discard():
                self.candidate = None
            case CloseSockets(service=service):
                self.balance.pop(service, None)
            case Quit(status=status):
                self.quit = status
            case Asked():
                self._performers[type(action)](action, self)
            case (
                MainPid()
                | MendSockets()
                | OpenSockets()
                | EmptyQueue()
                | Forget()
                | Configure()
                | Record()
            ):
                pass

    # -- processes

    def service(self, slot: Slot, run: int | None = None) -> Service:
        instance = self.engine.process(slot, run)
        if instance is None:
            return self.engine.services[slot.service]
        return self.engine.definition(instance)

    def process_of(self, slot: Slot, run: int | None = None) -> Process | None:
        return next(
            (
                p
                for p in self.processes.values()
                if p.slot == slot and p.alive and run in (None, p.run)
            ),
            None,
        )

    def _spawn(self, slot: Slot, run: int, lane: int) -> None:
        rng, delay = self.rng, self.rng.uniform(0.001, 0.05)
        if self.faulty and rng.random() < 0.1:
            self.later(delay, SpawnFailed(slot, run, "cannot run it"))
            return
        pid = next(self._pids)
        slow = rng.uniform(5.0, 40.0) if self.faulty and rng.random() < 0.1 else 0.0
        process = Process(slot, run, pid, self.now + rng.uniform(0.01, 0.5) + slow)
        instance = self.engine.process(slot, run)
        process.lane, process.gen = lane, instance.gen if instance else 0
        process.ignores_term = rng.random() < 0.1
        process.stop_takes_s = rng.choice((0.0, 0.01, 0.5, 3.0))
        process.rest_takes_s = rng.choice((0.0, 0.0, 0.0, 0.5, 15.0))
        self.processes[pid] = process
        self.audit.born(process)
        self.later(delay, Spawned(slot, run, pid))
        service = self.service(slot, run)
        if "broken" in service.command and service.type != "oneshot":
            self.after(delay + rng.uniform(0.0, 0.5), lambda: self.end(process, code=1))
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
            self.dispatch(Notified(process.slot, ((name, "1"),), process.run))

    def _ping(self, process: Process, every: float) -> None:
        if process.alive:
            if not process.silent:
                self._notify(process, "WATCHDOG")
            self.after(every, lambda: self._ping(process, every))

    def end(self, process: Process, *, code: int | None = None, number: int = 9) -> None:
        """The process ends; the report reaches the engine a moment later. With ``number`` all of
        it is killed."""
        if not process.alive or (process.left and code is not None):
            return
        kind = ExitKind.SIGNAL if code is None else ExitKind.CODE
        cause = ExitCause(kind, number if code is None else code, "SIGKILL" if code is None else "")
        if code is not None and process.given_time and process.rest_takes_s:
            process.left = cause
            self.later(self.rng.uniform(0.0, 0.06), Left(process.slot, process.run, cause))
            self.after(process.rest_takes_s, lambda: self._all_ended(process, cause))
            return
        self._all_ended(process, cause)

    def _all_ended(self, process: Process, cause: ExitCause) -> None:
        if process.alive:
            process.alive = False
            self.report_end(process, cause)

    def report_end(self, process: Process, cause: ExitCause) -> None:
        era = self.era

        def report() -> None:
            if era == self.era and self.hang is not None:
                self.after(0.1, report)  # the keeper keeps it, whichever of the two hangs
            elif era == self.era:
                self.processes.pop(process.pid, None)
                watching = self.watching.get((process.slot, process.run))
                asked_at = min(watching.asked.values(), default=None) if watching else None
                self.dispatch(Exited(process.slot, process.run, cause, asked_at))

        self.after(self.rng.uniform(0.0, 0.06), report)

    def _signal(self, action: Signal) -> None:
        process = self.process_of(action.slot, action.run)
        if process is None:
            return
        era = self.era
        if action.signal == "SIGKILL":
            self.after(0.001, lambda: self.end(process) if era == self.era else None)
        elif not process.ignores_term and not process.hung:
            self.after(process.stop_takes_s, lambda: self.end(process, code=0))

    # -- probes

    def _watch(self, slot: Slot, run: int, startup: bool) -> None:
        kinds = [ProbeKind.STARTUP] if startup else [ProbeKind.READINESS, ProbeKind.LIVENESS]
        watching = self.watching[slot, run] = Watching(run, startup, kinds)
        if startup and self.service(slot, run).probe.startup is None:
            self.after(0.001, lambda: self._accept(slot, watching))
            return
        for kind in kinds:
            probe = probe_of(self.service(slot, run), kind)
            if probe is not None:
                first = self.rng.uniform(0.0, probe.interval)
                self.after(first, lambda kind=kind: self._probe(slot, watching, kind))  # type: ignore[misc]

    def _accept(self, slot: Slot, watching: Watching) -> None:
        """A connection waits in its queue until the process takes it in."""
        process = self.process_of(slot, watching.run)
        if self.watching.get((slot, watching.run)) is not watching or process is None:
            return
        if process.hung or self.now < process.up_at:
            self.at(max(self.now + 0.1, process.up_at), lambda: self._accept(slot, watching))
            return
        kind = ProbeKind.STARTUP
        self.dispatch(Probed(ProbeResult(slot, kind, watching.run, True, "accepted", 0.001, 0.0)))

    def _probe(self, slot: Slot, watching: Watching, kind: ProbeKind) -> None:
        if self.watching.get((slot, watching.run)) is not watching:
            return
        probe = probe_of(self.service(slot, watching.run), kind)
        process = self.process_of(slot, watching.run)
        if probe is None:
            return
        ok = process is not None and self.now >= process.up_at and not process.hung
        if kind is ProbeKind.READINESS and process is not None and process.unready:
            ok = False
        late = max(0.0, self.starved_until - self.now)
        took = self.rng.uniform(0.0005, 0.01) if ok else min(probe.timeout, 0.001)
        if process is not None and process.hung:
            took = probe.timeout
        if late and self.rng.random() < 0.5:
            ok = False  # the answer came, but everup was not there to read it
        result = ProbeResult(slot, kind, watching.run, ok, "ok" if ok else "no answer", took, late)

        watching.asked[kind] = self.now

        def report() -> None:
            watching.asked.pop(kind, None)
            if self.watching.get((slot, watching.run)) is watching:
                self.dispatch(Probed(result))

        self.after(took + late, report)
        self.after(max(probe.interval, took + late), lambda: self._probe(slot, watching, kind))

    def _measure_lag(self) -> None:
        if self.quit is None:
            lag = max(0.0, self.starved_until - self.now)
            self.dispatch(Lag(lag, 0.0))

    # -- faults

    def run_faults(self, seconds: float) -> None:
        """Random faults and random operators, for so long."""
        faults.run(self, seconds)

    def reload(self, spec: Spec) -> bool:
        """An operator applies another config; False where that makes no sense now."""
        busy = self.engine.reloading or self.engine.quitting or self.candidate
        if busy or any(r.how == "reload" for r in self.engine.rolling.values()):
            return False
        self.candidate = spec
        try:
            self.dispatch(Reload(spec, "operator"))
        except CannotChangeError:
            self.candidate = None
            return False
        return True

    def die(self, who: str) -> None:
        """kill -9 of the ``engine``, the ``keeper`` or ``both``; a new engine folds the journal
        and takes over what there is."""
        self.hang = None
        deaths.die(self, who)

    # -- ends

    def heal(self, within_s: float) -> None:
        """Faults stop and operators start everything: all must be ready within the bound."""
        self.starved_until = 0.0
        if self.hang is not None:
            hangs.end(self, self.hang)
        for process in self.processes.values():
            process.hung = process.unready = process.silent = False
        faults.leave_alone(self)
        self.dispatch(Start(tuple(self.engine.instances), "operator"))
        self.run_until(self.now + within_s, self.is_quiet)
        if not self.is_quiet():
            raise Violation(f"seed {self.seed}: a rollout does not end: {self.engine.rolling}")
        # A process that was born to crash soon can undo the reload that mends another's command:
        # the operator tries again.
        for _attempt in range(_MENDS):
            if not self._mend():
                break
            self.run_until(self.now + within_s, self.is_quiet)
        self.run_until(self.now + within_s, lambda: self.is_well() and self.is_quiet())
        if not self.is_well():
            bad = [
                f"{i.slot} {i.state.value} ({i.reason})"
                for i in self.engine.instances.values()
                if not self._is_well(i.slot)
            ]
            raise Violation(
                f"seed {self.seed}: not well {within_s:g} s after the last fault: {bad}"
            )

    def _mend(self) -> bool:
        """Apply a config without broken commands; False where there are none."""
        broken = [n for n, s in self.spec.service.items() if "broken" in s.command]
        if not broken:
            return False
        mended = {n: replace(self.spec.service[n], command=("serve",)) for n in broken}
        if not self.reload(replace(self.spec, service=self.spec.service | mended)):
            raise Violation(f"seed {self.seed}: it takes no reload when all is quiet")
        self.dispatch(Start(tuple(self.engine.instances), "operator"))
        return True

    def is_quiet(self) -> bool:
        return not self.engine.rolling and self.engine.reloading is None

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
