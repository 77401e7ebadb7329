"""The protocol of Zabbix' sender, server and agent: a header, then text.

Pure. As of Zabbix 6.0 and 7.0: ``ZBXD``, one byte of flags, the length of what follows, the length
that it has once uncompressed; both of four bytes, least significant first.
"""

import json
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

MAGIC: Final = b"ZBXD"
HEADER_BYTES: Final = 13
_PLAIN, _COMPRESSED, _LARGE = 0x01, 0x02, 0x04
_PORT: Final = 10051
_HEADER: Final = struct.Struct("<4sBII")


class WireError(ValueError):
    """What came is not of this protocol, or too large; the text says what came."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says of the text after it."""

    length: int
    """Bytes that follow."""
    whole: int
    """Bytes once they are uncompressed; 0 where they are not compressed."""

    @classmethod
    def parse(cls, data: bytes, most: int) -> "Header":
        """Read the 13 bytes. Raises ``WireError``, also where more than ``most`` bytes follow."""
        magic, flags, length, whole = _HEADER.unpack(data)
        if magic != MAGIC or not flags & _PLAIN:
            raise WireError(f"it does not speak Zabbix' protocol: it answers {data!r}")
        unknown = flags & ~(_PLAIN | _COMPRESSED)
        if unknown:
            what = "of more than 4 GB" if flags & _LARGE else f"with unknown flags {unknown:#x}"
            raise WireError(f"it announces a message {what}")
        whole = whole if flags & _COMPRESSED else 0
        if max(length, whole) > most:
            raise WireError(f"it announces {max(length, whole)} bytes; at most {most} are read")
        return cls(length, whole)

    def text(self, body: bytes) -> bytes:
        """Give the text of a message. Raises ``WireError`` where it is damaged."""
        if not self.whole:
            return body
        unpacking = zlib.decompressobj()
        try:
            found = unpacking.decompress(body, self.whole)
        except zlib.error as error:
            raise WireError(f"it sends a damaged message: {error}") from None
        if len(found) != self.whole or not unpacking.eof:
            raise WireError("it sends a message of another length than it announces")
        return found


def message(text: bytes) -> bytes:
    """Put the header before a text."""
    return _HEADER.pack(MAGIC, _PLAIN, len(text), 0) + text


def trapped(host: str, values: Mapping[str, str]) -> bytes:
    """Give the message that tells a server values of trapper items, by key.

    No clock goes with them: the server takes its own, so that none is from the future.
    """
    data = [{"host": host, "key": key, "value": value} for key, value in values.items()]
    return message(_json({"request": "sender data", "data": data}))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says of the values that it was sent."""

    processed: int = 0
    failed: int = 0
    redirect: str = ""
    """Where to go instead, as the proxies of a group of Zabbix 7 say: ``host:port``."""


_INFO: Final = re.compile(r"processed:? (\d{1,9}); failed:? (\d{1,9}); total:? \d{1,9}")


def answer(text: bytes) -> Answer:
    """Read a server's answer. Raises ``WireError`` where it took nothing, with its own words."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise WireError(f"it answers what is no JSON: {text[:100]!r}") from None
    if not isinstance(said, dict):
        raise WireError(f"it answers {text[:100]!r}")
    redirect = said.get("redirect")
    if isinstance(redirect, dict) and isinstance(redirect.get("address"), str):
        return Answer(redirect=redirect["address"])
    if said.get("response") != "success":
        raise WireError(f"it refuses: {said.get('info') or said.get('response')!r:.200}")
    found = _INFO.match(str(said.get("info")))
    if found is None:
        raise WireError(f"it does not say what it took: {said.get('info')!r:.200}")
    return Answer(int(found[1]), int(found[2]))


def nodes(server: str) -> Sequence[tuple[str, int]]:
    """Give host and port of each node of ``a;b:10051;[::1]``. Raises ``ValueError`` for a port that
    is none."""
    return [_node(node) for node in server.split(";")]


def _node(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        digits = rest[1:]
    else:
        host, _, digits = text.partition(":")
    port = int(digits or _PORT)
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port}: ports go from 1 to 65535")
    return host, port


def _json(value: Any) -> bytes:
    # Surrogates, as of a name that is no UTF-8, stay escapes.
    return json.dumps(value, separators=(",", ":")).encode()
