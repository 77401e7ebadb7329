"""What the benchmarks share: C programs, statistics, tables, and accounting of processes."""

import argparse
import contextlib
import json
import math
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

HERE = Path(__file__).resolve().parent
PROGRAMS = ("server", "idle", "run", "respawn_loop", "reaper", "crash", "load")
PYSERVER = HERE / "pyserver.py"

T = TypeVar("T")


class BenchError(Exception):
    """A benchmark that cannot go on; the text says why."""


# --- statistics -----------------------------------------------------------------------------


def quantile(values: Sequence[float], q: float) -> float:
    """Nearest-rank quantile; NaN without values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(q * len(ordered)) - 1))]


@dataclass(frozen=True, slots=True)
class Stats:
    count: int
    median: float
    p95: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Stats":
        top = max(values) if values else math.nan
        return cls(len(values), quantile(values, 0.5), quantile(values, 0.95), top)

    def cells(self, digits: int = 2) -> list[str]:
        return [number(x, digits) for x in (self.median, self.p95, self.max)]


def number(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


# --- results --------------------------------------------------------------------------------


@dataclass(slots=True)
class Table:
    title: str
    headers: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""

    def missing(self, name: str, why: str) -> None:
        self.rows.append([name, why, *[""] * (len(self.headers) - 2)])

    def plain(self) -> str:
        columns = list(zip(self.headers, *self.rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        lines = [self.title, "-" * len(self.title)]
        for row in [self.headers, *self.rows]:
            cells = [row[0].ljust(widths[0])]
            cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def markdown(self) -> str:
        lines = [f"**{self.title}**", ""]
        lines.append("| " + " | ".join(self.headers) + " |")
        lines.append("|---" + "|---:" * (len(self.headers) - 1) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([*lines, *(["", self.note] if self.note else [])])


def machine() -> dict[str, Any]:
    """What the numbers depend on, without anything that names the host."""
    model = ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "kernel": platform.release(),
        "cpu": model,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
    }


@dataclass(slots=True)
class Report:
    """Tables and raw numbers of one program."""

    program: str
    options: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=machine)
    started_s: float = field(default_factory=time.monotonic)

    def publish(self, args: argparse.Namespace) -> None:
        text = "\n\n".join(t.markdown() if args.markdown else t.plain() for t in self.tables)
        print(text, flush=True)
        if args.json:
            data = {
                "program": self.program,
                "options": self.options,
                "machine": self.before,
                "load_average_after": [round(x, 2) for x in os.getloadavg()],
                "duration_s": round(time.monotonic() - self.started_s, 1),
                "versions": self.versions,
                "tables": [
                    {"title": t.title, "headers": t.headers, "rows": t.rows, "note": t.note}
                    for t in self.tables
                ],
                "raw": self.raw,
            }
            Path(args.json).write_text(json.dumps(data, indent=1) + "\n")


def parser(doc: str | None, *, rounds: int, limit_s: float) -> argparse.ArgumentParser:
    """The options that every program takes."""
    p = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--rounds", type=int, help=f"rounds of all contestants (default {rounds})")
    p.add_argument("--quick", action="store_true", help="few and short rounds")
    p.add_argument("--only", default="", help="comma-separated parts of contestants' names")
    p.add_argument("--limit", type=float, default=limit_s, help="no round starts after LIMIT s")
    p.add_argument("--seed", type=int, default=1, help="order of the contestants in a round")
    p.add_argument("--json", metavar="FILE", help="write the raw numbers")
    p.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    return p


def say(text: str) -> None:
    print(f"# {text}", file=sys.stderr, flush=True)


def wanted(name: str, only: str) -> bool:
    return not only or any(part in name for part in only.split(","))


def shuffled(items: Sequence[T], rng: random.Random) -> list[T]:
    """A new order in each round, so that no contestant always runs after the same other one."""
    return rng.sample(list(items), len(items))


# --- the workshop: a directory that every started process can be recognised by ----------------


def _cancel(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit("terminated")


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """Makes a temporary directory with the compiled programs in ``bin``; at the end, kills what
    still runs from it. Processes are recognised by the directory's unique name, never by their
    own."""
    signal.signal(signal.SIGTERM, _cancel)
    # Short: Unix socket paths have 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="evb-"))
    try:
        build(home / "bin")
        yield home
    finally:
        end_processes_of(home)
        shutil.rmtree(home, ignore_errors=True)


def build(target: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BenchError("no C compiler")
    target.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        command = [compiler, "-O2", "-static", "-o", str(target / name), str(HERE / f"{name}.c")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{name}.c does not compile:\n{done.stderr}")


def processes_of(home: Path) -> list[int]:
    """Processes whose program, arguments or working directory lie in ``home``."""
    mark = os.fsencode(home)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            seen = [(entry / "cmdline").read_bytes()]
            for link in ("exe", "cwd"):
                with contextlib.suppress(OSError):
                    seen.append(os.fsencode(os.readlink(entry / link)))
            if any(mark in text for text in seen) and process_state(int(entry.name)) != "Z":
                found.append(int(entry.name))
    return found


def end_processes_of(home: Path, limit_s: float = 10.0) -> None:
    """Kills them, again while a supervisor is faster than we are."""
    deadline = time.monotonic() + limit_s
    while (left := processes_of(home)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


# --- /proc ----------------------------------------------------------------------------------


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def process_state(pid: int) -> str:
    try:
        return _stat(pid)[0]
    except OSError:
        return ""


def descendants(root: int) -> list[int]:
    """Children of ``root``, theirs, and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def cpu_ns(pid: int) -> int:
    """CPU time of all threads; schedstat, since the ticks of stat are 10 ms."""
    total = 0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
    return total


def pss_bytes(pid: int) -> int:
    """Proportional set size: shared pages count in part."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


# --- asking the servers ---------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    """Free ports below the range that the kernel gives to clients, so that none is taken away."""
    found: list[int] = []
    start = random.SystemRandom().randrange(12000, 28000)
    for port in range(start, start + 4000):
        if len(found) == count:
            return found
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            found.append(port)
    if len(found) < count:
        raise BenchError(f"no {count} free ports")
    return found


def ask(port: int, timeout_s: float = 1.0) -> int | None:
    """The pid that answers on ``port``."""
    with (
        contextlib.suppress(OSError, ValueError),
        socket.create_connection(("127.0.0.1", port), timeout_s) as sock,
    ):
        sock.settimeout(timeout_s)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
        reply = b""
        while part := sock.recv(512):
            reply += part
        return int(reply.rpartition(b"\r\n\r\n")[2])
    return None


def wait_for(what: str, check: Callable[[], T | None], limit_s: float = 30.0) -> T:
    """Asks ``check`` until it returns something true."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        result = check()
        if result:
            return result
        time.sleep(0.02)
    raise BenchError(f"{what}: not within {limit_s:g} s")
