"""What went wrong, in words for people: one line, at most 200 characters."""

import errno
import os
import socket
from http.client import responses
from typing import Final

DETAIL_CHARS: Final = 200
_SHOWN_BYTES: Final = 32

OWN_TROUBLE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""Errors that say that everup could not ask, and nothing about the service."""

_WORDS: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection closed",
    errno.ETIMEDOUT: "connection timed out",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
}


def one_line(text: str) -> str:
    """``text`` as one printable line of at most 200 characters."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    text = text.strip()
    return text if len(text) <= DETAIL_CHARS else text[: DETAIL_CHARS - 3] + "..."


def error_words(code: int) -> str:
    """An errno in words."""
    return _WORDS.get(code) or os.strerror(code)[:1].lower() + os.strerror(code)[1:]


def own_trouble(code: int, family: int) -> bool:
    """Whether a failed socket(), bind() or connect() says more of this machine than of the peer."""
    if code in OWN_TROUBLE:
        return True
    # No local port is free. (Over IPv6 it also means that the address does not exist here.)
    return family == socket.AF_INET and code in (errno.EADDRNOTAVAIL, errno.EAGAIN)


def status_words(code: int, reason: bytes) -> str:
    """``503 Service Unavailable``."""
    text = reason[:DETAIL_CHARS].decode("latin-1").strip() or responses.get(code, "")
    return one_line(f"{code} {text}")


def not_http_words(head: bytes) -> str:
    """The answer began with these bytes."""
    more = "..." if len(head) > _SHOWN_BYTES else ""
    return f"connected, but the answer is not HTTP: {head[:_SHOWN_BYTES]!r}{more}"
