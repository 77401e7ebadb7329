"""How long everup is without its engine when its own processes are killed, and what that leaves.

everup keeps ten services, two of them with a socket. In each round one of its processes, or both at
once (then ``everup up -d`` follows at once), gets kill -9; the services go on meanwhile. From that
kill, in milliseconds,

  first event   until the next engine has folded the journal, taken the instances over and recorded
                it: from then on it acts on whatever happens
  API           until it answers a request for the status

Memory (the resident set, which does not depend on who else runs Python on the machine) and
descriptors are counted before and after all kills: what leaked with each takeover would show.
"""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

from _common import (
    BenchError,
    Report,
    Stats,
    Table,
    ask,
    free_ports,
    number,
    parser,
    process_state,
    say,
    shuffled,
    wait_for,
    wanted,
    workshop,
)
from _contestants import Everup, Service
from everup.adapters import journal
from everup.adapters.place import Place
from everup.model.journal import Entry

IDLE = 8
SERVING = 2
REST_S = 0.6
UP_S = 30.0
KINDS = {
    "engine": "engine killed",
    "keeper": "keeper killed",
    "both": "both killed, everup up -d",
}


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Watched:
    """The everup that is killed."""

    def __init__(self, home: Path) -> None:
        self.everup = Everup()
        ports = free_ports(SERVING)
        argv = str(home / "bin" / "server"), str(home / "bin" / "idle")
        services = [Service(f"web{i}", argv[:1], port) for i, port in enumerate(ports)]
        services += [Service(f"idle{i}", (argv[1], "/dev/null")) for i in range(IDLE)]
        self.everup.kept = True
        self.everup.start(home / "everup", services)
        self.everup.wait_up()
        self.place = Place.of(str(self.everup.home / "everup.toml"), "state")
        self.ports = ports
        self.servers = [wait_for("the servers serve", partial(ask, port)) for port in ports]

    def status(self) -> dict[str, Any] | None:
        connection = _Connection(self.place.api_socket)
        with (
            contextlib.closing(connection),
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            connection.request("GET", "/v1/status")
            found: dict[str, Any] = json.loads(connection.getresponse().read())
            return found
        return None

    def pids(self) -> dict[str, int]:
        status = wait_for("everup answers", self.status)
        return {name: int(status[name]["pid"]) for name in ("keeper", "engine")}

    def kill(self, kind: str) -> tuple[float, float]:
        """Milliseconds to the first event and to the first answer."""
        time.sleep(REST_S)
        before, last = self.pids(), self.entries()[-1].seq
        victims = [before[name] for name in ("keeper", "engine") if kind in (name, "both")]
        for number_ in (signal.SIGSTOP, signal.SIGKILL) if kind == "both" else (signal.SIGKILL,):
            for pid in victims:
                os.kill(pid, number_)
        killed_s = time.monotonic()
        up = None
        if kind == "both":
            wait_for("both are gone", lambda: all(process_state(p) in "Z" for p in victims))
            up = subprocess.Popen(
                self.everup.argv("up", "-d"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )

        def again() -> float | None:
            now = self.status()
            fresh = now is not None and now["engine"]["pid"] not in (before["engine"], 0)
            return time.monotonic() if fresh else None

        answered_s = soon("everup answers again", again)
        if up is not None and up.wait(UP_S):
            assert up.stderr is not None
            raise BenchError(f"up: {up.stderr.read().decode()}")
        first = next(e for e in self.entries(last) if e.kind == "instance.adopted")
        if [ask(port) for port in self.ports] != self.servers:
            raise BenchError("a service has been restarted")
        return (first.mono - killed_s) * 1000, (answered_s - killed_s) * 1000

    def entries(self, after: int = 0) -> list[Entry]:
        return journal.read(Path(self.place.journal), after=after, limit=100_000)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Bytes and descriptors of the keeper and the engine."""
        time.sleep(2 * REST_S)
        return {
            name: (rss_bytes(pid), len(os.listdir(f"/proc/{pid}/fd")))
            for name, pid in self.pids().items()
        }


def rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def soon(what: str, check: Any) -> float:
    """As wait_for, but it looks every millisecond."""
    end_s = time.monotonic() + UP_S
    while time.monotonic() < end_s:
        found: float | None = check()
        if found:
            return found
        time.sleep(0.001)
    raise BenchError(f"{what}: not within {UP_S:g} s")


def tables(
    times: dict[str, list[tuple[float, float]]], sizes: list[dict[str, tuple[int, int]]]
) -> list[Table]:
    result = Table(
        f"Time without an engine, ms, {IDLE + SERVING} services",
        ["kill -9 of", "first event: median", "p95", "max", "API: median", "p95", "max", "kills"],
    )
    for kind, values in times.items():
        first, answer = (Stats.of([pair[i] for pair in values]) for i in (0, 1))
        row = [KINDS[kind], *first.cells(0), *answer.cells(0), str(len(values))]
        result.rows.append(row)
    kills = sum(map(len, times.values()))
    held = Table(
        "Memory and descriptors",
        ["process", "MB before", "MB after", "change", "descriptors before", "after"],
        note=f"Before: after the first kill of both. After: {kills} kills later.",
    )
    before, after = sizes[0], sizes[-1]
    for name in before:
        was, now = before[name], after[name]
        change = f"{100 * (now[0] / was[0] - 1):+.1f} %"
        cells = [number(was[0] / 1e6, 1), number(now[0] / 1e6, 1), change]
        held.rows.append([name, *cells, str(was[1]), str(now[1])])
    return [result, held]


def main() -> None:
    p = parser(__doc__, rounds=20, limit_s=300)
    args = p.parse_args()
    rounds = args.rounds or (5 if args.quick else 20)
    rng = random.Random(args.seed)
    report = Report("takeover", {"rounds": rounds, "services": IDLE + SERVING})
    chosen = [kind for kind in KINDS if wanted(kind, args.only)]
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in chosen}
    end_s = time.monotonic() + args.limit
    with workshop() as home:
        watched = Watched(home)
        try:
            report.versions["everup"] = watched.everup.version()
            watched.kill("both")
            sizes = [watched.sizes()]
            for round_ in range(rounds):
                if time.monotonic() > end_s:
                    say(f"time limit: {round_} of {rounds} rounds")
                    break
                for kind in shuffled(chosen, rng):
                    times[kind].append(watched.kill(kind))
            sizes.append(watched.sizes())
        finally:
            watched.everup.stop()
    report.raw = {"ms": times, "sizes": sizes}
    report.tables = tables(times, sizes)
    report.publish(args)


if __name__ == "__main__":
    main()
