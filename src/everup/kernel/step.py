"""The loop over the rooms: one event in, a list of actions out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from everup.kernel.ctx import Ctx, Outbox
from everup.kernel.room import BEGAN, RESTED, Reconcile, Room

W = TypeVar("W")
Step = Callable[[Any, Ctx[Any]], None]
MOST_ROUNDS = 100_000
"""Deliveries within one step. A rollout of a thousand replicas needs some thousand; a rule that
wakes itself would need no end."""


class DefectError(Exception):
    """A step went wrong by everup's own fault. What it has changed so far is half of it, so the
    process ends and the next one rebuilds its state from the journal."""


class Kernel(Generic[W]):
    """Runs the rooms. Not thread-safe: one owner."""

    def __init__(
        self, rooms: Mapping[str, Room], world: W, box: Outbox, random: Callable[[], float]
    ) -> None:
        self.rooms = dict(rooms)
        self._ctx = Ctx(world, box, random)
        self._box = box
        self._hear: dict[type, Sequence[Step]] = {}

    def handle(self, event: object, now: float) -> list[Any]:
        """Take one event; the actions are to be carried out in their order.

        Any exception is a defect, but for those that a room documents for a command that it
        refuses before it has changed anything: this kernel must not be used any more.
        """
        box, deliver = self._box, self._deliver
        box.actions, self._ctx.now = [], now
        box.steps += 1
        deliver(BEGAN)
        deliver(event)
        facts, dirty = box.facts, box.dirty
        for _round in range(MOST_ROUNDS):
            if facts:
                deliver(facts.popleft())
            elif dirty:
                subject = next(iter(dirty))
                del dirty[subject]
                deliver(Reconcile(subject))
            else:
                box.again = False
                deliver(RESTED)
                if not (facts or dirty or box.again):
                    return box.actions
        raise DefectError(f"a step does not come to rest: {type(event).__name__}")

    def next_deadline(self) -> float | None:
        """When ``Tick`` is due at the latest, in monotonic seconds; None: never."""
        earliest = self._box.next_wake
        for room in self.rooms.values():
            at = room.next_deadline()
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        return earliest

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` where a room's state contradicts itself."""
        for room in self.rooms.values():
            room.check_invariants()

    def _deliver(self, event: object) -> None:
        steps = self._hear.get(type(event))
        if steps is None:
            steps = self._hear[type(event)] = [
                room.step for room in self.rooms.values() if type(event) in room.hears
            ]
        for step in steps:
            step(event, self._ctx)
