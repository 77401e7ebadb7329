"""The BPF program that picks the replica for a new connection, inside the kernel.

A classic BPF program on a SO_REUSEPORT group (SO_ATTACH_REUSEPORT_CBPF, Linux 4.5, no privilege
needed) returns the index of the socket that gets the connection.

- A probe names its replica: over IPv4 by its source address in a loopback range of our own, over
  IPv6 (whose loopback is a single address) by its traffic class. Nothing from off the machine can
  do so: both need a loopback source.
- Everybody else gets a random replica of the balance.
"""

import ctypes
import errno
import socket
import struct
from collections.abc import Sequence

_SO_ATTACH_REUSEPORT_CBPF = 51
_NET = 0xFFF00000  # SKF_NET_OFF: offsets from the IP header
_RANDOM = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM

_LD_W, _LD_B = 0x20, 0x30
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
    code = program(active)
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    request = struct.pack("HxxxxxxP", len(code), ctypes.addressof(packed))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, request)


def refused(error: OSError) -> bool:
    """Whether the error means that this kernel or sandbox has no such programs."""
    return error.errno in (errno.ENOPROTOOPT, errno.EPERM, errno.EACCES, errno.EINVAL)
