"""What has one cause is one incident, and each goes its way to the end."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from everup.kernel.ctx import Outbox
from everup.kernel.step import Kernel
from everup.model.action import Record
from everup.model.condition import ActiveNow, Began, Condition, Ended, Key, Severity
from everup.model.event import Tick
from everup.model.incident import Reason
from everup.model.journal import Entry
from everup.model.spec import Service, Spec
from everup.observer.events import Journaled, Resumed
from everup.observer.world import View
from everup.rooms.incidents.actions import Explain
from everup.rooms.incidents.past import told
from everup.rooms.incidents.room import QUIET_S, Incidents

SERVICES = {
    "db": Service("db", ("db",)),
    "api": Service("api", ("api",), depends_on=("db",)),
    "web": Service("web", ("web",), depends_on=("api",)),
    "mail": Service("mail", ("mail",)),
}


class Bench:
    """The room, and whoever looks for causes; ``roots`` says where each service's are found."""

    def __init__(self, roots: dict[str, str] | None = None, answers: bool = True) -> None:
        self.world = View(Spec(service=SERVICES))
        self.room = Incidents()
        self.box = Outbox()
        rooms = {"incidents": self.room}
        self.kernel: Kernel[View] = Kernel(rooms, self.world, self.box, lambda: 0.5)
        self.roots = roots or {}
        self.answers = answers
        self.now = 1000.0
        self.journal: list[Entry] = []
        self.handle(Resumed(self.now))

    def handle(self, event: object) -> None:
        asked = []
        for action in self.kernel.handle(event, self.now):
            if isinstance(action, Record):
                seq, kind = len(self.journal) + 1, str(action.kind)
                entry = Entry(seq, self.now, self.now, "", kind, action.subject, action.payload)
                self.journal.append(entry)
            else:
                asked.append(action)
        self.room.check_invariants()
        for action in asked:
            assert isinstance(action, Explain)
            if self.answers:
                self.explain(action)

    def explain(self, action: Explain) -> None:
        root = self.roots.get(action.subject, action.subject)
        path = (action.subject,) if root == action.subject else (action.subject, root)
        text = f"{action.subject} failed, because of {root}"
        self.handle(Reason(action.number, text, "error", root, 0.9, root, path))

    def begin(self, kind: str, subject: str, severity: Severity = Severity.CRITICAL) -> Condition:
        found = Condition(kind, subject, severity, "is not well", self.now)
        self.handle(Began(found))
        return found

    def end(self, condition: Condition) -> None:
        self.handle(Ended(condition, self.now))

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.kernel.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.box.fire(self.now)
            self.handle(Tick())
        self.now = until

    def kinds(self) -> list[str]:
        return [entry.kind.removeprefix("incidents.") for entry in self.journal]


def test_from_its_beginning_to_its_end() -> None:
    bench = Bench()
    down = bench.begin("down", "db")
    assert bench.kinds() == ["opened", "explained"]
    bench.wait(5.0)
    bench.end(down)
    bench.wait(QUIET_S - 1)
    assert "resolved" not in bench.kinds()
    bench.wait(2.0)
    assert bench.kinds() == ["opened", "explained", "mitigated", "resolved"]
    assert bench.journal[-1].payload["after_s"] == 5.0


def test_a_note_is_a_symptom_and_holds_no_incident_open() -> None:
    """A new kind of error is noted for an hour; the incident is over when its service serves."""
    bench = Bench()
    down = bench.begin("down", "db")
    note = bench.begin("new_error", "db.1", Severity.NOTE)
    assert bench.kinds().count("joined") == 1
    bench.wait(5.0)
    bench.end(down)
    bench.wait(QUIET_S - 1)
    bench.begin("new_error", "db.2", Severity.NOTE)
    bench.wait(2.0)
    assert bench.kinds()[-1] == "resolved"
    bench.end(note)
    assert list(bench.room.open()) == []


def test_a_note_of_before_holds_no_incident_open_after_the_observer_was_replaced() -> None:
    before = Bench()
    before.begin("down", "db")
    note = before.begin("new_error", "db.1", Severity.NOTE)
    bench = Bench()
    bench.room._past = True
    for entry in before.journal:
        bench.handle(Journaled(entry, True))
    bench.handle(ActiveNow((note,)))
    bench.wait(QUIET_S + 1)
    assert bench.kinds() == ["resolved"], "and it is not told twice that the note belongs to it"


def test_symptoms_of_one_cause_are_folded_by_the_declared_graph() -> None:
    bench = Bench()
    bench.begin("down", "db")
    for name in ("api", "web"):
        bench.begin("down", name)
        bench.begin("crashed", f"{name}.1", Severity.WARNING)
    assert bench.kinds().count("opened") == 1
    (incident,) = bench.room.open()
    assert set(incident.services) == {"db", "api", "web"}
    bench.begin("down", "mail")
    assert bench.kinds().count("opened") == 2


def test_symptoms_are_folded_by_the_cause_that_was_found() -> None:
    bench = Bench(roots={"mail": "db"})
    bench.begin("down", "mail")
    bench.begin("down", "db")
    assert bench.kinds().count("opened") == 1
    (incident,) = bench.room.open()
    assert incident.subject == "db"


def test_what_was_opened_before_its_cause_was_known_becomes_a_part_of_it() -> None:
    bench = Bench()
    symptom = bench.begin("down", "mail")
    bench.roots = {"mail": "db"}
    root = bench.begin("down", "db")
    bench.begin("crashed", "mail.1", Severity.WARNING)
    assert [i.subject for i in bench.room.open()] == ["db"]
    (incident,) = bench.room.open()
    assert symptom.key in incident.active
    assert {i.number: i.state for i in told(bench.journal)} == {1: "merged", 2: "open"}
    bench.end(symptom)
    bench.end(root)
    bench.end(Condition("crashed", "mail.1", Severity.WARNING, "", 0.0))
    bench.wait(QUIET_S + 1)
    assert list(bench.room.open()) == []


def test_what_needs_it_and_was_opened_first_becomes_a_part_of_it() -> None:
    bench = Bench()
    bench.begin("down", "web")
    bench.begin("down", "db")
    assert [i.subject for i in bench.room.open()] == ["db"]
    assert bench.kinds().count("merged") == 1


def test_without_an_answer_it_is_opened_all_the_same() -> None:
    bench = Bench(answers=False)
    bench.begin("down", "db")
    bench.begin("crashed", "db.1", Severity.WARNING)
    assert bench.kinds() == []
    bench.wait(4.0)
    assert bench.kinds() == ["opened"]
    assert set(bench.journal[0].payload["conditions"]) == {"down db", "crashed db.1"}


def test_a_note_opens_none() -> None:
    bench = Bench()
    bench.begin("new_error", "db.1", Severity.NOTE)
    bench.wait(60.0)
    assert bench.kinds() == []


def test_what_comes_back_while_it_is_open_is_counted_and_not_told_again() -> None:
    bench = Bench()
    for _ in range(50):
        down = bench.begin("down", "db")
        bench.wait(3.0)
        bench.end(down)
        bench.wait(3.0)
    assert bench.kinds().count("opened") == 1
    assert bench.kinds().count("joined") == 0
    (incident,) = bench.room.open()
    assert incident.occurrences == 50


def test_a_person_takes_it_on() -> None:
    bench = Bench()
    bench.begin("down", "db")
    payload = {"number": 1, "by": "ada", "note": ""}
    said = Entry(99, bench.now, bench.now, "", "incidents.acknowledged", "db", payload)
    bench.handle(Journaled(said, past=False))
    (incident,) = bench.room.open()
    assert (incident.state, incident.acknowledged_by) == ("acknowledged", "ada")


def test_the_next_observer_goes_on_with_what_is_open() -> None:
    bench = Bench()
    down = bench.begin("down", "db")
    old = bench.begin("down", "mail")
    bench.end(old)
    bench.wait(QUIET_S + 1)
    later = Bench()
    later.room._past = True
    for entry in bench.journal:
        later.handle(Journaled(entry, past=True))
    later.now = bench.now
    later.handle(Resumed(later.now))
    later.handle(ActiveNow((down,)))
    assert later.kinds() == []
    assert [i.number for i in later.room.open()] == [1]
    later.begin("down", "mail")
    assert [i.number for i in later.room.open()] == [1, 3]
    later.end(down)
    later.wait(QUIET_S + 1)
    assert later.kinds()[-1] == "resolved"
    assert {i.number: i.state for i in told(bench.journal)} == {1: "open", 2: "resolved"}


_KEYS = st.sampled_from(
    [Key(kind, name) for kind in ("down", "crashed", "leaking") for name in SERVICES]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_KEYS, st.booleans(), st.floats(0.0, 20.0)), max_size=40), st.booleans())
def test_every_incident_ends_once_all_is_well(steps: list[Any], answers: bool) -> None:
    bench = Bench(roots={"mail": "db", "web": "api"}, answers=answers)
    active: dict[Key, Condition] = {}
    for key, begins, passed in steps:
        if begins and key not in active:
            grave = Severity.CRITICAL if key.kind == "down" else Severity.WARNING
            active[key] = bench.begin(key.kind, key.subject, grave)
        elif not begins and key in active:
            bench.end(active.pop(key))
        bench.wait(passed)
        open_now = [key for incident in bench.room.open() for key in incident.active]
        assert set(open_now) <= set(active) or not answers
    for condition in active.values():
        bench.end(condition)
    bench.wait(60.0)
    assert list(bench.room.open()) == []
    over = bench.kinds().count("resolved") + bench.kinds().count("merged")
    assert bench.kinds().count("opened") == over
