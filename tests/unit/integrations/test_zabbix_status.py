"""What Zabbix is told: one value with everything, in which an incident is one problem."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_standing import CRASHED, instance, service
from test_standing import status as api_status

from everup.config import check
from everup.integrations.zabbix.status import HOLD_S, MOST_BYTES, Told, silent, told
from everup.model.condition import Severity
from everup.model.display import shown_line
from everup.model.incident import Incident, Reason

NOW = 1_800_000_000.0
WEB = service("web", instance("web.1", "backoff", **CRASHED), instance("web.2"))
DB = service("db", instance("db.1", "backoff", **CRASHED))


def incident(
    number: int, subject: str, severity: Severity = Severity.CRITICAL, **settings: Any
) -> Incident:
    found: dict[str, Any] = {"since": NOW - 60, "sentence": f"{subject} does not serve"}
    return Incident(number, subject, severity=severity, **(found | settings))


def tell(*services: dict[str, Any], incidents: Sequence[Incident] = (), now: float = NOW) -> Told:
    return told(now, "box", api_status(*services), incidents)


def document(told: Told) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(told.text)
    return found


def problems(told: Told) -> Mapping[str, str]:
    """Every problem that the template would show, by who has it."""
    found = document(told)
    rows = [("everup", found["everup"]), *((s["name"], s) for s in found["services"])]
    return {
        f"{name} {grave}": row[grave]
        for name, row in rows
        for grave in ("critical", "warning")
        if row[grave]
    }


def test_an_incident_is_one_problem_where_it_began() -> None:
    hurt = incident(1, "db", sentence="db does not serve, because disk full")
    hurt.services.update({"db": None, "web": None})
    found = tell(WEB, DB, incidents=[hurt])
    assert problems(found) == {"db critical": "db does not serve, because disk full"}
    web, db = document(found)["services"]
    assert (web["level"], db["level"]) == (1, 2)
    assert document(found)["everup"]["incidents"] == 1


@pytest.mark.parametrize(
    ("subject", "reason", "whose"),
    [
        ("/var", None, "everup"),
        ("/var", Reason(1, "", root="web"), "web"),
        ("gone", None, "everup"),
        ("web", Reason(1, "", root="db"), "web"),
    ],
)
def test_whose_problem_it_is(subject: str, reason: Reason | None, whose: str) -> None:
    found = tell(WEB, DB, incidents=[incident(1, subject, reason=reason)])
    assert problems(found) == {f"{whose} critical": f"{subject} does not serve"}


def test_a_warning_waits_whether_it_becomes_graver() -> None:
    young = incident(1, "web", Severity.WARNING, since=NOW)
    found = tell(WEB, incidents=[young])
    assert (problems(found), found.again_s) == ({}, HOLD_S)
    later = tell(WEB, incidents=[young], now=NOW + HOLD_S)
    assert (list(problems(later)), later.again_s) == (["web warning"], None)
    assert later.essence != found.essence
    young.severity = Severity.CRITICAL
    assert list(problems(tell(WEB, incidents=[young]))) == ["web critical"]
    ahead = incident(1, "web", Severity.WARNING, since=NOW + 3600)  # the clock was set back
    assert list(problems(tell(WEB, incidents=[ahead]))) == ["web warning"]


def test_what_is_over_is_no_problem_and_the_gravest_comes_alone() -> None:
    over = incident(1, "web", resolved_at=NOW)
    low = incident(2, "web", Severity.WARNING, sentence="low")
    high = incident(3, "web", sentence="high")
    assert problems(tell(WEB, incidents=[over, low])) == {"web warning": "low"}
    assert problems(tell(WEB, incidents=[over, low, high])) == {"web critical": "high"}
    assert problems(tell(WEB, incidents=[over])) == {}


def test_numbers_alone_are_no_change() -> None:
    usage = {"cpu_percent": 12.34567, "rss_bytes": 4096}
    before = tell(service("web", instance("web.1")))
    after = tell(service("web", instance("web.1", usage=usage)))
    assert before.text != after.text
    assert before.essence == after.essence
    assert document(after)["instances"][0]["cpu_percent"] == 12.346
    assert tell(service("web", instance("web.1", restarts=1))).essence != before.essence


def test_names_for_discovery() -> None:
    found = document(tell(WEB, DB))["discovery"]
    assert found["services"] == [{"{#SERVICE}": "web"}, {"{#SERVICE}": "db"}]
    assert {"{#INSTANCE}": "web.2", "{#SERVICE}": "web"} in found["instances"]


def test_an_engine_that_does_not_answer_ends_no_problem() -> None:
    before = tell(WEB, DB, incidents=[incident(1, "db")])
    after = silent(before.text)
    assert problems(after) == problems(before)
    assert document(after)["everup"]["level"] == 3
    assert after.essence != before.essence
    assert silent(after.text) == after


def test_too_much_is_left_out_and_told() -> None:
    many = [instance(f"web.{n}") for n in range(20_000)]
    found = tell(service("web", *many))
    kept = document(found)
    assert len(found.text) <= MOST_BYTES
    assert len(kept["instances"]) + kept["instances_left_out"] == 20_000
    assert len(kept["instances"]) > 1000
    assert len(kept["discovery"]["instances"]) == len(kept["instances"])
    assert len(kept["services"]) == 1


@given(st.text(), st.text())
def test_texts_of_services_are_one_harmless_line(sentence: str, by: str) -> None:
    found = tell(WEB, incidents=[incident(1, "web", sentence=sentence, acknowledged_by=by)])
    text = document(found)["services"][0]["critical"]
    assert len(text) <= 500
    assert shown_line(text) == text
    found.text.encode("utf-8")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ('servers = ["http://zabbix/"]', "expected addresses, like"),
        ('servers = ["a;;b"]', "expected addresses, like"),
        ('servers = "a"', "a list of strings"),
        ('psk_identity = "box"', "psk_identity and psk_file need each other"),
        ('heartbeat = "2h"', "1s to 1h"),
        ('agent = "localhost:10050"', "expected an IP address with a port"),
        ('servers = ["a;b:70000"]', "port 70000: ports go from 1 to 65535"),
        ('agent = "127.0.0.1:70000"', "port 70000: ports go from 1 to 65535"),
        ('agent = "10050"', "expected an IP address with a port"),
        ('agent_allow = ["zabbix.example"]', "expected IP addresses or networks"),
        ('agent_allow = ["192.0.2.0/99"]', "'192.0.2.0/99' does not appear to be an IPv4 or IPv6"),
    ],
)
def test_a_table_that_is_not_valid(key: str, words: str) -> None:
    text = f'[service.web]\ncommand = ["true"]\n[zabbix]\n{key}\n'
    report = check(text, path="everup.toml", directory="/")
    (problem,) = report.problems
    assert words in str(problem)


def test_a_table_that_is_valid() -> None:
    servers = ["zabbix.example", "192.0.2.1:10051;[::1]:10052"]
    text = f'[service.web]\ncommand = ["true"]\n[zabbix]\nservers = {json.dumps(servers)}\n'
    spec: Any = check(text, path="everup.toml", directory="/").spec
    assert spec.zabbix.servers == tuple(servers)
