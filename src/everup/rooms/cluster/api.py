"""The engine's half of the cluster: what the observer says of each singleton comes in here, and
how they stand here goes out."""

import math
import time
from typing import Any, Final
from weakref import WeakKeyDictionary

from aiohttp import web

from everup.api.backend import Backend
from everup.api.body import body_of
from everup.api.commands import Refusal
from everup.api.key import BACKEND
from everup.engine import guard, leasing
from everup.model.event import Leased

_MOST_SAID: Final = 1000
_LONGEST_S: Final = 3600.0
_SEEN: Final[WeakKeyDictionary[Backend, dict[str, Any]]] = WeakKeyDictionary()
"""How the cluster stood when the observer saw it last, and when that was."""


async def shown(request: web.Request) -> web.Response:
    """Give how the cluster stood when the observer saw it last, and how its singletons stand on
    this machine."""
    backend = request.app[BACKEND]
    seen = _SEEN.get(backend, {})
    engine = backend.engine
    local = {
        name: leasing.local(engine, name)
        for name, service in engine.services.items()
        if service.singleton
    }
    at = seen.get("at")
    return web.json_response(
        {
            "view": seen.get("view"),
            "age_s": None if at is None else round(time.monotonic() - at, 3),
            "leaving": engine.quitting,
            "local": local,
        }
    )


async def tell(request: web.Request) -> web.Response:
    """Take whose each singleton is. What was not given to this machine yet passes the guard."""
    backend = request.app[BACKEND]
    body = await body_of(request)
    says, view = body.get("says"), body.get("view")
    if not isinstance(says, list) or len(says) > _MOST_SAID or not isinstance(view, dict):
        raise Refusal(400, f"expected says, a list of at most {_MOST_SAID}, and view, an object")
    left_s = _number(body, "until") - time.clock_gettime(time.CLOCK_BOOTTIME)
    margin_s = max(0.0, _number(body, "margin_s"))
    refused: dict[str, str] = {}
    for said in says:
        event = _event(said, left_s, margin_s, backend)
        if event is None:  # of a config that is not, or no more, in force
            continue
        why = _refusal(event, backend)
        if why:
            refused[event.service] = why
            event = leasing.given_up(event)
        backend.dispatch(event)
    _SEEN[backend] = {"view": view, "at": time.monotonic()}
    return web.json_response({"refused": refused})


def _refusal(event: Leased, backend: Backend) -> str:
    """Why the guard does not start what this machine has just got; "": nothing of the kind."""
    engine = backend.engine
    lease = engine.leases.get(event.service)
    known = lease is not None and lease.token == event.token
    mine = engine.all_of(event.service)
    if not event.token or event.yields or known or any(i.state.alive for i in mine):
        return ""
    return guard.refusal(engine, "start", [i.slot for i in mine], backend.now())


def _event(said: Any, left_s: float, margin_s: float, backend: Backend) -> Leased | None:
    name = said.get("service") if isinstance(said, dict) else None
    if not isinstance(name, str):
        raise Refusal(400, f"says: {said!r:.80} names no service")
    service = backend.engine.services.get(name)
    if service is None or not service.singleton:
        return None
    token, yields = said.get("token"), said.get("yields", False)
    if not isinstance(token, int) or isinstance(token, bool) or token < 0:
        raise Refusal(400, f"says: token = {token!r:.40}: expected a whole number")
    if not isinstance(yields, bool):
        raise Refusal(400, f"says: yields = {yields!r:.40}: expected true or false")
    if token and left_s > _LONGEST_S:
        raise Refusal(400, f"until is {left_s:g} s from now: expected at most {_LONGEST_S:g}")
    boot = time.clock_gettime(time.CLOCK_BOOTTIME) + left_s
    until = backend.now() + left_s
    return Leased(service.name, token, until, boot, until - margin_s, yields)


def _number(body: Any, key: str) -> float:
    found = body.get(key)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise Refusal(400, f"{key} = {found!r:.40}: expected a number")
    return float(found)
