"""Follows how the services stand, for all integrations: looks whenever the journal has news, and
from time to time. The I/O goes through the feed."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from everup.integrations import standing, telling
from everup.integrations.standing import Level, Standing
from everup.observer.feed import Feed

_GATHER_S: Final = 0.05
"""News comes in bunches: one look for all of a bunch."""
_AGAIN_S: Final = 1.0
_SILENT_S: Final = 5.0
"""An engine is replaced in less; a longer silence is told."""
_QUIET_KINDS: Final = ("engine.alive", "dependency.calls", "signal.reported")


@dataclass(frozen=True, slots=True)
class Look:
    """What is to be told now."""

    at: float
    """In seconds since 1970."""
    beat: bool
    """Everything is told, not only what has changed."""
    told: tuple[Standing, ...]
    """The services, and last everup itself as ``everup`` where that is to be told."""
    status: Mapping[str, Any] | None
    """What ``GET /v1/status`` gives; None: the engine does not answer."""


async def looks(feed: Feed, beat_s: float, *, every: bool = False) -> AsyncIterator[Look]:
    """Give what is to be told, for ever: the first time everything, then each change, and
    everything again each ``beat_s`` seconds. ``every``: also looks at which no service has changed,
    for who tells of more than services."""
    follower = _Follower(feed)
    watching = asyncio.create_task(follower.watch())
    try:
        beat_at = time.monotonic()
        silent_since: float | None = None
        while True:
            now = time.monotonic()
            beat = now >= beat_at
            try:
                status = await feed.status()
                silent_since = None
            except OSError:
                silent_since = now if silent_since is None else silent_since
                if now - silent_since < _SILENT_S:
                    await asyncio.sleep(_AGAIN_S)
                    continue
                status = None
            if beat:
                beat_at = now + beat_s
            told = follower.look(now, status, beat)
            if told or beat or every:
                yield Look(time.time(), beat, told, status)
            await follower.wait(beat_at)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


class _Follower:
    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._teller = telling.Teller()
        self._news = asyncio.Event()

    async def watch(self) -> None:
        """Say that there is news, for ever."""
        after = 0
        while True:
            try:
                if not after:
                    after = int((await self._feed.status())["last_seq"])
                async for entries in self._feed.entries(after):
                    after = entries[-1].seq if entries else after
                    if any(entry.kind not in _QUIET_KINDS for entry in entries):
                        self._news.set()
            except OSError:
                pass
            await asyncio.sleep(_AGAIN_S)

    async def wait(self, until: float) -> None:
        """Until there is news, something that waits is due, or it is time for the next beat."""
        now = time.monotonic()
        due = self._teller.wait_s(now)
        timeout = max(0.0, until - now) if due is None else min(max(0.0, until - now), due)
        with contextlib.suppress(TimeoutError):
            # Not wait_for: before Python 3.12 that forgets a cancellation that comes with the news.
            async with asyncio.timeout(timeout):
                await self._news.wait()
            await asyncio.sleep(_GATHER_S)
        self._news.clear()

    def look(
        self, now: float, status: Mapping[str, Any] | None, beat: bool
    ) -> tuple[Standing, ...]:
        """Give what is to be told of this status."""
        if status is None:
            text = "everup's engine does not answer; what it says of the services is old"
            return self._teller.step(now, [Standing("everup", Level.UNKNOWN, text)], beat=beat)
        services = standing.of_all(status)
        everup = standing.of_everup(status, services)
        # A service may be called so, too: everup itself is not told then.
        others = telling.with_causes(services, causes(self._feed))
        names = {service.service for service in others}
        itself = [] if everup.service in names else [everup]
        return self._teller.step(now, [*others, *itself], beat=beat)


def causes(feed: Feed) -> Mapping[str, str]:
    """Give why what fails does, by service, from the incidents that are open."""
    return {
        service: incident.reason.says
        for incident in feed.incidents()
        if incident.resolved_at is None and incident.reason and incident.reason.cause
        for service in incident.services
    }
