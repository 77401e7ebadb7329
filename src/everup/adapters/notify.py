"""The sd_notify socket: what services say of themselves.

One datagram socket for all; who speaks is told by the kernel (SCM_CREDENTIALS, and since Linux 6.5
SCM_PIDFD), never by the message, and is looked at before the message is. Whoever may reach the
socket can fill its queue, which holds ten datagrams by default: so what is nobody's costs little.
"""

import array
import contextlib
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from everup.adapters import trusted
from everup.model.instance import BreakerState

MAX_DATAGRAM = 4096
MAX_FIELDS = 64
_Owner = TypeVar("_Owner")
OF_DEPENDENCY = {
    "EVERUP_DEPENDENCY": re.compile(r"[A-Za-z0-9_.-]{1,63}"),
    "EVERUP_BREAKER": re.compile("|".join(state.value for state in BreakerState)),
    "EVERUP_CALLS": re.compile(r"[0-9]{1,12}(,[0-9]{1,12}){3}"),
    "EVERUP_P99_MS": re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?(e[+-]?[0-9]{1,2})?"),
}
_CREDENTIALS = struct.Struct("3i")
_INT = array.array("i").itemsize
_SO_PASSPIDFD, _SCM_PIDFD = 76, 4
_ANCILLARY = (
    socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(_INT) + socket.CMSG_SPACE(64 * _INT)
)
_TURN = 256
_LOOK_EVERY = 16
_TURN_S = 0.005
_QUEUE = "/proc/sys/net/unix/max_dgram_qlen"


class Sender(NamedTuple):
    """Who sent a datagram, as the kernel has it."""

    pid: int
    uid: int
    """The real one."""
    pidfd: int = -1
    """Valid also once the process is gone; -1 where the kernel gives none."""


class Said(NamedTuple):
    """One datagram of an instance."""

    sender: Sender
    fields: tuple[tuple[str, str], ...]
    descriptors: tuple[int, ...] = ()
    """That came along; closed when it was heard."""


def parse(data: bytes) -> tuple[tuple[str, str], ...]:
    """Fields of one datagram (``NAME=value`` lines, sd_notify(3)); what makes no sense is left
    out, and no input raises."""
    fields = []
    for line in data.decode("utf-8", "replace").split("\n")[:MAX_FIELDS]:
        name, separator, value = line.partition("=")
        if separator and name and name.replace("_", "").isalnum() and name.isascii():
            fields.append((name, value))
    return tuple(fields)


class Dependency(NamedTuple):
    """What a datagram says of something that its sender depends on."""

    name: str
    breaker: BreakerState | None
    """None: not said."""
    calls: tuple[int, int, int, int]
    """ok, failed, rejected, neutral since the datagram before."""
    p99_ms: float | None


def dependency(fields: tuple[tuple[str, str], ...]) -> Dependency | str | None:
    """Of the fields of one datagram, those about a dependency (``EVERUP_...``, as
    ``everup.tolerate.sinks.everup`` writes them). A text says why they make no sense; None: there
    are none."""
    said = {name: value for name, value in fields if name in OF_DEPENDENCY}
    if not said:
        return None
    for name, pattern in OF_DEPENDENCY.items():
        if name in said and not pattern.fullmatch(said[name]):
            return f"{name}={said[name][:80]!r}"
    if "EVERUP_DEPENDENCY" not in said:
        return f"{next(iter(said))} without EVERUP_DEPENDENCY"
    breaker, p99_ms = said.get("EVERUP_BREAKER"), said.get("EVERUP_P99_MS")
    ok, failed, rejected, neutral = map(int, said.get("EVERUP_CALLS", "0,0,0,0").split(","))
    return Dependency(
        said["EVERUP_DEPENDENCY"],
        None if breaker is None else BreakerState(breaker),
        (ok, failed, rejected, neutral),
        None if p99_ms is None else float(p99_ms),
    )


MAIN = ("MAINPID", "MAINPIDFD", "MAINPIDFDID")
"""Fields that name another main process (the latter two since systemd 257)."""


def named_main(
    fields: tuple[tuple[str, str], ...], descriptors: tuple[int, ...]
) -> tuple[int, str]:
    """The pid of the main process that a datagram names, 0 for one that makes no sense; and its
    words, "" where it names none. A pidfd, or the number of one beside the pid, tells it from
    another process that has got its pid since."""
    said = {name: value for name, value in fields if name in MAIN}
    words = " ".join(f"{name}={value}" for name, value in said.items())
    if said.get("MAINPIDFD") == "1":
        return (_pid_of(descriptors[0]) if len(descriptors) == 1 else 0), words
    text = said.get("MAINPID", "")
    pid = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if pid and "MAINPIDFDID" in said and said["MAINPIDFDID"] != str(_number_of(pid)):
        return 0, words
    return pid, words


def _pid_of(pidfd: int) -> int:
    """0 for what is no pidfd, or that of a process which has ended."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
            if line.startswith("Pid:"):
                return max(0, int(line.split()[1]))
    return 0


def _number_of(pid: int) -> int:
    """The inode of its pidfd, which no other process ever has (Linux 6.9); 0 if it is gone."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return 0
    try:
        return os.fstat(handle).st_ino
    finally:
        os.close(handle)


class NotifySocket(Generic[_Owner]):
    """``owner`` says whom a process belongs to; None: to nobody who may speak, and that is
    ``owner``'s to tell. ``refused`` is told what is wrong with a datagram, ``overrun`` that the
    queue was full, so that somebody's words may be lost or late."""

    def __init__(
        self,
        path: str,
        owner: Callable[[Sender], _Owner | None],
        report: Callable[[_Owner, Said], None],
        refused: Callable[[str], None],
        overrun: Callable[[], None] = lambda: None,
        *,
        fd: int | None = None,
    ) -> None:
        self.path = path
        self._owner = owner
        self._report = report
        self._refused = refused
        self._overrun = overrun
        if fd is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            # Under root services may run as other users, or become them; who may speak is checked
            # for each datagram.
            trusted.bind(self.socket, path, 0o666 if os.geteuid() == 0 else 0o600)
        else:
            self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with contextlib.suppress(OSError):  # before Linux 6.5
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_PASSPIDFD, 1)
        self._queue = _queue_length()

    def fileno(self) -> int:
        return self.socket.fileno()

    def readable(self) -> None:
        """Take in what has come; for a bounded time in one go."""
        until, count = time.monotonic() + _TURN_S, 0
        while count < _TURN and (count % _LOOK_EVERY or time.monotonic() < until):
            try:
                data, ancillary, flags, _address = self.socket.recvmsg(
                    MAX_DATAGRAM, _ANCILLARY, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                break
            count += 1
            sender, descriptors = _unpack(ancillary)
            try:
                self._take(data, flags, sender, descriptors)
            finally:
                for fd in (*descriptors, sender.pidfd):
                    if fd >= 0:
                        os.close(fd)
        if count > self._queue:
            self._overrun()

    def _take(self, data: bytes, flags: int, sender: Sender, descriptors: tuple[int, ...]) -> None:
        owner = self._owner(sender)
        if owner is None:
            return
        if flags & socket.MSG_TRUNC:
            self._refused(f"a datagram of more than {MAX_DATAGRAM} bytes from {owner}")
        elif fields := parse(data):
            self._report(owner, Said(sender, fields, descriptors))

    def close(self) -> None:
        self.socket.close()


def _queue_length() -> int:
    """How many datagrams wait at most before who sends must wait as well."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path(_QUEUE).read_text())
    return 10


def _unpack(ancillary: list[tuple[int, int, bytes]]) -> tuple[Sender, tuple[int, ...]]:
    pid, uid, pidfd, descriptors = 0, -1, -1, array.array("i")
    for level, kind, payload in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_CREDENTIALS:
            pid, uid, _gid = _CREDENTIALS.unpack(payload[: _CREDENTIALS.size])
        elif kind == _SCM_PIDFD:
            pidfd = int.from_bytes(payload[:_INT], sys.byteorder, signed=True)
        elif kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % _INT])
    return Sender(pid, uid, pidfd), tuple(descriptors)


def ancestors(pid: int, limit: int = 8) -> list[int]:
    """The process, its session leader and its parents: where it may belong."""
    chain = [pid]
    with contextlib.suppress(OSError):
        chain.append(os.getsid(pid))
    with contextlib.suppress(OSError, ValueError, IndexError):
        for _ in range(limit):
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            pid = int(stat.rpartition(b")")[2].split()[1])
            if pid <= 1:
                break
            chain.append(pid)
    return chain
