"""Who is told of what, when, and how often."""

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
from everup.rooms.notify.actions import Tell, Told
from everup.rooms.notify.room import Notify

SERVICES = """
[service.db]
command = ["db"]
[service.web]
command = ["web"]
depends_on = ["db"]
[service.mail]
command = ["mail"]
"""
PLAIN = '[route.ops]\ncommand = ["page"]\n'
TAKEN_S = 0.3


def spec(routes: str) -> Spec:
    return config.load(SERVICES + routes, path="everup.toml", directory="/srv")


def perform(bench: Bench, action: Any) -> None:
    if isinstance(action, Explain):
        told = Reason(action.number, f"{action.subject} {action.text}", root=action.subject)
        bench.after(0.1, lambda: bench.dispatch(told))
    elif isinstance(action, Tell):
        done = Told(action.route, action.message.id)
        bench.after(TAKEN_S, lambda: bench.dispatch(done))


def bench_of(routes: str = PLAIN, perform: Any = perform) -> Bench:
    def make() -> dict[str, Any]:
        return {"incidents": Incidents(), "notify": Notify()}

    return Bench(make, spec(routes), perform=perform)


def begin(
    bench: Bench, subject: str = "web", severity: Severity = Severity.CRITICAL, kind: str = "down"
) -> Condition:
    found = Condition(kind, subject, severity, "is not well", bench.now)
    bench.handle(Began(found))
    return found


def told(bench: Bench, route: str = "ops") -> list[str]:
    return [
        a.message.data["stage"] for a in bench.actions if isinstance(a, Tell) and a.route == route
    ]


def test_told_when_it_opens_and_when_it_is_over() -> None:
    bench = bench_of()
    down = begin(bench)
    bench.wait(9.0)
    assert told(bench) == []
    bench.wait(2.0)
    assert told(bench) == ["opened"]
    bench.handle(Ended(down, bench.now))
    bench.wait(300.0)
    assert told(bench) == ["opened", "resolved"]
    assert [e.payload["stage"] for e in bench.entries("notify.sent")] == ["opened", "resolved"]
    assert bench.rooms["notify"].view() == {"threads": {}, "under_way": []}


def test_what_is_over_within_the_hold_is_not_told() -> None:
    bench = bench_of()
    bench.handle(Ended(begin(bench), bench.now + 1))
    bench.wait(600.0)
    assert told(bench) == []


def test_one_cause_is_one_message() -> None:
    bench = bench_of()
    for name in ("db", "web"):
        begin(bench, name)
        begin(bench, f"{name}.1", Severity.WARNING, "crashed")
    bench.wait(60.0)
    assert told(bench) == ["opened"]


def test_a_flapping_service_is_one_message_with_a_count() -> None:
    bench = bench_of()
    for _ in range(100):
        down = begin(bench)
        bench.wait(15.0)
        bench.handle(Ended(down, bench.now))
        bench.wait(21.0)
    bench.wait(600.0)
    assert told(bench) == ["opened", "resolved"]
    last = [a for a in bench.actions if isinstance(a, Tell)][-1]
    assert last.message.data["times"] == 100
    assert "failed 100 times" in last.message.text


def test_graver_is_told_to_who_knows_and_opens_for_who_did_not() -> None:
    routes = PLAIN + '[route.page]\ncommand = ["page"]\nseverity = "critical"\n'
    bench = bench_of(routes)
    begin(bench, severity=Severity.WARNING, kind="degraded")
    bench.wait(20.0)
    assert (told(bench), told(bench, "page")) == (["opened"], [])
    (held,) = bench.entries("notify.held")
    assert "for criticals" in held.payload["why"]
    begin(bench)
    bench.wait(5.0)
    assert (told(bench), told(bench, "page")) == (["opened", "graver"], ["opened"])


def test_repeated_and_handed_on_until_somebody_takes_it() -> None:
    routes = (
        '[route.ops]\ncommand = ["page"]\nrepeat = "10m"\nescalate_after = "15m"\n'
        'escalate_to = "boss"\n[route.boss]\ncommand = ["page"]\nonly_escalated = true\n'
    )
    bench = bench_of(routes)
    begin(bench)
    bench.wait(25 * 60.0)
    assert told(bench) == ["opened", "reminder", "reminder"]
    assert told(bench, "boss") == ["escalated"]
    bench.write("incidents.acknowledged", "web", {"number": 1, "by": "ann"})
    bench.wait(3600.0)
    assert len(told(bench)) == 3
    ids = [a.message.id for a in bench.actions if isinstance(a, Tell)]
    assert len(set(ids)) == len(ids)


def test_silenced_and_outside_of_its_hours() -> None:
    bench = bench_of()
    until = bench.now + 120.0
    bench.write("notify.silenced", "we*", {"until": until, "by": "ann", "why": "known"})
    begin(bench)
    bench.wait(100.0)
    assert told(bench) == []
    (held,) = bench.entries("notify.held")
    assert held.payload["why"] == "silenced by ann: known"
    bench.wait(30.0)
    assert told(bench) == ["opened"]
    # 1_000_000 is 13:46:40 UTC on a Monday.
    bench = bench_of(PLAIN + 'hours = "14:00-15:00"\ntimezone = "Etc/UTC"\n')
    begin(bench)
    bench.wait(790.0)
    assert told(bench) == []
    bench.wait(20.0)
    assert told(bench) == ["opened"]


def test_the_end_of_a_silence_is_told_at_once() -> None:
    bench = bench_of()
    bench.write("notify.silenced", "1", {"until": bench.now + 9999, "by": "ann", "why": ""})
    begin(bench)
    bench.wait(100.0)
    assert told(bench) == []
    bench.write("notify.silenced", "1", {"until": 0.0, "by": "ann", "why": ""})
    assert told(bench) == ["opened"]


def test_services_are_chosen_by_pattern() -> None:
    bench = bench_of(PLAIN + 'services = ["ma*"]\n')
    begin(bench, "web")
    begin(bench, "mail")
    bench.wait(30.0)
    (message,) = [a.message for a in bench.actions if isinstance(a, Tell)]
    assert message.data["incident"]["subject"] == "mail"


def test_a_route_is_not_told_of_itself() -> None:
    bench = bench_of(PLAIN + '[route.other]\ncommand = ["page"]\n')
    begin(bench, "route ops", Severity.WARNING, "unreached")
    bench.wait(30.0)
    assert (told(bench), told(bench, "other")) == ([], ["opened"])


def test_a_message_that_failed_is_journaled_and_not_begun_again() -> None:
    def fail(bench: Bench, action: Any) -> None:
        if isinstance(action, Tell):
            done = Told(action.route, action.message.id, "it answers 500", 40)
            bench.after(TAKEN_S, lambda: bench.dispatch(done))
        else:
            perform(bench, action)

    bench = bench_of(perform=fail)
    begin(bench)
    bench.wait(3600.0)
    (failed,) = bench.entries("notify.failed")
    assert failed.payload["error"] == "it answers 500"
    assert told(bench) == ["opened"]


def test_a_trial_is_sent_once() -> None:
    bench = bench_of()
    bench.write("notify.tested", "ops", {"id": "test-1", "by": "ann"})
    bench.wait(5.0)
    assert told(bench) == ["test"]
    (sent,) = bench.entries("notify.sent")
    assert (sent.payload["id"], sent.payload["number"]) == ("test-1", 0)
    bench.begin()
    bench.wait(60.0)
    assert told(bench) == ["test"]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "end", "wait", "die", "graver"]),
        st.sampled_from(["db", "web", "mail"]),
        st.floats(0.0, 100.0),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(EVENTS)
def test_each_is_told_once_over_any_death(events: list[tuple[str, str, float]]) -> None:
    """Whatever dies when: no message has two meanings, who was told of a failure is told of its
    end, and nobody is told of the end of what was not told."""
    bench = bench_of(PLAIN + 'settle = "5s"\nhold = "2s"\n')
    active: dict[str, Condition] = {}
    for what, subject, wait_s in events:
        if what == "begin" and subject not in active:
            active[subject] = begin(bench, subject)
        elif what == "end" and subject in active:
            bench.handle(Ended(active.pop(subject), bench.now))
        elif what == "die":
            restart(bench, active)
        bench.wait(wait_s)
    for condition in active.values():
        bench.handle(Ended(condition, bench.now))
    bench.wait(300.0)
    sent = bench.entries("notify.sent")
    ids = [e.payload["id"] for e in sent]
    assert len(set(ids)) == len(ids)
    open_ones = 0
    merged = len(bench.entries("incidents.merged"))
    for entry in sent:
        open_ones += 1 if entry.payload["stage"] == "opened" else -1
        assert open_ones >= 0, "the end of something was told that nobody was told of"
    assert open_ones <= merged, "the end of something was not told"
    assert bench.rooms["notify"].view() == {"threads": {}, "under_way": []}


def restart(bench: Bench, active: dict[str, Condition]) -> None:
    """Another observer begins; what is active is told by the bench, where detect is not."""
    bench.begin()
    bench.handle(ActiveNow(tuple(active.values())))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "tells nobody"),
        ('webhook = "host/x"', "expected a URL"),
        ('command = ["x"]\nescalate_after = "1m"', "need each other"),
        ('command = ["x"]\nescalate_after = "1m"\nescalate_to = "b"', "no such route"),
        ('email_to = ["a@b"]\nsmtp_user = "a"\nsmtp_password_file = "p"', "plaintext"),
        ('email_to = ["a@b"]\nsmtp = "mail"', "host:port"),
        ('command = ["x"]\ntimezone = "Mars/Base"', "time zone"),
        ('command = ["x"]\nhours = "8-18"', "form"),
    ],
)
def test_routes_that_lead_nowhere_are_refused(text: str, problem: str) -> None:
    found = config.check(f"[route.a]\n{text}\n", path="everup.toml", directory="/srv").problems
    assert any(problem in str(one) for one in found), [str(one) for one in found]


def test_the_url_of_a_webhook_is_not_shown() -> None:
    text = SERVICES + '[route.ops]\nwebhook = "https://hooks.example.org/services/T0/B0/secret"\n'
    found = config.load(text, path="everup.toml", directory="/srv")
    assert "secret" not in config.explain(found)
    assert 'webhook = "https://hooks.example.org/********"' in config.explain(found)
    assert "B0/secret" in config.explain(found, values=True)
