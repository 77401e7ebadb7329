"""Problems of Zabbix as everup takes them, and acknowledgements on both sides."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_standing import instance, service
from test_standing import status as api_status

from everup.integrations.zabbix import problems
from everup.integrations.zabbix.problems import Problem, findings, ours, taken
from everup.integrations.zabbix.status import told
from everup.model.condition import Condition, Severity
from everup.model.incident import Incident

SERVICES = {"web", "db"}


def event(number: int = 1, **settings: Any) -> dict[str, Any]:
    found = {
        "eventid": str(number),
        "name": "disk slow",
        "severity": "4",
        "acknowledged": "0",
        "hosts": [{"hostid": "1", "host": "box"}],
        "tags": [],
        "acknowledges": [],
    }
    return found | settings


def tag(**tags: str) -> dict[str, Any]:
    return {"tags": [{"tag": name, "value": value} for name, value in tags.items()]}


def found(*events: dict[str, Any], least: int = 4) -> dict[str, str]:
    return findings(problems.read(events), SERVICES, "box", least)


@pytest.mark.parametrize(
    ("settings", "subject"),
    [
        ({}, "machine"),
        ({"hosts": [{"host": "other"}]}, "other"),
        ({"hosts": []}, "machine"),
        (tag(service="db"), "db"),
        (tag(service="unknown"), "machine"),
        (tag(service="db") | {"hosts": [{"host": "other"}]}, "db"),
    ],
)
def test_whose_it_is(settings: dict[str, Any], subject: str) -> None:
    assert found(event(**settings)) == {subject: "Zabbix says: disk slow (high)"}


@pytest.mark.parametrize(
    "settings",
    [{"severity": "3"}, tag(target="everup"), tag(everup="incident", service="db")],
)
def test_what_is_left_out(settings: dict[str, Any]) -> None:
    assert found(event(**settings)) == {}


def test_the_worst_is_named() -> None:
    rows = [event(1), event(2, severity="5", name="gone\n\x1b"), event(3)]
    assert found(*rows) == {"machine": "Zabbix says: gone\\n\\x1b (disaster), and 2 more"}


def test_another_shape() -> None:
    shapes: tuple[Any, ...] = ([{}], [1], [event(hosts=None, tags=1)], 1, [event(severity="x")])
    for shape in shapes:
        with pytest.raises(ValueError, match="events of another shape"):
            problems.read(shape)


@given(st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(
    st.sampled_from([*event(), "host", "tag", "value"]), x)))  # fmt: skip
def test_any_shape_is_read_or_refused(shape: Any) -> None:
    try:
        assert findings(problems.read(shape), SERVICES, "box", 0) is not None
    except ValueError as error:
        assert "another shape" in str(error)  # noqa: PT017


def incident(number: int, subject: str, **settings: Any) -> Incident:
    return Incident(number, subject, 1000.5, Severity.CRITICAL, f"{subject} is down", **settings)


def condition(subject: str, text: str, kind: str = "reported") -> Condition:
    return Condition(kind, subject, Severity.CRITICAL, text, 1000.0)


def holding(*conditions: Condition) -> Incident:
    made = incident(1, "db")
    made.active = {c.key: c for c in conditions}
    made.symptoms = [f"{c.subject} {c.text}" for c in conditions]
    return made


def test_what_an_observer_before_this_one_has_reported() -> None:
    mine = condition("db", "Zabbix says: disk slow (high)")
    others = condition("web", "Nagios says so"), condition("x", "Zabbix says: ", "down")
    assert ours([holding(mine, *others)]) == {"db"}
    over = holding(mine)
    over.resolved_at = 2000.0
    assert ours([over]) == set()


def test_what_zabbix_says_is_not_told_back() -> None:
    def incidents(one: Incident) -> list[int]:
        document = told(2000.0, "box", api_status(service("db", instance("db.1"))), [one]).text
        return [row["number"] for row in json.loads(document)["incidents"]]

    mine = condition("db", "Zabbix says: disk slow (high)")
    assert incidents(holding(mine)) == []
    assert incidents(holding(mine, condition("db", "has no replica", "down"))) == [1]
    quiet = holding(mine)
    quiet.active.clear()
    quiet.sentence = "db Zabbix says: disk slow (high)"
    assert incidents(quiet) == []
    assert incidents(incident(1, "db")) == [1]


def problem(by: str = "", at: int = 1001, **settings: Any) -> Problem:
    tags = {"everup": "incident", "service": "web"}
    defaults: dict[str, Any] = {"event": "7", "name": "", "severity": 4, "host": "box"}
    rest: dict[str, Any] = defaults | {"tags": tags} | settings
    return Problem(**rest, acknowledged_by=by, acknowledged_at=at)


def test_who_has_taken_on_what() -> None:
    mine, open_one = incident(1, "web", acknowledged_by="ann"), incident(2, "web")
    other = incident(3, "db")
    yes = taken([problem("bob")], [mine, open_one, other], SERVICES, "box")
    assert [(i.number, by) for i, by in yes.here] == [(2, "bob")]
    assert yes.there == ()
    not_all = taken([problem()], [mine, open_one], SERVICES, "box")
    assert (not_all.here, not_all.there) == ((), ())
    all_of_it = taken([problem()], [mine], SERVICES, "box")
    assert [(p.event, i.number) for p, i in all_of_it.there] == [("7", 1)]


@pytest.mark.parametrize(
    "settings",
    [
        {"at": 999},
        {"host": "other"},
        {"tags": {"service": "web"}},
        {"tags": {"everup": "incident"}},
    ],
)
def test_what_takes_on_nothing(settings: dict[str, Any]) -> None:
    """An incident that came later, another host's problem, another system's, the machine's."""
    assert taken([problem("bob", **settings)], [incident(1, "web")], SERVICES, "box").here == ()


def test_who_did_it_last() -> None:
    acknowledges = [
        {"action": "6", "clock": "5", "username": "ann"},
        {"action": "2", "clock": "9", "username": "bob\n"},
        {"action": "4", "clock": "10", "username": "eve"},
    ]
    (one,) = problems.read([event(acknowledged="1", acknowledges=acknowledges)])
    assert (one.acknowledged_by, one.acknowledged_at) == ("bob\\n", 9)
    (undone,) = problems.read([event(acknowledged="0", acknowledges=acknowledges)])
    assert undone.acknowledged_by == ""
