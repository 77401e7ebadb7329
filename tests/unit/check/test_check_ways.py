"""Each kind of check against the real thing."""

import asyncio
import os
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from everup.rooms.check.config import Check
from everup.rooms.check.edge import look
from everup.rooms.check.facts import Checked


def result(**settings: Any) -> Checked:
    return asyncio.run(look(Check(name="it", **settings)))


async def serve(answer: web.Response, tls: ssl.SSLContext | None, settings: dict[str, Any]) -> Any:
    async def handle(_request: web.Request) -> web.StreamResponse:
        return answer

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    filled = {k: v.format(port=port) if isinstance(v, str) else v for k, v in settings.items()}
    try:
        return await look(Check(name="it", **filled))
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "body", "settings", "ok", "text"),
    [
        (200, "fine", {}, True, "it answers 200"),
        (302, "", {}, True, "302"),
        (500, "", {}, False, "it answers 500"),
        (404, "", {"status": "404"}, True, "404"),
        (200, "all is well", {"body": "w.ll"}, True, "200"),
        (200, "all is well", {"body": "ill"}, False, "does not match 'ill'"),
    ],
)
def test_http(status: int, body: str, settings: dict[str, Any], ok: bool, text: str) -> None:
    answer = web.Response(status=status, text=body)
    found = asyncio.run(serve(answer, None, {"http": "http://127.0.0.1:{port}/", **settings}))
    assert found.ok is ok
    assert text in found.text


@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.CA, str]:
    found = trustme.CA()
    path = tmp_path / "ca.pem"
    found.cert_pem.write_to_path(path)
    return found, str(path)


def context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(made)
    return made


@pytest.mark.parametrize("way", ["http", "tls"])
def test_certificates(authority: tuple[trustme.CA, str], way: str) -> None:
    issuer, path = authority
    there = {"http": "https://127.0.0.1:{port}/", "tls": "127.0.0.1:{port}"}[way]
    answer = web.Response(text="fine")
    tls = context(issuer, "127.0.0.1")
    well = asyncio.run(serve(answer, tls, {way: there, "ca": path, "certificate": 0.0}))
    assert well.ok is True
    assert "its certificate ends in" in well.text
    soon = {way: there, "ca": path, "certificate": 1e11}
    assert "its certificate ends in" in asyncio.run(serve(answer, tls, soon)).text
    assert asyncio.run(serve(answer, tls, soon)).ok is False
    unknown = asyncio.run(serve(answer, tls, {way: there}))
    assert unknown.ok is False
    assert "certificate is not valid" in unknown.text


def test_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert result(tcp=f"127.0.0.1:{port}").ok is True
    refused = result(tcp=f"127.0.0.1:{port}")
    assert (refused.ok, refused.text) == (False, "Connection refused")


def test_who_accepts_and_says_nothing_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = result(http=f"http://127.0.0.1:{port}/", timeout=0.1)
    assert (found.ok, found.text) == (False, "no answer within 0.1 s")


@pytest.mark.parametrize(
    ("status", "plugin", "ok"),
    [
        (0, False, True), (1, False, False), (3, False, False),
        (0, True, True), (1, True, True), (2, True, False), (3, True, None), (77, True, None),
    ],
)  # fmt: skip
def test_commands_and_plugins(status: int, plugin: bool, ok: bool | None) -> None:
    argv = ("sh", "-c", f"echo DISK CRITICAL - full; exit {status}")
    found = result(command=argv, plugin=plugin)
    assert found.ok is ok
    assert "DISK CRITICAL - full" in found.text or status == 0


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    assert "No such file" in result(file=str(path)).text
    path.write_text("x" * 100)
    assert result(file=str(path), max_age=60.0, min_size=100).ok is True
    assert "it has 100B" in result(file=str(path), min_size=101).text
    os.utime(path, (time.time() - 7200,) * 2)
    assert "2h ago" in result(file=str(path), max_age=3600.0).text


def test_processes() -> None:
    mark = f"everup-check-{os.getpid()}-mark"
    assert result(process=mark).ok is False
    argv = [sys.executable, "-S", "-c", "input()", mark]
    import subprocess

    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        found = result(process=mark)
        assert found.ok is True
        assert str(process.pid) in found.text
        assert process.stdin is not None
        process.stdin.close()
