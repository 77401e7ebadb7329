"""Conditions of what grows until it is used up: memory and files of instances, file systems."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from everup.detect.forecast import Forecast, forecast
from everup.model.units import format_duration
from everup.observer.events import Sampled
from everup.rooms.detect.board import Begin, End

HORIZON_S: Final = 86400.0
LOOK_S: Final = 300.0
"""How often a trend is looked for."""
HOLD: Final = 3
"""It must be found so often in a row."""
SCALES: Final = ((60.0, 60), (300.0, 72))
"""Steps and how many of them: an hour by the minute, six hours by five minutes."""
LEAST_USED: Final = 0.2
"""What uses less of its limit than this is not forecast."""
_ABOVE: Final = 1.05
"""What has fallen back by itself is of interest only above where it fell back from."""
_MOST: Final = 5000
_FORGET_S: Final = 600.0


@dataclass(slots=True)
class Track:
    """One thing that may grow."""

    limit: float = 0.0
    steps: list[deque[tuple[float, float]]] = field(
        default_factory=lambda: [deque(maxlen=most) for _, most in SCALES]
    )
    sums: list[tuple[int, float, int]] = field(default_factory=lambda: [(-1, 0.0, 0)] * len(SCALES))
    """By scale: the step that is not over, its sum and count."""
    low: float = 0.0
    top: float = 0.0
    peak: float = 0.0
    """From where it has fallen back once."""
    found: int = 0
    looked: float = 0.0
    at: float = 0.0
    active: bool = False

    def put(self, at: float, value: float, limit: float) -> None:
        """Take a value. A limit that changes begins it anew."""
        if limit != self.limit:
            active = self.active
            self.__init__()  # type: ignore[misc]
            self.limit, self.low, self.top, self.active = limit, value, value, active
        self.at = at
        self.low, self.top = min(self.low, value), max(self.top, value)
        if self.top - value > (self.top - self.low) / 2 and self.top - self.low > 0.02 * limit:
            self.peak = max(self.peak, self.top)
            self.low = self.top = value
        for number, (step_s, _) in enumerate(SCALES):
            slot, total, count = self.sums[number]
            if slot != int(at // step_s):
                if count:
                    self.steps[number].append((slot * step_s, total / count))
                slot, total, count = int(at // step_s), 0.0, 0
            self.sums[number] = (slot, total + value, count + 1)

    def look(self) -> Forecast | None:
        """Give the forecast of the finer scale that has one."""
        for points in self.steps:
            if not points or points[-1][1] < max(LEAST_USED * self.limit, self.peak * _ABOVE):
                continue
            found = forecast(tuple(points), self.limit)
            if found is not None:
                return found
        return None


class Trends:
    """Follows samples. ``begin`` and ``end`` take conditions."""

    def __init__(self, begin: Begin, end: End) -> None:
        self._begin, self._end = begin, end
        self._tracks: dict[tuple[str, str, str], Track] = {}
        """By kind, subject and what grows."""
        self._runs: dict[str, float] = {}
        """By instance: its CPU time so far; less than before is another process."""

    def restore(self, kind: str, subject: str, now: float) -> None:
        """A condition is active already."""
        for what in _WHAT.get(kind, ()):
            self._tracks[kind, subject, what] = Track(active=True, at=now)

    def take(self, sample: Sampled) -> None:
        """Take one sample of everything."""
        now = sample.at
        memory = sample.machine.get("memory_total_bytes", 0.0)
        for name, numbers in sample.instances.items():
            spent = numbers.get("cpu_s", 0.0)
            if spent < self._runs.get(name, 0.0):
                self._anew(name)
            self._runs[name] = spent
            used = numbers.get("memory_bytes", numbers.get("rss_bytes", 0.0))
            self._put(
                "leaking", name, "memory", now, used, numbers.get("memory_limit_bytes") or memory
            )
            files = numbers.get("fds", 0.0) / max(1.0, numbers.get("processes", 1.0))
            self._put("leaking", name, "files", now, files, numbers.get("fds_limit", 0.0))
        for path, disk in sample.disks.items():
            if disk.get("read_only"):
                continue
            for what, size, left in (
                ("space", "size_bytes", "available_bytes"), ("inodes", "inodes", "inodes_free"),
            ):  # fmt: skip
                most = disk.get(size, 0.0)
                self._put("filling", path, what, now, most - disk.get(left, most), most)
        self._forget(now)

    def _put(
        self, kind: str, subject: str, what: str, now: float, value: float, limit: float
    ) -> None:
        if limit <= 0:
            return
        key = (kind, subject, what)
        track = self._tracks.get(key)
        if track is None:
            if len(self._tracks) >= _MOST:
                return
            track = self._tracks[key] = Track()
        track.put(now, value, limit)
        if now - track.looked < LOOK_S:
            return
        track.looked = now
        found = track.look()
        if found is not None and found.likely_s <= HORIZON_S:
            track.found += 1
            if track.found >= HOLD and not track.active:
                track.active = True
                self._begin(kind, subject, _words(what, value / limit, found), now,
                            _evidence(what, found))  # fmt: skip
            return
        track.found = 0
        if track.active and (found is None or found.likely_s > 2 * HORIZON_S):
            track.active = False
            self._end(kind, subject, "it does not grow towards its limit any more")

    def _anew(self, name: str) -> None:
        """Another process: what the one before used says nothing of it."""
        for what in _WHAT["leaking"]:
            track = self._tracks.pop(("leaking", name, what), None)
            if track is not None and track.active:
                self._end("leaking", name, "another process of it runs")

    def _forget(self, now: float) -> None:
        for key, track in list(self._tracks.items()):
            if now - track.at > _FORGET_S:
                del self._tracks[key]
                if track.active:
                    self._end(key[0], key[1], "it is gone")


_WHAT: Final[Mapping[str, tuple[str, ...]]] = {
    "leaking": ("memory", "files"),
    "filling": ("space", "inodes"),
}
_NOUNS: Final = {
    "memory": "memory", "files": "open files", "space": "space", "inodes": "inodes",
}  # fmt: skip


def _words(what: str, used: float, found: Forecast) -> str:
    return (
        f"uses {used:.0%} of its {_NOUNS[what]}, more and more: it is used up in about "
        f"{_span(found.likely_s)}"
    )


def _evidence(what: str, found: Forecast) -> tuple[str, ...]:
    by = f"{found.slope * 3600:.4g} more each hour"
    if what in ("memory", "space"):
        by = f"{found.slope * 3600 / (1 << 20):.4g} MiB more each hour"
    latest = _span(found.latest_s) if found.latest_s < 30 * HORIZON_S else "much later"
    return (f"sampled: {by}", f"forecast: between {_span(found.soonest_s)} and {latest}")


def _span(seconds: float) -> str:
    if seconds >= 3 * 3600:
        return format_duration(round(seconds / 3600) * 3600)
    return format_duration(max(60, round(seconds / 60) * 60))
