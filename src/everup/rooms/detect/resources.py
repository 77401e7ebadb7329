"""Conditions of resources, from the samples of the machine and of each instance."""

from collections.abc import Mapping
from typing import Final

from everup.observer.events import Sampled
from everup.rooms.detect.board import Begin, End
from everup.rooms.detect.limits import Level, Levels

MEMORY: Final = Level("memory_short", 0.90, 0.85, 10.0)
DESCRIPTORS: Final = Level("descriptors_short", 0.85, 0.75, 10.0)
THROTTLED: Final = Level("throttled", 0.25, 0.10, 10.0, 10.0)
QUEUE: Final = Level("queue_full", 0.5, 0.1, 2.0)
FULL: Final = Level("disk_full", 0.98, 0.96)
SHORT: Final = Level("disk_short", 0.90, 0.88)
READ_ONLY: Final = Level("disk_read_only", 1.0, 1.0)
STARVED: Final = Level("starved", 60.0, 40.0, 30.0, 30.0)
PRESSED: Final = Level("memory_pressure", 10.0, 5.0, 10.0, 10.0)
OUT_OF_MEMORY: Final = Level("out_of_memory", 1.0, 1.0, 0.0, 60.0)
_FORGET_S: Final = 120.0


class Resources:
    """Follows samples. ``begin`` and ``end`` take conditions."""

    def __init__(self, begin: Begin, end: End) -> None:
        self._begin, self._end = begin, end
        self._levels = Levels()
        self._before: Sampled | None = None
        self._writable: set[str] = set()

    def restore(self, kind: str, subject: str, now: float) -> None:
        """A condition is active already."""
        self._levels.restore(kind, subject, now)

    def take(self, sample: Sampled) -> None:
        """Take one sample of everything."""
        before, self._before = self._before, sample
        now = sample.at
        self._level(STARVED, "machine", sample.machine.get("psi_cpu_some_percent"), now,
                    "has tasks that wait for CPU {:.0f} % of the time")  # fmt: skip
        self._level(PRESSED, "machine", sample.machine.get("psi_memory_some_percent"), now,
                    "has tasks that wait for memory {:.0f} % of the time")  # fmt: skip
        for name, numbers in sample.instances.items():
            earlier = before.instances.get(name) if before is not None else None
            passed = sample.mono - before.mono if before is not None else 0.0
            self._instance(name, numbers, earlier, passed, now)
        for name, (waiting, limit) in sample.queues.items():
            if limit > 0:
                text = f"has {waiting} of at most {limit} connections that wait to be accepted"
                self._level(QUEUE, name, waiting / limit, now, text)
        for path, numbers in sample.disks.items():
            self._disk(path, numbers, now)
        for kind, subject in self._levels.forget(now - _FORGET_S):
            self._end(kind, subject, "it is gone")

    def _instance(
        self,
        name: str,
        numbers: Mapping[str, float],
        before: Mapping[str, float] | None,
        passed_s: float,
        now: float,
    ) -> None:
        limit = numbers.get("memory_limit_bytes", 0.0)
        if limit > 0:
            used = numbers.get("memory_bytes", 0.0)
            text = f"uses {_size(used)} of at most {_size(limit)} of memory"
            self._level(MEMORY, name, used / limit, now, text)
        most = numbers.get("fds_limit", 0.0)
        if most > 0:
            count = numbers.get("fds", 0.0) / max(1.0, numbers.get("processes", 1.0))
            text = f"has {count:.0f} of at most {most:.0f} files open"
            self._level(DESCRIPTORS, name, count / most, now, text)
        if before is None or passed_s <= 0:
            return
        if "throttled_s" in numbers:
            share = (numbers["throttled_s"] - before.get("throttled_s", 0.0)) / passed_s
            self._level(THROTTLED, name, share, now, "was kept from the CPU {:.0%} of the time")
        kills = numbers.get("oom_kills", 0.0)
        killed = kills - before.get("oom_kills", kills)
        if killed > 0 or self._levels.is_active(OUT_OF_MEMORY.kind, name):
            text = "had a process killed by the kernel for want of memory"
            self._level(OUT_OF_MEMORY, name, killed, now, text)

    def _disk(self, path: str, numbers: Mapping[str, float], now: float) -> None:
        if numbers.get("read_only"):
            if path in self._writable:
                self._level(READ_ONLY, path, 1.0, now, "can be read only")
            return
        self._writable.add(path)
        self._level(READ_ONLY, path, 0.0, now, "")
        size, free = numbers.get("size_bytes", 0.0), numbers.get("available_bytes", 0.0)
        inodes, left = numbers.get("inodes", 0.0), numbers.get("inodes_free", 0.0)
        used = 1 - free / size if size > 0 else 0.0
        taken = 1 - left / inodes if inodes > 0 else 0.0
        text = f"has {_size(free)} of {_size(size)} left"
        if taken > used:
            text = f"has {left:.0f} of {inodes:.0f} inodes left"
        for level in (SHORT, FULL):
            self._level(level, path, max(used, taken), now, text)

    def _level(
        self, level: Level, subject: str, value: float | None, now: float, text: str
    ) -> None:
        if value is None:
            return
        change = self._levels.take(level, subject, value, now)
        words = text.format(value)
        if change:
            self._begin(level.kind, subject, words, now - level.for_s, (f"sampled: {words}",))
        elif change is False:
            self._end(level.kind, subject, f"it {words}" if words else "it is well again")


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
