"""The Lumberjack protocol against servers that acknowledge late, partly, twice or never."""

import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from everup.integrations.logstash import lumberjack
from everup.integrations.logstash.config import Logstash, address
from everup.integrations.logstash.edge import Shipper, sender_of
from everup.integrations.logstash.lumberjack import Acknowledgements, ProtocolError, WindowSize
from everup.integrations.logstash.pipeline import pipeline
from everup.integrations.logstash.records import records
from everup.model.condition import Severity
from everup.model.incident import Incident
from everup.model.journal import Entry
from everup.observer.feed import Feed


def ack(number: int) -> bytes:
    return b"2A" + struct.pack(">I", number)


def read_window(data: bytes) -> tuple[list[bytes], bytes]:
    """Read a window as the protocol's text says; give its documents, and what follows it."""
    assert data[:2] == b"2W"
    (count,) = struct.unpack_from(">I", data, 2)
    found: list[bytes] = []
    rest = data[6:]
    while len(found) < count:
        kind, rest = rest[:2], rest[2:]
        if kind == b"2C":
            (size,) = struct.unpack_from(">I", rest)
            rest = zlib.decompress(rest[4 : 4 + size]) + rest[4 + size :]
            continue
        assert kind == b"2J"
        number, size = struct.unpack_from(">II", rest)
        found.append(rest[8 : 8 + size])
        assert number == len(found)
        rest = rest[8 + size :]
    return found, rest


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=20), st.integers(0, 9))
def test_a_window_is_read_back(documents: Sequence[bytes], level: int) -> None:
    assert read_window(lumberjack.window(documents, level)) == (list(documents), b"")


def test_a_window_byte_for_byte() -> None:
    frames = bytes.fromhex("3257 00000001") + bytes.fromhex("324a 00000001 00000002") + b"{}"
    assert lumberjack.window([b"{}"]) == frames
    with pytest.raises(ValueError, match="at least one"):
        lumberjack.window([])


@given(st.lists(st.integers(0, 5), max_size=5), st.integers(1, 7))
def test_acknowledgements_come_in_any_pieces(numbers: Sequence[int], piece: int) -> None:
    numbers = sorted(numbers)
    data = b"".join(map(ack, numbers))
    acks = Acknowledgements(6)
    for start in range(0, len(data), piece):
        acks.feed(data[start : start + piece])
    assert acks.done == max(numbers, default=0)
    acks.feed(ack(6))
    assert acks.whole


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400", b"1A\0\0\0\1", ack(4), ack(2) + ack(1), ack(3) + ack(3), b"2Z"]
)
def test_what_no_server_says(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        Acknowledgements(3).feed(data)


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_any_bytes_are_acknowledgements_or_are_refused(pieces: Sequence[bytes]) -> None:
    acks = Acknowledgements(3)
    try:
        for piece in pieces:
            acks.feed(piece)
    except ProtocolError:
        pass
    assert 0 <= acks.done <= 3


def test_a_window_grows_and_shrinks() -> None:
    size = WindowSize(50)
    seen = [size.now]
    for taken in (True, True, True, True, False, False, *[False] * 9):
        size.taken() if taken else size.failed()
        seen.append(size.now)
    assert seen[:8] == [10, 20, 40, 50, 50, 25, 12, 6]
    assert seen[-1] == 1


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("logs", ("logs", 5044)),
        ("logs:1", ("logs", 1)),
        ("[::1]:2", ("::1", 2)),
        ("[::1]", ("::1", 5044)),
    ],
)
def test_addresses(host: str, found: tuple[str, int]) -> None:
    assert address(host) == found


def test_who_is_spoken_to_in_the_open() -> None:
    assert not Logstash(hosts=("127.0.0.1:5044", "localhost", "[::1]:1")).encrypted
    assert Logstash(hosts=("127.0.0.1", "logs")).encrypted
    assert not Logstash(hosts=("logs",), tls=False).encrypted


@pytest.mark.parametrize(
    "table",
    [
        {"hosts": ["a:b"]},
        {"hosts": ["http://a"]},
        {"hosts": ["a"], "tls": False, "ca_file": "f"},
        {"hosts": ["a"], "key_file": "f"},
        {"ca_file": "f"},
        {"hosts": ["a"], "window": 0},
        {"hosts": ["a"], "compression": 10},
    ],
)
def test_tables_that_make_no_sense(table: Any) -> None:
    with pytest.raises(ValidationError):
        Logstash(**table)


def entry(seq: int, kind: str = "instance.ready", **payload: Any) -> Entry:
    return Entry(seq, 1.0, 1.0, "", kind, "web.1", payload)


def test_an_incident_goes_behind_the_last_entry_that_tells_of_it() -> None:
    entries = [
        entry(4),
        entry(5, "incidents.opened", number=1),
        entry(6, "incidents.explained", number=1),
        entry(7),
    ]
    incident = Incident(1, "web", 1.0, Severity.CRITICAL, "web is down")
    found = records(entries, {1: incident}, "box", "default", ("events", "incidents"))
    told = [(json.loads(document)["event"]["dataset"], seq) for document, seq in found]
    assert told == [
        ("everup.events", 4),
        ("everup.events", 5),
        ("everup.events", 5),  # 6 is shipped once the incident is
        ("everup.incidents", 6),
        ("everup.events", 7),
    ]
    assert json.loads(found[0][0])["@metadata"]["_id"] == json.loads(found[0][0])["event"]["id"]
    assert records(entries, {1: incident}, "box", "default", ("incidents",))[0][1] == 6


class Made:
    """A feed of ``count`` entries."""

    node = "box"

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self.count = count

    def folder(self, name: str) -> Path:
        return self._folder

    async def status(self) -> Mapping[str, Any]:
        return {"last_seq": self.count}

    async def entries(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        for start in range(after, self.count, 100):
            yield [entry(seq) for seq in range(start + 1, min(self.count, start + 100) + 1)]

    def incidents(self) -> Sequence[Incident]:
        return ()

    def report(self, kind: str, subject: str, ok: bool, text: str) -> None:
        pass


class Stub:
    """A server that answers the windows of all its connections by turns as it is told."""

    def __init__(self, *turns: "Turn") -> None:
        self._turns = list(turns)
        self.windows: list[list[int]] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            data = b""
            while piece := await reader.read(1 << 16):
                data += piece
                try:
                    documents, rest = read_window(data)
                except (AssertionError, struct.error, zlib.error):
                    continue  # not all of it is there
                data = rest
                numbers = [json.loads(each)["event"]["sequence"] for each in documents]
                self.windows.append(numbers)
                turn = self._turns.pop(0) if self._turns else whole
                if not await turn(writer, len(numbers)):
                    break
        except (ConnectionError, ValueError):
            pass
        finally:
            writer.transport.abort()


Turn = Callable[[asyncio.StreamWriter, int], Awaitable[bool]]


async def whole(writer: asyncio.StreamWriter, count: int) -> bool:
    writer.write(ack(count))
    return True


async def by_ones(writer: asyncio.StreamWriter, count: int) -> bool:
    for number in range(count + 1):  # 0: still at work
        writer.write(ack(number))
        await writer.drain()
        await asyncio.sleep(0)
    return True


async def half_then_gone(writer: asyncio.StreamWriter, count: int) -> bool:
    writer.write(ack(count // 2))
    await writer.drain()
    return False


async def gone(writer: asyncio.StreamWriter, count: int) -> bool:
    return False


async def twice(writer: asyncio.StreamWriter, count: int) -> bool:
    writer.write(ack(count) + ack(count))
    return True


async def too_many(writer: asyncio.StreamWriter, count: int) -> bool:
    writer.write(ack(count + 1))
    return True


async def torn(writer: asyncio.StreamWriter, count: int) -> bool:
    writer.write(ack(count)[:3])
    await writer.drain()
    return False


async def nonsense(writer: asyncio.StreamWriter, count: int) -> bool:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    return True


async def ship(
    stub: Stub, folder: Path, count: int, hosts: Sequence[str] = (), compression: int = 3
) -> None:
    server = await asyncio.start_server(stub.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    table = Logstash(hosts=(*hosts, f"127.0.0.1:{port}"), window=40, compression=compression)
    sender = sender_of(table, str.encode)
    try:
        await Shipper(cast(Feed, Made(folder, count)), table, sender, again_s=0.0).run()
    finally:
        sender.close()
        server.close()


def acknowledged(folder: Path) -> int:
    return int(json.loads((folder / "cursor").read_text())["acknowledged"])


@pytest.mark.parametrize(
    ("turns", "doubled"),
    [
        ((), 0),
        ((by_ones, by_ones, by_ones), 0),
        ((half_then_gone,), 5),
        ((whole, half_then_gone, by_ones), 10),
        ((gone, gone), 15),
        ((whole, too_many), 20),
        ((torn,), 10),
        ((nonsense,), 10),
    ],
    ids=["well", "bit by bit", "partly", "partly then well", "never", "too many", "torn", "http"],
)
def test_nothing_is_lost_and_what_was_not_acknowledged_comes_again(
    tmp_path: Path, turns: Sequence[Turn], doubled: int
) -> None:
    stub = Stub(*turns)
    asyncio.run(ship(stub, tmp_path, 230))
    came = [number for window in stub.windows for number in window]
    assert sorted(set(came)) == list(range(1, 231))
    assert len(came) == 230 + doubled
    assert acknowledged(tmp_path) == 230


def test_an_acknowledgement_too_many_does_not_count_for_the_next_window(tmp_path: Path) -> None:
    stub = Stub(twice, twice)
    asyncio.run(ship(stub, tmp_path, 230))
    assert sorted({n for window in stub.windows for n in window}) == list(range(1, 231))
    assert acknowledged(tmp_path) == 230


def test_the_next_host_is_taken(tmp_path: Path) -> None:
    stub = Stub()
    asyncio.run(ship(stub, tmp_path, 20, hosts=["127.0.0.1:1"]))
    assert sorted(n for window in stub.windows for n in window) == list(range(1, 21))


def test_a_connection_that_is_cut_at_any_byte_loses_nothing(tmp_path: Path) -> None:
    """The server takes so many bytes of the first window, and no more."""
    for cut in (*range(1, 40), *range(40, 4000, 331)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        stub = Stub()
        cuts = [cut]

        async def handle(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            cuts: list[int] = cuts,
            stub: Stub = stub,
        ) -> None:
            if cuts:
                await reader.readexactly(cuts.pop())
                writer.transport.abort()
            else:
                await Stub.handle(stub, reader, writer)

        stub.handle = handle  # type: ignore[method-assign]
        asyncio.run(ship(stub, folder, 12, compression=0))
        assert sorted(n for window in stub.windows for n in window) == list(range(1, 13))


def test_a_pipeline_quotes_what_it_is_given() -> None:
    text = pipeline(5044, ['https://a:9200"]\n}'], opensearch=True, tls=True, verify=True)
    assert '["https://a:9200]}"]' in text
    assert "opensearch {" in text
    assert "ssl_client_authentication" in text
    assert "ssl" not in pipeline(5044, (), opensearch=False, tls=False, verify=False)
