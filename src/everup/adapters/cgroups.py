"""Control groups: one for each instance, where the machine lets us.

A cgroup v2 directory gives certain tracking (every process of an instance, whatever it does), an
atomic kill and CPU accounting, also where the mount has no controllers. Limits need controllers,
of v2 or else of v1. What is missing is told once, as a facility, and everup goes on without.
"""

import contextlib
import errno
import hashlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from everup.model.instance import Slot
from everup.model.spec import Limits

_CPU_PERIOD_US = 100_000
_LEFTOVERS_S = 2.0
_REMOVE_S = 0.5
_CONTROLLER = {"memory": "memory", "tasks": "pids", "cpu": "cpu"}
"""By the limit; v1 and v2 name them alike."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a new process goes: one v2 group, and v1 groups for limits."""

    v2: str | None = None
    v1: list[str] = field(default_factory=list)

    def exists(self) -> bool:
        return self.v2 is None or os.path.isdir(self.v2)


class Cgroups:
    """``say(subject, text)`` is told of limits that cannot be enforced."""

    def __init__(self, state_dir: str, say: Callable[[str, str], None]) -> None:
        tag = hashlib.sha256(state_dir.encode()).hexdigest()[:10]
        self._say = say
        self._told: set[tuple[str, str]] = set()
        self._v1 = _v1_homes(f"everup-{tag}")
        self._base, self._controllers = _v2_home(f"everup-{tag}")
        self._oom_before: dict[Slot, int] = {}
        self._placed: dict[Slot, tuple[Limits, Placement]] = {}

    def place(self, slot: Slot, limits: Limits) -> Placement:
        """Make the groups of an instance and set its limits; quick when they are there already."""
        known = self._placed.get(slot)
        if known is not None and known[0] == limits and known[1].exists():
            self._note_oom(slot)
            return known[1]
        v2 = self._make(self._base, slot)
        wanted = {
            name: value for name in _CONTROLLER if (value := getattr(limits, name)) is not None
        }
        v1 = []
        for name, value in wanted.items():
            if v2 is not None and _CONTROLLER[name] in self._controllers:
                self._set(slot, name, v2, _v2_settings(name, value))
            elif (home := self._v1.get(_CONTROLLER[name])) and (group := self._make(home, slot)):
                self._set(slot, name, group, _v1_settings(name, value))
                v1.append(str(group))
            else:
                self._tell(slot, name, "no writable control group with that controller")
        placement = Placement(None if v2 is None else str(v2), v1)
        self._placed[slot] = (limits, placement)
        if "memory" in wanted or "memory" in self._controllers:
            self._oom_before[slot] = 0
        self._note_oom(slot)
        return placement

    def _note_oom(self, slot: Slot) -> None:
        if slot in self._oom_before:
            self._oom_before[slot] = self._oom_kills(slot)

    def _make(self, home: Path | None, slot: Slot) -> Path | None:
        if home is None:
            return None
        group = home / str(slot)
        try:
            os.makedirs(group, exist_ok=True)
        except OSError:
            return None
        return group

    def _set(self, slot: Slot, name: str, group: Path, settings: dict[str, str]) -> None:
        for key, text in settings.items():
            try:
                (group / key).write_text(text)
            except OSError as error:
                self._tell(slot, name, f"{group / key}: {os.strerror(error.errno or 0)}")

    def _tell(self, slot: Slot, name: str, why: str) -> None:
        if (slot.service, name) not in self._told:
            self._told.add((slot.service, name))
            self._say(slot.service, f"limits.{name} cannot be enforced here: {why}")

    def oom_killed(self, slot: Slot) -> bool:
        """Whether the kernel killed for memory in this instance's group since it was placed."""
        before = self._oom_before.get(slot)  # None: nothing here counts memory kills
        return before is not None and self._oom_kills(slot) > before

    def _oom_kills(self, slot: Slot) -> int:
        homes = ((self._base, "memory.events"), (self._v1.get("memory"), "memory.oom_control"))
        for home, name in homes:
            if home is not None:
                with contextlib.suppress(OSError, ValueError, IndexError):
                    for line in (home / str(slot) / name).read_text().splitlines():
                        if line.startswith("oom_kill "):
                            return int(line.split()[1])
        return 0

    def pids(self, slot: Slot) -> list[int] | None:
        """Processes of an instance; None where there is no group."""
        if self._base is None:
            return None
        with contextlib.suppress(OSError):
            return [int(x) for x in (self._base / str(slot) / "cgroup.procs").read_text().split()]
        return None

    def cpu_s(self, slot: Slot) -> float | None:
        """CPU time that the instance and all its predecessors in the slot have used."""
        if self._base is None:
            return None
        with contextlib.suppress(OSError, ValueError, IndexError):
            first = (self._base / str(slot) / "cpu.stat").read_text().split("\n", 1)[0]
            return int(first.split()[1]) / 1e6
        return None

    def slot_of(self, pid: int) -> Slot | None:
        """The instance that a process belongs to, by its v2 group."""
        if self._base is None:
            return None
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
                if line.startswith("0::"):
                    parent, _, name = line[3:].rpartition("/")
                    if parent.rpartition("/")[2] == self._base.name:
                        return Slot.parse(name)
        return None

    def end_leftovers(self) -> dict[str, list[int]]:
        """Kill what an earlier everup left behind in our groups; by slot, the pids.

        They hold the ports and files of what is about to be started, and nobody watches them.
        """
        found: dict[str, list[int]] = {}
        until = time.monotonic() + _LEFTOVERS_S
        while self._base is not None:
            alive = 0
            for group in self._base.iterdir():
                with contextlib.suppress(OSError, ValueError):
                    for pid in map(int, (group / "cgroup.procs").read_text().split()):
                        alive += 1
                        pids = found.setdefault(group.name, [])
                        if pid not in pids:
                            pids.append(pid)
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
            if not alive or time.monotonic() > until:
                break
            time.sleep(0.01)
        return found

    def forget(self, slot: Slot) -> None:
        """Remove the groups of a slot (an empty group only; a full one stays)."""
        self._placed.pop(slot, None)
        for home in (self._base, *self._v1.values()):
            if home is not None:
                with contextlib.suppress(OSError):
                    (home / str(slot)).rmdir()

    def close(self) -> None:
        """Remove what is empty. What has just died may keep its group busy for a moment."""
        for home in (self._base, *self._v1.values()):
            until = time.monotonic() + _REMOVE_S
            while home is not None and not _remove(home) and time.monotonic() < until:
                time.sleep(0.005)


def _remove(home: Path) -> bool:
    """Whether the tree of groups is gone."""
    try:
        for group in home.iterdir():
            if group.is_dir():
                group.rmdir()
        home.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _mounts() -> list[tuple[str, str, str]]:
    """(mount point, type, options) of every control group mount."""
    out = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            _device, point, kind, options, *_ = line.split()
            if kind in ("cgroup", "cgroup2"):
                out.append((point, kind, options))
    return out


def _own_paths() -> dict[str, str]:
    """Our own group by controller; v2's under the empty name."""
    out = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _number, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                out[controller] = path
    return out


def _v2_home(name: str) -> tuple[Path | None, frozenset[str]]:
    point = next((point for point, kind, _ in _mounts() if kind == "cgroup2"), None)
    if point is None:
        return None, frozenset()
    own = Path(point + _own_paths().get("", "/"))
    if own.parent.name == name:  # an engine that came after, inside our own tree
        own = own.parent.parent
    base = own / name
    try:
        base.mkdir(exist_ok=True)
        (base / ".try").mkdir(exist_ok=True)
        (base / ".try").rmdir()
    except OSError:
        return None, frozenset()
    return base, _enable(own, base)


def _enable(own: Path, base: Path) -> frozenset[str]:
    """Hand the controllers down; returns those that instances can have limits of."""
    for group in (own, base):
        for controller in ("memory", "pids", "cpu"):
            try:
                (group / "cgroup.subtree_control").write_text(f"+{controller}")
            except OSError as error:
                if error.errno == errno.EBUSY:
                    break  # our own group has processes of its own: see "run under systemd"
    with contextlib.suppress(OSError):
        return frozenset((base / "cgroup.subtree_control").read_text().split())
    return frozenset()


def _v1_homes(name: str) -> dict[str, Path]:
    own, homes = _own_paths(), dict[str, Path]()
    for point, kind, options in _mounts():
        if kind != "cgroup":
            continue
        for controller in ("memory", "pids", "cpu"):
            if controller in options.split(","):
                home = Path(point + own.get(controller, "/")) / name
                if home.parent.parent.name == name:
                    home = home.parent.parent
                if os.access(home.parent, os.W_OK):
                    homes[controller] = home
    return homes


def _v2_settings(name: str, value: float) -> dict[str, str]:
    match name:
        case "memory":
            return {"memory.max": str(value), "memory.oom.group": "1"}
        case "tasks":
            return {"pids.max": str(value)}
        case _:
            return {"cpu.max": f"{int(value * _CPU_PERIOD_US)} {_CPU_PERIOD_US}"}


def _v1_settings(name: str, value: float) -> dict[str, str]:
    match name:
        case "memory":
            return {"memory.limit_in_bytes": str(value)}
        case "tasks":
            return {"pids.max": str(value)}
        case _:
            return {
                "cpu.cfs_period_us": str(_CPU_PERIOD_US),
                "cpu.cfs_quota_us": str(int(value * _CPU_PERIOD_US)),
            }
