"""Decides when the processes beside the engine are started, and when one of them hangs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar, Final

from everup.kernel.ctx import Ctx
from everup.kernel.room import Quiet, Reconcile
from everup.model.event import Down, Up
from everup.model.fact import ConfigInForce
from everup.model.world import World
from everup.rooms.observer.actions import KillAid, StartAid
from everup.rooms.observer.entries import ENDED, SILENT, STARTED, Ended, Silent, Started
from everup.rooms.observer.facts import AidEnded, AidSilent, AidStarted

NAMES: Final = ("sampler", "observer")
SUBJECT = "@observer"
"""What the room is woken by. No service can have this name."""
_FIRST_S = 1.0
"""Services come first: nothing of this is started while the engine takes over."""
_LEAST_S, _MOST_S = 0.5, 30.0
_STABLE_S = 60.0


class _Is(Enum):
    OFF = "off"
    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"


@dataclass(frozen=True, slots=True)
class _Aid:
    is_: _Is = _Is.OFF
    pid: int = 0
    since: float = 0.0
    due: float = 0.0
    """When it may be started."""
    failures: int = 0
    """Ends in a row that came soon."""


Heard = Up | Down | ConfigInForce | AidStarted | AidEnded | AidSilent | Reconcile


class Attend(Quiet):
    """Starts what is missing, with a growing delay after ends in a row; kills what hangs.

    Nothing that a service needs depends on these processes, so nothing here is in a hurry, and no
    restart of theirs counts for the storm brake.
    """

    hears: ClassVar[tuple[type, ...]] = Heard.__args__

    def __init__(self) -> None:
        self._aids = {name: _Aid() for name in NAMES}

    def step(self, event: Heard, ctx: Ctx[World]) -> None:
        match event:
            case Up():
                ctx.wake(SUBJECT, ctx.now + _FIRST_S)
                self._aids = {n: replace(a, due=ctx.now + _FIRST_S) for n, a in self._aids.items()}
            case AidStarted(name=name, pid=pid, adopted=adopted):
                self._aids[name] = replace(
                    self._aids[name], is_=_Is.RUNNING, pid=pid, since=ctx.now
                )
                ctx.write(STARTED, "everup", Started(name, pid, adopted))
                self._look(ctx)
            case AidEnded():
                self._ended(event, ctx)
            case AidSilent(name=name, silent_s=silent_s):
                if self._aids[name].is_ is _Is.RUNNING:
                    ctx.write(SILENT, "everup", Silent(name, round(silent_s, 1)))
                    ctx.do(KillAid(name, at_once=True))
                    self._aids[name] = replace(self._aids[name], is_=_Is.ENDING)
            case Reconcile(subject=subject) if subject != SUBJECT:
                pass
            case _:
                self._look(ctx)

    def view(self) -> Mapping[str, object]:
        return {name: {"state": it.is_.value, "pid": it.pid} for name, it in self._aids.items()}

    def _ended(self, event: AidEnded, ctx: Ctx[World]) -> None:
        aid = self._aids[event.name]
        ran_s = ctx.now - aid.since if aid.pid else 0.0
        failures = 0 if ran_s >= _STABLE_S or event.at_once else aid.failures + 1
        again_s = min(_MOST_S, _LEAST_S * 2 ** min(failures - 1, 10)) if failures else 0.0
        self._aids[event.name] = _Aid(due=ctx.now + again_s, failures=failures)
        if _wanted(ctx.world):
            if not event.at_once:
                said = Ended(event.name, event.cause, round(ran_s, 1), again_s)
                ctx.write(ENDED, "everup", said)
            ctx.wake(SUBJECT, ctx.now + again_s)

    def _look(self, ctx: Ctx[World]) -> None:
        wanted = _wanted(ctx.world)
        for name, aid in self._aids.items():
            if wanted and aid.is_ is _Is.OFF and aid.due <= ctx.now:
                ctx.do(StartAid(name))
                self._aids[name] = replace(aid, is_=_Is.STARTING, pid=0)
            elif wanted and aid.is_ is _Is.OFF:
                ctx.wake(SUBJECT, aid.due)
            elif not wanted and aid.is_ is _Is.RUNNING and not ctx.world.quitting:
                ctx.do(KillAid(name))
                self._aids[name] = replace(aid, is_=_Is.ENDING)


def _wanted(world: World) -> bool:
    return world.spec.everup.observer and not world.quitting
