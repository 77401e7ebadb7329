"""Levels with hysteresis: a value that is beyond its limit for long enough, and back."""

from dataclasses import dataclass
from typing import Final

MOST: Final = 20_000
"""Pairs of a level and a subject that are followed."""


@dataclass(frozen=True, slots=True)
class Level:
    """When a value is a finding: at or above ``on`` for ``for_s``, until it is below ``off`` for
    ``off_s``."""

    kind: str
    on: float
    off: float
    for_s: float = 0.0
    off_s: float = 0.0


@dataclass(slots=True)
class _State:
    active: bool = False
    since: float | None = None
    """Since when the value is on the other side."""
    seen: float = 0.0


class Levels:
    """Follows one value for each level and subject."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], _State] = {}

    def take(self, level: Level, subject: str, value: float, now: float) -> bool | None:
        """Take a value; True: the finding begins, False: it ends, None: nothing changes."""
        key = (level.kind, subject)
        state = self._states.get(key)
        if state is None:
            if len(self._states) >= MOST:
                return None
            state = self._states[key] = _State()
        state.seen = now
        crossed = value < level.off if state.active else value >= level.on
        if not crossed:
            state.since = None
            return None
        if state.since is None:
            state.since = now
        if now - state.since < (level.off_s if state.active else level.for_s):
            return None
        state.active, state.since = not state.active, None
        return state.active

    def restore(self, kind: str, subject: str, now: float) -> None:
        """The finding is active already."""
        self._states[kind, subject] = _State(active=True, seen=now)

    def is_active(self, kind: str, subject: str) -> bool:
        """Tell whether the finding is active."""
        state = self._states.get((kind, subject))
        return state is not None and state.active

    def forget(self, before: float) -> list[tuple[str, str]]:
        """Forget those that have had no value since that time; gives those that were active."""
        old = [(key, state.active) for key, state in self._states.items() if state.seen < before]
        for key, _ in old:
            del self._states[key]
        return [key for key, active in old if active]
