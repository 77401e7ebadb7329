"""Causes in the simulated world: found after a moment, or never."""

from typing import Any, Final

from everup.model.incident import Reason
from everup.rooms.incidents.actions import Explain

_FOUND_S = 0.2


def _explain(action: Explain, world: Any) -> None:
    reason = Reason(action.number, f"{action.subject} {action.text}", root=action.subject)
    world.after(_FOUND_S, lambda: world.dispatch(reason))


SOURCES: Final = ()
PERFORMERS: Final = {Explain: _explain}
