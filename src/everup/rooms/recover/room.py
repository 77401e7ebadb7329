"""Decides which rung of which ladder is climbed, whether it has helped, and what is next."""

import collections
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from everup.kernel.ctx import Ctx
from everup.kernel.room import Quiet, Reconcile
from everup.model.incident import Incident, IncidentChanged, Responded
from everup.model.journal import Entry
from everup.observer.events import Journaled, Resumed
from everup.rooms.recover import entries
from everup.rooms.recover.actions import Climb, Climbed
from everup.rooms.recover.rungs import UNDONE, WORDS, Case, Step, steps

WAKE: Final = "@recover "
"""Begins what the room is woken by; the number of an incident follows."""
_LOOK_S: Final = 1.0
_HOUR_S: Final = 3600.0
_CLOSED: Final = ("resolved", "merged")

Event = Journaled | Resumed | IncidentChanged | Climbed | Reconcile


@dataclass(slots=True)
class Climbing:
    """What is done about one incident. Times are in seconds since the epoch."""

    incident: Incident | None = None
    tried: set[tuple[str, str]] = field(default_factory=set)
    """Owner and rung of what was climbed, refused or denied: not again for this incident."""
    current: Step | None = None
    """The rung that is being climbed, or watched whether it has helped."""
    began: float = 0.0
    done: bool = False
    """It was carried out, and now it shows whether it has helped."""
    well_since: float | None = None
    proposal: Step | None = None
    expires: float = 0.0
    answer: entries.Answered | None = None
    """What a person has said of the proposal."""
    to_undo: dict[tuple[str, str], int] = field(default_factory=dict)
    """Owner and rung of what is undone at the end, with the replicas of before."""


class Recover(Quiet):
    """Climbs one rung at a time for each incident, and waits whether it has helped: the conditions
    of the incident are gone, and stay so. What did not help is not repeated within the incident.

    Invariant: no rung is climbed twice for one incident, none without its approval where the mode
    is ``ask``, and none more often in an hour than ``at_most`` says. A rung is in the journal
    before it is climbed; an observer that begins in between does not climb it again, but sees
    whether it has helped.
    """

    hears: ClassVar[tuple[type, ...]] = Event.__args__

    def __init__(self) -> None:
        self.climbing: dict[int, Climbing] = {}
        self._lately: dict[tuple[str, str], collections.deque[float]] = {}
        """By owner and rung: when it was climbed in the last hour."""
        self._past = True

    def step(self, event: Event, ctx: Ctx[Any]) -> None:
        match event:
            case Journaled(entry=entry, past=past):
                if past:
                    self._restore(entry)
                elif entry.kind == entries.ANSWERED.value and self._answered(entry):
                    self._look(int(entry.payload["number"]), ctx)
            case Resumed():
                self._past = False
            case IncidentChanged(incident=incident):
                self._changed(incident, ctx)
            case Climbed():
                self._climbed(event, ctx)
            case Reconcile(subject=subject) if subject.startswith(WAKE):
                self._look(int(subject.removeprefix(WAKE)), ctx)

    def view(self) -> Mapping[str, object]:
        return {
            str(number): {
                "rung": None if one.current is None else one.current.rung,
                "proposed": None if one.proposal is None else one.proposal.rung,
                "tried": sorted(f"{owner}: {rung}" for owner, rung in one.tried),
            }
            for number, one in self.climbing.items()
        }

    def check_invariants(self) -> None:
        for one in self.climbing.values():
            assert one.current is None or one.proposal is None, (
                "a rung is climbed beside a question"
            )
            assert one.current is None or (one.current.owner, one.current.rung) in one.tried

    # -- incidents

    def _changed(self, incident: Incident, ctx: Ctx[Any]) -> None:
        one = self.climbing.get(incident.number)
        if one is None:
            if incident.resolved_at is not None:
                return
            one = self.climbing[incident.number] = Climbing()
        one.incident = incident
        # Also after an observer's death: whoever tells of incidents knows what was done.
        ctx.touch(f"{WAKE}{incident.number}")

    def _look(self, number: int, ctx: Ctx[Any]) -> None:
        one = self.climbing.get(number)
        if self._past or one is None or one.incident is None:
            return
        now = ctx.world.wall(ctx.now)
        if one.incident.resolved_at is not None:
            self._close(number, one, one.incident, now, ctx)
            return
        if one.proposal is not None and one.answer is not None:
            self._heed(one, one.proposal, one.incident, one.answer, now, ctx)
        elif one.proposal is not None and now >= one.expires:
            self._settle(one, one.proposal, "expired", now, ctx, "nobody has approved it")
        elif one.current is not None:
            self._watch(one, one.current, one.incident, now, ctx)
        if one.current is None and one.proposal is None:
            self._next(one, one.incident, now, ctx)
        ctx.wake(f"{WAKE}{number}", ctx.now + _LOOK_S)

    def _watch(
        self, one: Climbing, step: Step, incident: Incident, now: float, ctx: Ctx[Any]
    ) -> None:
        """Whether the rung has helped."""
        recover = ctx.world.services[step.owner].recover if _has(ctx, step.owner) else None
        if recover is None:
            self._settle(one, step, "failed", now, ctx, "its service is not in the config any more")
            return
        if incident.active:
            one.well_since = None
        elif one.well_since is None:
            one.well_since = now
        if one.done and one.well_since is not None and now - one.well_since >= recover.stay:
            self._settle(one, step, "helped", now, ctx)
        elif now - one.began >= recover.within and (incident.active or not one.done):
            left = ", ".join(f"{c.subject} {c.text}" for c in incident.active.values())
            self._settle(one, step, "failed", now, ctx, left[:300])

    def _next(self, one: Climbing, incident: Incident, now: float, ctx: Ctx[Any]) -> None:
        """Climb or propose the first rung that applies and was not tried."""
        if not incident.active or incident.quiet_since is not None:
            return
        for owner in _owners(incident, ctx):
            recover = ctx.world.services[owner].recover
            if recover.mode == "off":
                continue
            for step in steps(Case(incident, owner, ctx.world, now)):
                if (owner, step.rung) in one.tried:
                    continue
                if not self._may_again(step, recover.at_most, now):
                    one.tried.add((owner, step.rung))
                    why = f"it was done {recover.at_most} times within an hour"
                    self._told(one, step, "refused", 0.0, why, ctx)
                elif recover.mode == "auto" or step.rung == "page":
                    self._climb(one, step, incident, now, ctx)
                    return
                else:
                    self._propose(one, step, incident, recover, now, ctx)
                    if recover.mode == "ask":
                        return

    def _propose(
        self, one: Climbing, step: Step, incident: Incident, recover: Any, now: float, ctx: Ctx[Any]
    ) -> None:
        asks = recover.mode == "ask"
        until = now + recover.expires if asks else 0.0
        one.tried.add((step.owner, step.rung))
        said = entries.Proposed(incident.number, step.rung, step.owner, step.why, round(until, 3))
        ctx.write(entries.PROPOSED, step.subject, said)
        words = WORDS[step.rung].format(subject=step.subject)
        if asks:
            one.proposal, one.expires = step, until
            ctx.publish(Responded(incident.number, proposal=f"{words}, because {step.why}"))
        else:
            ctx.publish(Responded(incident.number, did=f"would {words} (only watching)"))

    def _climb(
        self, one: Climbing, step: Step, incident: Incident, now: float, ctx: Ctx[Any]
    ) -> None:
        one.tried.add((step.owner, step.rung))
        one.current, one.began, one.done, one.well_since = step, now, False, None
        one.proposal = None
        self._lately.setdefault((step.owner, step.rung), collections.deque()).append(now)
        before = ctx.world.replicas(step.owner)
        if step.rung in UNDONE:
            one.to_undo[step.owner, step.rung] = before
        said = entries.Began(incident.number, step.rung, step.owner, step.why, before)
        ctx.write(entries.BEGAN, step.subject, said)
        if step.rung == "page":
            one.current = None
            ctx.publish(Responded(incident.number, page=True))
            return
        most = ctx.world.services[step.owner].recover.scale_to or 0
        why = f"incident {incident.number}: {step.why}"
        ctx.do(Climb(incident.number, step.rung, step.owner, step.subject, why, replicas=most))

    def _may_again(self, step: Step, most: int, now: float) -> bool:
        lately = self._lately.get((step.owner, step.rung))
        while lately and now - lately[0] > _HOUR_S:
            lately.popleft()
        return lately is None or len(lately) < most

    # -- what came of it

    def _climbed(self, event: Climbed, ctx: Ctx[Any]) -> None:
        one = self.climbing.get(event.number)
        if event.undo:
            said = entries.Undone(event.number, event.rung, event.owner, event.error)
            ctx.write(entries.UNDONE, event.owner, said)
            return
        if one is None or one.current is None or one.current.rung != event.rung:
            return
        if event.error:
            if event.rung in UNDONE:
                one.to_undo.pop((event.owner, event.rung), None)
            self._settle(one, one.current, "refused", one.began, ctx, event.error)
        else:
            one.done = True
        ctx.touch(f"{WAKE}{event.number}")

    def _settle(
        self, one: Climbing, step: Step, outcome: str, now: float, ctx: Ctx[Any], why: str = ""
    ) -> None:
        """A rung, or a proposal, has come to its end."""
        after_s = max(0.0, now - one.began) if one.current is not None else 0.0
        one.current = one.proposal = one.answer = None
        self._told(one, step, outcome, round(after_s, 3), why, ctx)

    def _told(
        self, one: Climbing, step: Step, outcome: str, after_s: float, why: str, ctx: Ctx[Any]
    ) -> None:
        assert one.incident is not None
        number = one.incident.number
        said = entries.Ended(number, step.rung, step.owner, outcome, after_s, why)
        ctx.write(entries.ENDED, step.subject, said)
        words = WORDS[step.rung].format(subject=step.subject)
        because = f": {why}" if why else ""
        ctx.publish(Responded(number, did=f"{words}: {outcome}{because}"))

    def _answered(self, entry: Entry) -> bool:
        """Note what a person has said of a proposal, if there is one."""
        said = entries.ANSWERED.decode(entry.payload)
        one = self.climbing.get(said.number)
        if one is None or one.proposal is None:
            return False
        one.answer = said
        return True

    def _heed(
        self, one: Climbing, step: Step, incident: Incident, said: entries.Answered, now: float,
        ctx: Ctx[Any],
    ) -> None:  # fmt: skip
        """Do what was approved, if it still applies."""
        one.answer = None
        if not said.yes:
            self._settle(one, step, "denied", now, ctx, f"by {said.by}")
        elif now >= one.expires or not _still(incident, step, ctx, now):
            self._settle(one, step, "expired", now, ctx, "it does not apply any more")
        else:
            ctx.publish(Responded(said.number))
            self._climb(one, step, incident, now, ctx)

    def _close(
        self, number: int, one: Climbing, incident: Incident, now: float, ctx: Ctx[Any]
    ) -> None:
        """The incident is over: so is what was done for it."""
        if one.proposal is not None:
            self._settle(one, one.proposal, "expired", now, ctx, "the incident is over")
        if one.current is not None and one.done and incident.state != "merged":
            self._settle(one, one.current, "helped", now, ctx)
        for (owner, rung), before in one.to_undo.items():
            why = f"incident {number} is over"
            ctx.do(Climb(number, rung, owner, owner, why, undo=True, replicas=before))
        del self.climbing[number]

    # -- the journal

    def _restore(self, entry: Entry) -> None:
        """Learn what an observer before this one has done."""
        kind, payload = entry.kind, entry.payload
        if kind in ("incidents.resolved", "incidents.merged"):
            self._over(int(payload["number"]))
            return
        if not kind.startswith("recover."):
            return
        if kind == entries.ANSWERED.value:
            self._answered(entry)
            return
        number = int(payload["number"])
        one = self.climbing.setdefault(number, Climbing())
        key = str(payload["owner"]), str(payload["rung"])
        step = Step(key[1], key[0], entry.subject, str(payload.get("why", "")))
        if kind == entries.PROPOSED.value:
            one.tried.add(key)
            if payload.get("until"):
                one.proposal, one.expires = step, float(payload["until"])
        elif kind == entries.BEGAN.value:
            one.tried.add(key)
            self._lately.setdefault(key, collections.deque()).append(entry.time)
            one.proposal = one.answer = None
            if step.rung != "page":
                one.current, one.began, one.done = step, entry.time, True
            if step.rung in UNDONE:
                one.to_undo[key] = int(payload.get("before", 0))
        elif kind == entries.ENDED.value:
            one.tried.add(key)
            one.current = one.proposal = one.answer = None
            if payload.get("outcome") == "refused":
                one.to_undo.pop(key, None)
        elif kind == entries.UNDONE.value:
            one.to_undo.pop(key, None)
            self._over(number)

    def _over(self, number: int) -> None:
        one = self.climbing.get(number)
        if one is not None and not one.to_undo:
            del self.climbing[number]


def _owners(incident: Incident, ctx: Ctx[Any]) -> list[str]:
    """Whose ladders are climbed: of where it began first, then of who is hurt."""
    root = incident.reason.root if incident.reason is not None else incident.subject
    names = dict.fromkeys([root, incident.subject, *incident.services])
    return [name for name in names if _has(ctx, name)]


def _has(ctx: Ctx[Any], service: str) -> bool:
    return service in ctx.world.services


def _still(incident: Incident, step: Step, ctx: Ctx[Any], now: float) -> bool:
    """Whether a rung that was proposed applies now."""
    if not _has(ctx, step.owner):
        return False
    found = steps(Case(incident, step.owner, ctx.world, now))
    return any((s.rung, s.subject) == (step.rung, step.subject) for s in found)
