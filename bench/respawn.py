"""Crash to serving: from kill -9 of a server to the first answer of its successor.

Every contestant keeps one static C server that starts in well under a millisecond, at the
contestant's fastest settings. In each round each server is killed once; it has then lived for 1.1 s
(runit waits after shorter lives) and up to 1 s more at random, so that nobody's cycle is always hit
at the same point and the order changes from round to round. A C program sends
the signal and connects again until another pid answers, 50 us after each failure (0.2 % of the
time passed once that is more).

"own delay" is everup less the bare C loop in the same round: what everup itself takes, with its
journal on.
"""

import random
import subprocess
import time
from pathlib import Path

from _common import (
    BenchError,
    Report,
    Stats,
    Table,
    ask,
    free_ports,
    number,
    parser,
    say,
    wait_for,
    wanted,
    workshop,
)
from _contestants import (
    EAGER,
    S6,
    BareLoop,
    Circus,
    Contestant,
    Everup,
    Monit,
    Runit,
    Service,
    Supervisor,
)

MIN_AGE_S = 1.1
CRASH_LIMIT_MS = 10_000


def contestants() -> list[Contestant]:
    return [
        BareLoop(),
        Runit(),
        S6(),
        Supervisor(),
        Circus(),
        Monit(),
        Everup("everup, own port", settings={"restart": EAGER}),
        Everup("everup, kept socket", kept=True, settings={"restart": EAGER}),
    ]


class Runner:
    """One contestant with its server."""

    def __init__(
        self, contestant: Contestant, home: Path, index: int, delay_ms: int, rng: random.Random
    ) -> None:
        self.rng = rng
        self.contestant = contestant
        self.label = contestant.label
        self.crash = str(home / "bin" / "crash")
        (self.port,) = free_ports(1)
        argv = [str(home / "bin" / "server")]
        if delay_ms:
            argv += ["--delay-ms", str(delay_ms)]
        contestant.start(home / f"c{index}", [Service("web", tuple(argv), self.port)])
        self.pid = wait_for(f"{self.label} serves", self.serving, 60)
        self.rest()

    def rest(self) -> None:
        self.ripe_s = time.monotonic() + MIN_AGE_S + self.rng.random()

    def serving(self) -> int | None:
        self.contestant.check()
        return ask(self.port)

    def kill(self) -> float | None:
        """Milliseconds to the successor's first answer; None if there was none in time."""
        time.sleep(max(0.0, self.ripe_s - time.monotonic()))
        done = subprocess.run(
            [self.crash, str(self.port), str(self.pid), str(CRASH_LIMIT_MS)],
            capture_output=True,
            text=True,
            timeout=CRASH_LIMIT_MS / 1000 + 10,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"{self.label}: {done.stderr.strip()}")
        took_ns, pid, _attempts = map(int, done.stdout.split())
        if took_ns < 0:
            self.pid = wait_for(f"{self.label} serves again", self.serving, 20)
            self.rest()
            return None
        self.rest()
        self.pid = pid
        return took_ns / 1e6


def table(times: dict[str, list[float | None]], left_out: dict[str, str], delay_ms: int) -> Table:
    start = f", start delayed by {delay_ms} ms" if delay_ms else ""
    result = Table(
        f"Crash to serving, ms{start}",
        ["supervisor", "median", "p95", "max", "x bare loop", "kills", "no answer in 10 s"],
    )
    bare = Stats.of([x for x in times.get(BareLoop.name, []) if x is not None]).median
    for label, values in times.items():
        good = [x for x in values if x is not None]
        stats = Stats.of(good)
        lost = len([x for x in values if x is None])
        ratio = number(stats.median / bare, 1)
        result.rows.append([label, *stats.cells(), ratio, str(len(values)), str(lost)])
    for label, values in times.items():
        if label.startswith("everup"):
            pairs = zip(values, times.get(BareLoop.name, []), strict=False)
            own = [a - b for a, b in pairs if a is not None and b is not None]
            stats = Stats.of(own)
            cells = [*stats.cells(), "", str(len(own)), ""]
            result.rows.append([f"{label}: own delay", *cells])
    for label, why in left_out.items():
        result.missing(label, why)
    return result


def main() -> None:
    p = parser(__doc__, rounds=50, limit_s=400)
    p.add_argument(
        "--start-delay-ms", type=int, default=0, help="the server sleeps before it binds"
    )
    p.add_argument("--monit-rounds", type=int, default=10, help="monit is slow: fewer rounds")
    args = p.parse_args()
    rounds = args.rounds or (10 if args.quick else 50)
    rng = random.Random(args.seed)
    report = Report("respawn", {"rounds": rounds, "start_delay_ms": args.start_delay_ms})
    left_out: dict[str, str] = {}
    runners: list[Runner] = []
    gave_up: set[str] = set()
    with workshop() as home:
        try:
            for index, contestant in enumerate(contestants()):
                if not wanted(contestant.label, args.only):
                    continue
                if why := contestant.missing():
                    left_out[contestant.label] = why
                    continue
                try:
                    runners.append(Runner(contestant, home, index, args.start_delay_ms, rng))
                    report.versions[contestant.name] = contestant.version()
                except (BenchError, OSError) as error:
                    say(str(error))
                    left_out[contestant.label] = "did not start"
                    contestant.stop()
            times: dict[str, list[float | None]] = {r.label: [] for r in runners}
            end_s = time.monotonic() + args.limit
            for number_ in range(rounds):
                if time.monotonic() > end_s:
                    say(f"time limit: {number_} of {rounds} rounds")
                    break
                for runner in sorted(runners, key=lambda r: r.ripe_s):
                    if runner.label in gave_up:
                        continue
                    if runner.contestant.name == "monit" and number_ >= args.monit_rounds:
                        continue
                    try:
                        times[runner.label].append(runner.kill())
                    except BenchError as error:
                        say(str(error))
                        gave_up.add(runner.label)
                        times[runner.label].append(None)
        finally:
            for runner in runners:
                runner.contestant.stop()
    report.raw = {"ms": times}
    report.tables.append(table(times, left_out, args.start_delay_ms))
    report.publish(args)


if __name__ == "__main__":
    main()
