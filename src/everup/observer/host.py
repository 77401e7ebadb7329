"""The observer process: its rooms on an asyncio loop, and what brings the world to them."""

import asyncio
import collections
import contextlib
import json
import os
import random
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from everup import app, edges
from everup.config import explain
from everup.kernel.ctx import Outbox
from everup.kernel.manifest import load
from everup.kernel.room import Room
from everup.kernel.step import Kernel
from everup.model.action import Record
from everup.model.aid import ANEW
from everup.model.event import Tick
from everup.model.incident import Incident
from everup.model.journal import Entry
from everup.model.spec import Spec
from everup.observer.events import Journaled, Reported, Resumed
from everup.observer.link import Link, RefusedError
from everup.observer.secrets import Secrets
from everup.observer.world import View

DEFECT, ALONE = 72, 0
"""Exit statuses: a step failed; nobody is left to observe for."""
_PAST_S = 86400.0
_MOST_PAST = 50_000
_MOST_UNSENT = 10_000
_BATCH = 200
_RECENT = 5000
_AGAIN_S = 0.5
_BEAT_S = 1.0
_CANCEL_AGAIN_S = 0.5
_FORBIDDEN = 403
_CONFIG_KINDS = ("config.reloaded", "config.rolled_back")


class Host:
    """One observer, from its first entry to its last. It is the ``Feed`` of the integrations."""

    def __init__(
        self,
        spec: Spec,
        place: Any,
        beat_fd: int,
        folder: str,
        secrets: Secrets | None = None,
        read_at: float | None = None,
    ) -> None:
        """``read_at``: when the config was read, in seconds since the epoch."""
        self.spec = spec
        self._read_at = time.time() if read_at is None else read_at
        self.place = place
        self.link = Link(place.observer_socket)
        self.world = View(spec, socket.gethostname())
        self._beat_fd = beat_fd
        self._folder = folder
        self._secrets = secrets or Secrets()
        self.box = Outbox()
        rooms: dict[str, Room] = {
            room.name: load(room.room)() for room in app.hosted("observer") if room.room
        }
        self.kernel: Kernel[View] = Kernel(rooms, self.world, self.box, random.random)
        self._performers = edges.performers("edge", "observer")
        self._events: collections.deque[Any] = collections.deque()
        self._handling = False
        self._past = True
        self._unsent: collections.deque[Record] = collections.deque()
        self._to_send = asyncio.Event()
        self._all_sent = asyncio.Event()
        self.lost = 0
        """Entries that could not be kept until the engine took them."""
        self._timer: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[int] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.last_seq = 0
        self.recent: collections.deque[Entry] = collections.deque(maxlen=_RECENT)
        """The newest entries, for whoever looks for causes."""

    # -- life

    async def run(self) -> int:
        """Run until the engine asks to end, the config changes, or a step fails."""
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        self._beat(loop)
        self.start(self._observe())
        try:
            return await self._ended
        finally:
            await end_all(self._tasks)
            await self.link.close()

    def end(self, status: int) -> None:
        """Leave with that exit status."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(status)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine until the observer ends; one that fails is told, and not missed."""
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            traceback.print_exception(error)

    def say(self, text: str) -> None:
        """Tell whoever reads everup's own log."""
        sys.stderr.write(f"everup observer: {text}\n")
        sys.stderr.flush()

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            os.write(self._beat_fd, b".")
        except BlockingIOError:
            pass
        except OSError:  # neither a keeper nor an engine is left
            self.end(ALONE)
            return
        loop.call_later(_BEAT_S, self._beat, loop)

    # -- the journal

    async def _observe(self) -> None:
        after = await self._resume()
        self.start(self._send())
        for source in edges.sources("observer"):
            self.start(self._guarded(source))
        async for batch in self.link.entries(after):
            for entry in batch:
                self._take(entry, past=False)
                if entry.kind in _CONFIG_KINDS:
                    self.end(ANEW)

    async def _guarded(self, source: edges.Source) -> None:
        """A source that fails is started again, more and more slowly; the others go on."""
        delay_s = 1.0
        while True:
            began = time.monotonic()
            try:
                await source(self)
                return
            except Exception as error:
                where = f"{source.__module__}.{source.__qualname__}"
                self.say(f"{where} failed: {type(error).__name__}: {error}")
                traceback.print_exception(error)
            delay_s = 1.0 if time.monotonic() - began > 60.0 else min(60.0, 2 * delay_s)
            await asyncio.sleep(delay_s)

    async def _resume(self) -> int:
        """Tell the rooms of the past, and give the number of its last entry."""
        while True:
            try:
                status = await self.link.get("/v1/status")
                own = [
                    ("kind", kind.value) for room in app.hosted("observer") for kind in room.kinds
                ]
                last = int(status["last_seq"])
                since = time.time() - _PAST_S
                recent = await self.link.read([("since", _iso(since)), ("n", str(_MOST_PAST))])
                older = await self._older(own)
                break
            except (OSError, RefusedError) as error:
                self.say(f"waiting for the engine: {error}")
                await asyncio.sleep(_AGAIN_S)
        known = {entry.seq for entry in recent}
        past = [*(entry for entry in older if entry.seq not in known), *recent]
        for entry in sorted(past):
            self._take(entry, past=True)
            if entry.kind in _CONFIG_KINDS and entry.time >= self._read_at:
                self.end(ANEW)  # while we were starting
        names = {i["slot"] for s in status["services"] for i in s["instances"] + s["outgoing"]}
        self.world.keep(names)
        self._past = False
        self.dispatch(Resumed(time.time()))
        return max([last, *(entry.seq for entry in past)])

    async def _older(self, kinds: Sequence[tuple[str, str]]) -> list[Entry]:
        """Read all of the rooms' own kinds. An engine of a version before may not know some."""
        try:
            return await self.link.read(kinds) if kinds else []
        except RefusedError:
            found = []
            for kind in kinds:
                with contextlib.suppress(RefusedError):
                    found += await self.link.read([kind])
            return found

    def _take(self, entry: Entry, *, past: bool) -> None:
        self.last_seq = max(self.last_seq, entry.seq)
        self.world.take(entry)
        self.recent.append(entry)
        self.dispatch(Journaled(entry, past))

    # -- events in, actions out

    def dispatch(self, event: Any) -> None:
        """Run one event, and what follows from carrying out its actions. A defect ends the
        process, and the next one rebuilds its state from the journal."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                event = self._events.popleft()
                now = time.monotonic()
                self.world.offset_s = time.time() - now
                actions = self.kernel.handle(event, now)
                if not self._past:
                    self._perform(actions)
        except Exception as error:
            self.say(f"a step failed by everup's own fault: {type(error).__name__}: {error}")
            traceback.print_exception(error)
            self.end(DEFECT)
        finally:
            self._handling = False
        self._arm()

    def _perform(self, actions: Sequence[Any]) -> None:
        for action in actions:
            if isinstance(action, Record):
                if len(self._unsent) >= _MOST_UNSENT:
                    self._unsent.popleft()
                    self.lost += 1
                self._unsent.append(action)
                self._to_send.set()
                self._all_sent.clear()
            else:
                self._performers[type(action)](action, self)

    def _arm(self) -> None:
        due = self.kernel.next_deadline()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None and not self._past:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.box.fire(time.monotonic())
        self.dispatch(Tick())

    # -- entries of our own

    async def written(self) -> None:
        """Wait until the engine has all entries that the rooms have written so far."""
        await self._all_sent.wait()

    async def _send(self) -> None:
        while True:
            self._all_sent.set()
            await self._to_send.wait()
            self._to_send.clear()
            while self._unsent:
                batch = [self._unsent[n] for n in range(min(_BATCH, len(self._unsent)))]
                await self._put(batch)
                for _ in batch:
                    self._unsent.popleft()

    async def _put(self, batch: Sequence[Record]) -> None:
        """Have them journaled, each once: an engine may die after it has written and before it has
        answered."""
        told = [{"kind": str(r.kind), "subject": r.subject, "payload": r.payload} for r in batch]
        # As they are read back, where they are written already: a tuple is a list by then.
        left: list[dict[str, Any]] = json.loads(json.dumps(told))
        before, again = self.last_seq, False
        while left:
            try:
                if again:
                    left = await self._missing(left, before)
                again = True
                if left:
                    await self.link.post("/v1/observed", {"entries": left})
                return
            except RefusedError as error:
                self.say(f"the engine does not take {left!r:.300}: {error}")
                return
            except OSError:
                await asyncio.sleep(_AGAIN_S)

    async def _missing(self, left: list[dict[str, Any]], after: int) -> list[dict[str, Any]]:
        found = await self.link.read([("after", str(after))])
        written = [(e.kind, e.subject, e.payload) for e in found]
        return [x for x in left if (x["kind"], x["subject"], x["payload"]) not in written]

    # -- the feed

    @property
    def node(self) -> str:
        return self.world.node

    def folder(self, name: str) -> Path:
        path = Path(self._folder) / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def secret(self, path: str) -> str:
        return self._secrets.text(path)

    def secret_bytes(self, path: str) -> bytes:
        return self._secrets.bytes(path)

    def table(self, key: str) -> Any:
        return getattr(self.spec, key, None)

    def entries(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        return self.link.entries(after)

    async def status(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = await self.link.get("/v1/status")
        return found

    async def select(self, query: Sequence[tuple[str, str]]) -> Sequence[Entry]:
        try:
            return await self.link.read(query)
        except RefusedError as error:
            raise ValueError(str(error)) from error

    async def output(self, subject: str, most: int) -> Sequence[Mapping[str, Any]]:
        try:
            return await self.link.lines("/v1/logs", (("service", subject), ("n", str(most))))
        except RefusedError as error:
            raise ValueError(str(error)) from error

    def config(self) -> str:
        return explain(self.spec)

    async def console(self, what: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            found: Mapping[str, Any] = await self.link.post(f"/v1/console/{what}", body)
        except RefusedError as error:
            kind = PermissionError if error.status == _FORBIDDEN else ValueError
            raise kind(str(error)) from error
        return found

    def incidents(self) -> Sequence[Incident]:
        room: Any = self.kernel.rooms["incidents"]
        return tuple(room.incidents.values())

    def report(self, kind: str, subject: str, ok: bool, text: str) -> None:
        self.dispatch(Reported(kind, subject, ok, text, time.time()))

    def acknowledge(self, number: int, by: str, note: str = "") -> None:
        found = next((i for i in self.incidents() if i.number == number), None)
        if found is None or found.resolved_at is not None or found.acknowledged_by:
            return
        payload = {"number": number, "by": by, "note": note}
        self._perform([Record(app.kinds()["incidents.acknowledged"], found.subject, payload)])

    async def ask(self, command: str, subject: str, why: str, replicas: int | None = None) -> None:
        body: dict[str, Any] = {"command": command, "targets": [subject], "why": why}
        if replicas is not None:
            body["replicas"] = replicas
        try:
            await self.link.post("/v1/ask", body)
        except RefusedError as error:
            raise PermissionError(str(error)) from error


async def end_all(tasks: Set[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended: one may lose a cancellation that comes together with what
    it waits for, and an observer that does not end goes on by the old config."""
    while left := {task for task in tasks if not task.done()}:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_CANCEL_AGAIN_S)


def _iso(seconds: float) -> str:
    from datetime import UTC, datetime

    with contextlib.suppress(OverflowError):
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    return "1970-01-01T00:00:00+00:00"
