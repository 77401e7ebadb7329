"""One instance over time, and several as one service.

Times are whole microseconds of the history's own clock, so that sums come out exactly.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

UP: Final = 0
DOWN: Final = 1
PLANNED: Final = 2
UNKNOWN: Final = 3
DEGRADED: Final = 4
"""Of a service: up, but a replica that should be ready is down."""
CLASSES: Final = 5
DAY_US: Final = 86_400_000_000
MAX_DAYS: Final = 4_000

Span = tuple[int, int, int]
"""From, to, class."""
_END = itemgetter(1)
_TIME = itemgetter(0)


class Line:
    """What one instance was over time. Only stretches that are not ``UP`` are kept."""

    __slots__ = ("born", "cls", "days", "detail_from", "since", "spans")

    def __init__(self, born: int, cls: int) -> None:
        self.born = self.since = self.detail_from = born
        self.cls = cls
        self.spans: list[Span] = []
        self.days: dict[int, list[int]] = {}
        """By day, microseconds by class, of what is no longer in ``spans``."""

    def change(self, when: int, cls: int) -> None:
        """From ``when`` on; not before the last change."""
        before = self.cls
        if cls == before:
            return
        since = self.since
        if when > since:
            if before:
                self.spans.append((since, when, before))
            self.since = when
            self.cls = cls
        else:
            self.amend(cls)

    def amend(self, cls: int) -> None:
        """Since the last change it was something else."""
        self.cls = cls
        spans = self.spans
        if cls and spans and spans[-1][2] == cls and spans[-1][1] == self.since:
            self.since = spans.pop()[0]

    def stretches(self, start: int, end: int) -> Iterator[Span]:
        """What is not ``UP`` in a time, in order, cut to it; in detail only."""
        spans = self.spans
        for since, until, cls in spans[bisect_right(spans, start, key=_END) :]:
            if since >= end:
                return
            yield max(since, start), min(until, end), cls
        if self.cls and self.since < end:
            yield max(self.since, start), end, self.cls

    def at(self, when: int) -> int:
        """What it was at a moment; ``PLANNED`` before it was known."""
        if when < self.born:
            return PLANNED
        if when >= self.since:
            return self.cls
        after = bisect_right(self.spans, when, key=_END)
        if after < len(self.spans) and self.spans[after][0] <= when:
            return self.spans[after][2]
        return UP

    def sums(self, start: int, end: int) -> list[int]:
        """Microseconds by class. Days that are only counted count by the part inside."""
        found = of_days(self.days, start, min(end, self.detail_from))
        start = max(start, self.detail_from)
        if end > start:
            known = 0
            for since, until, cls in self.stretches(start, end):
                found[cls] += until - since
                known += until - since
            found[UP] += end - start - known
        return found

    def to_json(self) -> list[Any]:
        days = [[day, *sums] for day, sums in self.days.items()]
        return [self.born, self.cls, self.since, self.detail_from, self.spans, days]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> "Line":
        line = cls(data[0], data[1])
        _, _, line.since, line.detail_from, spans, days = data
        line.spans = [(a, b, c) for a, b, c in spans]
        line.days = {day: sums for day, *sums in days}
        return line


def of_days(days: Mapping[int, Sequence[int]], start: int, end: int) -> list[int]:
    """Sums by class over what is only counted by day; a day counts by the part of it inside."""
    found = [0] * CLASSES
    if end <= start:
        return found
    for day in range(start // DAY_US, (end - 1) // DAY_US + 1):
        if (sums := days.get(day)) is not None:
            inside = min(end, (day + 1) * DAY_US) - max(start, day * DAY_US)
            known = sum(sums)  # of the first day, less than a whole one
            rest = inside = min(inside, known)
            for cls in range(CLASSES - 1, UP, -1):
                part = sums[cls] * inside // known if known else 0
                found[cls] += part
                rest -= part
            found[UP] += rest
    return found


def sweep(lines: Sequence[Line], start: int, end: int) -> list[Span]:
    """What the service of these instances was: stretches that cover [start, end) without a gap,
    from when the first of them is known.

    Up while any is up (``DEGRADED`` while another is down meanwhile); else unknown while one is
    unknown; else down while one is down; else planned.
    """
    start = max(start, min((line.born for line in lines), default=end))
    events: list[Span] = []
    now = [PLANNED] * len(lines)
    counts = [0] * CLASSES
    for number, line in enumerate(lines):
        if line.born > start:
            events.append((line.born, number, UP))
        else:
            now[number] = UP
        counts[now[number]] += 1
        for since, until, cls in line.stretches(max(start, line.born), end):
            events.append((since, number, cls))
            events.append((until, number, UP))
    events.sort(key=_TIME)  # stable: those of one line stay in their order
    found: list[Span] = []
    at = start
    for when, number, cls in events:
        if when > at:
            _add(found, at, min(when, end), _of_service(counts))
            at = when
        counts[now[number]] -= 1
        counts[cls] += 1
        now[number] = cls
    if end > at:
        _add(found, at, end, _of_service(counts))
    return found


def _of_service(counts: Sequence[int]) -> int:
    if counts[UP]:
        return DEGRADED if counts[DOWN] else UP
    if counts[UNKNOWN]:
        return UNKNOWN
    return DOWN if counts[DOWN] else PLANNED


def _add(found: list[Span], since: int, until: int, cls: int) -> None:
    if found and found[-1][2] == cls:
        since = found.pop()[0]
    if until > since:
        found.append((since, until, cls))


def merge(line: Line, cut: int) -> None:
    """What is before ``cut`` becomes sums by day."""
    start = max(line.born, line.detail_from)
    if start >= cut:
        return
    up = start
    for since, until, cls in line.stretches(start, cut):
        _count(line, up, since, UP)
        _count(line, since, until, cls)
        up = until
    _count(line, up, cut, UP)
    keep = bisect_right(line.spans, cut, key=_END)
    del line.spans[:keep]
    if line.spans and line.spans[0][0] < cut:
        line.spans[0] = (cut, *line.spans[0][1:])
    line.since = max(line.since, cut)
    line.detail_from = cut
    while len(line.days) > MAX_DAYS:
        del line.days[min(line.days)]


def _count(line: Line, since: int, until: int, cls: int) -> None:
    for day, length in by_day(since, until):
        line.days.setdefault(day, [0] * CLASSES)[cls] += length


def by_day(since: int, until: int) -> Iterator[tuple[int, int]]:
    while since < until:
        day = since // DAY_US
        end = min(until, (day + 1) * DAY_US)
        yield day, end - since
        since = end


def day_after(when: int) -> int:
    return (when // DAY_US + 1) * DAY_US
