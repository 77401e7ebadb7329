"""The life of one instance: a table of state x event, every pair present.

Each cell is a function ``(service, instance, event, u, now) -> (instance, effects)``; the few
cells in which nothing can or should happen say so by name (``_stay``, ``_stale``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from everup.model.action import Effect, GiveTime, RunHook, Signal, Spawn
from everup.model.event import Hook
from everup.model.instance import ExitCause, ExitKind, State
from everup.model.record import Instance
from everup.model.replacing import replace
from everup.model.spec import Service
from everup.supervise.awaited import missing
from everup.supervise.restart import Next, after_exit

REKILL_S = 2.0
"""A process that survives SIGKILL (uninterruptible sleep) is killed again this often."""

REST = "rest"
"""Phase of stopping: the main process has ended, others have yet to."""


class On(Enum):
    """What can happen to an instance."""

    START = "may start"
    STOP = "must stop"
    HOOK_DONE = "its hook ended"
    SPAWNED = "process runs"
    SPAWN_FAILED = "process could not be started"
    STARTED = "startup probe or notify succeeded"
    READY = "readiness succeeded"
    UNREADY = "readiness failed"
    UNHEALTHY = "verdict of failure"
    LEFT = "main process ended, others have yet to"
    EXITED = "process ended"
    DEADLINE = "the state's time is over"
    DRAINED = "no connection is open"


@dataclass(frozen=True, slots=True)
class Happening:
    """One event of the table, with what belongs to it."""

    on: On
    reason: str = ""
    pid: int = 0
    cause: ExitCause | None = None
    hook: Hook | None = None
    ok: bool = True
    drain_s: float = 0.0
    """With STOP: drain for at least this long if connections are open."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """With SPAWNED: what identifies the process."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Of when it really happened, where that was before it was seen; for the journal."""


Result = tuple[Instance, tuple[Effect, ...]]
Cell = Callable[[Service, Instance, Happening, float, float], Result]


def step(service: Service, instance: Instance, event: Happening, u: float, now: float) -> Result:
    """Advance one instance. ``u`` is a random number in [0, 1) for the jitter of a backoff."""
    return TABLE[instance.state][event.on](service, instance, event, u, now)


def enter(instance: Instance, state: State, now: float, reason: str = "") -> Instance:
    """Move to a state: its clock starts, its deadline is not yet set."""
    return replace(instance, state=state, since=now, deadline=None, phase="", reason=reason)


# -- starting


def _start(service: Service, inst: Instance, event: Happening, _u: float, now: float) -> Result:
    run = max(inst.run, inst.spent) + 1
    hooked = service.hooks.pre_start is not None
    inst = replace(
        inst, state=State.STARTING, since=now, deadline=None, reason=event.reason,
        phase=Hook.PRE_START if hooked else "spawn", run=run, spent=run, pid=0,
        restarts=inst.restarts + (inst.last_exit is not None), said_ready=False, proven=False,
        spawned_at=None, up_at=None, verdict="", asked=False, done=False, suspected=False,
        reloads_until=None, is_ready=service.probe.readiness is None, status_text="",
        watchdog_at=None,
    )  # fmt: skip
    if hooked:
        return inst, (RunHook(inst.slot, inst.run, Hook.PRE_START),)
    return inst, (Spawn(inst.slot, inst.run, inst.lane),)


def _hook_starting(service: Service, inst: Instance, ev: Happening, u: float, now: float) -> Result:
    if ev.hook is not Hook.PRE_START or inst.phase != Hook.PRE_START:
        return inst, ()
    if not ev.ok:
        cause = ExitCause(ExitKind.HOOK, detail=f"pre_start hook: {ev.reason}")
        return _ended(service, inst, cause, u, now)
    if not inst.want:
        # Its stop was asked for and waits for its turn in the order: there is nothing to stop.
        return enter(inst, State.STOPPED, now, inst.reason), ()
    return replace(inst, phase="spawn"), (Spawn(inst.slot, inst.run, inst.lane),)


def _spawned(service: Service, inst: Instance, event: Happening, _u: float, now: float) -> Result:
    inst = replace(inst, pid=event.pid, spawned_at=now, phase="", facts=event.facts)
    if service.type == "oneshot":
        return replace(inst, state=State.RUNNING, since=now, up_at=now, deadline=None), ()
    if service.notify or service.probe.startup is not None:
        return replace(inst, deadline=now + service.start_timeout), ()
    if service.startup is not None:  # nobody asked for it: it has all the time that it needs
        return inst, ()
    return _up(service, inst, now)


def _started(service: Service, inst: Instance, _e: Happening, _u: float, now: float) -> Result:
    return _up(service, inst, now) if inst.has_process else (inst, ())


def _up(service: Service, inst: Instance, now: float) -> Result:
    """The instance counts as started from now on."""
    state = State.READY if inst.is_ready else State.RUNNING
    watchdog = service.watchdog.interval if service.watchdog else inst.watchdog_s
    inst = replace(
        enter(inst, state, now),
        up_at=now,
        watchdog_s=watchdog,
        watchdog_at=now + watchdog if watchdog else None,
        deadline=now + service.restart.reset_after,
    )
    if service.hooks.post_start is not None:
        return inst, (RunHook(inst.slot, inst.run, Hook.POST_START),)
    return inst, ()


def _spawn_failed(service: Service, inst: Instance, ev: Happening, u: float, now: float) -> Result:
    cause = ExitCause(ExitKind.SPAWN, detail=ev.reason)
    return _ended(service, inst, cause, u, now)


# -- up


def _ready(_s: Service, inst: Instance, _e: Happening, _u: float, now: float) -> Result:
    deadline = inst.deadline  # stability is counted from the start, not from each flap
    inst = enter(replace(inst, is_ready=True), State.READY, now)
    return replace(inst, deadline=deadline), ()


def _unready(_s: Service, inst: Instance, event: Happening, _u: float, now: float) -> Result:
    deadline = inst.deadline
    inst = enter(replace(inst, is_ready=False), State.RUNNING, now, event.reason)
    return replace(inst, deadline=deadline), ()


def _note_ready(_s: Service, inst: Instance, event: Happening, _u: float, _now: float) -> Result:
    return replace(inst, is_ready=event.on is On.READY), ()


def _stable(_s: Service, inst: Instance, _e: Happening, _u: float, _now: float) -> Result:
    # The crashes stay in the intensity window: a service that dies every few seconds, each time
    # after it was up for a while, is no less in a crash loop (supervisor#1285).
    return replace(inst, deadline=None, attempt=0, parked=False), ()


def _condemn(service: Service, inst: Instance, event: Happening, _u: float, now: float) -> Result:
    """Killed as failed; what follows is decided when it has ended."""
    inst = replace(
        enter(inst, State.STOPPING, now, event.reason),
        verdict=event.reason,
        deadline=now + REKILL_S,
        watchdog_at=None,
    )
    return inst, (Signal(inst.slot, inst.run, "SIGKILL", "all"),)


def _start_timeout(svc: Service, inst: Instance, ev: Happening, u: float, now: float) -> Result:
    reason = f"not started within {svc.start_timeout:g} s: {missing(svc, inst)}"
    return _condemn(svc, inst, replace(ev, reason=reason), u, now)


# -- stopping


def _stop(service: Service, inst: Instance, event: Happening, u: float, now: float) -> Result:
    inst = replace(inst, watchdog_at=None, asked=True)
    if not inst.has_process:
        # Still in its pre_start hook or on its way into being: killed once it is there.
        inst = enter(inst, State.STOPPING, now, event.reason)
        return replace(inst, phase="spawn", deadline=now + REKILL_S), (
            Signal(inst.slot, inst.run, "SIGKILL", "all"),
        )
    drain_s = max(service.drain_timeout, event.drain_s)
    time = GiveTime(inst.slot, inst.run, service.stop_signal)  # also if it ends by itself now
    if drain_s > 0 and inst.state is State.READY:
        inst = enter(inst, State.DRAINING, now, event.reason)
        return replace(inst, deadline=now + drain_s), (time,)
    inst, effects = _stop_now(service, inst, event, u, now)
    return inst, (time, *effects)


def _stop_now(service: Service, inst: Instance, event: Happening, _u: float, now: float) -> Result:
    inst = enter(inst, State.STOPPING, now, event.reason or inst.reason)
    if service.hooks.pre_stop is not None:
        return replace(inst, phase=Hook.PRE_STOP), (RunHook(inst.slot, inst.run, Hook.PRE_STOP),)
    return _ask(service, inst, now)


def _ask(service: Service, inst: Instance, now: float) -> Result:
    """It gets its stop signal."""
    return replace(inst, phase="", deadline=now + service.stop_timeout), (
        Signal(inst.slot, inst.run, service.stop_signal, service.stop_scope),
    )


def _left(service: Service, inst: Instance, event: Happening, _u: float, now: float) -> Result:
    """The others have the stop signal by now, and the time that the main process has left them."""
    if inst.phase not in ("", Hook.PRE_STOP) or inst.verdict:
        return inst, ()  # all of it is being killed
    if inst.state is not State.STOPPING or inst.phase == Hook.PRE_STOP:
        # It ended before its signal: by itself while it drained, or by the hook.
        inst = enter(inst, State.STOPPING, now, inst.reason)
        inst = replace(inst, deadline=now + service.stop_timeout)
    return replace(inst, phase=REST), ()


def _hook_stopping(service: Service, inst: Instance, ev: Happening, u: float, now: float) -> Result:
    if ev.hook is Hook.PRE_STOP and inst.phase == Hook.PRE_STOP:
        return _ask(service, inst, now)
    if ev.hook is Hook.PRE_START and inst.phase == "spawn":
        # The stop came during pre_start: there is no process and there will be none.
        return replace(enter(inst, State.STOPPED, now, inst.reason), asked=False), ()
    if ev.hook is Hook.POST_STOP and inst.phase == Hook.POST_STOP and inst.last_exit:
        return _decide(service, inst, inst.last_exit, u, now)
    return inst, ()


def _spawned_too_late(_s: Service, inst: Instance, ev: Happening, _u: float, now: float) -> Result:
    if inst.phase != "spawn":
        return inst, ()  # it has ended already: the reports came in the wrong order
    inst = replace(
        inst, pid=ev.pid, spawned_at=now, phase="", deadline=now + REKILL_S, facts=ev.facts
    )
    return inst, (Signal(inst.slot, inst.run, "SIGKILL", "all"),)


def _never_spawned(_s: Service, inst: Instance, ev: Happening, _u: float, now: float) -> Result:
    return replace(enter(inst, State.STOPPED, now, ev.reason), pid=0, asked=False), ()


def _kill(_s: Service, inst: Instance, _e: Happening, _u: float, now: float) -> Result:
    if inst.phase == Hook.POST_STOP:
        return inst, ()
    phase = "kill" if inst.phase in ("", REST) else inst.phase
    return replace(inst, phase=phase, deadline=now + REKILL_S), (
        Signal(inst.slot, inst.run, "SIGKILL", "all"),
    )


def _stop_condemned(_s: Service, inst: Instance, _e: Happening, _u: float, _now: float) -> Result:
    # It is being killed already. ``want`` (which the engine has set) decides what follows.
    return inst, ()


# -- ended


def _exited(service: Service, inst: Instance, event: Happening, u: float, now: float) -> Result:
    assert event.cause is not None
    cause = replace(event.cause, killed_for=inst.verdict)
    return _ended(service, inst, cause, u, now)


def _ended(service: Service, inst: Instance, cause: ExitCause, u: float, now: float) -> Result:
    had_process = inst.has_process
    inst = replace(
        inst, pid=0, last_exit=cause, watchdog_at=None, suspected=False, facts={},
        reloads_until=None,
    )  # fmt: skip
    if service.hooks.post_stop is not None and had_process:
        inst = replace(enter(inst, State.STOPPING, now, inst.reason), phase=Hook.POST_STOP)
        return inst, (RunHook(inst.slot, inst.run, Hook.POST_STOP),)
    return _decide(service, inst, cause, u, now)


def _decide(service: Service, inst: Instance, cause: ExitCause, u: float, now: float) -> Result:
    asked = inst.asked and not inst.verdict
    inst = replace(inst, verdict="", asked=False)
    if asked or not inst.want:
        # An operator's stop wins over everything; a restart comes back through ``want``.
        return enter(inst, State.STOPPED, now, inst.reason if asked else str(cause)), ()
    inst, decision = after_exit(service, inst, cause, u, now)
    inst = replace(inst, up_at=None)
    match decision.next:
        case Next.AGAIN:
            return enter(inst, State.STOPPED, now, decision.reason), ()
        case Next.BACKOFF:
            inst = enter(inst, State.BACKOFF, now, decision.reason)
        case Next.PARK:
            inst = enter(inst, State.PARKED, now, decision.reason)
        case Next.DONE:
            return replace(enter(inst, State.STOPPED, now, decision.reason), done=True), ()
        case Next.FAIL:
            return enter(inst, State.FAILED, now, decision.reason), ()
    return replace(inst, deadline=now + decision.delay_s), ()


def _retry(_s: Service, inst: Instance, _e: Happening, _u: float, now: float) -> Result:
    """The delay is over: back among those that may start as soon as their dependencies allow."""
    return enter(inst, State.STOPPED, now, inst.reason), ()


def _give_up_waiting(_s: Service, inst: Instance, ev: Happening, _u: float, now: float) -> Result:
    return enter(inst, State.STOPPED, now, ev.reason), ()


def _stay(_s: Service, inst: Instance, _e: Happening, _u: float, _now: float) -> Result:
    """Nothing to do here."""
    return inst, ()


def _stale(_s: Service, inst: Instance, _e: Happening, _u: float, _now: float) -> Result:
    """It comes from a process or a hook that is no longer the instance's."""
    return inst, ()


_NO_PROCESS: Mapping[On, Cell] = {
    On.HOOK_DONE: _stale,
    On.SPAWNED: _stale,
    On.SPAWN_FAILED: _stale,
    On.STARTED: _stale,
    On.READY: _stale,
    On.UNREADY: _stale,
    On.UNHEALTHY: _stale,
    On.LEFT: _stale,
    On.EXITED: _stale,
    On.DRAINED: _stale,
}
_UP: Mapping[On, Cell] = {
    On.START: _stay,
    On.STOP: _stop,
    On.HOOK_DONE: _stay,  # post_start: told, and nothing else
    On.SPAWNED: _stale,
    On.SPAWN_FAILED: _stale,
    On.STARTED: _stay,
    On.UNHEALTHY: _condemn,
    On.LEFT: _stay,  # only of one that stops
    On.EXITED: _exited,
    On.DEADLINE: _stable,
    On.DRAINED: _stale,
}

TABLE: Mapping[State, Mapping[On, Cell]] = {
    State.STOPPED: {**_NO_PROCESS, On.START: _start, On.STOP: _stay, On.DEADLINE: _stay},
    State.FAILED: {
        **_NO_PROCESS, On.START: _start, On.STOP: _give_up_waiting, On.DEADLINE: _stay,
    },
    State.BACKOFF: {
        **_NO_PROCESS, On.START: _start, On.STOP: _give_up_waiting, On.DEADLINE: _retry,
    },
    State.PARKED: {
        **_NO_PROCESS, On.START: _start, On.STOP: _give_up_waiting, On.DEADLINE: _retry,
    },
    State.STARTING: {
        On.START: _stay,
        On.STOP: _stop,
        On.HOOK_DONE: _hook_starting,
        On.SPAWNED: _spawned,
        On.SPAWN_FAILED: _spawn_failed,
        On.STARTED: _started,
        On.READY: _note_ready,
        On.UNREADY: _note_ready,
        On.UNHEALTHY: _condemn,
        On.LEFT: _stay,
        On.EXITED: _exited,
        On.DEADLINE: _start_timeout,
        On.DRAINED: _stale,
    },
    State.RUNNING: {**_UP, On.READY: _ready, On.UNREADY: _stay},
    State.READY: {**_UP, On.READY: _stay, On.UNREADY: _unready},
    State.DRAINING: {
        On.START: _stay,
        On.STOP: _stay,
        On.HOOK_DONE: _stay,
        On.SPAWNED: _stale,
        On.SPAWN_FAILED: _stale,
        On.STARTED: _stay,
        On.READY: _stay,
        On.UNREADY: _stay,
        On.UNHEALTHY: _stop_now,
        On.LEFT: _left,
        On.EXITED: _exited,
        On.DEADLINE: _stop_now,
        On.DRAINED: _stop_now,
    },
    State.STOPPING: {
        On.START: _stay,
        On.STOP: _stop_condemned,
        On.HOOK_DONE: _hook_stopping,
        On.SPAWNED: _spawned_too_late,
        On.SPAWN_FAILED: _never_spawned,
        On.STARTED: _stay,
        On.READY: _stay,
        On.UNREADY: _stay,
        On.UNHEALTHY: _stay,
        On.LEFT: _left,
        On.EXITED: _exited,
        On.DEADLINE: _kill,
        On.DRAINED: _stale,
    },
}  # fmt: skip
