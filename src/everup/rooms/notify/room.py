"""Decides who is told of which incident, when, and how often."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

from everup.kernel.ctx import Ctx
from everup.kernel.room import Quiet, Reconcile
from everup.model.condition import Severity
from everup.model.incident import IncidentChanged
from everup.model.journal import Entry
from everup.observer.events import Journaled, Resumed
from everup.rooms.notify import entries
from everup.rooms.notify.actions import Tell, Told
from everup.rooms.notify.config import Route
from everup.rooms.notify.message import message, trial
from everup.rooms.notify.silences import Silences
from everup.rooms.notify.threads import Known, Next, Thread, following

WAKE: Final = "@notify "
"""Begins what the room is woken by; the subject of a thread follows."""
_OPENED, _MERGED = "incidents.opened", "incidents.merged"

Event = Journaled | Resumed | IncidentChanged | Told | Reconcile


@dataclass(frozen=True, slots=True)
class _Waiting:
    subject: str
    number: int
    stage: str
    severity: str


class Notify(Quiet):
    """Tells of each cause once: when it opens (after a hold), when it grows graver, and when it is
    over and has stayed so; again, or to others, while nobody takes it on.

    Invariant: a route has at most one message of a subject under way, and none is told that an
    incident is over that it was not told of. The number of a message is made of what it says, so an
    observer that dies while one is under way sends it again with the same number.
    """

    hears: ClassVar[tuple[type, ...]] = Event.__args__

    def __init__(self) -> None:
        self.threads: dict[str, Thread] = {}
        self._silences = Silences()
        self._waiting: dict[str, _Waiting] = {}
        self._subjects: dict[int, str] = {}
        """Of incidents of the past, by number."""
        self._past = True

    def step(self, event: Event, ctx: Ctx[Any]) -> None:
        match event:
            case Journaled(entry=entry, past=past):
                self._journaled(entry, past, ctx)
            case Resumed():
                self._past = False
                self._subjects.clear()
            case IncidentChanged():
                self._changed(event, ctx)
            case Told():
                self._told(event, ctx)
            case Reconcile(subject=subject) if subject.startswith(WAKE):
                thread = self.threads.get(subject.removeprefix(WAKE))
                if thread is not None:
                    self._look(thread, ctx)

    def view(self) -> Mapping[str, object]:
        return {
            "threads": {
                subject: {"times": thread.times, "told": sorted(thread.known)}
                for subject, thread in self.threads.items()
            },
            "under_way": sorted(self._waiting),
        }

    def check_invariants(self) -> None:
        under_way = [
            k.waiting for t in self.threads.values() for k in t.known.values() if k.waiting
        ]
        assert len(under_way) == len(set(under_way)), "one message is under way twice"
        for found in under_way:
            assert found in self._waiting, f"nobody waits for {found}"

    # -- incidents

    def _changed(self, event: IncidentChanged, ctx: Ctx[Any]) -> None:
        incident = event.incident
        if incident.merged_into:
            self._merge(incident.subject, self._subjects.get(incident.merged_into, ""))
            return
        thread = self.threads.get(incident.subject)
        if thread is None:
            if incident.resolved_at is not None:
                return
            thread = self.threads[incident.subject] = Thread(incident.subject)
        before = thread.incident
        if before is not None and incident.number < before.number:
            return
        if before is not None and incident.number > before.number and event.what != "resumed":
            thread.times += 1
            thread.held.clear()
        thread.incident = incident
        if event.what == "paged":
            thread.paged.update(getattr(ctx.world.spec, "route", {}))
        if incident.resolved_at is None:
            self._subjects[incident.number] = incident.subject
        else:
            self._subjects.pop(incident.number, None)
        # An observer that has just begun is told of all incidents: the newest of a subject counts.
        ctx.touch(f"{WAKE}{thread.subject}")

    def _merge(self, part: str, whole: str) -> None:
        """Who was told of a part need not be told of the whole as of something new."""
        if part != whole and whole and (gone := self.threads.pop(part, None)) is not None:
            thread = self.threads.setdefault(whole, Thread(whole))
            for route, known in gone.known.items():
                thread.known.setdefault(route, known)

    def _look(self, thread: Thread, ctx: Ctx[Any]) -> None:
        """Tell whoever is to be told now, and find when that may change."""
        if self._past or thread.incident is None:
            return
        now = ctx.world.wall(ctx.now)
        routes: Mapping[str, Route] = getattr(ctx.world.spec, "route", {})
        dues = []
        for name, route in routes.items():
            known = thread.known.get(name)
            if known is not None and known.waiting:
                continue
            step = following(thread, name, route, self._silences, _zone(route), now)
            if step.stage:
                self._tell(thread, step, routes, now, ctx)
            elif step.hold and thread.held.get(name) != step.hold:
                thread.held[name] = step.hold
                said = entries.Held(name, thread.incident.number, step.hold, step.due or 0.0)
                ctx.write(entries.HELD, thread.subject, said)
            if step.due is not None:
                dues.append(step.due)
        if dues:
            ctx.wake(f"{WAKE}{thread.subject}", ctx.now + max(0.01, min(dues) - now))
        told = any(name in routes for name in thread.known)
        if thread.incident.resolved_at is not None and not told:
            self.threads.pop(thread.subject, None)

    def _tell(
        self, thread: Thread, step: Next, routes: Mapping[str, Route], now: float, ctx: Ctx[Any]
    ) -> None:
        incident, route = thread.incident, routes.get(step.route)
        assert incident is not None
        if route is None:
            return
        known = thread.known.setdefault(step.route, Known(now, now, incident.severity))
        count = known.counts[step.stage] = known.counts.get(step.stage, 0) + 1
        parts = [ctx.world.node, str(incident.number), step.stage, step.route, str(count)]
        known.waiting = id_ = "-".join(parts)
        known.severity, known.at, known.proposal = incident.severity, now, incident.proposal
        thread.paged.discard(step.route)
        self._waiting[id_] = _Waiting(
            thread.subject, incident.number, step.stage, incident.severity.value
        )
        words = message(
            incident,
            step.stage,
            id=id_,
            node=ctx.world.node,
            now=now,
            times=thread.times,
            zone=_zone(route),
        )
        ctx.do(Tell(step.route, words))

    # -- what came of it

    def _told(self, event: Told, ctx: Ctx[Any]) -> None:
        waiting = self._waiting.pop(event.id, None)
        if waiting is None:
            return
        thread = self._thread_of(event)
        subject = waiting.subject if thread is None else thread.subject
        number, stage, severity = waiting.number, waiting.stage, waiting.severity
        if event.error:
            failed = entries.Failed(event.route, number, stage, event.id, event.error, severity)
            ctx.write(entries.FAILED, subject, failed)
        else:
            sent = entries.Sent(event.route, number, stage, event.id, severity, event.attempts)
            ctx.write(entries.SENT, subject, sent)
        if thread is None:
            return
        thread.known[event.route].waiting = ""
        if stage == "resolved":
            del thread.known[event.route]
            if not thread.known:
                thread.times = 1
        self._look(thread, ctx)

    def _thread_of(self, event: Told) -> Thread | None:
        for thread in self.threads.values():
            known = thread.known.get(event.route)
            if known is not None and known.waiting == event.id:
                return thread
        return None

    # -- the journal

    def _journaled(self, entry: Entry, past: bool, ctx: Ctx[Any]) -> None:
        if entry.kind == entries.SILENCED.value:
            self._silences.take(entry.subject, entries.SILENCED.decode(entry.payload))
            if not past:
                for thread in list(self.threads.values()):
                    self._look(thread, ctx)
        elif entry.kind == entries.TESTED.value and not past:
            self._try(entry, ctx)
        elif past:
            self._restore(entry)

    def _try(self, entry: Entry, ctx: Ctx[Any]) -> None:
        said = entries.TESTED.decode(entry.payload)
        if entry.subject in getattr(ctx.world.spec, "route", {}) and said.id not in self._waiting:
            self._waiting[said.id] = _Waiting(entry.subject, 0, "test", "")
            words = trial(entry.subject, id=said.id, node=ctx.world.node, by=said.by)
            ctx.do(Tell(entry.subject, words))

    def _restore(self, entry: Entry) -> None:
        """Learn what an observer before this one has told."""
        payload, thread = entry.payload, self.threads.get(entry.subject)
        if entry.kind == _OPENED:
            self._subjects[int(payload["number"])] = entry.subject
            if thread is not None and thread.known:
                thread.times += 1
        elif entry.kind == _MERGED:
            self._merge(entry.subject, self._subjects.get(int(payload["into"]), ""))
        elif entry.kind in (entries.SENT.value, entries.FAILED.value) and payload["number"]:
            route, stage = str(payload["route"]), str(payload["stage"])
            thread = self.threads.setdefault(entry.subject, Thread(entry.subject))
            if stage == "resolved":
                thread.known.pop(route, None)
                if not thread.known:
                    del self.threads[entry.subject]
                return
            severity = Severity(payload.get("severity") or "warning")
            known = thread.known.setdefault(route, Known(entry.time, entry.time, severity))
            known.at, known.severity = entry.time, severity
            known.counts[stage] = known.counts.get(stage, 0) + 1


def _zone(route: Route) -> tzinfo | None:
    return None if route.timezone is None else ZoneInfo(route.timezone)
