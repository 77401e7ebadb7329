"""The numbers of a plan: each with where it comes from and how well it is known."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from everup.reliability._plan_types import Assumptions, Observed, Source, WhatIf

if TYPE_CHECKING:
    from numpy.random import Generator

SPREAD = 0.7
"""Standard deviation of the logarithm of an assumed time: 95 % within a factor of four."""
WORTH = 10.0
"""An assumed coverage or common cause counts as much as so many failures that were seen."""
_FARTHEST = 7.0
"""A factor of e^7 bounds what Student's distribution does to times measured twice."""


@dataclass(frozen=True, slots=True)
class Number:
    """``shape``: how it is distributed around its value.

    fixed; gamma with ``a`` as shape and ``value`` times ``b`` as mean; lognormal with ``a`` as
    standard deviation of the logarithm (``b``: degrees of freedom of Student's distribution, 0:
    normal) and ``value`` as median; beta with ``a`` and ``b``.
    """

    value: float
    source: Source
    note: str = ""
    shape: Literal["fixed", "gamma", "lognormal", "beta"] = "fixed"
    a: float = 0.0
    b: float = 0.0
    sample: float | None = None
    """What was counted, as it is."""
    factor: float = 1.0
    """What a change on the way to a target makes of it."""

    @property
    def now(self) -> float:
        return self.value * self.factor

    def times(self, factor: float) -> "Number":
        return replace(self, factor=self.factor * factor)

    def draw(self, rng: "Generator", size: int) -> Any:
        """An array of ``size`` values, or the value itself where it is known."""
        if self.value == 0:
            return 0.0
        if self.shape == "gamma":
            return rng.standard_gamma(self.a, size) * (self.now * self.b / self.a)
        if self.shape == "lognormal":
            import numpy as np

            z = rng.standard_t(self.b, size) if self.b else rng.standard_normal(size)
            return self.now * np.exp(np.clip(z * self.a, -_FARTHEST, _FARTHEST))
        if self.shape == "beta":
            return rng.beta(self.a, self.b, size) * self.factor
        return self.now

    def bounds(self) -> tuple[float, float]:
        """The 2.5 and 97.5 % points."""
        if self.value == 0 or self.shape == "fixed":
            return self.now, self.now
        if self.shape == "gamma":
            from scipy.special import gammaincinv

            low, high = (float(gammaincinv(self.a, p)) / self.a for p in (0.025, 0.975))
            return low * self.now * self.b, high * self.now * self.b
        if self.shape == "beta":
            from scipy.special import betaincinv

            low, high = (float(betaincinv(self.a, self.b, p)) for p in (0.025, 0.975))
            return low * self.factor, high * self.factor
        from scipy.special import ndtri, stdtrit

        z = -float(stdtrit(self.b, 0.025) if self.b else ndtri(0.025))
        reach = math.exp(min(z * self.a, _FARTHEST))
        return self.now / reach, self.now * reach


def rate(count: int, relapses: float, up_s: float, assumed_every_s: float, what: str) -> Number:
    """Failures per second of up time: a gamma distribution.

    With n failures in time T: ``(n + 1/2) / T``, the mean of Jeffreys' posterior. Relapses are
    failures like others in that, but no evidence of their own: the shape is ``m + 1/2`` with the m
    that are none, and the draws are of ``(m + 1/2) (n / m) / T``, bursts of the size that was seen.
    What was counted (``sample``) and what is added for bursts (``b``) are two numbers. With none:
    what is assumed counts as one failure in its time (shape 1), and the time without a failure is
    added to that time.
    ``assumed_every_s`` inf: nothing is assumed.
    """
    if not count or up_s <= 0:
        if math.isinf(assumed_every_s):
            return Number(0.0, "measured", f"no {what} in {_days(up_s)}")
        source: Source = "measured" if up_s >= assumed_every_s else "assumed"
        note = f"no {what} in {_days(up_s)}" if up_s > 0 else ""
        return Number(1 / (assumed_every_s + up_s), source, note, "gamma", 1.0, 1.0)
    independent = max(1.0, count - relapses)
    bursts = (independent + 0.5) * (count / independent) / (count + 0.5)
    note = f"{count} {_plural(what, count)} in {_days(up_s)}"
    if count > independent:
        every, again = _days(up_s / count), count - independent
        note += f", one each {every}; {again:.3g} of them soon after another"
    mean, shape = (count + 0.5) / up_s, independent + 0.5
    return Number(mean, "measured", note, "gamma", shape, bursts, sample=count / up_s)


def mean_time(values_s: tuple[float, ...], assumed_s: float | None, what: str) -> Number:
    """Mean of a time: log-normal around the sample's mean. The standard error of its logarithm is
    that of Cox's method, ``sqrt(s^2/n + s^4/(2(n-1)))`` (see ``repair.lognormal_mean``), with
    Student's distribution; one value is as uncertain as an assumed one."""
    if not values_s:
        assert assumed_s is not None
        return Number(assumed_s, "assumed", "", "lognormal", SPREAD)
    n = len(values_s)
    mean = math.fsum(values_s) / n
    note = f"mean of {n} {_plural(what, n)}"
    if n == 1 or mean <= 0:
        return Number(mean, "measured", note, "lognormal", SPREAD)
    logs = [math.log(max(value, 1e-3)) for value in values_s]
    middle = math.fsum(logs) / n
    variance = math.fsum((x - middle) ** 2 for x in logs) / (n - 1)
    error = math.sqrt(variance / n + variance * variance / (2 * (n - 1)))
    return Number(mean, "measured", note, "lognormal", error, n - 1)


def share(assumed: float, hits: float, misses: float, note: str) -> Number:
    """A share with its beta distribution: ``WORTH`` observations at what is assumed, and those
    that were made. Assumed 0 and no hits: 0."""
    a, b = assumed * WORTH + hits, (1 - assumed) * WORTH + misses
    seen = hits + misses
    source: Source = "measured" if seen >= WORTH else "assumed"
    note = note if seen else ""
    if a == 0 or b == 0:
        return Number(0.0 if a == 0 else 1.0, source, note)
    return Number(a / (a + b), source, note, "beta", a, b)


def numbers_of(
    name: str, units: int, assumed: Assumptions, what_if: WhatIf, seen: Observed | None
) -> dict[str, Number]:
    """All that does not come from the config. Keys: ``crash``, ``hang``, ``unready`` (per second),
    ``unready_s``, ``start``, ``person``, ``unseen``, ``mttr`` (seconds), ``not_recovered``,
    ``common`` (shares)."""
    seen = seen or Observed(0.0)
    failures = seen.crashes + seen.hangs + seen.unready
    part = seen.relapses / failures if failures else 0.0
    found = {
        "crash": rate(
            seen.crashes, seen.crashes * part, seen.up_s, assumed.crash_every_s, "crash"
        ),
        "hang": rate(seen.hangs, seen.hangs * part, seen.up_s, assumed.hang_every_s, "hang"),
        "unready": rate(
            seen.unready, seen.unready * part, seen.up_s, math.inf, "unready time"
        ),
        "unready_s": mean_time(seen.unready_s, 0.0, "time"),
        "start": mean_time(seen.starts_s, assumed.start_s, "start"),
        "person": mean_time(seen.persons_s, assumed.person_s, "time"),
        "unseen": Number(assumed.unseen_s, "assumed", "", "lognormal", SPREAD),
        "not_recovered": share(
            assumed.not_recovered, seen.not_recovered, seen.recovered,
            f"{seen.recovered} of {seen.recovered + seen.not_recovered} were",
        ),
        "common": Number(0.0, "config", "one instance"),
    }  # fmt: skip
    if units > 1:
        # In units of events that strike n replicas: the share of a replica's failures comes out.
        found["common"] = share(
            assumed.common_cause,
            seen.together,
            seen.apart / max(1, seen.replicas) if seen.alone is None else seen.alone,
            f"{seen.together} x all at once, {seen.apart} x one alone",
        )
    if name in what_if.coverage:
        found["not_recovered"] = Number(1 - what_if.coverage[name], "what-if")
    if name in what_if.common_cause and units > 1:
        found["common"] = Number(what_if.common_cause[name], "what-if")
    if name in what_if.mttf_s:
        _known_rates(found, what_if.mttf_s[name])
    if name in what_if.mttr_s:
        found["mttr"] = Number(what_if.mttr_s[name], "what-if")
    return found


def _known_rates(found: dict[str, Number], mttf_s: float) -> None:
    """The whole rate as given; its parts as they were to each other."""
    kinds = ("crash", "hang", "unready")
    whole = sum(found[kind].now for kind in kinds)
    for kind in kinds:
        found[kind] = Number(found[kind].now / whole / mttf_s, "what-if")


def _plural(what: str, count: int) -> str:
    return what if count == 1 else f"{what}{'es' if what.endswith('sh') else 's'}"


def _days(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
