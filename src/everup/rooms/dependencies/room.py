"""What instances say of what they depend on: breaker states and how calls went.

Kept as it is told, believed by nobody here: it is evidence for whoever looks for causes. Bounded:
so many dependencies for each process, so many events of the journal for each dependency, whatever
a process sends.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

from everup.kernel.ctx import Ctx
from everup.kernel.room import Quiet, Reconcile
from everup.model.event import Heard
from everup.model.fact import ProcessEnded, TakenOver
from everup.model.instance import BreakerState, Slot
from everup.model.journal import Kind
from everup.model.record import Instance
from everup.model.world import World

MOST = 64
"""Dependencies of one process."""
CALLS_EVERY_S = 900.0
STATES = 10
"""Changes of one breaker that are told at once; after these, of several the last."""
STATE_EVERY_S = 60.0
"""A further one for each so many seconds."""
RESERVE = 5
"""So many must be left for a half-open one: in a long outage a breaker tries again and again, and
the journal shall hear at once when that helped."""


VOICES = 64
"""Processes of one instance that are told apart; of more, those that spoke last."""
VOICE_S = 60.0
"""A process that has been silent for so long, while others spoke, says nothing any more: it may be
gone. (The sink of everup.tolerate speaks every 10 s, if there is something to say.)"""
_WORST_LAST = (
    BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN, BreakerState.ISOLATED,
)  # fmt: skip


class Voice(NamedTuple):
    """What one process of the instance said last."""

    state: BreakerState
    at: float


class Calls(NamedTuple):
    """How calls went."""

    ok: int = 0
    failed: int = 0
    rejected: int = 0
    neutral: int = 0

    def plus(self, other: tuple[int, ...]) -> "Calls":
        return Calls(*(a + b for a, b in zip(self, other, strict=True)))

    def minus(self, other: "Calls") -> "Calls":
        return Calls(*(a - b for a, b in zip(self, other, strict=True)))


_NONE = Calls()


@dataclass(frozen=True, slots=True)
class Dependency:
    """One, as one process sees it."""

    state: BreakerState | None = None
    """Of its breaker, as it was told last: the worst of its processes' ones; None: never."""
    voices: Mapping[int, Voice] = field(default_factory=dict)
    """By process, the one that spoke last at the end."""
    told: BreakerState = BreakerState.CLOSED
    """The same, as the journal has it."""
    changes: int = 0
    """Of state, that the journal does not have."""
    calls: Calls = _NONE
    """Since the process began."""
    summed: Calls = _NONE
    """Of these, those in a ``dependency.calls`` of the journal."""
    p99_ms: float | None = None
    left: float = STATES
    """Events that may be written at once."""
    at: float = 0.0
    """As of then."""


@dataclass(frozen=True, slots=True)
class Reported:
    """What one process has said."""

    dependencies: Mapping[str, Dependency]
    calls_at: float
    """When its calls may be summed up next."""
    refused: bool = False
    """It has more than there is room for; told once."""


Event = Heard | ProcessEnded | TakenOver | Reconcile


class Dependencies(Quiet):
    """What each process says of what it depends on, by slot and incarnation."""

    hears: ClassVar[tuple[type, ...]] = Event.__args__

    def __init__(self) -> None:
        self.reported: dict[tuple[Slot, int], Reported] = {}

    def step(self, event: Event, ctx: Ctx[World]) -> None:
        match event:
            case Heard():
                self._heard(event, ctx)
            case Reconcile(subject=service) if service in ctx.world.services:
                for instance in ctx.world.all_of(service):
                    self._write((instance.slot, instance.run), ctx)
            case ProcessEnded(before=old):
                reported = self.reported.pop((old.slot, old.run), None)
                if reported is not None:
                    _sum(ctx, (old.slot, old.run), reported)
            case TakenOver():
                self._taken_over(event, ctx)

    def of(self, instance: Instance) -> dict[str, dict[str, Any]]:
        """Show what the process of an instance says, by dependency."""
        reported = self.reported.get((instance.slot, instance.run))
        return (
            {}
            if reported is None
            else {n: _row(d) for n, d in sorted(reported.dependencies.items())}
        )

    def view(self) -> Mapping[str, object]:
        return {
            f"{slot}:{run}": {name: _row(it) for name, it in sorted(reported.dependencies.items())}
            for (slot, run), reported in sorted(self.reported.items())
        }

    def check_invariants(self) -> None:
        assert all(len(it.dependencies) <= MOST for it in self.reported.values())

    def _heard(self, event: Heard, ctx: Ctx[World]) -> None:
        """A process reported something of a dependency."""
        instance = ctx.world.process(event.slot, event.run)
        if instance is None or not instance.has_process:
            return
        key = (instance.slot, instance.run)
        reported = self.reported.get(key) or Reported({}, ctx.now + CALLS_EVERY_S)
        old = reported.dependencies.get(event.dependency)
        if old is None and len(reported.dependencies) >= MOST:
            if not reported.refused:
                detail = f"EVERUP_DEPENDENCY of {event.slot}: it has {MOST} already"
                ctx.record(Kind.REFUSED, "everup", detail=detail, count=1)
                self.reported[key] = replace(reported, refused=True)
            return
        old = old or Dependency(at=ctx.now)
        voices = _with(old.voices, event, ctx.now)
        state = worst(voice.state for voice in voices.values()) or old.state
        new = replace(
            old,
            state=state,
            voices=voices,
            changes=old.changes + (state is not (old.state or old.told)),
            calls=old.calls.plus(event.calls),
            p99_ms=old.p99_ms if event.p99_ms is None else event.p99_ms,
        )
        self.reported[key] = replace(
            reported, dependencies={**reported.dependencies, event.dependency: new}
        )
        self._write(key, ctx)

    def _taken_over(self, event: TakenOver, ctx: Ctx[World]) -> None:
        """What the process had reported to the engine before, see ``fold.heard``."""
        found = {}
        for name, row in event.heard["so_far"].items():
            calls, state = (
                Calls(*row["calls"]),
                BreakerState(row["state"]) if row["state"] else None,
            )
            summed = Calls(*event.heard["summed"].get(name, _NONE))
            found[name] = Dependency(
                state,
                {} if state is None else {0: Voice(state, ctx.now)},
                state or BreakerState.CLOSED,
                0,
                calls,
                summed,
                row["p99_ms"],
                at=ctx.now,
            )
        self.reported[event.slot, event.run] = Reported(found, ctx.now + CALLS_EVERY_S)
        self._write((event.slot, event.run), ctx)

    def _write(self, key: tuple[Slot, int], ctx: Ctx[World]) -> None:
        """Put into the journal what may be written by now."""
        reported = self.reported.get(key)
        if reported is None:
            return
        now = ctx.now
        due: list[float] = []
        for name, it in reported.dependencies.items():
            if it.state is None or it.state is it.told:
                continue
            left = min(STATES, it.left + (now - it.at) / STATE_EVERY_S)
            need = RESERVE if it.state is BreakerState.HALF_OPEN else 1
            if left >= need:
                new = replace(it, told=it.state, changes=0, left=left - 1, at=now)
                reported = replace(reported, dependencies={**reported.dependencies, name: new})
                ctx.record(
                    Kind.DEPENDENCY_STATE, str(key[0]), run=key[1], dependency=name,
                    before=it.told.value, state=it.state.value, changes=it.changes,
                    **it.calls._asdict(), p99_ms=it.p99_ms, so_far=_so_far(reported),
                )  # fmt: skip
            else:
                # By rounding, what is due then can be a hair too little: not at once again.
                due.append(now + max(1.0, (need - left) * STATE_EVERY_S))
        if any(it.calls != it.summed for it in reported.dependencies.values()):
            if reported.calls_at <= now:
                reported = replace(_sum(ctx, key, reported), calls_at=now + CALLS_EVERY_S)
            else:
                due.append(reported.calls_at)
        self.reported[key] = reported
        if due:
            ctx.wake(key[0].service, min(due))


def _with(voices: Mapping[int, Voice], event: Heard, now: float) -> Mapping[int, Voice]:
    """The voices that count, after one more has spoken."""
    if event.breaker is None:
        return voices
    kept = [(key, voice) for key, voice in voices.items() if key != event.voice]
    kept = [(key, voice) for key, voice in kept if now - voice.at < VOICE_S]
    return dict([*kept[1 - VOICES :], (event.voice, Voice(event.breaker, now))])


def worst(states: Iterable[BreakerState]) -> BreakerState | None:
    """Give the worst of them; None: there is none."""
    return max(states, key=_WORST_LAST.index, default=None)


def _row(it: Dependency) -> dict[str, Any]:
    state = None if it.state is None else it.state.value
    return {"state": state, "calls": sum(it.calls), **it.calls._asdict(), "p99_ms": it.p99_ms}


def _sum(ctx: Ctx[World], key: tuple[Slot, int], reported: Reported) -> Reported:
    """What there is of calls that the journal does not have."""
    fresh = {name: it.calls.minus(it.summed) for name, it in reported.dependencies.items()}
    fresh = {name: calls for name, calls in fresh.items() if any(calls)}
    if not fresh:
        return reported
    summed = {n: replace(it, summed=it.calls) for n, it in reported.dependencies.items()}
    reported = replace(reported, dependencies=summed)
    dependencies = {name: calls._asdict() for name, calls in fresh.items()}
    ctx.record(
        Kind.DEPENDENCY_CALLS, str(key[0]), run=key[1], dependencies=dependencies,
        so_far=_so_far(reported),
    )  # fmt: skip
    return reported


def _so_far(reported: Reported) -> dict[str, Any]:
    """For the next engine, which sees the last event of a kind alone."""
    return {
        name: {
            "state": None if it.state is None else it.state.value,
            "calls": list(it.calls),
            "p99_ms": it.p99_ms,
        }
        for name, it in reported.dependencies.items()
    }
