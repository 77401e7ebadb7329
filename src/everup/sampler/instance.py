"""Numbers about the processes of one instance, from /proc and from its control group."""

import os
from collections.abc import Iterable

from everup.sampler.machine import read

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGESIZE")
_MOST = 256
"""Processes of one instance that are looked at; more tell nothing new."""
_SUMS: tuple[str, ...] = (
    "cpu_s", "rss_bytes", "threads", "fds", "read_bytes", "written_bytes", "run_s", "wait_s"
)  # fmt: skip
_UNREAD = (OSError, ValueError, IndexError)


def members(pid: int, cgroup: str | None, children: dict[int, list[int]]) -> list[int]:
    """Give the processes of an instance: those of its control group, else its main process and
    all that descend from it."""
    if cgroup:
        try:
            return [int(line) for line in read(f"{cgroup}/cgroup.procs").split()][:_MOST]
        except _UNREAD:
            pass
    found = [pid]
    for one in found:
        found += [child for child in children.get(one, ()) if child not in found]
        if len(found) >= _MOST:
            break
    return found[:_MOST]


def measure(pids: Iterable[int], main: int, cgroup: str | None) -> dict[str, float]:
    """Give the numbers of an instance, all its processes together. Empty: none lives."""
    out: dict[str, float] = dict.fromkeys(_SUMS, 0.0)
    count = 0
    for pid in pids:
        try:
            _process(pid, out)
            count += 1
        except _UNREAD:
            continue
    if not count:
        return {}
    out["processes"] = float(count)
    try:
        out["fds_limit"] = _limit(main)
    except _UNREAD:
        pass
    if cgroup:
        out.update(_group(cgroup))
    return out


def _process(pid: int, out: dict[str, float]) -> None:
    text = read(f"/proc/{pid}/stat")
    words = text[text.rindex(b")") + 2 :].split()
    if words[0] in (b"Z", b"X"):
        raise ValueError("it has ended")
    out["cpu_s"] += (int(words[11]) + int(words[12])) * _TICK_S
    out["threads"] += int(words[17])
    out["rss_bytes"] += int(words[21]) * _PAGE
    if words[0] == b"D":
        out["uninterruptible"] = out.get("uninterruptible", 0.0) + 1
    if words[0] in (b"T", b"t"):
        out["stopped"] = out.get("stopped", 0.0) + 1
    try:
        out["fds"] += len(os.listdir(f"/proc/{pid}/fd"))
        run, wait, _slices = read(f"/proc/{pid}/schedstat").split()
        out["run_s"] += int(run) / 1e9
        out["wait_s"] += int(wait) / 1e9
        for line in read(f"/proc/{pid}/io").splitlines():
            name, _, value = line.partition(b": ")
            if name == b"read_bytes":
                out["read_bytes"] += int(value)
            elif name == b"write_bytes":
                out["written_bytes"] += int(value)
    except _UNREAD:
        return


def _limit(pid: int) -> float:
    for line in read(f"/proc/{pid}/limits").splitlines():
        if line.startswith(b"Max open files"):
            return float(line.split()[3])
    raise ValueError("no limit of open files")


def _group(path: str) -> dict[str, float]:
    """What the control group itself counts, where it does."""
    out: dict[str, float] = {}
    try:
        out["memory_bytes"] = float(read(f"{path}/memory.current"))
        limit = read(f"{path}/memory.max").strip()
        if limit != b"max":
            out["memory_limit_bytes"] = float(limit)
        for line in read(f"{path}/memory.events").splitlines():
            name, value = line.split()
            if name == b"oom_kill":
                out["oom_kills"] = float(value)
    except _UNREAD:
        pass
    try:
        for line in read(f"{path}/cpu.stat").splitlines():
            name, value = line.split()
            if name == b"usage_usec":
                out["cpu_s"] = int(value) / 1e6
            elif name == b"throttled_usec":
                out["throttled_s"] = int(value) / 1e6
    except _UNREAD:
        pass
    return out


def children_of_all() -> dict[int, list[int]]:
    """Give the children of every process, for machines without control groups."""
    out: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = read(f"/proc/{name}/stat")
                parent = int(text[text.rindex(b")") + 2 :].split()[1])
            except _UNREAD:
                continue
            out.setdefault(parent, []).append(int(name))
    return out
