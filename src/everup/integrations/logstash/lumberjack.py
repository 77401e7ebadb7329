"""The Lumberjack protocol, version 2, as a client speaks it. Pure.

A window: how many documents come (``2W``), then each as a frame of JSON (``2J``) with its number in
the window, from 1 on, all of them or a part inside of a compressed frame (``2C``). The server
answers with the number up to which it has taken them (``2A``), at once or bit by bit; 0 says that
it is still at work. All numbers are unsigned, 32 bits, big end first.
"""

import zlib
from collections.abc import Sequence
from struct import Struct
from typing import Final

_NUMBER: Final = Struct(">2sI")
_DOCUMENT: Final = Struct(">2sII")
_WINDOW, _JSON, _COMPRESSED, _ACK = b"2W", b"2J", b"2C", b"2A"
ACK_BYTES: Final = _NUMBER.size
MOST_BYTES: Final = (1 << 32) - 1


class ProtocolError(ValueError):
    """The other side says what no Lumberjack server says."""


def window(documents: Sequence[bytes], level: int = 0) -> bytes:
    """Give the bytes of a window with these documents, compressed as zlib's ``level`` says; 0: not
    at all. Raises ``ValueError`` for none, or for more than 4 GiB."""
    if not documents:
        raise ValueError("a window holds at least one document")
    frames = b"".join(
        part
        for number, document in enumerate(documents, 1)
        for part in (_DOCUMENT.pack(_JSON, number, len(document)), document)
    )
    head = _NUMBER.pack(_WINDOW, len(documents))
    if not level:
        return head + frames
    packed = zlib.compress(frames, level)
    if len(packed) > MOST_BYTES:
        raise ValueError("a window of more than 4 GiB")
    return b"".join((head, _NUMBER.pack(_COMPRESSED, len(packed)), packed))


class Acknowledgements:
    """What a server says of one window. Invariant: ``done`` never falls, and is at most the number
    of documents."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held = b""
        self.done = 0
        """So many documents are acknowledged, the first ones."""

    @property
    def whole(self) -> bool:
        """Whether all of them are."""
        return self.done == self._count

    def feed(self, data: bytes) -> None:
        """Take what was received, in pieces as they come. Raises ``ProtocolError``."""
        held = self._held + data
        end = len(held) - len(held) % ACK_BYTES
        for start in range(0, end, ACK_BYTES):
            self._take(held[start : start + ACK_BYTES])
        self._held = held[end:]
        if self._held and not _ACK.startswith(self._held[:2]):
            raise ProtocolError(f"it says {self._held!r}, which is no acknowledgement")

    def _take(self, frame: bytes) -> None:
        code, number = _NUMBER.unpack(frame)
        if code != _ACK:
            raise ProtocolError(f"it says {frame!r}, which is no acknowledgement")
        if number > self._count:
            raise ProtocolError(f"it acknowledges {number} of {self._count} documents")
        if self.whole:
            raise ProtocolError("it acknowledges what was acknowledged as a whole")
        if number:
            if number < self.done:
                raise ProtocolError(f"it acknowledges {number} documents after {self.done}")
            self.done = number


class WindowSize:
    """How many documents go at once: twice as many after each that was taken, half after each that
    was not, as Beats do. Invariant: between 1 and ``most``."""

    def __init__(self, most: int, first: int = 10) -> None:
        self._most = most
        self.now = min(first, most)

    def taken(self) -> None:
        """Note that a whole window was acknowledged."""
        self.now = min(self._most, 2 * self.now)

    def failed(self) -> None:
        """Note that one was not."""
        self.now = max(1, self.now // 2)
