"""Who gets in, by every way that there is: route x method x session."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from _console import FakeFeed, Served, incident, instance, served, service, status

OPEN = ("/", "/console.css", "/healthz/web")
READS = (
    "/api/me",
    "/api/stream",
    "/api/service/web",
    "/api/output/web",
    "/api/incident/1",
    "/api/events",
)
ACTS = ("/api/act", "/api/logout")
METHODS = ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "POST")
DO = {"command": "restart", "target": "web", "why": "a test"}


def run(work: Callable[[Served], Awaitable[None]], feed: FakeFeed | None = None) -> None:
    async def go() -> None:
        async with served(feed) as it:
            await work(it)

    asyncio.run(go())


def whole() -> FakeFeed:
    return FakeFeed(known=[incident()])


async def status_of(it: Served, method: str, path: str, headers: dict[str, str]) -> int:
    body: Any = {"json": DO} if method not in ("GET", "HEAD") else {}
    url = it.url + path
    async with it.http.request(method, url, headers=headers, **body) as answer:
        return answer.status


@pytest.mark.parametrize("secrets", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("path", [*OPEN, *READS, *ACTS])
def test_each_route_and_method(path: str, secrets: tuple[bool, bool]) -> None:
    """Without both secrets only the page itself and the answers for balancers are to be had, and
    nothing is done; with them, each route takes its own method alone."""

    async def work(it: Served) -> None:
        await it.sign_in()
        headers = it.headers(*secrets)
        signed_in = all(secrets)
        for method in METHODS:
            found = await status_of(it, method, path, headers)
            reads = method in ("GET", "HEAD")
            if path in OPEN:
                expected = {200} if reads else {405}
            elif not signed_in:
                expected = {401}
            elif path in READS:
                expected = {200} if reads else {405}
            else:
                expected = {200} if method == "POST" else {405}
            assert found in expected, (method, path, found)
        done = len(it.feed.acts())
        assert done == (1 if signed_in and path == "/api/act" else 0)

    run(work, whole())


def test_a_link_is_good_once_and_makes_a_cookie_that_no_page_reads() -> None:
    async def work(it: Served) -> None:
        it.feed.sessions.ticket("t", "ada", time.monotonic())
        async with it.http.post(f"{it.url}/api/login", json={"ticket": "t"}) as answer:
            assert answer.status == 200
            (cookie,) = answer.headers.getall("Set-Cookie")
            told = await answer.json()
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "Path=/" in cookie
        key = re.search(r"=([A-Za-z0-9_-]{43});", cookie)
        assert key is not None
        assert key[1] not in json.dumps(told)
        async with it.http.post(f"{it.url}/api/login", json={"ticket": "t"}) as answer:
            assert answer.status == 403
            assert "Set-Cookie" not in answer.headers

    run(work)


def test_a_session_that_somebody_brings_is_not_taken_up() -> None:
    async def work(it: Served) -> None:
        chosen = "A" * 43
        it.feed.sessions.ticket("t", "ada", time.monotonic())
        headers = {"Cookie": f"everup={chosen}"}
        url = f"{it.url}/api/login"
        async with it.http.post(url, json={"ticket": "t"}, headers=headers) as answer:
            assert answer.status == 200
            assert chosen not in answer.headers["Set-Cookie"]

    run(work)


def test_who_signs_out_is_out() -> None:
    async def work(it: Served) -> None:
        await it.sign_in()
        assert (await it.get("/api/me"))[0] == 200
        assert (await it.ask("POST", "/api/logout", json={}))[0] == 200
        assert (await it.get("/api/me"))[0] == 401

    run(work)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7077", 200),
        ("localhost", 200),
        ("[::1]:7077", 200),
        ("localhost:9999", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:7077", 421),
        ("127.0.0.1@evil.example", 421),
        ("10.0.0.1", 421),
        ("0.0.0.0:7077", 421),
        ("", 421),
    ],
)
def test_the_name_that_it_is_called_by(host: str, status: int) -> None:
    """A name of somebody else's that leads here (DNS rebinding) gets nothing, the page included."""

    async def work(it: Served) -> None:
        await it.sign_in()
        assert (await it.get("/", headers={"Host": host}))[0] == status
        assert (await it.get("/api/me", headers={"Host": host}))[0] == status

    run(work)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
)
def test_another_page_does_nothing_here(headers: dict[str, str]) -> None:
    """Not even with both secrets: a form or a script elsewhere has neither."""

    async def work(it: Served) -> None:
        await it.sign_in()
        found, _ = await it.ask("POST", "/api/act", data=json.dumps(DO), headers=headers)
        assert found in (403, 415)
        assert it.feed.acts() == []

    run(work)


def test_an_act_is_brought_with_the_secrets_of_who_asks() -> None:
    async def work(it: Served) -> None:
        await it.sign_in()
        more = {"user": "root", "session": "x", "token": "y", "by": "somebody"}
        assert (await it.ask("POST", "/api/act", json={**DO, **more}))[0] == 200
        (act,) = it.feed.acts()
        key = it.cookie.partition("=")[2]
        assert act == {**DO, "session": key, "token": it.token}
        found, said = await it.ask("POST", "/api/act", json={**DO, "why": ""})
        assert found == 409
        assert "reason" in said["error"]

    run(work)


def test_nobody_approves_what_they_have_not_read() -> None:
    known = incident()
    known.proposal = "restart web.1"

    async def work(it: Served) -> None:
        await it.sign_in()
        asked = {"command": "approve", "target": "db", "number": 1, "why": "yes"}
        for read in ({}, {"proposal": "scale web to 4"}, {"proposal": ""}, {"proposal": ["x"]}):
            assert (await it.ask("POST", "/api/act", json={**asked, **read}))[0] == 409
        other = {**asked, "number": 2, "proposal": "restart web.1"}
        assert (await it.ask("POST", "/api/act", json=other))[0] == 409
        assert it.feed.acts() == []
        good = {**asked, "proposal": "restart web.1"}
        assert (await it.ask("POST", "/api/act", json=good))[0] == 200
        assert len(it.feed.acts()) == 1

    run(work, FakeFeed(known=[known]))


def test_while_the_engine_is_replaced_one_may_look_and_not_act() -> None:
    async def work(it: Served) -> None:
        await it.sign_in()
        assert (await it.get("/api/me"))[0] == 200
        it.feed.away = True
        assert (await it.get("/api/me"))[0] == 200
        assert (await it.ask("POST", "/api/act", json=DO))[0] == 503
        assert (await it.get("/api/me", headers={"Everup-Token": "B" * 43}))[0] == 503

    run(work)


def test_who_guesses_does_not_keep_the_engine_busy() -> None:
    async def work(it: Served) -> None:
        await it.sign_in()
        assert (await it.get("/api/me"))[0] == 200
        found = []
        for number in range(100):
            headers = {"Everup-Token": f"{number:043d}"}
            found.append((await it.get("/api/me", headers=headers))[0])
        assert set(found) == {401, 429}
        assert len(it.feed.asked) < 30
        assert (await it.get("/api/me"))[0] == 200  # who is known goes on

    run(work)


def test_what_a_balancer_is_told() -> None:
    down = service("db", instance("db.1", "backoff", last_exit="exit 1"))
    feed = FakeFeed(now=status(service("web", instance("web.1")), down))

    async def work(it: Served) -> None:
        assert await it.get("/healthz/web", headers={"Host": "balancer.example"}) == (200, "ok\n")
        assert await it.get("/healthz/db") == (503, "down\n")
        assert (await it.get("/healthz/other"))[0] == 404
        looks = it.feed.looks
        for _ in range(50):
            await it.get("/healthz/web")
        assert it.feed.looks <= looks + 2

    run(work, feed)


def test_the_console_of_an_engine_that_is_away() -> None:
    async def work(it: Served) -> None:
        it.feed.away = True
        assert (await it.get("/healthz/web"))[0] == 503
        found, said = await it.ask("POST", "/api/login", json={"ticket": "t"})
        assert (found, said["hint"]) == (503, "again in a moment")

    run(work)


HEADERS = (
    "Content-Security-Policy",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "Referrer-Policy",
    "Cache-Control",
)


@pytest.mark.parametrize("path", ["/", "/api/me", "/no/such", "/api/no", "/healthz/web"])
def test_every_answer_has_the_headers(path: str) -> None:
    async def work(it: Served) -> None:
        async with it.http.get(it.url + path) as answer:
            assert [name for name in HEADERS if name not in answer.headers] == []
            policy = answer.headers["Content-Security-Policy"]
            assert "unsafe" not in policy
            assert policy.startswith("default-src 'none'")
            assert not re.search(r"https?:|\*", policy)

    run(work)
