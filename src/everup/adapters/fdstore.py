"""systemd's file descriptor store: what it keeps for us while we are dead.

For an everup that runs as a systemd unit with FileDescriptorStoreMax set: descriptors are pushed by
name, and the next start of the unit inherits them (LISTEN_FDS). systemd does not allow a colon in
the names and ours have no comma, so one stands for the other.
"""

import array
import contextlib
import os
import socket
from collections.abc import Mapping, MutableMapping

FIRST_FD = 3
MAX_NAME = 255
_MAX_FDS = 65536
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_SEND_S = 1.0


class FdStore:
    """Talks to systemd. Every method returns whether systemd could be told; what it does with it
    (its limit may be reached) it tells nobody."""

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "FdStore | None":
        """None where there is no systemd that keeps descriptors for us."""
        return cls(environ["NOTIFY_SOCKET"]) if usable(environ) else None

    def push(self, name: str, fd: int) -> bool:
        """Have it kept under this name. A name can be given more than once: systemd then keeps
        each that is not the same file. Raises ``ValueError`` for a name that cannot be kept."""
        return self._send(f"FDSTORE=1\nFDNAME={outer_name(name)}", fd)

    def remove(self, name: str) -> bool:
        """Everything under this name is kept no longer."""
        return self._send(f"FDSTOREREMOVE=1\nFDNAME={outer_name(name)}")

    def ready(self, main_pid: int | None = None) -> bool:
        """We are up; ``main_pid``: the process that stands for the unit, if it is another."""
        text = "READY=1" if main_pid is None else f"READY=1\nMAINPID={main_pid}"
        return self._send(text)

    def _send(self, text: str, fd: int | None = None) -> bool:
        rights = []
        if fd is not None:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_SEND_S)
                sock.sendmsg([text.encode()], rights, 0, self._address)
        except OSError:
            return False
        return True


def usable(environ: Mapping[str, str]) -> bool:
    """Whether systemd started us and keeps descriptors: it says how many since version 254, and
    older ones show it by passing some."""
    address = environ.get("NOTIFY_SOCKET", "")
    limit, passed = environ.get("FDSTORE", ""), environ.get("LISTEN_PID", "")
    has_store = limit.isdigit() and int(limit) > 0
    return address[:1] in ("/", "@") and (has_store or passed == str(os.getpid()))


def inherited(environ: MutableMapping[str, str]) -> dict[str, int]:
    """The descriptors that systemd passed to this process, by name; nobody inherits them further.

    Takes the variables out of ``environ``, so that no service believes that they are meant for
    it. Of several under one name the last is kept; the others, and those without a name, are
    closed.
    """
    pid, count, names = (environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdigit() or int(count) > _MAX_FDS:
        return {}
    fds = range(FIRST_FD, FIRST_FD + int(count))
    known = names.split(":") if names else []
    out: dict[str, int] = {}
    for number, fd in enumerate(fds):
        with contextlib.suppress(OSError):
            os.set_inheritable(fd, False)
            name = inner_name(known[number]) if number < len(known) else ""
            if not name or name in out:
                os.close(out.pop(name, fd))
            if name:
                out[name] = fd
    return out


def outer_name(name: str) -> str:
    """As systemd takes it. Raises ``ValueError``."""
    outer = name.replace(":", ",")
    if not outer.isascii() or not outer.isprintable() or not 0 < len(outer) <= MAX_NAME:
        raise ValueError(f"no name for systemd's store: {name!r}")
    if "," in name:
        raise ValueError(f"a comma cannot be told from a colon afterwards: {name!r}")
    return outer


def inner_name(name: str) -> str:
    """As it was pushed."""
    return name.replace(",", ":")
