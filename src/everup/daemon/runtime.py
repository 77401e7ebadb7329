"""The engine process: the pure engine on an asyncio loop, with its adapters.

The only place where events come in, the clock is read and actions are carried out.
"""

import asyncio
import contextlib
import os
import random
import sys
import time
import traceback
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from everup import edges
from everup.adapters import aid_ground, aside, metrics
from everup.adapters import journal as journals
from everup.adapters.cgroups import Cgroups
from everup.adapters.fdstore import FdStore
from everup.adapters.journal import Journal
from everup.adapters.keeper_client import KeeperClient
from everup.adapters.logs import LogEvent, LogLoss, LogPump
from everup.adapters.place import Place
from everup.adapters.probes import Prober
from everup.adapters.sockets import SocketBank
from everup.daemon import beats, defect, handover, orders, takeover
from everup.daemon.aids import PREFIX, Aids
from everup.daemon.chores import Chores
from everup.daemon.crew import Crew
from everup.daemon.drains import Drains
from everup.daemon.ears import Ears
from everup.daemon.heartbeat import Heartbeat
from everup.daemon.keeper_watch import KeeperWatch
from everup.daemon.listening import Listening
from everup.daemon.performing import PERFORMERS
from everup.daemon.voice import Voice
from everup.engine.core import Engine
from everup.engine.fold import replicas
from everup.engine.records import CannotChangeError
from everup.keeper.doomed import DOOMED, Doomed
from everup.kernel.step import DefectError
from everup.model.action import Action, Record, RunHook, Spawn
from everup.model.entry import EntryKind
from everup.model.event import Event, HookDone, Probed, Reload, SpawnFailed, Tick
from everup.model.instance import Slot
from everup.model.journal import Kind
from everup.model.spec import Service, Spec

P = TypeVar("P")
_LEAVE_S = 1.0
_PREPARE_S = 10.0
KEEPER_LOST, CANNOT_BEGIN, REPLACED = 70, 71, 75
"""Exit statuses of an engine that leaves to another one."""


class Runtime:
    """One engine process from its first event to its last."""

    def __init__(self, spec: Spec, place: Place, keeper_fd: int) -> None:
        self.place = place
        self.boot, self.started_at, self.keeper_pid = journals.boot_id(), time.time(), 0
        doomed = Doomed(os.environ.get(DOOMED, ""))
        self.voice = Voice(sys.stdout)
        self.shelf = aside.Shelf(self.voice.say)
        # An engine that comes after another one must not wait for its journal.
        file, say = Path(place.journal), self.voice.say
        self.journal = Journal(file, say, hold=True, thread=True, after=doomed.gate)
        latest = self.journal.latest()
        # The files follow: a disk that does not answer holds nobody up.
        found, self.next_is_over = takeover.config_in_force(place, self.shelf, latest)
        self.engine = Engine(found or spec, random=random.random, scaled=replicas(latest))
        self.cgroups = Cgroups(place.state_dir, self._facility)
        self.metrics = metrics.Metrics(self.cgroups)
        store = FdStore.of(os.environ)
        self.keeper = KeeperClient.from_fd(keeper_fd, self._from_keeper, self._keeper_lost, store)
        self.bank = SocketBank(self.keeper.hold, self.keeper.drop, self._facility, place.state_dir)
        self.engine.can_steer = self._can_steer
        self.logs = LogPump(Path(place.logs), self._log_event_from_thread, after=doomed.wait)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: deque[Event] = deque()
        self._handling = self._broken = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished: asyncio.Future[int] | None = None
        self.began = asyncio.Event()
        self.hello: dict[str, Any] | None = None
        """The keeper's first message, once it has been followed by all that it holds."""
        self._coming: dict[str, Any] | None = None
        self._awaited: set[str] = set()
        self._taken: dict[str, int] = {}
        self._signals: list[int] = []
        self.crew = Crew(
            keeper=self.keeper,
            bank=self.bank,
            cgroups=self.cgroups,
            logs=self.logs,
            service=self.service,
            definition=self.definition,
            dispatch=self.dispatch,
            asked_at=self._asked_at,
            record=self.record,
            place=place,
            start=self.spawn_task,
        )
        self.drains = Drains(
            self.engine, self.bank, self.cgroups, self.crew, self.dispatch, self.spawn_task
        )
        self.chores, self.listening = Chores(self), Listening(self)
        self._performers = {**PERFORMERS, **edges.performers("edge")}
        self.aids = Aids(self.keeper, place, self.dispatch, self.spawn_task, self._prepare_aid)
        self.prober: Prober | None = None
        self.ears = Ears(self.engine, self.crew, self.cgroups, self.dispatch, self._refused)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None
        return self._loop

    def service(self, name: str) -> Service:
        return self.engine.services[name]

    def definition(self, slot: Slot, run: int) -> Service:
        """What the process was started with; of one that is gone, what the service is by now."""
        instance = self.engine.process(slot, run)
        return self.service(slot.service) if instance is None else self.engine.definition(instance)

    def _asked_at(self, slot: Slot, run: int) -> float | None:
        return None if self.prober is None else self.prober.asked_at(slot, run)

    def _can_steer(self, name: str) -> bool:
        return self.bank.steerable(self.service(name))

    # -- life

    async def run(self) -> int:
        """Until everything is down, or another engine takes over; returns the exit status."""
        loop = self._loop = asyncio.get_running_loop()
        self._finished = loop.create_future()
        self.prober = Prober(lambda result: self.dispatch(Probed(result)), self.crew.run_exec)
        self.logs.start()
        self.keeper.start(loop)
        KeeperWatch.begin(os.environ, loop, self.voice.say, self.keeper)
        Heartbeat(loop, self.dispatch, self.keeper.alive)
        self.spawn_task(self.chores.run())
        self.spawn_task(self.listening.run())
        status = 1
        try:
            status = await self._finished
            return status
        finally:
            for task in self._tasks:
                task.cancel()
            self.prober.close()
            await asyncio.to_thread(self.logs.close)
            if status not in (KEEPER_LOST, CANNOT_BEGIN, REPLACED):
                await asyncio.to_thread(self.cgroups.close)
            self.journal.close()
            with contextlib.suppress(OSError):
                await self.shelf.done(lambda: None, _LEAVE_S)
            await asyncio.to_thread(self.voice.close)
            if self.engine.finished:
                self.keeper.quit(0)
            if status == KEEPER_LOST:
                takeover.succeed(self, self.hello)

    async def _prepare_aid(self, name: str) -> Mapping[str, Any]:
        return await aside.run(_PREPARE_S, aid_ground.prepare, self.place, name)

    def spawn_task(self, work: Any) -> asyncio.Task[None]:
        """Run a coroutine until the engine ends."""
        task: asyncio.Task[None] = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _begin(self) -> None:
        assert self._coming is not None
        self.hello, self._coming = self._coming, None
        self.keeper_pid = self.hello["keeper"]
        if self.hello["engine_starts"] == 1 and not os.path.exists(self.place.journal):
            sys.stderr.write(f"everup: cannot write the journal {self.place.journal}\n")
            self._end(1)
            return
        held, self._taken = self._taken, {}
        try:
            takeover.begin(self, self.hello, held)
        except Exception:  # half a start is none; the next engine may do better, or tell again
            traceback.print_exc()
            self._end(CANNOT_BEGIN)
            return
        for number in self._signals:
            if not self.engine.quitting:
                orders.obey(self, number)
        self.spawn_task(self.chores.remember())
        for source in edges.sources():
            self.spawn_task(source(self))
        self.began.set()
        self.keeper.begun()
        beats.end()

    @property
    def leaving(self) -> bool:
        """Another engine is about to take over: nothing is begun any more, nor taken in."""
        return self._broken or (self._finished is not None and self._finished.done())

    def _end(self, status: int) -> None:
        assert self._finished is not None
        if not self._finished.done():
            self._finished.set_result(status)

    def held(self, name: str) -> int | None:
        return self.keeper.held_fd(name)

    def hold(self, name: str, fd: int) -> None:
        self.keeper.hold([name], [fd])

    def try_out(self, argv: list[str], engine: list[str], version: str) -> str | None:
        """Whether that keeper and that engine can run here; None: they can."""
        return handover.can_run(argv, engine, version)

    def replace(self, argv: list[str], engine: list[str], by: str, version: str) -> None:
        """Leave, and have the keeper become another version of itself (see its ``reexec``)."""
        self.record(Kind.UPGRADING, "everup", by=by, version=version)
        self.keeper.reexec(argv, engine)
        self.loop.call_later(0.1, self._end, REPLACED)  # the answer is still to be sent

    # -- events in, actions out

    def dispatch(self, event: Event) -> None:
        """Run one event, and what follows from carrying out its actions. None once it is over: the
        next engine is to find everything as the journal has it."""
        if self.leaving:
            return
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events and not self.leaving:
                event = self._events.popleft()
                now = time.monotonic()
                self._perform(self._decide(event, now), now)
        finally:
            self._handling = False
            self._arm()

    def _decide(self, event: Event, now: float) -> list[Action]:
        """Half a step is worse than none: after a defect this process takes nothing in any more
        and ends, and the next engine rebuilds its state from the journal."""
        try:
            return self.engine.handle(event, now)
        except (CannotChangeError, MemoryError):
            raise
        except Exception as error:
            self._broken = True
            config = takeover.digest(self.place.next) if isinstance(event, Reload) else ""
            defect.tell(self.journal, event, error, config)
            self.loop.call_later(defect.ANSWER_S, os._exit, defect.STATUS)
            raise DefectError(f"{type(error).__name__}: {error}") from error

    def _arm(self) -> None:
        due = None if self.leaving else self.engine.next_deadline()
        if due is None or self._loop is None:
            return
        if self._timer is not None:
            if self._timer_due <= due and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.dispatch(Tick())

    def record(self, kind: Kind, subject: str, durable: bool = False, **payload: Any) -> None:
        """Something to be known that is no event of the engine."""
        self._perform([Record(kind, subject, payload, durable)], time.monotonic())

    def write(self, kind: EntryKind[P], subject: str, payload: P) -> None:
        """Write to the journal what is no event of the engine."""
        self._perform([Record(kind, subject, kind.encode(payload), False)], time.monotonic())

    def now(self) -> float:
        """Give monotonic seconds, as the engine has them."""
        return time.monotonic()

    def _perform(self, actions: list[Action], now: float) -> None:
        """Carry out what was decided at ``now``, in monotonic seconds."""
        records = [action for action in actions if isinstance(action, Record)]
        for record in records:
            if record.kind is Kind.RELOADING:
                record.payload["config"] = takeover.digest(self.place.next)
        if records:
            self.journal.append(records, now)  # all intents of this step, before any of its actions
        for action in actions:
            if not isinstance(action, Record):
                self._try(action)
        if records:
            self.journal.kick()  # after the actions: they need not wait for the disk
        for record in records:
            self.voice.tell(record)

    def _try(self, action: Action) -> None:
        """One action that fails must not cost the others of its step, nor leave anybody waiting."""
        try:
            self._performers[type(action)](action, self)
        except Exception as error:
            detail = f"{type(error).__name__}: {error}"
            self.voice.say(f"{action}: {detail}")
            match action:
                case Spawn(slot=slot, run=run):
                    self.dispatch(SpawnFailed(slot, run, detail))
                case RunHook(slot=slot, run=run, hook=hook):
                    self.dispatch(HookDone(slot, run, hook, False, detail))

    def quit(self, status: int) -> None:
        """End for good: all services are down."""
        takeover.let_go(self)
        self.spawn_task(self._leave(status))

    async def _leave(self, status: int) -> None:
        """Nothing of everup's is left behind."""
        await self.aids.close()
        takeover.clear(self)
        self._end(status)

    # -- the keeper

    def _from_keeper(self, message: dict[str, Any], fds: list[int]) -> None:
        if self.leaving:  # not heard, so not acknowledged: the next engine hears it
            for fd in fds:
                os.close(fd)
            return
        match message["ev"]:
            case "hello":
                self._coming = message
                self._awaited = set(message["held"])
            case "held":
                if fds:
                    self._taken[message["name"]] = fds[0]
                self._awaited.discard(message["name"])
            case "signal" if message.get("again") and self.engine.quitting:
                pass  # the engine before had it; the journal told us
            case "signal":
                if self.hello is None:
                    self._signals.append(message["sig"])
                else:
                    orders.obey(self, message["sig"])
            case _ if str(message.get("id", "")).startswith(PREFIX):
                self.aids.reported(message)
            case "error":
                self.voice.say(f"keeper: {message['text']}")
            case _:
                self.listening.reported(message)
                self.crew.reported(message)
        if self._coming is not None and not self._awaited:
            self._begin()

    def _keeper_lost(self) -> None:
        if not self.engine.finished:  # else it has left, as it was told to
            self.voice.say("the keeper is gone; services go on")
            self._end(KEEPER_LOST)

    # -- other senses

    def _refused(self, detail: str, count: int) -> None:
        self.record(Kind.REFUSED, "everup", detail=detail, count=count)

    def _log_event_from_thread(self, event: LogEvent) -> None:
        if self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._log_event, event)

    def _log_event(self, event: LogEvent) -> None:
        kind = Kind.LOG_LOST if isinstance(event, LogLoss) else Kind.LOG_RECOVERED
        payload: dict[str, Any] = {
            "lost_lines": event.lost_lines,
            "lost_bytes": event.lost_bytes,
        }
        if isinstance(event, LogLoss):
            payload["reason"] = event.reason
        self.record(kind, event.slot, **payload)

    def _facility(self, subject: str, text: str) -> None:
        self.record(Kind.FACILITY, subject, detail=text)

    def sample(self) -> None:
        """Measure every running instance now."""
        self.metrics.sample(
            (slot, i.pid, self.crew.second(slot, i.run))
            for slot, i in self.engine.instances.items()
            if i.pid
        )
