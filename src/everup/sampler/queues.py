"""How full the accept queues of listening sockets are: load and hangs, without asking anybody."""

import errno
import os
import socket
import struct
from collections.abc import Iterator

_NETLINK_SOCK_DIAG, _BY_FAMILY = 4, 20
_REQUEST, _DUMP, _ERROR, _DONE = 1, 0x300, 2, 3
_HEADER = struct.Struct("=IHHII")
_ASK = struct.Struct("=BBBBI")
_ID = struct.pack("!HH16s16s", 0, 0, b"", b"") + struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
_LISTEN = 10
_NUMBERS_AT = 56
"""idiag_rqueue in struct inet_diag_msg; of a listening socket the queue, then its limit, the owner
and the inode."""
_NUMBERS = struct.Struct("=IIII")
_BUFFER = 1 << 16


def queues() -> dict[int, tuple[int, int]]:
    """Give for each listening TCP socket of this network namespace, by inode, the connections that
    wait for accept and how many may. Raises ``OSError`` where the kernel does not tell."""
    out: dict[int, tuple[int, int]] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        for answer in dump(family, _LISTEN):
            waiting, limit, _uid, inode = _NUMBERS.unpack_from(answer, _NUMBERS_AT)
            out[inode] = (waiting, limit)
    return out


def dump(family: int, state: int) -> Iterator[bytes]:
    """Give the kernel's answer about each TCP socket of that family in that state: a struct
    inet_diag_msg with what follows it. Raises ``OSError`` where the kernel does not tell."""
    return _answers(_ASK.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << state) + _ID)


def _answers(request: bytes) -> Iterator[bytes]:
    size = _HEADER.size + len(request)
    message = _HEADER.pack(size, _BY_FAMILY, _REQUEST | _DUMP, 1, 0) + request
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(1.0)
        netlink.send(message)
        while True:
            data = netlink.recv(_BUFFER)
            at = 0
            while at + _HEADER.size <= len(data):
                length, code, *_ = _HEADER.unpack_from(data, at)
                body = data[at + _HEADER.size : at + length]
                at += (max(length, _HEADER.size) + 3) & ~3
                if code == _DONE:
                    return
                if code == _ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    if number == errno.ENOENT:
                        return
                    raise OSError(number, os.strerror(number))
                yield body
