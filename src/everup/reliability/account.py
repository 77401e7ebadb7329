"""From a history to the numbers of a report over a window of time.

Availability is told by name, for the names mean different things: **any replica ready** (of a
service), **replica-weighted** (of its capacity), **by requests** (of what callers got). Time of
maintenance, and time that nobody saw, is left out of all of them and told apart.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter

from everup.reliability._account_stats import (
    failures_of,
    interval_of,
    repairs_of,
    requests_of,
    times_of,
    weighted,
)
from everup.reliability._account_types import (
    Account,
    Failures,
    Incident,
    InstanceReport,
    Objective,
    Repairs,
    ServiceReport,
    Slo,
    Whole,
    plain,
)
from everup.reliability._account_window import (
    STATES,
    bins,
    calls_of,
    in_days,
    open_of,
    outages_of,
    recoveries,
    spans_of,
    sums_of,
    timeline,
)
from everup.reliability._history_line import (
    CLASSES,
    DEGRADED,
    DOWN,
    PLANNED,
    UNKNOWN,
    UP,
)
from everup.reliability._history_state import (
    HOUR_US,
    RELAPSE_US,
    Outage,
    Service,
    parts,
)
from everup.reliability.history import History

__all__ = ["Account", "Objective", "account", "bins", "plain", "recoveries", "timeline"]

_US = 1e6


def account(
    history: History,
    start: int,
    end: int,
    *,
    objectives: Mapping[str, Objective] | None = None,
    only: str = "",
    slowest: int = 5,
) -> Account:
    """The numbers from ``start`` to ``end`` (moments of the history, which was closed at ``end``).

    ``only``: this service alone. Rates and MTTF are per second of up time of one instance, at a
    constant rate (see ``rates.failure_rate``); relapses are not counted in them, because failures
    of one crash loop are not independent. The trend is over up time, too.
    """
    if end <= start:
        raise ValueError(f"end {end}: after start, {start}")
    chosen = [s for name, s in sorted(history.services.items()) if only in ("", name)]
    views = [_View(history, service, start, end) for service in chosen]
    views = [view for view in views if view.seen]
    reports = [view.report((objectives or {}).get(view.service.name), slowest) for view in views]
    return Account(
        history.wall(start),
        history.wall(end),
        history.wall(history.marks[0][0]) if history.marks else None,
        history.lost_events,
        sum(min(b, end) - max(a, start) for a, b, cls in history.offs
            if cls == UNKNOWN and b > start and a < end) / _US,
        tuple(reports),
        _whole(views, start, end, slowest),
    )  # fmt: skip


# -- one service


class _View:
    """One service in one window."""

    def __init__(self, history: History, service: Service, start: int, end: int) -> None:
        self.history, self.service, self.start, self.end = history, service, start, end
        self.outages = outages_of(service, start, end)
        self.lines = [s.line.sums(max(start, s.line.born), end) for s in service.slots.values()]
        self.spans = spans_of(service, start, end)
        self.sums = sums_of(service, start, end, self.spans)
        self.calls = calls_of(service, start, end)

    @property
    def seen(self) -> bool:
        """Whether there is anything to say."""
        alive = any(sum(line) > line[PLANNED] for line in self.lines)
        return alive or bool(self.outages) or sum(self.calls) > 0

    def report(self, objective: Objective | None, slowest: int) -> ServiceReport:
        service, spans = self.service, self.spans
        down = [(a, b) for a, b, cls in spans if cls == DOWN]
        times = times_of(self.sums)
        deploys = [d for d in service.deploys if self.start <= d.start < self.end]
        repairs = _repairs([self])
        old = [d.deploys for n, d in service.days.items() if in_days(n, self.start, self.end)]
        return ServiceReport(
            service.name,
            STATES[spans[-1][2]] if spans else "unknown",
            times,
            interval_of(times, _apart(down), repairs.total.mean_s),
            weighted(self.lines),
            len(down),
            tuple(self._instances()),
            _failures([self]),
            repairs,
            requests_of(self.calls),
            _slo(self.history, service, objective, self.end) if objective else None,
            len(deploys) + sum(d[0] for d in old),
            sum(not d.ok for d in deploys) + sum(d[1] for d in old),
            self.slowest(slowest),
            tuple(self._incident(o) for o in open_of(service, self.end)),
            tuple((self.history.wall(a), self.history.wall(b)) for a, b in down),
        )

    def _instances(self) -> Iterable[InstanceReport]:
        counts = Counter(outage.slot for outage in self.outages)
        for slot, sums in zip(self.service.slots.values(), self.lines, strict=True):
            if sum(sums) == sums[PLANNED] and slot.line.cls == PLANNED and not slot.alive:
                continue  # scaled away
            line, times = slot.line, times_of(sums)
            since = self.history.wall(line.since)
            yield InstanceReport(
                slot.name, STATES[line.cls], since, times, times.availability, counts[slot.name]
            )

    def operating(self) -> tuple[list[float], float]:
        """Up time of all instances together at each failure that is no relapse, and in all: the
        time in which a trend is looked for. Where details are kept."""
        start, end = max(self.start, self.service.detail_from), self.end
        own = sorted(o.start for o in self.outages if not o.relapse and o.start >= start)
        changes = [(when, 2) for when in (*own, end)]
        for line in self.service.lines:
            changes.append((max(start, line.born), 1))
            for since, until, _ in line.stretches(max(start, line.born), end):
                changes += ((since, -1), (until, 1))
        changes.sort()
        at, up, before, found = 0, 0, start, []
        for when, step in changes:
            at += up * (when - before)
            before = when
            if step == 2:
                found.append(at / _US)
            else:
                up += step
        return found[:-1], found[-1]

    def slowest(self, count: int) -> tuple[Incident, ...]:
        known = [o for o in self.outages if parts(o)[3] is not None]
        known.sort(key=lambda o: o.start - o.end)
        return tuple(self._incident(outage) for outage in known[:count])

    def _incident(self, outage: Outage) -> Incident:
        detect, decide, recover, _ = (_s(part) for part in parts(outage))
        return Incident(
            outage.slot,
            outage.kind,
            outage.cause,
            self.history.wall(outage.start),
            self.history.wall(outage.end) if outage.ended else None,
            (outage.end - outage.start) / _US,
            detect,
            decide,
            recover,
            outage.restarts,
            outage.first_seq,
            outage.last_seq,
        )


def _apart(down: Sequence[tuple[int, int]]) -> int:
    """How many times it went down after having been up for longer than a relapse takes."""
    count, before = 0, -RELAPSE_US
    for since, until in down:
        count += since - before >= RELAPSE_US
        before = until
    return count


# -- the objective


def _slo(history: History, service: Service, objective: Objective, end: int) -> Slo:
    from everup.reliability.slo import budget, burn_rate

    window = int(objective.window_s * _US)
    ok, failed, rejected = calls_of(service, end - window, end)
    total = float(ok + failed + rejected)
    by, valid, bad = "requests", total, float(failed + rejected)
    ok, failed, rejected = calls_of(service, end - HOUR_US, end)
    hour_valid, hour_bad = float(ok + failed + rejected), float(failed + rejected)
    if (1 - objective.objective / 100) * total < 1:  # too few for the objective to mean anything
        by, total, hour_valid = "time", objective.window_s, 3600.0
        valid, bad = _valid_and_down(service, end - window, end)
        _, hour_bad = _valid_and_down(service, end - HOUR_US, end)
    spent = budget(objective.objective, max(total, valid), bad)
    measured = 100 * (1 - bad / valid) if valid else None
    return Slo(
        objective.objective,
        objective.window_s,
        by,
        measured,
        spent.allowed,
        bad,
        spent.left,
        burn_rate(objective.objective, hour_valid, min(hour_bad, hour_valid)),
        None if measured is None else spent.left >= 0,
    )


def _valid_and_down(service: Service, start: int, end: int) -> tuple[float, float]:
    sums = sums_of(service, start, end)
    down = sums[DOWN] / _US
    return (sums[UP] + sums[DEGRADED]) / _US + down, down


# -- all of them


def _whole(views: Sequence["_View"], start: int, end: int, slowest: int) -> Whole:
    worst = [incident for view in views for incident in view.slowest(slowest)]
    worst.sort(key=lambda incident: -incident.down_s)
    times = times_of(_every(views, start, end))
    return Whole(
        times,
        times.availability,
        weighted([line for view in views for line in view.lines]),
        _failures(views),
        _repairs(views),
        tuple(worst[:slowest]),
    )


_WORST = (DOWN, UNKNOWN, DEGRADED, UP, PLANNED)


def _every(views: Sequence["_View"], start: int, end: int) -> list[int]:
    """Sums of a line that is as its worst service: down while any is, planned while all are."""
    events: list[tuple[int, int, int]] = []
    for number, view in enumerate(views):
        for since, _until, cls in view.spans:
            events.append((since, number, cls))
    events.sort(key=itemgetter(0))
    now = [PLANNED] * len(views)
    counts = [0] * CLASSES
    counts[PLANNED] = len(views)
    sums, at, worst = [0] * CLASSES, start, PLANNED
    for when, number, cls in events:
        sums[worst] += when - at
        at = when
        counts[now[number]] -= 1
        counts[cls] += 1
        now[number] = cls
        for worst in _WORST:
            if counts[worst]:
                break
    sums[worst] += end - at
    return sums


def _failures(views: Sequence["_View"]) -> Failures:
    outages = [(outage, view) for view in views for outage in view.outages]
    kinds: Counter[str] = Counter(outage.kind for outage, _ in outages)
    relapses = sum(outage.relapse for outage, _ in outages)
    for view in views:
        for number, day in view.service.days.items():
            if in_days(number, view.start, view.end):
                kinds.update(day.kinds)
                relapses += day.relapses
    up_s = sum(line[UP] for view in views for line in view.lines) / _US
    windows = [] if len(views) != 1 else [views[0].operating()]
    return failures_of(kinds, relapses, up_s, windows)


def _repairs(views: Sequence["_View"]) -> Repairs:
    old = [0] * 8
    for view in views:
        for number, day in view.service.days.items():
            if in_days(number, view.start, view.end):
                old = [a + b for a, b in zip(old, day.repairs, strict=True)]
    return repairs_of([parts(o) for view in views for o in view.outages if o.ended], old)


def _s(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / _US
