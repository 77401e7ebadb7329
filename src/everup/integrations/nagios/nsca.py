"""NSCA's packets, version 3: what its daemon says first, and results for it.

Pure. The daemon acknowledges nothing, ever: what it did not take is noticed by Nagios' freshness.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from everup.integrations.nagios.command import Result, fields

Method = Literal["none", "xor", "3des", "rijndael-128"]
"""As ``decryption_method`` 0, 1, 3 and 14 of ``nsca.cfg``."""
HELLO_BYTES: Final = 132
MOST_HOST_BYTES: Final = 63
MOST_SERVICE_BYTES: Final = 127
MOST_TEXT_BYTES: Final = 4095
_IV_BYTES: Final = 128
_PACKET: Final = struct.Struct(">h2xIIh64s128s4096s2x")
_VERSION: Final = 3
Encrypt = Callable[[bytes], bytes]
"""Encrypts packet after packet of one connection."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What the daemon says to each client first."""

    iv: bytes
    at: int
    """Its clock, in seconds since 1970: packets carry it, so that ours need not agree."""


def hello(data: bytes) -> Hello:
    """Read the first bytes of a daemon; there are ``HELLO_BYTES`` of them."""
    return Hello(data[:_IV_BYTES], struct.unpack_from(">I", data, _IV_BYTES)[0])


def packet(result: Result, at: int) -> bytes:
    """Write one result, not encrypted yet. Raises ``ValueError``: a name is too long."""
    host, service, code, text = fields(result, MOST_TEXT_BYTES)
    told = host.encode(), service.encode()
    for name, most in zip(told, (MOST_HOST_BYTES, MOST_SERVICE_BYTES), strict=True):
        if len(name) > most:
            raise ValueError(f"NSCA has room for names of {most} bytes: {name.decode()!r:.80}")
    body = (at & 0xFFFFFFFF, code, *told, text.encode())
    crc = zlib.crc32(_PACKET.pack(_VERSION, 0, *body))
    return _PACKET.pack(_VERSION, crc, *body)


def xor(iv: bytes, password: bytes) -> Encrypt:
    """Give method 1: no secret, but what nobody reads by chance."""
    # IV and password are repeated over each packet anew.
    mask = _repeated(iv)
    if password:
        mask ^= _repeated(password)

    def encrypt(data: bytes) -> bytes:
        return (int.from_bytes(data, "big") ^ mask).to_bytes(len(data), "big")

    return encrypt


def _repeated(key: bytes) -> int:
    return int.from_bytes((key * (_PACKET.size // len(key) + 1))[: _PACKET.size], "big")
