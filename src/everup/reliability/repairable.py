"""Groups of alike units that share repair crews, wait as spares, fail over and fail together.

One :class:`Group` says all of it; :func:`solve` gives the long run and the time to the first
failure in closed form, :func:`chain` the same group as a Markov chain (for transients). The state
is the number of failed units, and beside it "stuck": a failover that went wrong. Once somebody
has recovered it, it goes on with that unit among the failed.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from everup.reliability.interval import in_range
from everup.reliability.markov import Chain, State

_LEAST = 1e-290


@dataclass(frozen=True, slots=True)
class Group:
    """``units`` alike units of which ``need`` must work. Raises ``ValueError``.

    Assumptions: all times exponential; a repaired unit is as good as new; failures are seen at
    once (add the time to detect to the repair time, or say it as ``coverage``).
    """

    units: int
    """n, at least 1."""
    need: int
    """k: the group is up while at least so many work; 1 to ``units``."""
    failure_rate_per_s: float
    """lambda of one working unit, above 0, common cause included."""
    repair_rate_per_s: float
    """mu of one repair, above 0."""
    crews: int | None = None
    """Repairs at a time; None: one for each unit."""
    kind: Literal["active", "standby"] = "active"
    """active: all units carry load and fail at lambda. standby: ``need`` do, the others wait."""
    dormancy: float = 0.0
    """Failure rate of a waiting unit as part of lambda, only for standby: 0 cold, 1 hot, between
    them warm."""
    coverage: float = 1.0
    """c: the part of failures of a loaded unit after which the group goes on with the others. With
    1 - c it is stuck (down though enough units work) until somebody recovers it; then it goes on
    with one more failed unit than before. Failures that
    bring the group down anyway and those of waiting units do not count."""
    recovery_rate_per_s: float | None = None
    """delta, of a stuck group; needed where ``coverage`` is below 1. Meanwhile nothing else fails
    or is repaired: holds where recovery is short beside the time to failure."""
    common_cause: float = 0.0
    """beta: the part of lambda that strikes all units at once, at least 0 and below 1. Each unit
    then fails alone at ``(1 - beta) lambda`` (waiting units: times dormancy) and all together at
    ``beta lambda``; afterwards the crews mend one by one."""
    fails_when_down: bool = True
    """Whether working units go on failing alone while the group is down (a common cause does)."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def together_per_s(self) -> float:
        """Rate of the common cause, ``beta lambda``."""
        return self.common_cause * self.failure_rate_per_s

    def loaded(self, failed: int) -> int:
        """Units under load when ``failed`` have failed."""
        left = self.units - failed
        if left < self.need and not self.fails_when_down:
            return 0
        return left if self.kind == "active" else min(left, self.need)

    def alone_per_s(self, failed: int) -> tuple[float, float]:
        """Rates of the next failure of one unit: of those under load, of those that wait."""
        rate = (1 - self.common_cause) * self.failure_rate_per_s
        loaded = self.loaded(failed)
        up = self.units - failed >= self.need
        waiting = self.units - failed - loaded if up and self.kind == "standby" else 0
        return loaded * rate, waiting * rate * self.dormancy

    def repairs_per_s(self, failed: int) -> float:
        crews = self.units if self.crews is None else self.crews
        return min(failed, crews) * self.repair_rate_per_s


class GroupResult(NamedTuple):
    """Of a group in the long run, and until its first failure."""

    availability: float
    unavailability: float
    mttf_s: float
    """From all units new to the first failure of the group, with repair of units meanwhile."""
    frequency_per_s: float
    """Failures of the group per second in the long run."""
    mean_up_s: float
    mean_down_s: float
    """With common cause too short: it takes the repairs of those that a common cause struck for
    independent ones, of which the first ends the outage."""
    stuck: float
    """The part of the unavailability that failed failovers (1 - c) make."""


def k_of_n(
    k: int, n: int, failure_rate_per_s: float, repair_rate_per_s: float, crews: int | None = None
) -> GroupResult:
    """``k`` of ``n`` active units with repair by ``crews``: :func:`solve` of the plain group.

    One of one: ``A = mu / (lambda + mu)``. One of two with one crew:
    ``(mu^2 + 2 lambda mu) / (mu^2 + 2 lambda mu + 2 lambda^2)``.
    """
    return solve(Group(n, k, failure_rate_per_s, repair_rate_per_s, crews))


def standby(
    need: int,
    spares: int,
    failure_rate_per_s: float,
    repair_rate_per_s: float,
    *,
    dormancy: float = 0.0,
    crews: int | None = None,
    switch_success: float = 1.0,
    recovery_rate_per_s: float | None = None,
) -> GroupResult:
    """``need`` working units and ``spares`` waiting ones: cold (``dormancy`` 0), warm, hot (1).

    ``switch_success``: probability that a spare takes over when it should; otherwise the group is
    down until somebody switches, at ``recovery_rate_per_s``. See :func:`solve`.
    """
    return solve(
        Group(
            need + spares,
            need,
            failure_rate_per_s,
            repair_rate_per_s,
            crews,
            "standby",
            dormancy,
            switch_success,
            recovery_rate_per_s,
        )
    )


@in_range()
def solve(group: Group) -> GroupResult:
    """The long run and the mean time to the first failure, in closed form.

    With ``lambda_j`` the rate of single failures and ``u_j`` that of uncovered ones when j units
    have failed, ``gamma = beta lambda``, ``mu_j = min(j, crews) mu`` and ``m = n - k``: the flow
    between "at most j failed" and "more" is the same both ways, so
    ``pi_(j+1) mu_(j+1) = pi_j lambda_j + gamma sum_(i<=j) pi_i``, and
    ``pi_stuck = sum_j pi_j u_j / delta``. Unavailability is ``pi_stuck + sum_(j>m) pi_j``; failure
    frequency ``pi_m lambda_m + sum_(j<m) pi_j u_j + gamma sum_(j<=m) pi_j``; mean down time is
    their quotient. MTTF by the recursion ``h_j = a_j + b_j h_(j+1)`` from state 0. No subtraction:
    relative error about 1e-14. Range: ``n`` up to some thousands; raises ``ValueError`` where it
    fails, or works, less than once in 1e290 s: too rarely for floating-point numbers. Sources:
    Trivedi, Probability and Statistics with Reliability, Queuing and Computer Science Applications
    (2nd ed. 2002), chapter 8 (birth-death availability models, imperfect coverage); IEC 61508-6
    annex D (beta factor).
    """
    spare = group.units - group.need
    weights, sums = _weights(group)
    stuck = frequency = 0.0
    for failed in range(spare):
        stuck += weights[failed] * _uncovered(group, failed)
    frequency = stuck + group.together_per_s * sums[spare]
    frequency += weights[spare] * sum(group.alone_per_s(spare))
    # Without a recovery rate nothing is ever stuck.
    stuck = stuck / group.recovery_rate_per_s if group.recovery_rate_per_s else 0.0
    up = math.fsum(weights[: spare + 1])
    down = math.fsum(weights[spare + 1 :]) + stuck
    total = up + down
    if min(frequency / total, up / total) < _LEAST:  # what is left of the digits is wrong
        raise OverflowError
    return GroupResult(
        availability=up / total,
        unavailability=down / total,
        mttf_s=_mttf_s(group),
        frequency_per_s=frequency / total,
        mean_up_s=up / frequency,
        mean_down_s=down / frequency,
        stuck=stuck / total,
    )


def chain(group: Group) -> tuple[Chain, frozenset[State]]:
    """The group as a Markov chain, and its down states.

    States are the numbers of failed units, and ``("stuck", j)`` after the j-th.
    """
    rates: dict[tuple[State, State], float] = {}
    down: set[State] = set(range(group.units - group.need + 1, group.units + 1))
    for failed in range(group.units):
        uncovered = _uncovered(group, failed)
        _add(rates, failed, failed + 1, sum(group.alone_per_s(failed)) - uncovered)
        _add(rates, failed + 1, failed, group.repairs_per_s(failed + 1))
        _add(rates, failed, group.units, group.together_per_s)
        if uncovered and group.recovery_rate_per_s is not None:
            stuck: State = ("stuck", failed + 1)
            down.add(stuck)
            _add(rates, failed, stuck, uncovered)
            _add(rates, stuck, failed + 1, group.recovery_rate_per_s)
    return Chain(rates), frozenset(down)


def _weights(group: Group) -> tuple[list[float], list[float]]:
    """Relative probability of j failed units, and of at most j."""
    weights, sums = [1.0], [1.0]
    for failed in range(group.units):
        flow = weights[failed] * sum(group.alone_per_s(failed))
        flow += sums[failed] * group.together_per_s
        weights.append(flow / group.repairs_per_s(failed + 1))
        sums.append(sums[failed] + weights[-1])
        if sums[-1] > 1e250:
            scale = sums[-1]
            weights = [weight / scale for weight in weights]
            sums = [each / scale for each in sums]
    return weights, sums


def _mttf_s(group: Group) -> float:
    """From j failed: ``a_j`` mean time until j+1 or the end, ``b_j`` probability of j+1 first."""
    spare = group.units - group.need
    steps: list[tuple[float, float]] = []
    mean, ending = 0.0, 0.0
    for failed in range(spare):
        uncovered = _uncovered(group, failed)
        going = sum(group.alone_per_s(failed)) - uncovered
        lost, mending = uncovered + group.together_per_s, group.repairs_per_s(failed)
        out = going + lost + mending * ending
        steps.append(((1 + mending * mean) / out, going / out))
        mean, ending = steps[-1][0], (lost + mending * ending) / out
    out = sum(group.alone_per_s(spare)) + group.together_per_s + group.repairs_per_s(spare) * ending
    total = (1 + group.repairs_per_s(spare) * mean) / out
    for wait, on in reversed(steps):
        total = wait + on * total
    return total


def _uncovered(group: Group, failed: int) -> float:
    """Rate of failures that leave the group stuck; where it goes down anyway there are none."""
    if group.coverage == 1 or failed >= group.units - group.need:
        return 0.0
    return (1 - group.coverage) * group.alone_per_s(failed)[0]


def _add(rates: dict[tuple[State, State], float], here: State, there: State, rate: float) -> None:
    if rate:
        rates[here, there] = rates.get((here, there), 0.0) + rate


def _check(group: Group) -> None:
    if group.units < 1:
        raise ValueError(f"units {group.units}: at least 1")
    if not 1 <= group.need <= group.units:
        raise ValueError(f"need {group.need}: between 1 and units, {group.units}")
    for field in ("failure_rate_per_s", "repair_rate_per_s", "recovery_rate_per_s"):
        value = getattr(group, field)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{field} {value}: finite and above 0, per second")
    if group.crews is not None and group.crews < 1:
        raise ValueError(f"crews {group.crews}: at least 1, or None for one for each unit")
    if group.kind not in ("active", "standby"):
        raise ValueError(f"kind {group.kind!r}: 'active' or 'standby'")
    for field in ("dormancy", "coverage"):
        value = getattr(group, field)
        if not 0 <= value <= 1:
            raise ValueError(f"{field} {value}: between 0 and 1")
    if group.kind == "active" and group.dormancy != 0:
        raise ValueError(f"dormancy {group.dormancy}: only for kind 'standby'")
    if not 0 <= group.common_cause < 1:
        raise ValueError(f"common_cause {group.common_cause}: at least 0, below 1")
    if group.coverage < 1 and group.recovery_rate_per_s is None:
        raise ValueError(
            f"recovery_rate_per_s is not given: needed with coverage {group.coverage}, below 1"
        )
