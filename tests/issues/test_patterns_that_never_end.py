"""A pattern in a probe's body that backtracks without end stopped everup for good: no API, no
restarts of anybody."""

import asyncio
import re
import threading

import pytest
from _everup import Everup, get
from test_probes_servers import http, probing, serving, until

from everup.adapters.probes._search import Searcher
from everup.model.instance import Slot

EVIL = r"(a+)+$"
PREY = "a" * 60 + "!"
SLOW = r"(?:a|a){24}b"  # some seconds at most, and then there is an answer


def reply(body: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_it_costs_its_own_probe_alone() -> None:
    async def main() -> None:
        async with serving(reply(PREY)) as requests, probing() as (prober, results):
            for n in range(6):
                slot = Slot("evil", n + 1)
                prober.start(http(requests.port, body=EVIL, timeout=1.0, slot=slot))
            prober.start(http(requests.port, body="a!", slot=Slot("good", 1)))
            await results.many(1)
            assert results[0].slot.service == "good", "the others did not hold it up"
            assert results[0].ok
            await results.many(7)
            for result in results[1:]:
                assert not result.ok
                assert "but searching the body takes longer: simplify /(a+)+$/" in result.detail
                assert "within 1s" in result.detail
            tasks = prober.searcher._tasks
            await until(lambda: not tasks)

    asyncio.run(main())


@pytest.mark.parametrize(("body", "ok"), [("b", True), ("c", False)])
def test_one_that_takes_its_time_gets_it(body: str, ok: bool) -> None:
    async def main() -> None:
        text = "a" * 24 + body
        async with serving(reply(text)) as requests, probing() as (prober, results):
            prober.searcher._slow.add(SLOW)
            prober.start(http(requests.port, body=SLOW, timeout=60.0))
            (result,) = await results.many(1)
            assert result.ok is ok, result
            assert ok or "does not match" in result.detail

    asyncio.run(main())


def test_what_is_stopped_meanwhile_is_not_reported() -> None:
    async def main() -> None:
        async with serving(reply(PREY)) as requests, probing() as (prober, results):
            target = http(requests.port, body=EVIL, timeout=60.0)
            prober.start(target)
            await until(lambda: bool(prober.searcher._tasks))
            prober.stop(target.slot, target.run)
            await until(lambda: not prober.searcher._tasks)
            assert not results

    asyncio.run(main())


@pytest.mark.parametrize(
    "pattern", ["ok", "(?i)OK", r"^\s*ok\b", "ö", r"(?<=is )ok", r"(o)k\1?", "no"]
)
def test_what_it_finds_is_what_re_finds(pattern: str) -> None:
    text = "it is ok\nö"

    async def aside(searcher: Searcher) -> bool:
        found: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        searcher.aside(re.compile(pattern), text, 60.0, found.set_result)
        return await found

    async def main() -> None:
        async with probing() as (prober, _):
            expected = re.search(pattern, text) is not None
            assert prober.searcher.quick(re.compile(pattern), text) is expected
            assert await aside(prober.searcher) is expected

    asyncio.run(main())


def test_on_another_thread_it_goes_aside_at_once() -> None:
    found: list[bool | None] = []

    def run() -> None:
        found.append(Searcher([]).quick(re.compile("a"), "a"))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [None]


def test_everup_goes_on(everup: Everup) -> None:
    """Commands are answered, others are restarted; the service with the pattern is not ready."""
    port = everup.port()
    evil = {
        "http": "/", "body": r"(\"*[^\n]*)*\1$x|(.*.*)*=$", "interval": "100ms", "timeout": "1s",
    }  # fmt: skip
    everup.up(
        {
            "evil": everup.server(
                "evil", listen=f"127.0.0.1:{port}", probe={"readiness": evil}, start_timeout="300s"
            ),
            "web": everup.server("web"),
        },
        arguments=("--timeout", "0"),
    )
    old = everup.pid("web.1")
    assert get(port)
    for _ in range(3):
        everup.cli("restart", "web")
        old = everup.wait_new_pid("web.1", old)
    assert everup.state("evil.1") == "running"
    everup.wait_for(
        lambda: any("simplify" in str(i) for i in everup.instances().values()), "the reason is told"
    )
