"""Decides from the results of checks, and from beats, what is failing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from everup.kernel.ctx import Ctx
from everup.kernel.room import Quiet, Reconcile
from everup.model.units import format_duration
from everup.observer.events import Journaled, Reported, Resumed
from everup.rooms.check.entries import BEAT
from everup.rooms.check.facts import Checked

WAKE: Final = "@check "
"""Begins what the room is woken by; the name of a check follows."""

Event = Journaled | Resumed | Checked | Reconcile


@dataclass(slots=True)
class Standing:
    """How one check stands. Times are in seconds since the epoch."""

    ok: bool | None = None
    text: str = ""
    at: float = 0.0
    since: float = 0.0
    """When it came to be so."""
    failures: int = 0
    took_s: float = 0.0


class Check(Quiet):
    """Tells of a check that has failed so many times in a row, and of a job that has not reported
    in time; both end with the next success. What an observer before this one has told, it ends.
    """

    hears: ClassVar[tuple[type, ...]] = Event.__args__

    def __init__(self) -> None:
        self.standing: dict[str, Standing] = {}
        self._beats: dict[str, float] = {}
        self._begun = 0.0

    def step(self, event: Event, ctx: Ctx[Any]) -> None:
        checks = getattr(ctx.world.spec, "check", {})
        match event:
            case Journaled(entry=entry) if entry.kind == BEAT.value:
                self._beats[entry.subject] = max(entry.time, self._beats.get(entry.subject, 0.0))
                if self._begun and entry.subject in checks:
                    self._look(entry.subject, checks[entry.subject], ctx)
            case Resumed(now=now):
                self._begun = now
                for name, one in checks.items():
                    if one.heartbeat is not None:
                        self._look(name, one, ctx)
            case Checked():
                if event.name in checks:
                    self._checked(event, checks[event.name], ctx)
            case Reconcile(subject=subject) if subject.startswith(WAKE):
                name = subject.removeprefix(WAKE)
                if name in checks:
                    self._look(name, checks[name], ctx)

    def view(self) -> Mapping[str, object]:
        return {
            name: {
                "ok": one.ok, "text": one.text, "at": one.at, "since": one.since,
                "failures": one.failures, "took_s": one.took_s,
            }
            for name, one in self.standing.items()
        }  # fmt: skip

    def _checked(self, event: Checked, one: Any, ctx: Ctx[Any]) -> None:
        standing = self.standing.setdefault(event.name, Standing(since=event.at))
        if standing.ok is not event.ok:
            standing.since = event.at
        standing.ok, standing.text = event.ok, event.text
        standing.at, standing.took_s = event.at, event.took_s
        if event.ok is None:
            return
        standing.failures = 0 if event.ok else standing.failures + 1
        if event.ok or standing.failures >= one.failures:
            text = "it succeeds" if event.ok else f"fails: {event.text}"
            ctx.publish(Reported("check_failing", subject_of(event.name), event.ok, text, event.at))

    def _look(self, name: str, one: Any, ctx: Ctx[Any]) -> None:
        """Whether a job has reported in time. A job that never has is given its time from now."""
        if one.heartbeat is None:
            return
        now = ctx.world.wall(ctx.now)
        last = self._beats.get(name)
        due = (self._begun if last is None else last) + one.heartbeat
        ok = now < due
        standing = self.standing.setdefault(name, Standing(since=now))
        if standing.ok is not ok:
            standing.since = now
        span = format_duration(round(one.heartbeat, 3))
        standing.ok, standing.at = ok, now
        standing.text = f"a beat is due every {span}"
        if last is not None:
            standing.text += f", the last came {format_duration(max(0, round(now - last)))} ago"
        text = "it reports again" if ok else f"has not reported for {span}"
        ctx.publish(Reported("stale", subject_of(name), ok, text, now))
        if ok:
            ctx.wake(f"{WAKE}{name}", ctx.now + max(0.01, due - now))


def subject_of(name: str) -> str:
    """Give the subject of conditions of a check."""
    return f"check {name}"
