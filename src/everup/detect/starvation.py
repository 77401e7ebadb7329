"""Is everup itself, or the machine, starved? Then a hang of a service proves nothing.

A verdict given by a watcher that was itself not running condemns the healthy (systemd#13843,
kubernetes#33859). The guard looks at the lateness of everup's own loop and at the CPU pressure of
the machine, and remembers for a while.
"""

from dataclasses import dataclass

from everup.model.event import Lag
from everup.model.replacing import replace
from everup.model.spec import Everup

MEMORY_S = 2.0
"""A starvation counts for this long after its last sign: probes that it spoilt come in late."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What was seen last. Own lateness and the machine's pressure are kept apart: where other
    services answer in time, the machine's pressure is no excuse."""

    lag_until: float = float("-inf")
    pressure_until: float = float("-inf")
    sign: str = ""
    deaf_at: float = float("-inf")
    """When words of services may have been lost."""

    def deaf(self, now: float, interval_s: float) -> bool:
        """Whether one who speaks every ``interval_s`` may have spoken in vain since, or not yet
        had the time to speak again."""
        return now - self.deaf_at < interval_s

    def starved(self, now: float, *, others_answer: bool = False) -> bool:
        return now < self.lag_until or (now < self.pressure_until and not others_answer)


def step(guard: Guard, lag: Lag, settings: Everup, now: float) -> Guard:
    """Take in one measurement."""
    if lag.deaf:
        return replace(guard, deaf_at=now)
    if lag.lag_s > settings.starvation_lag:
        # A pause of the whole process spoils whatever was under way: remember it for as long
        # again, within reason.
        until = max(guard.lag_until, now + max(MEMORY_S, min(lag.lag_s, 10.0)))
        sign = f"everup's own loop was {lag.lag_s:.2f} s late"
        return replace(guard, lag_until=until, sign=sign)
    if lag.psi > settings.starvation_psi:
        sign = f"tasks waited for CPU {lag.psi:.0f} % of the last 10 s"
        return replace(guard, pressure_until=now + MEMORY_S, sign=sign)
    return guard


def may_postpone(
    guard: Guard, since: float | None, settings: Everup, now: float, *, others_answer: bool = False
) -> bool:
    """Whether a verdict that has waited since ``since`` may wait still."""
    waited = 0.0 if since is None else now - since
    return guard.starved(now, others_answer=others_answer) and waited < settings.starvation_max
