"""Decides what another monitoring system is told now: changes at once, everything at each beat.

Pure. A service that is worse for a moment only, as over a restart of some milliseconds, is not told
of: it must stay so for ``WORSE_S``. What is better is told at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from everup.integrations.standing import Standing

WORSE_S: Final = 0.5


class Teller:
    """Remembers what was told last. Invariant: it keeps one standing for each service that there
    is, and no others."""

    def __init__(self) -> None:
        self._told: dict[str, Standing] = {}
        self._worse_due_s: dict[str, float] = {}

    def step(
        self, now_s: float, standings: Sequence[Standing], *, beat: bool
    ) -> tuple[Standing, ...]:
        """Give what is to be told. ``beat``: everything, whether or not it has changed."""
        out = []
        for standing in standings:
            before = self._told.get(standing.service)
            if before is not None and standing.level > before.level:
                due_s = self._worse_due_s.setdefault(standing.service, now_s + WORSE_S)
                if now_s < due_s:
                    if beat:
                        out.append(before)
                    continue
            self._worse_due_s.pop(standing.service, None)
            if beat or standing != before:
                out.append(standing)
            self._told[standing.service] = standing
        self._forget({standing.service for standing in standings})
        return tuple(out)

    def wait_s(self, now_s: float) -> float | None:
        """Give how long what waits has to, in seconds; None: nothing waits."""
        if not self._worse_due_s:
            return None
        return max(0.0, min(self._worse_due_s.values()) - now_s)

    def _forget(self, there: Iterable[str]) -> None:
        for known in (self._told, self._worse_due_s):
            for service in known.keys() - there:
                del known[service]


def with_causes(standings: Iterable[Standing], causes: Mapping[str, str]) -> tuple[Standing, ...]:
    """Add to each text why the service fails, where that is known (by service)."""
    return tuple(
        replace(standing, text=f"{standing.text}, because {causes[standing.service]}")
        if standing.failing and standing.service in causes
        else standing
        for standing in standings
    )
