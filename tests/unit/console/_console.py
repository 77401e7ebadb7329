"""A feed without an engine, and a console that serves it on a real socket."""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from everup.model.condition import Severity
from everup.model.incident import Incident, Reason
from everup.model.journal import Entry
from everup.rooms.console.config import Console
from everup.rooms.console.edge.bounded import Connections
from everup.rooms.console.edge.guard import HEADER
from everup.rooms.console.edge.hub import Hub
from everup.rooms.console.edge.server import application
from everup.rooms.console.sessions import Sessions

NOW = 1_800_000_000.0
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
ESCAPES = "\x1b[2J\x07\u202e"


def instance(slot: str, state: str = "ready", **more: Any) -> dict[str, Any]:
    """Give an instance as ``GET /v1/status`` does."""
    found = {
        "slot": slot,
        "state": state,
        "since_s": 60.0,
        "want": True,
        "done": False,
        "pid": 4711,
        "run": 1,
        "restarts": 0,
        "reason": "",
        "doing": "",
        "status_text": "",
        "last_exit": None,
        "usage": {"cpu_percent": 1.5, "rss_bytes": 1 << 20, "fds": 9},
        "probes": {},
    }
    return found | more


def service(name: str, *instances: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Give a service as ``GET /v1/status`` does."""
    found: dict[str, Any] = {
        "name": name,
        "type": "service",
        "replicas": len(instances),
        "ready": sum(i["state"] == "ready" for i in instances),
        "addresses": ["127.0.0.1:8080"],
        "depends_on": [],
        "instances": list(instances),
        "outgoing": [],
        "rollout": None,
    }
    return found | more


def status(*services: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Give all of ``GET /v1/status`` that is asked for."""
    found: dict[str, Any] = {
        "version": "1",
        "config": "/etc/everup/everup.toml",
        "stopping": False,
        "journal_degraded": False,
        "journal_degraded_reason": None,
        "last_seq": 10,
        "machine": {"cpus": 2},
        "services": list(services),
    }
    return found | more


def entry(seq: int, kind: str, subject: str, at: float = NOW, **payload: Any) -> Entry:
    return Entry(seq, at, at - NOW + 1e6, "", kind, subject, payload)


def incident(number: int = 1, sentence: str = "db.1 is parked") -> Incident:
    found = Incident(number, "db", NOW - 60, Severity.CRITICAL, sentence)
    found.services = {"db": None, "web": None}
    found.reason = Reason(
        number, sentence, "disk_full", "the disk is full", 0.9, "db", ("web", "db"),
        ("output: No space left on device",), ("df -h",), "exit code 1 (30%)",
    )  # fmt: skip
    return found


@dataclass
class FakeFeed:
    """All that the console reads and asks for, in memory. ``away``: there is no engine."""

    now: dict[str, Any] = field(default_factory=lambda: status(service("web", instance("web.1"))))
    past: list[Entry] = field(default_factory=list)
    known: list[Incident] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    text: str = '[service.web]\ncommand = ["true"]'
    away: bool = False
    node: str = "box"
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    sessions: Sessions = field(default_factory=Sessions)
    looks: int = 0

    def table(self, key: str) -> Any:
        return Console(listen="127.0.0.1:7077")

    def folder(self, name: str) -> Path:
        raise AssertionError("the console keeps nothing")

    def config(self) -> str:
        return self.text

    async def entries(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        await asyncio.Event().wait()
        yield []

    async def status(self) -> Mapping[str, Any]:
        self.looks += 1
        if self.away:
            raise OSError("away")
        return self.now

    async def select(self, query: Sequence[tuple[str, str]]) -> Sequence[Entry]:
        if self.away:
            raise OSError("away")
        if ("kind", "no.*") in query:
            raise ValueError("there is no kind of event 'no.*'")
        return self.past

    async def output(self, subject: str, most: int) -> Sequence[Mapping[str, Any]]:
        return self.lines

    def incidents(self) -> Sequence[Incident]:
        return self.known

    def report(self, kind: str, subject: str, ok: bool, text: str) -> None:
        self.asked.append(("report", {"ok": ok, "text": text}))

    async def console(self, what: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """As the engine does, by the same sessions."""
        self.asked.append((what, dict(body)))
        if self.away:
            raise OSError("away")
        now = time.monotonic()
        if what == "redeem":
            key, token = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
            if self.sessions.redeem(body["ticket"], key, token, now) is None:
                raise PermissionError("this link was used, or is too old")
            return {"session": key, "token": token, "user": "ada", "left_s": 3600.0}
        if self.sessions.find(body["session"], body["token"], now) is None:
            raise PermissionError("there is no such session, or no longer")
        if what == "close":
            self.sessions.close(body["session"], body["token"], now)
        if what == "act" and not body.get("why"):
            raise ValueError("why: expected a reason")
        return {"user": "ada", "left_s": 3600.0}

    def acts(self) -> list[dict[str, Any]]:
        return [body for what, body in self.asked if what == "act"]


@dataclass
class Served:
    """A console that is served, and a browser of sorts."""

    feed: FakeFeed
    hub: Hub
    port: int
    http: aiohttp.ClientSession
    cookie: str = ""
    token: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def sign_in(self) -> None:
        self.feed.sessions.ticket("t", "ada", time.monotonic())
        async with self.http.post(f"{self.url}/api/login", json={"ticket": "t"}) as answer:
            assert answer.status == 200, await answer.text()
            self.token = (await answer.json())["token"]
            self.cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def headers(self, cookie: bool = True, token: bool = True) -> dict[str, str]:
        out = {}
        if cookie and self.cookie:
            out["Cookie"] = self.cookie
        if token and self.token:
            out[HEADER] = self.token
        return out

    async def get(self, path: str, **more: Any) -> tuple[int, Any]:
        return await self.ask("GET", path, **more)

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        headers = {**self.headers(), **more.pop("headers", {})}
        async with self.http.request(method, self.url + path, headers=headers, **more) as answer:
            text = await answer.text()
            is_json = answer.content_type == "application/json"
            return answer.status, (await answer.json()) if is_json else text


@contextlib.asynccontextmanager
async def served(
    feed: FakeFeed | None = None, connections: Connections | None = None
) -> AsyncIterator[Served]:
    """Serve a console on a port of this machine."""
    feed = feed or FakeFeed()
    hub, bounds = Hub(feed), connections or Connections()  # type: ignore[arg-type]
    app = application(feed, hub, "127.0.0.1:7077", bounds)  # type: ignore[arg-type]
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    jar = aiohttp.DummyCookieJar()
    async with bounds.serve(runner, sock), aiohttp.ClientSession(cookie_jar=jar) as http:
        working = asyncio.create_task(hub.run())
        try:
            yield Served(feed, hub, sock.getsockname()[1], http)
        finally:
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
