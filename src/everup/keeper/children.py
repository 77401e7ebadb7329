"""The children: who lives, who ended and how, and how to end the rest of them."""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

from everup.keeper import birth

_PR_SET_CHILD_SUBREAPER = 36
_KILL_ROUNDS = 50


def subreaper() -> None:
    """Orphans of services become our children, so that they are reaped."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Child:
    """One process that the engine asked for, until the engine has acknowledged its end."""

    __slots__ = (
        "cgroup",
        "ended_at",
        "failed",
        "id",
        "leader",
        "meta",
        "pid",
        "report",
        "respawn",
        "signalled",
        "start",
        "status",
    )

    def __init__(
        self, child_id: str, pid: int, start: int, cgroup: str | None, meta: dict[str, Any]
    ) -> None:
        self.id = child_id
        self.pid = pid
        self.leader = pid  # of the session; stays when the main process changes
        self.start = start
        self.cgroup = cgroup
        self.meta = meta
        self.report = -1
        self.respawn = False
        self.signalled = False
        self.failed = False
        self.status: int | None = None
        self.ended_at = 0.0

    def describe(self) -> dict[str, Any]:
        """For an engine that has just started."""
        state = {"id": self.id, "pid": self.pid, "start": self.start, "meta": self.meta}
        return state | ({"exit": self.exit_report()} if self.ended_at else {})

    def exit_report(self) -> dict[str, Any]:
        return {
            "ev": "exit",
            "id": self.id,
            "pid": self.pid,
            "status": self.status,
            "failed": self.failed,
            "t": self.ended_at,
        }


class Children:
    """All of them, by id and by pid."""

    def __init__(self) -> None:
        self._by_id: dict[str, Child] = {}
        self._by_pid: dict[int, Child] = {}

    def known(self) -> list[Child]:
        return list(self._by_id.values())

    def alive(self) -> bool:
        return any(not child.ended_at for child in self._by_id.values())

    def check_free(self, child_id: str) -> None:
        if child_id in self._by_id:
            raise ValueError(f"id {child_id!r} is in use")

    def add(self, child: Child) -> None:
        self._by_id[child.id] = child
        self._by_pid[child.pid] = child

    def forget(self, child_id: str) -> None:
        child = self._by_id.get(child_id)
        if child is not None and child.ended_at:
            del self._by_id[child_id]

    def set_main(self, child_id: str, pid: int) -> None:
        """The service named another main process (sd_notify MAINPID)."""
        child = self._by_id[child_id]
        self._by_pid.pop(child.pid, None)
        child.pid = pid
        self._by_pid[pid] = child

    def dead(self) -> Iterator[tuple[int, int, Child | None]]:
        """(pid, status, the child if it is one of ours) of everyone who has ended.

        Each is a zombie while the caller has it and reaped when the caller asks for the next: as
        long as it holds its pid, the process group of that number is its own and no stranger's.
        """
        while True:
            try:
                seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if seen is None:
                return
            child = self._by_pid.pop(seen.si_pid, None)
            status = seen.si_status << 8 if seen.si_code == os.CLD_EXITED else seen.si_status
            if seen.si_code == os.CLD_DUMPED:
                status |= 0x80
            if child is not None:
                child.status = status
                child.ended_at = time.monotonic()
            yield seen.si_pid, status, child
            os.waitpid(seen.si_pid, 0)

    def signal(self, child_id: str, number: int, scope: str) -> None:
        """``main``: the main process; ``group``: its process group; ``all``: every process of
        its control group and session. A child that has ended gets nothing."""
        child = self._by_id.get(child_id)
        if child is None or child.ended_at:
            return
        child.signalled = True
        with contextlib.suppress(OSError):
            if scope == "main":
                os.kill(child.pid, number)
                return
            os.killpg(child.leader, number)
        if scope == "all" and number == signal.SIGKILL:
            sweep(child)
            with contextlib.suppress(OSError):
                os.kill(child.pid, number)


def sweep(child: Child) -> None:
    """Kill what is left of an instance: its control group, else its session."""
    with contextlib.suppress(OSError):
        os.killpg(child.leader, signal.SIGKILL)
    if child.cgroup is not None and _kill_group(child.cgroup):
        return
    for pid in session_members(child.leader):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _kill_group(cgroup: str) -> bool:
    """Kill all processes of a v2 group; False where it cannot be read.

    By pid, and not by ``cgroup.kill``: once a group was killed so, Linux 6.18 also kills every
    process that is later born into it by CLONE_INTO_CGROUP (it compares the kill counter of the
    parent's group with that of the child's). A process that has its SIGKILL cannot fork, so a few
    rounds see the last one; for a fork bomb that outruns them ``cgroup.kill`` is left.
    """
    for _ in range(_KILL_ROUNDS):
        try:
            with open(cgroup + "/cgroup.procs", "rb", 0) as file:
                pids = file.read().split()
        except OSError:
            return False
        fresh = False
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)
                fresh = fresh or not _is_zombie(int(pid))
        if not fresh:
            return True
    with contextlib.suppress(OSError), open(cgroup + "/cgroup.kill", "w") as file:
        file.write("1")
        birth.tainted.add(cgroup)
    return True


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            return file.read(1024).rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return True


def session_members(leader: int) -> list[int]:
    """Processes whose session is led by ``leader``, itself left out."""
    members = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != leader:
            with contextlib.suppress(OSError):
                if os.getsid(int(name)) == leader:
                    members.append(int(name))
    return members
