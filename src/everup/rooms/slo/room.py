"""Objectives: a service that spends its error budget too fast is told of while it does.

Only what users were let down by counts: not the time before a service was ready for the first time
since somebody asked for it, nor that of a restart, reload or stop that an operator wanted.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from everup.kernel.ctx import Ctx
from everup.kernel.room import Quiet, Reconcile
from everup.model.event import Remembered, Up
from everup.model.instance import State
from everup.model.journal import Kind
from everup.model.slo import Slo
from everup.model.spec import Service
from everup.model.world import World
from everup.reliability import slo

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


Event = Up | Remembered | Reconcile


class Objectives(Quiet):
    """Follows the objective of each service that has one."""

    hears: ClassVar[tuple[type, ...]] = Event.__args__

    def __init__(self) -> None:
        self.objectives: dict[str, Objective] = {}

    def step(self, event: Event, ctx: Ctx[World]) -> None:
        match event:
            case Up(burning=burning):
                self._resume(burning, ctx)
            case Remembered():
                self._remember(event, ctx)
            case Reconcile(subject=name) if name in ctx.world.services or name in self.objectives:
                self._look(name, ctx)

    def view(self) -> Mapping[str, object]:
        return {
            name: {"met": it.met, "burning": sorted(rule.long_s for rule in it.alarm.on)}
            for name, it in sorted(self.objectives.items())
        }

    def _resume(self, burning: Iterable[tuple[str, tuple[float, ...]]], ctx: Ctx[World]) -> None:
        """These alerts were on when the engine before this one died."""
        for name, windows_s in burning:
            objective = self.objectives[name] = Objective()
            objective.alarm.resume(windows_s)
            objective.quiet_until = ctx.now + _REMEMBER_S
            if (service := ctx.world.services.get(name)) is None or not _promises(service):
                self._forget(name, ctx)

    def _remember(self, event: Remembered, ctx: Ctx[World]) -> None:
        """What the journal knows of the time before this engine."""
        for name, spans in event.spans:
            service = ctx.world.services.get(name)
            if service is not None and _promises(service):
                objective = self.objectives.setdefault(name, Objective())
                objective.track.restore(spans)
                # Down when this engine came, and up before: the outage goes on.
                objective.met |= any(up for _, _, up in spans) and not spans[-1][2]
                ctx.touch(name)
        for objective in self.objectives.values():
            objective.quiet_until = objective.due = 0.0

    def _look(self, name: str, ctx: Ctx[World]) -> None:
        """Follow a service; record the alerts that begin or are over."""
        service = ctx.world.services.get(name)
        if service is None or not _promises(service) or ctx.world.is_leaving(name):
            self._forget(name, ctx)
            return
        objective = self.objectives.setdefault(name, Objective())
        up = _is_up(ctx.world, objective, name)
        changed = up != objective.track.up or service.slo != objective.promise
        if changed or ctx.now >= objective.due:
            _judge(ctx, objective, service, up)
        if up is False or objective.alarm.on:
            ctx.wake(name, objective.due)

    def _forget(self, name: str, ctx: Ctx[World]) -> None:
        """It promises nothing any more: alerts that are on are over."""
        objective = self.objectives.pop(name, None)
        if objective is not None:
            for rule in objective.alarm.keep(()):
                _over(ctx, name, objective, rule)


def _judge(ctx: Ctx[World], objective: Objective, service: Service, up: bool | None) -> None:
    assert service.slo is not None
    now = ctx.now
    track, name, objective.promise = objective.track, service.name, service.slo
    track.note(_changed_at(ctx.world, objective, name, up, now), up)
    if now < objective.quiet_until:
        objective.due = objective.quiet_until
        return
    down_s = now - track.since if up is False else 0.0
    found = slo.burns(track, service.slo.objective, service.slo.window, now)
    for rule in objective.alarm.keep(burn.rule for burn in found):
        _over(ctx, name, objective, rule)
    for burn, begins in objective.alarm.step(found, down_s):
        ctx.record(
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
    world: World, objective: Objective, name: str, up: bool | None, now: float
) -> float:
    """When it really went down, with the last of its instances, or up, with the first; that is
    before it was seen."""
    if up is None or up == objective.track.up or objective.track.up is None:
        return now
    instances = world.all_of(name)
    moments = [world.turned.get(i.slot, now) for i in instances if (i.state is State.READY) is up]
    at = min(moments, default=now) if up else max(moments, default=now)
    return min(now, max(at, objective.track.since))


def _promises(service: Service) -> bool:
    return service.slo is not None and service.type != "oneshot"


def _over(ctx: Ctx[World], name: str, of: Objective, rule: slo.Rule) -> None:
    """A rule does not hold any more because the config has changed, whatever is burning."""
    ctx.record(
        Kind.SLO_CALM,
        name,
        urgency=rule.urgency.value,
        window_s=rule.long_s,
        reason="the config has changed",
        burning=sorted(left.long_s for left in of.alarm.on),
    )


def _is_up(world: World, objective: Objective, name: str) -> bool | None:
    instances = world.of(name)
    if world.quitting or not any(instance.want for instance in instances):
        objective.met = False
        return None
    if any(instance.state is State.READY for instance in world.all_of(name)):
        objective.met = True
        return True
    return False if objective.met and not world.is_replacing(name) else None
