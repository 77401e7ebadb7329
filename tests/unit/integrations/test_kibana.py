"""Saved objects are whole, refer to what is there, and ask for fields that there are."""

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from everup.integrations.elasticsearch import templates
from everup.integrations.elasticsearch.edge.client import UnreachedError
from everup.integrations.kibana import boards, saved
from everup.integrations.kibana.config import Kibana
from everup.integrations.kibana.edge.setup import SetupError, client_of, recognise, remove, setup
from everup.integrations.kibana.shapes import Search, Visualization

IDS = [board.name for board in boards.DASHBOARDS]


def shown() -> list[Visualization | Search]:
    return [*boards.visualizations(), *boards.SEARCHES]


def test_names_are_unique() -> None:
    modern = [(each["type"], each["id"]) for each in saved.modern()]
    assert len(set(modern)) == len(modern) == len(saved.legacy()) == 36
    assert len({each.title for each in boards.DASHBOARDS}) == 5


@pytest.mark.parametrize("of", shown(), ids=lambda of: f"{type(of).__name__}-{of.name}")
def test_every_field_is_one_that_is_shipped(of: Visualization | Search) -> None:
    known = templates.fields(of.view)
    asked = re.findall(r"([a-z_.]+):", of.query)
    asked += of.columns if isinstance(of, Search) else [a.field for a in of.aggs if a.field]
    assert [field for field in asked if field not in known] == []
    if isinstance(of, Visualization):
        split = [agg.field for agg in of.aggs if agg.role == "split"]
        assert [field for field in split if known[field] == "text"] == []
        numbers = [agg for agg in of.aggs if agg.role == "metric" and agg.field]
        assert [a.field for a in numbers if known[a.field] not in ("long", "double")] == []


def test_what_is_referred_to_is_there_and_comes_first() -> None:
    there: set[tuple[str, str]] = set()
    for each in saved.modern():
        for reference in each["references"]:
            assert (reference["type"], reference["id"]) in there, each["id"]
        there.add((each["type"], each["id"]))
        attributes = each["attributes"]
        meta = attributes.get("kibanaSavedObjectMeta", {}).get("searchSourceJSON", "{}")
        names = {reference["name"] for reference in each["references"]}
        assert json.loads(meta).get("indexRefName") in {None, *names}
        for key in ("visState", "panelsJSON", "optionsJSON", "uiStateJSON", "fields"):
            json.loads(attributes.get(key, "{}"))
        for panel in json.loads(attributes.get("panelsJSON", "[]")):
            assert panel["panelRefName"] in names


def test_old_panels_are_there() -> None:
    documents = saved.legacy()
    there = {(each.type, each.name) for each in documents}
    for each in documents:
        for panel in json.loads(each.source.get("panelsJSON", "[]")):
            assert (panel["type"], panel["id"]) in there
        meta = each.source.get("kibanaSavedObjectMeta", {"searchSourceJSON": "{}"})
        index = json.loads(meta["searchSourceJSON"]).get("index")
        assert index is None or ("index-pattern", index) in there


@pytest.mark.parametrize("board", boards.DASHBOARDS, ids=IDS)
def test_panels_fill_the_width_and_do_not_overlap(board: Any) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board.panels:
        cells = {
            (column, row)
            for column in range(panel.column, panel.column + panel.width)
            for row in range(panel.row, panel.row + panel.height)
        }
        assert not cells & taken
        taken |= cells
    assert {column for column, _ in taken} == set(range(12))


def test_each_aggregation_has_a_number_and_counts_come_first() -> None:
    for vis in boards.visualizations():
        state = json.loads(
            next(e for e in saved.modern() if e["id"] == f"everup-{vis.name}")["attributes"][
                "visState"
            ]
        )
        assert [agg["id"] for agg in state["aggs"]] == [str(n + 1) for n in range(len(vis.aggs))]
        if vis.aggs:
            assert state["aggs"][0]["schema"] == "metric"


class Stub:
    """A Kibana that answers as it is told, and keeps what it was asked."""

    def __init__(self, status: Any, *answers: tuple[int, Any]) -> None:
        self.asked: list[bytes] = []
        self._answers = [(200, status), *answers]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                self.asked.append(head + body)
                status, answer = self._answers.pop(0) if self._answers else (200, {})
                data = json.dumps(answer).encode()
                line = f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n\r\n"
                writer.write(line.encode() + data)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def talked(stub: Stub, work: Any, **table: Any) -> list[str]:
    async def run() -> list[str]:
        server = await asyncio.start_server(stub.handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        table_of = Kibana(url=f"http://127.0.0.1:{port}", **table)
        client = client_of(table_of, lambda path: "secret", str.encode)
        try:
            return [line async for line in work(client)]
        finally:
            await client.close()
            server.close()

    return asyncio.run(run())


def status(number: str) -> Any:
    return {"name": "k", "version": {"number": number}, "status": {"overall": {}}}


def test_an_import_as_a_newer_kibana_takes_it() -> None:
    taken = {"success": False, "successCount": 35, "errors": [
        {"id": "everup-events", "type": "search", "error": {"type": "conflict"}}
    ]}  # fmt: skip
    stub = Stub(status("8.15.0"), (200, taken))
    said = talked(stub, lambda c: setup(c, overwrite=False), space="ops", user="u",
                  password_file="p")  # fmt: skip
    assert "is Kibana 8.15.0" in said[0]
    assert said[1].startswith("35 ")
    assert said[2].startswith("1 were there and are kept")
    asked = stub.asked[1]
    assert asked.startswith(b"POST /s/ops/api/saved_objects/_import?overwrite=false HTTP/1.1\r\n")
    assert b"kbn-xsrf: " in asked
    assert b"osd-xsrf: " in asked
    assert b"Authorization: Basic " in asked
    boundary = re.search(rb"boundary=(\S+)", asked)
    assert boundary is not None
    _, part, end = asked.partition(b"\r\n\r\n")[2].split(b"--" + boundary[1])
    headers, _, data = part.partition(b"\r\n\r\n")
    assert b'filename="everup.ndjson"' in headers
    assert end == b"--\r\n"
    assert [json.loads(line) for line in data.splitlines() if line] == saved.modern()


def test_opensearch_dashboards_and_what_is_removed() -> None:
    stub = Stub(status("2.19.6"), *[(404, {}), *[(200, {})] * 35])
    said = talked(stub, remove)
    assert said == [said[0], "35 of 36 objects removed"]
    assert "OpenSearch Dashboards 2.19.6" in said[0]
    assert stub.asked[1].startswith(b"DELETE /api/saved_objects/dashboard/everup-itself ")


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ([{"version": {"number": "8.1.0"}}], "no Kibana, or is not ready"),
        ([status("6.8.1")], "7.10 and later, is needed"),
        ([status("x")], "its version is 'x'"),
        ([status("8.1.0"), (403, {"message": "no rights"})], "_import: status 403: no rights"),
        (
            [status("8.1.0"), (200, {"errors": [{"id": "a", "error": {"type": "unsupported"}}]})],
            "it does not take None a",
        ),
    ],
)
def test_what_is_refused_is_said(answers: Sequence[Any], text: str) -> None:
    with pytest.raises(SetupError, match=re.escape(text)):
        talked(Stub(answers[0], *answers[1:]), lambda c: setup(c, overwrite=False))


def test_nobody_there() -> None:
    async def work() -> None:
        client = client_of(Kibana(url="http://127.0.0.1:1"), str, str.encode)
        try:
            with pytest.raises(UnreachedError, match="no connection"):
                await recognise(client)
        finally:
            await client.close()

    asyncio.run(work())


@pytest.mark.parametrize(
    "table",
    [
        {"url": "kibana:5601"},
        {"url": "http://u:p@k"},
        {"url": "http://k", "user": "u"},
        {"url": "http://k", "user": "u", "password_file": "f"},
        {"url": "http://k", "space": "A b"},
    ],
)
def test_tables_that_make_no_sense(table: Any) -> None:
    with pytest.raises(ValidationError):
        Kibana(**table)
