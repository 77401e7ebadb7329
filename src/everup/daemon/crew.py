"""The processes of the services, as the keeper runs them for us: instances, hooks, exec probes.

Turns the engine's actions into requests to the keeper and the keeper's reports into events.
"""

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from everup.adapters import launch
from everup.adapters.cgroups import Cgroups, Placement
from everup.adapters.keeper_client import KeeperClient
from everup.adapters.launch import LaunchError
from everup.adapters.logs import LogPump
from everup.adapters.place import Place
from everup.adapters.sockets import SocketBank
from everup.daemon import fencing, preparing, said
from everup.model.action import GiveTime, RunHook, Signal, Spawn
from everup.model.event import Event, Exited, Hook, HookDone, Left, Spawned, SpawnFailed
from everup.model.instance import ExitCause, ExitKind, Slot
from everup.model.journal import Kind
from everup.model.signal import ProbeTarget
from everup.model.spec import Log, Service

_USEC = 1_000_000
_NAMED = 20
"""So many of the processes that are left are told by name."""


class Crew:
    """``dispatch`` takes the events; ``service`` looks a service up by name, ``definition`` the one
    that a process was started with; ``asked_at`` says since when a probe of it has waited;
    ``record`` writes into the journal what is no event."""

    def __init__(
        self,
        *,
        keeper: KeeperClient,
        bank: SocketBank,
        cgroups: Cgroups,
        logs: LogPump,
        service: Callable[[str], Service],
        definition: Callable[[Slot, int], Service],
        dispatch: Callable[[Event], None],
        asked_at: Callable[[Slot, int], float | None],
        record: Callable[..., None],
        place: Place,
        start: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._keeper = keeper
        self._bank = bank
        self._cgroups = cgroups
        self._logs = logs
        self._service = service
        self._definition = definition
        self._dispatch = dispatch
        self._asked_at = asked_at
        self._record = record
        self._place = place
        self._preparing = preparing.Preparing(start)
        self._groups: dict[Slot, dict[int, bool]] = {}
        """By slot, the living runs and whether each is in the second control group of the slot:
        another run has the first."""
        self._lanes: dict[tuple[Slot, int], int] = {}
        self._last: dict[Slot, bool] = {}
        self._pipes: dict[str, list[int]] = {}
        """Inodes of the output pipes of children whose start is not confirmed."""
        self._sockets: dict[str, list[int]] = {}
        """The same of the listening sockets."""
        self._told_failed: set[str] = set()
        """Failed starts whose process has yet to be reaped."""
        self._asked: dict[str, dict[str, Any]] = {}
        self._requests: dict[Slot, tuple[Service, Placement, dict[str, Any]]] = {}
        self._hook_runs: dict[str, int] = {}
        """The number under which the output of each running hook is known."""
        self._hook_timers: dict[str, asyncio.TimerHandle] = {}
        self._commands: dict[str, asyncio.Future[tuple[int | None, str]]] = {}
        self._numbers = itertools.count(1)

    # -- actions

    def spawn(self, action: Spawn, service: Service, restarts: int, gen: int) -> None:
        """Start the main process of an instance; a failure comes back as an event."""
        slot, run, lane = action.slot, action.run, action.lane or action.slot.replica
        second = self._free_group(slot)
        try:
            if service.listen and not self._bank.ready(service, lane):
                self._bank.open(service, max(lane, service.slots))
            make = self._main_request(service, slot, lane, second)
        except OSError as error:
            self._dispatch(SpawnFailed(slot, run, _plain(error)))
            return

        def go(request: dict[str, Any]) -> None:
            self._spawn(fencing.fenced(request, action), service, slot, run, lane, (restarts, gen))

        def failed(detail: str) -> None:
            self._gone(slot, run)
            self._dispatch(SpawnFailed(slot, run, detail))

        self._groups.setdefault(slot, {})[run] = self._last[slot] = second
        self._preparing.make(_main_id(slot, run), service, make, go, failed)

    def _spawn(
        self,
        request: dict[str, Any],
        service: Service,
        slot: Slot,
        run: int,
        lane: int,
        counts: tuple[int, int],
    ) -> None:
        restarts, gen = counts
        request = request | {"env": request["env"] | {"EVERUP_RUN": str(run)}}
        meta = {
            "role": "main", "slot": str(slot), "run": run, "restarts": restarts,
            "lane": lane, "gen": gen,
        }  # fmt: skip
        if (service.name, lane) not in {(s.service, x) for (s, _), x in self._lanes.items()}:
            self._bank.refresh(service, lane)
        held = {
            launch.FIRST_LISTEN_FD + number: name
            for number, (_, name) in enumerate(self._bank.names(service, lane))
        }
        self._lanes[slot, run] = lane
        self._sockets[_main_id(slot, run)] = self._bank.inodes(service, lane)
        self._start(_main_id(slot, run), request, meta, slot, run, held)

    def _free_group(self, slot: Slot) -> bool:
        """The group of the one before, for which the keeper may have a body ready; the other one
        as long as that is in use."""
        last = self._last.get(slot, False)
        return not last if last in self._groups.get(slot, {}).values() else last

    def second(self, slot: Slot, run: int) -> bool:
        """Whether the process is in the second control group of its slot."""
        return self._groups.get(slot, {}).get(run, False)

    def run_in(self, slot: Slot, second: bool) -> int | None:
        """The incarnation whose process is in that control group of the slot."""
        runs = self._groups.get(slot, {})
        return max((run for run, where in runs.items() if where is second), default=None)

    def _main_request(
        self, service: Service, slot: Slot, lane: int, second: bool
    ) -> Callable[[], dict[str, Any]]:
        """What makes it: once for each slot as long as nothing that it was made of can have
        changed, since a restart should not wait for it."""
        placement = self._cgroups.place(slot, service.limits, second)
        extra = self._extra(service, lane)

        def make() -> dict[str, Any]:
            known = self._requests.get(slot)
            if known is not None and known[0] is service and known[1] is placement:
                return known[2]
            request = launch.request(
                service,
                slot,
                service.command,
                config_dir=self._place.config_dir,
                placement=placement,
                extra=extra,
                listen=bool(service.listen),
            )
            request["respawn"] = True
            if not launch.reads(service):
                self._requests[slot] = (service, placement, request)
            return request

        return make

    def _extra(self, service: Service, lane: int) -> dict[str, str]:
        extra = {
            "EVERUP_STATE": self._place.state_dir,
            # Beside NOTIFY_SOCKET, which makes programs speak that were not asked to.
            "EVERUP_NOTIFY": self._place.notify_socket,
        }
        if service.listen:
            names = self._bank.names(service, lane)
            extra["LISTEN_FDS"] = str(len(names))
            extra["LISTEN_FDNAMES"] = ":".join(name for name, _ in names)
        if service.notify or service.watchdog is not None:
            extra["NOTIFY_SOCKET"] = self._place.notify_socket
        if service.watchdog is not None:
            extra["WATCHDOG_USEC"] = str(int(service.watchdog.interval * _USEC))
        return extra

    def run_hook(self, action: RunHook, service: Service) -> None:
        """Run a hook; its end, or its time-out, comes back as an event."""
        slot = action.slot
        words = getattr(service.hooks, action.hook.value)
        child_id = f"hook:{slot}:{action.run}:{action.hook.value}"

        def go(request: dict[str, Any]) -> None:
            self._run_hook(child_id, request, action, service)

        def failed(detail: str) -> None:
            self._dispatch(HookDone(slot, action.run, action.hook, False, detail))

        make = self._request(service, slot, words, "hook", action.run)
        self._preparing.make(child_id, service, make, go, failed)

    def _run_hook(
        self, child_id: str, request: dict[str, Any], action: RunHook, service: Service
    ) -> None:
        slot = action.slot
        meta = {"role": "hook", "slot": str(slot), "run": action.run, "hook": action.hook.value}
        run = self._hook_runs[child_id] = -next(self._numbers)
        self._start(child_id, request, meta, slot, run, {})
        loop = asyncio.get_running_loop()
        self._hook_timers[child_id] = loop.call_later(
            service.hooks.timeout, self._keeper.signal, child_id, signal.SIGKILL, "all"
        )

    def _request(
        self, service: Service, slot: Slot, words: tuple[str, ...], role: str, run: int
    ) -> Callable[[], dict[str, Any]]:
        own = {"EVERUP_ROLE": role, "EVERUP_RUN": str(run), "EVERUP_STATE": self._place.state_dir}
        return lambda: launch.request(
            service,
            slot,
            words,
            config_dir=self._place.config_dir,
            placement=Placement(),
            extra=own,
            listen=False,
        )

    def _start(
        self,
        child_id: str,
        request: dict[str, Any],
        meta: dict[str, Any],
        slot: Slot,
        run: int,
        held: dict[int, str],
    ) -> None:
        """Give it pipes, tell the keeper, let the log pump read."""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            out, out_write = _pipe(request.get("gid"))
            err, err_write = _pipe(request.get("gid"))
        except OSError as error:
            os.close(null)
            self._failed_to_start(meta, slot, f"cannot make its pipes: {_plain(error)}")
            return
        meta["pipes"] = run
        self._pipes[child_id] = [os.fstat(out).st_ino, os.fstat(err).st_ino]
        self._asked[child_id] = request
        given = {0: null, 1: out_write, 2: err_write}
        hold = dict(zip(_pipe_names(slot, run), (out, err), strict=True))
        with fencing.fuse(request, held, given, hold, f"{slot}:{run}"):
            self._keeper.spawn(child_id, request, given=given, held=held, meta=meta, hold=hold)
        log, streams = self._service(slot.service).log, {"stdout": out, "stderr": err}
        self._logs.attach(str(slot), run, log, streams)

    def _failed_to_start(self, meta: dict[str, Any], slot: Slot, detail: str) -> None:
        run = int(meta["run"])
        if meta["role"] == "hook":
            self._dispatch(HookDone(slot, run, Hook(meta["hook"]), False, detail))
        else:
            self._dispatch(SpawnFailed(slot, run, detail))

    def signal(self, action: Signal) -> None:
        number = signal_number(action.signal)
        self._preparing.cancel(_main_id(action.slot, action.run))
        self._keeper.signal(_main_id(action.slot, action.run), number, action.scope)
        if number == signal.SIGKILL:
            prefix = f"hook:{action.slot}:{action.run}:"
            self._preparing.cancel(prefix)
            for child_id in [name for name in self._hook_timers if name.startswith(prefix)]:
                self._keeper.signal(child_id, signal.SIGKILL, "all")

    def give_time(self, action: GiveTime) -> None:
        self._keeper.give_time(_main_id(action.slot, action.run), signal_number(action.signal))

    def main_pid(self, slot: Slot, run: int, pid: int) -> None:
        self._keeper.main_pid(_main_id(slot, run), pid)

    async def run_exec(self, target: ProbeTarget) -> tuple[bool | None, str]:
        """Run the command of an exec probe; cancelling kills it."""
        assert target.probe.exec is not None
        slot, service = target.slot, self._definition(target.slot, target.run)
        child_id = f"probe:{slot}:{target.kind.value}:{next(self._numbers)}"
        try:
            make = self._request(service, slot, target.probe.exec, "probe", target.run)
            request = await preparing.ready(service, make)
            if target.probe.plugin != "no":
                request["env"]["LC_ALL"] = "C.UTF-8"  # else: time=0,1s
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        except (LaunchError, OSError) as error:
            return False, preparing.words(error)
        loop = asyncio.get_running_loop()
        try:
            heard = said.listener(loop, target.probe)
        except OSError as error:
            os.close(null)
            return False, f"cannot make its pipe: {_plain(error)}"
        future: asyncio.Future[tuple[int | None, str]] = loop.create_future()
        self._commands[child_id] = future
        self._asked[child_id] = request
        meta = {"role": "probe", "slot": str(slot)}
        given = {0: null, **heard.given}
        try:
            self._keeper.spawn(child_id, request, given=given, held={}, meta=meta)
            status, problem = await future
            if problem:
                return None if target.probe.plugin == "yes" else False, problem
            return heard.verdict(status, str(_cause(status)))
        finally:
            heard.close()
            if not future.done() or future.cancelled():
                self._keeper.signal(child_id, signal.SIGKILL, "all")
            self._commands.pop(child_id, None)

    # -- reports of the keeper

    def adopt(self, child: dict[str, Any], pipes: dict[str, int], log: Log) -> None:
        """Read on from the main process of an instance that an earlier engine started."""
        meta, slot = child["meta"], Slot.parse(child["meta"]["slot"])
        second = str(child.get("cgroup") or "").endswith("+")
        self._groups.setdefault(slot, {})[int(meta["run"])] = self._last[slot] = second
        self._lanes[slot, int(meta["run"])] = int(meta.get("lane") or slot.replica)
        names = _pipe_names(slot, meta["pipes"])
        if all(name in pipes for name in names):
            streams = {"stdout": pipes.pop(names[0]), "stderr": pipes.pop(names[1])}
            self._logs.attach(str(slot), meta["pipes"], log, streams, resumed=True)

    def reported(self, message: dict[str, Any]) -> None:
        """``spawned``, ``failed``, ``left`` or ``exit``."""
        role, rest = message["id"].split(":", 1)
        match message["ev"], role:
            case "spawned", "main":
                slot, run = _slot_run(rest)
                asked = self._asked.pop(message["id"], None) or {}
                pid, facts = message["pid"], {"start": message["start"], "leader": message["pid"]}
                facts |= {
                    "uid": asked.get("uid", os.getuid()),
                    "cgroup": asked.get("cgroup"),
                    "pipes": self._pipes.pop(message["id"], []),
                }
                if sockets := self._sockets.pop(message["id"], []):
                    facts["sockets"] = sockets
                self._dispatch(Spawned(slot, run, pid, facts))
            case "left", "main":
                slot, run = _slot_run(rest)
                names = tuple(map(_named, message["pids"][:_NAMED]))
                self._dispatch(Left(slot, run, _cause(message["status"]), names))
            case "escaped", _:
                slot = rest.partition(":")[0]
                names = message["names"][:_NAMED]
                self._record(Kind.ESCAPED, slot, of=role, ended=names, count=len(message["pids"]))
            case "failed", _:
                self._start_failed(message, role, rest)
            case "exit", _:
                self._exited(message, role, rest)

    def _start_failed(self, message: dict[str, Any], role: str, rest: str) -> None:
        self._pipes.pop(message["id"], None)
        self._sockets.pop(message["id"], None)
        asked = self._asked.pop(message["id"], None)
        if asked is None:
            return
        self._told_failed.add(message["id"])
        detail = launch.explain_failure(
            asked, message["stage"], message["errno"], message.get("text", "")
        )
        if role == "main":
            slot, run = _slot_run(rest)
            self._gone(slot, run)
            self._dispatch(SpawnFailed(slot, run, detail))
            self._forget_pipes(slot, run)
        elif role == "hook":
            self._hook_ended(message["id"], rest, False, detail)
        elif (future := self._commands.get(message["id"])) and not future.done():
            future.set_result((None, detail))

    def _exited(self, message: dict[str, Any], role: str, rest: str) -> None:
        self._asked.pop(message["id"], None)
        untold = message["failed"] and message["id"] not in self._told_failed
        self._told_failed.discard(message["id"])
        if untold and role == "main":  # an engine before us was told, and died of something else
            slot, run = _slot_run(rest)
            cause = ExitCause(ExitKind.SPAWN, detail="it could not be started")
            self._gone(slot, run)
            self._dispatch(Exited(slot, run, cause))
        elif not message["failed"]:
            cause = _cause(message["status"])
            if role == "main":
                slot, run = _slot_run(rest)
                killed = cause.kind is ExitKind.SIGNAL and cause.value == signal.SIGKILL
                if killed and self._cgroups.oom_killed(slot, self.second(slot, run)):
                    cause = ExitCause(ExitKind.OOM, cause.value)
                self._gone(slot, run)
                self._dispatch(Exited(slot, run, cause, self._asked_at(slot, run)))
                self._forget_pipes(slot, run)
            elif role == "hook":
                ok = message["status"] == 0
                timed_out = message["id"] in self._hook_timers and cause.value == signal.SIGKILL
                detail = "timed out or was killed" if timed_out and not ok else str(cause)
                self._hook_ended(message["id"], rest, ok, detail)
            elif (future := self._commands.get(message["id"])) and not future.done():
                future.set_result((message["status"], ""))
        self._keeper.ack(message["id"])

    def _gone(self, slot: Slot, run: int) -> None:
        """Before the engine hears of it: it may start the next one at once."""
        self._groups.get(slot, {}).pop(run, None)
        self._lanes.pop((slot, run), None)

    def _hook_ended(self, child_id: str, rest: str, ok: bool, detail: str) -> None:
        if timer := self._hook_timers.pop(child_id, None):
            timer.cancel()
        where, _, hook = rest.rpartition(":")
        slot, run = _slot_run(where)
        if output := self._hook_runs.pop(child_id, None):
            self._forget_pipes(slot, output)
        self._dispatch(HookDone(slot, run, Hook(hook), ok, detail))

    def _forget_pipes(self, slot: Slot, run: int) -> None:
        """The process is gone: the pump drains what is left, the keeper need not hold it."""
        self._logs.ended(str(slot), run)
        self._keeper.drop([*_pipe_names(slot, run), f"{fencing.FUSE}{slot}:{run}"])


def _pipe(gid: int | None) -> tuple[int, int]:
    """Read end, and a write end that is open both ways: whoever holds it is never killed by a
    missing reader, it waits. ``gid``: the service's, so that it may open /dev/stdout; the owner
    stays everup, which shows that everup has made it."""
    read, write = os.pipe2(os.O_CLOEXEC)
    if gid is not None:
        with contextlib.suppress(OSError):
            os.fchown(read, -1, gid)
            os.fchmod(read, 0o620)
    try:
        both = os.open(f"/proc/self/fd/{write}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return read, write  # no /proc: an ordinary pipe is better than none
    os.close(write)
    return read, both


def _pipe_names(slot: Slot, run: int) -> list[str]:
    return [f"pipe:{slot}:{run}:out", f"pipe:{slot}:{run}:err"]


def _main_id(slot: Slot, run: int) -> str:
    return f"main:{slot}:{run}"


def _slot_run(text: str) -> tuple[Slot, int]:
    name, _, run = text.rpartition(":")
    return Slot.parse(name), int(run)


def signal_number(name: str) -> int:
    """Number of a signal by its name, with or without SIG."""
    return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]


def _cause(status: int | None) -> ExitCause:
    if status is None:
        return ExitCause(ExitKind.LOST)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(ValueError):
            name = signal.Signals(number).name
            return ExitCause(
                ExitKind.SIGNAL, number, f"{name}{', core dumped' if os.WCOREDUMP(status) else ''}"
            )
        return ExitCause(ExitKind.SIGNAL, number)
    return ExitCause(ExitKind.CODE, os.WEXITSTATUS(status))


def _named(pid: int) -> str:
    """``python3 (pid 12)``."""
    name = ""
    with contextlib.suppress(OSError):
        name = ascii(Path(f"/proc/{pid}/comm").read_bytes().decode(errors="replace").strip())[1:-1]
    return f"{name or 'a process'} (pid {pid})"


def _plain(error: OSError) -> str:
    return error.strerror or str(error)
