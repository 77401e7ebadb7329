"""The pieces of a history: outages, services, and how old details become counts."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from everup.reliability._history_line import (
    CLASSES,
    DAY_US,
    MAX_DAYS,
    PLANNED,
    Line,
    by_day,
    day_after,
    merge,
    sweep,
)

HOUR_US: Final = 3_600_000_000
RECENT_US: Final = HOUR_US // 12
DETAIL_US: Final = 400 * DAY_US
"""Details older than this become counts by day."""
MAX_OUTAGES: Final = 1_000
"""Outages kept in detail for each service."""
MAX_SPANS: Final = 4_000
"""Stretches kept in detail for each instance."""
MAX_LIVES: Final = 1_000
RELAPSE_US: Final = 600_000_000
"""A failure after less up time than this is a relapse: no failure of its own."""
CALL_HOURS: Final = 35 * 24
"""Requests are counted by the hour for so long, then by the day."""


class Outage(NamedTuple):
    """One failure of one instance and what became of it."""

    slot: str
    kind: str
    cause: str
    start: int
    """Last sign of health, where the journal tells it; else the first sign of failure."""
    detected: int
    """When the verdict fell; -1: nobody saw how it failed."""
    starting: int
    """When its first restart began; -1: there was none."""
    end: int
    ended: str
    """``ready``; ``stopped`` by an operator before that; ``done``; ``removed``."""
    first_seq: int
    last_seq: int
    restarts: int
    blind: bool
    """everup or the machine was off meanwhile: its length says nothing of the recovery."""
    relapse: bool
    """It had been up for less than ten minutes since the one before: the same trouble again."""


class Life(NamedTuple):
    """How long one process lived."""

    end: int
    lived: int
    failed: bool
    """It ended by a failure; else it was ended on purpose or out of sight (censored)."""


class Deploy(NamedTuple):
    """A restart or reload on purpose."""

    start: int
    end: int
    how: str
    ok: bool


class Opened:
    """An outage that goes on."""

    __slots__ = (
        "blind", "cause", "detected", "first_seq", "kind", "relapse", "restarts", "start",
        "starting",
    )  # fmt: skip

    def __init__(self, kind: str, cause: str, start: int, detected: int, seq: int) -> None:
        self.kind, self.cause = kind, cause
        self.start, self.detected, self.starting = start, detected, -1
        self.first_seq, self.restarts, self.blind, self.relapse = seq, 0, False, False


class Slot:
    """One instance as the history sees it."""

    __slots__ = (
        "alive", "condemned", "gap", "grouped", "leaving", "line", "mended", "name", "outage",
        "ready", "service", "suspect",
    )  # fmt: skip

    def __init__(self, name: str, service: "Service", born: int) -> None:
        self.name, self.service = name, service
        self.line = Line(born, PLANNED)
        self.ready: list[int] = []
        """Incarnations that are ready: two for a while in a rollout."""
        self.leaving: list[int] = []
        """Incarnations that were told to stop."""
        self.alive: dict[int, int] = {}
        """Incarnation -> when it was started."""
        self.condemned = 0
        self.suspect = -1
        """Since when a probe fails."""
        self.gap = -1
        """Since when it is not known whether it went on while everup was off."""
        self.grouped = False
        self.mended = -RELAPSE_US
        """When its last outage ended with it being ready."""
        self.outage: Opened | None = None

    def to_json(self) -> list[Any]:
        out = self.outage
        opened = None if out is None else [getattr(out, name) for name in Opened.__slots__]
        return [
            self.name, self.line.to_json(), self.ready, self.leaving, list(self.alive.items()),
            self.condemned, self.suspect, self.gap, self.grouped, self.mended, opened,
        ]  # fmt: skip

    @classmethod
    def from_json(cls, data: Sequence[Any], service: "Service") -> "Slot":
        slot = cls(data[0], service, 0)
        slot.line = Line.from_json(data[1])
        slot.ready, slot.leaving, slot.alive = list(data[2]), list(data[3]), dict(data[4])
        slot.condemned, slot.suspect, slot.gap, slot.grouped, slot.mended = data[5:10]
        if data[10] is not None:
            slot.outage = Opened("", "", 0, 0, 0)
            for name, value in zip(Opened.__slots__, data[10], strict=True):
                setattr(slot.outage, name, value)
        return slot


_PARTS = 4
"""Detect, decide, recover and the whole: each as count and sum in a day's repairs."""


class Day:
    """What is left of a day whose details are gone, for one service."""

    __slots__ = ("calls", "deploys", "kinds", "relapses", "repairs", "sums")

    def __init__(self) -> None:
        self.sums = [0] * CLASSES
        self.kinds: dict[str, int] = {}
        self.relapses = 0
        """Of the failures, those that are one."""
        self.repairs = [0] * (2 * _PARTS)
        self.deploys = [0, 0]
        """All, and those that failed."""
        self.calls = [0, 0, 0]

    def to_json(self) -> list[Any]:
        return [
            self.sums, self.kinds, self.relapses, self.repairs, self.deploys, self.calls,
        ]  # fmt: skip

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> "Day":
        day = cls()
        day.sums, day.kinds, day.relapses, day.repairs, day.deploys, day.calls = data
        return day


def parts(outage: Outage) -> tuple[int | None, int | None, int | None, int | None]:
    """Detect, decide, recover, and the whole of a repair; None where that is not known."""
    if outage.blind or outage.ended not in ("ready", "done"):
        return None, None, None, None
    detected, starting = outage.detected, outage.starting
    if detected < 0:
        return None, None, outage.end - starting if starting >= 0 else None, None
    detect, whole = detected - outage.start, outage.end - outage.start
    if starting < 0:
        return detect, None, outage.end - detected, whole
    return detect, starting - detected, outage.end - starting, whole


class Service:
    """All that is kept of one service."""

    __slots__ = (
        "calls", "days", "deploys", "detail_from", "lives", "name", "outages", "recent",
        "removed", "rolling", "slots",
    )  # fmt: skip

    def __init__(self, name: str, born: int) -> None:
        self.name = name
        self.detail_from = born
        self.slots: dict[str, Slot] = {}
        self.outages: list[Outage] = []
        self.lives: list[Life] = []
        self.deploys: list[Deploy] = []
        self.calls: dict[int, list[int]] = {}
        """By hour: ok, failed, rejected."""
        self.recent: dict[int, list[int]] = {}
        """The same by ``RECENT_US``, of little more than the last hour in which there were any."""
        self.days: dict[int, Day] = {}
        self.rolling: tuple[int, str] | None = None
        self.removed = False

    @property
    def lines(self) -> list[Line]:
        return [slot.line for slot in self.slots.values()]

    def day(self, number: int) -> Day:
        if number not in self.days:
            self.days[number] = Day()
        return self.days[number]

    def called(self, now: int, counts: Sequence[int]) -> None:
        _plus(self.calls.setdefault(now // HOUR_US, [0, 0, 0]), counts)
        number = now // RECENT_US
        _plus(self.recent.setdefault(number, [0, 0, 0]), counts)
        for old in [n for n in self.recent if n < number - HOUR_US // RECENT_US]:
            del self.recent[old]

    def bound(self, now: int) -> None:
        """Make counts of what is too old or too much. Called once a day of the history."""
        cut = (now - DETAIL_US) // DAY_US * DAY_US
        excess = len(self.outages) - MAX_OUTAGES
        if excess > MAX_OUTAGES // 4:
            cut = max(cut, day_after(self.outages[excess].start))
        for slot in self.slots.values():
            excess = len(slot.line.spans) - MAX_SPANS
            if excess > MAX_SPANS // 4:
                cut = max(cut, day_after(slot.line.spans[excess][0]))
        cut = min(cut, now // DAY_US * DAY_US)
        if cut > self.detail_from:
            self._merge(cut)
        del self.lives[: max(0, len(self.lives) - MAX_LIVES)]
        early = [hour for hour in self.calls if hour < now // HOUR_US - CALL_HOURS]
        for hour in early:
            _plus(self.day(hour // 24).calls, self.calls.pop(hour))
        while len(self.days) > MAX_DAYS:
            del self.days[min(self.days)]

    def _merge(self, cut: int) -> None:
        for since, until, cls in sweep(self.lines, self.detail_from, cut):
            for day, length in by_day(since, until):
                self.day(day).sums[cls] += length
        for slot in self.slots.values():
            merge(slot.line, cut)
        old = [o for o in self.outages if o.end <= cut]
        self.outages = [o for o in self.outages if o.end > cut]
        for outage in old:
            counts = self.day(outage.start // DAY_US)
            counts.kinds[outage.kind] = counts.kinds.get(outage.kind, 0) + 1
            counts.relapses += outage.relapse
            for number, part in enumerate(parts(outage)):
                if part is not None:
                    counts.repairs[2 * number] += 1
                    counts.repairs[2 * number + 1] += part
        for deploy in [d for d in self.deploys if d.end <= cut]:
            _plus(self.day(deploy.start // DAY_US).deploys, (1, 0 if deploy.ok else 1))
        self.deploys = [d for d in self.deploys if d.end > cut]
        self.detail_from = cut

    def to_json(self) -> dict[str, Any]:
        return {
            "detail_from": self.detail_from,
            "slots": [slot.to_json() for slot in self.slots.values()],
            "outages": self.outages,
            "lives": self.lives,
            "deploys": self.deploys,
            "calls": list(self.calls.items()),
            "recent": list(self.recent.items()),
            "days": [(number, day.to_json()) for number, day in self.days.items()],
            "rolling": self.rolling,
            "removed": self.removed,
        }

    @classmethod
    def from_json(cls, name: str, data: dict[str, Any]) -> "Service":
        service = cls(name, data["detail_from"])
        for item in data["slots"]:
            slot = Slot.from_json(item, service)
            service.slots[slot.name] = slot
        service.outages = [Outage(*item) for item in data["outages"]]
        service.lives = [Life(*item) for item in data["lives"]]
        service.deploys = [Deploy(*item) for item in data["deploys"]]
        service.calls = dict(data["calls"])
        service.recent = dict(data["recent"])
        service.days = {number: Day.from_json(item) for number, item in data["days"]}
        service.rolling = None if data["rolling"] is None else tuple(data["rolling"])
        service.removed = data["removed"]
        return service


def _plus(counts: list[int], more: Iterable[int]) -> None:
    for number, value in enumerate(more):
        counts[number] += value
