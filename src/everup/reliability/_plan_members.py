"""From the config to what a plan computes with: units of services, with their settings' times."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from everup.model.spec import Probe, Restart, Service, Spec, Strategy
from everup.reliability._plan_numbers import Number, numbers_of
from everup.reliability._plan_types import Assumptions, Observed, WhatIf

DEFAULT_PROBE = Probe(http="/")
"""What an added liveness probe would be: everup's defaults."""
Tuning = Mapping[tuple[str, str], float]
"""(service, number) -> factor; what engineering makes of a number."""


@dataclass(frozen=True, slots=True)
class Member:
    """One service as a plan sees it."""

    name: str
    replicas: int
    standby: int
    sees_hangs: bool
    restarts: bool
    numbers: Mapping[str, Number]
    needs: tuple[str, ...]
    """Services that must be up for it, itself first."""

    @property
    def units(self) -> int:
        """A standby is a process that runs and can fail like the others."""
        return self.replicas + self.standby


@dataclass(frozen=True, slots=True)
class Unit:
    """What fails as one: a service, or services whose strategy restarts them together."""

    name: str
    members: tuple[str, ...]
    together: bool = False
    """Any failure of any instance takes all of its members down."""


@dataclass(frozen=True, slots=True)
class Structure:
    members: dict[str, Member]
    units: tuple[Unit, ...]
    own: dict[str, frozenset[str]]
    """Service -> units whose failure takes its own replicas down."""
    needed: dict[str, frozenset[str]]
    """Service -> units that must be up for it, those of its dependencies among them."""


def detect_s(service: Service) -> float:
    """Mean time from a hang to the verdict; inf where no probe sees it.

    The last success lies half an interval back on average, so the first failing probe starts half
    an interval later; ``failure_threshold - 1`` more follow an interval apart (a timeout, where
    that is longer), and the last one must time out:
    ``interval/2 + (failure_threshold - 1) max(interval, timeout) + timeout``. Seen from the last
    sign of health, and at worst, half an interval more. A watchdog: its interval, of which half a
    ping's distance (a quarter of it) has gone by on average.
    """
    found = math.inf
    if probe := seeing_probe(service):
        apart = max(probe.interval, probe.timeout)
        found = probe.interval / 2 + (probe.failure_threshold - 1) * apart + probe.timeout
    if service.watchdog is not None:
        found = min(found, service.watchdog.interval * 0.75)
    return found


def seeing_probe(service: Service) -> Probe | None:
    """The liveness probe, if a hang makes it fail. A socket that everup holds accepts without the
    process, so a ``tcp`` probe of it succeeds for ever."""
    probe = service.probe.liveness
    if probe is None or (probe.tcp == "listen" and service.listen):
        return None
    return probe


def wait_s(restart: Restart, rate_per_s: float) -> float:
    """Mean time from the detection to the start: backoff and parking, for failures at this rate.

    A failure after less than ``reset_after`` of up time is one more in a row: with
    ``p = 1 - exp(-rate reset_after)`` the k-th in a row has probability ``p^(k-1) (1-p)``, and
    waits the mean of its backoff (the first none). With at least ``intensity.limit`` others within
    ``intensity.period`` (Poisson) it is parked. At one failure a month all of that is nothing; a
    crash loop waits less than this says, since its waits make failures rarer.
    """
    p = -math.expm1(-rate_per_s * restart.reset_after)
    mean = {"full": 0.5, "equal": 0.75, "none": 1.0}[restart.jitter]
    waits, chance = 0.0, 1 - p
    for attempt in range(2, 80):
        chance *= p
        whole = min(restart.max_delay, restart.delay * 2.0 ** min(attempt - 2, 40))
        waits += chance * whole * mean
    if p < 1:
        waits += p**79 * restart.max_delay * mean
    else:
        waits = restart.max_delay * mean
    expected = rate_per_s * restart.intensity.period
    term, fewer = math.exp(-expected), 0.0
    for count in range(restart.intensity.limit):
        fewer += term
        term *= expected / (count + 1)
    parked = max(0.0, 1 - fewer)
    return (1 - parked) * waits + parked * restart.park_interval


def rise_s(service: Service) -> float:
    """What the probes add to an assumed start time: half an interval until a startup and a
    readiness probe see it, and ``success_threshold - 1`` intervals more."""
    added = 0.0
    for probe in (service.probe.startup, service.probe.readiness):
        if probe is not None:
            added += probe.interval * (probe.success_threshold - 0.5)
    return added


def member(
    service: Service,
    needs: tuple[str, ...],
    assumed: Assumptions,
    what_if: WhatIf,
    seen: Observed | None,
    tuning: Tuning,
) -> Member:
    name = service.name
    found = numbers_of(name, service.slots, assumed, what_if, seen)
    if found["start"].source == "assumed" and (added := rise_s(service)):
        found["start"] = replace(
            found["start"], value=found["start"].value + added, note="with its probes"
        )
    detect = detect_s(service)
    sees = math.isfinite(detect)
    found["detect"] = Number(detect if sees else 0.0, "config", _detect_note(service))
    rate = found["crash"].now + found["hang"].now
    found["wait"] = Number(wait_s(service.restart, rate), "config", "backoff and parking")
    if seen is not None and seen.waits_s:
        value = math.fsum(seen.waits_s) / len(seen.waits_s)
        found["wait"] = Number(value, "measured", f"mean of {len(seen.waits_s)} waits")
    for (of, key), factor in tuning.items():
        if of == name and key in found:
            found[key] = found[key].times(factor)
    restarts = service.restart.policy != "never"
    return Member(name, service.replicas, service.standby, sees, restarts, found, needs)


def _detect_note(service: Service) -> str:
    if probe := seeing_probe(service):
        return (
            f"liveness every {probe.interval:g} s, {probe.failure_threshold} failures,"
            f" timeout {probe.timeout:g} s"
        )
    return "watchdog" if service.watchdog is not None else "no probe"


# -- structure


def planned(spec: Spec) -> dict[str, Service]:
    """The services that are to be up: no oneshots, none that is scaled to nothing."""
    return {
        name: service
        for name, service in spec.service.items()
        if service.type == "service" and service.replicas > 0
    }


def altered(spec: Spec, what_if: WhatIf) -> Spec:
    """The spec with other replicas and standbys. ``ValueError`` for a service that it has not."""
    services = dict(spec.service)
    for field_name, name in what_if.names():
        service = services.get(name)
        if service is None or service.type != "service":
            raise ValueError(f"{field_name} of {name}: no such service")
    for name, count in what_if.replicas.items():
        services[name] = replace(services[name], replicas=count)
    for name, count in what_if.standby.items():
        services[name] = replace(services[name], standby=count)
    return replace(spec, service=services)


def closure(services: Mapping[str, Service], name: str) -> tuple[str, ...]:
    """A service and all that it needs, itself first. A oneshot that is done needs nothing more."""
    found: dict[str, None] = {}
    stack = [name]
    while stack:
        at = stack.pop()
        if at in services and at not in found:
            found[at] = None
            stack.extend(reversed(services[at].depends_on))
    return tuple(found)


def structure(
    spec: Spec,
    assumed: Assumptions,
    what_if: WhatIf,
    seen: Mapping[str, Observed],
    tuning: Tuning,
) -> Structure:
    services = planned(spec)
    members = {
        name: member(service, closure(services, name), assumed, what_if, seen.get(name), tuning)
        for name, service in services.items()
    }
    units, own = _units(spec, services)
    needed = {
        name: frozenset[str]().union(*(own[service] for service in each.needs))
        for name, each in members.items()
    }
    return Structure(members, units, own, needed)


def _units(
    spec: Spec, services: Mapping[str, Service]
) -> tuple[tuple[Unit, ...], dict[str, frozenset[str]]]:
    """The units, and for each service those whose failure takes it down."""
    units: dict[str, Unit] = {name: Unit(name, (name,)) for name in services}
    own = {name: frozenset((name,)) for name in services}
    for group in spec.group.values():
        names = [name for name in group.services if name in services]
        if group.strategy is Strategy.ONE_FOR_ONE or not names:
            continue
        if group.strategy is Strategy.ONE_FOR_ALL:
            unit = Unit(f"group {group.name}", tuple(names), together=True)
            for name in names:
                units.pop(name, None)
                own[name] = frozenset((unit.name,))
            units[unit.name] = unit
        else:  # a crash takes along what is named after it
            for at, name in enumerate(names):
                units[name] = Unit(name, (name,), together=True)
                own[name] = frozenset(names[: at + 1])
    return tuple(units.values()), own


def warnings_of(spec: Spec, names: Iterable[str]) -> tuple[str, ...]:
    """What is missing in the config, the worst first."""
    found = []
    for name in names:
        service = spec.service[name]
        if not math.isfinite(detect_s(service)):
            probe = service.probe.liveness
            why = "it has no liveness probe and no watchdog"
            if probe is not None:
                why = "its tcp liveness probe asks a socket that everup holds, which always accepts"
            found.append(f"a hang of {name} is never detected: {why}")
        if service.restart.policy == "never":
            found.append(f"{name} is not restarted after a failure: its restart policy is never")
    return tuple(found)
