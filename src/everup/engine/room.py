"""The supervisor as a room: what happens to processes, and what operators ask for."""

from typing import ClassVar

from everup.detect import starvation
from everup.engine import leasing, listening, observe, onset, operate, reload, settle
from everup.engine.state import Supervised
from everup.kernel.ctx import Ctx
from everup.kernel.room import Began, Quiet, Reconcile, Rested
from everup.model.event import (
    Down,
    Drained,
    Exited,
    HookDone,
    Lag,
    Leased,
    Left,
    Notified,
    Probed,
    Reload,
    Restart,
    Scale,
    SendSignal,
    SocketsLost,
    SocketsMoved,
    Spawned,
    SpawnFailed,
    Start,
    Stop,
    Strangers,
    Tick,
    Up,
)
from everup.model.fact import ProcessEnded
from everup.model.journal import Kind
from everup.supervise import storm
from everup.supervise.lifecycle import Happening, On

Heard = (
    Began | Probed | Tick | Exited | Spawned | SpawnFailed | HookDone | Left | Drained | Notified
    | SocketsLost | SocketsMoved | Strangers
    | Lag | Leased | Up | Down | Start | Stop | Restart | Scale | Reload | SendSignal
    | ProcessEnded | Reconcile | Rested
)  # fmt: skip


class Supervise(Quiet):
    """Keeps every service as its config and its operators want it."""

    hears: ClassVar[tuple[type, ...]] = Heard.__args__

    def __init__(self, state: Supervised) -> None:
        self._state = state
        self._advanced_in = 0
        """The step in which a reload was last carried on without coming further."""

    def step(self, event: Heard, ctx: Ctx[Supervised]) -> None:
        state, now = self._state, ctx.now
        match event:  # what comes most often first
            case Probed(result=result):
                observe.probed(state, result, now)
            case Began():
                settle.calm(state, now)
            case Reconcile(subject=name):
                if name in state.services:
                    settle.settle(state, name, now)
            case Rested():
                self._rested(now)
            case Tick():
                self._fire(now)
            case Exited(slot=slot, run=run, cause=cause, asked_at=asked_at):
                leasing.ended(state, slot, run, now)
                evidence = onset.ended(state, slot, run, asked_at, now)
                state.happen(slot, Happening(On.EXITED, cause=cause, evidence=evidence), now, run)
            case Left():
                observe.left(state, event, now)
            case Spawned(slot=slot, run=run, pid=pid, facts=facts):
                state.happen(slot, Happening(On.SPAWNED, pid=pid, facts=facts), now, run)
                observe.spawned(state, slot, run, now)
            case SpawnFailed(slot=slot, run=run, detail=detail):
                state.happen(slot, Happening(On.SPAWN_FAILED, reason=detail), now, run)
            case HookDone():
                self._hook_done(event, now)
            case Drained(slot=slot, run=run):
                state.happen(slot, Happening(On.DRAINED, reason="drained"), now, run)
            case Notified():
                observe.notified(state, event, now)
            case ProcessEnded():
                settle.ended(state, event, now)
            case SocketsLost():
                listening.lost(state, event, now)
            case SocketsMoved():
                listening.moved(state, event)
            case Strangers():
                listening.strangers(state, event, now)
            case Leased():
                leasing.leased(state, event, now)
            case Lag():
                state.guard = starvation.step(state.guard, event, state.spec.everup, now)
            case _:
                operate.operate(state, event, now)

    def next_deadline(self) -> float | None:
        state = self._state
        timer, calm = state.next_timer, storm.passes_at(state.storm, state.spec.everup.storm_brake)
        if timer is None or calm is None:
            return calm if timer is None else timer
        return min(timer, calm)

    def _hook_done(self, event: HookDone, now: float) -> None:
        hook, ok, detail = event.hook.value, event.ok, event.detail
        self._state.record(Kind.HOOK_ENDED, str(event.slot), hook=hook, ok=ok, detail=detail)
        done = Happening(On.HOOK_DONE, hook=event.hook, ok=event.ok, reason=event.detail)
        self._state.happen(event.slot, done, now, event.run)

    def _fire(self, now: float) -> None:
        state = self._state
        state.box.fire(now)
        for instance in state.due(now):
            if instance.watchdog_at is not None and instance.watchdog_at <= now:
                observe.watchdog_missed(state, instance, now)
            elif instance.reloads_until is not None and instance.reloads_until <= now:
                observe.reload_overdue(state, instance, now)
            elif instance.deadline is not None and instance.deadline <= now:
                state.happen(instance.slot, Happening(On.DEADLINE), now, instance.run)

    def _rested(self, now: float) -> None:
        """A reload goes on where it can; everup ends where nothing is left."""
        state = self._state
        before, step = state.reloading, state.box.steps
        if before is not None and self._advanced_in != step:
            reload.advance(state, now)
            if state.reloading is before:
                self._advanced_in = step
            state.box.again = True
            return
        settle.maybe_quit(state, now)
