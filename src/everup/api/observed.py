"""What the observer brings: entries for the journal, and what it asks for."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from everup import app
from everup.api.body import body_of
from everup.api.caller import caller
from everup.api.commands import Refusal, slots_of
from everup.api.key import BACKEND
from everup.engine import guard
from everup.kernel.manifest import Manifest
from everup.model.entry import EntryKind
from everup.model.event import Event, Restart, Scale, Start, Stop
from everup.model.instance import Slot

_MOST = 200
_SUBJECT, _WHY = 200, 500
_MOST_REPLICAS = 1000
_Asked = type[Start] | type[Stop] | type[Restart]
_EVENTS: dict[str, _Asked] = {"start": Start, "stop": Stop, "restart": Restart}


async def observed(request: web.Request) -> web.Response:
    """Write entries of the observer's own kinds to the journal, in order, all or none."""
    backend = request.app[BACKEND]
    body = await body_of(request)
    found = body.get("entries")
    if not isinstance(found, list) or len(found) > _MOST:
        raise Refusal(400, f"entries: expected a list of at most {_MOST}")
    entries = [_entry(item) for item in found]
    for kind, subject, payload in entries:
        backend.write(kind, subject, payload)
    return web.json_response({"last_seq": backend.journal.last_seq})


def _entry(item: Any) -> tuple[EntryKind[Any], str, Any]:
    if not isinstance(item, dict):
        raise Refusal(400, f"entries: {item!r:.100} is no object")
    kind = _kinds().get(str(item.get("kind")))
    if kind is None:
        known = ", ".join(_kinds())
        raise Refusal(400, f"kind = {item.get('kind')!r:.100}: the observer may write {known}")
    subject, payload = item.get("subject"), item.get("payload")
    if not isinstance(subject, str) or not 0 < len(subject) <= _SUBJECT:
        raise Refusal(400, f"subject: expected a text of at most {_SUBJECT} characters")
    if not isinstance(payload, dict):
        raise Refusal(400, f"payload of {kind}: expected an object")
    try:
        return kind, subject, kind.decode(payload)
    except TypeError as error:
        raise Refusal(400, f"payload of {kind}: {error}") from None


def _kinds() -> dict[str, EntryKind[Any]]:
    rooms: tuple[Manifest, ...] = app.hosted("observer")
    return {kind.value: kind for room in rooms for kind in room.kinds}


async def ask(request: web.Request) -> web.Response:
    """Do what everup itself wants done, if the guard lets it."""
    backend = request.app[BACKEND]
    body = await body_of(request)
    name, why = body.get("command"), body.get("why")
    if name not in (*_EVENTS, "scale"):
        known = ", ".join((*_EVENTS, "scale"))
        raise Refusal(400, f"command = {name!r:.100}: expected one of {known}")
    if not isinstance(why, str) or not 0 < len(why) <= _WHY:
        raise Refusal(400, f"why: expected a text of at most {_WHY} characters")
    if not body.get("targets"):
        raise Refusal(400, "targets: expected a list of services or instances")
    slots = slots_of(body["targets"], backend.engine)
    by = f"{caller(request).name}: {why}"
    if name == "scale":
        event: Event = _scale(slots, body.get("replicas"), by)
        if backend.engine.services[slots[0].service].singleton:
            raise Refusal(409, "not done: a singleton is not scaled")
        refused = guard.refusal(backend.engine, "start", slots, backend.now())
    else:
        event = _EVENTS[name](slots, by)
        refused = guard.refusal(backend.engine, name, slots, backend.now())
    if refused:
        raise Refusal(409, f"not done: {refused}")
    before = backend.journal.last_seq
    backend.dispatch(event)
    return web.json_response({"slots": [str(slot) for slot in slots], "after": before})


def _scale(slots: Sequence[Slot], replicas: Any, by: str) -> Scale:
    services = {slot.service for slot in slots}
    if len(services) != 1:
        raise Refusal(400, "targets: expected one service to scale")
    if (
        not isinstance(replicas, int)
        or isinstance(replicas, bool)
        or not 1 <= replicas <= _MOST_REPLICAS
    ):
        raise Refusal(400, f"replicas = {replicas!r:.50}: expected 1 to {_MOST_REPLICAS}")
    return Scale(services.pop(), replicas, by)
