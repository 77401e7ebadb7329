"""Which rung is climbed, whether it has helped, and that nothing is done twice."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everup import config
from everup.model.condition import ActiveNow, Began, Condition, Ended, Severity
from everup.model.incident import Reason
from everup.model.spec import Spec
from everup.observer.bench import Bench
from everup.rooms.incidents.actions import Explain
from everup.rooms.incidents.room import Incidents
from everup.rooms.recover.actions import Climb, Climbed
from everup.rooms.recover.room import Recover

DONE_S = 0.2


def spec(web: str = "", db: str = "") -> Spec:
    text = (
        f'[service.db]\ncommand = ["db"]\n{db}\n'
        f'[service.web]\ncommand = ["web"]\ndepends_on = ["db"]\nreplicas = 2\n{web}\n'
        '[service.spare]\ncommand = ["spare"]\nautostart = false\n'
    )
    return config.load(text, path="everup.toml", directory="/srv")


class Case:
    """Incidents and the ladder; ``root`` is where causes are found, ``errors`` what rungs say."""

    def __init__(self, web: str = "", db: str = "", root: str = "") -> None:
        self.root = root
        self.errors: dict[str, str] = {}
        self.answers = True
        self.bench = Bench(self._make, spec(web, db), perform=self._perform)
        self.active: dict[str, Condition] = {}

    @staticmethod
    def _make() -> dict[str, Any]:
        return {"incidents": Incidents(), "recover": Recover()}

    def _perform(self, bench: Bench, action: Any) -> None:
        if isinstance(action, Explain):
            root = self.root or action.subject.partition(".")[0]
            path = (action.subject,) if root == action.subject else (action.subject, root)
            text = f"{action.subject} {action.text}"
            told = Reason(action.number, text, "refused", "it refuses", 0.9, root, path)
            bench.after(0.1, lambda: bench.dispatch(told))
        elif isinstance(action, Climb) and self.answers:
            error = self.errors.get(action.rung, "")
            done = Climbed(action.number, action.rung, action.owner, action.undo, error)
            bench.after(DONE_S, lambda: bench.dispatch(done))

    def begin(self, kind: str, subject: str, severity: Severity = Severity.CRITICAL) -> None:
        found = Condition(kind, subject, severity, f"is {kind}", self.bench.now)
        self.active[f"{kind} {subject}"] = found
        self.bench.handle(Began(found))

    def end(self, kind: str, subject: str) -> None:
        self.bench.handle(Ended(self.active.pop(f"{kind} {subject}"), self.bench.now))

    def die(self) -> None:
        """Another observer begins."""
        self.bench.begin()
        self.bench.handle(ActiveNow(tuple(self.active.values())))

    def did(self) -> list[str]:
        return [
            f"{'undo ' if a.undo else ''}{a.rung} {a.subject}"
            for a in self.bench.actions
            if isinstance(a, Climb)
        ]

    def outcomes(self) -> list[tuple[str, str]]:
        found = self.bench.entries("recover.ended")
        return [(e.payload["rung"], e.payload["outcome"]) for e in found]


def test_what_lives_and_does_not_serve_is_restarted() -> None:
    case = Case()
    case.begin("queue_full", "web.1")
    case.bench.wait(4.0)
    assert case.did() == []
    case.bench.wait(3.0)
    assert case.did() == ["restart web.1"]
    case.end("queue_full", "web.1")
    case.bench.wait(30.0)
    assert case.outcomes() == [("restart", "helped")]
    assert case.bench.rooms["recover"].view() == {}


def test_what_the_engine_replaces_by_itself_is_left_alone() -> None:
    case = Case()
    case.bench.write("instance.spawned", "web.1", {"run": 1, "pid": 7})
    case.bench.write("instance.ready", "web.1", {"run": 1})
    case.bench.wait(60.0)
    case.begin("hung", "web.1")
    case.bench.wait(1.0)
    case.bench.write("instance.spawned", "web.1", {"run": 2, "pid": 8})
    case.bench.wait(60.0)
    assert case.did() == []


def test_a_condition_that_joins_an_old_incident_has_its_own_wait() -> None:
    case = Case()
    case.begin("degraded", "web", Severity.WARNING)
    case.bench.wait(60.0)
    case.begin("queue_full", "web.1")
    case.bench.wait(4.0)
    assert case.did() == []
    case.bench.wait(2.0)
    assert case.did() == ["restart web.1"]


def test_what_crashes_is_not_for_the_default_ladder() -> None:
    case = Case()
    case.begin("crash_looping", "web.1")
    case.begin("parked", "web.1")
    case.bench.wait(600.0)
    assert case.did() == []


LADDER = (
    '[service.web.recover]\nladder = ["restart", "clean_restart", "scale", "degrade", "failover"'
    ', "page"]\nclean = ["clean"]\nscale_to = 4\ndegrade_on = ["less"]\ndegrade_off = ["more"]\n'
    'failover_to = "spare"\nwithin = "10s"\n'
)


def test_each_rung_follows_the_one_that_did_not_help() -> None:
    case = Case(LADDER)
    case.begin("hung", "web.1")
    case.begin("queue_full", "web.1")
    case.bench.wait(120.0)
    assert case.did() == [
        "restart web.1", "clean_restart web.1", "scale web", "degrade web", "failover spare",
    ]  # fmt: skip
    assert [outcome for _, outcome in case.outcomes()] == ["failed"] * 5
    assert case.bench.entries("recover.began")[-1].payload["rung"] == "page"
    case.end("hung", "web.1")
    case.end("queue_full", "web.1")
    case.bench.wait(60.0)
    assert case.did()[5:] == ["undo scale web", "undo degrade web"]
    (back,) = [
        a for a in case.bench.actions if isinstance(a, Climb) and a.rung == "scale" and a.undo
    ]
    assert back.replicas == 2


@pytest.mark.parametrize(
    ("conditions", "rungs"),
    [
        (["down web"], {"clean_restart web", "degrade web", "failover spare"}),
        (["parked web.1"], {"clean_restart web.1", "degrade web", "failover spare"}),
        (["throttled web.1"], {"scale web", "degrade web"}),
        (["disk_short /"], set()),
        (["deploy_failing web"], {"degrade web"}),
    ],
)
def test_a_rung_is_climbed_against_what_it_is_for(conditions: list[str], rungs: set[str]) -> None:
    case = Case(LADDER)
    for words in conditions:
        kind, _, subject = words.partition(" ")
        case.begin(kind, subject)
    case.bench.wait(300.0)
    assert set(case.did()) == rungs


def test_the_dependency_that_the_cause_names() -> None:
    web = '[service.web.recover]\nladder = ["restart_dependency"]\n'
    case = Case(web, db='[service.db.recover]\nmode = "off"\n', root="db")
    case.begin("down", "web")
    case.bench.wait(10.0)
    assert case.did() == ["restart_dependency db"]


def test_a_dependency_that_everybody_blames_is_restarted_by_its_own_ladder() -> None:
    case = Case(root="db")
    case.begin("down", "web")
    case.bench.wait(10.0)
    assert case.did() == ["restart db"]


def test_refused_by_the_guard_is_said_and_not_tried_again() -> None:
    case = Case(LADDER)
    case.errors["restart"] = "not done: it is the last ready replica"
    case.begin("queue_full", "web.1")
    case.bench.wait(9.0)
    assert case.did() == ["restart web.1", "clean_restart web.1"]
    (refused,) = case.bench.entries("recover.ended")
    assert refused.payload["why"] == "not done: it is the last ready replica"


def test_a_person_is_asked() -> None:
    case = Case('[service.web.recover]\nmode = "ask"\nexpires = "1m"\n')
    case.begin("queue_full", "web.1")
    case.bench.wait(20.0)
    assert case.did() == []
    (asked,) = case.bench.entries("recover.proposed")
    assert asked.payload["until"] > case.bench.now
    case.bench.write("recover.answered", "web.1", {"number": 1, "by": "ann", "yes": True})
    assert case.did() == ["restart web.1"]


@pytest.mark.parametrize("answer", ["no", "late", "nothing", "over"])
def test_without_an_approval_nothing_is_done(answer: str) -> None:
    case = Case('[service.web.recover]\nmode = "ask"\nexpires = "1m"\n')
    case.begin("queue_full", "web.1")
    case.bench.wait(20.0)
    if answer == "no":
        case.bench.write("recover.answered", "web.1", {"number": 1, "by": "ann", "yes": False})
    elif answer == "over":
        case.end("queue_full", "web.1")
        case.bench.wait(20.0)
    case.bench.wait(60.0)
    if answer == "late":
        case.bench.write("recover.answered", "web.1", {"number": 1, "by": "ann", "yes": True})
    case.bench.wait(60.0)
    assert case.did() == []
    assert case.outcomes() == [("restart", "denied" if answer == "no" else "expired")]


def test_who_only_watches_is_told_what_would_be_done() -> None:
    case = Case('[service.web.recover]\nmode = "watch"\n')
    case.begin("queue_full", "web.1")
    case.bench.wait(20.0)
    assert case.did() == []
    (said,) = case.bench.entries("incidents.responded")
    assert said.payload["did"] == "would restart web.1 (only watching)"


def test_no_rung_more_often_than_it_may() -> None:
    case = Case("[service.web.recover]\nat_most = 2\n")
    for _ in range(4):
        case.begin("queue_full", "web.1")
        case.bench.wait(10.0)
        case.end("queue_full", "web.1")
        case.bench.wait(60.0)
    assert case.did() == ["restart web.1"] * 2
    assert case.outcomes()[2:] == [("restart", "refused")] * 2


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "end", "wait", "die", "yes", "no", "lose"]),
        st.sampled_from(["queue_full web.1", "hung web.2", "down db", "throttled web.1"]),
        st.floats(0.0, 40.0),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(EVENTS, st.sampled_from(["auto", "ask"]))
def test_nothing_is_done_twice_or_unasked(events: list[tuple[str, str, float]], mode: str) -> None:
    """Whatever fails, ends, dies or is answered when: no rung twice for one incident, none without
    its approval, and what was changed for an incident is changed back."""
    case = Case(LADDER + f'mode = "{mode}"\n')
    for what, words, wait_s in events:
        kind, _, subject = words.partition(" ")
        if what == "begin" and words not in case.active:
            case.begin(kind, subject)
        elif what == "end" and words in case.active:
            case.end(kind, subject)
        elif what == "die":
            case.die()
        elif what in ("yes", "no"):
            numbers = [e.payload["number"] for e in case.bench.entries("recover.proposed")]
            said = {"number": max([1, *numbers]), "by": "ann", "yes": what == "yes"}
            case.bench.write("recover.answered", subject, said)
        # What is under way is lost with the observer that has begun it, and only so.
        case.answers = what != "lose"
        case.bench.wait(wait_s)
        case.answers = True
        if what == "lose":
            case.die()
    for words in list(case.active):
        kind, _, subject = words.partition(" ")
        case.end(kind, subject)
    case.bench.wait(4000.0)
    assert case.bench.rooms["recover"].view() == {}
    began = [e.payload for e in case.bench.entries("recover.began")]
    climbed = Counter((p["number"], p["owner"], p["rung"]) for p in began)
    assert not climbed or max(climbed.values()) == 1
    if mode == "ask":
        yes = sum(e.payload["yes"] for e in case.bench.entries("recover.answered"))
        assert sum(p["rung"] != "page" and p["owner"] == "web" for p in began) <= yes
    changed = {(p["number"], p["rung"]) for p in began if p["rung"] in ("scale", "degrade")}
    undone = [e.payload for e in case.bench.entries("recover.undone")]
    ended = [e.payload for e in case.bench.entries("recover.ended")]
    back = [*undone, *(p for p in ended if p["outcome"] == "refused")]
    assert changed <= {(p["number"], p["rung"]) for p in back}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('ladder = ["scale"]', "needs scale_to"),
        ('ladder = ["scale"]\nscale_to = 1', "more than the 2 replicas"),
        ('ladder = ["failover"]\nfailover_to = "spar"', "no such other service"),
        ('ladder = ["failover"]\nfailover_to = "web"', "no such other service"),
        ('ladder = ["reboot"]', "form"),
        ('mode = "yes"', "unknown choice"),
        ('clean = ["x"]', "has no effect"),
    ],
)
def test_ladders_that_cannot_be_climbed_are_told(text: str, problem: str) -> None:
    head = '[service.web]\ncommand = ["web"]\nreplicas = 2\n[service.spare]\ncommand = ["s"]\n'
    whole = f"{head}[service.web.recover]\n{text}\n"
    report = config.check(whole, path="everup.toml", directory="/srv")
    assert any(problem in str(one) for one in (*report.problems, *report.warnings))
