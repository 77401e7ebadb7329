"""Decides which conditions are active."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from everup.kernel.ctx import Ctx
from everup.kernel.room import Quiet, Reconcile
from everup.model.condition import ActiveNow, Began, Ended
from everup.model.journal import Entry
from everup.observer.events import Journaled, Output, Reported, Resumed, Sampled
from everup.rooms.detect import entries
from everup.rooms.detect.board import Board
from everup.rooms.detect.life import Life
from everup.rooms.detect.resources import Resources
from everup.rooms.detect.services import Services
from everup.rooms.detect.trends import Trends
from everup.rooms.detect.written import Written

_PAIRS: Final = {
    "slo.burning": ("budget_burning", True),
    "slo.calm": ("budget_burning", False),
    "log.lost": ("output_lost", True),
    "log.recovered": ("output_lost", False),
    "rollout.stopped": ("deploy_failing", True),
    "rollout.done": ("deploy_failing", False),
    "config.rolling_back": ("deploy_failing", True),
    "config.reloaded": ("deploy_failing", False),
}
_TRIED_S: Final = 600.0
_SOON_S: Final = 0.01
"""The clocks of entries and of this process differ: a time that is all but come has come."""

Event = Journaled | Output | Reported | Resumed | Sampled | Reconcile


class Detect(Quiet):
    """Raises conditions and takes them back. Each is journaled when it begins and when it ends, and
    an observer that comes after this one goes on with those that are active.

    Time here is that of entries and samples, in seconds since the epoch, so that a journal that is
    told again leads to the same conditions.
    """

    hears: ClassVar[tuple[type, ...]] = Event.__args__

    def __init__(self) -> None:
        self.board = Board()
        self._services = Services(self._begin, self._end, self._wake)
        self._resources = Resources(self._begin, self._end)
        self._trends = Trends(self._begin, self._end)
        self._written = Written(self._begin, self._end)
        self._changed: list[Began | Ended] = []
        self._now = 0.0
        self._wakes: dict[str, float] = {}
        self._past = True

    def step(self, event: Event, ctx: Ctx[Any]) -> None:
        match event:
            case Journaled(entry=entry, past=past):
                self._now, self._past = entry.time, past
                self._journaled(entry)
            case Resumed(now=now):
                self._now, self._past = now, False
                self._services.forget(lambda life: _is_there(life, ctx.world))
                ctx.publish(ActiveNow(tuple(self.board)))
                for name in ctx.world.services:
                    self._services.look(name, now)
            case Sampled():
                self._now = event.at
                self._resources.take(event)
                self._trends.take(event)
                self._grow_old()
            case Output():
                self._now = event.at
                self._written.take(event)
            case Reported():
                self._now = event.at
                if event.ok:
                    self._end(event.kind, event.subject, event.text)
                else:
                    said = (f"reported: {event.text}",)
                    self._begin(event.kind, event.subject, event.text, event.at, said)
            case Reconcile(subject=subject) if subject in ctx.world.services:
                self._now = ctx.world.wall(ctx.now)
                self._services.look(subject, self._now)
        self._tell(ctx)

    def view(self) -> Mapping[str, object]:
        return {
            "active": [
                {"kind": c.kind, "subject": c.subject, "since": c.since, "text": c.text}
                for c in self.board
            ],
            "refused": self.board.refused,
        }

    def _journaled(self, entry: Entry) -> None:
        payload = entry.payload
        if entry.kind == entries.BEGAN.value:
            self._restore(entry)
        elif entry.kind == entries.ENDED.value:
            if self._past:
                self.board.end(str(payload.get("condition")), entry.subject)
        elif entry.kind == "service.scaled":
            self._services.scaled(entry)
        elif entry.kind.startswith("instance."):
            self._services.take(entry)
            if not self._past:
                self._services.look(entry.subject.rpartition(".")[0], entry.time)
        elif (pair := _PAIRS.get(entry.kind)) is not None:
            self._pair(entry, *pair)

    def _grow_old(self) -> None:
        """Nobody has tried again: the old version goes on, and nothing is wrong with that."""
        for condition in self.board:
            if condition.kind == "deploy_failing" and self._now - condition.since > _TRIED_S:
                self._end(condition.kind, condition.subject, "nobody has tried again")

    def _pair(self, entry: Entry, kind: str, begins: bool) -> None:
        why = str(entry.payload.get("reason") or entry.kind)
        if begins:
            texts = {
                "budget_burning": "spends its error budget too fast",
                "output_lost": "writes output that cannot be stored",
                "deploy_failing": f"could not be brought to its new version: {why}",
            }
            self._begin(kind, entry.subject, texts[kind], entry.time, (f"journal: {why}",))
        else:
            self._end(kind, entry.subject, why)

    def _restore(self, entry: Entry) -> None:
        if not self._past:
            return
        said = entries.BEGAN.decode(entry.payload)
        self.board.restore(said.condition, entry.subject, said.text, said.since, said.evidence)
        self._resources.restore(said.condition, entry.subject, entry.time)
        self._trends.restore(said.condition, entry.subject, entry.time)
        self._written.restore(said.condition, entry.subject, entry.time)

    def _begin(
        self, kind: str, subject: str, text: str, since: float, evidence: Iterable[str]
    ) -> None:
        if self._past:
            return  # the journal has those that were told
        found = self.board.begin(kind, subject, text, since, evidence)
        if found is not None:
            self._changed.append(Began(found))

    def _end(self, kind: str, subject: str, why: str) -> None:
        if self._past:
            return
        found = self.board.end(kind, subject)
        if found is not None:
            self._changed.append(Ended(found, self._now, why))

    def _wake(self, service: str, after_s: float) -> None:
        after_s = max(_SOON_S, after_s)
        self._wakes[service] = min(self._wakes.get(service, after_s), after_s)

    def _tell(self, ctx: Ctx[Any]) -> None:
        """Journal what has changed, and let the other rooms know."""
        changed, self._changed = self._changed, []
        for change in changed:
            if isinstance(change, Began):
                c = change.condition
                said = entries.Began(
                    c.kind, c.severity.value, c.text, round(c.since, 3), c.evidence
                )
                ctx.write(entries.BEGAN, c.subject, said)
            else:
                c = change.condition
                after_s = round(max(0.0, change.at - c.since), 3)
                ctx.write(entries.ENDED, c.subject, entries.Ended(c.kind, after_s, change.why))
            ctx.publish(change)
        for service, after_s in self._wakes.items():
            ctx.wake(service, ctx.now + after_s)
        self._wakes.clear()


def _is_there(life: Life, world: Any) -> bool:
    """Whether the config in force has the instance."""
    service = world.services.get(life.service)
    return service is not None and life.number <= service.slots
