"""What a restart or a deploy costs the clients: requests lost while every process is replaced.

One client (bench/load.py, open-loop, a process of its own) opens 500 new connections per second and
keeps 50 more open with a request each every 100 ms, and the service is restarted 20 times under it,
each time when the one before is over. Everyone serves the same answer from two processes (one where
the row says so): bench/webapp.py under uvicorn, or gunicorn's threads, or bench/webapp.js for PM2.

  failed      requests without a whole answer: refused / reset / timed out (5 s) / cut short / wrong
  retried     sent once more, because the server closed a kept connection just when a request was
              sent on it: HTTP clients do that by themselves (RFC 9110, 9.2.2). Not in "failed",
              unless the second try failed too
  p99, max    latency from the instant when the request was due
  late        how late the client itself was, at most: its part of the latency on a busy machine
  s           from the command until every old process has ended and the new ones are there

The broken deploy: the command is changed to one that ends with status 1.
"""

import contextlib
import json
import random
import subprocess
import sys
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

from _common import (
    HERE,
    BenchError,
    Report,
    Stats,
    Table,
    free_ports,
    number,
    parser,
    say,
    shuffled,
    wait_for,
    wanted,
    workshop,
)
from _contestants import Service
from _deployed import Deployed, EverupBroken, contestants

RATE = 500
KEPT = 50
CASE_S = 400.0  # no further restart after that
REPLACED_S = 60.0
PAUSE_S = 0.3
KINDS = ("refused", "reset", "timed_out", "cut", "wrong")


class Load:
    """The client; ends with the block, and by itself if this process dies."""

    def __init__(self, port: int) -> None:
        argv = [sys.executable, "-I", "-S", str(HERE / "load.py"), str(port)]
        argv += [f"--rate={RATE}", f"--kept={KEPT}", f"--limit={CASE_S + 200}"]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.read()

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def stop(self) -> dict[str, Any]:
        self.process.terminate()
        return self.read()


# --- measuring -------------------------------------------------------------------------------


def answer(port: int) -> str | None:
    """The version that is served."""
    url = f"http://127.0.0.1:{port}/"
    with (
        contextlib.suppress(OSError, ValueError, IndexError),
        urllib.request.urlopen(url, timeout=2) as reply,
    ):
        return str(reply.read().split()[1].decode())
    return None


def run(contestant: Deployed, place: Path, restarts: int) -> dict[str, Any]:
    """Start it, restart it so often under the load, and end it."""
    (port,) = free_ports(1)
    seconds: list[float] = []
    back: list[bool] = []
    broken = isinstance(contestant, EverupBroken)

    def serving() -> bool:
        contestant.check()
        return len(contestant.workers()) == contestant.count and answer(port) is not None

    try:
        contestant.start(place, [Service("web", (), port)])
        wait_for(f"{contestant.label} serves", serving)
        end_s = time.monotonic() + CASE_S
        with Load(port) as load:
            time.sleep(1)
            for step in range(1, restarts + 1):
                if time.monotonic() > end_s:
                    say(f"{contestant.label}: {step - 1} of {restarts} restarts in {CASE_S:g} s")
                    break
                before = contestant.workers()
                began_s = time.monotonic()
                contestant.deploy(step)
                if isinstance(contestant, EverupBroken):
                    back.append(contestant.rolled_back())
                else:
                    wait_for(
                        f"{contestant.label}: all replaced",
                        partial(replaced, contestant, before),
                        REPLACED_S,
                    )
                seconds.append(time.monotonic() - began_s)
                if not broken and (version := answer(port)) != contestant.serves(step):
                    raise BenchError(f"{contestant.label} serves {version} after step {step}")
                time.sleep(PAUSE_S)
            found = load.stop()
    finally:
        contestant.stop()
    found["failed"] = sum(found[kind] for kind in KINDS)
    found["processes"] = len(found.pop("answers"))
    found["restart_s"] = [round(value, 3) for value in seconds]
    if isinstance(contestant, EverupBroken):
        found |= {"rolled_back": back, "status": contestant.statuses, "told": contestant.told}
    return found


def replaced(contestant: Deployed, before: set[int]) -> bool:
    now = contestant.workers()
    return len(now) == contestant.count and not now & before


HEADERS = ["restarts", "sent", "failed", "refused / reset / timed out / cut / wrong", "retried"]
HEADERS += ["p99 ms", "max ms", "late ms"]


def cells(result: dict[str, Any]) -> list[str]:
    return [
        str(len(result["restart_s"])),
        str(result["sent"]),
        str(result["failed"]),
        " / ".join(str(result[kind]) for kind in KINDS),
        str(result["retried"]),
        number(result["latency_ms"]["p99"], 1),
        number(result["latency_ms"]["max"], 0),
        number(result["lag_ms"]["max"], 0),
    ]


def tables(
    chosen: list[Deployed], results: dict[str, dict[str, Any]], left: dict[str, str]
) -> list[Table]:
    load = f"{RATE} new connections per second and {KEPT} kept ones"
    deploys = Table(f"Restarts under {load}", ["", *HEADERS, "s med", "p95", "max"])
    broken = Table(f"A broken deploy under {load}", ["", *HEADERS, "rolled back", "told"])
    for contestant in chosen:
        table = broken if isinstance(contestant, EverupBroken) else deploys
        result = results.get(contestant.label)
        if result is None:
            table.missing(contestant.label, left.get(contestant.label, "no run"))
        elif table is deploys:
            row = [contestant.label, *cells(result)]
            table.rows.append([*row, *Stats.of(result["restart_s"]).cells(1)])
        else:
            told = [
                status != 0 and "roll" in text.lower()
                for status, text in zip(result["status"], result["told"], strict=True)
            ]
            row = [contestant.label, *cells(result)]
            table.rows.append([*row, yes(result["rolled_back"]), yes(told)])
    return [table for table in (deploys, broken) if table.rows]


def yes(each: list[bool]) -> str:
    return "yes" if each and all(each) else f"{sum(each)} of {len(each)}"


def main() -> None:
    p = parser(__doc__, rounds=1, limit_s=2400)
    p.add_argument("--restarts", type=int, help="of each contestant (default 20, quick 3)")
    args = p.parse_args()
    restarts = args.restarts or (3 if args.quick else 20)
    options = {"restarts": restarts, "rate": RATE, "kept": KEPT}
    report = Report("deploy", options)
    chosen = [c for c in contestants() if wanted(c.label, args.only)]
    results: dict[str, dict[str, Any]] = {}
    left: dict[str, str] = {}
    end_s = time.monotonic() + args.limit
    with workshop() as home:
        for index, contestant in enumerate(shuffled(chosen, random.Random(args.seed))):
            if why := contestant.missing():
                left[contestant.label] = why
                continue
            if time.monotonic() > end_s:
                say(f"time limit: without {contestant.label}")
                continue
            report.versions.setdefault(contestant.name, contestant.version())
            try:
                results[contestant.label] = run(contestant, home / str(index), restarts)
            except (BenchError, OSError, ValueError, subprocess.SubprocessError) as error:
                say(f"{contestant.label}: {error}")
                left[contestant.label] = "did not run"
    report.raw = {"runs": results, "left_out": left}
    report.tables = tables(chosen, results, left)
    report.publish(args)


if __name__ == "__main__":
    main()
