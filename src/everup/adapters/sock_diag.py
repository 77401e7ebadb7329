"""Ask the kernel about single sockets (NETLINK_SOCK_DIAG): who has accepted, who listens.

Exact questions cost some 10 microseconds however many sockets the machine has; /proc/net/tcp costs
more the more there are. Where the kernel or a sandbox has no such thing, answers are None, which
means "nobody knows".
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST, _DUMP = 1, 0x300
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_INET_REQUEST = struct.Struct("=BBBBI")
_INET_ID = struct.Struct("!HH16s16s")
_INET_ID_REST = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # any interface, any cookie
_INET_ANSWER = struct.Struct("=BBBB")
_INET_INODE_AT = 68  # idiag_inode in struct inet_diag_msg
_INET_STATE_AT = 1
_UNIX_REQUEST = struct.Struct("=BBHIIIII")
_UNIX_ANSWER = struct.Struct("=BBBBIII")
_ATTRIBUTE = struct.Struct("=HH")
_SHOW_VFS, _SHOW_PEER, _SHOW_QUEUE = 2, 4, 16
_VFS, _PEER, _QUEUE = 1, 2, 4
ESTABLISHED, LISTEN = 1, 10
"""States of a TCP socket, as the kernel numbers them."""
_SYN_RECV = 3
_ANY_STATE = 0xFFFFFFFF
_TIMEOUT_S = 1.0
_BUFFER = 1 << 16


@dataclass(frozen=True, slots=True)
class Listening:
    """One listening TCP socket of the machine."""

    inode: int
    host: str


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """What the kernel knows of one Unix socket."""

    path_inode: int | None
    """Inode of the file that it was bound to, whether or not that still has a name."""
    path_device: int | None
    peer: int | None
    """Inode of its peer; 0 while nobody has accepted the connection."""
    waiting: int
    """Listening: connections that wait for accept."""
    limit: int
    """Listening: how many may."""


def accepted(client: socket.socket) -> bool | None:
    """Whether the connection of a client on this machine has been accepted.

    A connection counts as made once it is in the listener's queue; only a socket that a process
    has taken out of the queue has an inode."""
    try:
        if client.family == socket.AF_UNIX:
            found = unix_socket(os.fstat(client.fileno()).st_ino)
            return None if found is None or found.peer is None else found.peer > 0
        inode = _inode_of_peer(client)
        return None if inode is None else inode > 0
    except (OSError, struct.error):
        return None


def _inode_of_peer(client: socket.socket) -> int | None:
    here, there = client.getsockname(), client.getpeername()
    request = _INET_REQUEST.pack(client.family, socket.IPPROTO_TCP, 0, 0, _ANY_STATE)
    request += _INET_ID.pack(
        there[1], here[1], _packed(client.family, there[0]), _packed(client.family, here[0])
    )
    for answer in _ask(request + _INET_ID_REST, dump=False):
        state = answer[_INET_STATE_AT]
        if state == LISTEN:  # what the kernel falls back to: no such connection here
            return None
        if state == _SYN_RECV:
            return 0
        return int(struct.unpack_from("=I", answer, _INET_INODE_AT)[0])
    return None


def _packed(family: int, host: str) -> bytes:
    return socket.inet_pton(family, host.partition("%")[0]).ljust(16, b"\0")


class TcpSocket(NamedTuple):
    """One TCP socket."""

    port: int
    """The local one."""
    inode: int


def dump(family: int, state: int, port: int = 0) -> Iterator[bytes]:
    """Give the kernel's answer about each TCP socket of this network namespace of that family, in
    that state and with that local port (0: any): a struct inet_diag_msg with what follows it.
    Raises ``OSError`` where the kernel does not tell."""
    request = _INET_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << state)
    request += _INET_ID.pack(port, 0, b"", b"") + _INET_ID_REST
    return _ask(request, dump=True)


def tcp(state: int, port: int = 0) -> Iterator[TcpSocket]:
    """Give all TCP sockets of this network namespace in that state with that local port (0: any).
    Raises ``OSError`` where the kernel does not tell."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for answer in dump(family, state, port):
            if len(answer) < _INET_INODE_AT + 4:
                raise OSError("sock_diag: an answer is cut")
            (number,) = struct.unpack_from("!H", answer, _INET_ANSWER.size)
            (inode,) = struct.unpack_from("=I", answer, _INET_INODE_AT)
            yield TcpSocket(number, inode)


def listening(port: int, families: tuple[int, ...]) -> list[Listening] | None:
    """Who listens on a TCP port of this network namespace."""
    found = []
    try:
        for family in families:
            for answer in dump(family, LISTEN, port):
                number, _, source, _ = _INET_ID.unpack_from(answer, _INET_ANSWER.size)
                if number == port:
                    size = 4 if family == socket.AF_INET else 16
                    host = socket.inet_ntop(family, source[:size])
                    inode = struct.unpack_from("=I", answer, _INET_INODE_AT)[0]
                    found.append(Listening(int(inode), host))
    except (OSError, struct.error):
        return None
    return found


def unix_socket(inode: int) -> UnixSocket | None:
    """One Unix socket, by its inode. Raises ``OSError`` where that cannot be asked."""
    show = _SHOW_VFS | _SHOW_PEER | _SHOW_QUEUE
    request = _UNIX_REQUEST.pack(
        socket.AF_UNIX, 0, 0, _ANY_STATE, inode, show, 0xFFFFFFFF, 0xFFFFFFFF
    )
    for answer in _ask(request, dump=False):
        values = dict(_attributes(answer, _UNIX_ANSWER.size))
        file, device = struct.unpack("=II", values[_VFS]) if _VFS in values else (None, None)
        peer = struct.unpack("=I", values[_PEER])[0] if _PEER in values else None
        waiting, limit = struct.unpack("=II", values[_QUEUE]) if _QUEUE in values else (0, 0)
        return UnixSocket(file, device, peer, waiting, limit)
    return None


def device_number(device: int) -> int:
    """``st_dev`` as the kernel writes it here: 12 bits for the major, 20 for the minor number."""
    return os.major(device) << 20 | os.minor(device)


def _attributes(answer: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + _ATTRIBUTE.size <= len(answer):
        size, kind = _ATTRIBUTE.unpack_from(answer, at)
        if size < _ATTRIBUTE.size:
            return
        yield kind, answer[at + _ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3


def _ask(request: bytes, *, dump: bool) -> Iterator[bytes]:
    """The answers to one question, without their headers. Raises ``OSError``; nothing there is no
    answer."""
    flags = _REQUEST | (_DUMP if dump else 0)
    size = _HEADER.size + len(request)
    message = _HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, flags, 1, 0) + request
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(_TIMEOUT_S)
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
                    if number == errno.ENOENT and not dump:
                        return
                    raise OSError(number, os.strerror(number))
                yield body
                if not dump:
                    return
