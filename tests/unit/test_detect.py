"""Probe thresholds and the starvation guard."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.detect import probes, starvation
from everup.detect.probes import ProbeState, Verdict
from everup.model.event import Lag
from everup.model.instance import Slot
from everup.model.signal import ProbeKind, ProbeResult
from everup.model.spec import Everup, Probe

PROBE = Probe(tcp="listen", failure_threshold=3, success_threshold=2)
OK = ProbeResult(Slot("web", 1), ProbeKind.LIVENESS, 1, True, "ok", 0.001, 0.0)
BAD = replace(OK, ok=False, detail="no answer")
LATE = replace(BAD, lateness_s=1.0)


def verdicts(results: list[ProbeResult], age_s: float = 100.0) -> list[Verdict]:
    state, out = ProbeState(), []
    for result in results:
        state, verdict = probes.step(state, PROBE, result, age_s, 0.25)
        out.append(verdict)
    return out


def test_thresholds_count_in_a_row() -> None:
    assert verdicts([BAD, BAD, OK, BAD, BAD, BAD, BAD, OK, OK]) == [
        Verdict.SUSPECT,
        Verdict.SUSPECT,
        Verdict.NONE,
        Verdict.SUSPECT,
        Verdict.SUSPECT,
        Verdict.FAILED,
        Verdict.FAILED,  # level-triggered: a verdict that was postponed comes again
        Verdict.NONE,
        Verdict.HEALTHY,
    ]


def test_a_failure_that_everup_was_late_for_is_neutral() -> None:
    assert verdicts([BAD, BAD, LATE, LATE, BAD])[2:] == [
        Verdict.NEUTRAL,
        Verdict.NEUTRAL,
        Verdict.FAILED,
    ]


def test_grace() -> None:
    patient = replace(PROBE, grace=5.0)
    state, verdict = probes.step(ProbeState(), patient, BAD, 4.9, 0.25)
    assert (state.failures, verdict) == (0, Verdict.NONE)
    state, verdict = probes.step(ProbeState(), patient, BAD, 5.1, 0.25)
    assert (state.failures, verdict) == (1, Verdict.SUSPECT)


@given(st.lists(st.sampled_from([OK, BAD, LATE])))
def test_never_condemned_without_the_threshold_in_a_row(results: list[ProbeResult]) -> None:
    row = 0
    for result, verdict in zip(results, verdicts(results), strict=True):
        if result.ok:
            row = 0
        elif result is BAD:
            row += 1
        assert (verdict is Verdict.FAILED) == (row >= 3 and result is BAD)


def test_starved_by_own_lag_for_a_while() -> None:
    settings, guard = Everup(), starvation.Guard()
    assert not guard.starved(0.0)
    guard = starvation.step(guard, Lag(10.0), settings, 100.0)
    assert guard.starved(109.0)
    assert not guard.starved(111.0)
    assert "10.00 s late" in guard.sign


def test_starved_by_pressure() -> None:
    guard = starvation.step(starvation.Guard(), Lag(0.0, psi=80.0), Everup(), 5.0)
    assert guard.starved(6.0)
    assert "80 %" in guard.sign


@pytest.mark.parametrize(
    ("since", "now", "may"), [(None, 50.0, True), (45.0, 50.0, True), (40.0, 50.0, False)]
)
def test_postponed_no_longer_than_the_bound(since: float | None, now: float, may: bool) -> None:
    guard = starvation.Guard(lag_until=1000.0)
    assert starvation.may_postpone(guard, since, Everup(starvation_max=10.0), now) is may


def test_pressure_is_no_excuse_where_others_answer() -> None:
    pressed = starvation.Guard(pressure_until=1000.0)
    assert starvation.may_postpone(pressed, None, Everup(), 5.0)
    assert not starvation.may_postpone(pressed, None, Everup(), 5.0, others_answer=True)
    late = starvation.Guard(lag_until=1000.0)
    assert starvation.may_postpone(late, None, Everup(), 5.0, others_answer=True)


def test_a_ten_second_stop_of_the_observer_convicts_nobody() -> None:
    """All probes time out at once when everup wakes up; each was late for its answer."""
    late = replace(BAD, lateness_s=9.5)
    assert Verdict.FAILED not in verdicts([OK, OK] + [late] * 10)
