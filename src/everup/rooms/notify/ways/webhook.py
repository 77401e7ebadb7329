"""Messages as JSON by POST, signed where a secret is given."""

import hashlib
import hmac
import json
import time
from typing import Final

import aiohttp

from everup.rooms.notify.actions import Message
from everup.rooms.notify.ways import LaterError, RefusedError

_TIMEOUT_S: Final = 10.0
_MOST_ANSWER: Final = 300


async def send(url: str, secret: str | None, message: Message) -> None:
    """Post a message. Redirects are not followed: they would lead the message to somebody else.

    Raises ``RefusedError`` for an answer that says that the request is wrong, else ``LaterError``.
    """
    body = json.dumps({"title": message.title, **message.data}, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json", "X-Everup-Id": message.id}
    if secret is not None:
        headers |= signature(secret, int(time.time()), body)
    await _request("POST", url, body, headers)


async def call(url: str) -> None:
    """Ask for a URL, to show that everup is alive. Raises as ``send`` does."""
    await _request("GET", url, None, {})


async def _request(method: str, url: str, body: bytes | None, headers: dict[str, str]) -> None:
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    headers |= {"User-Agent": "everup"}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as answer,
        ):
            if answer.status < 300:
                return
            said = (await answer.content.read(_MOST_ANSWER)).decode("utf-8", "replace")
            text = f"it answers {answer.status}: {said}".rstrip(": ")
            if answer.status in (408, 425, 429) or answer.status >= 500:
                raise LaterError(text, _seconds(answer.headers.get("Retry-After")))
            raise RefusedError(text)
    except TimeoutError:
        raise LaterError(f"no answer within {_TIMEOUT_S:g} s") from None
    except aiohttp.ClientConnectorError as error:
        raise LaterError(f"no connection: {error.os_error.strerror or error.os_error}") from None
    except (aiohttp.InvalidURL, ValueError):  # not shown: the URL may be a secret
        raise RefusedError("the URL is not valid") from None
    except (aiohttp.ClientError, OSError) as error:
        raise LaterError(f"the connection failed: {type(error).__name__}") from None


def signature(secret: str, at: int, body: bytes) -> dict[str, str]:
    """Give the headers that sign a body: HMAC-SHA256 over the time, a full stop and the body."""
    signed = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Everup-Timestamp": str(at), "X-Everup-Signature": f"sha256={signed}"}


def _seconds(text: str | None) -> float | None:
    return min(3600.0, float(text)) if text is not None and text.isdigit() else None
