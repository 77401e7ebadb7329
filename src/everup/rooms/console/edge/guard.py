"""Who may ask for what. Everything passes here, and what is not allowed by name is refused."""

import asyncio
import hashlib
import ipaddress
import logging
import re
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from everup.observer.feed import Feed
from everup.rooms.console.sessions import digest

HEADER: Final = "Everup-Token"
"""The header with the second secret of a session."""
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_KNOWN_S: Final = 15.0
"""The engine is asked again whether a session is good after this time."""
_MOST_KNOWN: Final = 64
_MOST_STRANGERS, _STRANGERS_S = 20, 10.0
"""So many unknown secrets are brought to the engine in this time at most."""
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Server": "everup",
}
LOG: Final = "everup.console"
"""The name of the log; who serves bounds what comes into it."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# A plain name warns from aiohttp 3.14 on; before that there is nothing else.
_key: Any = getattr(web, "RequestKey", lambda name, _type: name)
USER: Final = _key("everup_user", str)
SECRETS: Final = _key("everup_secrets", dict)


class Refused(Exception):  # noqa: N818 - it is an answer
    """Not done; ``hint`` says what to do instead."""

    def __init__(self, status: int, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.hint = hint


@dataclass(frozen=True, slots=True)
class _Known:
    user: str
    until: float
    checked: float


class Guard:
    """Of one console. ``feed`` asks the engine, which alone knows what is good."""

    def __init__(self, feed: Feed, listen: str) -> None:
        self._feed = feed
        tag = hashlib.sha256(f"{feed.node} {listen}".encode()).hexdigest()[:8]
        self.cookie = f"everup-{tag}"
        """Cookies know no port: two consoles on one machine need two names."""
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._strangers: deque[float] = deque(maxlen=_MOST_STRANGERS)

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let pass what may; turn what goes wrong into one form of answer."""
        try:
            if not request.path.startswith("/healthz/"):
                self._check_origin(request)
            if request.path.startswith("/api/") and request.path != "/api/login":
                await self._check_session(request)
            answer = await handler(request)
        except Refused as refused:
            answer = error(refused.status, str(refused), refused.hint)
        except web.HTTPException as found:
            answer = error(found.status, found.reason)
            if "Allow" in found.headers:
                answer.headers["Allow"] = found.headers["Allow"]
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as failed:
            logging.getLogger(LOG).exception("%s %s", request.method, request.path)
            answer = error(500, f"everup itself failed at this: {type(failed).__name__}")
        if not answer.prepared:
            decorate(answer)
        return answer

    def _check_origin(self, request: web.Request) -> None:
        """The page of somebody else, whatever name it gives this machine, gets nothing."""
        host = request.headers.get("Host", "")
        if not is_here(host):
            text = f"this console is not called {host!r:.80}"
            raise Refused(421, text, "open it as 127.0.0.1 or localhost")
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            raise Refused(403, f"a page of {origin!r:.80} may ask nothing here")
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        if site not in ("same-origin", "none") and request.path != "/":
            raise Refused(403, "another page may ask nothing here")
        if request.method in ("GET", "HEAD"):
            return
        if request.content_type != "application/json":
            raise Refused(415, "the body must be application/json")

    async def _check_session(self, request: web.Request) -> None:
        key, token = request.cookies.get(self.cookie, ""), request.headers.get(HEADER, "")
        if not _SECRET.fullmatch(key) or not _SECRET.fullmatch(token):
            raise Refused(401, "you are not signed in", "open the link of: everup console")
        request[USER] = await self.whose(key, token)
        request[SECRETS] = {"session": key, "token": token}

    async def whose(self, key: str, token: str) -> str:
        """Give whose session it is. Raises ``Refused``."""
        name, now = digest(f"{key} {token}"), time.monotonic()
        known = self._known.get(name)
        if known is not None and known.until > now and now - known.checked < _KNOWN_S:
            return known.user
        if known is None:
            self.meet_stranger()
        try:
            body = {"session": key, "token": token}
            found = await self._feed.console("session", body)
        except PermissionError as refused:
            self._known.pop(name, None)
            raise Refused(401, str(refused), "open the link of: everup console") from None
        except (OSError, ValueError):
            if known is not None and known.until > now:
                return known.user  # to look on while the engine is being replaced
            raise away() from None
        self._known[name] = _Known(found["user"], now + float(found["left_s"]), now)
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return str(found["user"])

    def forget(self, key: str, token: str) -> None:
        """A session was ended."""
        self._known.pop(digest(f"{key} {token}"), None)

    def meet_stranger(self) -> None:
        """Somebody whom we do not know wants the engine asked. Raises ``Refused`` when there are
        too many of them."""
        now = time.monotonic()
        full = len(self._strangers) == _MOST_STRANGERS
        if full and now - self._strangers[0] < _STRANGERS_S:
            raise Refused(429, "too many who are not known; again in some seconds")
        self._strangers.append(now)


def away() -> Refused:
    """Give the answer while there is no engine."""
    return Refused(503, "everup's engine does not answer; services go on", "again in a moment")


def is_here(host: str) -> bool:
    """Tell whether a ``Host`` header names this machine itself: nobody else's name leads here."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if not host or any(c in host for c in "@/?#\\ "):
        return False
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def error(status: int, text: str, hint: str = "") -> web.Response:
    """Give the one form of an answer that is none."""
    return web.json_response({"error": text, "hint": hint}, status=status)


def decorate(answer: web.StreamResponse) -> None:
    """Give an answer the headers that each has."""
    for name, value in _HEADERS.items():
        answer.headers[name] = value
    answer.headers.setdefault("Cache-Control", "no-store")


async def body_of(request: web.Request) -> dict[str, Any]:
    """Read a small JSON object. Raises ``Refused``, and ``HTTPException`` of a large one."""
    try:
        found = await asyncio.wait_for(request.json(), 5.0)
    except TimeoutError:
        raise Refused(408, "the body does not come") from None
    except (ValueError, RecursionError):
        raise Refused(400, "the body is no JSON") from None
    if not isinstance(found, dict):
        raise Refused(400, "the body must be a JSON object")
    return found
