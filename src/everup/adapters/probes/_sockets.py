"""What a probe does to its socket, beside asking."""

import socket
import struct
from typing import Final

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


def talks_to_itself(sock: socket.socket | None) -> bool:
    """On loopback a connect() to a free port can be given that very port to come from."""
    try:
        return sock is not None and sock.getsockname() == sock.getpeername() != ""
    except OSError:
        return False


def reset_on_close(sock: socket.socket | None) -> None:
    """The answer is here, so no TIME_WAIT (60 s of a local port, per probe) is needed."""
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
