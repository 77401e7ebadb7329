"""Who asks, and what they may."""

import enum
import os
import socket
import struct
from dataclasses import dataclass

from aiohttp import web

from everup.api.key import BACKEND

_UCRED = struct.Struct("3i")


class Right(enum.Enum):
    """What a request needs."""

    READ = "read"
    REPORT = "report what was observed, and ask for what passes the guard"
    CONSOLE = "bring what people ask for in the console, each by their own session"
    OPERATE = "operate services"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who has sent a request, as far as the kernel tells."""

    name: str
    """As the journal has it."""
    rights: frozenset[Right]


_OPERATOR = frozenset(Right)
_OBSERVER = frozenset({Right.READ, Right.REPORT, Right.CONSOLE})
_KEY = "everup_caller"
_NEEDED = {
    "/v1/observed": Right.REPORT,
    "/v1/ask": Right.REPORT,
    "/v1/cluster/tell": Right.REPORT,
    **{f"/v1/console/{what}": Right.CONSOLE for what in ("redeem", "session", "act", "close")},
}
"""What posting there needs; elsewhere it is an operator's right. The links that begin a session in
the console are made by operators alone."""


def identify(request: web.Request) -> Caller:
    """Tell who asks by the socket that they came in by, and their user.

    By the observer's own socket nobody has more rights than the observer, root included.
    """
    sock = request.get_extra_info("socket")
    if sock is None:
        return Caller("nobody", frozenset())
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid = int(_UCRED.unpack(raw)[1])
    backend = request.app[BACKEND]
    if os.fsdecode(sock.getsockname()) == backend.place.observer_socket:
        return Caller("the observer", _OBSERVER)
    return Caller(f"uid {uid}", _OPERATOR if uid in (0, os.getuid()) else frozenset())


def needed(request: web.Request) -> Right:
    """Give the right that a request needs."""
    if request.method in ("GET", "HEAD"):
        return Right.READ
    return _NEEDED.get(request.path, Right.OPERATE)


def remember(request: web.Request, caller: Caller) -> None:
    """Keep who asks for the handlers of the request."""
    request[_KEY] = caller


def caller(request: web.Request) -> Caller:
    """Give who asks; the guard has identified them."""
    found: Caller = request[_KEY]
    return found
