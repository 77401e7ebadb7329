"""Start one process: fork into its control group, set it up, exec it.

``clone3`` with CLONE_INTO_CGROUP puts the child into its group at birth; moving it afterwards
waits for an RCU grace period (15 ms were seen) and lets early children escape.
"""

import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from everup.keeper import wire

_CLONE3 = 435  # the same number on every architecture: clone3 is younger than the common table
_CLONE_INTO_CGROUP = 0x200000000
_libc = ctypes.PyDLL(None, use_errno=True)  # PyDLL: keeps the interpreter lock, as fork needs
_LIMITS = {"nofile": resource.RLIMIT_NOFILE, "core": resource.RLIMIT_CORE}

ignored = tuple(s for s in signal.valid_signals() if signal.getsignal(s) == signal.SIG_IGN)
_can_clone_into = True
tainted: set[str] = set()
"""Groups on which ``cgroup.kill`` was used: children must not be born into them (see children)."""


class SpawnError(Exception):
    """The child could not even be forked."""

    def __init__(self, stage: str, number: int) -> None:
        super().__init__(stage, number)
        self.stage = stage
        self.number = number


def start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot (with the pid: its identity); 0 if gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _fork(cgroup: str | None) -> tuple[int, bool]:
    """Fork; returns the pid (0 in the child) and whether the child is in ``cgroup`` already."""
    global _can_clone_into
    if cgroup and _can_clone_into and cgroup not in tainted:
        group = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            arguments = struct.pack(
                "11Q", _CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, group
            )
            pid = _libc.syscall(_CLONE3, ctypes.create_string_buffer(arguments, 88), 88)
            if pid >= 0:
                return pid, True
            if ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG):
                raise SpawnError("fork", ctypes.get_errno())
            _can_clone_into = False
        finally:
            os.close(group)
    return os.fork(), False


class Body:
    """A forked child that waits to be told what to become.

    Forking costs more than all other steps of a start, so the keeper has one ready by the time
    that the engine has decided to restart what has just died.
    """

    __slots__ = ("cgroup", "made_at", "pid", "report", "sock")

    def __init__(self, cgroup: str | None) -> None:
        """Raises ``SpawnError``."""
        self.cgroup = cgroup
        self.made_at = time.monotonic()
        self.sock, theirs = wire.pair()
        self.report, failed = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self.pid, placed = _fork(cgroup)
        except (OSError, SpawnError) as error:
            self.sock.close()
            os.close(self.report)
            if isinstance(error, SpawnError):
                raise
            raise SpawnError("fork", error.errno or 0) from error
        finally:
            # In the child these two are what it lives on.
            if getattr(self, "pid", -1) != 0:
                theirs.close()
                os.close(failed)
        if self.pid == 0:
            self.sock.close()
            _child(theirs, failed, None if placed else cgroup)

    def become(self, request: Mapping[str, Any], sources: Mapping[int, int]) -> None:
        """Run ``request["argv"]``; ``sources`` maps descriptor numbers of the child to ours."""
        fds = list(dict.fromkeys(sources.values()))
        place = {str(number): fds.index(fd) for number, fd in sources.items()}
        try:
            wire.send(self.sock, {"request": request, "place": place}, fds)
        except (wire.ClosedError, OSError) as error:
            raise SpawnError("fork", getattr(error, "errno", None) or 0) from error
        finally:
            self.sock.close()

    def discard(self) -> None:
        """It is not needed: it sees the end of its socket and goes; reaped like an orphan."""
        self.sock.close()
        os.close(self.report)


def spawn(
    request: Mapping[str, Any], sources: Mapping[int, int], body: Body | None
) -> tuple[int, int]:
    """Start ``request["argv"]`` in ``body``, or in a new one.

    Returns the pid and the read end of a pipe that ends when the exec has succeeded, or holds
    ``{"stage", "errno"}`` when a step of the set-up failed. Raises ``SpawnError``.
    """
    if body is None:
        body = Body(request.get("cgroup"))
    body.become(request, sources)
    return body.pid, body.report


def _child(theirs: socket.socket, failed: int, cgroup: str | None) -> NoReturn:
    stage = "set-up"
    try:
        stage = "session"
        os.setsid()
        # exec resets handlers by itself; what is ignored stays ignored, so that is undone here.
        for number in ignored:
            signal.signal(number, signal.SIG_DFL)
        if cgroup is not None:
            stage = "control group"
            _enter(cgroup)
        theirs.setblocking(True)
        try:
            message, fds = wire.receive(theirs)
        except wire.ClosedError:
            os._exit(0)  # nobody needs us
        stage = "descriptors"
        sources = {int(number): fds[index] for number, index in message["place"].items()}
        failed = _place(sources, failed)
        _become(message["request"], failed)
    except BaseException as error:
        _tell(failed, stage, error)
    os._exit(127)


def _enter(cgroup: str) -> None:
    with open(cgroup + "/cgroup.procs", "w") as file:
        file.write("0")


def _tell(failed: int, stage: str, error: BaseException) -> None:
    code = error.errno if isinstance(error, OSError) else 0
    note = json.dumps({"stage": stage, "errno": code or 0, "text": str(error)[:300]})
    os.write(failed, note.encode())


def _become(request: Mapping[str, Any], failed: int) -> None:
    stage = "control group"
    try:
        for directory in request.get("cgroups", ()):
            _enter(directory)
        stage = "limits"
        for name, limit in request.get("limits", {}).items():
            resource.setrlimit(_LIMITS[name], (limit, limit))
        if "nice" in request:
            stage = "nice"
            os.setpriority(os.PRIO_PROCESS, 0, request["nice"])
        if "umask" in request:
            os.umask(request["umask"])
        if "uid" in request:
            stage = "user"
            os.setgroups(request["groups"])
            os.setgid(request["gid"])
            os.setuid(request["uid"])
        stage = "directory"
        os.chdir(request["cwd"])
        environment = request["env"]
        if request.get("listen_pid"):
            environment["LISTEN_PID"] = str(os.getpid())
        stage = "command"
        os.execvpe(request["argv"][0], request["argv"], environment)
    except BaseException as error:
        _tell(failed, stage, error)


def _place(sources: Mapping[int, int], failed: int) -> int:
    """Give each descriptor its number; returns where ``failed`` is now."""
    above = max(sources, default=2) + 1
    failed = fcntl.fcntl(failed, fcntl.F_DUPFD_CLOEXEC, above)
    lifted = {
        target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, above)
        for target, source in sources.items()
    }
    for target, source in lifted.items():
        os.dup2(source, target, inheritable=True)
    return failed
