"""Servers and a collector of results for the tests of probes; they test themselves."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from everup.adapters.probes import Prober
from everup.model.instance import Slot
from everup.model.signal import ProbeKind, ProbeResult, ProbeTarget
from everup.model.spec import Probe

DEADLINE_S = 20.0
SLOT = Slot("web", 1)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Results(list[ProbeResult]):
    """Collects results; ``await results.many(n)`` until there are n."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def report(self, result: ProbeResult) -> None:
        assert len(result.detail) <= 200
        assert result.detail.isprintable()
        assert result.lateness_s >= 0
        assert result.latency_s >= 0
        self.append(result)
        self._more.set()

    async def many(self, count: int) -> list[ProbeResult]:
        await until(lambda: len(self) >= count, self._more)
        return self[:count]


async def until(condition: Callable[[], bool], event: asyncio.Event | None = None) -> None:
    """Waits for a condition; fails after a deadline that no healthy machine reaches."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            if event is not None:
                event.clear()
                await event.wait()
            else:
                await asyncio.sleep(0.005)


async def no_exec(_target: ProbeTarget) -> tuple[bool, str]:
    raise AssertionError("no exec probe was asked for")


@contextlib.asynccontextmanager
async def probing(
    run_exec: Callable[[ProbeTarget], Awaitable[tuple[bool, str]]] = no_exec,
) -> AsyncIterator[tuple[Prober, Results]]:
    """A prober and what it reports."""
    results = Results()
    prober = Prober(results.report, run_exec)
    try:
        yield prober, results
    finally:
        prober.close()


def http(port: int, path: str = "/", host: str = "127.0.0.1", **fields: Any) -> ProbeTarget:
    """A target; fields of the probe and of the target alike."""
    own = {k: fields.pop(k) for k in ("unix", "source", "traffic_class", "url") if k in fields}
    kind = fields.pop("kind", ProbeKind.READINESS)
    slot = fields.pop("slot", SLOT)
    probe = Probe(**{"http": path, "interval": 3600.0, "timeout": 10.0} | fields)
    own.setdefault("url", f"http://{host}:{port}{path}")
    return ProbeTarget(slot, kind, 7, probe, **own)


def tcp(port: int, host: str = "127.0.0.1", unix: str = "", **fields: Any) -> ProbeTarget:
    slot = fields.pop("slot", SLOT)
    probe = Probe(**{"tcp": "listen", "interval": 3600.0, "timeout": 10.0} | fields)
    return ProbeTarget(slot, ProbeKind.READINESS, 7, probe, host=host, port=port, unix=unix)


async def ask(target: ProbeTarget) -> ProbeResult:
    """One probe, its only report, and no descriptor left behind."""
    before = descriptors()
    async with probing() as (prober, results):
        prober.start(target)
        result = (await results.many(1))[0]
        assert (result.slot, result.kind, result.run) == (target.slot, target.kind, target.run)
    assert len(results) == 1
    mine = descriptors() - before
    assert not [n for n in mine if "eventpoll" in n], mine
    return result


def descriptors() -> set[str]:
    """The open descriptors of this process, as number and kind."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


class Requests(list[bytes]):
    """The requests that a server has read."""

    port = 0


@contextlib.asynccontextmanager
async def serving(
    reply: bytes | Handler, *, host: str = "127.0.0.1", unix: str = "", ssl: Any = None
) -> AsyncIterator[Requests]:
    """A server that reads a request and gives fixed bytes, or runs a handler after the request."""
    requests = Requests()
    tasks: set[asyncio.Task[None]] = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            if isinstance(reply, bytes):
                writer.write(reply)
                await writer.drain()
            else:
                await reply(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    if unix:
        server = await asyncio.start_unix_server(connection, unix, ssl=ssl)
    else:
        server = await asyncio.start_server(connection, host, 0, ssl=ssl)
        requests.port = server.sockets[0].getsockname()[1]
    try:
        yield requests
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await until(lambda: not tasks)


@contextlib.contextmanager
def full_listener(family: int, address: Any) -> Any:
    """A listener whose queue is full, so that nobody gets a connection any more."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.bind(address)
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(listener.getsockname())
        yield listener


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_a_server_serves() -> None:
    async def main() -> None:
        async with serving(OK) as requests:
            reader, writer = await asyncio.open_connection("127.0.0.1", requests.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert await reader.read() == OK
            assert requests == [b"GET / HTTP/1.1\r\n\r\n"]
            writer.close()

    asyncio.run(main())
