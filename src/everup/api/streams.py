"""Events and logs, also as they come: newline-delimited JSON."""

import asyncio
import base64
import contextlib
import fnmatch
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from everup import app
from everup.adapters import aside, journal
from everup.adapters.logs import Follower, LogLine, tail
from everup.api import view
from everup.api.backend import Backend
from everup.api.commands import Refusal, did_you_mean, slots_of, unknown
from everup.api.key import BACKEND
from everup.model.journal import Entry, Kind

_NDJSON = "application/x-ndjson"
_POLL_S = 0.2
_JOURNAL_S, _LOGS_S, _FLUSH_S = 30.0, 60.0, 0.2
_PAGE = 1000
_MAX_FILTERS = 200  # SQLite takes no more than 500
MAX_LINES = 100_000
T = TypeVar("T")


def _backend(request: web.Request) -> Backend:
    return request.app[BACKEND]


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= most):
        raise Refusal(400, f"{name}={text}: expected a whole number up to {most}")
    return int(text)


def _moment(request: web.Request, name: str) -> float | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise Refusal(400, f"{name}={text}: expected a time like 2026-11-22T22:53:01Z") from None


async def events(request: web.Request) -> web.StreamResponse:
    """The journal, filtered; with ``follow`` it goes on with what comes."""
    backend = _backend(request)
    after = _number(request, "after", 0, 2**62)
    last = _number(request, "n", 0, MAX_LINES) if "n" in request.query else None
    filters: dict[str, Any] = {
        "subjects": request.query.getall("service", []),
        "kinds": request.query.getall("kind", []),
        "since": _moment(request, "since"),
        "until": _moment(request, "until"),
    }
    path = Path(backend.place.journal)
    if len(filters["subjects"]) + len(filters["kinds"]) > _MAX_FILTERS:
        raise Refusal(400, f"too many filters: at most {_MAX_FILTERS}")
    check_kinds(filters["kinds"])
    await aside.run(_JOURNAL_S, _settle, filters["subjects"], backend, path)
    follow = request.query.get("follow") == "1"
    wake = asyncio.Event()
    loop = asyncio.get_running_loop()

    def listener(_entries: Sequence[Entry]) -> None:  # called by the journal's thread
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(wake.set)

    backend.journal.listeners.append(listener)
    response = web.StreamResponse(headers={"Content-Type": _NDJSON})
    try:
        if last == 0:
            page, after = [], max(after, backend.journal.last_seq)
        else:
            page = await aside.run(_JOURNAL_S, _read, path, after=after, last=last, **filters)
        await response.prepare(request)
        while True:
            for entry in page:
                await response.write(json.dumps(view.entry(entry)).encode() + b"\n")
                after = max(after, entry.seq)
            if len(page) < _PAGE or last is not None:
                last = None
                if not follow:
                    break
                await wake.wait()
                wake.clear()
            page = await aside.run(_JOURNAL_S, _read, path, after=after, limit=_PAGE, **filters)
    finally:
        backend.journal.listeners.remove(listener)
    await response.write_eof()
    return response


def _read(path: Path, **filters: Any) -> list[Entry]:
    try:
        return journal.read(path, **filters)
    except sqlite3.Error as error:
        raise Refusal(500, f"the journal {path} cannot be read: {error}") from error


def check_kinds(patterns: list[str]) -> None:
    known = [*(kind.value for kind in Kind), *app.kinds()]
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            hint = did_you_mean(pattern, known) or f"there are: {', '.join(known)}"
            raise Refusal(400, f"there is no kind of event {pattern!r}", hint)


def _settle(names: list[str], backend: Backend, path: Path) -> None:
    """What has happened is to be read. A name must be known now, or have been: the journal
    outlives a service."""
    backend.journal.flush(_FLUSH_S)
    for name in names:
        now = {*backend.engine.services, *map(str, backend.engine.instances)}
        if name not in now and not _read(path, subjects=[name], last=1):
            raise unknown(name, backend.engine)


async def logs(request: web.Request) -> web.StreamResponse:
    """Output lines of all named instances, merged by time."""
    backend = _backend(request)
    wanted = request.query.getall("service", [])
    slots_of(wanted, backend.engine)  # refuses unknown names
    count = _number(request, "n", 100, MAX_LINES)
    directory = Path(backend.place.logs)
    response = web.StreamResponse(headers={"Content-Type": _NDJSON})
    if request.query.get("follow") == "1":
        await _follow_logs(request, response, wanted, count)
    else:
        chosen = _chosen(wanted, backend)
        lines = await aside.run(_LOGS_S, tail, directory, chosen, count)
        await response.prepare(request)
        await response.write(b"".join(line_json(line) for line in lines))
    await response.write_eof()
    return response


async def _follow_logs(
    request: web.Request, response: web.StreamResponse, wanted: list[str], count: int
) -> None:
    """Until the client has gone; also with instances that are added meanwhile."""
    backend = _backend(request)
    directory, began_ns = Path(backend.place.logs), time.time_ns()
    followed: set[str] = set()
    with contextlib.ExitStack() as followers:
        polls: list[Callable[[], list[LogLine]]] = []
        while True:
            lines: list[LogLine] = []
            new = [slot for slot in _chosen(wanted, backend) if slot not in followed]
            if new:
                follower = await _in_thread(Follower, directory, new, last=count)
                followers.enter_context(follower)
                polls.append(follower.poll)
                lines += [x for x in follower.history if not followed or x.time_ns >= began_ns]
                followed.update(new)
            for poll in polls:
                lines += await _in_thread(poll)
            if not response.prepared:
                await response.prepare(request)
            if lines:
                lines.sort(key=lambda line: line.time_ns)
                await response.write(b"".join(line_json(line) for line in lines))
            else:
                await asyncio.sleep(_POLL_S)


def _chosen(wanted: list[str], backend: Backend) -> list[str]:
    """The instances that are named, as far as they are there by now."""
    return [
        str(slot)
        for slot in backend.engine.instances
        if not wanted or str(slot) in wanted or slot.service in wanted
    ]


async def _in_thread(call: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """In a thread, and cancelled only once that is done with what it uses."""
    task = asyncio.create_task(aside.run(None, call, *arguments, **options))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def line_json(line: LogLine) -> bytes:
    payload: dict[str, Any] = {
        "time": view.utc(line.time_ns / 1e9),
        "time_ns": line.time_ns,
        "slot": line.slot,
        "stream": line.stream,
        "text": line.text.decode("utf-8", "backslashreplace"),
    }
    try:
        line.text.decode()
    except UnicodeDecodeError:
        payload["text_base64"] = base64.b64encode(line.text).decode()
    return json.dumps(payload).encode() + b"\n"
