"""What clients see of a crash: an open-loop load across the failure of a server.

A C program of its own opens new connections at fixed instants (500 per second), whatever became of
the earlier ones, and measures each from its scheduled instant. Part-way, the server that answers
gets SIGKILL (or SIGSTOP). Reported for each contestant, over all rounds:

  failed      refused, reset (or closed without an answer) and timed-out connections per failure
  in flight   connections open at the failure; "dead" of them had been accepted by the dead
              process (known from its accept log), so that nobody could have answered them
  avoidable   failed connections that the dead process had not accepted
  slow        answers later than 50 ms after the scheduled instant, per failure
  takeover    from the failure to the first answer by another process to a connection that was
              opened after the failure
  slowest     the slowest answer, from its scheduled instant: how long a connection waited on a
              server that died or hung
  gap         longest time between two answers, whoever gave them (2 ms apart without a failure)

Scenarios: "one" replica; "two", one of two replicas killed; "standby", one replica and one standby;
"stopped", one of two replicas gets SIGSTOP under a liveness probe every 200 ms with a timeout of
200 ms and a threshold of 1. Servers: C (starts in under a millisecond) and Python (asyncio, tens of
milliseconds). With --work-ms each answer takes that long, so that connections are in flight when
the server dies. Own-port peers have only "one"; circus can share its socket, so it has "two" too.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import (
    PYSERVER,
    BenchError,
    Report,
    Stats,
    Table,
    ask,
    free_ports,
    number,
    parser,
    quantile,
    say,
    shuffled,
    wait_for,
    wanted,
    workshop,
)
from _contestants import EAGER, S6, BareLoop, Circus, Contestant, Everup, Runit, Service, Supervisor

RATE = 500
TIMEOUT_MS = 2000
SLOW_MS = 50
BEFORE_S = 1.0
SETTLE_S = 0.3  # with BEFORE_S more than the second that runit wants a service to have lived


@dataclass(frozen=True, slots=True)
class Case:
    scenario: str
    server: str
    contestant: Contestant
    signal: int = signal.SIGKILL

    @property
    def key(self) -> str:
        return f"{self.scenario} / {self.server} / {self.contestant.label}"


def everup(**settings: Any) -> Everup:
    return Everup("everup", kept=True, settings={"restart": EAGER, **settings})


def cases() -> list[Case]:
    liveness = {"http": "/", "interval": "200ms", "timeout": "200ms", "failure_threshold": 1}
    readiness = {"http": "/", "interval": "50ms", "timeout": "1s"}
    found = []
    for server in ("C", "Python"):
        one: list[Contestant] = [
            everup(),
            BareLoop(),
            Runit(),
            S6(),
            Supervisor(),
            Circus("circus, own port"),
            Circus("circus, shared socket", shared=True),
        ]
        found += [Case("one", server, contestant) for contestant in one]
        found += [
            # Without a readiness probe a replica counts as ready once it runs, and gets
            # connections while it still loads.
            Case("two", server, everup(replicas=2, probe={"readiness": readiness})),
            Case("two", server, Circus("circus, shared socket", shared=True, count=2)),
            Case("standby", server, everup(standby=1, probe={"readiness": readiness})),
            Case(
                "stopped", server, everup(replicas=2, probe={"liveness": liveness}), signal.SIGSTOP
            ),
        ]
    return found


@dataclass(slots=True)
class Connection:
    scheduled: int
    connected: int
    ended: int
    outcome: str
    pid: int
    port: int


def read_load(path: Path) -> list[Connection]:
    rows = []
    for line in path.read_text().splitlines():
        scheduled, connected, ended, outcome, pid, port = line.split()
        rows.append(
            Connection(int(scheduled), int(connected), int(ended), outcome, int(pid), int(port))
        )
    return rows


def read_accepts(path: Path, pid: int) -> set[int]:
    """Client ports of the connections that ``pid`` accepted."""
    ports = set()
    if path.exists():
        for line in path.read_text().splitlines():
            words = line.split()
            if len(words) == 3 and words[0] == str(pid):
                ports.add(int(words[2]))
    return ports


def digest(rows: list[Connection], accepted: set[int], dead: int, failed_ns: int) -> dict[str, Any]:
    """The numbers of one run; times in ms."""
    good = sorted(r.ended for r in rows if r.outcome == "ok")
    gaps = [b - a for a, b in itertools.pairwise(good)]
    took_over = [
        r.ended - failed_ns
        for r in rows
        if r.outcome == "ok" and r.pid != dead and r.scheduled >= failed_ns
    ]
    flight = [r for r in rows if 0 < r.connected < failed_ns < r.ended]
    bad = [r for r in rows if r.outcome != "ok"]
    # A client port returns to use far later than one run lasts, so it names the connection.
    late = sum(r.ended - r.scheduled > SLOW_MS * 1e6 for r in rows if r.outcome == "ok")
    return {
        "sent": len(rows),
        "answered": len(good),
        "refused": sum(r.outcome == "refused" for r in bad),
        "reset": sum(r.outcome in ("reset", "eof") for r in bad),
        "timed_out": sum(r.outcome == "timeout" for r in bad),
        "error": sum(r.outcome == "error" for r in bad),
        "in_flight": len(flight),
        "dead": sum(r.port in accepted for r in flight),
        "avoidable": sum(r.port not in accepted for r in bad),
        "slow": late,
        "takeover_ms": min(took_over) / 1e6 if took_over else None,
        "gap_ms": max(gaps) / 1e6 if gaps else None,
        "latency_ms": quantiles([(r.ended - r.scheduled) / 1e6 for r in rows if r.pid]),
    }


def quantiles(values: list[float]) -> dict[str, float]:
    return {f"p{100 * q:g}": round(quantile(values, q), 3) for q in (0.5, 0.95, 0.99, 0.999, 1)}


def service(case: Case, home: Path, log: Path, port: int) -> Service:
    program = [str(home / "bin" / "server")]
    if case.server == "Python":
        # -I -S: the fastest start that Python has.
        program = [sys.executable, "-I", "-S", str(PYSERVER)]
    return Service("web", (*program, "--accept-log", str(log)), port)


def run(case: Case, home: Path, place: Path, after_s: float, work_ms: int) -> dict[str, Any]:
    """Starts the contestant, drives the load across one failure, and ends it."""
    (port,) = free_ports(1)
    log = home / f"{place.name}.accepts"
    out = home / f"{place.name}.load"

    def serving() -> int | None:
        case.contestant.check()
        return ask(port)

    try:
        case.contestant.start(place, [service(case, home, log, port)])
        if isinstance(case.contestant, Everup):
            case.contestant.wait_up()
        wait_for(f"{case.key} serves", serving, 30)
        time.sleep(SETTLE_S)
        duration_ms = int((BEFORE_S + after_s) * 1000)
        words = [str(home / "bin" / "load"), port, RATE, duration_ms, TIMEOUT_MS, out]
        words.append(f"/slow?ms={work_ms}" if work_ms else "/")
        load = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True)
        try:
            assert load.stdout is not None
            start_ns = int(load.stdout.readline().split()[1])
            time.sleep(max(0.0, start_ns / 1e9 + BEFORE_S - time.monotonic()))
            dead = wait_for("an answer", serving, 5)
            failed_ns = time.monotonic_ns()
            os.kill(dead, case.signal)
            load.wait(after_s + TIMEOUT_MS / 1000 + 20)
        finally:
            load.kill()
            load.wait()
        return digest(read_load(out), read_accepts(log, dead), dead, failed_ns)
    finally:
        case.contestant.stop()
        log.unlink(missing_ok=True)
        out.unlink(missing_ok=True)


def table(scenario: str, results: dict[str, list[dict[str, Any]]], left: dict[str, str]) -> Table:
    result = Table(
        f"Scenario {scenario}: per failure, {RATE} connections per second",
        [
            "server / supervisor",
            "answered %",
            "refused",
            "reset",
            "timed out",
            "in flight (dead)",
            "avoidable",
            f"slow > {SLOW_MS} ms",
            "takeover ms med",
            "p95",
            "max",
            "gap ms med",
            "max",
            "slowest ms med",
            "max",
        ],
    )
    for key, runs in results.items():
        if not key.startswith(f"{scenario} / "):
            continue
        name = key.partition(" / ")[2]
        if not runs:
            result.missing(name, left.get(key, "no run"))
            continue

        def mean(what: str, runs: list[dict[str, Any]] = runs) -> float:
            return float(sum(r[what] for r in runs)) / len(runs)

        takeover = Stats.of([r["takeover_ms"] for r in runs if r["takeover_ms"] is not None])
        slowest = Stats.of([r["latency_ms"]["p100"] for r in runs])
        gap = Stats.of([r["gap_ms"] for r in runs if r["gap_ms"] is not None])
        result.rows.append(
            [
                name,
                number(100 * mean("answered") / mean("sent"), 2),
                *(number(mean(what), 1) for what in ("refused", "reset", "timed_out")),
                f"{mean('in_flight'):.1f} ({mean('dead'):.1f})",
                number(mean("avoidable"), 1),
                number(mean("slow"), 1),
                *takeover.cells(1),
                number(gap.median, 1),
                number(gap.max, 1),
                number(slowest.median, 1),
                number(slowest.max, 1),
            ]
        )
    return result


def main() -> None:
    p = parser(__doc__, rounds=7, limit_s=900)
    p.add_argument("--scenario", default="", help="comma-separated: one, two, standby, stopped")
    p.add_argument("--work-ms", type=int, default=0, help="each answer takes this long")
    p.add_argument("--server", default="", help="C or Python")
    args = p.parse_args()
    rounds = args.rounds or (2 if args.quick else 7)
    after_s = 2.0 if args.quick else 3.0
    rng = random.Random(args.seed)
    options = {"rounds": rounds, "rate": RATE, "after_s": after_s, "work_ms": args.work_ms}
    report = Report("gap", options)
    chosen = [
        case
        for case in cases()
        if wanted(case.contestant.label, args.only)
        and (not args.scenario or case.scenario in args.scenario.split(","))
        and (not args.server or case.server == args.server)
    ]
    results: dict[str, list[dict[str, Any]]] = {case.key: [] for case in chosen}
    left: dict[str, str] = {}
    for case in chosen:
        if why := case.contestant.missing():
            left[case.key] = why
        else:
            report.versions.setdefault(case.contestant.name, case.contestant.version())
    end_s = time.monotonic() + args.limit
    with workshop() as home:
        for round_ in range(rounds):
            if time.monotonic() > end_s:
                say(f"time limit: {round_} of {rounds} rounds")
                break
            for index, case in enumerate(shuffled(chosen, rng)):
                if case.key in left:
                    continue
                try:
                    place = home / f"{round_}-{index}"
                    results[case.key].append(run(case, home, place, after_s, args.work_ms))
                except (BenchError, OSError, subprocess.SubprocessError) as error:
                    say(f"{case.key}: {error}")
                    left[case.key] = "did not run"
    report.raw = {"runs": results, "left_out": left}
    for scenario in dict.fromkeys(case.scenario for case in chosen):
        report.tables.append(table(scenario, results, left))
    report.publish(args)


if __name__ == "__main__":
    main()
