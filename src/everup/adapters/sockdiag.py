"""TCP sockets of this machine, asked of the kernel by state and local port (sock_diag, netlink).

/proc/net/tcp has a line for every socket of the machine, also for tens of thousands in TIME_WAIT;
here the kernel leaves out itself what was not asked for.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

ESTABLISHED, LISTEN = 1, 10

_NETLINK_SOCK_DIAG = 4
_BY_FAMILY = 20
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_ASK = struct.Struct("=BBBxI")  # then the socket's id: ports in network order, addresses, cookie
_PORTS = struct.Struct("!HH")
_ID_BYTES = 48
_INODE_AT = 4 + _ID_BYTES + 16
_ANSWER_BYTES = 4 + _ID_BYTES + 20
_TIMEOUT_S = 5.0


class Found(NamedTuple):
    """One socket."""

    port: int
    """The local one."""
    inode: int


def sockets(state: int, port: int = 0) -> Iterator[Found]:
    """All TCP sockets in that state with that local port (0: any). Raises ``OSError`` where the
    kernel does not tell."""
    for family in (socket.AF_INET, socket.AF_INET6):
        yield from _dump(family, state, port)


def _dump(family: int, state: int, port: int) -> Iterator[Found]:
    which = _PORTS.pack(port, 0).ljust(_ID_BYTES, b"\0")
    body = _ASK.pack(family, socket.IPPROTO_TCP, 0, 1 << state) + which
    head = _HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(_TIMEOUT_S)
        sock.sendto(head + body, (0, 0))
        while True:
            data = sock.recv(1 << 16)
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind, _flags, _number, _port = _HEADER.unpack_from(data, at)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (number,) = struct.unpack_from("=i", data, at + _HEADER.size)
                    raise OSError(-number, os.strerror(-number))
                yield _found(data, at + _HEADER.size)
                at += max((length + 3) & ~3, _HEADER.size)


def _found(data: bytes, at: int) -> Found:
    if len(data) < at + _ANSWER_BYTES:
        raise OSError("sock_diag: an answer is cut")
    (port,) = struct.unpack_from("!H", data, at + 4)
    (inode,) = struct.unpack_from("=I", data, at + _INODE_AT)
    return Found(port, inode)


def open_connections(pids: Iterable[int]) -> int:
    """Client connections that these processes have open: established, to a port on which they
    listen. Raises ``OSError`` where that cannot be told, which is not the same as none."""
    mine = set[int]()
    for pid in pids:
        mine |= _inodes(pid)
    if not mine:
        return 0
    ports = {found.port for found in sockets(LISTEN) if found.inode in mine}
    return sum(found.inode in mine for port in ports for found in sockets(ESTABLISHED, port))


def _inodes(pid: int) -> set[int]:
    """Of the sockets that a process has open; none for one that is gone."""
    found = set[int]()
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except FileNotFoundError:
        if not os.path.exists("/proc/self/stat"):
            raise OSError("/proc cannot be read") from None
        return found
    except ProcessLookupError:
        return found
    for name in names:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    return found
