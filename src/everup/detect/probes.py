"""Probe results to verdicts: thresholds in a row, level-triggered."""

from enum import Enum
from typing import Final, NamedTuple

from everup.model.signal import ProbeResult
from everup.model.spec import Probe


class Verdict(Enum):
    NONE = "nothing new"
    HEALTHY = "success_threshold reached"
    SUSPECT = "failed, below failure_threshold"
    FAILED = "failure_threshold reached"
    NEUTRAL = "says more of everup than of the service"


_HEALTHY: Final = Verdict.HEALTHY  # looked up once: that costs 0.1 us in Python 3.11


class ProbeState(NamedTuple):
    """The run of equal results of one probe, newest last. A tuple: one is made for each result."""

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
        enough = probe.success_threshold
        if state.successes + 1 < enough:
            return ProbeState(state.successes + 1, 0, result), Verdict.NONE
        return ProbeState(enough, 0, result), _HEALTHY
    if age_s < probe.grace:
        return state._replace(successes=0, last=result), Verdict.NONE
    if result.lateness_s > lag_limit_s:
        return state._replace(last=result), Verdict.NEUTRAL
    failures = min(state.failures + 1, probe.failure_threshold)
    state = state._replace(successes=0, failures=failures, last=result)
    return state, Verdict.FAILED if failures == probe.failure_threshold else Verdict.SUSPECT
