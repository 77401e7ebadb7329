"""The loop over the rooms: one event in, a list of actions out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from everup.kernel.ctx import Ctx, Outbox
from everup.kernel.room import BEGAN, RESTED, Reconcile, Room

W = TypeVar("W")
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
        self._hear: dict[type, Sequence[Room]] = {}

    def handle(self, event: object, now: float) -> list[Any]:
        """Take one event; the actions are to be carried out in their order.

        Any exception is a defect, but for those that a room documents for a command that it
        refuses before it has changed anything: this kernel must not be used any more.
        """
        box = self._box
        box.actions, self._ctx.now = [], now
        box.steps += 1
        self._deliver(BEGAN)
        self._deliver(event)
        for _round in range(MOST_ROUNDS):
            if box.facts:
                self._deliver(box.facts.popleft())
            elif box.dirty:
                subject = next(iter(box.dirty))
                del box.dirty[subject]
                self._deliver(Reconcile(subject))
            else:
                box.again = False
                self._deliver(RESTED)
                if not (box.facts or box.dirty or box.again):
                    return box.actions
        raise DefectError(f"a step does not come to rest: {type(event).__name__}")

    def next_deadline(self) -> float | None:
        """When ``Tick`` is due at the latest, in monotonic seconds; None: never."""
        due = [room.next_deadline() for room in self.rooms.values()]
        return min((at for at in (*due, self._box.next_wake) if at is not None), default=None)

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` where a room's state contradicts itself."""
        for room in self.rooms.values():
            room.check_invariants()

    def _deliver(self, event: object) -> None:
        for room in self._listeners(type(event)):
            room.step(event, self._ctx)

    def _listeners(self, kind: type) -> Sequence[Room]:
        known = self._hear.get(kind)
        if known is None:
            known = [room for room in self.rooms.values() if kind in room.hears]
            self._hear[kind] = known
        return known
