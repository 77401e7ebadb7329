"""People in the simulated world: they take each message after a moment."""

from typing import Any, Final

from everup.rooms.notify.actions import Tell, Told

_TAKEN_S: Final = 0.3


def _tell(action: Tell, world: Any) -> None:
    world.after(_TAKEN_S, lambda: world.dispatch(Told(action.route, action.message.id)))


SOURCES: Final = ()
PERFORMERS: Final = {Tell: _tell}
