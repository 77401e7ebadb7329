"""Points of series: what samples and output come to for each subject. Pure."""

import math
from collections.abc import Iterator, Mapping
from typing import Final

from everup.observer.events import Sampled, Wrote

INSTANCE: Final = (
    "cpu_percent", "memory_bytes", "descriptors", "threads", "wait_percent", "read_bytes_s",
    "written_bytes_s", "queue", "lines_s", "errors_s",
)  # fmt: skip
"""Metrics of an instance, in the order in which they are stored."""
MACHINE: Final = (
    "cpu_percent", "memory_bytes", "load_1m", "cpu_pressure_percent", "memory_pressure_percent",
    "io_pressure_percent", "received_bytes_s", "sent_bytes_s", "read_bytes_s", "written_bytes_s",
)  # fmt: skip
"""Metrics of the machine."""
DISK: Final = ("used_percent", "inodes_percent")
"""Metrics of a file system."""
_NOTHING: Final = Wrote(0)
_CPU: Final = ("user", "nice", "system", "irq", "softirq", "steal")

Points = tuple[tuple[str, ...], list[float]]


def points(
    sample: Sampled, before: Sampled | None, wrote: Mapping[str, Wrote], wrote_s: float
) -> Iterator[tuple[str, Points]]:
    """Give subject, metrics and values; NaN where something is not known. Subjects: ``machine``,
    instances, and mount points."""
    passed_s = sample.mono - before.mono if before is not None else 0.0
    old = before if before is not None and passed_s > 0 else None
    yield "machine", (MACHINE, _machine(sample.machine, old.machine if old else None, passed_s))
    for name, numbers in sample.instances.items():
        earlier = old.instances.get(name) if old is not None else None
        values = _instance(numbers, earlier, passed_s)
        waiting = sample.queues.get(name)
        said = wrote.get(name, _NOTHING)
        lines_s = said.lines / wrote_s if wrote_s > 0 else math.nan
        errors_s = said.errors / wrote_s if wrote_s > 0 else math.nan
        queue = float(waiting[0]) if waiting is not None else math.nan
        yield name, (INSTANCE, [*values, queue, lines_s, errors_s])
    for path, disk in sample.disks.items():
        size, inodes = disk.get("size_bytes", 0.0), disk.get("inodes", 0.0)
        yield path, (DISK, [_used(disk.get("available_bytes"), size),
                            _used(disk.get("inodes_free"), inodes)])  # fmt: skip


def _machine(
    now: Mapping[str, float], old: Mapping[str, float] | None, passed_s: float
) -> list[float]:
    cpus = now.get("cpus", 1.0) or 1.0
    busy = [_rate(now, old, f"cpu_{kind}_s", passed_s) for kind in _CPU]
    known = [value for value in busy if not math.isnan(value)]
    total, left = (
        now.get("memory_total_bytes", math.nan),
        now.get("memory_available_bytes", math.nan),
    )
    return [
        100 * sum(known) / cpus if known else math.nan,
        total - left,
        now.get("load_1m", math.nan),
        now.get("psi_cpu_some_percent", math.nan),
        now.get("psi_memory_some_percent", math.nan),
        now.get("psi_io_some_percent", math.nan),
        _rate(now, old, "net_received_bytes", passed_s),
        _rate(now, old, "net_sent_bytes", passed_s),
        _rate(now, old, "disk_read_bytes", passed_s),
        _rate(now, old, "disk_written_bytes", passed_s),
    ]


def _instance(
    now: Mapping[str, float], old: Mapping[str, float] | None, passed_s: float
) -> list[float]:
    return [
        100 * _rate(now, old, "cpu_s", passed_s),
        now.get("memory_bytes", now.get("rss_bytes", math.nan)),
        now.get("fds", math.nan),
        now.get("threads", math.nan),
        100 * _rate(now, old, "wait_s", passed_s),
        _rate(now, old, "read_bytes", passed_s),
        _rate(now, old, "written_bytes", passed_s),
    ]


def _rate(
    now: Mapping[str, float], old: Mapping[str, float] | None, key: str, passed_s: float
) -> float:
    """By the second; NaN also where a counter began anew, as of another process."""
    if old is None or key not in now or key not in old or now[key] < old[key]:
        return math.nan
    return (now[key] - old[key]) / passed_s


def _used(left: float | None, size: float) -> float:
    return math.nan if left is None or size <= 0 else 100 * (1 - left / size)
