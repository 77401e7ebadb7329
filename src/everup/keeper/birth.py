"""Where new processes come from.

A fork copies the page table and then every page that either side touches; a keeper that forked by
itself would pay for that (several microseconds a page under virtualization) just when it is in a
hurry. So a **zygote** forks for it: a copy of the keeper that has done nothing else since its
start. With CLONE_PARENT its children are the keeper's. With CLONE_INTO_CGROUP they are born into
their control group: moving them afterwards waits for an RCU grace period (15 ms were seen) and
lets early children escape.

A newborn is a **body** that waits to be told what to become, so that one can be had ready by the
time that the engine has decided to restart what has just died.
"""

import contextlib
import ctypes
import errno
import os
import select
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping

from everup.keeper import spawn, wire
from everup.keeper.spawn import SpawnError
from everup.keeper.vigil import HALTED_LOOK_S, Halted, activity
from everup.keeper.voice import say

TYPE_CHECKING = False  # see wire
if TYPE_CHECKING:
    from typing import NoReturn

_CLONE3 = 435  # the same number on every architecture: clone3 is younger than the common table
_CLONE_PARENT = 0x8000
_CLONE_INTO_CGROUP = 0x200000000
_REPLY_S = 0.5
_LOOK_MS = 50
_MAX_BODIES = 4
BODY_S = 0.2
"""How long a body is kept for somebody who has just died."""
_libc = ctypes.PyDLL(None, use_errno=True)  # PyDLL: keeps the interpreter lock, as fork needs

_KILLED = "user.everup.killed"
_tainted: dict[str, bool] = {}


def taint(cgroup: str) -> None:
    """``cgroup.kill`` is used on this group: nothing must be born into it any more (see children).
    The group itself remembers it for the keepers to come, where the kernel lets it (Linux 5.7)."""
    _tainted[cgroup] = True
    with contextlib.suppress(OSError):
        os.setxattr(cgroup, _KILLED, b"1")


def is_tainted(cgroup: str) -> bool:
    """Whether ``cgroup.kill`` was used on this group, by this keeper or one before."""
    if cgroup not in _tainted:
        try:
            _tainted[cgroup] = bool(os.getxattr(cgroup, _KILLED))
        except OSError:
            _tainted[cgroup] = False
    return _tainted[cgroup]


class Body:
    """A newborn that waits. ``pid`` is asked for once it is needed."""

    __slots__ = ("_lost", "_nursery", "_pid", "cgroup", "made_at", "report", "sock")

    def __init__(self, nursery: "Nursery", cgroup: str | None) -> None:
        self._nursery = nursery
        self.cgroup = cgroup
        self.made_at = time.monotonic()
        self._lost = False
        self.sock, self.report, self._pid = self._begin(nursery.conceive)

    def _begin(
        self, conceive: "Callable[[Body, socket.socket, int], int | None]"
    ) -> tuple[socket.socket, int, int | None]:
        sock, theirs = wire.pair()
        report, failed = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return sock, report, conceive(self, theirs, failed)
        except BaseException:
            sock.close()
            os.close(report)
            raise
        finally:
            theirs.close()
            os.close(failed)

    @property
    def stillborn(self) -> bool:
        """Its birth is known to have failed."""
        return self._pid is not None and self._pid < 0

    def born(self, answer: wire.Message) -> None:
        self._lost = "lost" in answer
        self._pid = answer.get("pid", -answer.get("errno", errno.EAGAIN))

    @property
    def pid(self) -> int:
        """Raises ``SpawnError`` when it was never born."""
        while self._pid is None:
            self._nursery.hear(wait=True)
        if self._lost:  # if it was born all the same, it sees the end of its socket, and goes
            before = self.sock, self.report
            self.sock, self.report, self._pid = self._begin(_fork_here)
            self._lost = False
            before[0].close()
            os.close(before[1])
        if self._pid is None or self._pid < 0:
            raise SpawnError("fork", -(self._pid or -errno.EAGAIN))
        return self._pid

    def become(self, request: wire.Message, sources: Mapping[int, int]) -> tuple[int, int]:
        """Run ``request["argv"]``; ``sources`` maps descriptor numbers of the child to ours.

        Returns the pid and the read end of a pipe that ends when the exec has succeeded, or
        holds ``{"stage", "errno"}`` when a step failed. Raises ``SpawnError``.
        """
        fds = list(dict.fromkeys(sources.values()))
        place = {str(number): fds.index(fd) for number, fd in sources.items()}
        try:
            pid = self.pid  # first: what runs must be known
            wire.send(self.sock, {"request": request, "place": place}, fds)
            return pid, self.report
        except (wire.ClosedError, OSError, SpawnError) as error:
            os.close(self.report)
            if isinstance(error, SpawnError):
                raise
            raise SpawnError("fork", getattr(error, "errno", None) or errno.EAGAIN) from error
        finally:
            self.sock.close()

    def discard(self) -> None:
        """It is not needed: it sees the end of its socket and goes; reaped like an orphan."""
        self.sock.close()
        os.close(self.report)


class Nursery:
    """The keeper's end of the zygote."""

    def __init__(self) -> None:
        self.pid = 0
        self._sock: socket.socket | None = None
        self._expected: deque[Body] = deque()
        self.bodies: dict[str | None, Body] = {}
        """Ready made, by control group."""

    def start(self) -> None:
        """Fork the zygote. Called early, while there is little to copy."""
        ours, theirs = wire.pair()
        pid = os.fork()
        if pid == 0:
            _zygote(theirs)
        theirs.close()
        self.pid, self._sock = pid, ours

    def lost(self) -> None:
        """The zygote died: whoever waits for it is to be born of the keeper itself."""
        self.pid = 0
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        while self._expected:
            self._expected.popleft().born({"lost": True})

    def close(self) -> None:
        """Let the zygote go, and every body that nobody has needed."""
        self.discard(None)
        self.lost()

    def prepare(self, cgroup: str | None) -> None:
        """Somebody died who was not told to: have a body ready while the engine decides."""
        if cgroup not in self.bodies and len(self.bodies) < _MAX_BODIES:
            with contextlib.suppress(SpawnError):  # then the spawn itself will tell
                self.bodies[cgroup] = Body(self, cgroup)

    def body(self, cgroup: str | None) -> Body:
        """A ready one, else a new one. Raises ``SpawnError``, ``OSError``."""
        ready = self.bodies.pop(cgroup, None)
        if ready is not None and ready.stillborn:
            ready.discard()
            ready = None
        return ready or Body(self, cgroup)

    def discard(self, now: float | None) -> None:
        """Let the old ones go; None: all."""
        for cgroup, body in list(self.bodies.items()):
            if now is None or now - body.made_at > BODY_S:
                del self.bodies[cgroup]
                body.discard()

    def conceive(self, body: Body, theirs: socket.socket, failed: int) -> int | None:
        """Begin a birth; the pid where it is known at once."""
        if self._sock is None:
            with contextlib.suppress(OSError):
                self.start()
        if self._sock is not None:
            tainted = body.cgroup is not None and is_tainted(body.cgroup)
            cgroup = None if tainted else body.cgroup
            request = {"cgroup": cgroup, "enter": body.cgroup}
            try:
                wire.send(self._sock, request, [theirs.fileno(), failed])
                self._expected.append(body)
                return None
            except (wire.ClosedError, OSError):
                self.lost()
        return _fork_here(body, theirs, failed)

    def hear(self, *, wait: bool) -> None:
        """Take in answers. A zygote that is stopped, or silent for too long, is ended."""
        if self._sock is None:
            return
        if wait and (why := _silent(self._sock, self.pid)):
            say(f"the process that forks for everup hangs: {why}; ended, another one takes over")
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.lost()
            return
        try:
            answer, _fds = wire.receive(self._sock)
        except BlockingIOError:
            return
        except (wire.ClosedError, OSError):
            self.lost()
            return
        self._expected.popleft().born(answer)


def _silent(sock: socket.socket, pid: int) -> str:
    """Why there will be no answer; empty: there is one."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    until = time.monotonic() + _REPLY_S
    while not poll.poll(_LOOK_MS):
        if activity(pid).state == "T":
            return "it is stopped"
        if time.monotonic() >= until:
            return f"no answer for {_REPLY_S:g} s"
    return ""


def _zygote(sock: socket.socket) -> "NoReturn":
    """Fork on request until the keeper is gone. Should that be stopped together with its engine, so
    that neither can see to the other, it is told to go on; it sees to the engine then."""
    keeper = os.getppid()
    try:
        os.setsid()  # what is typed at the keeper's terminal is not for us
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # blocked by a keeper that has just exec'd
        _close_all_but(sock.fileno())
        sock.setblocking(True)
        halted = Halted()
        while True:
            while not select.select([sock], [], [], HALTED_LOOK_S)[0]:
                if halted.look(keeper, time.monotonic()) and os.getppid() == keeper:
                    os.kill(keeper, signal.SIGCONT)
            request, (control, failed) = wire.receive(sock)
            try:
                pid, placed = _clone(request["cgroup"])
                if pid == 0:
                    enter = None if placed else request["enter"]
                    spawn.child(socket.socket(fileno=control), failed, enter)
                answer = {"pid": pid}
            except OSError as error:
                answer = {"errno": error.errno or errno.EAGAIN}
            # Closed before the answer: the end of the report pipe must mean the end of the child's.
            os.close(control)
            os.close(failed)
            wire.send(sock, answer)
    except BaseException:
        os._exit(0)


def _clone(cgroup: str | None) -> tuple[int, bool]:
    """A sibling of the zygote; returns its pid (0 in itself) and whether it is in ``cgroup``."""
    flags, group = _CLONE_PARENT, -1
    if cgroup is not None:
        flags |= _CLONE_INTO_CGROUP
        group = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        arguments = struct.pack("11Q", flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, max(group, 0))
        pid = _libc.syscall(_CLONE3, ctypes.create_string_buffer(arguments, 88), 88)
        if pid < 0:
            number = ctypes.get_errno()
            if cgroup is not None and number in (errno.EINVAL, errno.E2BIG, errno.EPERM):
                return _clone(None)  # before Linux 5.7: the body enters the group by itself
            raise OSError(number, os.strerror(number))
        return pid, cgroup is not None
    finally:
        if group >= 0:
            os.close(group)


def _fork_here(body: Body, theirs: socket.socket, failed: int) -> int:
    """Without a zygote, or without clone3: slower, and just as good."""
    try:
        pid = os.fork()
    except OSError as error:
        raise SpawnError("fork", error.errno or errno.EAGAIN) from error
    if pid == 0:
        # Of the keeper's own descriptors none may stay, or nobody sees the end of theirs.
        _close_all_but(theirs.fileno(), failed)
        spawn.child(theirs, failed, body.cgroup)
    return pid


def _close_all_but(*kept: int) -> None:
    low = 3
    for fd in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        os.closerange(low, fd)
        low = max(low, fd + 1)
