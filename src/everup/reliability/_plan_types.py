"""What a plan takes and what it gives. Times in seconds, rates per second, shares 0 to 1."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from everup.reliability.interval import Interval

Source = Literal["measured", "assumed", "config", "what-if"]


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What is taken to be so where nothing was measured. Round numbers, not findings: a plan shows
    each that it used, and how much of the answer hangs on it."""

    crash_every_s: float = 30 * 86400.0
    """Mean up time of one replica between crashes."""
    hang_every_s: float = 180 * 86400.0
    """Mean up time of one replica between hangs."""
    start_s: float = 5.0
    """From the start of a process until it serves."""
    not_recovered: float = 0.01
    """1 - coverage: the part of failures that everup's restart does not mend."""
    person_s: float = 1800.0
    """From such a failure until a person has mended it."""
    unseen_s: float = 7200.0
    """How long a hang lasts that no probe sees: until users complain and a person restarts it."""
    common_cause: float = 0.05
    """beta: the part of a replica's failures that strikes all replicas of the service at once."""

    def __post_init__(self) -> None:
        for name in ("crash_every_s", "hang_every_s"):
            _above_zero(name, getattr(self, name))
        for name in ("start_s", "person_s", "unseen_s"):
            _not_negative(name, getattr(self, name))
        _share("not_recovered", self.not_recovered)
        _share("common_cause", self.common_cause)


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Numbers to plan with instead of those of the config and the journal; by service."""

    replicas: Mapping[str, int] = field(default_factory=dict)
    standby: Mapping[str, int] = field(default_factory=dict)
    mttf_s: Mapping[str, float] = field(default_factory=dict)
    """Mean up time of one replica between failures of any kind."""
    mttr_s: Mapping[str, float] = field(default_factory=dict)
    """Mean time down of one replica, whatever the failure and whoever mends it."""
    coverage: Mapping[str, float] = field(default_factory=dict)
    """The part of failures that everup recovers by itself."""
    common_cause: Mapping[str, float] = field(default_factory=dict)
    """beta."""

    @property
    def changes_structure(self) -> bool:
        """What was measured is then of something else."""
        return bool(self.replicas or self.standby)

    def names(self) -> tuple[tuple[str, str], ...]:
        """(field, service) of all that is given."""
        fields = ("replicas", "standby", "mttf_s", "mttr_s", "coverage", "common_cause")
        return tuple((name, service) for name in fields for service in getattr(self, name))

    def __post_init__(self) -> None:
        for name, least in (("replicas", 1), ("standby", 0)):
            for service, count in getattr(self, name).items():
                if count < least:
                    raise ValueError(f"{name} of {service}: {count} is not at least {least}")
        for service, value in self.mttf_s.items():
            _above_zero(f"mttf_s of {service}", value)
        for service, value in self.mttr_s.items():
            _not_negative(f"mttr_s of {service}", value)
        for name in ("coverage", "common_cause"):
            for service, value in getattr(self, name).items():
                _share(f"{name} of {service}", value)


@dataclass(frozen=True, slots=True)
class Observed:
    """What a journal says of one service."""

    up_s: float
    """Up time of all its instances together."""
    crashes: int = 0
    hangs: int = 0
    unready: int = 0
    """Times that it was not ready though it ran, by its readiness probe, and came back."""
    relapses: int = 0
    """Of all of these, those that followed on one before within minutes: not independent."""
    waits_s: tuple[float, ...] = ()
    """From the detection of a failure to the start of the new process; recovered by itself."""
    starts_s: tuple[float, ...] = ()
    """From there until it was ready; recovered by itself."""
    unready_s: tuple[float, ...] = ()
    recovered: int = 0
    """Crashes and hangs after which everup brought it back by itself."""
    not_recovered: int = 0
    """Those that a person ended, or that took longer than a person takes."""
    persons_s: tuple[float, ...] = ()
    """How long the latter took."""
    apart: int = 0
    """Failures of one replica alone, relapses left out, while there were several."""
    together: int = 0
    """Times that all replicas that there were failed at once."""
    replicas: int = 1
    alone: float | None = None
    """``apart``, each by the number of replicas that there were then; None: by ``replicas``."""
    valid_s: float = 0.0
    """Time in which the service should have been up, seen as one."""
    availability: float | None = None
    """Of that, the part in which any replica was ready."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prediction beside what was measured in a window as long as the one that was measured."""

    valid_s: float
    measured: float
    predicted: Interval
    """Of the availability in such a window: uncertain rates and the luck of a finite time."""
    inside: bool
    errs: Literal["", "optimistic", "pessimistic"]
    """Which way the prediction errs; "" while the measured one is inside."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A part of a service's own downtime, by what it is spent on."""

    kind: str
    """``crash``, ``hang``, ``unready``, or ``failure`` where a what-if makes no difference."""
    how: str
    """``restart``: everup mends it; ``person``: it waits for one; ``unseen``: nobody notices;
    ``itself``: it gets well."""
    per_year: float
    """How often, per replica (or whole group)."""
    mean_s: float
    """How long each time."""


@dataclass(frozen=True, slots=True)
class ServicePlan:
    name: str
    replicas: int
    standby: int
    alone: Interval
    """Availability of its own replicas: any of them ready."""
    availability: Interval
    """With all that it depends on."""
    downtime_s_per_year: Interval
    """With all that it depends on."""
    outages_per_year: float
    """With all that it depends on."""
    mttf_s: float
    """Of one replica."""
    mttr_s: float
    """Of one replica, all kinds of failure together."""
    needs: tuple[str, ...]
    """All services that must be up for it, found by following ``depends_on`` to the end."""
    losses: tuple[Loss, ...]
    comparison: Comparison | None


@dataclass(frozen=True, slots=True)
class Mend:
    """One thing to mend, and what that would save."""

    service: str
    what: str
    """``unseen hangs``, ``detection``, ``start``, ``wait``, ``person``, ``common cause``,
    ``unready``, ``failures``."""
    text: str
    saved_s_per_year: float
    """Downtime of the whole (or of the service that was asked for) saved if this was gone; of
    unseen hangs: if a liveness probe with everup's defaults saw them."""


@dataclass(frozen=True, slots=True)
class ServiceImportance:
    """Of one service for the whole (see :mod:`everup.reliability.importance`)."""

    service: str
    criticality: float
    """The part of the whole's downtime in which all hangs on this service."""
    birnbaum: float
    saved_s_per_year: float
    """If it never failed."""
    saved_by_half_mttr_s_per_year: float


@dataclass(frozen=True, slots=True)
class Assumption:
    """One number that the answer rests on."""

    name: str
    services: tuple[str, ...]
    """Whose; empty: of all."""
    value: float
    unit: Literal["s", "share"]
    low: float
    high: float
    """With 95 %."""
    source: Source
    note: str
    sample: float | None
    """What was counted, without what little data make of it; None: nothing was."""
    clustering: float
    """By this factor is its interval wider upwards because failures came in bursts; 1: they did
    not."""
    elasticity: float
    """Per cent by which the predicted downtime changes if this changes by one per cent; of
    coverage: if the part that is not recovered does."""


@dataclass(frozen=True, slots=True)
class Plan:
    scope: str
    """The service that was asked for; "": all."""
    availability: Interval
    """Every service of the scope up."""
    downtime_s_per_year: Interval
    outages_per_year: float
    services: tuple[ServicePlan, ...]
    mend: tuple[Mend, ...]
    importance: tuple[ServiceImportance, ...]
    assumptions: tuple[Assumption, ...]
    comparison: Comparison | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    """What-ifs that change nothing, and why."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change on the way to a target."""

    service: str
    kind: str
    text: str
    cost: int
    """0 config only, 1 a standby, 2 a replica, 3 engineering."""
    saved_s_per_year: float
    availability: float
    """Of the scope, after this one and those before it."""


@dataclass(frozen=True, slots=True)
class Route:
    """How to get to a target, cheapest first."""

    target: float
    before: float
    after: float
    reached: bool
    changes: tuple[Change, ...]
    limits: tuple[str, ...]
    """What keeps it from the target, the worst first; empty where it is reached."""
    notes: tuple[str, ...] = ()
    """Changes that were left out, and why."""


COSTS = ("config only", "standby", "replica", "engineering")


def _above_zero(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}: {value!r} is not a finite number above 0")


def _not_negative(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}: {value!r} is not a finite number of at least 0")


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: {value!r} is not between 0 and 1")
