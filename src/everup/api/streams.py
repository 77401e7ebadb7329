"""Events and logs, also as they come: newline-delimited JSON."""

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from everup.adapters import journal
from everup.adapters.logs import Follower, LogLine, tail
from everup.api import view
from everup.api.commands import Refusal
from everup.api.view import Backend
from everup.model.instance import Slot

_NDJSON = "application/x-ndjson"
_POLL_S = 0.2
_PAGE = 1000
MAX_LINES = 100_000


def _backend(request: web.Request) -> Backend:
    from everup.api.server import BACKEND

    return request.app[BACKEND]


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdigit() or int(text) > most:
        raise Refusal(400, f"{name}={text}: expected a whole number up to {most}")
    return int(text)


def _moment(request: web.Request, name: str) -> float | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise Refusal(400, f"{name}={text}: expected a time like 2026-11-22T22:53:01Z") from None


async def events(request: web.Request) -> web.StreamResponse:
    """The journal, filtered; with ``follow`` it goes on with what comes."""
    backend = _backend(request)
    after = _number(request, "after", 0, 2**62)
    last = _number(request, "n", 0, MAX_LINES) or None
    filters: dict[str, Any] = {
        "subjects": request.query.getall("service", []),
        "kinds": request.query.getall("kind", []),
        "since": _moment(request, "since"),
        "until": _moment(request, "until"),
    }
    path = Path(backend.place.journal)
    follow = request.query.get("follow") == "1"
    wake = asyncio.Event()
    listener = lambda _entries: wake.set()  # noqa: E731
    backend.journal.listeners.append(listener)
    response = web.StreamResponse(headers={"Content-Type": _NDJSON})
    try:
        page = await asyncio.to_thread(journal.read, path, after=after, last=last, **filters)
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
            page = await asyncio.to_thread(journal.read, path, after=after, limit=_PAGE, **filters)
    finally:
        backend.journal.listeners.remove(listener)
    await response.write_eof()
    return response


async def logs(request: web.Request) -> web.StreamResponse:
    """Output lines of all named instances, merged by time."""
    backend = _backend(request)
    slots = _log_slots(request, backend)
    count = _number(request, "n", 100, MAX_LINES)
    follow = request.query.get("follow") == "1"
    directory = Path(backend.place.logs)
    follower = await asyncio.to_thread(Follower, directory, slots) if follow else None
    lines = await asyncio.to_thread(tail, directory, slots, count) if count else []
    response = web.StreamResponse(headers={"Content-Type": _NDJSON})
    await response.prepare(request)
    while True:
        if lines:
            await response.write(b"".join(_line(line) for line in lines))
        if follower is None:
            break
        if not lines:
            await asyncio.sleep(_POLL_S)
        lines = await asyncio.to_thread(follower.poll)
    await response.write_eof()
    return response


def _log_slots(request: web.Request, backend: Backend) -> list[str]:
    wanted = request.query.getall("service", [])
    slots = [str(slot) for slot in backend.engine.instances]
    if not wanted:
        return slots
    chosen = [s for s in slots if s in wanted or Slot.parse(s).service in wanted]
    if not chosen:
        raise Refusal(404, f"there is no service or instance {', '.join(wanted)}")
    return chosen


def _line(line: LogLine) -> bytes:
    payload = {
        "time": view.utc(line.time_ns / 1e9),
        "time_ns": line.time_ns,
        "slot": line.slot,
        "stream": line.stream,
        "text": line.text.decode("utf-8", "backslashreplace"),
    }
    return json.dumps(payload).encode() + b"\n"
