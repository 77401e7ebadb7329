"""Documents of entries and incidents, and the place up to which all is acknowledged."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.integrations._shipping import documents
from everup.integrations._shipping.cursor import Cursor
from everup.integrations._shipping.following import follow
from everup.integrations._shipping.telling import GRACE_S, Health
from everup.model.condition import Severity
from everup.model.incident import Incident, Reason
from everup.model.journal import Entry
from everup.observer.feed import Feed


def entry(kind: str = "instance.exited", subject: str = "web.1", **payload: Any) -> Entry:
    return Entry(7, 1.5, 2.5, "", kind, subject, payload)


def test_the_document_of_an_exit() -> None:
    told = entry(run=3, pid=12, cause="exit 1", exit_kind="code", value=1, up_s=0.5, odd={"a": 1})
    found = documents.of_entry(told, "box", "default")
    assert found["@timestamp"] == "1970-01-01T00:00:01.500000Z"
    assert found["event"] | {"id": ""} == {
        "kind": "event", "module": "everup", "dataset": "everup.events",
        "action": "instance.exited", "sequence": 7, "id": "", "reason": "exit 1",
        "duration": 500_000_000, "outcome": "failure",
    }  # fmt: skip
    assert found["service"] == {"name": "web", "node": {"name": "web.1"}}
    assert found["process"] == {"pid": 12, "exit_code": 1}
    assert found["message"] == "web.1 exited: exit 1"
    assert found["log"] == {"level": "error"}
    assert found["everup"]["run"] == 3
    assert found["everup"]["payload"]["odd"] == {"a": 1}


@pytest.mark.parametrize(
    ("subject", "service"),
    [
        ("web", {"name": "web"}),
        ("web.2", {"name": "web", "node": {"name": "web.2"}}),
        ("everup", None),
        ("machine", None),
        ("/var", None),
        ("", None),
    ],
)
def test_of_which_service_a_subject_is(subject: str, service: Any) -> None:
    assert documents.of_entry(entry(subject=subject), "box", "d").get("service") == service


def test_ids_differ_by_what_is_told_and_are_the_same_again() -> None:
    told = entry(run=1)
    assert documents.entry_id(told, "box") == documents.entry_id(told, "box")
    others = [told._replace(seq=8), told._replace(time=1.6), told._replace(kind="x")]
    ids = {documents.entry_id(each, "box") for each in (told, *others)}
    ids |= {documents.entry_id(told, "other")}
    assert len(ids) == 5
    assert {len(each) for each in ids} == {22}


def test_words_of_the_entry_come_first() -> None:
    told = entry("detect.began", "web", condition="down", text="nobody serves", severity="critical")
    found = documents.of_entry(told, "box", "d")
    assert found["message"] == "web: nobody serves"
    assert found["log"]["level"] == "error"
    assert found["everup"]["condition"] == "down"


def test_a_value_of_another_type_is_not_searched_for_but_kept() -> None:
    found = documents.of_entry(entry(run="3", up_s="long", severity=4, pid="x"), "box", "d")
    assert {"run", "up_s", "severity"}.isdisjoint(found["everup"])
    assert "process" not in found
    assert found["everup"]["payload"]["run"] == "3"


TEXT = st.text(st.sampled_from('aé\n\x00\ud800\u2028"\\'), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXT | st.sampled_from(["run", "up_s"]), values))
def test_any_payload_gives_a_line_of_json(payload: dict[str, Any]) -> None:
    line = documents.encode(documents.of_entry(entry()._replace(payload=payload), "b", "d"))
    assert b"\n" not in line

    def refuse(name: str) -> float:
        raise AssertionError(name)

    found = json.loads(line, parse_constant=refuse)
    assert found["event"]["sequence"] == 7


def test_what_no_reader_takes_is_replaced() -> None:
    line = documents.encode({"a": math.nan, "b": ["x\ud800", math.inf]})
    assert json.loads(line) == {"a": "nan", "b": ["x?", "inf"]}


def test_the_document_of_an_incident() -> None:
    incident = Incident(3, "db", 10.0, Severity.CRITICAL, "db is down, because the disk is full")
    incident.services |= {"db": None, "web": None}
    incident.reason = Reason(3, "s", "disk_full", "the disk is full", 0.9, "db", ("web", "db"))
    first = documents.of_incident(incident, "box", "d")
    assert first["event"]["reason"] == "the disk is full"
    assert first["everup"]["incident"]["services"] == ["db", "web"]
    assert first["message"] == "db is down, because the disk is full"
    assert "end" not in first["event"]
    incident.resolved_at, incident.state = 12.5, "resolved"
    last = documents.of_incident(incident, "box", "d")
    assert last["event"]["id"] == first["event"]["id"]
    assert last["event"]["duration"] == 2_500_000_000
    assert last["everup"]["incident"]["state"] == "resolved"


def test_a_cursor(tmp_path: Path) -> None:
    cursor = Cursor(tmp_path)
    assert cursor.read() == 0
    cursor.write(5)
    assert Cursor(tmp_path).read() == 5
    for damage in ("", "{", "[]", '{"acknowledged": -1}', '{"acknowledged": true}', "\x00"):
        (tmp_path / "cursor").write_text(damage)
        assert cursor.read() == 0


class Journal:
    """A feed whose journal has ``last`` entries."""

    def __init__(self, last: int, fails: int = 0) -> None:
        self.last = last
        self.fails = fails

    async def status(self) -> Mapping[str, Any]:
        self.fails -= 1
        if self.fails >= 0:
            raise OSError
        return {"last_seq": self.last}

    async def entries(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        yield [entry()._replace(seq=seq) for seq in range(after + 1, self.last + 1)]


@pytest.mark.parametrize(
    ("acknowledged", "last", "first"), [(0, 3, 1), (2, 3, 3), (9, 3, 1)], ids=["new", "on", "lost"]
)
def test_where_shipping_begins(tmp_path: Path, acknowledged: int, last: int, first: int) -> None:
    """A journal that ends before what was acknowledged is another one."""
    cursor = Cursor(tmp_path)
    if acknowledged:
        cursor.write(acknowledged)

    async def work() -> int:
        feed = cast(Feed, Journal(last))
        return (await anext(follow(feed, cursor)))[0].seq

    assert asyncio.run(work()) == first


class Reports:
    def __init__(self) -> None:
        self.told: list[tuple[str, bool]] = []

    def report(self, kind: str, subject: str, ok: bool, text: str) -> None:
        assert (kind, subject) == ("unreached", "logstash")
        self.told.append((text, ok))


def test_each_change_is_told_once_and_a_short_one_not_at_all() -> None:
    now = [0.0]
    feed = Reports()
    health = Health(cast(Feed, feed), "logstash", lambda: now[0])
    health.failed("a")
    now[0] = GRACE_S / 2
    health.worked()
    health.worked()
    health.failed("b")
    now[0] += GRACE_S
    health.failed("c")
    health.failed("d")
    health.worked()
    assert feed.told == [
        ("it takes what it is sent", True), ("c", False), ("it takes what it is sent", True)
    ]  # fmt: skip
