"""What a room may touch, and where it leaves what it wants done."""

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from everup.model.action import Record
from everup.model.entry import EntryKind
from everup.model.journal import Kind

W = TypeVar("W")
T = TypeVar("T")
P = TypeVar("P")
_SAME_S = 0.001
"""Two wakes that are no further apart are one: the same time, worked out twice."""


class Outbox:
    """What the rooms have said in this step, and when they want to be woken."""

    def __init__(self) -> None:
        self.actions: list[Any] = []
        self.facts: deque[object] = deque()
        self.dirty: dict[str, None] = {}  # a set that keeps its order: the order is the same in
        # every run, and so is what a seed replays
        self.again = False
        """Somebody has more to do in this step once all is quiet."""
        self.steps = 0
        self._wakes: list[tuple[float, str]] = []
        self._wake_of: dict[str, float] = {}

    def touch(self, subjects: Iterable[str]) -> None:
        """Have the rooms look at these subjects again before the step is done."""
        for subject in subjects:
            self.dirty[subject] = None

    def wake(self, subject: str, when: float) -> None:
        """Look at the subject again at that time, or before: who still has to wait asks again."""
        known = self._wake_of.get(subject)
        if known is None or when < known - _SAME_S:
            self._wake_of[subject] = when
            heapq.heappush(self._wakes, (when, subject))

    def fire(self, now: float) -> None:
        """Touch every subject whose time has come."""
        while self._wakes and self._wakes[0][0] <= now:
            due, subject = heapq.heappop(self._wakes)
            if self._wake_of.get(subject) == due:
                del self._wake_of[subject]
            self.dirty[subject] = None

    @property
    def waiting(self) -> int:
        """How many wakes are kept."""
        return len(self._wakes)

    @property
    def next_wake(self) -> float | None:
        return self._wakes[0][0] if self._wakes else None


class Ctx(Generic[W]):
    """All that a room may touch. ``world`` is for reading only."""

    __slots__ = ("_box", "now", "random", "world")

    def __init__(self, world: W, box: Outbox, random: Callable[[], float]) -> None:
        self.world = world
        self.now = 0.0
        """Monotonic seconds."""
        self.random = random
        """Gives numbers in [0, 1)."""
        self._box = box

    def table(self, key: str, table: type[T]) -> T:
        """Give the room's own table of the config; with its defaults where the config has none."""
        found = getattr(getattr(self.world, "spec", None), key, None)
        return found if isinstance(found, table) else table()

    def do(self, action: object) -> None:
        """Have an action carried out after the step, in the order in which they are asked for."""
        self._box.actions.append(action)

    def record(self, kind: Kind, subject: str, durable: bool = False, **payload: object) -> None:
        """Write to the journal, before any action that is asked for after this."""
        self._box.actions.append(Record(kind, subject, payload, durable))

    def write(self, kind: EntryKind[P], subject: str, payload: P, durable: bool = False) -> None:
        """Write an entry of a room's own kind to the journal, before any action that is asked for
        after this. ``durable``: it must outlive a power cut."""
        self._box.actions.append(Record(kind, subject, kind.encode(payload), durable))

    def publish(self, fact: object) -> None:
        """Tell a fact to every room that hears its type, after this event."""
        self._box.facts.append(fact)

    def touch(self, *subjects: str) -> None:
        """Have the rooms look at these subjects again before the step is done."""
        self._box.touch(subjects)

    def wake(self, subject: str, when: float) -> None:
        """Have the rooms look at the subject again at ``when``, in monotonic seconds."""
        self._box.wake(subject, when)
