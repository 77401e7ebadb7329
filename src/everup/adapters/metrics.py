"""CPU, memory, descriptors, threads and disk bytes of the machine and of each instance (psutil).

Linux counts network bytes for each interface and not for each process, so those are the
machine's alone.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from everup.adapters.cgroups import Cgroups
from everup.model.instance import Slot

# What psutil raises where /proc is not there, not as it should be, or was not at its import.
_UNKNOWN = (
    psutil.Error, OSError, RuntimeError, ValueError, IndexError, AttributeError, TypeError
)  # fmt: skip
_BLIND = (
    "/proc cannot be read: nobody knows what CPU, memory and descriptors instances use, nor how "
    "many connections they have, so a drain takes all of its time; on the notify socket only "
    "main processes are known"
)


@dataclass(frozen=True, slots=True)
class Usage:
    """One sample of an instance: all its processes together."""

    at: float
    cpu_s: float
    cpu_percent: float
    rss_bytes: int
    processes: int
    threads: int
    fds: int
    read_bytes: int
    written_bytes: int


class Metrics:
    """Keeps the last sample of each instance; ``cpu_percent`` is of one core, since then."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._last: dict[Slot, Usage] = {}
        self._handles: dict[int, psutil.Process] = {}
        self._blind = False
        self.sampled_at = 0.0

    def get(self, slot: Slot) -> Usage | None:
        return self._last.get(slot)

    def sample(self, running: Iterable[tuple[Slot, int, bool]]) -> None:
        """Take one sample of each (slot, main pid, whether in its second control group)."""
        fresh, seen = {}, set()
        for slot, main, second in running:
            pids = self._cgroups.pids(slot, second) or [main]
            seen.update(pids)
            usage = self._measure(slot, pids, self._cgroups.cpu_s(slot, second))
            if usage.processes:
                fresh[slot] = usage
        self._last = fresh
        blind = not _proc()
        if blind is not self._blind:
            self._blind = blind
            self._cgroups.say("everup", _BLIND if blind else "/proc can be read again")
        self._handles = {pid: h for pid, h in self._handles.items() if pid in seen}
        self.sampled_at = time.monotonic()

    def _measure(self, slot: Slot, pids: list[int], exact: float | None) -> Usage:
        now = time.monotonic()
        rss = threads = fds = read = written = count = 0
        cpu = 0.0
        for pid in pids[:256]:  # an instance with more tells enough
            with contextlib.suppress(*_UNKNOWN):
                process = self._handles.get(pid)
                if process is None:
                    process = self._handles[pid] = psutil.Process(pid)
                with process.oneshot():
                    rss += process.memory_info().rss
                    threads += process.num_threads()
                    times = process.cpu_times()
                cpu += times.user + times.system
                count += 1
                fds += process.num_fds()
                disk = _disk_bytes(pid)
                read += disk[0]
                written += disk[1]
        cpu = cpu if exact is None else exact
        before = self._last.get(slot)
        percent = 0.0
        if before is not None and now > before.at:
            percent = max(0.0, 100 * (cpu - before.cpu_s) / (now - before.at))
        return Usage(now, cpu, round(percent, 2), rss, count, threads, fds, read, written)


def _disk_bytes(pid: int) -> tuple[int, int]:
    """Read and written. (psutil can tell only if /proc was there when it was imported.)"""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    known = dict(line.split(": ", 1) for line in lines)
    return int(known.get("read_bytes", 0)), int(known.get("write_bytes", 0))


_cpu_before = (0, 0)


def machine() -> dict[str, Any]:
    """The machine now; what cannot be found out is left out."""
    out: dict[str, Any] = {"cpus": os.cpu_count() or 1}
    for measure in (_load, _cpu, _memory, _network, _disk):
        with contextlib.suppress(*_UNKNOWN):
            out |= measure()
    return out


def _load() -> dict[str, Any]:
    return {"load": [round(x, 2) for x in os.getloadavg()]}


def _cpu() -> dict[str, Any]:
    """Of all CPUs, since the last time. (psutil can tell only if /proc was there when it was
    imported.)"""
    global _cpu_before
    ticks = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    total, idle = sum(ticks), ticks[3] + ticks[4]
    (total_before, idle_before), _cpu_before = _cpu_before, (total, idle)
    passed = max(1, total - total_before)
    return {"cpu_percent": round(max(0.0, 100 * (1 - (idle - idle_before) / passed)), 1)}


def _memory() -> dict[str, Any]:
    memory = psutil.virtual_memory()
    return {"memory_total_bytes": memory.total, "memory_available_bytes": memory.available}


def _network() -> dict[str, Any]:
    net = psutil.net_io_counters()
    return {"net_received_bytes": net.bytes_recv, "net_sent_bytes": net.bytes_sent} if net else {}


def _disk() -> dict[str, Any]:
    disk = psutil.disk_io_counters()
    if disk is None:
        return {}
    return {"disk_read_bytes": disk.read_bytes, "disk_written_bytes": disk.write_bytes}


def _proc() -> bool:
    """Whether it can be told who lives."""
    return os.access("/proc/self/stat", os.R_OK)


def usage_payload(usage: Usage | None) -> dict[str, Any] | None:
    """For the API."""
    if usage is None:
        return None
    payload = asdict(usage)
    del payload["at"]
    return payload


def open_connections(pids: Iterable[int]) -> int:
    """Client connections that processes have open (drain waits for none). Raises ``OSError``
    where that cannot be told, which is not the same as none."""
    count = 0
    for pid in pids:
        with _gone():
            process = psutil.Process(pid)
            listening = {c.laddr for c in process.net_connections("all") if c.status == "LISTEN"}
            ports = {address.port for address in listening if hasattr(address, "port")}
            for connection in process.net_connections("tcp"):
                local = connection.laddr
                if connection.status == psutil.CONN_ESTABLISHED and local and local.port in ports:
                    count += 1
    return count


@contextlib.contextmanager
def _gone() -> Iterator[None]:
    """A process that is gone has nothing open; of one that cannot be looked at nobody knows."""
    try:
        yield
    except (psutil.NoSuchProcess, psutil.ZombieProcess) as error:
        if not _proc():
            raise OSError("/proc cannot be read") from error
    except psutil.Error as error:
        raise OSError(str(error)) from error
