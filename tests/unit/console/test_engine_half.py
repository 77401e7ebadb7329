"""The engine's half: who may bring what by which socket, and sessions over the engine's death."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from everup.adapters.place import Place
from everup.api.server import application
from everup.model.event import Stop
from everup.rooms.console.config import Console
from everup.testing import SimWorld


class FakeEngine:
    """A backend with the engine of a simulated world; ``memory`` is what the keeper holds."""

    def __init__(self, folder: Path, memory: dict[str, int], listen: str | None = "127.0.0.1:7077"):
        self.engine = SimWorld(1).engine
        self.spec = self.engine.spec
        console = Console(listen=listen)
        everup = SimpleNamespace(observer=True)
        self.engine.spec = SimpleNamespace(console=console, everup=everup)  # type: ignore[assignment]
        self.place = Place.of(str(folder / "everup.toml"), "state")
        self.journal = SimpleNamespace(last_seq=7)
        self.leaving = False
        self.memory = memory
        self.written: list[tuple[str, str, Any]] = []
        self.done: list[Any] = []

    def held(self, name: str) -> int | None:
        return self.memory.get(name)

    def hold(self, name: str, fd: int) -> None:
        if name in self.memory:
            os.close(self.memory[name])
        self.memory[name] = os.dup(fd)

    def write(self, kind: Any, subject: str, payload: Any) -> None:
        self.written.append((kind.value, subject, payload))

    def dispatch(self, event: Any) -> None:
        self.done.append(event)


class Asked:
    """The two ways in to one engine."""

    def __init__(self, engine: FakeEngine, operator: Any, observer: Any) -> None:
        self.engine = engine
        self._ways = {"operator": operator, "observer": observer}

    async def post(self, way: str, what: str, **body: Any) -> tuple[int, Any]:
        async with self._ways[way].post(f"http://x/v1/console/{what}", json=body) as answer:
            return answer.status, await answer.json()

    async def session(self, user: str = "ada") -> dict[str, str]:
        status, made = await self.post("operator", "ticket", user=user)
        assert status == 200, made
        status, secrets = await self.post("observer", "redeem", ticket=made["ticket"])
        assert status == 200, secrets
        return {"session": secrets["session"], "token": secrets["token"]}


@contextlib.asynccontextmanager
async def running(folder: Path, memory: dict[str, int], **more: Any) -> AsyncIterator[Asked]:
    engine = FakeEngine(folder, memory, **more)
    os.makedirs(engine.place.run_dir, exist_ok=True)
    app = application(engine)  # type: ignore[arg-type]
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)
    await runner.setup()
    paths = (engine.place.api_socket, engine.place.observer_socket)
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        await web.SockSite(runner, sock).start()
    try:
        async with contextlib.AsyncExitStack() as stack:
            ways = [
                await stack.enter_async_context(
                    aiohttp.ClientSession(connector=aiohttp.UnixConnector(path))
                )
                for path in paths
            ]
            yield Asked(engine, *ways)
    finally:
        await runner.cleanup()


@pytest.fixture
def memory() -> Any:
    held: dict[str, int] = {}
    yield held
    for fd in held.values():
        os.close(fd)


def test_only_an_operator_makes_links_and_only_a_session_acts(
    tmp_path: Path, memory: dict[str, int]
) -> None:
    async def work() -> None:
        async with running(tmp_path, memory) as it:
            assert (await it.post("observer", "ticket", user="root"))[0] == 403
            nobody = {"session": "A" * 43, "token": "B" * 43}
            for what in ("session", "act", "close"):
                assert (await it.post("observer", what, **nobody))[0] == 403
                assert (await it.post("observer", what))[0] == 400
            assert (await it.post("observer", "redeem", ticket="guessed"))[0] == 403
            assert it.engine.written == []
            assert it.engine.done == []
            mine = await it.session()
            status, told = await it.post("observer", "session", **mine)
            assert (status, told["user"]) == (200, "ada")
            swapped = {"session": mine["token"], "token": mine["session"]}
            assert (await it.post("observer", "session", **swapped))[0] == 403
            assert (await it.post("observer", "close", **mine))[0] == 200
            assert (await it.post("observer", "session", **mine))[0] == 403
            assert [kind for kind, _, _ in it.engine.written] == ["console.opened"]

    asyncio.run(work())


def test_an_act_is_that_of_its_user_with_a_reason(tmp_path: Path, memory: dict[str, int]) -> None:
    async def work() -> None:
        async with running(tmp_path, memory) as it:
            mine = await it.session("ada\x1b[2J")
            name = next(iter(it.engine.engine.services))
            stop = {**mine, "command": "stop", "target": name}
            for wrong, expected in (
                ({}, 400),
                ({"why": "  "}, 400),
                ({"why": "x" * 501}, 400),
                ({"why": "x", "command": "down"}, 400),
                ({"why": "x", "command": "scale"}, 400),
                ({"why": "x", "command": ["stop"]}, 400),
                ({"why": "x", "target": "no-such"}, 404),
                ({"why": "x", "target": [name]}, 400),
                ({"why": "x", "target": None}, 400),
                ({"why": "x", "command": "ack"}, 400),
                ({"why": "x", "command": "ack", "number": True}, 400),
                ({"why": "x", "command": "silence", "number": 1}, 400),
                ({"why": "x", "command": "silence", "number": 1, "for_s": 59}, 400),
            ):
                status, said = await it.post("observer", "act", **(stop | wrong))
                assert status == expected, (wrong, said)
            assert it.engine.done == []
            assert len(it.engine.written) == 1
            assert (await it.post("observer", "act", **stop, why="maintenance"))[0] == 200
            (done,) = it.engine.done
            assert isinstance(done, Stop)
            assert done.by == "ada\\x1b[2J in the console: maintenance"
            kind, subject, payload = it.engine.written[-1]
            assert (kind, subject, payload.why) == ("console.acted", name, "maintenance")

    asyncio.run(work())


@pytest.mark.parametrize(
    ("command", "kind", "told"),
    [
        ("ack", "incidents.acknowledged", {"number": 3, "by": "ada", "note": "mine"}),
        ("approve", "recover.answered", {"number": 3, "by": "ada", "note": "mine", "yes": True}),
        ("deny", "recover.answered", {"number": 3, "by": "ada", "note": "mine", "yes": False}),
    ],
)
def test_what_is_said_of_an_incident(
    tmp_path: Path, memory: dict[str, int], command: str, kind: str, told: dict[str, Any]
) -> None:
    async def work() -> None:
        async with running(tmp_path, memory) as it:
            mine = await it.session()
            asked = {**mine, "command": command, "target": "db", "number": 3, "why": "mine"}
            assert (await it.post("observer", "act", **asked))[0] == 200
            written, subject, payload = it.engine.written[-1]
            assert (written, subject) == (kind, "db")
            assert {name: getattr(payload, name) for name in told} == told
            assert it.engine.done == []

    asyncio.run(work())


def test_a_session_outlives_its_engine_and_is_on_no_disk(
    tmp_path: Path, memory: dict[str, int]
) -> None:
    async def work() -> None:
        async with running(tmp_path, memory) as first:
            mine = await first.session()
            waiting = (await first.post("operator", "ticket"))[1]["ticket"]
        async with running(tmp_path, memory) as second:
            assert (await second.post("observer", "session", **mine))[0] == 200
            assert (await second.post("observer", "redeem", ticket=waiting))[0] == 200
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert files == []
        os.pwrite(memory["console"], b"damaged", 0)
        async with running(tmp_path, memory) as third:
            assert (await third.post("observer", "session", **mine))[0] == 403
            await third.session()

    asyncio.run(work())


def test_without_a_console_there_is_no_link(tmp_path: Path, memory: dict[str, int]) -> None:
    async def work() -> None:
        async with running(tmp_path, memory, listen=None) as it:
            status, said = await it.post("operator", "ticket")
            assert status == 409
            assert "[console] listen" in said["hint"]

    asyncio.run(work())
