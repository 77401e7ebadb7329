"""How full the accept queues of listening sockets are: load and hangs, without asking anybody."""

import socket
import struct

from everup.adapters.sock_diag import LISTEN, dump

_NUMBERS_AT = 56
"""idiag_rqueue in struct inet_diag_msg; of a listening socket the queue, then its limit, the owner
and the inode."""
_NUMBERS = struct.Struct("=IIII")


def queues() -> dict[int, tuple[int, int]]:
    """Give for each listening TCP socket of this network namespace, by inode, the connections that
    wait for accept and how many may. Raises ``OSError`` where the kernel does not tell."""
    out: dict[int, tuple[int, int]] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        for answer in dump(family, LISTEN):
            waiting, limit, _uid, inode = _NUMBERS.unpack_from(answer, _NUMBERS_AT)
            out[inode] = (waiting, limit)
    return out
