"""What others bring: paths, bodies, connections, and text that would like to be more than text."""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from _console import (
    ESCAPES,
    SCRIPT,
    FakeFeed,
    Served,
    entry,
    incident,
    instance,
    served,
    service,
    status,
)
from aiohttp import http_exceptions
from hypothesis import given
from hypothesis import strategies as st

from everup.api import malformed
from everup.rooms import console
from everup.rooms.console.edge import bounded, pages, views
from everup.rooms.console.edge.bounded import Connections
from everup.rooms.console.edge.guard import is_here

STATIC = Path(console.__file__).parent / "static"
SECRET = "root:x:0:0"


def run(work: Any, feed: FakeFeed | None = None, connections: Connections | None = None) -> None:
    async def go() -> None:
        async with asyncio.timeout(30), served(feed, connections) as it:
            await work(it)

    asyncio.run(go())


async def raw(it: Served, request: bytes) -> bytes:
    """Send bytes as they are; give the answer's, up to where the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/....//....//etc/passwd",
        "/..\\..\\etc\\passwd",
        "//etc/passwd",
        "/console.css/../../config.py",
        "/console.css%00.html",
        "/static/console.css",
        "/__init__.py",
        "/.everup/journal.db",
        "/api/../console.css",
        "file:///etc/passwd",
        "http://elsewhere.example/etc/passwd",
    ],
)
def test_a_path_leads_nowhere_but_to_the_files_of_the_page(path: str) -> None:
    async def work(it: Served) -> None:
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        answer = await raw(it, head.encode())
        first = answer.split(b"\r\n", 1)[0]
        assert re.match(rb"HTTP/1\.[01] (400|401|403|404|421) ", first), answer[:300]
        assert SECRET.encode() not in answer
        assert b"Manifest" not in answer

    run(work)


def test_every_file_of_the_page_is_served_as_what_it_is_and_no_other() -> None:
    found = pages.read()
    assert sorted(found) == sorted(
        "/" if file.name == "index.html" else f"/{file.name}" for file in STATIC.iterdir()
    )

    async def work(it: Served) -> None:
        for path, page in found.items():
            async with it.http.get(it.url + path) as answer:
                assert answer.status == 200
                assert answer.headers["Content-Type"] == page.type
                assert await answer.read() == page.plain
                tag = {"If-None-Match": answer.headers["ETag"]}
            async with it.http.get(it.url + path, headers=tag) as again:
                assert (again.status, await again.read()) == (304, b"")

    run(work)


def test_the_page_is_light_and_brings_nothing_from_elsewhere() -> None:
    found = pages.read().values()
    assert sum(len(page.packed) for page in found) <= 100 << 10
    for page in found:
        text = page.plain.decode()
        links = re.findall(r"https?://[^\s\"'`)<]+", text)
        assert [x for x in links if not x.startswith("http://www.w3.org/")] == []
    index = pages.read()["/"].plain.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>|\son\w+=|<style|\sstyle=", index)


def test_no_script_makes_markup_of_a_text() -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
    )
    found = {f.name: re.findall(forbidden, f.read_text()) for f in STATIC.glob("*.js")}
    assert {name: hits for name, hits in found.items() if hits} == {}


def hostile() -> FakeFeed:
    evil = f"{SCRIPT}{ESCAPES}"
    bad = instance(
        "web.1", "backoff", reason=evil, last_exit=evil, status_text=evil,
        probes={evil: {"ok": False, "detail": evil, "latency_s": 1.0, "failures": 3}},
    )  # fmt: skip
    known = incident(sentence=evil)
    known.symptoms = [evil]
    known.acknowledged_by = evil
    return FakeFeed(
        now=status(
            service("web", bad, depends_on=[evil], addresses=[evil]), version=evil, config=evil
        ),
        past=[entry(1, "instance.exited", evil, cause=evil, text=evil, detail=[evil], by=evil)],
        known=[known],
        lines=[{"time_ns": 1, "slot": evil, "stream": evil, "text": f"\x1b[31m{evil}\x1b[0m"}],
        text=f'[service.web]\ncommand = ["{evil}"]',
        node=evil,
    )


@pytest.mark.parametrize(
    "path",
    [
        "/api/stream",
        "/api/service/web",
        "/api/output/web",
        "/api/incident/1",
        "/api/events",
        "/api/service/%3Cscript%3E%1b%5B2J",
        "/api/incident/%3Cscript%3E%1b",
        "/%3Cscript%3Ealert(1)%3C/script%3E",
        "/healthz/%3Cscript%3E",
    ],
)
def test_text_of_others_stays_text(path: str) -> None:
    """It comes as JSON, or as plain text that is everup's own, without anything that a terminal or
    a browser would obey; the page puts it into text nodes alone."""

    async def work(it: Served) -> None:
        await it.sign_in()
        async with it.http.get(it.url + path, headers=it.headers()) as answer:
            kind = answer.headers["Content-Type"].partition(";")[0]
            assert kind in ("application/json", "text/event-stream", "text/plain")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            text = (
                await answer.content.readuntil(b"\n") if "stream" in path else await answer.read()
            ).decode()
            if kind == "text/plain":
                assert "script" not in text
            found = text if kind == "text/plain" else json.loads(text.removeprefix("data: "))
        assert [
            c for c in _texts(found) if re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", c)
        ] == []

    run(work, hostile())


def _texts(value: Any) -> list[str]:
    match value:
        case str():
            return [value.rstrip("\n")]
        case dict():
            return [x for pair in value.items() for item in pair for x in _texts(item)]
        case list():
            return [x for item in value for x in _texts(item)]
        case _:
            return []


def test_a_body_that_is_too_large_or_no_object() -> None:
    async def work(it: Served) -> None:
        await it.sign_in()
        plain = {"Content-Type": "application/json"}
        for data, expected in (
            (b"x" * 9000, 413),
            (b"{", 400),
            (b"[]", 400),
            (b'"x"', 400),
            (b"[" * 5000, 400),
            (b"\xff\xfe", 400),
        ):
            found, said = await it.ask("POST", "/api/act", data=data, headers=plain)
            assert found == expected, data[:20]
            assert said["error"]
        assert it.feed.acts() == []

    run(work)


@pytest.mark.parametrize(
    "query",
    ["before=nan", "before=inf", "before=-1e400", "before=x", "kind=no", "before=9e99"],
)
def test_a_search_that_makes_no_sense_is_refused_in_words(query: str) -> None:
    async def work(it: Served) -> None:
        await it.sign_in()
        found, said = await it.get(f"/api/events?{query}")
        assert found == 400
        assert said["error"]

    run(work)


def test_headers_without_end() -> None:
    async def work(it: Served) -> None:
        many = b"".join(b"X-%d: y\r\n" % n for n in range(20_000))
        answer = await raw(it, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + many + b"\r\n")
        assert answer.startswith(b"HTTP/1.") is False or b" 400 " in answer[:20]
        assert (await it.get("/"))[0] == 200

    run(work)


def test_so_many_streams_and_no_more() -> None:
    async def work(it: Served) -> None:
        found = []
        async with contextlib.AsyncExitStack() as opened:
            for _ in range(views.MOST_STREAMS // views.MOST_OF_ONE + 1):
                await it.sign_in()
                for _ in range(views.MOST_OF_ONE + 1):
                    asked = it.http.get(f"{it.url}/api/stream", headers=it.headers())
                    found.append((await opened.enter_async_context(asked)).status)
            assert found.count(200) == views.MOST_STREAMS
            assert set(found) == {200, 429}
            assert it.hub.viewers == views.MOST_STREAMS
        while it.hub.viewers:
            await asyncio.sleep(0.01)
        async with it.http.get(f"{it.url}/api/stream", headers=it.headers()) as answer:
            assert answer.status == 200

    run(work)


def test_nobody_asks_the_engine_while_nobody_looks() -> None:
    async def work(it: Served) -> None:
        await it.sign_in()
        assert it.hub.viewers == 0
        async with it.http.get(f"{it.url}/api/stream", headers=it.headers()) as answer:
            assert json.loads((await answer.content.readuntil(b"\n"))[6:])["rows"]
            assert it.hub.viewers == 1
        before = it.feed.looks
        it.hub.wake()
        while it.hub.viewers:
            await asyncio.sleep(0.01)
        assert it.feed.looks <= before + 1

    run(work)


def test_more_connections_than_there_may_be() -> None:
    """Those that come too late are closed at once; who is there is served on, and when some have
    gone there is room again."""

    async def work(it: Served) -> None:
        assert (await it.get("/healthz/web"))[0] == 200  # one is taken by us
        streams = []
        for _ in range(19):
            streams.append(await asyncio.open_connection("127.0.0.1", it.port))
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        assert await reader.read() == b""
        writer.close()
        assert (await it.get("/healthz/web"))[0] == 200
        for _, other in streams:
            other.close()

    run(work, connections=Connections(most=20))


def test_a_connection_that_asks_for_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that says nothing, nor one that never comes to the end of its request."""
    monkeypatch.setattr(bounded, "_LOOK_S", 0.02)

    async def work(it: Served) -> None:
        silent = await asyncio.open_connection("127.0.0.1", it.port)
        slow = await asyncio.open_connection("127.0.0.1", it.port)
        slow[1].write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow:")
        for reader, writer in (silent, slow):
            assert b"200 OK" not in await reader.read()
            writer.close()

    run(work, connections=Connections(idle_s=0.1))


def test_a_stream_is_not_taken_for_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "_LOOK_S", 0.02)
    monkeypatch.setattr(views, "_BEAT_S", 0.05)

    async def work(it: Served) -> None:
        await it.sign_in()
        async with it.http.get(f"{it.url}/api/stream", headers=it.headers()) as answer:
            beats = 0
            while beats < 6:
                beats += (await answer.content.readuntil(b"\n")).startswith(b": alive")

    run(work, connections=Connections(idle_s=0.1))


def test_a_stream_ends_with_its_session() -> None:
    async def work(it: Served) -> None:
        await it.sign_in()
        async with it.http.get(f"{it.url}/api/stream", headers=it.headers()) as answer:
            await answer.content.readuntil(b"\n\n")
            assert (await it.ask("POST", "/api/logout", json={}))[0] == 200
            await it.hub.look()
            with contextlib.suppress(aiohttp.ClientError):
                await answer.content.read()
        while it.hub.viewers:
            await asyncio.sleep(0.01)

    run(work)


@given(st.text(max_size=40) | st.from_regex(r"[a-z0-9.:@\[\]/?#%-]{0,30}", fullmatch=True))
def test_a_name_is_this_machine_or_it_is_not(host: str) -> None:
    if is_here(host):
        assert re.fullmatch(r"(localhost|127(\.\d+){3}|\[[0-9a-fA-F:.%a-z]+\])(:\d*)?", host, re.I)


def test_what_is_no_request_is_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    name = "everup.console.test"
    logger = malformed.logger(name, "the console")
    assert malformed.logger(name) is logger
    for _ in range(5):
        logger.error("x", exc_info=http_exceptions.BadHttpMessage("\x1b[2J"))
    (told,) = caplog.messages
    assert told.startswith("everup: the console was sent what is no HTTP request")
    assert "\x1b" not in told


def test_an_observer_without_a_console_does_not_pay_for_one() -> None:
    code = (
        "import sys\n"
        "from everup import config, edges\n"
        "text = '[console]\\nlisten = \"127.0.0.1:7077\"' if sys.argv[1:] else ''\n"
        "edges.sources('observer')\n"
        "edges.prepare('observer', config.load(text, path='x', directory='/'))\n"
        "print('everup.rooms.console.edge.server' in sys.modules)\n"
    )
    for arguments, loaded in (((), "False"), (("on",), "True")):
        said = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        assert said.stdout.strip() == loaded
