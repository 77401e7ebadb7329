"""Control groups: one for each instance, where the machine lets us.

A cgroup v2 directory gives certain tracking (every process of an instance, whatever it does), an
atomic kill and CPU accounting, also where the mount has no controllers. Limits need controllers,
of v2 or else of v1. What is missing is told once, as a facility, and everup goes on without.

The group of an instance is called like its slot, ``web.1``. While two processes of a slot overlap,
the one that came when that was taken is in the *second* one, ``web.1+``.
"""

import contextlib
import errno
import hashlib
import os
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from everup.model.instance import Slot
from everup.model.spec import Limits

_CPU_PERIOD_US = 100_000
_LEFTOVERS_S = 2.0
_REMOVE_S = 0.5
_LOOK_AGAIN_S = 10.0
_BLIND_S = 1.0
_CONTROLLER = {"memory": "memory", "tasks": "pids", "cpu": "cpu"}
"""By the limit; v1 and v2 name them alike."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a new process goes: one v2 group, and v1 groups for limits."""

    v2: str | None = None
    v1: list[str] = field(default_factory=list)
    name: str = ""
    """Of the group: ``web.1`` or ``web.1+``; empty where there is to be none."""

    def exists(self) -> bool:
        return self.v2 is None or _is_group(Path(self.v2))


def group_name(slot: Slot, second: bool = False) -> str:
    """What the group of an instance is called."""
    return f"{slot}{'+' if second else ''}"


def parse_group_name(name: str) -> tuple[Slot, bool]:
    """The other way round. Raises ``ValueError``."""
    return Slot.parse(name.removesuffix("+")), name.endswith("+")


def home_name(state_dir: str) -> str:
    """What the directory above all groups of an everup is called."""
    return f"everup-{hashlib.sha256(state_dir.encode()).hexdigest()[:10]}"


def group_of(pid: int, home: str) -> str | None:
    """The v2 group of an instance that a process is in, or in a group below it, as a path from
    the root of the hierarchy; ``home`` as ``home_name`` has it."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                parts = line[3:].split("/")
                end = parts.index(home) + 2
                return "/".join(parts[:end]) if end <= len(parts) else None
    return None


def group_path(pid: int, home: str) -> str | None:
    """The same as a directory."""
    group = group_of(pid, home)
    point = next((point for point, kind, _ in _mounts() if kind == "cgroup2"), None)
    if group is None or point is None or not os.path.isdir(point + group):
        return None
    return point + group


class Cgroups:
    """``say(subject, text)`` is told of limits that cannot be enforced."""

    def __init__(self, state_dir: str, say: Callable[[str, str], None]) -> None:
        self.say = say
        self._home = home_name(state_dir)
        self._told: set[tuple[str, str]] = set()
        self._oom_before: dict[str, int] = {}
        self._placed: dict[str, tuple[Limits, Placement]] = {}
        self._ids: dict[int, tuple[Slot, bool]] = {}
        self._look_at: float | None = 0.0
        """When to look for the hierarchies again; None: not."""
        self._blind = False
        """Nobody knows where they are."""
        self._look()

    def _look(self) -> None:
        """Find the hierarchies. What is not there may come back; and as long as /proc cannot be
        read, nobody knows."""
        now = time.monotonic()
        if self._look_at is None or now < self._look_at:
            return
        self._blind = not _readable()
        self._v1 = _v1_homes(self._home)
        self._base, self._controllers = _v2_home(self._home)
        if self._blind or self._base is None:
            self._look_at = now + (_BLIND_S if self._blind else _LOOK_AGAIN_S)
        else:
            self._look_at = None
            self._told.clear()
            self._placed.clear()

    def place(self, slot: Slot, limits: Limits, second: bool = False) -> Placement:
        """Make the groups of an instance and set its limits; quick when they are there already."""
        self._look()
        if self._blind and ("", "") not in self._told:
            self._told.add(("", ""))
            self.say(
                "everup",
                "/proc cannot be read, so nobody knows where control groups are: what is started "
                "meanwhile is in none, and its limits do not hold",
            )
        name_of_group = group_name(slot, second)
        known = self._placed.get(name_of_group)
        if known is not None and known[0] == limits and known[1].exists():
            self._note_oom(name_of_group)
            return known[1]
        v2 = self._make(self._base, name_of_group)
        wanted = {
            name: value for name in _CONTROLLER if (value := getattr(limits, name)) is not None
        }
        v1 = []
        for name, value in wanted.items():
            if v2 is not None and _CONTROLLER[name] in self._controllers:
                self._set(slot, name, v2, _v2_settings(name, value))
            elif (home := self._v1.get(_CONTROLLER[name])) and (
                group := self._make(home, name_of_group)
            ):
                self._set(slot, name, group, _v1_settings(name, value))
                v1.append(str(group))
            else:
                self._tell(slot, name, "no writable control group with that controller")
        placement = Placement(None if v2 is None else str(v2), v1, name_of_group)
        if v2 is not None or self._base is None:
            self._placed[name_of_group] = (limits, placement)
            self._told.discard((slot.service, ""))
        elif (slot.service, "") not in self._told:
            self._told.add((slot.service, ""))
            self.say(slot.service, f"no control group can be had below {self._base}; it has none")
        if "memory" in wanted or "memory" in self._controllers:
            self._oom_before[name_of_group] = 0
        self._note_oom(name_of_group)
        return placement

    def _note_oom(self, name: str) -> None:
        if name in self._oom_before:
            self._oom_before[name] = self._oom_kills(name)

    def _make(self, home: Path | None, name: str) -> Path | None:
        if home is None or not _is_group(home.parent):
            return None
        group = home / name
        try:
            os.makedirs(group, exist_ok=True)
        except OSError:
            return None
        return group if _is_group(group) else None

    def _set(self, slot: Slot, name: str, group: Path, settings: dict[str, str]) -> None:
        for key, text in settings.items():
            try:
                (group / key).write_text(text)
            except OSError as error:
                self._tell(slot, name, f"{group / key}: {os.strerror(error.errno or 0)}")

    def _tell(self, slot: Slot, name: str, why: str) -> None:
        if (slot.service, name) not in self._told:
            self._told.add((slot.service, name))
            self.say(slot.service, f"limits.{name} cannot be enforced here: {why}")

    def oom_killed(self, slot: Slot, second: bool = False) -> bool:
        """Whether the kernel killed for memory in this instance's group since it was placed."""
        name = group_name(slot, second)
        before = self._oom_before.get(name)  # None: nothing here counts memory kills
        return before is not None and self._oom_kills(name) > before

    def _oom_kills(self, group: str) -> int:
        homes = ((self._base, "memory.events"), (self._v1.get("memory"), "memory.oom_control"))
        for home, name in homes:
            if home is not None:
                with contextlib.suppress(OSError, ValueError, IndexError):
                    for line in (home / group / name).read_text().splitlines():
                        if line.startswith("oom_kill "):
                            return int(line.split()[1])
        return 0

    def pids(self, slot: Slot, second: bool = False) -> list[int] | None:
        """Processes of an instance; None where there is no group."""
        if self._base is None:
            return None
        with contextlib.suppress(OSError):
            return _procs(self._base / group_name(slot, second))
        return None

    def cpu_s(self, slot: Slot, second: bool = False) -> float | None:
        """CPU time that the processes which were ever in this group have used."""
        if self._base is None:
            return None
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = (self._base / group_name(slot, second) / "cpu.stat").read_text()
            return int(stat.split("\n", 1)[0].split()[1]) / 1e6
        return None

    def slot_of(self, pid: int) -> Slot | None:
        """The slot that a process belongs to, by its v2 group."""
        owner = self.owner_group(pid)
        return None if owner is None else owner[0]

    def owner_group(self, pid: int) -> tuple[Slot, bool] | None:
        """The slot that a process belongs to, by its v2 group, and whether that is the second
        one."""
        group = None if self._base is None else group_of(pid, self._base.name)
        if group is None or not str(self._base).endswith(os.path.dirname(group)):
            return None  # who has a subtree of his own may give a group in it the same name
        with contextlib.suppress(ValueError):
            return parse_group_name(os.path.basename(group))
        return None

    def owner_of_id(self, group: int) -> tuple[Slot, bool] | None:
        """The same by the kernel's number of a group, which it knows of the dead as well."""
        if group not in self._ids and self._base is not None:
            self._ids.clear()
            with contextlib.suppress(OSError):
                for entry in os.scandir(self._base):
                    if entry.is_dir():
                        with contextlib.suppress(ValueError):
                            self._ids[entry.inode()] = parse_group_name(entry.name)
        return self._ids.get(group)

    def end_leftovers(self, spare: Collection[str] = ()) -> dict[str, list[int]]:
        """Kill what an earlier everup left behind in our groups; by group, the pids.

        They hold the ports and files of what is about to be started, and nobody watches them.
        ``spare``: groups of instances that were taken over, by name or path.
        """
        spared = {os.path.basename(name) for name in spare}
        found: dict[str, list[int]] = {}
        until = time.monotonic() + _LEFTOVERS_S
        while self._base is not None:
            alive = 0
            for group in self._base.iterdir():
                if group.name in spared:
                    continue
                with contextlib.suppress(OSError, ValueError):
                    for pid in _procs(group):
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

    def forget(self, slot: Slot, second: bool = False) -> None:
        """Remove the groups of an instance (an empty group only; a full one stays)."""
        name = group_name(slot, second)
        self._placed.pop(name, None)
        for home in (self._base, *self._v1.values()):
            if home is not None:
                with contextlib.suppress(OSError):
                    (home / name).rmdir()

    def close(self) -> None:
        """Remove what is empty. What has just died may keep its group busy for a moment."""
        self._look_at = None if self._look_at is None else 0.0
        self._look()
        for home in (self._base, *self._v1.values()):
            until = time.monotonic() + _REMOVE_S
            while home is not None and not _remove(home) and time.monotonic() < until:
                time.sleep(0.005)


def _is_group(path: Path) -> bool:
    """And not a directory where control groups were, or ought to be."""
    return os.path.exists(path / "cgroup.procs")


def _procs(group: Path) -> list[int]:
    return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]


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


def _readable() -> bool:
    return os.access("/proc/mounts", os.R_OK) and os.access("/proc/self/cgroup", os.R_OK)


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
