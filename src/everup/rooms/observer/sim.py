"""The processes beside the engine in the simulated world: they end and hang now and then."""

import random
from typing import Any, Final

from everup.rooms.observer.actions import KillAid, StartAid
from everup.rooms.observer.facts import AidEnded, AidSilent, AidStarted
from everup.rooms.observer.room import NAMES

_EVERY_S = 10.0
_STARTS_S, _ENDS_S = 0.3, 0.05
_SILENT_S = 10.0


def _faults(world: Any) -> None:
    # Of its own, so that a seed is the same world for all else.
    rng = random.Random(world.seed * 31 + 7)  # noqa: S311 - a simulation must replay
    world.aids = {}

    def turn() -> None:
        for name in NAMES:
            pid = world.aids.get(name)
            if pid is None or not world.faulty:
                continue
            chance = rng.random()
            if chance < 0.1:
                _end(world, name, "SIGKILL")
            elif chance < 0.15:
                world.dispatch(AidSilent(name, _SILENT_S))

    world.every(_EVERY_S, turn)


def _start(action: StartAid, world: Any) -> None:
    adopted = action.name in world.aids
    pid = world.aids.setdefault(action.name, 1_000_000 + world.steps)
    world.later(_STARTS_S, AidStarted(action.name, pid, adopted))


def _kill(action: KillAid, world: Any) -> None:
    world.after(_ENDS_S, lambda: _end(world, action.name, "SIGKILL"))


def _end(world: Any, name: str, cause: str) -> None:
    if world.aids.pop(name, None) is not None:
        world.later(0.0, AidEnded(name, cause))


SOURCES: Final = (_faults,)
PERFORMERS: Final = {StartAid: _start, KillAid: _kill}
