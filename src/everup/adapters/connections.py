"""Client connections that processes have open, asked of the kernel by port and state: it leaves
out itself what was not asked for, also with tens of thousands of sockets in TIME_WAIT."""

import contextlib
import os
from collections.abc import Iterable

from everup.adapters.sock_diag import ESTABLISHED, LISTEN, tcp


def open_connections(pids: Iterable[int]) -> int:
    """Client connections that these processes have open: established, to a port on which they
    listen. Raises ``OSError`` where that cannot be told, which is not the same as none."""
    mine = set[int]()
    for pid in pids:
        mine |= _inodes(pid)
    if not mine:
        return 0
    ports = {found.port for found in tcp(LISTEN) if found.inode in mine}
    return sum(found.inode in mine for port in ports for found in tcp(ESTABLISHED, port))


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
