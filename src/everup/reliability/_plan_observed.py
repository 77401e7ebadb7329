"""What a history says of each service, for a plan."""

from everup.reliability._account_types import Account, ServiceReport
from everup.reliability._history_line import UP
from everup.reliability._history_state import Service, parts
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
        report.name: _of(report, history.services[report.name], start, end, person_s)
        for report in found.services
    }


def _of(report: ServiceReport, service: Service, start: int, end: int, person_s: float) -> Observed:
    kinds = report.failures.by_kind
    waits, starts, unready, persons = [], [], [], []
    recovered = 0
    for outage in service.outages:
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
    apart, alone, together = _together(service, start, end)
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
        alone=alone,
        together=together,
        replicas=len(report.instances),
        valid_s=times.valid_s,
        availability=times.availability,
    )


def _together(service: Service, start: int, end: int) -> tuple[int, float, int]:
    """Failures of one replica alone, the same each by the number of replicas that there were then,
    and times that all failed within ``AT_ONCE_S``.

    How many there are now does not matter: those that were up just before the first of them failed
    could be struck, standbys too. Relapses say nothing by themselves, but they are part of what
    happened at once."""
    own = sorted(
        (outage.start, outage.slot, outage.relapse)
        for outage in service.outages
        if start <= outage.start < end and outage.kind in CRASHES | HANGS and not outage.blind
    )
    apart, alone, together, at = 0, 0.0, 0, 0
    while at < len(own):
        first = own[at][0]
        after = at
        while after < len(own) and own[after][0] <= first + int(AT_ONCE_S * _US):
            after += 1
        there = {name for name, slot in service.slots.items() if slot.line.at(first - 1) == UP}
        struck = {name for _, name, _ in own[at:after]}
        new = sum(not relapse for _, _, relapse in own[at:after])
        if len(there) >= 2 and there <= struck and new:
            together += 1
            at = after
            continue
        if len(there | {own[at][1]}) >= 2 and not own[at][2]:
            apart += 1
            alone += 1 / len(there | {own[at][1]})
        at += 1
    return apart, alone, together
