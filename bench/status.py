"""How long a person waits for the status: wall time of the whole command, ten services running.

All supervisors run at the same time; in each round each command runs once, in a new order. Two
floors: an empty C program (true) and Python doing nothing (python -I -S -c pass). s6-svstat takes
one service at a time, so its row is a shell loop over the ten.
"""

import random
import subprocess
import sys
import time
from pathlib import Path

from _common import (
    BenchError,
    Report,
    Stats,
    Table,
    number,
    parser,
    say,
    shuffled,
    wait_for,
    wanted,
    workshop,
)
from _contestants import S6, Circus, Contestant, Everup, Monit, Runit, Service, Supervisor

SERVICES = 10


def contestants() -> list[Contestant]:
    return [Everup(), Runit(), S6(), Supervisor(), Circus(check_delay_s=5.0), Monit()]


def timed(argv: list[str]) -> tuple[float, str, int]:
    """Milliseconds, output and exit status of a command."""
    start = time.monotonic()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    return (time.monotonic() - start) * 1000, done.stdout, done.returncode


def begin(contestant: Contestant, home: Path, index: int) -> list[str]:
    """Starts ten services; the status command, once it shows them."""
    idle = str(home / "bin" / "idle")
    names = [f"s{i:02}" for i in range(SERVICES)]
    # Monit wants a pid file as the second argument; nobody reads the FIFO, which is no FIFO here.
    services = [Service(name, (idle, "/dev/null")) for name in names]
    contestant.start(home / f"c{index}", services)

    def shown() -> list[str] | None:
        contestant.check()
        argv = contestant.status_argv()
        _ms, text, code = timed(argv)
        if isinstance(contestant, S6):  # it does not say the names
            return argv if code == 0 and text.count("up (pid") == SERVICES else None
        return argv if all(name in text for name in names) else None

    return wait_for(f"{contestant.label} shows its status", shown, 60)


def main() -> None:
    p = parser(__doc__, rounds=20, limit_s=300)
    args = p.parse_args()
    rounds = args.rounds or (8 if args.quick else 20)
    rng = random.Random(args.seed)
    report = Report("status", {"rounds": rounds, "services": SERVICES})
    left: dict[str, str] = {}
    commands: dict[str, list[str]] = {
        "true": ["true"],
        "python doing nothing": [sys.executable, "-I", "-S", "-c", "pass"],
    }
    running: list[Contestant] = []
    with workshop() as home:
        try:
            for index, contestant in enumerate(contestants()):
                if not wanted(contestant.label, args.only):
                    continue
                if why := contestant.missing():
                    left[contestant.label] = why
                    continue
                try:
                    running.append(contestant)
                    commands[contestant.label] = begin(contestant, home, index)
                    report.versions[contestant.name] = contestant.version()
                except (BenchError, OSError, subprocess.SubprocessError) as error:
                    say(str(error))
                    left[contestant.label] = "did not run"
            times: dict[str, list[float]] = {label: [] for label in commands}
            end_s = time.monotonic() + args.limit
            for _round in range(rounds):
                if time.monotonic() > end_s:
                    break
                for label in shuffled(list(commands), rng):
                    times[label].append(timed(commands[label])[0])
        finally:
            for contestant in running:
                contestant.stop()
    result = Table(
        f"Status of {SERVICES} services, whole command, ms",
        ["command", "median", "p95", "max", "x python", "runs"],
    )
    floor = Stats.of(times["python doing nothing"]).median
    for label, values in times.items():
        stats = Stats.of(values)
        ratio = number(stats.median / floor, 1)
        result.rows.append([label, *stats.cells(1), ratio, str(len(values))])
    for label, why in left.items():
        result.missing(label, why)
    report.raw = {"ms": times}
    report.tables.append(result)
    report.publish(args)


if __name__ == "__main__":
    main()
