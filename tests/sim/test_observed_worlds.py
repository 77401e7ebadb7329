"""The observer's rooms over the journals of simulated worlds: what they find ends when the faults
do, and an observer that is killed anywhere goes on with the same."""

from typing import Any

import pytest

from everup.kernel.ctx import Outbox
from everup.kernel.step import Kernel
from everup.model.action import Record
from everup.model.event import Tick
from everup.model.incident import Reason
from everup.model.journal import Entry
from everup.observer.events import Journaled, Resumed, Sampled
from everup.observer.world import View
from everup.rooms.detect.room import Detect
from everup.rooms.incidents.actions import Explain
from everup.rooms.incidents.room import Incidents
from everup.testing.sim import SimWorld

EXPLAINED_S = 0.2
SEEDS = range(7, 19)


class Observer:
    """Both rooms, over a journal that goes on."""

    def __init__(self, world: SimWorld) -> None:
        self.spec = world.spec
        self.entries: list[Entry] = []
        self.now = 0.0
        self.begin()

    def begin(self) -> None:
        """An observer begins: all that was is past to it."""
        self.view = View(self.spec)
        self.detect, self.incidents = Detect(), Incidents()
        self.box = Outbox()
        rooms: dict[str, Any] = {"detect": self.detect, "incidents": self.incidents}
        self.kernel: Kernel[View] = Kernel(rooms, self.view, self.box, lambda: 0.5)
        self.waiting: list[tuple[float, Reason]] = []
        self.past = True
        for entry in self.entries:
            self.view.take(entry)
            self.handle(Journaled(entry, past=True))
        self.past = False
        self.handle(Resumed(self.now))

    def handle(self, event: object) -> None:
        actions = self.kernel.handle(event, self.now)
        self.kernel.check_invariants()
        for action in [] if self.past else actions:
            if isinstance(action, Record):
                self.write(str(action.kind), action.subject, action.payload)
            elif isinstance(action, Explain):
                reason = Reason(action.number, f"{action.subject} failed", root=action.subject)
                self.waiting.append((self.now + EXPLAINED_S, reason))

    def write(self, kind: str, subject: str, payload: dict[str, Any]) -> None:
        seq = len(self.entries) + 1
        self.entries.append(Entry(seq, self.now, self.now, "", kind, subject, payload))

    def wait(self, until: float) -> None:
        while True:
            due = self.kernel.next_deadline()
            first = min((at for at, _ in self.waiting), default=None)
            soonest = min((at for at in (due, first) if at is not None), default=None)
            if soonest is None or soonest > until:
                break
            self.now = max(self.now, soonest)
            if first is not None and first <= self.now:
                self.handle(self.waiting.pop(0)[1])
            else:
                self.box.fire(self.now)
                self.handle(Tick())
        self.now = max(self.now, until)

    def take(self, entry: Entry) -> None:
        self.wait(entry.time)
        self.write(entry.kind, entry.subject, entry.payload)
        self.view.take(self.entries[-1])
        self.handle(Journaled(self.entries[-1], past=False))


def journal_of(seed: int) -> SimWorld:
    world = SimWorld(seed)
    world.run_faults(60.0)
    world.heal(900.0)
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_all_that_was_found_ends(seed: int) -> None:
    world = journal_of(seed)
    observer = Observer(world)
    for number, entry in enumerate(world.journal):
        observer.take(entry)
        if number % 97 == seed:
            observer.begin()
    found = [e for e in observer.entries if e.kind == "detect.began"]
    failures = [e for e in world.journal if e.kind in ("instance.unhealthy", "instance.failed")]
    assert found or not failures
    observer.spec = world.spec  # a changed config makes an observer that goes by it
    observer.begin()
    observer.wait(observer.now + 700.0)
    observer.handle(Sampled(observer.now, observer.now, {}, {}))
    observer.wait(observer.now + 100.0)
    up = {i.slot.service for i in world.engine.instances.values() if i.state.value == "ready"}
    left = [c for c in observer.detect.board if c.service in up]
    assert left == []
    ours = [i for i in observer.incidents.open() if i.subject in up and not i.active]
    assert ours == []
    numbers = [e.payload["number"] for e in observer.entries if e.kind == "incidents.opened"]
    assert len(set(numbers)) == len(numbers)
    began = [(e.payload["condition"], e.subject) for e in found]
    ended = [
        (e.payload["condition"], e.subject) for e in observer.entries if e.kind == "detect.ended"
    ]
    active = [(c.kind, c.subject) for c in observer.detect.board]
    assert sorted(began) == sorted([*ended, *active])
