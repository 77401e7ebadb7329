"""What the page is given of services, incidents and entries."""

import json
from typing import Any

import pytest
from _console import NOW, entry, incident, instance, service, status
from hypothesis import given
from hypothesis import strategies as st

from everup.integrations.standing import of_all
from everup.rooms.console import shown
from everup.rooms.console.strips import Strip

STRIP = Strip("u" * 48, 0.0, 86400.0, None)
DOWN = instance("a.1", "backoff", last_exit="exit 1", retry_in_s=5.0)


def row(found: dict[str, Any]) -> dict[str, Any]:
    (standing,) = of_all(status(found))
    return shown.row(found, standing, STRIP, NOW)


@pytest.mark.parametrize(
    ("found", "state", "level"),
    [
        (service("a", instance("a.1")), "up", 0),
        (
            service("a", instance("a.1"), instance("a.2", "backoff", last_exit="exit 1")),
            "degraded",
            1,
        ),
        (service("a", DOWN), "down", 2),
        (service("a", instance("a.1", "parked", last_exit="exit 1")), "down", 2),
        (service("a", instance("a.1", "starting")), "starting", 1),
        (service("a", instance("a.1", "stopped", want=False)), "stopped", 1),
        (service("a", replicas=0), "none", 0),
        (service("a", instance("a.1", "stopped", done=True), type="oneshot"), "done", 0),
        (service("a", instance("a.1", "running"), type="oneshot"), "running", 0),
        (service("a", instance("a.1", "failed", last_exit="exit 1"), type="oneshot"), "down", 2),
    ],
)
def test_the_one_word_of_a_service(found: dict[str, Any], state: str, level: int) -> None:
    it = row(found)
    assert (it["state"], it["level"]) == (state, level)


def test_what_everup_does_about_it() -> None:
    assert row(service("a", DOWN))["next"] == {"what": "backoff", "slot": "a.1", "at": NOW + 5}
    assert row(service("a", DOWN))["why"] == "exit 1"
    assert row(service("a", instance("a.1")))["next"] is None
    assert row(service("a", instance("a.1"), rollout={"how": "restart"}))["next"] == {
        "what": "rollout"
    }


def test_since_when() -> None:
    found = service("a", instance("a.1"), instance("a.2", since_s=7200.0))
    assert row(found)["since"] == NOW - 7200
    (standing,) = of_all(status(found))
    strip = Strip("u" * 48, 0.0, 1.0, NOW - 10)
    assert shown.row(found, standing, strip, NOW)["since"] == NOW - 10


def test_an_incident_has_its_cause_evidence_and_runner_up() -> None:
    found = shown.incident(incident())
    assert found["cause"] == {
        "kind": "disk_full", "says": "the disk is full", "confidence": 0.9, "path": ["web", "db"],
    }  # fmt: skip
    assert found["evidence"] == ["output: No space left on device"]
    assert (found["then"], found["runner_up"]) == (["df -h"], "exit code 1 (30%)")
    assert found["resolved"] is None


def test_words_and_tone_of_an_entry() -> None:
    found = shown.entry(
        entry(1, "instance.backoff", "a.1", reason="exit 1", delay_s=1.23456, pid=7)
    )
    assert (found["words"], found["tone"]) == ("exit 1 · in 1.23 s · pid 7", "warning")
    for seconds, text in (
        (0.5, "0.5 s"),
        (61, "1 min 1 s"),
        (1100.4, "18 min 20 s"),
        (7260, "2 h 1 min"),
    ):
        assert shown.words({"after_s": seconds}) == f"after {text}"
    assert shown.words({"after_s": "not a number", "pid": True}) == "after not a number · pid True"
    assert shown.entry(entry(1, "instance.exited", "a.1", cause="exit 0"))["tone"] == "note"
    assert shown.entry(entry(1, "incidents.opened", "a"))["tone"] == "bad"
    assert shown.entry(entry(1, "never.heard", "a"))["tone"] == "note"


CONFIG = """[everup]
state_dir = ".everup"

[service.web]
command = ["a"]

[service.web.probe]

[service.web-2]
command = ["secret of another"]

[service.webs.environment]
X = "********"

[console]
"""


def test_the_config_of_one_service_is_that_of_no_other() -> None:
    assert shown.config_of(CONFIG, "web").split("\n") == [
        "[service.web]", 'command = ["a"]', "", "[service.web.probe]",
    ]  # fmt: skip
    assert shown.config_of(CONFIG, "we") == ""


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_clean_is_harmless_and_stays_so(value: Any) -> None:
    found = shown.clean(value)
    assert shown.clean(found) == found
    text = json.dumps(found, ensure_ascii=False)
    text.encode()  # no half of a pair
    assert not set(text) & {chr(n) for n in (*range(9), *range(14, 32), 127, 0x202E, 0x9B)}


def test_a_text_without_end_is_cut() -> None:
    assert len(shown.clean("x" * 100_000)) < 3000
