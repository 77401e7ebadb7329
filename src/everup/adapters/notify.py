"""The sd_notify socket: what services say of themselves.

One datagram socket for all; who speaks is told by the kernel (SCM_CREDENTIALS), never by the
message. A datagram from a process that belongs to no instance is dropped and counted.
"""

import array
import contextlib
import os
import re
import socket
import struct
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
_ANCILLARY = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(
    64 * array.array("i").itemsize
)


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


class NotifySocket(Generic[_Owner]):
    """``owner`` says who a process belongs to."""

    def __init__(
        self,
        path: str,
        owner: Callable[[int], _Owner | None],
        report: Callable[[_Owner, tuple[tuple[str, str], ...]], None],
        refused: Callable[[str], None],
        *,
        fd: int | None = None,
    ) -> None:
        self.path = path
        self._owner = owner
        self._report = report
        self._refused = refused
        if fd is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            # Services run as other users; who may speak is checked by pid.
            trusted.bind(self.socket, path, 0o666)
        else:
            self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def fileno(self) -> int:
        return self.socket.fileno()

    def readable(self) -> None:
        """Take in what has come; a bounded number in one go."""
        for _ in range(64):
            try:
                data, ancillary, flags, _address = self.socket.recvmsg(
                    MAX_DATAGRAM, _ANCILLARY, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            pid = _sender(ancillary)
            owner = self._owner(pid) if pid else None
            if owner is None:
                self._refused(f"a datagram from pid {pid}, which belongs to no instance")
            elif flags & socket.MSG_TRUNC:
                self._refused(f"a datagram of more than {MAX_DATAGRAM} bytes from {owner}")
            elif fields := parse(data):
                self._report(owner, fields)

    def close(self) -> None:
        self.socket.close()


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int:
    pid = 0
    for level, kind, payload in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_CREDENTIALS:
            pid = _CREDENTIALS.unpack(payload[: _CREDENTIALS.size])[0]
        elif kind == socket.SCM_RIGHTS:  # nobody asked for descriptors
            fds = array.array("i")
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
            for fd in fds:
                os.close(fd)
    return pid


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
