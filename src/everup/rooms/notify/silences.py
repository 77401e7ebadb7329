"""Of what nobody is told, because a person wants that. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from everup.model.incident import Incident
from everup.rooms.notify.entries import Silenced

MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class Silence:
    """One wish of a person."""

    until: float
    """Seconds since the epoch."""
    words: str
    """Why nobody is told, for the journal."""


class Silences:
    """Those that were asked for, by the pattern or the number of whom they are about."""

    def __init__(self) -> None:
        self._of: dict[str, Silence] = {}

    def take(self, pattern: str, said: Silenced) -> None:
        """Begin, change or end one."""
        self._of.pop(pattern, None)
        if said.until > 0:
            why = f": {said.why}" if said.why else ""
            self._of[pattern] = Silence(said.until, f"silenced by {said.by}{why}")
        while len(self._of) > MOST:
            self._of.pop(next(iter(self._of)))

    def of(self, incident: Incident, now: float) -> Silence | None:
        """Give the silence that an incident falls under, the longest."""
        self._of = {pattern: one for pattern, one in self._of.items() if one.until > now}
        found = [one for pattern, one in self._of.items() if _is_meant(pattern, incident)]
        return max(found, key=lambda one: one.until, default=None)


def about(incident: Incident, patterns: Sequence[str]) -> bool:
    """Whether an incident is about, or hurts, something that a pattern matches."""
    names = {incident.subject, *incident.services}
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _is_meant(pattern: str, incident: Incident) -> bool:
    return pattern == str(incident.number) or about(incident, (pattern,))
