"""How services stand, from what the API says, and what is told of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.integrations.nagios.answers import objectives, services
from everup.integrations.standing import Level, Standing, of_all, of_everup
from everup.integrations.telling import WORSE_S, Teller, with_causes


def instance(slot: str, state: str = "ready", **settings: Any) -> dict[str, Any]:
    found = {
        "slot": slot,
        "state": state,
        "want": True,
        "done": False,
        "pid": 1,
        "restarts": 0,
        "reason": "",
        "doing": "",
        "last_exit": None,
        "usage": None,
        "probes": {},
    }
    return found | settings


def service(name: str, *instances: dict[str, Any], **settings: Any) -> dict[str, Any]:
    ready = sum(i["state"] == "ready" for i in instances)
    found = {"name": name, "type": "service", "replicas": len(instances), "ready": ready}
    return found | {"instances": list(instances)} | settings


def status(*found: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"version": "1", "journal_degraded": False, "services": list(found)} | settings


CRASHED = {"last_exit": "exit status 1"}


@pytest.mark.parametrize(
    ("found", "level", "text"),
    [
        (service("web", instance("web.1")), Level.OK, "web is ready (1 of 1)"),
        (
            service("web", instance("web.1"), instance("web.2", "backoff", **CRASHED)),
            Level.WARNING,
            "1 of 2 are ready; web.2 is backoff: exit status 1",
        ),
        (service("web", instance("web.1", "backoff", **CRASHED)), Level.CRITICAL, "does not serve"),
        (service("web", instance("web.1", "starting")), Level.WARNING, "does not serve"),
        (service("web", instance("web.1", "starting", **CRASHED)), Level.CRITICAL, "exit status"),
        (service("web", instance("web.1", "stopped", want=False)), Level.WARNING, "as asked"),
        (service("web"), Level.OK, "scaled to nothing"),
        (
            service("web", instance("web.1"), instance("web.2", "starting"), replicas=1),
            Level.OK,
            "1 of 2",
        ),
        (
            service("job", instance("job.1", "stopped", done=True), type="oneshot"),
            Level.OK,
            "done",
        ),
        (
            service("job", instance("job.1", "failed", **CRASHED), type="oneshot"),
            Level.CRITICAL,
            "1",
        ),
    ],
)
def test_how_a_service_stands(found: dict[str, Any], level: Level, text: str) -> None:
    [standing] = of_all(status(found))
    assert standing.level is level
    assert text in standing.text


def test_the_failing_probe_is_told() -> None:
    probes = {"readiness": {"ok": False, "detail": "503 Service Unavailable"}}
    [standing] = of_all(status(service("web", instance("web.1", "running", probes=probes))))
    assert "readiness probe: 503 Service Unavailable" in standing.text


def test_everup_itself() -> None:
    bad = service("web", instance("web.1", "parked", **CRASHED))
    found = status(bad, service("db", instance("db.1")))
    assert of_everup(found, of_all(found)).text == "everup 1: 1 of 2 services serve; not: web"
    degraded = status(journal_degraded=True, journal_degraded_reason="disk full")
    assert of_everup(degraded, ()).level is Level.WARNING


def test_answers() -> None:
    bad = service("web", instance("web.1", "parked", **CRASHED))
    found = status(bad, service("db", instance("db.1")))
    whole = services(found)
    assert whole.level is Level.CRITICAL
    assert whole.text.splitlines()[0].startswith("EVERUP CRITICAL - web does not serve: web.1 is")
    assert "| services=2 critical=1 web_ready=0 db_ready=1" in whole.text
    assert services(found, "db").level is Level.OK
    assert services(found, "nix").level is Level.UNKNOWN
    burning = {"kind": "slo.burning", "subject": "web", "burn_rate": 14.4, "urgency": "page"}
    calm = {"kind": "slo.calm", "subject": "web"}
    assert objectives([burning]).level is Level.CRITICAL
    assert objectives([burning, calm]).level is Level.OK
    assert objectives([burning | {"urgency": "ticket"}]).level is Level.WARNING
    assert objectives([burning], "db").level is Level.OK


def at(level: Level, text: str = "") -> list[Standing]:
    return [Standing("web", level, text)]


def test_what_is_worse_for_a_moment_is_not_told() -> None:
    teller = Teller()
    assert teller.step(0.0, at(Level.OK), beat=False)
    assert not teller.step(1.0, at(Level.CRITICAL), beat=False)
    assert teller.wait_s(1.0) == WORSE_S
    assert not teller.step(1.1, at(Level.OK), beat=False)
    assert teller.wait_s(1.1) is None


def test_what_stays_worse_is_told_once_and_better_at_once() -> None:
    teller = Teller()
    teller.step(0.0, at(Level.OK), beat=False)
    teller.step(1.0, at(Level.CRITICAL, "a"), beat=False)
    told = teller.step(1.0 + WORSE_S, at(Level.CRITICAL, "b"), beat=False)
    assert [(s.level, s.text) for s in told] == [(Level.CRITICAL, "b")]
    assert not teller.step(2.0, at(Level.CRITICAL, "b"), beat=False)
    assert teller.step(2.0, at(Level.CRITICAL, "b"), beat=True)
    assert teller.step(2.1, at(Level.OK), beat=False)


def test_a_beat_tells_what_was_told_while_worse_waits() -> None:
    teller = Teller()
    teller.step(0.0, at(Level.OK), beat=False)
    [told] = teller.step(0.1, at(Level.CRITICAL), beat=True)
    assert told.level is Level.OK


def test_causes_are_added_where_they_are_known() -> None:
    found = [Standing("web", Level.CRITICAL, "down", ("web.1", "web.2")), *at(Level.OK, "fine")]
    texts = [s.text for s in with_causes(found, {"web": "disk full"})]
    assert texts == ["down, because disk full", "fine"]


steps = st.lists(
    st.tuples(
        st.floats(0, 2),
        st.dictionaries(st.sampled_from("abc"), st.sampled_from(Level)),
        st.booleans(),
    ),
    max_size=20,
)


@given(steps)
def test_after_quiet_what_was_told_last_is_what_is(found: list[Any]) -> None:
    teller, now_s = Teller(), 0.0
    told: dict[str, Level] = {}
    end = found[-1][1] if found else {}
    for wait_s, levels, beat in [*found, (0.0, end, False), (WORSE_S, end, False)]:
        now_s += wait_s
        standings = [Standing(name, level, "") for name, level in levels.items()]
        for standing in teller.step(now_s, standings, beat=beat):
            told[standing.service] = standing.level
    assert {name: told[name] for name in end} == end
    assert teller.wait_s(now_s) is None
