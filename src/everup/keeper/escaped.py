"""Processes of a child that have left its session, where no control group tells whose they are.

Whoever loses his parent below us becomes a child of ours, since we are their sub-reaper: so all of
them are found without a look at every process of the machine, but for those of children that an
earlier keeper started. Whose such an orphan is, its environment tells, or the pipe that it has.
"""

import contextlib
import os
import select
import time
from collections.abc import Callable, Collection, Mapping

from everup.keeper.estate import Record
from everup.keeper.spawn import start_ticks

TYPE_CHECKING = False  # see wire
if TYPE_CHECKING:
    from everup.keeper.children import Child

_MARK = b"EVERUP_STATE="
_LOOK_S = 0.01


class Escaped:
    """``held``: our descriptors by name; ``own``: pids of our children that are everup's own."""

    def __init__(
        self,
        state_dir: str | None = None,
        held: Mapping[str, int] | None = None,
        own: Callable[[], Collection[int]] = tuple,
    ) -> None:
        self._state_dir = state_dir
        self._held = {} if held is None else held
        self._own = own
        self._all: list[int] = []
        self._all_at = float("-inf")

    def of(self, child: "Child", others: Mapping[int, "Child"], near: Collection[int]) -> list[int]:
        """Those of ``child`` that live. ``others``: the main processes that we know; ``near``: of
        the child's, its main process and its session."""
        orphans = _children_of(os.getpid())
        everybody = orphans is None or (child.stranger and child.cgroup is None)
        asked = self._everybody() if everybody or orphans is None else orphans
        marks, pipes = self._marks(child), self._pipes(child)
        found: dict[int, None] = {}
        for pid in asked:
            if pid in others or pid in near or pid == os.getpid():
                continue
            if start_ticks(pid) < child.leader_start or is_zombie(pid):
                continue  # gone, or older than the child
            adopted, lines = pid in (orphans or ()), _environment(pid)
            if any(line.startswith(_MARK) for line in lines):
                its = marks <= lines and _role(lines) == _role_of(child)
                its = its and (adopted or _may_be_of(pid, child))
            else:
                its = _has_one(pid, pipes) or (adopted and _can_only_be_of(pid, child, others))
                its = its and not self._is_everups(pid)  # who reads has the pipe, too
            if its:
                found[pid] = None
        waiting = [*near, *found]
        while waiting:
            for pid in _children_of(waiting.pop()) or ():
                if pid not in found and pid not in near and pid not in others:
                    found[pid] = None
                    waiting.append(pid)
        return [pid for pid in found if not is_zombie(pid)]

    def unclaimed(self, others: Mapping[int, "Child"]) -> list[int]:
        """Orphans of nobody that we know."""
        orphans = () if os.getpid() == 1 else _children_of(os.getpid()) or ()
        return [pid for pid in orphans if pid not in others and not self._is_everups(pid)]

    def _everybody(self) -> list[int]:
        """Every process of the machine; looked for at most as often as makes a difference, since
        many may end at once."""
        if time.monotonic() - self._all_at > _LOOK_S:
            self._all = []
            with contextlib.suppress(OSError):
                self._all = [int(name) for name in os.listdir("/proc") if name.isdigit()]
            self._all_at = time.monotonic()
        return self._all

    def _is_everups(self, pid: int) -> bool:
        """The engine, the zygote, whom that has born; and an everup that a service started."""
        if pid in self._own():
            return True
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb", 0) as file:
            line = file.readall()
            return b"/everup/keeper/" in line or b"everup.daemon" in line
        return True  # nobody knows

    def _marks(self, child: "Child") -> set[bytes]:
        told = {"EVERUP_STATE": self._state_dir, "EVERUP_INSTANCE": child.meta.get("slot")}
        if "run" in child.meta:
            told["EVERUP_RUN"] = str(child.meta["run"])
        return {os.fsencode(f"{name}={value}") for name, value in told.items()}

    def _pipes(self, child: "Child") -> set[str]:
        """Of its output, those that somebody has open for writing."""
        slot, number = child.meta.get("slot"), child.meta.get("pipes")
        found = set()
        for name in (f"pipe:{slot}:{number}:{end}" for end in ("out", "err")):
            if (fd := self._held.get(name)) is None:
                continue
            poll = select.poll()
            poll.register(fd, 0)
            if not any(events & select.POLLHUP for _, events in poll.poll(0)):
                found.add(f"pipe:[{os.fstat(fd).st_ino}]")
        return found


def told(child: "Child", pids: list[int]) -> Record:
    """For the engine: these were killed."""
    names = [name_of(pid) for pid in pids]
    return {"ev": "escaped", "id": child.id, "pids": pids, "names": names}


def is_zombie(pid: int) -> bool:
    """Or gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            return file.read(1024).rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return True


def name_of(pid: int) -> str:
    """``sleep (pid 12)``, for people."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", "rb", 0) as file:
        return f"{ascii(file.readall().decode(errors='replace').strip())[1:-1]} (pid {pid})"
    return f"a process (pid {pid})"


def _children_of(pid: int) -> list[int] | None:
    """None: the kernel does not tell (CONFIG_PROC_CHILDREN), or it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb", 0) as file:
                found += map(int, file.readall().split())
    except OSError:
        return found or None
    return found


def _environment(pid: int) -> set[bytes]:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb", 0) as file:
        return set(file.readall().split(b"\0"))
    return set()


def _can_only_be_of(pid: int, child: "Child", others: Mapping[int, "Child"]) -> bool:
    """Whether an orphan that has cleared its environment and closed its output is this child's,
    since nobody else was there who could have started it."""
    born = start_ticks(pid)
    if os.getpid() == 1 or not born or born < child.leader_start:
        return False  # the first process of a container gets orphans that it never started
    return not any(other is not child and other.start <= born for other in others.values())


def _role(lines: Collection[bytes]) -> bytes:
    return next((line[12:] for line in lines if line.startswith(b"EVERUP_ROLE=")), b"")


def _role_of(child: "Child") -> bytes:
    role = str(child.meta.get("role", "main"))
    return b"" if role == "main" else role.encode()


def _may_be_of(pid: int, child: "Child") -> bool:
    """Anybody can carry our marks; whoever runs as another user than the child is none of its."""
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}").st_uid in (os.geteuid(), child.uid)
    return False


def _has_one(pid: int, pipes: Collection[str]) -> bool:
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd") if pipes else ():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{number}") in pipes:
                    return True
    return False
