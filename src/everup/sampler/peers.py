"""Whom the processes of an instance are connected to: what a service needs, without asking it."""

import os
import re
import socket
import struct
from collections.abc import Iterable

from everup.adapters.sock_diag import ESTABLISHED, dump

_ID_AT = 4
"""struct inet_diag_sockid in struct inet_diag_msg, behind four bytes."""
_PORTS = struct.Struct("!HH")
_INODE_AT = 68
MOST_SOCKETS = 20_000
"""With more connections on the machine only these are looked at."""
MOST_PEERS = 64
_SOCKET = re.compile(r"socket:\[([0-9]+)\]")


def remotes() -> dict[int, str]:
    """Give the far end of each established TCP connection of this network namespace, by the inode
    of the near end. Raises ``OSError`` where the kernel does not tell."""
    out: dict[int, str] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        size = 4 if family == socket.AF_INET else 16
        for answer in dump(family, ESTABLISHED):
            _near, far = _PORTS.unpack_from(answer, _ID_AT)
            at = _ID_AT + _PORTS.size + 16
            host = socket.inet_ntop(family, answer[at : at + size])
            (inode,) = struct.unpack_from("=I", answer, _INODE_AT)
            if inode:
                out[inode] = f"{host.removeprefix('::ffff:')}:{far}"
            if len(out) >= MOST_SOCKETS:
                return out
    return out


def peers(pids: Iterable[int], far_ends: dict[int, str]) -> list[str]:
    """Give the far ends of the connections that these processes have open."""
    found: dict[str, None] = {}
    for pid in pids:
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                for entry in entries:
                    match = _SOCKET.fullmatch(os.readlink(entry.path))
                    if match and (far := far_ends.get(int(match[1]))) is not None:
                        found[far] = None
                    if len(found) >= MOST_PEERS:
                        return list(found)
        except OSError:
            continue
    return list(found)
