"""What all who look at the console share: one look at the engine for everybody, and what is new
for each of them."""

import asyncio
import collections
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from everup.integrations.standing import Level, of_all
from everup.model.journal import Entry
from everup.observer.feed import Feed
from everup.reliability.history import KINDS
from everup.rooms.console import shown
from everup.rooms.console.strips import WINDOW_S, Strip, Strips

BEAT_S: Final = 2.0
"""With somebody looking, numbers are read again this often; changes come at once."""
_GATHER_S: Final = 0.1
_SHARE: Final = 5.0
"""After a look that took a second, the next one is that many seconds later: a storm of events on a
busy machine is not to become one of looks."""
_STRIP_S: Final = 60.0
_STRIP_UNWELL_S: Final = 4.0
_AGAIN_S: Final = 1.0
_FRESH_S: Final = 1.0
_ANSWER_S: Final = 3.0
STALE_S: Final = 30.0
"""Engines are replaced in less. Services go on meanwhile, and nobody knows better."""
_MOST_PAST: Final = 50_000
_NEWS: Final = 300
_INCIDENTS: Final = 30
_QUIET: Final = frozenset(("engine.alive", "dependency.calls", "signal.reported"))


class Hub:
    """The newest look, and its version: a viewer asks for what changed since the one it has.

    Nothing is queued for anybody: who is slow gets the newest, once.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._strips = Strips()
        self._drawn: dict[str, tuple[float, Strip]] = {}
        """Strips, and until when they will do: those of services that nothing happens to."""
        self._news: collections.deque[Entry] = collections.deque(maxlen=_NEWS)
        self._rows: dict[str, tuple[int, dict[str, Any]]] = {}
        self._parts: dict[str, tuple[int, Any]] = {}
        self.version = 0
        self.viewers = 0
        self._dirty = asyncio.Event()
        self._changed = asyncio.Condition()
        self._status: Mapping[str, Any] | None = None
        self._asked_at = -1e9
        self._heard_at = -1e9
        self._asking: asyncio.Lock = asyncio.Lock()

    # -- the engine

    async def run(self) -> None:
        """Follow, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._beat())

    async def _follow(self) -> None:
        after = await self._begin()
        async for entries in self._feed.entries(after):
            self.take(entries)

    async def _begin(self) -> int:
        while True:
            try:
                status = await self._feed.status()
                since = datetime.fromtimestamp(time.time() - WINDOW_S, UTC).isoformat()
                query = [("since", since), ("n", str(_MOST_PAST))]
                past = await self._feed.select([*query, *(("kind", kind) for kind in KINDS)])
                news = await self._feed.select([("n", str(10 * _NEWS))])
                break
            except (OSError, ValueError):
                await asyncio.sleep(_AGAIN_S)
        instances = [i for s in status["services"] for i in s["instances"]]
        ready = {i["slot"]: int(i["run"]) for i in instances if i["state"] == "ready"}
        last = int(status["last_seq"])
        strips = Strips()  # a long day takes a while, and somebody may look meanwhile
        await asyncio.to_thread(strips.begin, [e for e in past if e.seq <= last], ready)
        self._strips = strips
        self._drawn.clear()
        self._news.extend(e for e in news if e.seq <= last and shown.is_news(e))
        self._dirty.set()
        return last

    def take(self, entries: Sequence[Entry]) -> None:
        """Learn from entries of the journal."""
        self._strips.take(entries)
        for entry in entries:
            self._drawn.pop(entry.subject.rpartition(".")[0] or entry.subject, None)
        if any(entry.kind.startswith("engine.") for entry in entries):
            self._drawn.clear()
        self._news.extend(entry for entry in entries if shown.is_news(entry))
        if any(entry.kind not in _QUIET for entry in entries):
            self._dirty.set()

    async def _beat(self) -> None:
        took_s = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._dirty.wait(), BEAT_S)
                await asyncio.sleep(max(_GATHER_S, _SHARE * took_s))
            self._dirty.clear()
            if self.viewers:
                began = time.monotonic()
                await self.look()
                took_s = min(1.0, time.monotonic() - began)

    async def status(self) -> Mapping[str, Any] | None:
        """Give a status that is not older than a second, or an older one while the engine is being
        replaced; None: there is none for too long."""
        async with self._asking:
            now = time.monotonic()
            if now - self._asked_at >= _FRESH_S:
                await self._ask()
        if time.monotonic() - self._heard_at > STALE_S:
            return None
        return self._status

    async def _ask(self) -> None:
        self._asked_at = time.monotonic()
        with contextlib.suppress(OSError, TimeoutError):
            self._status = await asyncio.wait_for(self._feed.status(), _ANSWER_S)
            self._heard_at = time.monotonic()

    async def look(self) -> None:
        """Look at everything now, and tell who waits."""
        async with self._asking:
            await self._ask()
        now, status = time.time(), self._status
        self.version += 1
        away_s = time.monotonic() - self._heard_at
        if status is not None:
            self._services(status, now)
            self._part("head", self._head(status, away_s < BEAT_S))
        found = list(self._feed.incidents())
        open_ones = [i for i in found if i.resolved_at is None]
        over = [i for i in found if i.resolved_at is not None and i.state != "merged"]
        self._part("incidents", [shown.incident(i) for i in [*over[-_INCIDENTS:], *open_ones]])
        self._part("news", [shown.clean(shown.entry(e)) for e in self._news])
        async with self._changed:
            self._changed.notify_all()

    def _services(self, status: Mapping[str, Any], now: float) -> None:
        names = []
        for service, standing in zip(status["services"], of_all(status), strict=True):
            name = service["name"]
            names.append(name)
            row = shown.row(
                service, standing, self._strip(name, standing.level == Level.OK, now), now
            )
            known = self._rows.get(name)
            if known is None or known[1] != row:
                self._rows[name] = (self.version, row)
        for name in self._rows.keys() - set(names):
            del self._rows[name]
            self._drawn.pop(name, None)
        self._part("names", shown.clean(names))

    def _strip(self, name: str, well: bool, now: float) -> Strip:
        until, strip = self._drawn.get(name, (0.0, None))
        if strip is None or until <= now:
            strip = self._strips.of(name, now)
            self._drawn[name] = (now + (_STRIP_S if well else _STRIP_UNWELL_S), strip)
        return strip

    def _head(self, status: Mapping[str, Any], answers: bool) -> dict[str, Any]:
        machine = status.get("machine", {})
        head = {
            "node": self._feed.node,
            "version": status["version"],
            "config": status["config"],
            "answers": answers,
            "stopping": bool(status["stopping"]),
            "journal": (status.get("journal_degraded_reason") or "it cannot be written")
            if status["journal_degraded"]
            else "",
            "machine": {k: machine[k] for k in _MACHINE if k in machine},
        }
        return {key: shown.clean(value) for key, value in head.items()}

    def _part(self, name: str, value: Any) -> None:
        known = self._parts.get(name)
        if known is None or known[1] != value:
            self._parts[name] = (self.version, value)

    # -- viewers

    async def wait(self, version: int, patience_s: float) -> bool:
        """Wait until there is something newer. False: there was not, for so long."""
        try:
            async with asyncio.timeout(patience_s), self._changed:
                await self._changed.wait_for(lambda: self.version > version)
        except TimeoutError:
            return False
        return True

    def since(self, version: int) -> bytes:
        """Give what changed since that version, as JSON; all of it for one before the first."""
        out: dict[str, Any] = {"v": self.version}
        out |= {name: value for name, (at, value) in self._parts.items() if at > version}
        out["rows"] = [row for at, row in self._rows.values() if at > version]
        return json.dumps(out, separators=(",", ":"), ensure_ascii=False).encode()

    def row(self, name: str) -> dict[str, Any] | None:
        """Give a service's row as it was at the last look."""
        found = self._rows.get(name)
        return None if found is None else found[1]

    def wake(self) -> None:
        """Look soon: somebody has done something, or has come."""
        self._dirty.set()


_MACHINE: Final = (
    "cpus", "load", "cpu_percent", "memory_total_bytes", "memory_available_bytes"
)  # fmt: skip
