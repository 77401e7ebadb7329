"""What a newborn does: wait for its request, set itself up, exec."""

import contextlib
import fcntl
import json
import os
import resource
import signal
import socket
import warnings  # noqa: F401 - Python itself asks for it at times; a user may be unable to read it
from collections.abc import Mapping

from everup.keeper import wire

TYPE_CHECKING = False
"""``typing`` itself is not loaded: it is a tenth of what each fork of the keeper has to copy."""
if TYPE_CHECKING:
    from typing import NoReturn

_LIMITS = {"nofile": resource.RLIMIT_NOFILE, "core": resource.RLIMIT_CORE}


ignored = tuple(s for s in signal.valid_signals() if signal.getsignal(s) == signal.SIG_IGN)
"""What this process was started with, and Python's own two (SIGPIPE, SIGXFSZ)."""


nofile = resource.getrlimit(resource.RLIMIT_NOFILE)
"""The limit of descriptors that everup was started with: the services get it back."""

oom: int | None = None
"""The services' oom_score_adj, where it is not the keeper's."""

_OOM_FILE = "/proc/self/oom_score_adj"
_OOM_OURS = -900


def protect(known: wire.Message) -> None:
    """Take what the hard limit of descriptors allows, for a keeper holds several for each
    instance, and stay out of the kernel's sight when memory runs out.

    ``known``: what an earlier keeper found before it did the same (``found``).
    """
    global nofile, oom
    if "nofile" in known:
        nofile = (known["nofile"][0], known["nofile"][1])
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (nofile[1], nofile[1]))
    oom = known.get("oom")
    with contextlib.suppress(OSError, ValueError):  # to lower it is a privilege
        with open(_OOM_FILE) as file:
            now = int(file.read())
        if now > _OOM_OURS:
            _set_oom(_OOM_OURS)
            oom = now if oom is None else oom


def found() -> wire.Message:
    """How everup itself was started, for ``protect`` of the next keeper."""
    return {"nofile": nofile} | ({} if oom is None else {"oom": oom})


def _set_oom(value: int) -> None:
    with open(_OOM_FILE, "w") as file:
        file.write(str(value))


_OF_TERMINALS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
"""Ignored by the keeper: no key stops what others depend on."""


def ignore_terminals() -> None:
    for number in _OF_TERMINALS:
        signal.signal(number, signal.SIG_IGN)


class SpawnError(Exception):
    """The child could not even be forked."""

    def __init__(self, stage: str, number: int) -> None:
        super().__init__(stage, number)
        self.stage = stage
        self.number = number


def start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot (with the pid: its identity); 0 if gone."""
    try:
        return int(_whole(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _whole(path: str) -> bytes:
    """Read a line of /proc with three system calls: a file object makes eight, and a crashed
    service waits for them."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)


def child(theirs: socket.socket, failed: int, cgroup: str | None) -> "NoReturn":
    """Never returns. ``failed`` is told what went wrong; ``cgroup``: a group still to enter."""
    stage = "set-up"
    try:
        stage = "session"
        os.setsid()
        # exec resets handlers by itself; what is ignored stays ignored, so that is undone here.
        for number in (*ignored, *_OF_TERMINALS):
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


def _become(request: wire.Message, failed: int) -> None:
    stage = "control group"
    try:
        for directory in request.get("cgroups", ()):
            _enter(directory)
        stage = "limits"
        if request.get("nofile") != "ours":
            resource.setrlimit(resource.RLIMIT_NOFILE, nofile)
        if request.get("oom") != "ours" and oom is not None:
            with contextlib.suppress(OSError):  # no reason to refuse a service
                _set_oom(oom)
        for name, limit in request.get("limits", {}).items():
            resource.setrlimit(_LIMITS[name], (limit, limit))
        if "nice" in request:
            stage = "nice"
            os.setpriority(os.PRIO_PROCESS, 0, request["nice"])
        if "umask" in request:
            os.umask(request["umask"])
        if "fuse" in request:
            stage = "fuse"
            _light(request["fuse"])
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


def _light(fd: int) -> None:
    """Have the kernel send SIGKILL to our process group when the other end of a pipe is closed by
    the last who holds it: nobody is left then who could end us in time."""
    fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


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
