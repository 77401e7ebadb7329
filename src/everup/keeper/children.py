"""The children: who lives, who ended and how, and how to end the rest of them."""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator

from everup.keeper import birth
from everup.keeper.escaped import Escaped, is_zombie, name_of
from everup.keeper.estate import Record
from everup.keeper.spawn import start_ticks

_PR_SET_CHILD_SUBREAPER = 36
_KILL_ROUNDS = 50
_ROUND_S = 0.001
FLAGS = ("failed", "signalled", "respawn")
"""What is told of a child where it is so, to the engine and in an estate."""


def subreaper() -> None:
    """Orphans of services become our children, so that they are reaped."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Child:
    """One process that the engine asked for, until the engine has acknowledged its end."""

    __slots__ = (
        "asked",
        "cgroup",
        "ended_at",
        "failed",
        "id",
        "leader",
        "leader_start",
        "left",
        "meta",
        "pid",
        "pidfd",
        "report",
        "respawn",
        "rest",
        "signalled",
        "start",
        "status",
        "stranger",
        "uid", "until",
    )  # fmt: skip

    def __init__(
        self, child_id: str, pid: int, start: int, cgroup: str | None, meta: Record
    ) -> None:
        self.id = child_id
        self.pid = pid
        self.leader = pid  # of the session; stays when the main process changes
        self.start = start
        self.leader_start = start
        self.cgroup = cgroup
        self.meta = meta
        self.uid = os.geteuid()  # that it was started as
        self.until = 0.0  # when it must be gone; see deadlines
        self.stranger = False  # the main process is not our own child
        self.pidfd = -1
        self.report = -1
        self.respawn = False
        self.signalled = False
        self.failed = False
        self.rest = 0  # signal for what is left when the main process ends as asked; see remains
        self.asked: list[int] = []  # who has had that signal already
        self.left: list[int] | None = None  # the main process has ended, and these had not
        self.status: int | None = None
        self.ended_at = 0.0

    @classmethod
    def inherited(cls, record: Record) -> "Child":
        """From an estate. Raises ``ValueError`` for a pid that cannot be a child's."""
        pid, start = int(record["pid"]), int(record.get("start") or 0)
        child = cls(record["id"], pid, start, record.get("cgroup"), record["meta"])
        child.leader = int(record.get("leader") or pid)
        same = child.leader == pid
        child.leader_start = int(record.get("leader_start") or (start if same else 0))
        if min(pid, child.leader) <= 1:
            raise ValueError(f"{child.id}: pid {pid}, session {child.leader}")
        child.uid = int(record.get("uid", child.uid))
        child.report = record.get("report", -1)
        child.failed = bool(record.get("failed"))
        child.signalled = bool(record.get("signalled"))
        child.respawn = bool(record.get("respawn"))
        child.rest = int(record.get("rest") or 0)
        child.until = float(record.get("until") or 0)
        if (told := record.get("left")) is not None:
            child.left, child.status = list(told["pids"]), told.get("status")
        if (ended := record.get("exit")) is not None:
            child.status = ended.get("status")
            child.failed = bool(ended.get("failed"))
            child.ended_at = ended.get("t") or time.monotonic()
        return child

    def describe(self) -> Record:
        """For an engine that has just started."""
        state = {
            "id": self.id,
            "pid": self.pid,
            "start": self.start,
            "stranger": self.stranger,
            "leader": self.leader,
            "leader_start": self.leader_start,
            "cgroup": self.cgroup,
            "meta": self.meta,
            "uid": self.uid,
        }
        state |= {name: True for name in FLAGS if getattr(self, name)}
        if self.rest:
            state["rest"] = self.rest
        if self.until:
            state["until"] = self.until
        if self.left is not None:
            state["left"] = self.left_report()
        return state | ({"exit": self.exit_report()} if self.ended_at else {})

    def record(self) -> Record:
        """For an estate."""
        return self.describe() | ({"report": self.report} if self.report >= 0 else {})

    def left_report(self) -> Record:
        """The main process has ended, and others have yet to."""
        return {"ev": "left", "id": self.id, "status": self.status, "pids": self.left}

    def exit_report(self) -> Record:
        return {
            "ev": "exit",
            "id": self.id,
            "pid": self.pid,
            "status": self.status,
            "failed": self.failed,
            "t": self.ended_at,
        }


class Children:
    """All of them, by id and by pid. ``told`` is called with a child and those of it who had left
    its session, and were killed for it."""

    def __init__(
        self,
        escaped: Escaped | None = None,
        told: Callable[[Child, list[int]], None] = lambda _child, _pids: None,
    ) -> None:
        self.escaped = escaped or Escaped()
        self._told = told
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

    def get(self, child_id: str) -> Child:
        return self._by_id[child_id]

    def add_inherited(self, child: Child) -> None:
        """One of an estate; its pid counts only while it lives."""
        self._by_id[child.id] = child
        if not child.ended_at and child.left is None:
            self._by_pid[child.pid] = child

    def set_main(self, child: Child, pid: int) -> None:
        """The service named another main process (sd_notify MAINPID)."""
        self._by_pid.pop(child.pid, None)
        child.pid, child.start = pid, start_ticks(pid)
        self._by_pid[pid] = child

    def ended(self, child: Child) -> None:
        """The main process of ``child`` has ended, by whatever it was seen."""
        self.main_ended(child)
        child.ended_at = time.monotonic()

    def main_ended(self, child: Child) -> None:
        """From now on its pid may be somebody else's."""
        if self._by_pid.get(child.pid) is child:
            del self._by_pid[child.pid]

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
            yield seen.si_pid, status, child
            os.waitpid(seen.si_pid, 0)

    def signal(self, child_id: str, number: int, scope: str) -> None:
        """``main``: the main process; ``group``: its process group; ``all``: every process of its
        control group or session. A child that has ended gets nothing."""
        child = self._by_id.get(child_id)
        if child is None or child.ended_at:
            return
        child.signalled = True
        if number == signal.SIGKILL and scope == "all":
            child.rest = 0  # nobody is given time any more
            self.sweep(child)
        elif scope == "all":
            child.asked = self.members(child)
            for pid in child.asked:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
            return
        elif scope == "group" and _leads(child):
            with contextlib.suppress(OSError):
                os.killpg(child.leader, number)
            return
        if child.left is None:  # else there is no main process any more
            with contextlib.suppress(OSError):
                _send_signal(child, number)

    def give_time(self, child_id: str, number: int) -> None:
        """It is about to be stopped: what is left when its main process has ended gets this signal
        and time to end, until SIGKILL is asked for."""
        child = self._by_id.get(child_id)
        if child is not None and not child.ended_at:
            child.signalled, child.rest = True, number

    def members(self, child: Child) -> list[int]:
        """The living processes of an instance: its control group, else its session and those who
        have left that."""
        pids = None
        if child.cgroup is not None and not self._shared(child):
            pids = _group_members(child.cgroup)
        if pids is None:
            near = self._near(child)
            pids = [*near, *self.escaped.of(child, self._by_pid, near)]
        return [pid for pid in pids if not is_zombie(pid)]

    def _near(self, child: Child) -> list[int]:
        return [child.leader, *session_members(child.leader)] if _leads(child) else []

    def sweep(self, child: Child) -> None:
        """Kill what is left of an instance: its control group, else its session and those who
        have left that."""
        grouped = child.cgroup is not None and not self._shared(child)
        near: list[int] = []
        away: list[int] = []
        with contextlib.suppress(OSError):  # no /proc
            near = [] if grouped else self._near(child)
            away = [] if grouped else self.escaped.of(child, self._by_pid, near)
        if _leads(child):
            with contextlib.suppress(OSError):
                os.killpg(child.leader, signal.SIGKILL)
        if not (grouped and child.cgroup is not None and _kill_group(child.cgroup)):
            grouped = False
            with contextlib.suppress(OSError):
                near = near or self._near(child)
            for pid in near[1:]:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        if not grouped:
            self._kill_escaped(child, near, away)

    def _kill_escaped(self, child: Child, near: list[int], away: list[int]) -> None:
        """In rounds: whoever ends may leave others, who become our children only then."""
        killed: dict[int, None] = {}
        for _ in range(_KILL_ROUNDS):
            away = away or self.escaped.of(child, self._by_pid, near)
            if not away:
                break
            for pid in away:
                killed[pid] = None
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            away = []
            time.sleep(_ROUND_S)
        if killed:
            self._told(child, list(killed))

    def end_unclaimed(self, say: Callable[[str], None]) -> None:
        """All is down, and we are about to leave: whoever is below us still is to end too."""
        for _ in range(_KILL_ROUNDS):
            left = [pid for pid in self.escaped.unclaimed(self._by_pid) if not is_zombie(pid)]
            if not left:
                break
            say(f"killing what services have left behind: {', '.join(map(name_of, left))}")
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_ROUND_S)

    def _shared(self, child: Child) -> bool:
        """Whether somebody lives in its control group who came after it."""
        return any(
            other is not child and other.cgroup == child.cgroup for other in self._by_pid.values()
        )


def is_same(child: Child) -> bool:
    """Whether the pid of ``child`` is still that of its main process, and not used again."""
    ticks = start_ticks(child.pid)
    if ticks and child.start:
        return ticks == child.start
    if not ticks and start_ticks(os.getpid()):
        return False
    try:  # /proc cannot be read; but a pid that is used again is in another session
        return os.getsid(child.pid) == child.leader
    except OSError:
        return False


def _leads(child: Child) -> bool:
    """Whether the number of its session is still its own: its leader lives or is a zombie, or is
    gone, for then nobody gets the number as long as the session has a member."""
    if not child.leader_start and not child.stranger:
        return True  # our own; when it was born /proc could not be read
    return start_ticks(child.leader) in (0, child.leader_start)


def _send_signal(child: Child, number: int) -> None:
    """Signal the main process, and nobody who has its number by now. Raises ``OSError``."""
    if child.pidfd >= 0:
        signal.pidfd_send_signal(child.pidfd, number)
    elif not child.stranger or is_same(child):
        os.kill(child.pid, number)


def _kill_group(cgroup: str) -> bool:
    """Kill all processes of a v2 group; False where it cannot be read.

    By pid, and not by ``cgroup.kill``: once a group was killed so, Linux 6.18 also kills every
    process that is later born into it by CLONE_INTO_CGROUP (it compares the kill counter of the
    parent's group with that of the child's). A process that has its SIGKILL cannot fork, so a few
    rounds see the last one, though on a busy machine it may take its time to go; for a fork bomb
    that outruns them ``cgroup.kill`` is left.
    """
    killed: set[int] = set()
    fresh = True
    for _ in range(_KILL_ROUNDS):
        pids = _group_members(cgroup)
        if pids is None:
            return False
        fresh, living = not killed.issuperset(pids), False
        killed.update(pids)
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                living = living or not is_zombie(pid)
        if not living:
            return True
    if fresh:
        with contextlib.suppress(OSError), open(cgroup + "/cgroup.kill", "w") as file:
            birth.taint(cgroup)
            file.write("1")
    return True


def _group_members(cgroup: str) -> list[int] | None:
    """None: it cannot be read."""
    try:
        with open(cgroup + "/cgroup.procs", "rb", 0) as file:
            return [int(pid) for pid in file.readall().split()]
    except OSError:
        return None


def session_members(leader: int) -> list[int]:
    """Processes whose session is led by ``leader``, itself left out."""
    members = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != leader:
            with contextlib.suppress(OSError):
                if os.getsid(int(name)) == leader:
                    members.append(int(name))
    return members
