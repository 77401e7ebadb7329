"""The room echo in the simulated world."""

from typing import Any, Final

from everup.rooms.echo.actions import Say
from everup.rooms.echo.facts import Beat

_EVERY_S = 1.0


def _clock(world: Any) -> None:
    world.every(_EVERY_S, lambda: world.dispatch(Beat()))


def _say(action: Say, world: Any) -> None:
    assert action.text


SOURCES: Final = (_clock,)
PERFORMERS: Final = {Say: _say}
