"""Probe results to verdicts: thresholds in a row, level-triggered."""

from dataclasses import dataclass, replace
from enum import Enum

from everup.model.signal import ProbeResult
from everup.model.spec import Probe


class Verdict(Enum):
    NONE = "nothing new"
    HEALTHY = "success_threshold reached"
    SUSPECT = "failed, below failure_threshold"
    FAILED = "failure_threshold reached"
    NEUTRAL = "says more of everup than of the service"


@dataclass(frozen=True, slots=True)
class ProbeState:
    """The run of equal results of one probe, newest last."""

    successes: int = 0
    failures: int = 0
    last: ProbeResult | None = None
    postponed_since: float | None = None
    """Since when a verdict of failure waits for the end of a starvation."""


def step(
    state: ProbeState, probe: Probe, result: ProbeResult, age_s: float, lag_limit_s: float
) -> tuple[ProbeState, Verdict]:
    """Count one result. ``age_s`` is the time since the process started.

    A failure that everup itself came late to (``lateness_s`` above ``lag_limit_s``) is neutral:
    the answer may have been there in time. The verdict is level-triggered: it is repeated for
    every failure past the threshold, so one that was postponed is not lost.
    """
    if result.ok:
        successes = min(state.successes + 1, probe.success_threshold)
        state = ProbeState(successes=successes, last=result)
        return state, Verdict.HEALTHY if successes == probe.success_threshold else Verdict.NONE
    if age_s < probe.grace:
        return replace(state, successes=0, last=result), Verdict.NONE
    if result.lateness_s > lag_limit_s:
        return replace(state, last=result), Verdict.NEUTRAL
    failures = min(state.failures + 1, probe.failure_threshold)
    state = replace(state, successes=0, failures=failures, last=result)
    return state, Verdict.FAILED if failures == probe.failure_threshold else Verdict.SUSPECT
