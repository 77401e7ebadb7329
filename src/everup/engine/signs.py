"""Signs of life and of failure: what the probes of one process, or its pings, have said."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from everup.model.signal import ProbeResult

_PATIENCE: Final = 2.0
PATIENCE_S: Final = 0.1
"""A probe that takes longer than so many times the one before, and this, waited for a service that
did not serve; one that is cut off sooner says nothing of the time before its end."""
Evidence = Mapping[str, Any]


class Sign(NamedTuple):
    """What one probe of one process, or its pings, have said. Moments are monotonic seconds. A
    tuple: one is made for each result."""

    ok_at: float | None = None
    """When the last probe that was answered began."""
    took_s: float = 0.0
    """How long its answer took."""
    failed_at: float | None = None
    """When the first began that was not answered since; None: the last one was answered."""
    failed_until: float | None = None
    """When the last failure was known."""
    good_since: float | None = None
    """When the first began that was answered since then."""
    every_s: float = 0.0
    """Between two pings."""

    @property
    def slow_s(self) -> float:
        """An answer that takes longer than this is no usual one."""
        return _PATIENCE * self.took_s + PATIENCE_S


def took(sign: Sign, result: ProbeResult, now: float) -> Sign:
    """Take in one result, which came at ``now``."""
    began_at = now - result.latency_s
    if not result.ok:
        since = began_at if sign.failed_at is None else sign.failed_at
        return sign._replace(failed_at=since, failed_until=now, good_since=None)
    ordinary = result.latency_s <= _PATIENCE * sign.took_s + PATIENCE_S
    took_s = result.latency_s if ordinary else sign.took_s
    good, until = sign.good_since, sign.failed_until
    if sign.failed_at is not None or good is None:
        good = began_at
        if not ordinary:  # it waited: the answer came as soon as there was one
            good = until = now - min(sign.took_s, result.latency_s)
    return Sign(began_at, took_s, None, until, good, sign.every_s)


def moment(evidence: Evidence, now: float) -> float:
    """When it happened, as well as that can be told; without evidence it was now."""
    if "ok_s" in evidence:
        return now - float(evidence["ok_s"]) - float(evidence.get("failed_ago_s", 0.0)) / 2
    return now - float(evidence.get("failed_s", 0.0)) - float(evidence.get("ok_ago_s", 0.0)) / 2
