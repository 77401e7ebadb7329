"""Servers that are none, or none any more: everup's sender says what happened, and never waits."""

import asyncio
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from everup.integrations.delivery import ChannelError
from everup.integrations.zabbix import wire
from everup.integrations.zabbix.edge import sender, tls
from everup.integrations.zabbix.edge.sender import Push, Sender

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def info(processed: int, failed: int) -> bytes:
    text = f"processed: {processed}; failed: {failed}; total: 1; seconds spent: 0.000055"
    return wire.message(b'{"response":"success","info":"' + text.encode() + b'"}')


def says(answer: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = wire.Header.parse(await reader.readexactly(wire.HEADER_BYTES), 1 << 20)
        await reader.readexactly(head.length)
        writer.write(answer)
        writer.close()

    return talk


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer of 1 GB."""
    try:
        writer.write(b"ZBXD\x01" + struct.pack("<II", 1 << 30, 0))
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()
    except OSError:
        writer.close()


def send(*talks: Talk | None) -> tuple[int, Sender]:
    """Send to a cluster of such nodes; None: nobody listens there."""

    async def main() -> tuple[int, Sender]:
        nodes, servers = [], []
        for talk in talks:
            server = await asyncio.start_server(talk or silence, "127.0.0.1", 0)
            nodes.append(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
            servers.append(server)
            if talk is None:
                server.close()
        told = Sender(";".join(nodes))
        try:
            return await told.send([Push("box", "old"), Push("box", "{}")]), told
        finally:
            for server in servers:
                server.close()

    return asyncio.run(main())


def test_a_server_takes_it() -> None:
    assert send(says(info(1, 0)))[0] == 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed the connection without an answer"),
        (info(1, 0)[:40], "closed the connection after 27 bytes"),
        (info(0, 1), "knows no host 'box' with the item everup.status"),
        (info(0, 0), "knows no host"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak Zabbix' protocol"),
        (b"SSH-2.0-OpenSSH_9.2p1", "does not speak Zabbix' protocol"),
        (wire.message(b"\xff\xfe"), "no JSON"),
        (wire.message(b'{"response":"failed","info":"no"}'), "refuses: 'no'"),
        (wire.message(b'{"redirect":{"address":":::"}}'), "sends us to"),
    ],
)
def test_a_server_that_does_not(answer: bytes, words: str) -> None:
    with pytest.raises(ChannelError, match=words):
        send(says(answer))


def test_an_answer_without_end_is_not_read() -> None:
    with pytest.raises(ChannelError, match="announces 1073741824 bytes; at most 65536"):
        send(endless)


def test_a_server_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "_ALL_S", 0.05)
    with pytest.raises(ChannelError, match="does not answer in time"):
        send(silence)


async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.Event().wait()


def test_a_server_that_never_reads_what_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "_ALL_S", 0.05)

    async def main() -> None:
        server = await asyncio.start_server(never_reads, "127.0.0.1", 0)
        told = Sender(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        large = Push("box", "x" * (64 << 20))
        with pytest.raises(ChannelError, match="does not answer in time"):
            await asyncio.wait_for(told.send([large]), 20)
        server.close()

    asyncio.run(main())


def test_the_first_node_that_answers_is_asked_first_from_then_on() -> None:
    count, told = send(None, says(b""), says(info(1, 0)))
    assert count == 2
    first, *_ = told._nodes
    assert f"{first[0]}:{first[1]}" == told.name.rpartition(";")[2]


def test_nobody_listens() -> None:
    with pytest.raises(ChannelError, match=r"nobody listens there; 127.0.0.1:\d+: nobody listens"):
        send(None, None)


def test_proxies_of_a_group_send_on_and_not_for_ever() -> None:
    async def main() -> None:
        last = await asyncio.start_server(says(info(1, 0)), "127.0.0.1", 0)
        addresses = [f"127.0.0.1:{last.sockets[0].getsockname()[1]}"]

        async def on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            body = f'{{"response":"failed","redirect":{{"address":"{addresses[-1]}"}}}}'
            await says(wire.message(body.encode()))(reader, writer)

        first = await asyncio.start_server(on, "127.0.0.1", 0)
        here = f"127.0.0.1:{first.sockets[0].getsockname()[1]}"
        assert await Sender(here).send([Push("box", "{}")]) == 1
        addresses.append(here)
        with pytest.raises(ChannelError, match="from one proxy to the next"):
            await Sender(here).send([Push("box", "{}")])
        last.close()
        first.close()

    asyncio.run(main())


@pytest.mark.parametrize("key", ["", "1f", "zz" * 16, "1234567", "00" * 257])
def test_a_key_that_is_none_is_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="32 to 512 hexadecimal digits") as error:
        tls.client("box", key)
    assert not key or key not in str(error.value)


def test_a_key_where_python_has_no_such_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def __init__(self, protocol: Any) -> None:
            assert protocol is ssl.PROTOCOL_TLS_CLIENT

    monkeypatch.setattr(ssl, "SSLContext", Old)
    with pytest.raises(RuntimeError, match=r"Python 3\.13"):
        tls.client("box", "00" * 16)
