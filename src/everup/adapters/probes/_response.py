"""Judges one HTTP response as its bytes come in. No I/O."""

import re
from collections.abc import Callable
from typing import Final, Literal
from urllib.parse import urlsplit

import httptools

from everup.adapters.probes._words import not_http_words, one_line, status_words

HEAD_BYTES: Final = 32 << 10
"""Status line and headers (those of 1xx responses included) may be this long."""
BODY_BYTES: Final = 64 << 10
"""So much of the body is searched."""
TOTAL_BYTES: Final = 1 << 20
"""No more is read of one response; only absurd chunk framing gets there before BODY_BYTES."""

_SHOWN_BYTES: Final = 64
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

Redirects = Literal["same-host", "never", "any"]


Look = Callable[[re.Pattern[str], str], bool | None]
"""Whether the text has the pattern; None: that takes a while, and ``judge`` is called then."""


def _at_once(pattern: re.Pattern[str], text: str) -> bool:
    return pattern.search(text) is not None


class Check:
    """What makes a response a success. One per target."""

    __slots__ = ("head_only", "hosts", "look", "pattern", "redirects", "status_max", "status_min")

    def __init__(
        self,
        status_min: int,
        status_max: int,
        pattern: re.Pattern[str] | None,
        head_only: bool,
        redirects: Redirects = "any",
        hosts: frozenset[str] = frozenset(),
    ) -> None:
        self.status_min = status_min
        self.status_max = status_max
        self.pattern = pattern
        self.head_only = head_only
        self.redirects = redirects
        self.hosts = hosts
        """Names, in lower case, under which the service itself was asked."""
        self.look: Look = _at_once

    def respond(self) -> "Response":
        """A judge for one response."""
        return new_response(self, self.look)

    def misled(self, status: int, location: bytes | None) -> str:
        """Why a redirect is no success, though its status is in the range; or nothing."""
        if self.redirects == "any" or status not in _REDIRECTS or location is None:
            return ""
        if self.redirects == "never":
            return "but it redirects"
        text = location.decode("latin-1").strip()
        try:
            url = urlsplit(text.replace("\\", "/"))
            host = (url.hostname or "").rstrip(".").lower()
        except ValueError:
            return f"but it redirects to what is no URL: {text}"
        if host in self.hosts or (not url.netloc and url.scheme in ("", "http", "https")):
            return ""
        return f"but it redirects to another host: {text}"


class Response:
    """One response to one probe: feed it bytes until ``done``, then read the verdict.

    The verdict depends on the bytes alone, not on how they were cut up.
    """

    __slots__ = (
        "_check",
        "_head",
        "_location",
        "_parser",
        "_reason",
        "complete",
        "detail",
        "done",
        "garbage",
        "headers_done",
        "ok",
        "received",
        "status",
        "text",
    )

    def __init__(self, check: Check) -> None:
        self._check = check
        self._reason = b""
        self._head = b""
        self._location: bytes | None = None
        self.received = 0
        self.status = 0
        self.headers_done = False
        self.done = False
        """The verdict is in ``ok`` and ``detail``."""
        self.complete = False
        """Nothing more belongs to this response."""
        self.garbage = False
        self.ok = False
        self.detail = ""
        self.text: str | None = None
        """What is yet to be searched before there is a verdict."""
        # A cycle through the parser's bound methods; release() breaks it, so that the garbage
        # collector has no work of it.
        parser = httptools.HttpResponseParser(self)
        self._parser: httptools.HttpResponseParser | None = parser
        # What every client takes, a probe takes too: small servers end their lines with a bare LF.
        parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def feed(self, data: bytes) -> bool:
        """Takes the next bytes (at least one); true once there is a verdict."""
        if not self.headers_done:
            if len(self._head) < _SHOWN_BYTES:
                self._head += data[:_SHOWN_BYTES]
            room = HEAD_BYTES - self.received
            if len(data) >= room:
                self._parse(data[:room])
                if self.done:
                    return True
                if not self.headers_done:
                    self._decide(False, "connected, but the headers do not end within 32 KiB")
                    return True
                data = data[room:]
                if not data:
                    return False
        self._parse(data)
        if self.received > TOTAL_BYTES and not self.done:
            self._decide(False, f"{self.detail}, but its framing is longer than 1 MiB")
        return self.done

    def end(self) -> None:
        """The peer has closed: now there is a verdict in any case."""
        if self.done:
            self.complete = True
        elif self.headers_done:
            self._end_body()
        elif self.received:
            self._decide(
                False, f"connection closed within the headers ({self.received} bytes received)"
            )
        else:
            self._decide(False, "connection closed without an answer")

    def skip(self, data: bytes) -> bool:
        """Takes bytes that come after the verdict; true once the response is complete."""
        self._parse(data)
        return self.complete or self.received > TOTAL_BYTES

    def progress(self) -> str:
        """How far it had come when time ran out."""
        if self.headers_done:
            if self.text is not None and self._check.pattern is not None:
                pattern = self._check.pattern.pattern
                return f"{self.detail}, but searching the body takes longer: simplify /{pattern}/"
            return f"{self.detail}, {self.received} bytes received, but no end of the body"
        if self.received:
            return f"connected, {self.received} bytes received, but no end of the headers"
        return "connected, no byte received"

    def release(self) -> None:
        """Drops the parser; only the verdict stays."""
        self._parser = None

    def _parse(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            return
        self.received += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.complete = True
        except httptools.HttpParserError as error:
            self.complete = True
            if not self.done:
                self._broken(error)

    def _broken(self, error: httptools.HttpParserError) -> None:
        if self._head.startswith(b"HTTP/"):
            self._decide(False, one_line(f"connected, but the answer is broken HTTP: {error}"))
        else:
            self.garbage = True
            self._decide(False, not_http_words(self._head))

    def _decide(self, ok: bool, detail: str) -> None:
        self.done = True
        self.ok = ok
        self.detail = detail

    def _end_body(self) -> None:
        """The body ended without a verdict: with a pattern to find, see ``SearchedResponse``."""

    # Callbacks of the parser, by the names that it looks for.

    def on_status(self, data: bytes) -> None:
        if not self.headers_done:
            self._reason += data

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._location is None and not self.headers_done and name.lower() == b"location":
            self._location = value

    def on_headers_complete(self) -> None:
        parser, check = self._parser, self._check
        if self.headers_done or parser is None:  # a second response that nobody asked for
            return
        status = parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._reason = b""
            self._location = None
            # One that says "Connection: close" or HTTP/1.0 is no end of the connection.
            parser.set_dangerous_leniencies(lenient_keep_alive=True)
            return
        self.headers_done = True
        self.status = status
        self.detail = status_words(status, self._reason)
        if not check.status_min <= status <= check.status_max:
            self.done = True
        elif misled := check.misled(status, self._location):
            self._decide(False, one_line(f"{self.detail}, {misled}"))
        elif check.pattern is None:
            self.done = self.ok = True
        if check.head_only:
            self.complete = True
            if not self.done:
                self._end_body()

    def on_message_complete(self) -> None:
        if self.headers_done and not self.complete:
            self.complete = True
            if not self.done:
                self._end_body()


class SearchedResponse(Response):
    """A response whose body must match a pattern."""

    __slots__ = ("_body", "_body_bytes", "_framed", "_look")

    @property
    def pattern(self) -> re.Pattern[str]:
        """What is searched for."""
        assert self._check.pattern is not None
        return self._check.pattern

    def judge(self, found: bool) -> None:
        """The verdict, once ``text`` was searched."""
        self.text = None
        pattern = self._check.pattern
        if found or pattern is None:
            self._decide(True, self.detail)
        else:
            self._decide(
                False, one_line(f"{self.detail}, but the body does not match /{pattern.pattern}/")
            )

    def __init__(self, check: Check, look: "Look") -> None:
        self._look = look
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._framed = False
        super().__init__(check)

    def on_message_begin(self) -> None:
        if not self.headers_done:
            self._framed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if not self.headers_done and name.lower() in _FRAMING:
            self._framed = True

    def on_body(self, data: bytes) -> None:
        if self.done or self.complete:
            return
        self._body.append(data[: BODY_BYTES - self._body_bytes])
        self._body_bytes += len(data)
        if self._body_bytes >= BODY_BYTES:
            self._search()

    def _end_body(self) -> None:
        if self._framed and not self.complete:
            self._decide(
                False, f"{self.detail}, but closed within the body ({self._body_bytes} bytes)"
            )
        else:
            self._search()

    def _search(self) -> None:
        pattern, text = self._check.pattern, b"".join(self._body).decode("utf-8", "replace")
        found = True if pattern is None else self._look(pattern, text)
        if found is None:
            self.text, self.done = text, True
        else:
            self.judge(found)


def new_response(check: Check, look: Look = _at_once) -> Response:
    """A judge for one response."""
    return Response(check) if check.pattern is None else SearchedResponse(check, look)
