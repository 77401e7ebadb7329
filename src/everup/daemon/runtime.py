"""The engine process: the pure engine on an asyncio loop, with its adapters.

The only place where events come in, the clock is read and actions are carried out.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from everup.adapters import journal as journals
from everup.adapters import metrics, targets
from everup.adapters.cgroups import Cgroups
from everup.adapters.journal import Journal
from everup.adapters.keeper_client import KeeperClient
from everup.adapters.logs import LogEvent, LogLoss, LogPump
from everup.adapters.place import Place
from everup.adapters.pressure import cpu_pressure
from everup.adapters.probes import Prober
from everup.adapters.sockets import SocketBank
from everup.daemon.crew import Crew
from everup.daemon.ears import Ears
from everup.daemon.recheck import config_problems
from everup.daemon.voice import Voice
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
    Probed,
    SpawnFailed,
    Tick,
)
from everup.model.instance import ExitCause, ExitKind, Slot
from everup.model.journal import Kind
from everup.model.signal import ProbeKind
from everup.model.spec import Service, Spec

_LAG_EVERY_S = 0.5
_DRAIN_EVERY_S = 0.1
_HOUSEKEEPING_S = 5.0
_PRUNE_EVERY_S = 600.0
_MAIN_GRACE_S = 1.0


class Runtime:
    """One engine process from its first event to its last."""

    def __init__(self, spec: Spec, place: Place, keeper_fd: int) -> None:
        self.spec = spec
        self.place = place
        self.boot = journals.boot_id()
        self.started_at = time.time()
        self.keeper_pid = 0
        self.voice = Voice(sys.stdout)
        self.journal = Journal(Path(place.journal), self._journal_said)
        latest = journals.latest(self.journal.path)
        self._latest = latest
        self.engine = Engine(_scaled(spec, replicas(latest)), random=random.random)
        self.cgroups = Cgroups(place.state_dir, self._facility)
        self.metrics = metrics.Metrics(self.cgroups)
        self.keeper = KeeperClient.from_fd(keeper_fd, self._from_keeper, self._keeper_lost)
        self.bank = SocketBank(self.keeper.hold, self.keeper.drop, self._facility)
        self.logs = LogPump(Path(place.logs), self._log_event_from_thread)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: deque[Event] = deque()
        self._handling = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._drains: dict[Slot, asyncio.Task[None]] = {}
        self._finished: asyncio.Future[int] | None = None
        self.began = asyncio.Event()
        self._hello: dict[str, Any] | None = None
        self._awaited: set[str] = set()
        self._taken: dict[str, int] = {}
        self._signals: list[int] = []
        self.crew = Crew(
            keeper=self.keeper,
            bank=self.bank,
            cgroups=self.cgroups,
            logs=self.logs,
            service=self.service,
            dispatch=self.dispatch,
            config_dir=place.config_dir,
            notify_path=place.notify_socket,
        )
        self.prober: Prober | None = None
        self.ears = Ears(self.engine, self.cgroups, self.dispatch, self._refused)

    def service(self, name: str) -> Service:
        return self.engine.services[name]

    # -- life

    async def run(self) -> int:
        """Until everything is down; returns the exit status."""
        loop = self._loop = asyncio.get_running_loop()
        self._finished = loop.create_future()
        self.prober = Prober(lambda result: self.dispatch(Probed(result)), self.crew.run_exec)
        self.logs.start()
        self.keeper.start(loop)
        self._lag_due = loop.time() + _LAG_EVERY_S
        loop.call_at(self._lag_due, self._measure_lag)
        self._spawn_task(self._housekeeping())
        try:
            return await self._finished
        finally:
            for task in self._tasks:
                task.cancel()
            self.prober.close()
            await asyncio.to_thread(self.logs.close)
            await asyncio.to_thread(self.cgroups.close)
            self.journal.close()
            await asyncio.to_thread(self.voice.close)
            if self.engine.finished:
                self.keeper.quit(0)

    def _spawn_task(self, work: Any) -> asyncio.Task[None]:
        assert self._loop is not None
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _begin(self) -> None:
        """The keeper has told all it holds: start, or take over."""
        assert self._hello is not None
        hello, self._hello = self._hello, None
        self.keeper_pid = hello["keeper"]
        self._open_notify()
        for name in [n for n in self._taken if n.startswith("sock:")]:
            self.bank.adopt(name, self._taken.pop(name))
        self.bank.forget_unused(list(self.engine.services))
        facts, ended = [], []
        for child in hello["children"]:
            if child["meta"]["role"] == "main" and self._known(child):
                self.crew.adopt(child, self._taken)
                slot = Slot.parse(child["meta"]["slot"])
                restarts = int(child["meta"].get("restarts", 0))
                facts.append(ChildFact(slot, child["meta"]["run"], child["pid"], restarts))
            elif "exit" not in child:
                self.keeper.signal(child["id"], signal.SIGKILL, "all")
            if "exit" in child:
                ended.append(child["exit"])
        for name in list(self._taken):  # pipes of processes that are gone
            os.close(self._taken.pop(name))
            self.keeper.drop([name])
        takeover = hello["engine_starts"] > 1
        if not takeover:
            for name, pids in self.cgroups.end_leftovers().items():
                self._perform([Record(Kind.LEFTOVER, name, {"pids": pids})])
        if self.journal.set_aside is not None:
            note = f"the journal was corrupt; it is kept as {self.journal.set_aside}"
            self._facility("everup", note)
        started = Record(
            Kind.ENGINE_STARTED,
            "everup",
            {"pid": os.getpid(), "keeper": self.keeper_pid, "takeover": takeover},
        )
        self._perform([started])
        latest = self._latest if takeover else [e for e in self._latest if not _stale(e)]
        self._latest = []
        self.dispatch(fold(self.engine.spec, latest, facts, self.boot, time.monotonic()))
        for report in ended:
            self.crew.reported(report)
        for number in self._signals:
            if not self.engine.quitting:
                self._signal(number)
        self.began.set()

    def _known(self, child: dict[str, Any]) -> bool:
        return Slot.parse(child["meta"]["slot"]) in self.engine.instances

    def _open_notify(self) -> None:
        held = self._taken.pop("notify", None)
        fd = self.ears.open(self.place.notify_socket, held)
        if held is None:
            self.keeper.hold(["notify"], [fd])
        assert self._loop is not None
        self._loop.add_reader(fd, self.ears.readable)

    def _refused(self, detail: str, count: int) -> None:
        self._perform([Record(Kind.REFUSED, "everup", {"detail": detail, "count": count})])

    # -- events in, actions out

    def dispatch(self, event: Event) -> None:
        """Run one event, and what follows from carrying out its actions."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                event = self._events.popleft()
                self._perform(self.engine.handle(event, time.monotonic()))
        finally:
            self._handling = False
            self._arm()

    def _arm(self) -> None:
        due = self.engine.next_deadline()
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

    def _perform(self, actions: list[Action]) -> None:
        records = [action for action in actions if isinstance(action, Record)]
        if records:
            self.journal.append(records)  # all intents of this step, before any of its actions
        for action in actions:
            if not isinstance(action, Record):
                self._try(action)
        for record in records:
            self.voice.tell(record)

    def _try(self, action: Action) -> None:
        """One action that fails must not cost the others of its step, nor leave anybody waiting."""
        try:
            self._do(action)
        except Exception as error:
            detail = f"{type(error).__name__}: {error}"
            self.voice.say(f"{action}: {detail}")
            match action:
                case Spawn(slot=slot, run=run):
                    self.dispatch(SpawnFailed(slot, run, detail))
                case RunHook(slot=slot, run=run, hook=hook):
                    self.dispatch(HookDone(slot, run, hook, False, detail))

    def _do(self, action: Action) -> None:
        match action:
            case Spawn(slot=slot):
                self.crew.spawn(action, self.engine.instances[slot].restarts)
            case Signal():
                self.crew.signal(action)
            case SetBalance(service=name, replicas=chosen):
                self.bank.steer(self.service(name), chosen)
            case Watch(slot=slot, run=run, startup=startup):
                self._watch(slot, run, startup)
            case Unwatch(slot=slot):
                assert self.prober is not None
                self.prober.stop(slot)
                if drain := self._drains.pop(slot, None):
                    drain.cancel()
            case RunHook():
                self.crew.run_hook(action)
            case OpenSockets(service=name, slots=slots):
                self._open_sockets(name, slots)
            case EmptyQueue(slot=slot):
                self.bank.empty(self.service(slot.service), slot.replica)
            case CloseSockets(service=name):
                self.bank.close(self.service(name))
            case WatchDrain(slot=slot, run=run):
                self._drains[slot] = self._spawn_task(self._drain(slot, run))
            case MainPid(slot=slot, run=run, pid=pid):
                self.crew.main_pid(slot, run, pid)
                self._watch_main(slot, run, pid)
            case Forget(slot=slot):
                self.cgroups.forget(slot)
            case Quit(status=status):
                self._quit(status)
            case Record():
                pass

    def _open_sockets(self, name: str, slots: int) -> None:
        try:
            self.bank.open(self.service(name), slots)
        except OSError as error:  # told again, and tried again, with each start of the service
            detail = error.strerror or str(error)
            self._perform([Record(Kind.SOCKETS_FAILED, name, {"detail": detail})])

    def _watch(self, slot: Slot, run: int, startup: bool) -> None:
        assert self.prober is not None
        service = self.service(slot.service)
        kinds = [ProbeKind.STARTUP] if startup else [ProbeKind.READINESS, ProbeKind.LIVENESS]
        for kind in kinds:
            probe = probe_of(service, kind)
            if probe is not None:
                self.prober.start(targets.target(service, slot, kind, run, probe))

    async def _drain(self, slot: Slot, run: int) -> None:
        while True:
            await asyncio.sleep(_DRAIN_EVERY_S)
            pids = self.cgroups.pids(slot) or [self.engine.instances[slot].pid]
            if await asyncio.to_thread(metrics.open_connections, pids) == 0:
                self.dispatch(Drained(slot, run))
                return

    def _watch_main(self, slot: Slot, run: int, pid: int) -> None:
        """The new main process may be somebody else's child: its end is seen by pidfd."""
        assert self._loop is not None
        loop = self._loop
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return

        def ended() -> None:
            loop.remove_reader(handle)
            os.close(handle)
            now = self.engine.instances.get(slot)
            if now is None or (now.run, now.pid) != (run, pid):
                return  # it has handed over in its turn
            payload = {"run": run, "reason": f"its main process {pid} has ended"}
            self._perform([Record(Kind.KILLING, str(slot), payload)])
            # Whatever is left of the instance goes too; with its parent gone the new main
            # process becomes the keeper's child, which then knows how it ended.
            self.crew.signal(Signal(slot, run, "SIGKILL", "all"))
            lost = Exited(slot, run, ExitCause(ExitKind.LOST))
            loop.call_later(_MAIN_GRACE_S, self.dispatch, lost)

        loop.add_reader(handle, ended)

    def _quit(self, status: int) -> None:
        for slot in self.engine.instances:
            self.cgroups.forget(slot)
        self.keeper.drop(["notify"])
        for path in (self.place.notify_socket, self.place.api_socket):
            with contextlib.suppress(OSError):
                os.unlink(path)
        assert self._finished is not None
        if not self._finished.done():
            self._finished.set_result(status)

    # -- the keeper

    def _from_keeper(self, message: dict[str, Any], fds: list[int]) -> None:
        match message["ev"]:
            case "hello":
                self._hello = message
                self._awaited = set(message["held"])
            case "held":
                self._taken[message["name"]] = fds[0]
                self._awaited.discard(message["name"])
            case "signal" if message.get("again") and self.engine.quitting:
                pass  # the engine before had it; the journal told us
            case "signal":
                if self._hello is not None:
                    self._signals.append(message["sig"])
                else:
                    self._signal(message["sig"])
            case "error":
                self.voice.say(f"keeper: {message['text']}")
            case _:
                self.crew.reported(message)
        if self._hello is not None and not self._awaited:
            self._begin()

    def _keeper_lost(self) -> None:
        # Without a keeper nobody reaps or holds: leave; instances go on with their own copies.
        self.voice.say("the keeper is gone; the engine ends, services go on")
        assert self._finished is not None
        if not self._finished.done():
            self._finished.set_result(70)

    def _signal(self, number: int) -> None:
        name = signal.Signals(number).name
        match number:
            case signal.SIGTERM | signal.SIGINT | signal.SIGQUIT:
                if self.engine.quitting:
                    self._hurry(name)
                else:
                    self.dispatch(Down(by=name))
            case signal.SIGHUP:
                self._check_config()

    def _hurry(self, by: str) -> None:
        """Asked a second time: no more patience."""
        self.voice.say(f"{by} again: killing what is left")
        for instance in self.engine.instances.values():
            if instance.has_process:
                payload = {"run": instance.run, "reason": f"{by} a second time"}
                self._perform([Record(Kind.KILLING, str(instance.slot), payload)])
                self.crew.signal(Signal(instance.slot, instance.run, "SIGKILL", "all"))

    def _check_config(self) -> None:
        problems = config_problems(self.place)
        if problems:
            payload = {"file": self.place.config, "problems": problems[:50]}
            self._perform([Record(Kind.CONFIG, "everup", payload)])
        else:
            self.voice.say("the config file is valid; a changed one takes effect at the next up")

    # -- other senses

    def _measure_lag(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        self.dispatch(Lag(max(0.0, now - self._lag_due), cpu_pressure()))
        self._lag_due = now + _LAG_EVERY_S
        self._loop.call_at(self._lag_due, self._measure_lag)

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
        self._perform([Record(kind, event.slot, payload)])

    def _journal_said(self, text: str) -> None:
        self.voice.say(text)

    def _facility(self, subject: str, text: str) -> None:
        self._perform([Record(Kind.FACILITY, subject, {"detail": text})])

    async def _housekeeping(self) -> None:
        sampled = pruned = -1e9
        while True:
            now = time.monotonic()
            try:
                if now - sampled >= self.spec.everup.metrics_interval:
                    sampled = now
                    self.sample()
                if now - pruned >= _PRUNE_EVERY_S:
                    pruned = now
                    self.journal.prune(self.spec.everup.journal_retention)
                self.journal.retry()
            except Exception as error:
                self.voice.say(f"housekeeping: {type(error).__name__}: {error}")
            await asyncio.sleep(min(_HOUSEKEEPING_S, self.spec.everup.metrics_interval))

    def sample(self) -> None:
        """Measure every running instance now."""
        running = [(slot, i.pid) for slot, i in self.engine.instances.items() if i.pid]
        self.metrics.sample(running)


def _stale(entry: Any) -> bool:
    """After a fresh start, a oneshot's success of an earlier run of everup counts no more."""
    return bool(entry.kind == Kind.STOPPED.value)


def _scaled(spec: Spec, counts: dict[str, int]) -> Spec:
    services = {
        name: replace(service, replicas=counts[name]) if name in counts else service
        for name, service in spec.service.items()
    }
    return replace(spec, service=services)
