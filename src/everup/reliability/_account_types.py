"""The numbers of a report. Times in seconds; moments in seconds since the epoch, wall clock."""

from dataclasses import dataclass, fields, is_dataclass
from math import isfinite

from everup.reliability.interval import Interval


@dataclass(frozen=True, slots=True)
class Objective:
    """What a service promises: ``objective`` per cent over ``window_s``."""

    objective: float
    window_s: float


@dataclass(frozen=True, slots=True)
class Times:
    """Where the time of a window went. The five add up to the part of the window since the first
    entry about it."""

    up_s: float
    """All that should be there was ready."""
    degraded_s: float
    """Up, with a replica down; of an instance: 0."""
    down_s: float
    maintenance_s: float
    """Stopped, deployed, scaled, taken down: on purpose. Not valid time."""
    unknown_s: float
    """everup or the machine was off: neither up nor down. Not valid time."""

    @property
    def valid_s(self) -> float:
        return self.up_s + self.degraded_s + self.down_s

    @property
    def availability(self) -> float | None:
        """Up time by valid time; None without any."""
        valid = self.valid_s
        return (self.up_s + self.degraded_s) / valid if valid > 0 else None


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the repairs. None where nothing is known of any."""

    count: int
    median_s: float | None
    p95_s: float | None
    mean_s: float | None
    median: Interval | None
    """The median's interval, whatever the distribution (``repair.quantile_interval``); of the
    whole, not of its parts."""


@dataclass(frozen=True, slots=True)
class Repairs:
    """MTTR and its three parts."""

    total: Part
    detect: Part
    decide: Part
    recover: Part


@dataclass(frozen=True, slots=True)
class Failures:
    """How often it failed."""

    count: int
    by_kind: dict[str, int]
    relapses: int
    """Of them, those after less than ten minutes of up time: the same trouble again. They count
    in all times, not in the rate."""
    rate_per_s: Interval | None
    """Per second of up time of one instance."""
    mttf_s: Interval | None
    trend: str
    """``more frequent``, ``less frequent``, ``no trend shown``, or "" with too few failures."""
    trend_p: float | None
    beta: Interval | None
    """Exponent of the power law: above 1, more frequent."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Calls as the callers told them."""

    ok: int
    failed: int
    rejected: int
    """Turned away by the caller's breaker or limit; they count as not answered."""
    availability: Interval | None


@dataclass(frozen=True, slots=True)
class Slo:
    """How the objective stands. ``by``: ``time``, or ``requests`` where callers tell them."""

    objective: float
    window_s: float
    by: str
    measured: float | None
    """Per cent, over the objective's window."""
    allowed: float
    """The budget: seconds or requests."""
    spent: float
    left: float
    """Part of the budget, 1: all; below 0: overspent."""
    burn_1h: float
    """Times faster than allowed, over the last hour."""
    met: bool | None
    """The budget of the window is not overspent. None: nothing was valid yet."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One outage, for a list of the slowest."""

    instance: str
    kind: str
    cause: str
    start: float
    end: float | None
    """None: it goes on."""
    down_s: float
    detect_s: float | None
    decide_s: float | None
    recover_s: float | None
    restarts: int
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class InstanceReport:
    name: str
    state: str
    """``up``, ``down``, ``maintenance`` or ``unknown`` now."""
    since: float
    times: Times
    availability: float | None
    failures: int


@dataclass(frozen=True, slots=True)
class ServiceReport:
    name: str
    state: str
    times: Times
    """Of the service: up while any replica is ready."""
    availability: Interval | None
    """Any replica ready."""
    replica_weighted: float | None
    """Mean over the replicas' valid time: what capacity was there."""
    outages: int
    """Times that the service as a whole was down."""
    instances: tuple[InstanceReport, ...]
    failures: Failures
    repairs: Repairs
    requests: Requests | None
    slo: Slo | None
    deploys: int
    deploys_failed: int
    slowest: tuple[Incident, ...]
    open: tuple[Incident, ...]
    down: tuple[tuple[float, float], ...]
    """When the service was down: from, to."""


@dataclass(frozen=True, slots=True)
class Whole:
    """All services together."""

    times: Times
    """Down while any service is."""
    every_service_up: float | None
    replica_weighted: float | None
    failures: Failures
    repairs: Repairs
    slowest: tuple[Incident, ...]


@dataclass(frozen=True, slots=True)
class Account:
    start: float
    end: float
    first: float | None
    """When the journal's first entry was written."""
    lost_events: int
    off_s: float
    """everup was off without anybody having said so."""
    services: tuple[ServiceReport, ...]
    whole: Whole


def plain(value: object) -> object:
    """As JSON has it: intervals as objects, what is not finite as null."""
    if isinstance(value, Interval):
        return {name: plain(item) for name, item in value._asdict().items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
