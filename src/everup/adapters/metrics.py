"""CPU, memory, descriptors, threads and disk bytes of the machine and of each instance (psutil).

Linux counts network bytes for each interface and not for each process, so those are the
machine's alone.
"""

import contextlib
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from everup.adapters.cgroups import Cgroups
from everup.model.instance import Slot


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
        self.sampled_at = 0.0

    def get(self, slot: Slot) -> Usage | None:
        return self._last.get(slot)

    def sample(self, running: Iterable[tuple[Slot, int, bool]]) -> None:
        """Take one sample of each (slot, main pid, whether in its second control group)."""
        fresh, seen = {}, set()
        for slot, main, second in running:
            pids = self._cgroups.pids(slot, second) or [main]
            seen.update(pids)
            fresh[slot] = self._measure(slot, pids, self._cgroups.cpu_s(slot, second))
        self._last = fresh
        self._handles = {pid: h for pid, h in self._handles.items() if pid in seen}
        self.sampled_at = time.monotonic()

    def _measure(self, slot: Slot, pids: list[int], exact: float | None) -> Usage:
        now = time.monotonic()
        rss = threads = fds = read = written = count = 0
        cpu = 0.0
        for pid in pids[:256]:  # an instance with more tells enough
            with contextlib.suppress(psutil.Error):
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
                disk = process.io_counters()
                read += disk.read_bytes
                written += disk.write_bytes
        cpu = cpu if exact is None else exact
        before = self._last.get(slot)
        percent = 0.0
        if before is not None and now > before.at:
            percent = max(0.0, 100 * (cpu - before.cpu_s) / (now - before.at))
        return Usage(now, cpu, round(percent, 2), rss, count, threads, fds, read, written)


def machine() -> dict[str, Any]:
    """The machine now."""
    memory, load = psutil.virtual_memory(), psutil.getloadavg()
    out: dict[str, Any] = {
        "cpus": psutil.cpu_count() or 1,
        "load": [round(x, 2) for x in load],
        "cpu_percent": psutil.cpu_percent(None),
        "memory_total_bytes": memory.total,
        "memory_available_bytes": memory.available,
    }
    net, disk = psutil.net_io_counters(), psutil.disk_io_counters()
    if net is not None:
        out |= {"net_received_bytes": net.bytes_recv, "net_sent_bytes": net.bytes_sent}
    if disk is not None:
        out |= {"disk_read_bytes": disk.read_bytes, "disk_written_bytes": disk.write_bytes}
    return out


def usage_payload(usage: Usage | None) -> dict[str, Any] | None:
    """For the API."""
    if usage is None:
        return None
    payload = asdict(usage)
    del payload["at"]
    return payload


def open_connections(pids: Iterable[int]) -> int:
    """Client connections that processes have open (drain waits for none)."""
    count = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            listening = {c.laddr for c in process.net_connections("all") if c.status == "LISTEN"}
            ports = {address.port for address in listening if hasattr(address, "port")}
            for connection in process.net_connections("tcp"):
                local = connection.laddr
                if connection.status == psutil.CONN_ESTABLISHED and local and local.port in ports:
                    count += 1
    return count
