"""How each service was in the last 24 hours, by the same history as ``everup report``. Pure."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from everup.model.instance import Slot
from everup.model.journal import Entry, Kind
from everup.reliability.account import timeline
from everup.reliability.history import KINDS, History

WINDOW_S: Final = 86400.0
BINS: Final = 48
_HALF: Final = 0.5
_LETTERS: Final = (("degraded", "g"), ("up", "u"), ("maintenance", "p"))
"""The first that is found in a bin without downtime names it."""


@dataclass(frozen=True, slots=True)
class Strip:
    """One service over the window."""

    bins: str
    """A letter for each half hour, oldest first: ``u`` up, ``g`` up with fewer replicas, ``d`` down
    for a part of it, ``D`` for most of it, ``p`` stopped on purpose, ``x`` nobody knows."""
    down_s: float
    valid_s: float
    """Seconds in which it should have been up."""
    since: float | None
    """When it came to be as it is (up, or not up), seconds since the epoch; None: before the
    window."""


class Strips:
    """The history of the window. Entries are told in order."""

    def __init__(self) -> None:
        self._history = History()

    def begin(self, entries: Iterable[Entry], ready: Mapping[str, int]) -> None:
        """Start with the entries of the window. Instances that are ``ready`` now,
        with the numbers of their runs, and of which it says nothing, were so all the time."""
        found = [entry for entry in entries if entry.kind in _KINDS]
        if not found:
            return
        first: dict[str, str] = {}
        for entry in found:
            if _is_slot(entry.subject):
                first.setdefault(entry.subject, entry.kind)
        row = found[0]
        latest = [
            row._replace(kind=Kind.READY.value, subject=name, payload={"run": run})
            for name, run in ready.items()
            if name not in first
        ]
        self._history.seed(row, latest, first)
        self.take(found)

    def take(self, entries: Iterable[Entry]) -> None:
        """Go on. An entry that is damaged is left out: it costs a strip some truth, not people
        their console."""
        for entry in entries:
            if entry.kind in _KINDS:
                with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
                    self._history.feed((entry,))

    def of(self, service: str, now: float) -> Strip:
        """Give the strip of a service that ends ``now``, seconds since the epoch."""
        begin = now - WINDOW_S
        if service not in self._history.services:
            return Strip("x" * BINS, 0.0, 0.0, None)
        start, end = self._history.of_wall(begin), self._history.moment(now, 0.0, "")
        spans = timeline(self._history, service, start, end) if start < end else []
        return _strip(spans, begin, now)


def _strip(spans: Iterable[tuple[float, float, str]], begin: float, now: float) -> Strip:
    width = (now - begin) / BINS
    parts: list[dict[str, float]] = [{} for _ in range(BINS)]
    down_s = valid_s = 0.0
    since: float | None = None
    is_up: bool | None = None
    for a, b, state in spans:
        a, b = max(a, begin), min(b, now)
        if b <= a:
            continue
        valid_s += b - a if state in ("up", "degraded", "down") else 0.0
        down_s += b - a if state == "down" else 0.0
        if (up := state in ("up", "degraded")) is not is_up:
            since, is_up = (a if is_up is not None or a > begin + 1.0 else None), up
        first, last = int((a - begin) / width), min(BINS - 1, int((b - begin) / width))
        for number in range(first, last + 1):
            low, high = begin + number * width, begin + (number + 1) * width
            inside = min(b, high) - max(a, low)
            if inside > 0:
                parts[number][state] = parts[number].get(state, 0.0) + inside
    return Strip("".join(_letter(part, width) for part in parts), down_s, valid_s, since)


def _letter(part: dict[str, float], width: float) -> str:
    down = part.get("down", 0.0)
    if down > 0:
        return "D" if down > _HALF * width else "d"
    return next((letter for state, letter in _LETTERS if state in part), "x")


def _is_slot(subject: str) -> bool:
    try:
        Slot.parse(subject)
    except ValueError:
        return False
    return True


_KINDS: Final = frozenset(KINDS)
