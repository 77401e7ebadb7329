"""A reload ends the observer, whenever it comes: the next one goes by the new config.

It did not where the entry of the reload was the news that a source waited for: ``asyncio.wait_for``
of Python 3.11 forgets a cancellation that arrives together with its result, and the observer waited
for that source for ever. Nor where the reload came while it was starting.
"""

import asyncio
import contextlib
import time
from typing import Any, cast

from everup.adapters.place import Place
from everup.config import load
from everup.integrations.following import _Follower
from everup.model.journal import Entry
from everup.observer.host import Host, end_all


def entry(kind: str, at: float) -> Entry:
    return Entry(1, at, 0.0, "boot", kind, "everup", {})


def ended(kind: str, at: float, read_at: float) -> bool:
    """Whether an observer ends that finds such an entry when it begins."""

    class Link:
        async def get(self, path: str) -> dict[str, Any]:
            return {"services": [], "last_seq": 1}

        async def read(self, query: object) -> list[Entry]:
            return [entry(kind, at)]

    async def run() -> bool:
        spec = load('[service.web]\ncommand = ["web"]', path="everup.toml", directory="/srv")
        host = Host(
            spec, Place.of("/srv/everup.toml", "/srv/state"), -1, "observer", read_at=read_at
        )
        await host.link.close()
        host.link = cast(Any, Link())
        host._ended = asyncio.get_running_loop().create_future()
        await host._resume()
        return host._ended.done()

    return asyncio.run(run())


def test_a_reload_while_it_starts() -> None:
    now = time.time()
    assert ended("config.reloaded", now, now - 1.0)
    assert not ended("config.reloaded", now - 1.0, now)
    assert not ended("instance.ready", now, now - 1.0)


def test_news_and_cancellation_at_once() -> None:
    async def run() -> bool:
        follower = _Follower(cast(Any, None))
        waiting = asyncio.create_task(follower.wait(time.monotonic() + 3600.0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        follower._news.set()
        await asyncio.sleep(0)  # the news has arrived, and nobody has looked at it yet
        waiting.cancel()
        await asyncio.wait([waiting])
        return waiting.cancelled()

    assert asyncio.run(run())


def test_a_source_that_loses_a_cancellation_ends_all_the_same() -> None:
    async def stubborn() -> None:
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()

    async def run() -> list[bool]:
        tasks = {asyncio.create_task(stubborn()) for _ in range(3)}
        await asyncio.sleep(0)
        await end_all(tasks)
        return [task.done() for task in tasks]

    assert asyncio.run(run()) == [True] * 3
