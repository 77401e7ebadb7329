"""What of a history lies in a window of time, and the series that charts are made of."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from everup.reliability._history_line import (
    DAY_US,
    DEGRADED,
    DOWN,
    PLANNED,
    UNKNOWN,
    UP,
    Span,
    of_days,
    sweep,
)
from everup.reliability._history_state import HOUR_US, RECENT_US, Outage, Service, parts
from everup.reliability.history import History

_US = 1e6
STATES = {UP: "up", DOWN: "down", PLANNED: "maintenance", UNKNOWN: "unknown", DEGRADED: "degraded"}


def outages_of(service: Service, start: int, end: int) -> list[Outage]:
    """Those that began in the window, also if they go on."""
    return [o for o in (*service.outages, *open_of(service, end)) if start <= o.start < end]


def open_of(service: Service, end: int) -> list[Outage]:
    """Those that go on; ``ended`` is ""."""
    found = []
    for slot in service.slots.values():
        out = slot.outage
        if out is not None and out.start < end:
            fields = (
                slot.name, out.kind, out.cause, out.start, out.detected, out.starting, end, "",
                out.first_seq, out.first_seq, out.restarts, out.blind, out.relapse,
            )  # fmt: skip
            found.append(Outage(*fields))
    return found


def in_days(day: int, start: int, end: int) -> bool:
    """Whether the greater part of a day is in the window: its counts can't be divided."""
    return start <= day * DAY_US + DAY_US // 2 < end


def spans_of(service: Service, start: int, end: int) -> list[Span]:
    """In detail; before that, unknown."""
    detail = max(start, service.detail_from)
    found = sweep(service.lines, detail, end)
    if service.days and start < detail:
        found.insert(0, (start, detail, UNKNOWN))
    return found


def sums_of(
    service: Service, start: int, end: int, spans: Sequence[Span] | None = None
) -> list[int]:
    """Microseconds by class; ``spans`` are those of the same time, if they are there."""
    old = {number: day.sums for number, day in service.days.items()}
    detail = max(start, service.detail_from)
    sums = of_days(old, start, min(end, detail))
    for since, until, cls in sweep(service.lines, detail, end) if spans is None else spans:
        if since >= detail:
            sums[cls] += until - since
    return sums


def calls_of(service: Service, start: int, end: int) -> tuple[int, int, int]:
    """By the hour, where the greater part of it is in the window; older ones by the day. Of the
    last hour or less: by five minutes."""
    size, found = (
        (RECENT_US, service.recent) if end - start <= HOUR_US else (HOUR_US, service.calls)
    )
    # What has begun last has calls of so far only: all of them are in the window.
    parts = [c for n, c in found.items() if start <= n * size + size // 2 and n * size < end]
    days = [day.calls for number, day in service.days.items() if in_days(number, start, end)]
    sums = [0, 0, 0]
    for counts in (*parts, *days):
        for number, value in enumerate(counts):
            sums[number] += value
    return sums[0], sums[1], sums[2]


def timeline(history: History, name: str, start: int, end: int) -> list[tuple[float, float, str]]:
    """What a service was: (from, to, state) by the wall clock, without a gap. Beyond the details
    that are kept it is unknown."""
    found = spans_of(history.services[name], start, end)
    return [(history.wall(a), history.wall(b), STATES[cls]) for a, b, cls in found]


def bins(
    history: History, edges: Sequence[int], names: Iterable[str]
) -> list[tuple[int, float, float]]:
    """For each two neighbouring edges: failures, seconds down and seconds valid, summed over the
    services. A day of which only counts are left is all in the bin of its noon."""
    size = len(edges) - 1
    counts, down, valid = [0] * size, [0] * size, [0] * size
    start, end = edges[0], edges[-1]

    def place(moment: int) -> int:
        return min(size - 1, max(0, bisect_right(edges, moment) - 1))

    for service in (history.services[name] for name in names):
        for outage in outages_of(service, start, end):
            counts[place(outage.start)] += 1
        for since, until, cls in spans_of(service, start, end):
            if cls in (PLANNED, UNKNOWN):
                continue
            for number in range(place(since), size):
                inside = min(until, edges[number + 1]) - max(since, edges[number])
                if inside <= 0:
                    break
                valid[number] += inside
                down[number] += inside if cls == DOWN else 0
        for day, left in service.days.items():
            if in_days(day, start, end):
                number = place(day * DAY_US + DAY_US // 2)
                counts[number] += sum(left.kinds.values())
                valid[number] += left.sums[UP] + left.sums[DEGRADED] + left.sums[DOWN]
                down[number] += left.sums[DOWN]
    return [(counts[n], down[n] / _US, valid[n] / _US) for n in range(size)]


def recoveries(history: History, name: str, start: int, end: int) -> list[float]:
    """Seconds from failure to ready of those that began in a time, where that is known."""
    found = (parts(o)[3] for o in outages_of(history.services[name], start, end) if o.ended)
    return [whole / _US for whole in found if whole is not None]
