"""The server that the deploys are measured with: an ASGI application (``app``) and the same for
WSGI (``wsgi``).

``/`` answers with the process id and with the text in VERSION, ``/ready`` with "ready". The servers
that run it (uvicorn, gunicorn) stop at SIGTERM: they finish what they have begun, and then end.
"""

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

Message = dict[str, Any]


def body(path: str) -> bytes:
    if path == "/ready":
        return b"ready\n"
    return f"{os.getpid()} {os.environ.get('VERSION', '-')}\n".encode()


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    text = body(scope["path"])
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def wsgi(
    environ: Message, start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    text = body(environ["PATH_INFO"])
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))]
    start_response("200 OK", headers)
    return [text]
