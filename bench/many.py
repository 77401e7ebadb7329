"""A hundred processes: how fast they start, and what supervising them costs at rest.

  all run      from the command to the moment when the last of the processes has run (each writes a
               byte into a FIFO as it starts)
  CPU          of all supervising processes together over a span at rest, in percent of one core
  PSS          proportional memory of all supervising processes together

runit and s6 have one supervising process for each service; they are counted. circus looks at its
processes as rarely as it does by default. The second table has 100 static servers, each asked over
HTTP every second (everup: liveness probes; monit: a cycle of 1 s; nobody else probes).
"""

import os
import random
import select
import time
from pathlib import Path
from typing import Any

from _common import (
    BenchError,
    Report,
    Stats,
    Table,
    ask,
    cpu_ns,
    free_ports,
    number,
    parser,
    pss_bytes,
    say,
    shuffled,
    wanted,
    workshop,
)
from _contestants import S6, Circus, Contestant, Everup, Monit, Runit, Service, Supervisor

SETTLE_S = 3.0
START_LIMIT_S = 60.0


def idle_contestants() -> list[Contestant]:
    return [Everup(), Runit(), S6(), Supervisor(), Circus(check_delay_s=5.0)]


def probing_contestants() -> list[Contestant]:
    probe = {"liveness": {"http": "/", "interval": "1s"}}
    return [
        Everup("everup, 1 s probes", kept=True, settings={"probe": probe}),
        Monit("monit, 1 s cycle", http_probe=True),
    ]


def rest_cost(contestant: Contestant, span_s: float) -> dict[str, float]:
    """CPU in percent of a core and memory in MiB of the supervising processes."""
    pids = contestant.supervisors()
    before = {pid: cpu_ns(pid) for pid in pids}
    start = time.monotonic()
    time.sleep(span_s)
    took_s = time.monotonic() - start
    used_ns = sum(max(0, cpu_ns(pid) - before[pid]) for pid in pids)
    return {
        "cpu_percent": used_ns / 1e9 / took_s * 100,
        "pss_mib": sum(pss_bytes(pid) for pid in pids) / (1 << 20),
        "processes": len(pids),
    }


def count_bytes(fifo: int, count: int, contestant: Contestant) -> float:
    """The instant at which the FIFO had yielded ``count`` bytes."""
    seen = 0
    deadline = time.monotonic() + START_LIMIT_S
    while seen < count:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise BenchError(f"{contestant.label}: {seen} of {count} started")
        if select.select([fifo], [], [], min(left_s, 0.5))[0]:
            seen += len(os.read(fifo, 4096))
        else:
            contestant.check()
    return time.monotonic()


def run_idle(
    contestant: Contestant, home: Path, place: Path, count: int, span_s: float
) -> dict[str, float]:
    path = home / f"{place.name}.fifo"
    os.mkfifo(path)
    # Both ends: a reader that never sees end-of-file between two writers.
    fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    idle = str(home / "bin" / "idle")
    services = [Service(f"s{i:03}", (idle, str(path))) for i in range(1, count + 1)]
    try:
        begun = time.monotonic()
        contestant.start(place, services)
        result = {"all_run_s": count_bytes(fifo, count, contestant) - begun}
        if isinstance(contestant, Everup):
            contestant.wait_up()
            result["up_returned_s"] = time.monotonic() - begun
        time.sleep(SETTLE_S)
        return result | rest_cost(contestant, span_s)
    finally:
        contestant.stop()
        os.close(fifo)
        path.unlink()


def run_probing(
    contestant: Contestant, home: Path, place: Path, count: int, span_s: float
) -> dict[str, float]:
    server = str(home / "bin" / "server")
    ports = free_ports(count)
    services = [Service(f"s{i:03}", (server,), port) for i, port in enumerate(ports, 1)]
    try:
        begun = time.monotonic()
        contestant.start(place, services)
        waiting = set(ports)
        while waiting:
            contestant.check()
            if time.monotonic() - begun > 2 * START_LIMIT_S:
                raise BenchError(f"{contestant.label}: {len(waiting)} of {count} do not serve")
            waiting -= {port for port in list(waiting)[:20] if ask(port)}
            time.sleep(0.02)
        result = {"all_run_s": time.monotonic() - begun}
        if isinstance(contestant, Everup):
            contestant.wait_up()
        time.sleep(SETTLE_S)
        return result | rest_cost(contestant, span_s)
    finally:
        contestant.stop()


def table(title: str, runs: dict[str, list[dict[str, float]]], left: dict[str, str]) -> Table:
    result = Table(
        title,
        [
            "supervisor",
            "all run s med",
            "max",
            "CPU % med",
            "max",
            "PSS MiB",
            "processes",
            "rounds",
        ],
    )
    for label, rows in runs.items():
        if not rows:
            result.missing(label, left.get(label, "no run"))
            continue
        starts = Stats.of([r["all_run_s"] for r in rows])
        cpu = Stats.of([r["cpu_percent"] for r in rows])
        memory = Stats.of([r["pss_mib"] for r in rows])
        result.rows.append(
            [
                label,
                number(starts.median),
                number(starts.max),
                number(cpu.median, 3),
                number(cpu.max, 3),
                number(memory.median, 1),
                f"{rows[-1]['processes']:.0f}",
                str(len(rows)),
            ]
        )
    return result


def main() -> None:
    p = parser(__doc__, rounds=3, limit_s=900)
    p.add_argument("--count", type=int, default=100, help="processes, 1 to 300 (default 100)")
    p.add_argument("--span", type=float, help="seconds of rest measured (default 20, quick 5)")
    args = p.parse_args()
    count = min(300, max(1, args.count))
    rounds = args.rounds or (1 if args.quick else 3)
    span_s = args.span or (5.0 if args.quick else 20.0)
    rng = random.Random(args.seed)
    report = Report("many", {"rounds": rounds, "count": count, "span_s": span_s})
    jobs = [(run_idle, c) for c in idle_contestants()]
    jobs += [(run_probing, c) for c in probing_contestants()]
    jobs = [(job, c) for job, c in jobs if wanted(c.label, args.only)]
    runs: dict[Any, dict[str, list[dict[str, float]]]] = {run_idle: {}, run_probing: {}}
    left: dict[str, str] = {}
    for job, contestant in jobs:
        runs[job][contestant.label] = []
        if why := contestant.missing():
            left[contestant.label] = why
        else:
            report.versions.setdefault(contestant.name, contestant.version())
    end_s = time.monotonic() + args.limit
    with workshop() as home:
        for round_ in range(rounds):
            for index, (job, contestant) in enumerate(shuffled(jobs, rng)):
                if contestant.label in left or time.monotonic() > end_s:
                    continue
                place = home / f"{round_}-{index}"
                try:
                    runs[job][contestant.label].append(job(contestant, home, place, count, span_s))
                except (BenchError, OSError) as error:
                    say(str(error))
                    left[contestant.label] = "did not run"
    report.raw = {"idle": runs[run_idle], "probing": runs[run_probing], "left_out": left}
    span = f"CPU over {span_s:g} s at rest"
    report.tables.append(table(f"{count} idle processes; {span}", runs[run_idle], left))
    title = f"{count} servers, each asked over HTTP every second; {span}"
    report.tables.append(table(title, runs[run_probing], left))
    report.publish(args)


if __name__ == "__main__":
    main()
