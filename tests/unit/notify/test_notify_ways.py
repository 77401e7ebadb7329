"""Messages leave the machine: real servers at the other end."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from everup.rooms.notify import edge
from everup.rooms.notify.actions import Message
from everup.rooms.notify.ways import LaterError, RefusedError, apprise, command, mail, webhook

MESSAGE = Message(
    "box-1-opened-ops",
    "[box] critical: db is down",
    "db is down.\n\nLook: everup incident 1",
    {"id": "box-1-opened-ops", "node": "box", "stage": "opened", "incident": {"number": 1}},
)


@asynccontextmanager
async def server(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        yield f"http://127.0.0.1:{port}/hook"
    finally:
        await runner.cleanup()


def answering(*answers: tuple[int, dict[str, str]]) -> tuple[Any, list[dict[str, Any]]]:
    """Answer so, the last for ever; what was asked is kept."""
    asked: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        asked.append({"headers": dict(request.headers), "body": body, "path": request.path})
        status, headers = answers[min(len(asked), len(answers)) - 1]
        return web.Response(status=status, headers=headers, text="said")

    return answer, asked


def test_a_webhook_gets_the_message_signed() -> None:
    answer, asked = answering((204, {}))

    async def go() -> None:
        async with server(answer) as url:
            await webhook.send(url, "secret", MESSAGE)

    asyncio.run(go())
    (found,) = asked
    body = json.loads(found["body"])
    assert (body["id"], body["title"]) == (MESSAGE.id, MESSAGE.title)
    headers = found["headers"]
    at = int(headers["X-Everup-Timestamp"])
    assert webhook.signature("secret", at, found["body"]).items() <= headers.items()


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (400, {}, RefusedError),
        (404, {}, RefusedError),
        (302, {"Location": "http://127.0.0.1:1/"}, RefusedError),
        (429, {"Retry-After": "7"}, LaterError),
        (500, {}, LaterError),
    ],
)
def test_what_a_webhook_may_answer(
    status: int, headers: dict[str, str], error: type[Exception]
) -> None:
    answer, asked = answering((status, headers))

    async def go() -> None:
        async with server(answer) as url:
            await webhook.send(url, None, MESSAGE)

    with pytest.raises(error, match=str(status)) as raised:
        asyncio.run(go())
    assert len(asked) == 1
    if status == 429:
        assert raised.value.retry_after_s == 7.0  # type: ignore[attr-defined]


def test_it_is_tried_again_when_the_other_side_wants_it() -> None:
    answer, asked = answering((429, {"Retry-After": "0"}), (503, {"Retry-After": "0"}), (200, {}))

    async def go() -> tuple[int, str]:
        async with server(answer) as url:
            return await edge._send(lambda message: webhook.send(url, None, message), MESSAGE)

    assert asyncio.run(go()) == (3, "")
    assert len({found["headers"]["X-Everup-Id"] for found in asked}) == 1


def test_a_refusal_is_not_tried_again() -> None:
    answer, asked = answering((401, {}))

    async def go() -> tuple[int, str]:
        async with server(answer) as url:
            return await edge._send(lambda message: webhook.send(url, None, message), MESSAGE)

    attempts, error = asyncio.run(go())
    assert (attempts, len(asked)) == (1, 1)
    assert "401" in error


def test_the_url_of_a_webhook_is_not_in_errors() -> None:
    for url in ("http://127.0.0.1:1/secret-path", "nonsense://secret-path", "http://"):
        with pytest.raises((LaterError, RefusedError)) as raised:
            asyncio.run(webhook.send(url, None, MESSAGE))
        assert "secret-path" not in str(raised.value)


def test_a_command_gets_the_message(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = f"import sys, pathlib; pathlib.Path({str(out)!r}).write_text(sys.stdin.read())"
    asyncio.run(command.send([sys.executable, "-c", script], MESSAGE))
    assert json.loads(out.read_text())["title"] == MESSAGE.title


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["sh", "-c", "echo no pager >&2; exit 3"], "ended with status 3: no pager"),
        (["sh", "-c", "kill -9 $$"], "signal 9"),
        (["/no/such/program"], "cannot be run"),
        (["true"], ""),
        (["sh", "-c", "yes 2>/dev/null | head -c 9000000 >&2; exit 4"], "ended with status 4"),
        (["sh", "-c", "test $(wc -c) -gt 100"], ""),
        (["sh", "-c", "sleep 1000 & exec cat >/dev/null"], ""),
    ],
)
def test_how_a_command_may_end(argv: list[str], error: str) -> None:
    async def go() -> str:
        try:
            await command.send(argv, MESSAGE)
        except LaterError as found:
            return str(found)
        return ""

    assert error in asyncio.run(go())
    assert bool(error) == bool(asyncio.run(go()))


class Postman:
    """Takes mail, or refuses it."""

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal
        self.mails: list[str] = []

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.refusal:
            return self.refusal
        self.mails.append(envelope.content.decode())
        return "250 OK"


def post(postman: Postman) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    controller = Controller(postman, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        to = ("ann@example.org", "bob@example.org")
        mail.send(f"127.0.0.1:{port}", "none", None, "everup@box", to, MESSAGE)
    finally:
        controller.stop()


def test_mail_is_sent_in_one_thread_for_each_incident() -> None:
    postman = Postman()
    post(postman)
    (found,) = postman.mails
    assert "Subject: [box] critical: db is down" in found
    assert f"Message-ID: <{MESSAGE.id}@box>" in found
    assert "In-Reply-To: <incident-box-1@box>" in found
    assert "To: ann@example.org, bob@example.org" in found
    assert "Look: everup incident 1" in found


@pytest.mark.parametrize(
    ("refusal", "error"),
    [("451 later", LaterError), ("554 never", RefusedError)],
)
def test_what_a_mail_server_may_answer(refusal: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=refusal):
        post(Postman(refusal))


@pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")
def test_apprise_tells_its_own_target() -> None:
    answer, asked = answering((200, {}))

    async def go() -> None:
        async with server(answer) as url:
            target = url.replace("http://", "json://")
            await apprise.send(f"# the pager\n{target}\n", MESSAGE)

    asyncio.run(go())
    (found,) = asked
    body = json.loads(found["body"])
    assert (body["title"], body["type"]) == (MESSAGE.title, "failure")


@pytest.mark.parametrize(
    ("urls", "error", "match"),
    [
        ("json://127.0.0.1:1/x\nnonsense\n", RefusedError, "line 2"),
        ("# nothing\n", RefusedError, "no URL"),
        ("json://127.0.0.1:1/x", LaterError, "not every"),
    ],
)
def test_apprise_that_does_not_work(urls: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        asyncio.run(apprise.send(urls, MESSAGE))
