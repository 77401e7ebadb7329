"""How long `everup report` takes over a long journal: a year of 100 services by default.

    python bench/report.py                       a year, 100 services
    python bench/report.py --services 20 --days 90
    python bench/report.py --keep DIR            leave the journal there, to look at it

Makes a journal with a seeded generator, in the journal's own format and with all kinds of events
that the engine writes; then runs the command from scratch, again with its checkpoint, and once
more after a further day of events. Each is a whole process: start of the interpreter, imports and
output are in the time, and the peak of its memory is the kernel's.
"""

import argparse
import heapq
import itertools
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from everup.adapters import _journal_file as files

DAY_S = 86400.0
BOOT = "5e9c2f6a-0c1b-4f43-9f2d-2f3f5f0c7f11"
Event = tuple[float, str, str, dict[str, Any]]


class Service:
    """One service: fails about once a day, is deployed weekly; one in ten crashes in loops for
    hours, every other month."""

    def __init__(self, rng: random.Random, name: str, replicas: int, loops: bool) -> None:
        self.rng, self.name, self.loops = rng, name, loops
        self.probed = rng.random() < 0.7
        self.slots = [f"{name}.{n}" for n in range(1, replicas + 1)]
        self.runs = dict.fromkeys(self.slots, 0)
        self.gen = 0

    def events(self, end: float) -> Iterator[Event]:
        rng, now = self.rng, rng_start(self.rng)
        for slot in self.slots:
            yield from self._start(now, slot)
            now += 0.2
        deploy = now + rng.uniform(0, 7 * DAY_S)
        while now < end:
            fails = now + rng.expovariate(1 / DAY_S)
            if deploy < fails:
                now = max(now, deploy)
                for event in self._deploy(now):
                    yield event
                    now = event[0]
                deploy += 7 * DAY_S
                continue
            if fails >= end:
                return
            now = fails
            slot = rng.choice(self.slots)
            if self.loops and rng.random() < 1 / 60:
                until = now + rng.uniform(1, 4) * 3600
                while now < until:
                    for event in self._crash(now, slot, rng.choice((30.0, 60.0))):
                        yield event
                        now = event[0]
                    now += rng.uniform(0.1, 3.0)
            else:
                failing = self._hang if self.probed and rng.random() < 0.3 else self._crash
                for event in failing(now, slot, 0.0):
                    yield event
                    now = event[0]

    def _start(self, now: float, slot: str) -> Iterator[Event]:
        self.runs[slot] += 1
        run, rng = self.runs[slot], self.rng
        lane = int(slot.rpartition(".")[2])
        yield now, "instance.starting", slot, {"run": run, "lane": lane, "gen": self.gen}
        now += rng.uniform(0.002, 0.01)
        pid = rng.randrange(1000, 4_000_000)
        facts = {"start": rng.randrange(10**9), "leader": pid, "cgroup": True,
                 "pipes": [rng.randrange(10**7), rng.randrange(10**7)]}  # fmt: skip
        yield now, "instance.spawned", slot, {
            "run": run, "pid": pid, "lane": lane, "gen": self.gen, "restarts": run - 1, **facts,
        }  # fmt: skip
        if self.probed:
            yield now, "instance.running", slot, {"run": run}
            now += rng.lognormvariate(0.0, 0.7)
        took = {"took_s": 0.0123} if not self.probed else {}
        yield now, "instance.ready", slot, {"run": run, **took}
        yield now, "balance.changed", self.name, {"replicas": [lane], "lanes": [lane]}

    def _crash(self, now: float, slot: str, delay: float) -> Iterator[Event]:
        run = self.runs[slot]
        code = self.rng.choice((1, 1, 3, 139))
        yield now, "instance.exited", slot, {
            "run": run, "pid": 4711, "cause": f"exit {code}", "exit_kind": "code", "value": code,
            "up_s": 12345.6789,
        }  # fmt: skip
        if delay:
            yield now, "instance.parked", slot, {
                "run": run, "reason": f"exit {code}; still failing", "delay_s": delay, "attempt": 7,
            }  # fmt: skip
        yield now, "balance.changed", self.name, {"replicas": [1], "lanes": [1]}
        yield from self._start(now + delay + self.rng.uniform(0.001, 0.3), slot)
        if not delay:
            yield now + 40.0, "instance.stable", slot, {"run": self.runs[slot]}

    def _hang(self, now: float, slot: str, _delay: float) -> Iterator[Event]:
        run, reason = self.runs[slot], "liveness probe: no answer within 0.5 s"
        yield now, "instance.suspected", slot, {"run": run, "reason": reason}
        now += 2.0
        yield now, "instance.unhealthy", slot, {"run": run, "reason": reason}
        yield now, "instance.stopping", slot, {"run": run, "reason": reason}
        now += 0.05
        yield now, "instance.exited", slot, {
            "run": run, "pid": 4711, "cause": f"SIGKILL ({reason})", "exit_kind": "signal",
            "value": 9, "killed_for": reason, "up_s": 54321.1,
        }  # fmt: skip
        yield from self._start(now + 0.002, slot)

    def _deploy(self, now: float) -> Iterator[Event]:
        self.gen += 1
        yield now, "rollout.started", self.name, {
            "gen": self.gen, "how": "reload", "slots": self.slots, "batch": 1, "overlap": True,
            "by": "uid 0",
        }  # fmt: skip
        for slot in self.slots:
            old = self.runs[slot]
            yield now, "instance.outgoing", slot, {"run": old, "pid": 4711, "state": "ready"}
            for event in self._start(now, slot):
                yield event
                now = event[0]
            for kind in ("draining", "stopping", "signalled"):
                yield now, f"instance.{kind}", slot, {"run": old, "reason": "replaced"}
                now += 0.5
            yield now, "instance.exited", slot, {
                "run": old, "pid": 4711, "cause": "exit 0", "exit_kind": "code", "value": 0,
                "up_s": 600000.5,
            }  # fmt: skip
            yield now, "instance.stopped", slot, {"run": old, "reason": "replaced"}
        yield now, "rollout.done", self.name, {"gen": self.gen, "how": "reload", "took_s": 12.5}


def rng_start(rng: random.Random) -> float:
    return rng.uniform(1.0, 3.0)


def journal(path: Path, services: int, days: float, seed: int, every: bool = False) -> int:
    """Write it; returns the number of events. ``every``: all services crash in loops."""
    rng = random.Random(seed)
    lines = [
        Service(rng, f"service{n:03}", rng.choice((1, 1, 2, 3)), every or n % 10 == 0).events(
            days * DAY_S
        )
        for n in range(services)
    ]
    born = time.time() - days * DAY_S
    first: Event = (0.0, "engine.started", "everup", {"pid": 2, "keeper": 1, "takeover": False})
    merged = itertools.chain([first], heapq.merge(*lines, key=lambda event: event[0]))
    encode = json.JSONEncoder(separators=(",", ":")).encode
    rows = (
        (seq, born + at, 1000.0 + at, BOOT, kind, subject, encode(payload))
        for seq, (at, kind, subject, payload) in enumerate(merged, 1)
    )
    db = files.connect(path, print)
    with db:
        db.execute("BEGIN")
        db.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    (count,) = db.execute("SELECT count(*) FROM event").fetchone()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return int(count)


def one_more_day(path: Path) -> int:
    """The last day's events once more, a day later."""
    with sqlite3.connect(path) as db:
        last, moment = db.execute("SELECT max(seq), max(time) FROM event").fetchone()
        db.execute(
            "INSERT INTO event SELECT seq + (SELECT max(seq) - min(seq) + 1 FROM event "
            "WHERE time > ?), time + 86400, mono + 86400, boot, kind, subject, payload "
            "FROM event WHERE time > ?",
            (moment - DAY_S, moment - DAY_S),
        )
        (now,) = db.execute("SELECT max(seq) FROM event").fetchone()
    db.close()
    return int(now - last)


def run(words: list[str]) -> tuple[float, float]:
    """Seconds and MB of one process, output thrown away."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    began = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment)
    _pid, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    return took, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--days", type=float, default=365.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loops", action="store_true", help="all services crash in loops")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="a directory for the journal")
    arguments = parser.parse_args()
    directory = arguments.keep or Path(tempfile.mkdtemp(prefix="everup-report-"))
    state = directory / ".everup"
    state.mkdir(parents=True, exist_ok=True)
    config = directory / "everup.toml"
    names = [f"service{n:03}" for n in range(arguments.services)]
    config.write_text(
        "[defaults]\nslo = { objective = 99.9, window = '30d' }\n"
        + "".join(f"[service.{name}]\ncommand = ['true']\n" for name in names)
    )
    try:
        path = state / "journal.db"
        if not path.exists():
            count = journal(
                path, arguments.services, arguments.days, arguments.seed, arguments.loops
            )
            size_mb = path.stat().st_size / 1e6
            print(f"{count} events of {arguments.services} services, {size_mb:.0f} MB")
        command = [sys.executable, "-m", "everup.cli", "-c", str(config), "report"]
        year = ["--since", f"{arguments.days:g}d"]
        kinds = {
            "from scratch, whole time": (year, True),
            "from scratch, 30 days": (["--since", "30d"], True),
            "with its checkpoint, whole time": (year, False),
            "with its checkpoint, 30 days": (["--since", "30d"], False),
            "with its checkpoint, 30 days, HTML": (
                ["--since", "30d", "--html", str(directory / "report.html")], False,
            ),
        }  # fmt: skip
        run([*command, *year])
        for name, (words, scratch) in kinds.items():
            found = []
            for _ in range(arguments.rounds):
                if scratch:
                    (state / "history.json").unlink(missing_ok=True)
                found.append(run([*command, *words]))
            best, memory = min(found)[0], max(memory for _, memory in found)
            print(f"{name:38} {best:6.2f} s  {memory:6.0f} MB")
        more = one_more_day(path)
        took, memory = run([*command, "--since", "30d"])
        print(f"{f'after a further day ({more} events)':38} {took:6.2f} s  {memory:6.0f} MB")
        size_mb = (state / "history.json").stat().st_size / 1e6
        print(f"history.json: {size_mb:.1f} MB")
    finally:
        if arguments.keep is None:
            shutil.rmtree(directory)


if __name__ == "__main__":
    main()
