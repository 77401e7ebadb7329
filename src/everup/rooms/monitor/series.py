"""Series on disk: for each subject a few rings, addressed by time.

A record's place is its time divided by the step, so there is no head to keep: whatever an observer
was doing when it died, each record is whole or from another time, and those are not read.
"""

import contextlib
import math
import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

MOST_SUBJECTS: Final = 2000
"""Further ones are not stored, and counted."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One resolution."""

    step_s: float
    records: int
    name: str


TIERS: Final = (Tier(1.0, 900, "1s"), Tier(10.0, 2160, "10s"), Tier(600.0, 4320, "10m"))
"""15 minutes, 6 hours, 30 days."""
_MAGIC: Final = b"everup series 1\n"
_HEADER: Final = 512
_FILE: Final = re.compile(r"(?P<subject>.+)\.(?P<tier>1s|10s|10m)$")


@dataclass(frozen=True, slots=True)
class Point:
    """One record: means and greatest values of its step, in the order of the metrics."""

    at: float
    """Seconds since the epoch: the beginning of the step."""
    means: tuple[float, ...]
    most: tuple[float, ...]


@dataclass(slots=True)
class _Open:
    """A step that is not over yet."""

    slot: int
    sums: list[float]
    counts: list[int]
    most: list[float]


@dataclass(slots=True)
class _Subject:
    metrics: tuple[str, ...]
    files: list[int]
    record: struct.Struct
    open: list[_Open | None] = field(default_factory=lambda: [None] * len(TIERS))


class Store:
    """Writes series into a directory. Blocks for as long as the page cache does."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._subjects: dict[str, _Subject] = {}
        self.refused = 0

    def put(
        self, subject: str, metrics: tuple[str, ...], at: float, values: Sequence[float]
    ) -> None:
        """Add one value for each metric. Raises ``OSError``."""
        known = self._subjects.get(subject)
        if known is None or known.metrics != metrics:
            known = self._enter(subject, metrics)
            if known is None:
                return
        for number, tier in enumerate(TIERS):
            slot = int(at // tier.step_s)
            current = known.open[number]
            if current is not None and current.slot != slot:
                self._write(known, number, current)
                current = None
            if current is None:
                size = len(metrics)
                current = _Open(slot, [0.0] * size, [0] * size, [math.nan] * size)
                known.open[number] = current
            for i, value in enumerate(values):
                if not math.isnan(value):
                    current.sums[i] += value
                    current.counts[i] += 1
                    current.most[i] = (
                        value if current.counts[i] == 1 else max(current.most[i], value)
                    )

    def close(self) -> None:
        """Write what is not written yet, and close the files."""
        for known in self._subjects.values():
            for number, current in enumerate(known.open):
                if current is not None:
                    with contextlib.suppress(OSError):
                        self._write(known, number, current)
            for file in known.files:
                os.close(file)
        self._subjects.clear()

    def keep(self, subjects: Sequence[str]) -> None:
        """Close the files of all others. What is in them stays until it is 30 days old."""
        for name in [known for known in self._subjects if known not in subjects]:
            for file in self._subjects.pop(name).files:
                os.close(file)

    def _enter(self, subject: str, metrics: tuple[str, ...]) -> _Subject | None:
        if subject in self._subjects:
            for file in self._subjects.pop(subject).files:
                os.close(file)
        if len(self._subjects) >= MOST_SUBJECTS:
            self.refused += 1
            return None
        header = _MAGIC + " ".join(metrics).encode()
        files = []
        for tier in TIERS:
            path = self._folder / f"{quote(subject, safe='')[:200]}.{tier.name}"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            files.append(file)
            if os.pread(file, _HEADER, 0).rstrip(b"\0") != header:  # another version's metrics
                os.ftruncate(file, 0)
                os.pwrite(file, header.ljust(_HEADER, b"\0"), 0)
        made = _Subject(metrics, files, struct.Struct(f"<d{2 * len(metrics)}f"))
        self._subjects[subject] = made
        return made

    def _write(self, known: _Subject, number: int, step: _Open) -> None:
        means = [s / c if c else math.nan for s, c in zip(step.sums, step.counts, strict=True)]
        tier, at = TIERS[number], step.slot * TIERS[number].step_s
        record = known.record.pack(at, *means, *step.most)
        place = _HEADER + step.slot % tier.records * known.record.size
        os.pwrite(known.files[number], record, place)


def subjects(folder: Path) -> list[str]:
    """Give the subjects that there are series of. Raises ``OSError``."""
    found = (_FILE.match(name) for name in os.listdir(folder))
    return sorted({unquote(match["subject"]) for match in found if match is not None})


def read(
    folder: Path, subject: str, since: float, until: float
) -> tuple[tuple[str, ...], list[Point]]:
    """Give the metrics of a subject and its points between two times, oldest first, of the finest
    tier that reaches back so far. Raises ``OSError``, ``ValueError`` for a damaged file."""
    for tier in TIERS:
        if until - since <= tier.step_s * tier.records or tier is TIERS[-1]:
            path = folder / f"{quote(subject, safe='')[:200]}.{tier.name}"
            metrics, points = _read(path.read_bytes(), tier)
            return metrics, sorted(
                (point for point in points if since <= point.at <= until), key=lambda p: p.at
            )
    raise AssertionError("the last tier is taken in any case")


def _read(data: bytes, tier: Tier) -> tuple[tuple[str, ...], Iterator[Point]]:
    head = data[:_HEADER].rstrip(b"\0")
    if not head.startswith(_MAGIC):
        raise ValueError("it is no file of series")
    metrics = tuple(head[len(_MAGIC) :].decode().split())
    record = struct.Struct(f"<d{2 * len(metrics)}f")
    body = data[_HEADER:]
    whole = body[: len(body) // record.size * record.size]

    def points() -> Iterator[Point]:
        for place, (at, *values) in enumerate(record.iter_unpack(whole)):
            # A hole is full of zeros, and what was torn is at a place that is not its own.
            if at > 0 and int(at // tier.step_s) % tier.records == place:
                half = len(metrics)
                yield Point(at, tuple(values[:half]), tuple(values[half:]))

    return metrics, points()
