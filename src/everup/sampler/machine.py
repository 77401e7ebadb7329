"""Numbers about the machine, from /proc. What cannot be read is left out."""

import os
from collections.abc import Callable, Iterator, Mapping

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_CPU_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_MEMORY = {
    b"MemTotal:": "memory_total_bytes",
    b"MemAvailable:": "memory_available_bytes",
    b"SwapTotal:": "swap_total_bytes",
    b"SwapFree:": "swap_free_bytes",
    b"Dirty:": "memory_dirty_bytes",
}
_SECTOR_BYTES = 512
_VIRTUAL_DISKS = (b"loop", b"ram", b"zram", b"dm-", b"md", b"sr")
_UNREAD = (OSError, ValueError, IndexError)


def machine() -> dict[str, float]:
    """Give counters and gauges of the whole machine, by name with the unit last."""
    out: dict[str, float] = {"cpus": float(os.cpu_count() or 1)}
    for measure in (_cpu, _load, _memory, _pressure, _network, _disk, _tcp):
        try:
            out.update(measure())
        except _UNREAD:
            continue
    return out


def read(path: str, most: int = 1 << 18) -> bytes:
    """Give a file of the kernel's, at most so many bytes. Raises ``OSError``."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while most > 0 and (data := os.read(fd, min(most, 1 << 16))):
            parts.append(data)
            most -= len(data)
        return b"".join(parts)
    finally:
        os.close(fd)


def _cpu() -> Iterator[tuple[str, float]]:
    for line in read("/proc/stat").splitlines():
        words = line.split()
        if words[0] == b"cpu":
            for name, value in zip(_CPU_FIELDS, words[1:], strict=False):
                yield f"cpu_{name}_s", int(value) * _TICK_S
        elif words[0] in (b"ctxt", b"procs_running", b"procs_blocked"):
            name = {b"ctxt": "context_switches"}.get(words[0], words[0].decode())
            yield name, float(words[1])


def _load() -> Iterator[tuple[str, float]]:
    yield "load_1m", os.getloadavg()[0]


def _memory() -> Iterator[tuple[str, float]]:
    for line in read("/proc/meminfo").splitlines():
        words = line.split()
        if (name := _MEMORY.get(words[0])) is not None:
            yield name, int(words[1]) * 1024.0
    for line in read("/proc/vmstat").splitlines():
        if line.startswith(b"oom_kill "):
            yield "oom_kills", float(line.split()[1])


def _pressure() -> Iterator[tuple[str, float]]:
    for what in ("cpu", "memory", "io"):
        for line in read(f"/proc/pressure/{what}").splitlines():
            kind, average, *_, total = line.split()
            share = "some" if kind == b"some" else "full"
            yield f"psi_{what}_{share}_percent", float(average.partition(b"=")[2])
            yield f"psi_{what}_{share}_s", int(total.partition(b"=")[2]) / 1e6


def _network() -> Iterator[tuple[str, float]]:
    received = sent = errors = dropped = 0
    for line in read("/proc/net/dev").splitlines()[2:]:
        name, _, rest = line.partition(b":")
        numbers = [int(word) for word in rest.split()]
        if name.strip() != b"lo":
            received, sent = received + numbers[0], sent + numbers[8]
            errors += numbers[2] + numbers[10]
            dropped += numbers[3] + numbers[11]
    yield "net_received_bytes", float(received)
    yield "net_sent_bytes", float(sent)
    yield "net_errors", float(errors)
    yield "net_dropped", float(dropped)


def _disk() -> Iterator[tuple[str, float]]:
    done = written = busy_ms = 0
    for line in read("/proc/diskstats").splitlines():
        words = line.split()
        if words[2].startswith(_VIRTUAL_DISKS) or _is_partition(words[2]):
            continue
        done += int(words[5])
        written += int(words[9])
        busy_ms += int(words[12])
    yield "disk_read_bytes", float(done * _SECTOR_BYTES)
    yield "disk_written_bytes", float(written * _SECTOR_BYTES)
    yield "disk_busy_s", busy_ms / 1000


def _is_partition(name: bytes) -> bool:
    return os.path.exists(os.path.join(b"/sys/class/block", name, b"partition"))


def _tcp() -> Iterator[tuple[str, float]]:
    lines = read("/proc/net/snmp").splitlines()
    found = dict(_pairs(lines, b"Tcp:"))
    yield "tcp_retransmits", found[b"RetransSegs"]
    yield "tcp_established", found[b"CurrEstab"]
    extended = dict(_pairs(read("/proc/net/netstat").splitlines(), b"TcpExt:"))
    yield "tcp_listen_overflows", extended[b"ListenOverflows"]


def _pairs(lines: list[bytes], head: bytes) -> Iterator[tuple[bytes, float]]:
    names, values = [line.split() for line in lines if line.startswith(head)][:2]
    for name, value in zip(names[1:], values[1:], strict=False):
        yield name, float(value)


_REAL_KINDS = frozenset(
    b"ext2 ext3 ext4 xfs btrfs zfs f2fs overlay nfs nfs4 tmpfs vfat ntfs3 bcachefs cifs".split()
)
_MOST_MOUNTS = 64


def disks(stat: Callable[[str], os.statvfs_result] = os.statvfs) -> Mapping[str, dict[str, float]]:
    """Give size, free space and inodes of each file system that can fill, by mount point.

    One that does not answer (a dead network mount) is not asked: who calls this does so in a
    thread of its own.
    """
    out: dict[str, dict[str, float]] = {}
    seen: set[bytes] = set()
    try:
        lines = read("/proc/self/mounts").splitlines()
    except OSError:
        return out
    for line in lines:
        device, point, kind, options, *_ = line.split()
        if kind not in _REAL_KINDS or (device in seen and device.startswith(b"/")):
            continue
        seen.add(device)
        path = point.decode("utf-8", "surrogateescape").replace("\\040", " ")
        try:
            found = stat(path)
        except OSError:
            continue
        if not found.f_blocks or len(out) >= _MOST_MOUNTS:
            continue
        out[path] = {
            "size_bytes": float(found.f_blocks * found.f_frsize),
            "available_bytes": float(found.f_bavail * found.f_frsize),
            "inodes": float(found.f_files),
            "inodes_free": float(found.f_favail),
            "read_only": float(b"ro" in options.split(b",")),
        }
    return out
