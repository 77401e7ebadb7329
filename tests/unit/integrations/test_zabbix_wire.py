"""Zabbix' protocol, as the real ones speak it, and as they should not."""

import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.integrations.zabbix import wire

SUCCESS = b'{"response":"success","info":"processed: 3; failed: 2; total: 5; seconds spent: 0.00"}'


def test_a_message_of_the_sender() -> None:
    packet = wire.trapped('box "1"', {"everup.status": "µ\n"})
    header = wire.Header.parse(packet[: wire.HEADER_BYTES], 1 << 20)
    body = packet[wire.HEADER_BYTES :]
    assert packet.startswith(b"ZBXD\x01")
    assert header.length == len(body)
    assert json.loads(header.text(body)) == {
        "request": "sender data",
        "data": [{"host": 'box "1"', "key": "everup.status", "value": "µ\n"}],
    }, "no clock: the server takes its own"


def test_what_a_server_took() -> None:
    assert wire.answer(SUCCESS) == wire.Answer(3, 2)
    moved = b'{"response":"failed","redirect":{"revision":2,"address":"192.0.2.1:10051"}}'
    assert wire.answer(moved).redirect == "192.0.2.1:10051"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"HTTP/1.1 400 Bad Request", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[1]", "answers b'[1]'"),
        (b'{"response":"failed","info":"cannot parse"}', "refuses: 'cannot parse'"),
        (b'{"response":"success"}', "does not say what it took"),
        (b'{"response":"success","info":"processed: 99999999999999"}', "does not say"),
        (b"{}", "refuses"),
    ],
)
def test_answers_that_are_none(text: bytes, words: str) -> None:
    with pytest.raises(wire.WireError, match=words.replace("[", r"\[").replace("]", r"\]")):
        wire.answer(text)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"HTTP/1.1 400 ", "does not speak"),
        (b"ZBXD\x01" + struct.pack("<II", 1 << 30, 0), "1073741824 bytes; at most 1000"),
        (b"ZBXD\x03" + struct.pack("<II", 10, 1 << 30), "1073741824 bytes; at most 1000"),
        (b"ZBXD\x05" + bytes(8), "more than 4 GB"),
        (b"ZBXD\x11" + bytes(8), "unknown flags 0x10"),
        (b"ZBXD\x02" + bytes(8), "does not speak"),
    ],
)
def test_headers_that_are_none(head: bytes, words: str) -> None:
    with pytest.raises(wire.WireError, match=words):
        wire.Header.parse(head, 1000)


def test_compressed_messages() -> None:
    body = zlib.compress(SUCCESS)
    head = b"ZBXD\x03" + struct.pack("<II", len(body), len(SUCCESS))
    assert wire.Header.parse(head, 1000).text(body) == SUCCESS
    for damaged in (body[:-1], body[1:], zlib.compress(SUCCESS + b"x"), b""):
        with pytest.raises(wire.WireError):
            wire.Header.parse(head, 1000).text(damaged)


def test_a_small_message_that_would_become_a_large_one_is_not_unpacked() -> None:
    body = zlib.compress(bytes(1 << 20))
    head = b"ZBXD\x03" + struct.pack("<II", len(body), 10)
    with pytest.raises(wire.WireError, match="another length"):
        wire.Header.parse(head, 1 << 20).text(body)


@given(st.binary(min_size=13, max_size=13), st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(head: bytes, body: bytes) -> None:
    for start in (head, b"ZBXD" + head[4:], b"ZBXD\x01" + head[5:], b"ZBXD\x03" + head[5:]):
        try:
            text = wire.Header.parse(start, 1000).text(body)
            assert len(text) <= 1000
            wire.answer(text)
        except wire.WireError:
            continue


@pytest.mark.parametrize("text", ["a:65536", "a:0", "[::1]:99999", "a:x"])
def test_ports_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"1 to 65535|invalid literal"):
        wire.nodes(text)


def test_nodes() -> None:
    found = wire.nodes("zabbix.example;192.0.2.1:99;[::1];[::2]:98")
    assert found == [("zabbix.example", 10051), ("192.0.2.1", 99), ("::1", 10051), ("::2", 98)]
