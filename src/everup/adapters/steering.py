"""The BPF program that picks the replica for a new connection, inside the kernel.

A classic BPF program on a SO_REUSEPORT group (SO_ATTACH_REUSEPORT_CBPF, Linux 4.5, no privilege
needed) returns the index of the socket that gets the connection.

- A probe names its replica: over IPv4 by its source address in a loopback range of our own, over
  IPv6 (whose loopback is a single address) by its traffic class. Nothing from off the machine can
  do so: both need a loopback source.
- Everybody else gets a random replica of the balance.

Indexes are positions in the group, in the order in which its sockets began to listen. When one is
closed the kernel moves the last one into its place, and tells nobody: see ``positions``.
"""

import contextlib
import ctypes
import errno
import os
import socket
import struct
import time
from collections.abc import Sequence

_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_SO_ATTACH_REUSEPORT_CBPF = 51
_SO_MEMINFO = 55
_SO_DETACH_REUSEPORT_BPF = 68
_MEMINFO = struct.Struct("9I")
_MEMINFO_DROPS = 8
_HIT_S = 0.25
_ROUNDS = 5
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_NET = 0xFFF00000  # SKF_NET_OFF: offsets from the IP header
_RANDOM = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM

_LD_W, _LD_H, _LD_B = 0x20, 0x28, 0x30
_AND, _RSH, _SUB, _MOD = 0x54, 0x74, 0x14, 0x94
_JEQ, _JMP = 0x15, 0x05
_RET_K, _RET_A = 0x06, 0x16

SOURCE_NET = 0x7F4D0000  # 127.77.0.0/16
MAX_TRAFFIC_CLASS_REPLICA = 62

Instruction = tuple[int, int, int, int]


def probe_source(replica: int) -> str:
    """IPv4 source address that leads to this replica (numbered from 1)."""
    return socket.inet_ntoa(struct.pack("!I", SOURCE_NET | replica))


def probe_traffic_class(replica: int) -> int:
    """IPv6 traffic class that leads to this replica; 0 (no way to tell) above 62 replicas."""
    return replica << 2 if replica <= MAX_TRAFFIC_CLASS_REPLICA else 0


def program(active: Sequence[int]) -> list[Instruction]:
    """``active``: indexes (from 0) of the sockets that take new connections; not empty."""
    pick: list[Instruction] = [(_LD_W, 0, 0, _RANDOM), (_MOD, 0, 0, len(active))]
    for number, index in enumerate(active[:-1]):
        pick += [(_JEQ, 0, 1, number), (_RET_K, 0, 0, index)]
    pick.append((_RET_K, 0, 0, active[-1]))
    v4: list[Instruction] = [
        (_LD_W, 0, 0, _NET + 12),
        (_AND, 0, 0, 0xFFFF0000),
        (_JEQ, 0, 4, SOURCE_NET),
        (_LD_W, 0, 0, _NET + 12),
        (_AND, 0, 0, 0xFFFF),
        (_SUB, 0, 0, 1),
        (_RET_A, 0, 0, 0),
    ]
    # ::1 and a traffic class of ours, else on to the pick. The offsets are to the end of v6.
    v6: list[Instruction] = []
    for word, value in enumerate((0, 0, 0, 1)):
        v6 += [(_LD_W, 0, 0, _NET + 8 + 4 * word), (_JEQ, 0, 12 - 2 * word, value)]
    v6 += [
        (_LD_W, 0, 0, _NET),
        (_RSH, 0, 0, 22),
        (_AND, 0, 0, 0x3F),
        (_JEQ, 2, 0, 0),
        (_SUB, 0, 0, 1),
        (_RET_A, 0, 0, 0),
    ]
    head: list[Instruction] = [(_LD_B, 0, 0, _NET), (_RSH, 0, 0, 4), (_JEQ, 1, 0, 6)]
    return [*head, (_JMP, 0, 0, len(v6)), *v6, *v4, *pick]


def attach(sock: socket.socket, active: Sequence[int]) -> None:
    """Put the program on the group of ``sock``. Raises ``OSError`` where the kernel refuses."""
    _put(sock, _SO_ATTACH_REUSEPORT_CBPF, program(active))


def _put(sock: socket.socket, option: int, code: Sequence[Instruction]) -> None:
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    request = struct.pack("HxxxxxxP", len(code), ctypes.addressof(packed))
    sock.setsockopt(socket.SOL_SOCKET, option, request)


def detach(sock: socket.socket) -> None:
    """Take the program off the group: from now on the kernel spreads evenly. Quiet where there is
    none, or where it cannot be taken off (before Linux 5.3)."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)


def refused(error: OSError) -> bool:
    """Whether the error means that this kernel or sandbox has no such programs."""
    return error.errno in (errno.ENOPROTOOPT, errno.EPERM, errno.EACCES, errno.EINVAL)


def positions(group: Sequence[socket.socket]) -> list[int] | None:
    """The index of each of these listening sockets in their SO_REUSEPORT group, as the kernel has
    it now; None when that cannot be found out, or when others are in the group as well.

    Asked of the kernel: a connection is begun in the way in which a probe reaches index 0, 1, ...
    while a packet filter on each socket drops just that. The socket whose count of drops rises is
    the one. No process sees any of it, and other connections come in as always. The group needs
    its program (see ``attach``) where it has more than one socket.
    """
    with contextlib.suppress(OSError):
        return _measure(group)
    return None


def _measure(group: Sequence[socket.socket]) -> list[int] | None:
    host, port = group[0].getsockname()[:2]
    there = (_ANY.get(str(host), str(host)), int(port))
    if group[0].family == socket.AF_INET6 and len(group) > MAX_TRAFFIC_CLASS_REPLICA:
        return None
    with _client(group[0].family, 0, 0) as first:
        own_port = first.getsockname()[1]
    found: list[int] = []
    filtered: list[socket.socket] = []
    try:
        for sock in group:
            _put(sock, _SO_ATTACH_FILTER, _drop_from(own_port))
            filtered.append(sock)
        for index in range(len(group)):
            hit = _confirmed(group, index, own_port, there)
            if hit is None or hit in found:
                return None
            found.append(hit)
    finally:
        for sock in filtered:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    return [found.index(number) for number in range(len(group))]


def _confirmed(
    group: Sequence[socket.socket], index: int, own_port: int, there: tuple[str, int]
) -> int | None:
    """Which socket has this index, seen twice in a row: a busy listener also drops for reasons
    of its own."""
    last = None
    for _ in range(_ROUNDS):
        hits = _hits(group, index, own_port, there)
        hit = hits[0] if len(hits) == 1 else None
        if hit is not None and hit == last:
            return hit
        last = hit
    return None


def _hits(
    group: Sequence[socket.socket], index: int, own_port: int, there: tuple[str, int]
) -> list[int]:
    before = [_drops(sock) for sock in group]
    with _client(group[0].family, index, own_port) as client:
        client.setblocking(False)
        number = client.connect_ex(there)
        if number not in (0, errno.EINPROGRESS):
            raise OSError(number, os.strerror(number))
        until = time.monotonic() + _HIT_S  # as a rule it is there before connect() returns
        while True:
            hits = [n for n, sock in enumerate(group) if _drops(sock) != before[n]]
            if hits or time.monotonic() > until:
                return hits
            time.sleep(0.001)


def _client(family: int, index: int, port: int) -> socket.socket:
    """A socket whose connections lead to this index, bound to a local port (0: any)."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            traffic_class = probe_traffic_class(index + 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
        sock.bind(("::1" if family == socket.AF_INET6 else probe_source(index + 1), port))
    except BaseException:
        sock.close()
        raise
    return sock


def _drop_from(port: int) -> list[Instruction]:
    """A packet filter: drop what comes from a source of probes and from this port, no more than
    that. Were it ever left behind, it would hit next to nobody."""
    keep, drop = (_RET_K, 0, 0, 0xFFFFFFFF), (_RET_K, 0, 0, 0)
    v4: list[Instruction] = [
        (_LD_H, 0, 0, _NET + 20),
        (_JEQ, 0, 4, port),
        (_LD_W, 0, 0, _NET + 12),
        (_AND, 0, 0, 0xFFFF0000),
        (_JEQ, 0, 1, SOURCE_NET),
        drop,
        keep,
    ]
    v6: list[Instruction] = [(_LD_H, 0, 0, _NET + 40), (_JEQ, 0, 9, port)]
    for word, value in enumerate((0, 0, 0, 1)):
        v6 += [(_LD_W, 0, 0, _NET + 8 + 4 * word), (_JEQ, 0, 7 - 2 * word, value)]
    v6 += [drop, keep]
    head: list[Instruction] = [(_LD_B, 0, 0, _NET), (_RSH, 0, 0, 4), (_JEQ, 0, len(v4), 4)]
    return [*head, *v4, *v6]


def _drops(sock: socket.socket) -> int:
    packed = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    return int(_MEMINFO.unpack(packed)[_MEMINFO_DROPS])
