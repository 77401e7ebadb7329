"""NRPE's packets, versions 2, 3 and 4: what a client asks, and the answer to it.

Pure. Of a packet nothing is believed before its size, its kind and its checksum are right.
"""

import re
import struct
import zlib
from dataclasses import dataclass
from typing import Final

VERSION_COMMAND: Final = "_NRPE_CHECK"
"""What ``check_nrpe`` asks for where it is told no command."""
HEAD_BYTES: Final = 16
"""So much says how long a packet of any version is."""
MOST_QUERY_BYTES: Final = 4096
MOST_TEXT_BYTES: Final = 60_000
"""``check_nrpe`` 4.1.0 takes no answer above 64 KiB, and then asks again by version 2."""
MOST_TEXT_BYTES_V2: Final = 1023
_QUERY, _RESPONSE = 1, 2
_V2: Final = struct.Struct(">hhIh1024s2x")
_HEAD: Final = struct.Struct(">hhIhhi")
_TAIL_BYTES: Final = {3: 3, 4: 0}
"""A client of version 3 sends the end of its C structure, too."""
_CRC: Final = slice(4, 8)
_CUT: Final = b"..."
_WORD: Final = re.compile(r"[\x21-\x7e]{1,255}")


class PacketError(ValueError):
    """What came is no query of NRPE; the text says why."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a client asks for."""

    version: int
    """2, 3 or 4; the answer has the same."""
    command: str
    """Printable ASCII without blanks."""
    arguments: tuple[str, ...] = ()


def rest_bytes(head: bytes) -> int:
    """Give how many bytes follow the first ``HEAD_BYTES``. Raises ``PacketError``."""
    version, kind, _, _, _, length = _HEAD.unpack(head)
    if kind != _QUERY:
        raise PacketError(f"packet type {kind}; a query has {_QUERY}")
    if version == 2:
        return _V2.size - HEAD_BYTES
    if version not in _TAIL_BYTES:
        raise PacketError(f"version {version} of NRPE; valid: 2, 3, 4")
    if not 1 <= length <= MOST_QUERY_BYTES:
        raise PacketError(f"a query of {length} bytes; valid: 1 to {MOST_QUERY_BYTES}")
    return int(length) + _TAIL_BYTES[version]


def parse(packet: bytes) -> Query:
    """Read a whole packet. Raises ``PacketError``."""
    if len(packet) < HEAD_BYTES or len(packet) != HEAD_BYTES + rest_bytes(packet[:HEAD_BYTES]):
        raise PacketError(f"{len(packet)} bytes are no whole packet")
    version, _, crc = struct.unpack_from(">hhI", packet)
    if zlib.crc32(packet[: _CRC.start] + bytes(4) + packet[_CRC.stop :]) != crc:
        raise PacketError("the checksum is wrong")
    if version == 2:
        text = packet[10 : 10 + 1024]
    else:
        text = packet[HEAD_BYTES : len(packet) - _TAIL_BYTES[version]]
    # Behind the end of the text a client leaves what was in its memory.
    words = text.partition(b"\0")[0].decode("utf-8", "replace").split("!")
    if not _WORD.fullmatch(words[0]):
        raise PacketError("the name of the command is empty, too long or not printable")
    return Query(version, words[0], tuple(words[1:]))


def answer(version: int, code: int, text: str) -> bytes:
    """Write the answer to a query of that version. ``code``: 0 to 3. What does not fit is left
    out: further lines first, then performance data, then the end of the text."""
    if version == 2:
        body = fitted(text, MOST_TEXT_BYTES_V2)
        return _with_checksum(_V2.pack(2, _RESPONSE, 0, code, body))
    body = fitted(text, MOST_TEXT_BYTES) + b"\0"
    head = _HEAD.pack(version, _RESPONSE, 0, code, 0, len(body))
    return _with_checksum(head + body + bytes(_TAIL_BYTES[version]))


def _with_checksum(packet: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(packet))
    return packet[: _CRC.start] + crc + packet[_CRC.stop :]


def fitted(text: str, most_bytes: int) -> bytes:
    """Give the output of a plugin in at most ``most_bytes`` of UTF-8, without zero bytes."""
    first, *more = text.replace("\0", "").encode("utf-8", "replace").split(b"\n")
    if len(first) > most_bytes:
        said = first.partition(b" | ")[0]
        if len(said) <= most_bytes:
            return said
        return said[: most_bytes - len(_CUT)].decode("utf-8", "ignore").encode() + _CUT
    for line in more:
        if len(first) + 1 + len(line) > most_bytes:
            break
        first += b"\n" + line
    return first
