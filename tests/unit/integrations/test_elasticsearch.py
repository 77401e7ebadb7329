"""Bulk requests, documents, dialects and templates, without a server."""

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from everup.integrations.elasticsearch import bulk, names, server, templates
from everup.integrations.elasticsearch.bulk import Batch, Document, Fate, Verdict
from everup.integrations.elasticsearch.config import Elasticsearch

STORED, AGAIN = Verdict(Fate.STORED), Verdict(Fate.AGAIN, "429")
FAILED, REFUSED = Verdict(Fate.FAILED, "500"), Verdict(Fate.REFUSED, "no")


def document(number: int, size: int = 10) -> Document:
    return Document(b"{}", b"x" * size, str(number))


def batch(count: int, most_bytes: int = 1000) -> Batch:
    return Batch(deque(document(n) for n in range(count)), most_bytes)


def answer(*items: Any) -> bytes:
    return json.dumps({"errors": True, "items": [{"create": item} for item in items]}).encode()


@pytest.mark.parametrize(
    ("item", "fate"),
    [
        ({"status": 201}, Fate.STORED),
        ({"status": 200}, Fate.STORED),
        ({"status": 409, "error": {"type": "version_conflict_engine_exception"}}, Fate.STORED),
        ({"status": 429, "error": {"type": "es_rejected_execution_exception"}}, Fate.AGAIN),
        ({"status": 403, "error": {"type": "cluster_block_exception"}}, Fate.AGAIN),
        ({"status": 404, "error": {"type": "index_not_found_exception"}}, Fate.AGAIN),
        ({"status": 503, "error": {"type": "unavailable_shards_exception"}}, Fate.AGAIN),
        ({"status": 500, "error": {"type": "null_pointer_exception"}}, Fate.FAILED),
        ({"status": 400, "error": {"type": "mapper_parsing_exception"}}, Fate.REFUSED),
        ({"status": 400, "error": {"type": "index_closed_exception"}}, Fate.AGAIN),
        (
            {
                "status": 400,
                "error": {
                    "type": "illegal_argument_exception",
                    "reason": "no write index is defined for alias [logs]",
                },
            },
            Fate.AGAIN,
        ),
    ],
)
def test_what_an_item_means(item: Any, fate: Fate) -> None:
    (found,) = bulk.verdicts(answer(item), 1)
    assert found.fate is fate


def test_a_reason_names_what_it_came_from() -> None:
    error = {"type": "a", "reason": "b", "caused_by": {"type": "c", "reason": "d"}}
    (found,) = bulk.verdicts(answer({"status": 400, "error": error}), 1)
    assert found.reason == "a: b; c: d"


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"items": 1}', b'{"items": [1]}', b'{"items": [{}]}', b"<html>",
     b'{"items": [{"create": {"status": "x"}}]}', answer({"status": 201})],
)  # fmt: skip
def test_what_is_no_answer_for_two(data: bytes) -> None:
    with pytest.raises(bulk.AnswerError):
        bulk.verdicts(data, 2)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_are_refused(data: bytes) -> None:
    with pytest.raises(bulk.AnswerError):
        bulk.verdicts(data, 3)


def test_a_body() -> None:
    assert bulk.body([document(1, 1), document(2, 2)]) == b"{}\nx\n{}\nxx\n"


def test_only_what_was_not_taken_goes_again_in_its_order() -> None:
    it = batch(4)
    sent = it.next()
    it.answered(sent, [STORED, AGAIN, REFUSED, AGAIN])
    assert [d.label for d in it.next()] == ["1", "3"]
    assert [(r.document.label, r.reason) for r in it.refused] == [("2", "no")]
    assert it.says == "429"
    it.answered(it.next(), [STORED, STORED])
    assert (it.stored, it.says, it.next()) == (3, "", [])


def test_a_document_that_makes_the_server_fail_is_given_up() -> None:
    it = batch(2)
    it.answered(it.next(), [FAILED, STORED])
    tries = 1
    while it.waiting:
        it.answered(it.next(), [FAILED])
        tries += 1
    assert tries == 5
    assert [r.document.label for r in it.refused] == ["0"]


def test_a_request_has_the_size_it_may_have() -> None:
    it = Batch(deque([document(n, 96) for n in range(5)]), 300)
    assert [len(d.source) for d in it.next()] == [96, 96, 96]
    assert len(Batch(deque([document(0, 5000)]), 300).next()) == 1


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    limit=st.integers(20, 200),
    bad=st.sets(st.integers(0, 39)),
)
def test_each_document_is_stored_or_refused_once(
    sizes: Sequence[int], limit: int, bad: set[int]
) -> None:
    """A server that takes no request above a limit, nor one with something bad in it."""
    it = Batch(deque(document(n, size) for n, size in enumerate(sizes)), 1 << 20)
    expected = {n for n, size in enumerate(sizes) if size + 4 > limit or n in bad}
    for _ in range(9 * len(sizes) + 9):
        if not it.waiting:
            break
        sent = it.next()
        if sum(d.size for d in sent) > limit:
            it.too_large(sent, "413")
        elif any(int(d.label) in bad for d in sent):
            it.halve(sent, "400")
        else:
            it.answered(sent, [STORED] * len(sent))
    refused = {int(r.document.label) for r in it.refused}
    if len(expected) == len(sizes):  # not one is taken: that is no fault of theirs
        assert (refused, len(it.waiting), it.stored) == (set(), len(sizes), 0)
        assert it.says
    else:
        assert (refused, it.stored) == (expected, len(sizes) - len(expected))


def test_one_that_is_too_large_by_itself_is_given_up() -> None:
    it = Batch(deque([document(0, 300 << 10)]))
    it.too_large(it.next(), "413")
    assert [r.document.label for r in it.refused] == ["0"]


def root(number: str, **more: str) -> Any:
    return {"version": {"number": number, **more}}


def test_dialects() -> None:
    old, new = server.dialect(root("5.6.16")), server.dialect(root("8.19.21"))
    ours = server.dialect(root("2.19.6", distribution="opensearch"))
    assert (old.typed, old.composable) == (True, False)
    assert (new.typed, new.composable) == (False, True)
    assert (ours.typed, ours.composable, ours.name) == (False, True, "OpenSearch 2.19.6")
    assert old.create("i", "n") == b'{"create":{"_index":"i","_id":"n","_type":"doc"}}'
    assert json.loads(new.replace("i", "n", 7)) == {
        "index": {"_index": "i", "_id": "n", "version": 7, "version_type": "external_gte"}
    }


@pytest.mark.parametrize("said", [None, [], {}, {"version": 1}, root("x"), root("2.4.6")])
def test_who_is_no_search_server(said: Any) -> None:
    with pytest.raises(ValueError, match=r"neither Elasticsearch nor|too old"):
        server.dialect(said)


def test_what_a_refusal_says() -> None:
    body = b'{"error": {"type": "security_exception", "reason": "missing credentials"}}'
    said = server.refusal(401, body)
    assert "missing credentials" in said
    assert "password is wrong" in said
    assert server.refusal(502, b"<html>") == "status 502"


def test_templates_do_not_overlap_and_nothing_is_mapped_by_itself() -> None:
    for number, typed in (("5.6.16", True), ("6.8.0", True), ("7.17.0", False)):
        to = server.dialect(root(number))
        body = templates.events(to, "a", streams=False, policy=True)
        inner = body.get("template") if to.composable else body
        assert isinstance(inner, dict)
        mappings = inner["mappings"]["doc"] if typed else inner["mappings"]
        assert mappings["dynamic"] is False
        assert inner["settings"]["index.lifecycle.rollover_alias"] == names.events("a")
    to = server.dialect(root("8.19.0"))
    patterns = [
        templates.events(to, space, streams=streams, policy=True)["index_patterns"][0]
        for space in ("a", "ab")
        for streams in (True, False)
    ]
    assert patterns == [
        "logs-everup.events-a", "logs-everup.events-a-*",
        "logs-everup.events-ab", "logs-everup.events-ab-*",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "table",
    [
        {"urls": ["http://a:9200/"], "user": "u"},
        {"urls": ["http://a:9200"], "password_file": "f"},
        {"urls": ["https://a:9200"], "user": "u", "password_file": "f", "api_key_file": "k"},
        {"urls": ["https://b", "http://a:9200"], "user": "u", "password_file": "f"},
        {"urls": ["http://a:9200"], "ca_file": "f", "fingerprint": "ab" * 32},
        {"urls": ["http://u:p@a:9200"]},
        {"urls": ["ftp://a"]},
        {"urls": ["http://a:9200"], "fingerprint": "ab"},
        {"urls": ["http://a:9200"], "namespace": "A-b"},
        {"urls": ["http://a:9200"], "ship": ["everything"]},
        {"api_key_file": "k"},
    ],
)
def test_tables_that_make_no_sense(table: Any) -> None:
    with pytest.raises(ValidationError):
        Elasticsearch(**table)


@pytest.mark.parametrize(
    "more", [{"urls": ["http://127.0.0.1:9200", "http://[::1]:9200", "http://localhost"]},
             {"urls": ["http://a"], "unencrypted": True}, {"urls": ["https://a"]}],
)  # fmt: skip
def test_where_a_password_may_go(more: Any) -> None:
    assert Elasticsearch(**more, user="u", password_file="f").user == "u"
