"""The engine's first signs of life: from its first instant until its loop gives them.

Loading what it is made of and taking over a machine full of services both take their time, in
which the loop does not run. A thread speaks meanwhile; a process that is stopped is silent all the
same. Standard library alone: this is loaded before everything else.
"""

import contextlib
import os
import socket
import threading

from everup.keeper import wire
from everup.keeper.vigil import BEAT_S

KEEPER_FD = "EVERUP_KEEPER_FD"
KEEPER_BEATS = "EVERUP_KEEPER_BEATS"
"""In the environment of an engine whose keeper says every second that it lives, and listens to
beats. One of an earlier version does neither, and is not to be condemned for it."""
_LONGEST_S = 60.0
"""A start that takes longer is one that hangs."""
_over = threading.Event()


def begin() -> None:
    """Speak to the keeper that started us, if one did."""
    number = os.environ.get(KEEPER_FD, "")
    if number.isdigit() and KEEPER_BEATS in os.environ:
        with contextlib.suppress(OSError):
            sock = socket.socket(fileno=os.dup(int(number)))
            threading.Thread(target=_speak, args=(sock,), name="first beats", daemon=True).start()


def end() -> None:
    """The loop speaks from now on."""
    _over.set()


def _speak(sock: socket.socket) -> None:
    left = int(_LONGEST_S / BEAT_S)
    with sock, contextlib.suppress(OSError, wire.ClosedError):
        while left and not _over.is_set():
            with contextlib.suppress(BlockingIOError):
                wire.send(sock, {"op": "beat"})
            left -= 1
            _over.wait(BEAT_S)
