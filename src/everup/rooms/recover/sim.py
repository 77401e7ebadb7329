"""Rungs in the simulated world: done after a moment."""

from typing import Any, Final

from everup.rooms.recover.actions import Climb, Climbed

_DONE_S: Final = 0.2


def _climb(action: Climb, world: Any) -> None:
    done = Climbed(action.number, action.rung, action.owner, action.undo)
    world.after(_DONE_S, lambda: world.dispatch(done))


SOURCES: Final = ()
PERFORMERS: Final = {Climb: _climb}
