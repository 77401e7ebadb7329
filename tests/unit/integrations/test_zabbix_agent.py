"""Questions as Zabbix asks an agent, and what is none."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_standing import CRASHED, instance, service
from test_standing import status as api_status

from everup.integrations.zabbix import agent, wire
from everup.integrations.zabbix.agent import Question, Unsupported
from everup.integrations.zabbix.status import told

WEB = service("web", instance("web.1", "backoff", **CRASHED), instance("web.2"))
DOCUMENT: dict[str, Any] = json.loads(told(0.0, "box", api_status(WEB), []).text)
NEW = b'{"request":"passive checks","data":[{"key":"agent.ping","timeout":"3s"}]}'


@pytest.mark.parametrize(
    ("data", "asked"),
    [
        (wire.message(b"agent.ping"), Question(("agent.ping",))),
        (wire.message(b"agent.ping\n"), Question(("agent.ping",))),
        (wire.message(b"agent.ping") + b"more", Question(("agent.ping",))),
        (b"agent.ping\n", Question(("agent.ping",))),
        (b"agent.ping\r\n", Question(("agent.ping",))),
        (wire.message(NEW), Question(("agent.ping",), json=True)),
    ],
)
def test_questions(data: bytes, asked: Question) -> None:
    assert agent.question(data) == asked
    for cut in range(data.index(b"ping")):
        assert agent.question(data[:cut]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"ZBXD\x01" + struct.pack("<II", 1 << 30, 0),
        b"ZBXD\x02" + bytes(8),
        wire.message(b"\xff"),
        wire.message(b"{"),
        wire.message(b"{}"),
        wire.message(b'{"request":"active checks","data":[]}'),
        wire.message(b'{"request":"passive checks","data":[{"key":1}]}'),
        wire.message(b'{"request":"passive checks","data":{"key":"a"}}'),
        wire.message(NEW.replace(b'"data":[', b'"data":[' + b'{"key":"a"},' * 64)),
        wire.message(b'{"a":' * 3000),
        b"x" * 3000,
        b"\xff\n",
    ],
)
def test_what_is_no_question(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        agent.question(data)


@given(st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(wire.message)), st.booleans())
def test_any_bytes_are_a_question_or_none(data: bytes, ended: bool) -> None:
    for start in (data, b"ZBXD\x01" + data, wire.message(b'{"request":"passive checks"' + data)):
        try:
            asked = agent.question(start, ended=ended)
        except wire.WireError:
            continue
        assert asked is not None or not ended
        for key in asked.keys if asked else ():
            assert isinstance(agent.value(key, "box", DOCUMENT), str | Unsupported)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("agent.ping", "1"),
        ("agent.version", "1"),
        ("agent.hostname", "box"),
        ("everup.services", "1"),
        ("everup.level", "0"),
        ("everup.service.ready[web]", "1.0"),
        ('everup.service.level["web"]', "1"),
        ("everup.instance.state[ web.1]", "backoff"),
        ("everup.services.discovery", '[{"{#SERVICE}": "web"}]'),
        ("everup.status", json.dumps(DOCUMENT)),
        ("everup.instance[web.2]", json.dumps(DOCUMENT["instances"][1])),
    ],
)
def test_values(key: str, value: str) -> None:
    assert agent.value(key, "box", DOCUMENT) == value


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "no key"),
        ("system.run[rm]", "everup knows no key system.run"),
        ("everup.services.nothing", "everup knows no key"),
        ("everup.service.ready", "one parameter: the name of the service"),
        ("everup.service.ready[a,b]", "one parameter"),
        ("everup.service.ready[other]", "everup keeps no service other"),
        ("everup.service.nothing[web]", "of a service there is: name, level"),
        ("everup.service.ready[web", "between [ and ]"),
        ('everup.service.ready["web]', "quotes or brackets"),
        ('everup.service.ready["web"x]', "quotes or brackets"),
    ],
)
def test_items_that_there_are_not(key: str, why: str) -> None:
    found = agent.value(key, "box", DOCUMENT)
    assert isinstance(found, Unsupported)
    assert why in found.why


@pytest.mark.parametrize(
    ("key", "parameters"),
    [
        ("k", ()),
        ("k[]", ("",)),
        ("k[a,b]", ("a", "b")),
        ("k[ a, ]", ("a", "")),
        (r'k["a,]\"b", c]', ('a,]"b', "c")),
        ('k[""]', ("",)),
    ],
)
def test_keys(key: str, parameters: tuple[str, ...]) -> None:
    assert agent.parse(key) == ("k", parameters)


def test_answers() -> None:
    values: list[str | Unsupported] = ["1", Unsupported("no")]
    (one, no) = (agent.message(Question(("a",)), [value], "1") for value in values)
    assert one[wire.HEADER_BYTES :] == b"1"
    assert no[wire.HEADER_BYTES :] == b"ZBX_NOTSUPPORTED\0no"
    both = agent.message(Question(("a", "b"), json=True), values, "7")[wire.HEADER_BYTES :]
    said = {"version": "7", "variant": 2, "data": [{"value": "1"}, {"error": "no"}]}
    assert json.loads(both) == said
