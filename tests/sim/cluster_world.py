"""Several machines and one etcd in simulated time: the real room and the real engine of each, with
faults between and under them. One seed, one story."""

import heapq
import itertools
import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from everup.config import load
from everup.engine import leasing
from everup.engine.core import Engine
from everup.model.action import Bound, Signal, Spawn
from everup.model.event import Adopted, Exited, Leased, Spawned, SpawnFailed, Tick, Up
from everup.model.instance import ExitCause, ExitKind, Slot, State
from everup.model.journal import Entry
from everup.observer.bench import Bench
from everup.observer.events import Journaled
from everup.rooms.cluster.actions import Acquire, Join, Leave, Move, Release, Tell
from everup.rooms.cluster.config import Cluster
from everup.rooms.cluster.entries import MOVE_ASKED
from everup.rooms.cluster.facts import Local, Missed, NotTaken, Turned
from everup.rooms.cluster.lease import Item, Look
from everup.rooms.cluster.room import Member

SLOT = Slot("db", 1)
CONFIG = """
[cluster]
name = "shop"
node = "{node}"
etcd = ["http://e1:2379", "http://e2:2379", "http://e3:2379"]
ttl = "5s"
loop_wait = "1s"
retry_timeout = "1500ms"
[service.db]
command = ["serve"]
singleton = true
stop_timeout = "2s"
"""
Turn = Generator[float, None, None]


class LostError(Exception):
    """No answer came; whether it was done nobody knows."""


class Etcd:
    """What a majority has agreed on: a session ends some time after it was over, never before."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.items: dict[str, Item] = {}
        self.sessions: dict[int, float] = {}
        self.revision = 1
        self.term = 1

    def expire(self) -> None:
        """End sessions, each up to a second late."""
        for session, over in list(self.sessions.items()):
            if self._world.now >= over + self._world.rng.random():
                self.end(session)

    def begin(self, ttl_s: float) -> int:
        self.revision += 1
        self.sessions[self.revision] = self._world.now + ttl_s
        return self.revision

    def renew(self, session: int, ttl_s: float) -> float:
        if session not in self.sessions:
            return 0.0
        self.sessions[session] = self._world.now + ttl_s
        return ttl_s

    def end(self, session: int) -> None:
        self.sessions.pop(session, None)
        self.items = {k: i for k, i in self.items.items() if i.session != session}

    def acquire(self, key: str, value: str, session: int, drop: tuple[str, ...] = ()) -> bool:
        if key in self.items or session not in self.sessions:
            return False
        self.revision += 1
        self.items[key] = Item(value, self.revision, session)
        for other in drop:
            self.items.pop(other, None)
        return True

    def release(self, key: str, token: int) -> bool:
        if key not in self.items or self.items[key].token != token:
            return False
        self.revision += 1
        del self.items[key]
        return True

    def look(self) -> Look:
        return Look(self.revision, self.term, dict(self.items))


@dataclass
class Process:
    """What the keeper of a machine has started."""

    run: int
    fence: int
    until: float


@dataclass
class Node:
    """One machine. ``stopped_until``: by simulated time, of each of its processes of everup."""

    name: str
    world: "World"
    spec: Any
    slept_s: float = 0.0
    dead: bool = False
    asleep: bool = False
    cut: bool = False
    stopped_until: dict[str, float] = field(default_factory=dict)
    processes: dict[int, Process] = field(default_factory=dict)
    life: int = 0
    """Counts the observers: a turn of one before does nothing any more."""
    session: int = 0
    pid: int = 100
    unborn: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.begin_engine()
        self.begin_observer()

    @property
    def mono(self) -> float:
        return self.world.now - self.slept_s

    @property
    def table(self) -> Cluster:
        table: Cluster = self.spec.cluster
        return table

    # -- the engine and the keeper

    def begin_engine(self) -> None:
        self.engine = Engine(self.spec, random=self.world.rng.random)
        last = max(self.processes, default=self.pid)
        adopted = tuple(
            Adopted(SLOT, p.run, 1, State.READY, self.mono, lane=1) for p in self.processes.values()
        )
        self.handle(Up(adopted=adopted, runs=((SLOT, last),)))

    def handle(self, event: Any) -> None:
        for action in self.engine.handle(event, self.mono):
            self._perform(action)
        self.engine.kernel.check_invariants()

    def _perform(self, action: Any) -> None:
        rng, after = self.world.rng, self.world.after
        match action:
            case Spawn(run=run, fence=fence, until=until):
                self.unborn.add(run)
                after(rng.uniform(0, 0.2), lambda: self._born(run, fence, until))
            case Bound(run=run, until=until) if run in self.processes:
                self.processes[run].until = until
            case Signal(run=run, signal="SIGKILL") if run in self.unborn:
                self.unborn.discard(run)  # asked for in order: it is killed once it is there
                after(0.0, lambda: self.say_failed(run))
            case Signal(run=run, signal=signal):
                wait_s = 0.0 if signal == "SIGKILL" else rng.uniform(0, 3.0)
                after(wait_s, lambda: self.end(run, f"by {signal}"))
            case _:
                pass

    def _born(self, run: int, fence: int, until: float) -> None:
        if self.asleep:
            self.world.after(0.05, lambda: self._born(run, fence, until))
            return
        if self.dead or run not in self.unborn:
            return
        self.unborn.discard(run)
        if self.world.now >= until:
            self.say_failed(run)
            return
        assert fence, "a singleton is started by a token only"
        self.processes[run] = Process(run, fence, until)
        self.pid = max(self.pid, run)
        self.world.served(self, fence)
        engine = self.engine
        self.world.when(self, "engine", lambda: self._tell(engine, Spawned(SLOT, run, run + 1)))

    def say_failed(self, run: int) -> None:
        engine, failed = self.engine, SpawnFailed(SLOT, run, "its time is over")
        self.world.when(self, "engine", lambda: self._tell(engine, failed))

    def end(self, run: int, why: str) -> None:
        if self.dead or self.asleep or self.processes.pop(run, None) is None:
            return
        self.world.say(f"{self.name}: process {run} ended {why}")
        cause = ExitCause(ExitKind.SIGNAL, 9)
        engine = self.engine
        self.world.when(self, "engine", lambda: self._tell(engine, Exited(SLOT, run, cause)))

    def _tell(self, engine: Engine, event: Any) -> None:
        if engine is self.engine and not self.dead:
            self.handle(event)

    def keep(self) -> None:
        """What the keeper does, whoever else is dead."""
        if self.dead or self.asleep:
            return
        for run, process in list(self.processes.items()):
            if self.world.now >= process.until:
                self.end(run, "by the keeper: its time was over")
        if not self.is_stopped("engine"):
            due = self.engine.next_deadline()
            if due is not None and due <= self.mono:
                self.handle(Tick())

    def is_stopped(self, what: str) -> bool:
        return self.dead or self.asleep or self.stopped_until.get(what, 0.0) > self.world.now

    # -- the observer

    def begin_observer(self) -> None:
        self.life += 1
        self.session = 0
        self.todo: list[Any] = []
        before = self.bench.journal if self.life > 1 else []
        self.bench = Bench(
            lambda: {"cluster": Member()}, self.spec, perform=lambda _, a: self.todo.append(a)
        )
        self.bench.journal = list(before)
        self.bench.begin()
        self.world.run(self, self.life, self._turns(self.life))

    def _turns(self, life: int) -> Turn:
        rng = self.world.rng
        while life == self.life:
            try:
                yield from self._turn()
                wait_s = 0.05 if self.todo else self.table.loop_wait
            except LostError:
                self.bench.now = self.mono
                self.bench.handle(Missed("no answer"))
                wait_s = 0.5
            self.todo.clear()
            yield wait_s * rng.uniform(0.9, 1.1)

    def _turn(self) -> Turn:
        table, etcd = self.table, self.world.etcd
        asked_at, until = self.world.now, None
        if self.session:
            ttl_s = yield from self._ask(lambda: etcd.renew(self.session, table.ttl))
            if ttl_s:
                until = asked_at + ttl_s - table.margin_s
            else:
                self.session = 0
        look = yield from self._ask(etcd.look)
        local = yield from self._engine(lambda: leasing.local(self.engine, "db"))
        self.bench.now = self.mono
        known = {"db": Local(**local)}
        self.bench.handle(Turned(look, self.name, until, self.session, False, known))
        todo = sorted(self.todo, key=lambda action: not isinstance(action, Tell))
        for action in todo:
            yield from self._do(action)
        self.todo = [a for a in todo if not isinstance(a, Tell)]

    def _do(self, action: Any) -> Turn:
        etcd, table = self.world.etcd, self.table
        match action:
            case Tell():
                yield from self._engine(lambda: self._take(action))
            case Join(session=0):
                session = yield from self._ask(lambda: etcd.begin(table.ttl))
                said = f'{{"id": "{self.name}"}}'
                key = f"members/{self.name}"
                if (yield from self._ask(lambda: etcd.acquire(key, said, session))):
                    self.session = session
            case Join(session=session):
                self.session = session
            case Acquire(key=key, drop=drop):
                yield from self._ask(lambda: etcd.acquire(key, self.name, self.session, drop))
            case Release(key=key, token=token):
                yield from self._ask(lambda: etcd.release(key, token))
            case Move(service=service, to=to):
                session = yield from self._ask(lambda: etcd.begin(120.0))
                key = f"moves/{service}"
                yield from self._ask(lambda: etcd.acquire(key, to, session))
            case Leave():
                yield from self._ask(lambda: etcd.end(self.session))

    def _take(self, action: Tell) -> None:
        margin_s = self.table.margin_s
        until = self.mono + action.until - self.world.now
        for say in action.says:
            event = Leased("db", say.token, until, action.until, until - margin_s, say.yields)
            if say.token and not say.yields and self.world.rng.random() < self.world.refuses:
                lease = self.engine.leases.get("db")
                if lease is None or lease.token != say.token:
                    event = leasing.given_up(event)
                    self.bench.handle(NotTaken("db", say.token, "a reload is under way"))
            self.handle(event)

    def _ask(self, request: Callable[[], Any]) -> Generator[float, None, Any]:
        """Ask etcd: it may be done late, or done though no answer comes."""
        rng = self.world.rng
        yield rng.uniform(0.001, 0.02)
        lossy = self.cut or self.world.etcd_away
        if lossy or (self.world.faulty and rng.random() < 0.02):
            if not lossy and rng.random() < 0.6:
                self.world.after(rng.choice((0.0, 1.0, 4.0)), request)
            yield self.table.retry_timeout
            raise LostError
        answer = request()
        yield rng.uniform(0.001, 0.02)
        return answer

    def _engine(self, request: Callable[[], Any]) -> Generator[float, None, Any]:
        """Ask the engine: one that is stopped does it later, when nobody waits any more."""
        yield 0.001
        if self.is_stopped("engine"):
            self.world.when(self, "engine", request)
            yield self.table.retry_timeout
            raise LostError
        return request()


class World:
    """All of it. ``faulty``: faults happen."""

    def __init__(self, seed: int, count: int = 3) -> None:
        self.rng = random.Random(seed)
        self.now, self.faulty, self.etcd_away, self.refuses = 1000.0, True, False, 0.0
        self.story: list[str] = []
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self.newest = 0
        self.owners: list[str] = []
        self.etcd = Etcd(self)
        self.nodes = [
            Node(
                f"n{n}", self, load(CONFIG.format(node=f"n{n}"), path="everup.toml", directory="/")
            )
            for n in range(1, count + 1)
        ]

    def say(self, text: str) -> None:
        self.story.append(f"{self.now:.3f} {text}")

    def after(self, seconds: float, what: Callable[[], Any]) -> None:
        heapq.heappush(self._heap, (self.now + seconds, next(self._order), what))

    def when(self, node: Node, what: str, do: Callable[[], Any]) -> None:
        """Have a process of a machine do something, as soon as it runs."""
        if node.is_stopped(what):
            self.after(0.05, lambda: self.when(node, what, do))
        else:
            do()

    def run(self, node: Node, life: int, turn: Turn) -> None:
        """Carry a generator on, over the times at which its process is stopped."""

        def step() -> None:
            if life != node.life:
                return
            if node.is_stopped("observer"):
                self.after(0.05, step)
            elif (wait_s := next(turn, None)) is not None:
                self.after(wait_s, step)

        self.after(self.rng.uniform(0.1, 1.0), step)

    def served(self, node: Node, fence: int) -> None:
        self.say(f"{node.name} serves by {fence}")
        assert fence >= self.newest, f"{node.name} serves by {fence} after {self.newest}"
        self.newest = fence
        self.owners.append(node.name)

    def check(self) -> None:
        """At most one owner at any time."""
        serving = [n.name for n in self.nodes if n.processes and not (n.dead or n.asleep)]
        assert len(serving) <= 1, f"{serving} serve at one time:\n" + "\n".join(self.story[-60:])

    def go(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now = min(self.now + 0.02, until)
            self.etcd.expire()
            for node in self.nodes:
                node.keep()
            while self._heap and self._heap[0][0] <= self.now:
                heapq.heappop(self._heap)[2]()
                self.check()
            if self.faulty and self.rng.random() < 0.006:
                self.fault(self.rng.choice(self.nodes))
            self.check()

    # -- faults

    def fault(self, node: Node) -> None:
        """Let one thing go wrong, and have it mended later."""
        long_s = self.rng.choice((0.5, 3.0, 7.0, 20.0))
        kind = self.rng.choice(
            ("engine dies", "observer dies", "engine stops", "observer stops", "both stop", "cut",
             "etcd", "dies", "sleeps", "crash", "move", "refuse"),
        )  # fmt: skip
        self.say(f"fault: {kind} {node.name} for {long_s:g}")
        if node.dead or node.asleep:
            return
        match kind:
            case "engine dies":
                node.begin_engine()
            case "observer dies":
                node.begin_observer()
            case "engine stops" | "observer stops":
                node.stopped_until[kind.split()[0]] = self.now + long_s
            case "both stop":
                node.stopped_until = {"engine": self.now + long_s, "observer": self.now + long_s}
            case "cut":
                node.cut = True
                self.after(long_s, lambda: setattr(node, "cut", False))
            case "etcd":
                self.etcd_away = True
                self.after(long_s, lambda: setattr(self, "etcd_away", False))
            case "dies":
                node.dead = True
                node.processes.clear()
                node.unborn.clear()
                self.after(long_s, lambda: self._boot(node))
            case "sleeps":
                node.asleep = True
                self.after(long_s, lambda: self._wake(node, long_s))
            case "crash":
                for run in list(node.processes):
                    node.end(run, "by itself")
            case "refuse":
                self.refuses = 0.5
                self.after(long_s, lambda: setattr(self, "refuses", 0.0))
            case "move":
                said: Mapping[str, Any] = {"to": self.rng.choice(self.nodes).name, "by": "op"}
                entry = Entry(10**6, 0.0, 0.0, "", MOVE_ASKED.value, "db", dict(said))
                node.bench.handle(Journaled(entry, past=False))

    def _boot(self, node: Node) -> None:
        node.dead = False
        node.stopped_until.clear()
        node.begin_engine()
        node.begin_observer()

    def _wake(self, node: Node, slept_s: float) -> None:
        node.asleep = False
        node.slept_s += slept_s
        node.keep()

    def heal(self, seconds: float) -> None:
        """No more faults."""
        self.faulty = False
        self.go(seconds)

    def serving(self) -> list[str]:
        return [node.name for node in self.nodes if node.processes and not node.dead]
