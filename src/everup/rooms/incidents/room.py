"""Decides which conditions are one incident, and how each incident goes on."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from everup.kernel.ctx import Ctx
from everup.kernel.room import Quiet, Reconcile
from everup.model.condition import GRAVITY, ActiveNow, Began, Condition, Ended, Key, Severity
from everup.model.incident import Incident, IncidentChanged, Reason, Responded
from everup.model.journal import Entry
from everup.observer.events import Journaled, Resumed
from everup.rooms.incidents import entries
from everup.rooms.incidents.actions import Explain
from everup.rooms.incidents.parts import add, is_about, needs_of, respond, take_over
from everup.rooms.incidents.past import restore

SUBJECT: Final = "@incidents"
"""What the room is woken by."""
QUIET_S: Final = 10.0
"""An incident is over once nothing of it has been active for so long."""
EXPLAIN_S: Final = 3.0
"""An incident is opened without a cause if none was found by then."""
NEAR_S: Final = 30.0
"""What was opened so shortly before what it needs failed may be a part of that."""
KEPT: Final = 500
"""Incidents that are remembered."""

Event = Journaled | Resumed | ActiveNow | Began | Ended | Reason | Responded | Reconcile


@dataclass(slots=True)
class _Pending:
    """A finding whose cause is being looked for, and that may belong to an incident by it."""

    token: int
    due: float
    subject: str
    conditions: dict[Key, Condition] = field(default_factory=dict)
    over: set[Key] = field(default_factory=set)
    """Those that have ended meanwhile. They happened all the same."""


class Incidents(Quiet):
    """Joins what has one cause: a condition of the same service, of one that depends on it, or of
    one whose cause was found there.

    Invariant: an active condition belongs to exactly one incident that is not resolved, or to one
    finding that waits for its cause, or is a note, which opens none.
    """

    hears: ClassVar[tuple[type, ...]] = Event.__args__

    def __init__(self) -> None:
        self.incidents: dict[int, Incident] = {}
        self._pending: dict[int, _Pending] = {}
        self._tokens = itertools.count(-1, -1)
        self._next = 1
        self._past = True

    def step(self, event: Event, ctx: Ctx[Any]) -> None:
        match event:
            case Journaled(entry=entry, past=past):
                if past and entry.kind.startswith("incidents."):
                    self._restore(entry)
                elif entry.kind == entries.ACKNOWLEDGED.value:
                    self._acknowledge(entry, ctx)
            case Resumed():
                self._past = False
            case ActiveNow(conditions=conditions):
                self._resume(conditions, ctx)
            case Began(condition=condition):
                self._began(condition, ctx)
            case Ended(condition=condition):
                self._ended(condition, ctx)
            case Reason():
                self._explained(event, ctx)
            case Responded():
                self._responded(event, ctx)
            case Reconcile(subject=subject):
                if subject == SUBJECT:
                    self._look(ctx)

    def view(self) -> Mapping[str, object]:
        return {
            "open": sum(1 for _ in self.open()),
            "waiting": len(self._pending),
            "next": self._next,
        }

    def check_invariants(self) -> None:
        seen: set[Key] = set()
        held = [i.active for i in self.open()]
        held += [p.conditions for p in self._pending.values()]
        for active in held:
            for key in active:
                assert key not in seen, f"{key} belongs to two incidents"
                seen.add(key)

    def open(self) -> Iterator[Incident]:
        """Give the incidents that are not resolved, oldest first."""
        return (i for i in self.incidents.values() if i.resolved_at is None)

    # -- conditions

    def _began(self, condition: Condition, ctx: Ctx[Any]) -> None:
        known = self._of(condition, ctx)
        if known is not None:
            self._join(known, condition, ctx)
            return
        if condition.severity is Severity.NOTE:
            return
        for pending in self._pending.values():
            if pending.subject == condition.service:
                pending.conditions[condition.key] = condition
                pending.over.discard(condition.key)
                return
        token = next(self._tokens)
        pending = _Pending(token, ctx.now + EXPLAIN_S, condition.service)
        pending.conditions[condition.key] = condition
        self._pending[token] = pending
        ctx.do(Explain(token, condition.service, condition.text, condition.kind))
        ctx.wake(SUBJECT, pending.due)

    def _of(self, condition: Condition, ctx: Ctx[Any]) -> Incident | None:
        """The open incident that a condition belongs to by its service or by the graph."""
        for incident in self.open():
            if condition.service == incident.subject or condition.service in incident.services:
                return incident
        needs = needs_of(condition.service, ctx.world)
        for incident in self.open():
            root = incident.reason.root if incident.reason is not None else incident.subject
            if root in needs or incident.subject in needs:
                return incident
        return None

    def _join(self, incident: Incident, condition: Condition, ctx: Ctx[Any]) -> None:
        graver = GRAVITY[condition.severity] > GRAVITY[incident.severity]
        words = f"{condition.subject} {condition.text}"
        again = words in incident.symptoms
        add(incident, condition)
        if condition.severity is not Severity.NOTE:
            incident.quiet_since = None
        if again and not graver:
            incident.occurrences += 1
            return
        severity = condition.severity.value
        said = entries.Joined(incident.number, condition.kind, condition.text, severity)
        ctx.write(entries.JOINED, condition.subject, said)
        if graver:
            incident.severity = condition.severity
            incident.state = "acknowledged" if incident.acknowledged_by else "open"
            ctx.publish(IncidentChanged(incident, "graver"))
        if graver or condition.service == incident.subject:
            ctx.do(Explain(incident.number, incident.subject, condition.text, condition.kind))

    def _ended(self, condition: Condition, ctx: Ctx[Any]) -> None:
        for pending in self._pending.values():
            if condition.key in pending.conditions:
                pending.over.add(condition.key)
        for incident in self.open():
            if incident.active.pop(condition.key, None) is None:
                continue
            if not incident.active:
                incident.quiet_since = ctx.now
                ctx.wake(SUBJECT, ctx.now + QUIET_S)
            self._mitigate(incident, ctx)

    def _mitigate(self, incident: Incident, ctx: Ctx[Any]) -> None:
        critical = any(c.severity is Severity.CRITICAL for c in incident.active.values())
        if critical or incident.severity is not Severity.CRITICAL or incident.state == "mitigated":
            return
        incident.state = "mitigated"
        after_s = round(max(0.0, ctx.world.wall(ctx.now) - incident.since), 3)
        ctx.write(entries.MITIGATED, incident.subject, entries.Mitigated(incident.number, after_s))
        ctx.publish(IncidentChanged(incident, "mitigated"))

    # -- causes

    def _explained(self, reason: Reason, ctx: Ctx[Any]) -> None:
        pending = self._pending.pop(reason.number, None)
        if pending is not None:
            self._place(pending, reason, ctx)
            return
        incident = self.incidents.get(reason.number)
        if incident is None or incident.resolved_at is not None:
            return
        before = incident.reason
        if before is not None and before.cause and reason.confidence < before.confidence:
            return  # what was found first explains more
        if before is not None and replace(before, number=reason.number) == reason:
            return
        self._explain(incident, reason, ctx)
        for other in list(self.open()):
            if other is not incident and other.subject == reason.root:
                self._merge(incident, other, reason.sentence, ctx)
                return

    def _merge(self, part: Incident, whole: Incident, why: str, ctx: Ctx[Any]) -> None:
        """What was opened before its cause was known goes on as a part of its cause."""
        take_over(part, whole)
        part.resolved_at, part.state = ctx.world.wall(ctx.now), "merged"
        part.merged_into = whole.number
        if whole.active:
            whole.quiet_since = None
        said = entries.Merged(part.number, whole.number, why)
        ctx.write(entries.MERGED, part.subject, said)
        ctx.publish(IncidentChanged(part, "merged"))

    def _place(self, pending: _Pending, reason: Reason | None, ctx: Ctx[Any]) -> None:
        """Its cause is known, or will not be: join it to what has the same one, or open."""
        root = reason.root if reason is not None and reason.root else pending.subject
        first = min(pending.conditions.values(), key=lambda c: c.since)
        found = next((i for i in self.open() if is_about(i, root, reason)), None)
        found = found or self._of(first, ctx)
        if found is not None:
            for condition in pending.conditions.values():
                self._join(found, condition, ctx)
        else:
            found = self._open(root, first, pending.conditions.values(), reason, ctx)
            if reason is not None:
                self._explain(found, reason, ctx)
            for other in list(self.open()):
                near = abs(other.since - found.since) <= NEAR_S
                if other is not found and near and root in needs_of(other.subject, ctx.world):
                    self._merge(other, found, f"{other.subject} needs {root}", ctx)
            ctx.publish(IncidentChanged(found, "opened"))
        for key in pending.over:
            self._ended(pending.conditions[key], ctx)

    def _open(
        self,
        root: str,
        first: Condition,
        conditions: Iterable[Condition],
        reason: Reason | None,
        ctx: Ctx[Any],
    ) -> Incident:
        found = list(conditions)
        severity = max((c.severity for c in found), key=lambda s: GRAVITY[s])
        sentence = reason.sentence if reason is not None else f"{first.subject} {first.text}"
        incident = Incident(self._next, root, first.since, severity, sentence)
        self._next += 1
        for condition in found:
            add(incident, condition)
        incident.services.setdefault(first.service)
        self.incidents[incident.number] = incident
        self._forget()
        said = entries.Opened(
            incident.number,
            severity.value,
            sentence,
            round(first.since, 3),
            tuple(f"{c.kind} {c.subject}" for c in found),
        )
        ctx.write(entries.OPENED, root, said)
        return incident

    def _explain(self, incident: Incident, reason: Reason, ctx: Ctx[Any]) -> None:
        incident.reason = reason
        incident.sentence = reason.sentence or incident.sentence
        for name in reason.path:
            incident.services.setdefault(name)
        said = entries.Explained(
            incident.number,
            reason.sentence,
            reason.cause,
            reason.says,
            round(reason.confidence, 3),
            reason.path,
            reason.evidence,
            reason.then,
            reason.runner_up,
        )
        ctx.write(entries.EXPLAINED, incident.subject, said)
        ctx.publish(IncidentChanged(incident, "explained"))

    # -- people, and time

    def _acknowledge(self, entry: Entry, ctx: Ctx[Any]) -> None:
        """A person has taken one on: the command writes it to the journal itself."""
        said = entries.ACKNOWLEDGED.decode(entry.payload)
        incident = self.incidents.get(said.number)
        if incident is not None and incident.resolved_at is None:
            incident.acknowledged_by, incident.state = said.by, "acknowledged"
            ctx.publish(IncidentChanged(incident, "acknowledged"))

    def _responded(self, event: Responded, ctx: Ctx[Any]) -> None:
        incident = self.incidents.get(event.number)
        if incident is not None:
            respond(incident, event.did, event.proposal)
            said = entries.Answer(event.number, event.did, event.proposal)
            ctx.write(entries.RESPONDED, incident.subject, said)
            ctx.publish(IncidentChanged(incident, "paged" if event.page else "responded"))

    def _look(self, ctx: Ctx[Any]) -> None:
        for token, pending in list(self._pending.items()):
            if pending.due <= ctx.now:
                del self._pending[token]
                self._place(pending, None, ctx)
        for incident in list(self.open()):
            if incident.quiet_since is None:
                continue
            due = incident.quiet_since + QUIET_S
            if due <= ctx.now:
                self._resolve(incident, ctx)
            else:
                ctx.wake(SUBJECT, due)
        if self._pending:
            ctx.wake(SUBJECT, min(p.due for p in self._pending.values()))

    def _resolve(self, incident: Incident, ctx: Ctx[Any]) -> None:
        assert incident.quiet_since is not None
        quiet_at = ctx.world.wall(incident.quiet_since)
        incident.resolved_at, incident.state = quiet_at, "resolved"
        after_s = round(max(0.0, quiet_at - incident.since), 3)
        names = ", ".join(incident.services)
        said = entries.Resolved(incident.number, after_s, incident.sentence, names)
        ctx.write(entries.RESOLVED, incident.subject, said)
        ctx.publish(IncidentChanged(incident, "resolved"))

    # -- an observer before this one

    def _restore(self, entry: Entry) -> None:
        restore(self.incidents, entry)
        self._next = max(self._next, int(entry.payload.get("number", 0)) + 1)
        self._forget()

    def _resume(self, conditions: Iterable[Condition], ctx: Ctx[Any]) -> None:
        """Go on with the incidents that are open: with those of their conditions that still are."""
        found = {c.key: c for c in conditions}
        claimed: set[Key] = set()
        for incident in self.open():
            incident.active = {
                key: found[key] for key in incident.active if key in found and key not in claimed
            }
            claimed.update(incident.active)
            if not incident.active:
                incident.quiet_since = ctx.now
        for incident in self.incidents.values():
            ctx.publish(IncidentChanged(incident, "resumed"))
        for key, condition in found.items():
            if key not in claimed and condition.severity is not Severity.NOTE:
                self._began(condition, ctx)
        ctx.wake(SUBJECT, ctx.now + QUIET_S)

    def _forget(self) -> None:
        while len(self.incidents) > KEPT:
            done = next((n for n, i in self.incidents.items() if i.resolved_at is not None), None)
            del self.incidents[next(iter(self.incidents)) if done is None else done]
