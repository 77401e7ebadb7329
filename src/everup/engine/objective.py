"""Objectives: a service that spends its error budget too fast is told of while it does.

Only what users were let down by counts: not the time before a service was ready for the first time
since somebody asked for it, nor that of a restart, reload or stop that an operator wanted.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from everup.model.event import Remembered
from everup.model.instance import State
from everup.model.journal import Kind
from everup.model.spec import Service, Slo
from everup.reliability import slo

if TYPE_CHECKING:
    from everup.engine.core import Engine

_DOWN_EVERY_S = 15.0
_BURNING_EVERY_S = 60.0
_REMEMBER_S = 60.0


class Objective:
    """What is known of one service."""

    __slots__ = ("alarm", "due", "met", "promise", "quiet_until", "track")

    def __init__(self) -> None:
        self.track = slo.Track()
        self.alarm = slo.Alarm()
        self.promise: Slo | None = None
        """What was looked at last: the config may say otherwise now."""
        self.met = False
        """It has been ready since somebody wanted it."""
        self.due = 0.0
        """When to look again although nothing changes."""
        self.quiet_until = 0.0
        """It is not known yet what was before this engine: nothing is said until then."""


def resume(engine: "Engine", burning: Iterable[tuple[str, tuple[float, ...]]], now: float) -> None:
    """These alerts were on when the engine before this one died."""
    for name, windows_s in burning:
        objective = engine.objectives[name] = Objective()
        objective.alarm.resume(windows_s)
        objective.quiet_until = now + _REMEMBER_S
        if (service := engine.services.get(name)) is None or not _promises(service):
            _forget(engine, name)


def remember(engine: "Engine", event: Remembered) -> None:
    """What the journal knows of the time before this engine."""
    for name, spans in event.spans:
        service = engine.services.get(name)
        if service is not None and _promises(service):
            objective = engine.objectives.setdefault(name, Objective())
            objective.track.restore(spans)
            # Down when this engine came, and up before: the outage goes on.
            objective.met |= any(up for _, _, up in spans) and not spans[-1][2]
            engine.touch(name)
    for objective in engine.objectives.values():
        objective.quiet_until = objective.due = 0.0


def look(engine: "Engine", name: str, now: float) -> None:
    """Follow a service; record the alerts that begin or are over."""
    service = engine.services.get(name)
    if service is None or not _promises(service) or name in engine.leaving:
        _forget(engine, name)
        return
    objective = engine.objectives.setdefault(name, Objective())
    up = _is_up(engine, objective, name)
    if up != objective.track.up or service.slo != objective.promise or now >= objective.due:
        _judge(engine, objective, service, up, now)
    if up is False or objective.alarm.on:
        engine.wake(name, objective.due)


def _judge(
    engine: "Engine", objective: Objective, service: Service, up: bool | None, now: float
) -> None:
    assert service.slo is not None
    track, name, objective.promise = objective.track, service.name, service.slo
    track.note(_changed_at(engine, objective, name, up, now), up)
    if now < objective.quiet_until:
        objective.due = objective.quiet_until
        return
    down_s = now - track.since if up is False else 0.0
    found = slo.burns(track, service.slo.objective, service.slo.window, now)
    for rule in objective.alarm.keep(burn.rule for burn in found):
        _over(engine, name, objective, rule)
    for burn, begins in objective.alarm.step(found, down_s):
        engine.record(
            Kind.SLO_BURNING if begins else Kind.SLO_CALM,
            name,
            urgency=burn.rule.urgency.value,
            burn_rate=round(burn.rate, 2),
            threshold=round(burn.threshold, 2),
            window_s=burn.rule.long_s,
            outages=burn.failures,
            objective=service.slo.objective,
            burning=sorted(rule.long_s for rule in objective.alarm.on),
        )
    objective.due = now + (_DOWN_EVERY_S if up is False else _BURNING_EVERY_S)


def _changed_at(
    engine: "Engine", objective: Objective, name: str, up: bool | None, now: float
) -> float:
    """When it really went down, with the last of its instances, or up, with the first; that is
    before it was seen."""
    if up is None or up == objective.track.up or objective.track.up is None:
        return now
    instances = engine.all_of(name)
    moments = [engine.turned.get(i.slot, now) for i in instances if (i.state is State.READY) is up]
    at = min(moments, default=now) if up else max(moments, default=now)
    return min(now, max(at, objective.track.since))


def _promises(service: Service) -> bool:
    return service.slo is not None and service.type != "oneshot"


def _forget(engine: "Engine", name: str) -> None:
    """It promises nothing any more: alerts that are on are over."""
    objective = engine.objectives.pop(name, None)
    if objective is not None:
        for rule in objective.alarm.keep(()):
            _over(engine, name, objective, rule)


def _over(engine: "Engine", name: str, of: Objective, rule: slo.Rule) -> None:
    """A rule does not hold any more because the config has changed, whatever is burning."""
    engine.record(
        Kind.SLO_CALM,
        name,
        urgency=rule.urgency.value,
        window_s=rule.long_s,
        reason="the config has changed",
        burning=sorted(left.long_s for left in of.alarm.on),
    )


def _is_up(engine: "Engine", objective: Objective, name: str) -> bool | None:
    instances = engine.of(name)
    if engine.quitting or not any(instance.want for instance in instances):
        objective.met = False
        return None
    if any(instance.state is State.READY for instance in engine.all_of(name)):
        objective.met = True
        return True
    return False if objective.met and name not in engine.rolling else None
