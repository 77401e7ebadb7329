"""Carries messages to people, and calls the heartbeat's URL."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from everup.rooms.notify.actions import Message, Tell, Told
from everup.rooms.notify.config import Heartbeat, Route
from everup.rooms.notify.threads import own_subject
from everup.rooms.notify.ways import LaterError, RefusedError
from everup.tolerate.backoff import full
from everup.tolerate.retry import Retry

_TRIED_S: Final = 3600.0
_WORRIED_S: Final = 30.0
"""A route that has not taken a message for so long is a condition of its own."""


def prepare(spec: Any) -> None:
    """Import what the routes of the config need: later it may not be possible."""
    routes = getattr(spec, "route", {}).values()
    if any(r.webhook or r.webhook_file for r in routes) or spec.heartbeat.url_file:
        import everup.rooms.notify.ways.webhook
    if any(r.command for r in routes):
        import everup.rooms.notify.ways.command
    if any(r.email_to for r in routes):
        import everup.rooms.notify.ways.mail  # noqa: F401
    if any(r.apprise_file for r in routes):
        from everup.rooms.notify.ways import apprise

        apprise.load()


def _tell(action: Tell, host: Any) -> None:
    host.start(_deliver(action, host))


async def _deliver(action: Tell, host: Any) -> None:
    route: Route = host.spec.route[action.route]
    worry = asyncio.create_task(_worry(action.route, host))
    attempts, error = 0, ""
    try:
        for tried, failed in await asyncio.gather(
            *(_send(send, action.message) for send in _ways(route, host))
        ):
            attempts, error = max(attempts, tried), error or failed
    finally:
        worry.cancel()
    words = f"could not tell people: {error}" if error else "it takes messages again"
    host.report("unreached", own_subject(action.route), not error, words)
    host.dispatch(Told(action.route, action.message.id, error, attempts))


async def _worry(route: str, host: Any) -> None:
    await asyncio.sleep(_WORRIED_S)
    text = f"has not taken a message for {_WORRIED_S:g} s; it is tried again"
    host.report("unreached", own_subject(route), False, text)


async def _send(send: Callable[[Message], Awaitable[None]], message: Message) -> tuple[int, str]:
    """Try until it is taken, refused, or an hour has passed. Gives attempts and the error."""
    attempts = 0

    async def attempt() -> None:
        nonlocal attempts
        attempts += 1
        await send(message)

    retry = Retry(
        "route",
        attempts=None,
        total_s=_TRIED_S,
        backoff=full(base_s=1.0, cap_s=60.0),
        on=LaterError,
        max_delay_s=_TRIED_S,
    )
    try:
        await retry.acall(attempt)
    except (LaterError, RefusedError, OSError, ValueError) as error:
        return attempts, f"{error}"[:500]
    return attempts, ""


def _ways(route: Route, host: Any) -> list[Callable[[Message], Awaitable[None]]]:
    """Give the ways of a route; each takes a message."""
    found: list[Callable[[Message], Awaitable[None]]] = []
    if route.webhook or route.webhook_file:
        found.append(lambda message: _webhook(route, message, host))
    if route.command:
        found.append(lambda message: _command(route, message))
    if route.email_to:
        found.append(lambda message: _email(route, message, host))
    if route.apprise_file:
        found.append(lambda message: _apprise(route, message, host))
    return found


async def _webhook(route: Route, message: Message, host: Any) -> None:
    from everup.rooms.notify.ways import webhook

    url = route.webhook or host.secret(route.webhook_file)
    secret = None if route.sign_file is None else host.secret(route.sign_file)
    await webhook.send(url, secret, message)


async def _command(route: Route, message: Message) -> None:
    from everup.rooms.notify.ways import command

    await command.send(route.command, message)


async def _email(route: Route, message: Message, host: Any) -> None:
    from everup.rooms.notify.ways import mail

    login = None
    if route.smtp_user is not None and route.smtp_password_file is not None:
        login = route.smtp_user, host.secret(route.smtp_password_file)
    await asyncio.to_thread(
        mail.send, route.smtp, route.smtp_tls, login, route.email_from, route.email_to, message
    )


async def _apprise(route: Route, message: Message, host: Any) -> None:
    from everup.rooms.notify.ways import apprise

    assert route.apprise_file is not None
    await apprise.send(host.secret_bytes(route.apprise_file).decode("utf-8", "replace"), message)


async def _beat(host: Any) -> None:
    """Call the heartbeat's URL while the engine answers."""
    table: Heartbeat = host.spec.heartbeat
    if table.url_file is None:
        return
    from everup.rooms.notify.ways import webhook

    while True:
        try:
            await host.status()
            await webhook.call(host.secret(table.url_file))
        except (OSError, ValueError, LaterError, RefusedError) as error:
            host.report("unreached", "heartbeat", False, f"could not be called: {error}"[:300])
        else:
            host.report("unreached", "heartbeat", True, "it is called again")
        await asyncio.sleep(table.interval)


SOURCES: Final = (_beat,)
PERFORMERS: Final = {Tell: _tell}
PREPARE: Final = prepare
