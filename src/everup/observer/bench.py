"""Rooms of the observer on a bench: a clock that is set, a journal, actions that are carried out
when the test wants it."""

from collections.abc import Callable, Mapping
from typing import Any

from everup.kernel.ctx import Outbox
from everup.kernel.room import Room
from everup.kernel.step import Kernel
from everup.model.action import Record
from everup.model.event import Tick
from everup.model.journal import Entry
from everup.model.spec import Spec
from everup.observer.events import Journaled, Resumed
from everup.observer.world import View


class Bench:
    """An observer with rooms of a test. ``actions`` keeps what they ask for, ``journal`` what they
    write; ``perform`` answers actions."""

    def __init__(
        self,
        make: Callable[[], Mapping[str, Room]],
        spec: Spec,
        *,
        now: float = 1_000_000.0,
        perform: Callable[["Bench", Any], None] | None = None,
    ) -> None:
        self._make, self._perform = make, perform
        self.spec, self.now = spec, now
        self.journal: list[Entry] = []
        self.actions: list[Any] = []
        self._planned: list[tuple[float, Callable[[], None]]] = []
        self.begin()

    def begin(self) -> None:
        """Let an observer begin: all that the journal has is past to it, and what the one before
        had under way is lost."""
        self.world = View(self.spec, "box")
        self.rooms = dict(self._make())
        self.box = Outbox()
        self.kernel: Kernel[View] = Kernel(self.rooms, self.world, self.box, lambda: 0.5)
        self._planned.clear()
        for entry in list(self.journal):
            self.world.take(entry)
            self.kernel.handle(Journaled(entry, past=True), self.now)
        self.handle(Resumed(self.now))

    def handle(self, event: object) -> None:
        """Bring one event in, and carry out what follows."""
        actions = self.kernel.handle(event, self.now)
        self.kernel.check_invariants()
        for action in actions:
            if isinstance(action, Record):
                self.write(str(action.kind), action.subject, action.payload, tell=False)
            else:
                self.actions.append(action)
                if self._perform is not None:
                    self._perform(self, action)

    def write(self, kind: str, subject: str, payload: dict[str, Any], *, tell: bool = True) -> None:
        """Write an entry to the journal, which the rooms hear of if they did not write it."""
        entry = Entry(len(self.journal) + 1, self.now, self.now, "", kind, subject, payload)
        self.journal.append(entry)
        if tell:
            self.world.take(entry)
            self.handle(Journaled(entry, past=False))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Have something happen later, unless the observer dies before."""
        self._planned.append((self.now + seconds, what))

    def dispatch(self, event: object) -> None:
        """Bring one event in, as the double of an edge does."""
        self.handle(event)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while True:
            planned = min((at for at, _ in self._planned), default=None)
            due = self.kernel.next_deadline()
            soonest = min((at for at in (due, planned) if at is not None), default=None)
            if soonest is None or soonest > until:
                break
            self.now = max(self.now, soonest)
            if planned is not None and planned <= self.now:
                first = min(self._planned, key=lambda item: item[0])
                self._planned.remove(first)
                first[1]()
            else:
                self.box.fire(self.now)
                self.handle(Tick())
        self.now = until

    def entries(self, kind: str) -> list[Entry]:
        """Give the entries of a kind, or of a room: ``notify.``."""
        return [e for e in self.journal if e.kind == kind or e.kind.startswith(kind + ".")]
