"""What a probe does to its socket, beside asking."""

import contextlib
import os
import socket
import struct
from typing import Final

from everup.adapters import sock_diag

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


def talks_to_itself(sock: socket.socket | None) -> bool:
    """On loopback a connect() to a free port can be given that very port to come from."""
    try:
        return sock is not None and sock.getsockname() == sock.getpeername() != ""
    except OSError:
        return False


def accepted_by_others(client: socket.socket, session: int) -> bool:
    """Whether the connection to a Unix socket that several processes share was accepted by none of
    this session. 0: whose does not matter. False where nobody can tell."""
    if not session:
        return False
    with contextlib.suppress(OSError, struct.error):
        known = sock_diag.unix_socket(os.fstat(client.fileno()).st_ino)
        if known is None or not known.peer:
            return False
        wanted = f"socket:[{known.peer}]"
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.getsid(int(pid)) == session and _has(pid, wanted):
                    return False
        return True
    return False


def _has(pid: str, wanted: str) -> bool:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/{pid}/fd/{fd}") == wanted:
                return True
    return False


def reset_on_close(sock: socket.socket | None) -> None:
    """The answer is here, so no TIME_WAIT (60 s of a local port, per probe) is needed."""
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
