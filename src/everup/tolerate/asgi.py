"""Policies around a service that speaks ASGI (Starlette, FastAPI, Django, Litestar, ...)::

app = Middleware(app, Shed(max_wait_s=0.5), within_s=5)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._options import Seconds
from everup.tolerate._served import Answered, Options, Request, check_policy

__all__ = ["Middleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_MOST_HELD = 256 << 10
"""Bytes of an answer with a status of 500 or more that are held back until the app has ended."""


class Middleware:
    """Guards each HTTP request to ``app`` with ``policy``: a ``Shed``, ``Limit``, ``Bulkhead``,
    ``RateLimit``, ``Meter``, or several in a ``Pipeline``; default: none.

    A request sets ``arrived`` and ``priority`` (of ``Priority: u=...``, RFC 9218) for what runs
    under it, and a ``Deadline``: what its ``grpc-timeout`` says, ``within_s`` (default None: no
    limit) at most. ``arrival``: the name of a header in which a proxy says when the request came
    (``X-Request-Start``: ``t=`` and a Unix time in seconds, milliseconds or microseconds), default
    None: it comes when it is here. Name one only where a proxy always sets it.

    **503** with ``Retry-After`` where a policy rejects, this one's or one in the handler:
    ``retry_after_s`` of the rejection, else of the middleware (default 1). **504** where the
    deadline is over, or a ``Timeout`` in the handler. So also where the framework has answered 500
    for it: answers of 500 and more are held back (up to 256 KiB) until the app has ended.

    A status of 500 or more is a failure for ``policy``, whoever made it. Websockets and the
    lifespan pass untouched. Once an answer has begun, errors come out as they are.
    """

    def __init__(
        self,
        app: App,
        policy: Policy | None = None,
        *,
        within_s: Seconds | None = None,
        arrival: str | None = None,
        retry_after_s: Seconds = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self.app = app
        self._policy = check_policy(policy)
        self._options = Options(within_s, arrival, retry_after_s, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(_headers(scope), self._options)
        answer = _Answer(send)
        tokens = request.set()
        try:
            guard = request.guarded(self._policy, self._options)
            await guard.acall(self._run, scope, receive, answer)
        except Answered:
            await answer.flush()
        except Exception as error:
            instead = self._options.answer(error)
            if instead is None or answer.begun:
                await answer.flush()
                raise
            await _say(send, *instead)
        finally:
            request.reset(tokens)

    async def _run(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        await self.app(scope, receive, answer.send)
        if answer.status >= 500:
            raise Answered
        await answer.flush()


class _Answer:
    """What the app sends, held back while it may be something else instead."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: list[Message] = []
        self._size = 0
        self.status = 0
        self.begun = False
        """The client has got something of it."""

    async def send(self, message: Message) -> None:
        """Given to the app."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        if self.status < 500 or self.begun:
            self.begun = True
            await self._send(message)
            return
        self._held.append(message)
        self._size += len(message.get("body", b""))
        if self._size > _MOST_HELD:
            await self.flush()

    async def flush(self) -> None:
        """Send what was held back."""
        held, self._held = self._held, []
        for message in held:
            self.begun = True
            await self._send(message)


def _headers(scope: Scope) -> Callable[[str], str | None]:
    def header(name: str) -> str | None:
        wanted = name.encode("latin-1")
        for key, value in scope["headers"]:
            if key.lower() == wanted:
                return str(value.decode("latin-1"))
        return None

    return header


async def _say(send: Send, status: int, text: str, after: str | None) -> None:
    body = f"{text}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
    ]
    if after is not None:
        headers.append((b"retry-after", after.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
