"""What the edge asks of the observer, by the table that is in force."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from everup.integrations.zabbix import agent, wire
from everup.integrations.zabbix.config import Zabbix
from everup.integrations.zabbix.edge import run
from everup.integrations.zabbix.edge.agent import Agent
from everup.integrations.zabbix.edge.watch import aside
from everup.model.condition import Condition, Severity
from everup.model.incident import Incident
from everup.observer.feed import Feed


class FakeFeed:
    """An observer with a few incidents, and a status that a test may take away."""

    node = "box"

    def __init__(self, table: Zabbix, *incidents: Incident) -> None:
        self._table = table
        self._incidents = incidents
        self.reports: list[tuple[str, str, bool]] = []
        self.answers = True

    def table(self, key: str) -> Any:
        assert key == "zabbix"
        return self._table

    def incidents(self) -> tuple[Incident, ...]:
        return self._incidents

    def report(self, kind: str, subject: str, ok: bool, text: str) -> None:
        assert text
        self.reports.append((kind, subject, ok))

    def secret(self, path: str) -> str:
        raise FileNotFoundError(2, "No such file or directory", path)

    async def status(self) -> dict[str, Any]:
        if not self.answers:
            raise ConnectionRefusedError
        return {"version": "1", "journal_degraded": False, "services": []}


def incident(*conditions: tuple[str, str, str]) -> Incident:
    made = Incident(1, "x", 1000.0, Severity.WARNING, "x is not well")
    for kind, subject, text in conditions:
        found = Condition(kind, subject, Severity.WARNING, text, 1000.0)
        made.active[found.key] = found
    return made


def test_what_is_configured_no_more_is_over() -> None:
    """Else a condition would stay for ever: nobody is left to say that it is over."""
    old = incident(
        ("unreached", "zabbix old:10051", "cannot be told"),
        ("unreached", "zabbix API", "cannot be asked"),
        ("unreached", "zabbix", "cannot be told by TLS"),
        ("unreached", "nagios command file", "nobody reads it"),
        ("reported", "db", "Zabbix says: disk slow"),
        ("reported", "web", "Nagios says so"),
    )
    feed = FakeFeed(Zabbix(), old)
    asyncio.run(run(cast(Feed, feed)))
    assert feed.reports == [
        ("unreached", "zabbix old:10051", True),
        ("unreached", "zabbix API", True),
        ("unreached", "zabbix", True),
        ("reported", "db", True),
    ]


def test_a_token_that_cannot_be_read_is_told() -> None:
    table = Zabbix(api="https://zabbix.example", api_token_file="/token")
    feed = FakeFeed(table)
    asyncio.run(run(cast(Feed, feed)))
    assert feed.reports == [("unreached", "zabbix API", False)]


def test_a_key_that_cannot_be_read_sends_nothing() -> None:
    table = Zabbix(servers=("127.0.0.1:1",), psk_identity="box", psk_file="/key")
    feed = FakeFeed(table)
    asyncio.run(run(cast(Feed, feed)))
    assert feed.reports == [("unreached", "zabbix", False)]


@contextlib.asynccontextmanager
async def listening(feed: FakeFeed, *allowed: str) -> AsyncIterator[int]:
    port = await _free_port()
    it = Agent(cast(Feed, feed), f"127.0.0.1:{port}", allowed, "box")
    task = asyncio.create_task(it.run())
    while ("unreached", "zabbix agent", True) not in feed.reports:
        await asyncio.sleep(0)
    try:
        yield port
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _free_port() -> int:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    return port


async def asked(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(OSError):
        writer.write(data)
        writer.write_eof()
        return await reader.read()
    return b""


def test_an_agent_without_an_engine_says_so() -> None:
    async def main() -> None:
        feed = FakeFeed(Zabbix())
        feed.answers = False
        async with listening(feed, "127.0.0.0/8") as port:
            answer = await asked(port, wire.message(b"agent.ping"))
            assert b"ZBX_NOTSUPPORTED\0everup's engine does not answer" in answer

    asyncio.run(main())


@pytest.mark.parametrize(
    "data", [b"", b"GET / HTTP/1.1" * 2000, wire.message(b"\xff"), b"ZBXD\x01" + b"\xff" * 8]
)
def test_who_asks_what_is_no_question_gets_no_answer(data: bytes) -> None:
    async def main() -> None:
        feed = FakeFeed(Zabbix())
        async with listening(feed, "127.0.0.1") as port:
            answer = await asked(port, data)
            assert not answer or b"ZBX_NOTSUPPORTED" in answer
            assert await asked(port, wire.message(b"agent.ping")) == wire.message(b"1")

    asyncio.run(main())


def test_who_asks_and_never_reads_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everup.integrations.zabbix.edge.agent._ANSWER_S", 0.05)
    monkeypatch.setattr("everup.integrations.zabbix.edge.agent._MOST_ASKERS", 1)
    large = "x" * (64 << 20)
    monkeypatch.setattr(agent, "value", lambda key, *_: large if key == "large" else "1")

    async def main() -> None:
        feed = FakeFeed(Zabbix())
        async with listening(feed, "127.0.0.1") as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(wire.message(b"large"))
            async with asyncio.timeout(20):
                while await asked(port, wire.message(b"agent.ping")) != wire.message(b"1"):
                    await asyncio.sleep(0.01)
            writer.transport.abort()

    asyncio.run(main())


def test_others_may_not_ask() -> None:
    async def main() -> None:
        async with listening(FakeFeed(Zabbix()), "192.0.2.0/24", "::/0") as port:
            assert await asked(port, wire.message(b"agent.ping")) == b""

    asyncio.run(main())


def test_what_blocks_runs_aside() -> None:
    assert asyncio.run(aside(lambda: 7)) == 7
    with pytest.raises(ZeroDivisionError):
        asyncio.run(aside(lambda: 1 // 0))
