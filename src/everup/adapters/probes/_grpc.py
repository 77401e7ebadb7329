"""grpc.health.v1.Health/Check over plaintext HTTP/2: one fixed request, one answer judged. No I/O.

All that a probe needs of HTTP/2 fits here: the request is known beforehand, and the verdict is in
the DATA frame of the answer, so no header of the server has to be decoded.
"""

import struct
from typing import Final

from everup import __version__
from everup.adapters.probes._words import one_line

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD: Final = struct.Struct(">HBBBL")
"""Length in 24 bits (as 16 and 8), type, flags, stream."""
_DATA, _HEADERS, _RESET, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END_STREAM, _END_HEADERS, _PADDED = 1, 4, 8
_STREAM: Final = 1
_FRAME_BYTES: Final = 16384
"""No server may send longer ones to whom has not allowed them."""
_MESSAGE_BYTES: Final = 4096
_TOTAL_BYTES: Final = 64 << 10
_STATUS: Final = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_SERVING: Final = 1


class GrpcCheck:
    """Asks for the health of one service of the server; of the server as a whole if it is empty."""

    __slots__ = ("service",)

    def __init__(self, service: str) -> None:
        self.service = service

    def respond(self) -> "GrpcResponse":
        """A judge for one answer."""
        return GrpcResponse()

    def request(self, authority: str) -> bytes:
        """Every byte that the client has to send."""
        name = self.service.encode()
        message = b"\x0a" + _varint(len(name)) + name if name else b""
        headers = (
            b"\x83\x86"  # :method POST, :scheme http
            + b"\x04" + _text("/grpc.health.v1.Health/Check")
            + b"\x01" + _text(authority)
            + b"\x00" + _text("te") + _text("trailers")
            + b"\x0f\x10" + _text("application/grpc")  # content-type
            + b"\x0f\x2b" + _text(f"everup/{__version__}")  # user-agent
        )  # fmt: skip
        body = b"\0" + struct.pack(">L", len(message)) + message
        return (
            _PREFACE
            + _frame(_SETTINGS, 0, 0, b"")
            + _frame(_HEADERS, _END_HEADERS, _STREAM, headers)
            + _frame(_DATA, _END_STREAM, _STREAM, body)
        )


class GrpcResponse:
    """The answer to one probe: feed it bytes until ``done``, then read the verdict."""

    __slots__ = (
        "_left", "_message", "complete", "detail", "done", "garbage", "headers_done", "ok",
        "received",
    )  # fmt: skip

    def __init__(self) -> None:
        self._left = b""
        self._message = b""
        self.received = 0
        self.headers_done = False
        self.done = False
        self.complete = False
        self.garbage = False
        self.ok = False
        self.detail = ""

    def feed(self, data: bytes) -> bool:
        """Takes the next bytes; true once there is a verdict."""
        self.received += len(data)
        self._left += data
        while not self.done and len(self._left) >= 9:
            high, low, kind, flags, stream = _HEAD.unpack_from(self._left)
            length = high << 8 | low
            if not self.headers_done and (kind, stream & 0x7FFFFFFF) != (_SETTINGS, 0):
                self.garbage = True
                shown = f"connected, but the answer is not HTTP/2: {self._left[:32]!r}"
                self._decide(False, shown)
            elif length > _FRAME_BYTES:
                self._decide(False, "connected, but a frame of the answer is longer than allowed")
            elif len(self._left) < 9 + length:
                break
            else:
                self.headers_done = True
                frame, self._left = self._left[9 : 9 + length], self._left[9 + length :]
                self._take(kind, flags, stream & 0x7FFFFFFF, frame)
        if self.received > _TOTAL_BYTES and not self.done:
            self._decide(False, "connected, but the answer does not end within 64 KiB")
        return self.done

    def _take(self, kind: int, flags: int, stream: int, frame: bytes) -> None:
        if kind == _GOAWAY:
            code = int.from_bytes(frame[4:8])
            words = frame[8:].decode("utf-8", "replace")
            self._decide(False, f"the server went away: HTTP/2 error {code} {words}")
        elif stream != _STREAM:
            return
        elif kind == _RESET:
            self._decide(False, f"the call was reset: HTTP/2 error {int.from_bytes(frame[:4])}")
        elif kind == _DATA:
            if flags & _PADDED:
                frame = frame[1 : max(1, len(frame) - frame[0])] if frame else b""
            self._message += frame
            self._look()
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM and not self.done:
            self._decide(
                False,
                "the call ended without an answer: the server has no grpc.health.v1 or does not "
                "know this grpc_service",
            )

    def _look(self) -> None:
        """Whether the message is whole, and what it says."""
        if len(self._message) < 5:
            return
        length = int.from_bytes(self._message[1:5])
        if self._message[0] or length > _MESSAGE_BYTES:
            self._decide(False, "connected, but the answer is no HealthCheckResponse")
        elif len(self._message) >= 5 + length:
            status = _status(self._message[5 : 5 + length])
            self._decide(status == _SERVING, _STATUS.get(status, f"status {status}"))

    def _decide(self, ok: bool, detail: str) -> None:
        self.done = self.complete = True
        self.ok = ok
        self.detail = one_line(detail)

    def end(self) -> None:
        """The peer has closed: now there is a verdict in any case."""
        if not self.done:
            self._decide(False, f"connection closed within the answer ({self.received} bytes)"
                         if self.received else "connection closed without an answer")  # fmt: skip

    def skip(self, data: bytes) -> bool:
        """Nothing after the verdict is of interest."""
        del data
        return True

    def progress(self) -> str:
        """How far it had come when time ran out."""
        return f"connected, {self.received} bytes received, but no answer to the call"

    def release(self) -> None:
        """Nothing to drop."""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    length = len(payload)
    return _HEAD.pack(length >> 8, length & 255, kind, flags, stream) + payload


def _text(text: str) -> bytes:
    """A string of HPACK, plain."""
    data = text.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    return b"\x7f" + _varint(len(data) - 127) + data


def _varint(number: int) -> bytes:
    """Seven bits at a time, the lowest first: so do HPACK and protobuf."""
    out = b""
    while number > 127:
        out += bytes((number & 127 | 128,))
        number >>= 7
    return out + bytes((number,))


def _status(message: bytes) -> int:
    """Field 1 of a HealthCheckResponse; 0 where it is left out. Unknown fields are passed over."""
    at, status = 0, 0
    try:
        while at < len(message):
            tag, at = _read(message, at)
            match tag & 7:
                case 0:
                    value, at = _read(message, at)
                    status = value if tag == 8 else status
                case 2:
                    size, at = _read(message, at)
                    at += size
                case 1 | 5:
                    at += 8 if tag & 7 == 1 else 4
                case _:
                    return -1
    except IndexError:
        return -1
    return status


def _read(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise IndexError
