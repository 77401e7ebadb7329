"""What a history says of each service, for a plan."""

from everup.reliability._account_types import Account, ServiceReport
from everup.reliability._history_state import Outage, parts
from everup.reliability._plan_types import Observed
from everup.reliability.history import History

_US = 1e6
CRASHES = frozenset(("exit", "signal", "oom", "spawn", "hook", "lost", "startup"))
HANGS = frozenset(("liveness", "watchdog", "verdict"))
UNREADY = "readiness"
"""Kinds of failure (``history.REASONS``); "group" is another member's."""
_STOPPED_S = 60.0
AT_ONCE_S = 10.0
"""Failures of all replicas within this time have one cause."""
PERSON_S = 900.0
"""A recovery that took longer was not everup's."""


def observed(
    history: History, found: Account, start: int, end: int, person_s: float = PERSON_S
) -> dict[str, Observed]:
    """By service; ``found`` is the account of the same window.

    ``person_s``: what took longer, or was ended by an operator, counts as not recovered by everup.
    Outages while everup or the machine was off say nothing of a recovery; they count as failures
    alone.
    """
    return {
        report.name: _of(report, history.services[report.name].outages, start, end, person_s)
        for report in found.services
    }


def _of(
    report: ServiceReport, outages: list[Outage], start: int, end: int, person_s: float
) -> Observed:
    kinds = report.failures.by_kind
    waits, starts, unready, persons = [], [], [], []
    recovered = 0
    for outage in outages:
        if not start <= outage.start < end or outage.kind == "group" or outage.blind:
            continue
        whole_s = (outage.end - outage.start) / _US
        if outage.kind == UNREADY:
            if outage.ended == "ready":
                unready.append(whole_s)
            continue
        if outage.ended != "ready" and whole_s < _STOPPED_S:
            continue  # stopped for another reason while it was coming back
        if outage.ended != "ready" or whole_s > person_s:
            persons.append(whole_s)
            continue
        recovered += 1
        _, decide, recover, _ = parts(outage)
        if decide is not None:
            waits.append(decide / _US)
        if recover is not None:
            starts.append(recover / _US)
    times = report.times
    apart, together = _together(outages, start, end, len(report.instances))
    return Observed(
        up_s=sum(i.times.up_s + i.times.degraded_s for i in report.instances),
        crashes=sum(count for kind, count in kinds.items() if kind in CRASHES),
        hangs=sum(count for kind, count in kinds.items() if kind in HANGS),
        unready=kinds.get(UNREADY, 0),
        relapses=report.failures.relapses,
        waits_s=tuple(waits),
        starts_s=tuple(starts),
        unready_s=tuple(unready),
        recovered=recovered,
        not_recovered=len(persons),
        persons_s=tuple(persons),
        apart=apart,
        together=together,
        replicas=len(report.instances),
        valid_s=times.valid_s,
        availability=times.availability,
    )


def _together(outages: list[Outage], start: int, end: int, replicas: int) -> tuple[int, int]:
    """Failures of one replica alone, and times that all failed within ``AT_ONCE_S``."""
    if replicas < 2:
        return 0, 0
    own = sorted(
        (outage.start, outage.slot)
        for outage in outages
        if start <= outage.start < end
        and outage.kind in CRASHES | HANGS
        and not outage.relapse
        and not outage.blind
    )
    together, at = 0, 0
    while at < len(own):
        until = own[at][0] + int(AT_ONCE_S * _US)
        after = at
        while after < len(own) and own[after][0] <= until:
            after += 1
        if len({slot for _, slot in own[at:after]}) >= replicas:
            together += 1
            at = after
        else:
            at += 1
    return len(own) - together * replicas, together
