"""What answers on the port is no search server, or one that misbehaves: each is said in words."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from everup.integrations.elasticsearch.config import Elasticsearch
from everup.integrations.elasticsearch.edge.client import Client, UnreachedError
from everup.integrations.elasticsearch.edge.setup import SetupError, recognise

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n"


def answering(data: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        writer.close()

    return handle


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD % b"200 OK" + b"Content-Length: 1073741824\r\n\r\n")
    try:
        while True:
            writer.write(b" " * 65536)
            await writer.drain()
    except ConnectionError:
        writer.close()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


def whole(status: bytes, body: bytes, more: bytes = b"") -> bytes:
    return HEAD % status + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (endless, "longer than 16 MiB"),
        (silent, "no answer in time"),
        (answering(b""), "closed the connection instead"),
        (answering(b"SSH-2.0-OpenSSH_9.2\r\n"), "SSH-2.0"),
        (answering(HEAD % b"200 OK" + b'Content-Length: 99\r\n\r\n{"ver'), "ended early"),
        (answering(whole(b"200 OK", b"<html>")), "neither Elasticsearch nor OpenSearch"),
        (answering(whole(b"200 OK", b'{"version": {"number": "7"}}')), "neither Elasticsearch"),
        (
            answering(whole(b"302 Found", b"", b"Location: http://127.0.0.1:1/\r\n")),
            "sends us elsewhere",
        ),
        (answering(whole(b"503 Slow Down", b"no")), "status 503"),
    ],
    ids=["endless", "silent", "closed", "ssh", "half", "html", "other", "elsewhere", "busy"],
)
def test_who_answers_is_said(handler: Handler, text: str) -> None:
    async def work() -> str:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        table = Elasticsearch(urls=(f"http://127.0.0.1:{port}",), timeout="1s")
        client = Client(table, str, str.encode)
        try:
            await recognise(client)
        except (UnreachedError, SetupError) as error:
            return str(error)
        finally:
            await client.close()
            server.close()
        return ""

    said = asyncio.run(work())
    assert text in said
    assert "\n" not in said


def test_the_next_node_is_asked_and_the_key_goes_along(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def node(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(whole(b"200 OK", b'{"version": {"number": "8.1.0"}}'))
        writer.close()

    async def work() -> Any:
        server = await asyncio.start_server(node, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        urls = ("http://127.0.0.1:1", f"http://127.0.0.1:{port}")
        table = Elasticsearch(urls=urls, api_key_file="key")
        client = Client(table, lambda path: f"of {path}".replace(" ", "-"), str.encode)
        try:
            return await recognise(client)
        finally:
            await client.close()
            server.close()

    assert asyncio.run(work()).name == "Elasticsearch 8.1.0"
    assert b"Authorization: ApiKey of-key\r\n" in asked[0]


@pytest.mark.parametrize("key", ["two words", "ä", "a\x07"])
def test_what_is_no_key(key: str) -> None:
    table = Elasticsearch(urls=("http://127.0.0.1:1",), api_key_file="key")

    async def work() -> None:
        with pytest.raises(ValueError, match="key: its first line is no API key"):
            Client(table, lambda _: key, str.encode)

    asyncio.run(work())
