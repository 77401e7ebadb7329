"""What etcd's gateway takes and gives: bodies as etcd 3.4 gives them, and anything else."""

import json
from base64 import b64encode
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.rooms.cluster import wire
from everup.rooms.cluster.lease import Item, Look, Renewed

HEADER = {"cluster_id": "14841639068965178418", "revision": "7", "raft_term": "3"}
_KEYS = st.sampled_from(
    ["header", "kvs", "key", "value", "result", "TTL", "ID", "error", "message", "events",
     "revision", "raft_term", "create_revision", "lease", "succeeded", "canceled"]
)  # fmt: skip
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


def _b64(text: str) -> str:
    return b64encode(text.encode()).decode()


def test_a_look_is_read_as_etcd_gives_it() -> None:
    kv = {"key": _b64("/e/x/owner/db"), "create_revision": "5", "mod_revision": "6",
          "version": "1", "value": _b64("n1"), "lease": "7587862094"}  # fmt: skip
    found = wire.look_of({"header": HEADER, "kvs": [kv], "count": "1"}, "/e/x/")
    assert found == Look(7, 3, {"owner/db": Item("n1", 5, 7587862094)})
    assert wire.look_of({"header": HEADER}, "/e/x/") == Look(7, 3, {})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, "header"),
        ({"header": HEADER, "kvs": {}}, "kvs"),
        ({"header": HEADER, "kvs": [{"key": "!"}]}, "base64"),
        ({"header": HEADER, "kvs": [{"key": _b64("/other")}]}, "not asked for"),
        ({"header": {"revision": "x"}}, "revision"),
        ({"header": {"revision": "9" * 40}}, "revision"),
        ([], "kvs"),
    ],
)
def test_a_look_that_is_none_is_refused(answer: Any, words: str) -> None:
    with pytest.raises(wire.MalformedError, match=words):
        wire.look_of(answer, "/e/x/")


def test_a_session_that_is_over_has_no_time_left() -> None:
    over = wire.renewed_of({"result": {"header": HEADER, "ID": "12"}})
    assert over == Renewed(0.0, 3)
    assert wire.renewed_of({"result": {"header": HEADER, "ID": "12", "TTL": "5"}}).ttl_s == 5.0


def test_a_range_ends_behind_all_that_begin_so() -> None:
    body = wire.look_body("/everup/a/")
    assert body == {"key": _b64("/everup/a/"), "range_end": _b64("/everup/a0")}


def test_a_watch_tells_what_has_changed_and_why_it_ends() -> None:
    told = {"result": {"header": HEADER, "events": [{"type": "DELETE"}]}}
    assert wire.told_of(json.dumps(told).encode()) == (7, True)
    assert wire.told_of(json.dumps({"result": {"header": HEADER}}).encode()) == (7, False)
    over = {"result": {"header": HEADER, "canceled": True, "compact_revision": "4"}}
    with pytest.raises(wire.MalformedError, match="compacted at 4"):
        wire.told_of(json.dumps(over).encode())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"error": "etcdserver: no leader", "code": 14}, "etcdserver: no leader"),
        ({"error": {"grpc_code": 16, "message": "invalid auth token"}}, "invalid auth token"),
        ({"message": "not found"}, "not found"),
        ([], ""),
    ],
)
def test_why_etcd_refuses_is_given_in_its_words(answer: Any, words: str) -> None:
    assert wire.words_of(answer) == words


@given(PLAIN)
def test_no_answer_whatever_breaks_the_reading(answer: Any) -> None:
    for read in (wire.renewed_of, wire.begun_of, wire.done_of, lambda a: wire.look_of(a, "/")):
        with suppress(wire.MalformedError):  # anything else fails the test
            read(answer)
    with suppress(wire.MalformedError):
        wire.told_of(json.dumps(answer).encode())
    assert isinstance(wire.words_of(answer), str)


@given(st.binary(max_size=200))
def test_no_line_of_a_watch_breaks_the_reading(line: bytes) -> None:
    try:
        revision, changed = wire.told_of(line)
    except wire.MalformedError:
        return
    assert isinstance(revision, int)
    assert isinstance(changed, bool)
