"""The talk between keeper and engine: JSON messages with descriptors over a seqpacket socket.

A message is one packet, so it arrives whole or not at all. One that is too large for a packet
travels in a memory file whose descriptor comes last (``"memfd"`` in place of the message).
"""

import array
import json
import os
import socket
from collections.abc import Sequence

TYPE_CHECKING = False
"""``typing`` itself is not loaded: it is a tenth of what each fork of the keeper has to copy."""
if TYPE_CHECKING:
    from typing import Any

Message = dict[str, "Any"]

MAX_PACKET = 60_000
MAX_FDS = 64
_ANCILLARY = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


class ClosedError(Exception):
    """The other side is gone."""


class CutError(Exception):
    """This process has no room for all the descriptors that came: those that did are closed.
    ``message`` has come whole."""

    def __init__(self, message: Message) -> None:
        super().__init__("too few descriptors are free for those that came")
        self.message = message


def pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair, non-blocking, not inherited."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (left, right):
        end.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
    return left, right


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message. Raises ``BlockingIOError`` when nobody reads it, ``ClosedError`` when
    the other side is gone."""
    data = json.dumps(message, separators=(",", ":")).encode()
    memory = -1
    try:
        if len(data) > MAX_PACKET:
            memory = os.memfd_create("everup-message", os.MFD_CLOEXEC)
            os.write(memory, data)
            data, fds = b'{"memfd":true}', [*fds, memory]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sock.sendmsg([data], rights)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise ClosedError from error
    finally:
        if memory >= 0:
            os.close(memory)


def receive(sock: socket.socket) -> tuple[Message, list[int]]:
    """One message and its descriptors. Raises ``BlockingIOError`` when there is none,
    ``ClosedError``, ``CutError``."""
    try:
        data, ancillary, cut = _take(sock)
    except ConnectionResetError:
        # The other side closed without having read all of ours. This is told before what it had
        # sent, once.
        try:
            data, ancillary, cut = _take(sock)
        except ConnectionResetError as error:
            raise ClosedError from error
    if not data:
        raise ClosedError
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    got = list(fds)
    message = json.loads(data)
    if cut:
        for fd in got:
            os.close(fd)
        raise CutError(message)
    if message.get("memfd") is True:
        memory = got.pop()
        try:
            message = json.loads(os.pread(memory, os.fstat(memory).st_size, 0))
        finally:
            os.close(memory)
    return message, got


def _take(sock: socket.socket) -> tuple[bytes, list[tuple[int, int, bytes]], bool]:
    data, ancillary, flags, _address = sock.recvmsg(
        MAX_PACKET + 1, _ANCILLARY, socket.MSG_CMSG_CLOEXEC
    )
    return data, ancillary, bool(flags & socket.MSG_CTRUNC)
