"""The engine's half of the console: it alone knows whose session is good, and acts by nothing else.

The observer, which faces the network, brings with each act the two secrets of the session that
asks for it. So one that was taken over can do no more than those who use it meanwhile. What is
good is kept in memory that the keeper holds, so that it outlives the engine and touches no disk.
"""

import os
import secrets
import time
from typing import Any, Final

from aiohttp import web

from everup import app
from everup.api.backend import Backend
from everup.api.body import body_of
from everup.api.caller import caller
from everup.api.commands import Refusal, slots_of
from everup.api.key import BACKEND
from everup.api.operate import operate
from everup.model.display import shown_line
from everup.rooms.console.entries import ACTED, OPENED, Acted, Opened
from everup.rooms.console.sessions import TICKET_S, Session, Sessions

_HELD: Final = "console"
_MOST_BYTES: Final = 64 << 10
_SECRET_BYTES: Final = 32
_USER, _WHY, _SECRET = 64, 500, 200
_ON_SERVICES: Final = ("start", "stop", "restart")
_ON_INCIDENTS: Final[dict[str, tuple[str, dict[str, bool]]]] = {
    "ack": ("incidents.acknowledged", {}),
    "approve": ("recover.answered", {"yes": True}),
    "deny": ("recover.answered", {"yes": False}),
}
"""What is said of an incident, as the commands of the same names do: a kind of entry."""
_SILENCE: Final = "silence"
_SILENCE_S: Final = (60, 7 * 86400)
_COMMANDS: Final = (*_ON_SERVICES, *_ON_INCIDENTS, _SILENCE)


async def ticket(request: web.Request) -> web.Response:
    """Make a link that is good once."""
    backend = request.app[BACKEND]
    body = await body_of(request)
    user = shown_line(_text(body, "user", _USER, caller(request).name)).strip()
    listen = getattr(getattr(backend.engine.spec, "console", None), "listen", None)
    if listen is None:
        hint = 'write [console] listen = "127.0.0.1:7077" into the config, then: everup reload'
        raise Refusal(409, "there is no console: the config does not say where", hint)
    if not backend.engine.spec.everup.observer:
        hint = "take observer = false out of [everup]"
        raise Refusal(409, "there is no console: the observer is off, which serves it", hint)
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    sessions = _load(backend)
    sessions.ticket(secret, user or caller(request).name, time.monotonic())
    _save(backend, sessions)
    return web.json_response({"ticket": secret, "listen": listen, "good_s": TICKET_S})


async def redeem(request: web.Request) -> web.Response:
    """Begin a session by such a link."""
    backend = request.app[BACKEND]
    body = await body_of(request)
    now = time.monotonic()
    key, token = (secrets.token_urlsafe(_SECRET_BYTES) for _ in range(2))
    sessions = _load(backend)
    session = sessions.redeem(_text(body, "ticket", _SECRET), key, token, now)
    if session is None:
        raise Refusal(403, "this link was used, or is too old", "another one: everup console")
    _save(backend, sessions)
    backend.write(OPENED, "console", Opened(session.user))
    return web.json_response({"session": key, "token": token, **_plain(session, now)})


async def session(request: web.Request) -> web.Response:
    """Say whose session this is."""
    _, found, now = await _whose(request)
    return web.json_response(_plain(found, now))


async def close(request: web.Request) -> web.Response:
    """End a session."""
    backend = request.app[BACKEND]
    body, _, now = await _whose(request)
    sessions = _load(backend)
    sessions.close(body["session"], body["token"], now)
    _save(backend, sessions)
    return web.json_response({})


async def act(request: web.Request) -> web.Response:
    """Do what the owner of a session asks, with the rights of an operator."""
    backend = request.app[BACKEND]
    body, found, _ = await _whose(request)
    name, target, why = body.get("command"), body.get("target"), _text(body, "why", _WHY, "")
    why = shown_line(why).strip()
    if name not in _COMMANDS:
        raise Refusal(400, f"command = {name!r:.100}: expected one of {', '.join(_COMMANDS)}")
    if not why:
        raise Refusal(400, "why: expected a reason", "the journal keeps it for who comes later")
    if name in _ON_INCIDENTS or name == _SILENCE:
        return web.json_response(_say(backend, str(name), body, found.user, why))
    if not isinstance(target, str):
        raise Refusal(400, f"target = {target!r:.100}: expected a service or an instance")
    slots_of([target], backend.engine)  # refuses what there is not
    backend.write(ACTED, target, Acted(found.user, str(name), why))
    by = f"{found.user} in the console: {why}"
    return web.json_response(await operate(backend, str(name), {"targets": [target]}, by))


def _say(backend: Backend, name: str, body: dict[str, Any], user: str, why: str) -> dict[str, Any]:
    number, subject = body.get("number"), _text(body, "target", _SECRET)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise Refusal(400, f"number = {number!r:.100}: expected the number of an incident")
    if name == _SILENCE:
        value, subject = "notify.silenced", str(number)
        said = {"until": round(time.time() + _span(body)), "by": user, "why": why}
    else:
        value, more = _ON_INCIDENTS[name]
        said = {"number": number, "by": user, "note": why, **more}
    kind = app.kinds()[value]
    before = backend.journal.last_seq
    backend.write(kind, subject or "incidents", kind.decode(said))
    return {"after": before}


def _span(body: dict[str, Any]) -> int:
    found, (least, most) = body.get("for_s"), _SILENCE_S
    if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= most:
        raise Refusal(400, f"for_s = {found!r:.100}: expected {least} to {most} seconds")
    return found


async def _whose(request: web.Request) -> tuple[dict[str, Any], Session, float]:
    body = await body_of(request)
    now = time.monotonic()
    key, token = _text(body, "session", _SECRET), _text(body, "token", _SECRET)
    found = _load(request.app[BACKEND]).find(key, token, now)
    if found is None:
        raise Refusal(403, "there is no such session, or no longer", "everup console")
    return body, found, now


def _text(body: dict[str, Any], name: str, most: int, default: str | None = None) -> str:
    found = body.get(name, default)
    if not isinstance(found, str) or len(found) > most:
        raise Refusal(400, f"{name}: expected a text of at most {most} characters")
    return found


def _plain(session: Session, now: float) -> dict[str, Any]:
    return {"user": session.user, "left_s": round(session.until - now, 3)}


def _load(backend: Backend) -> Sessions:
    held = backend.held(_HELD)
    if held is None:
        return Sessions()
    try:
        return Sessions.load(os.pread(held, _MOST_BYTES, 0))
    except OSError:
        return Sessions()


def _save(backend: Backend, sessions: Sessions) -> None:
    """Into new memory each time: an engine that is killed in the middle of it loses nothing."""
    memory = os.memfd_create(f"everup-{_HELD}", os.MFD_CLOEXEC)
    try:
        os.pwrite(memory, sessions.dump(), 0)
        backend.hold(_HELD, memory)
    finally:
        os.close(memory)
