"""HTTP and JSON over a Unix socket. Only root and the user that runs everup may speak."""

import asyncio
import contextlib
import os
import shlex
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from aiohttp import web

from everup import __version__
from everup import app as rooms
from everup.adapters import aid_ground, aside, trusted
from everup.api import changes, malformed, observed, streams, view
from everup.api.backend import Backend
from everup.api.body import body_of
from everup.api.caller import caller, identify, needed, remember
from everup.api.commands import Refusal
from everup.api.key import BACKEND
from everup.api.metrics_page import metrics_page
from everup.api.openapi import openapi
from everup.api.operate import operate
from everup.kernel.manifest import load
from everup.kernel.step import DefectError
from everup.model.event import Down

_MAX_BODY = 64 * 1024
_FOLLOWERS_END_S = 0.2
_ACCOUNTS_S = 5.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve(backend: Backend, path: str) -> None:
    """Serve until cancelled."""
    runner = web.AppRunner(
        application(backend),
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,  # a follower that has gone must not be waited for,
        shutdown_timeout=_FOLLOWERS_END_S,  # nor one that is still there
        auto_decompress=False,  # see _guard
        logger=malformed.logger(),
    )
    await runner.setup()
    await web.SockSite(runner, _socket(backend, path)).start()
    if backend.engine.spec.everup.observer:
        await _open_to_observer(backend, runner)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _open_to_observer(backend: Backend, runner: web.AppRunner) -> None:
    """By a socket of its own the observer has fewer rights than who runs everup."""
    path = backend.place.observer_socket
    try:
        who = await aside.run(_ACCOUNTS_S, aid_ground.identity, backend.place)
        sock = _listen(path, 0o600 if who is None else 0o660)
        if who is not None:
            os.chown(path, -1, who[1])  # nobody else may write into the directory
    except OSError as error:
        malformed.logger().warning("the observer cannot reach everup: %s", error)
        return
    await web.SockSite(runner, sock).start()


def application(backend: Backend) -> web.Application:
    app = web.Application(middlewares=[_guard], client_max_size=_MAX_BODY)
    app[BACKEND] = backend
    app.router.add_get("/v1/status", _status)
    app.router.add_get("/v1/events", streams.events)
    app.router.add_get("/v1/logs", streams.logs)
    for name in ("start", "stop", "restart", "scale", "signal"):
        app.router.add_post(f"/v1/{name}", _command)
    app.router.add_post("/v1/down", _down)
    app.router.add_post("/v1/reload", _reload)
    app.router.add_post("/v1/reexec", _reexec)
    app.router.add_post("/v1/observed", observed.observed)
    app.router.add_post("/v1/ask", observed.ask)
    app.router.add_get("/v1/openapi.json", _openapi)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/v1/rooms", _rooms)
    for route in rooms.routes():
        app.router.add_route(route.method, route.path, load(route.handler))
    return app


def _socket(backend: Backend, path: str) -> socket.socket:
    """The one that an engine before us opened, so that clients can wait for us, and so that nothing
    need be written for it; else a new one."""
    held = backend.held("api")
    if held is not None and os.path.exists(path):
        sock = socket.socket(fileno=os.dup(held))
        sock.setblocking(False)
        return sock
    sock = _listen(path)
    backend.hold("api", sock.fileno())
    return sock


def _listen(path: str, mode: int = 0o600) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    trusted.bind(sock, path, mode)
    sock.listen(64)
    sock.setblocking(False)
    return sock


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check who speaks; turn what goes wrong into one form of answer."""
    who = identify(request)
    if not who.rights:
        return _error(403, f"{who.name} may not speak to this everup")
    remember(request, who)
    if needed(request) not in who.rights:
        return _error(403, f"{who.name} may not {needed(request).value}")
    try:
        if request.method != "GET" and request.app[BACKEND].leaving:
            raise Refusal(503, "everup is being replaced", "again in a moment")
        if request.method != "GET":
            _check_config(request)
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refusal(415, "the body is encoded", "send it as it is: JSON in UTF-8")
        return await handler(request)
    except aside.LateError as error:
        return _error(503, str(error), "everup status")
    except Refusal as refusal:
        return _error(refusal.status, str(refusal), refusal.hint)
    except web.HTTPException as error:
        return _error(error.status, error.reason)
    except DefectError as error:
        text = f"everup itself failed ({error}); services go on, and another engine takes over"
        return _error(500, text, "look: everup events; what was asked for may be half done")
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:
        malformed.logger().exception("%s %s", request.method, request.path)
        text = f"everup itself failed at this: {type(error).__name__}: {error}"
        return _error(500, text, "its log has more: everup.log in the state directory")


def _check_config(request: web.Request) -> None:
    """Two configs in one directory share a state directory: a command for the one must not touch
    the services of the other."""
    meant = unquote(request.headers.get("Everup-Config", ""))
    runs = request.app[BACKEND].place.config
    if "\0" in meant:
        raise Refusal(400, f"Everup-Config: {meant!r} is no path")
    if meant and os.path.realpath(meant) != os.path.realpath(runs):
        raise Refusal(
            409,
            f"the everup that runs here is that of {runs}, not of {meant}",
            f"everup -c {shlex.quote(runs)} ..., or give each a state_dir of its own",
        )


def _error(status: int, text: str, hint: str = "") -> web.Response:
    return web.json_response({"error": text, "hint": hint}, status=status)


async def _status(request: web.Request) -> web.Response:
    return web.json_response(view.status(request.app[BACKEND]))


async def _reload(request: web.Request) -> web.Response:
    body = await body_of(request)
    by = caller(request).name
    return web.json_response(await changes.reload(request.app[BACKEND], body, by))


async def _reexec(request: web.Request) -> web.Response:
    backend = request.app[BACKEND]
    argv, engine, version = changes.argvs(await body_of(request))
    if backend.engine.quitting:
        raise Refusal(409, "everup is stopping", "wait for it, then: everup up")
    problem = await aside.run(None, backend.try_out, argv, engine, version)
    if problem is not None:
        name = f"everup {version}" if version else "the new everup"
        raise Refusal(
            409,
            f"{name} cannot take over, and nothing was changed: {problem}",
            f"everup {__version__} goes on; look: everup status",
        )
    before = backend.journal.last_seq
    backend.replace(argv, engine, caller(request).name, version)
    return web.json_response({"after": before, "engine": {"pid": os.getpid()}})


async def _command(request: web.Request) -> web.Response:
    body = await body_of(request)
    name = request.path.rpartition("/")[2]
    by = caller(request).name
    return web.json_response(await operate(request.app[BACKEND], name, body, by))


async def _down(request: web.Request) -> web.Response:
    backend = request.app[BACKEND]
    before = backend.journal.last_seq
    asyncio.get_running_loop().call_soon(backend.dispatch, Down(by=caller(request).name))
    return web.json_response({"after": before, "keeper": {"pid": backend.keeper_pid}})


async def _openapi(_request: web.Request) -> web.Response:
    return web.json_response(openapi())


async def _rooms(request: web.Request) -> web.Response:
    shown = request.app[BACKEND].engine.kernel.rooms.items()
    return web.json_response({name: dict(room.view()) for name, room in shown})


async def _metrics(request: web.Request) -> web.Response:
    body, content_type = metrics_page(request.app[BACKEND])
    return web.Response(body=body, headers={"Content-Type": content_type})
