"""What everup.tolerate costs per call: against a closure written by hand, and against its peers.

    python3 -m venv ~/.cache/everup-bench/tolerate
    ~/.cache/everup-bench/tolerate/bin/pip install tenacity stamina backoff pybreaker aiobreaker \\
        circuitbreaker purgatory hyx pyresilience
    .venv/bin/python bench/tolerate.py
    .venv/bin/python bench/tolerate.py --python ~/.cache/everup-bench/tolerate-3.13/bin/python

It runs in that environment when it is there, else without peers. Each row is one scenario. A
round goes through all rows in random order, and in each through its contestants in random order:
five batches of calls each, of which the quickest counts. What is shown is the median of the rounds
in ns per call, loop included; ratios are medians of the rounds' ratios. The collector is on; what
was there before is frozen, so that nobody pays for the modules of others.
"""

import argparse
import asyncio
import compileall
import contextlib
import gc
import itertools
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _tolerate_ideal as ideal
from _common import HERE, BenchError, Report, Table, parser, say, shuffled, wanted
from _tolerate_peers import LIBRARIES, Wrap, load

ROUNDS, QUICK = 60, 12
BATCHES, BATCH_NS = 5, 800_000
SOURCE = HERE.parent / "src"
HOME = Path.home() / ".cache" / "everup-bench" / "tolerate"
IMPORT_GOAL_MS = 30.0
PEER_GOAL = 3.0
clock = time.perf_counter_ns


# --- what is called ---------------------------------------------------------------------------


def good(x: int) -> int:
    return x


async def good_async(x: int) -> int:
    return x


def bad(x: int) -> int:
    raise ValueError


async def bad_async(x: int) -> int:
    raise ValueError


def counting(call: Any) -> tuple[Any, list[int]]:
    """The same, and how often it was called."""
    calls = [0]
    if asyncio.iscoroutinefunction(call):

        async def counted_async(x: int) -> Any:
            calls[0] += 1
            return await call(x)

        return counted_async, calls

    def counted(x: int) -> Any:
        calls[0] += 1
        return call(x)

    return counted, calls


# --- scenarios --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """``ratio``: at most so many times the closure by hand. ``ns``: at most so long."""

    ratio: float = 0.0
    ns: float = 0.0

    def text(self) -> str:
        if self.ratio:
            return f"<= {self.ratio:g} x ideal"
        return f"<= {self.ns:g} ns" if self.ns else ""

    def met(self, ratio: float, ns: float) -> str:
        if not (self.ratio or self.ns):
            return ""
        return "yes" if (ratio <= self.ratio if self.ratio else ns <= self.ns) else "NO"


@dataclass(frozen=True)
class Row:
    name: str
    key: str
    """Which policy: the name of its closure and that of the peers' entries."""
    fails: bool = False
    calls: int = 1
    """How often the function is called for one guarded call."""
    free_sleep: bool = False
    """``time.sleep`` does nothing: some libraries call it for a wait of 0, which costs more than
    all else (the kernel rounds up)."""
    goal: Goal = field(default=Goal())

    @property
    def is_async(self) -> bool:
        return self.key.endswith("_async")

    @property
    def function(self) -> Any:
        if self.is_async:
            return bad_async if self.fails else good_async
        return bad if self.fails else good

    @property
    def opens(self) -> bool:
        """The contestant shall reject: it fails until it does."""
        return self.calls == 0


TWICE = Goal(ratio=2.0)
FAILURES = Goal(ns=5000)
ROWS = (
    Row("retry, success, sync", "retry", goal=TWICE),
    Row("retry, success, async", "retry_async", goal=TWICE),
    Row("retry, 3 failures, no wait, sync", "retry", True, 3, goal=FAILURES),
    Row("the same, time.sleep made free", "retry", True, 3, True, goal=FAILURES),
    Row("retry, 3 failures, no wait, async", "retry_async", True, 3),
    Row("retry and budget, success, sync", "budget", goal=TWICE),
    Row("retry and budget, success, async", "budget_async", goal=TWICE),
    Row("retry and budget, 3 failures, sync", "budget", True, 3, True, goal=FAILURES),
    Row("retry and budget, 3 failures, async", "budget_async", True, 3),
    Row("breaker (row) closed, sync", "breaker"),
    Row("breaker (row) closed, async", "breaker_async"),
    Row("breaker (100 calls, slow) closed, sync", "window", goal=Goal(ns=450)),
    Row("breaker (100 calls, slow) closed, async", "window_async"),
    Row("breaker open, rejection, sync", "breaker", True, 0, goal=TWICE),
    Row("breaker open, rejection, async", "breaker_async", True, 0, goal=TWICE),
    Row("timeout, sync, cooperative", "timeout"),
    Row("timeout, sync, in a thread", "thread"),
    Row("timeout, async", "timeout_async", goal=Goal(ratio=1.5)),
    Row("bulkhead, sync", "bulkhead", goal=TWICE),
    Row("bulkhead, async", "bulkhead_async", goal=TWICE),
    Row("rate limit, sync", "rate"),
    Row("rate limit, async", "rate_async"),
    Row("adaptive limit, sync", "limit"),
    Row("adaptive limit, async", "limit_async"),
    Row("hedge, first in time, async", "hedge_async"),
    Row("retry + breaker + timeout, sync", "pipeline"),
    Row("retry + breaker + timeout, async", "pipeline_async", goal=Goal(ns=2000)),
    Row("the three and metrics, sync", "metered"),
    Row("the three and metrics, async", "metered_async", goal=Goal(ns=3000)),
)


def ours() -> dict[str, Wrap]:
    """everup's policies, set up as the closures by hand."""
    from everup.tolerate import (
        Breaker,
        Bulkhead,
        CountWindow,
        Hedge,
        Limit,
        Meter,
        Pipeline,
        RateLimit,
        Retry,
        RetryBudget,
        Timeout,
    )

    def retry() -> Retry:
        return Retry(attempts=ideal.ATTEMPTS, backoff=0.0)

    def three() -> tuple[Any, ...]:
        return retry(), Breaker(), Timeout(ideal.TIMEOUT_S)

    window = CountWindow(
        ideal.SIZE, ideal.RATE, ideal.LEAST, slow_s=ideal.SLOW_S, slow_rate=ideal.RATE
    )
    found: dict[str, Wrap] = {
        "retry": lambda call: retry()(call),
        "budget": lambda call: Retry(
            attempts=ideal.ATTEMPTS, backoff=0.0, budget=RetryBudget(floor_per_s=ideal.MANY)
        )(call),
        "breaker": lambda call: Breaker()(call),
        "window": lambda call: Breaker(trip=window)(call),
        "timeout": lambda call: Timeout(ideal.TIMEOUT_S)(call),
        "bulkhead": lambda call: Bulkhead(ideal.PLACES, ideal.QUEUE)(call),
        "rate": lambda call: RateLimit(ideal.MANY)(call),
        "limit": lambda call: Limit()(call),
        "pipeline": lambda call: Pipeline(*three())(call),
        "metered": lambda call: Pipeline(Meter(), *three())(call),
    }
    found |= {f"{key}_async": wrap for key, wrap in found.items()}
    found["thread"] = lambda call: Timeout(ideal.TIMEOUT_S, thread=True)(call)
    found["hedge_async"] = lambda call: Hedge(ideal.TIMEOUT_S)(call)
    return found


Contestants = dict[str, Wrap]


def contestants(row: Row, mine: dict[str, Wrap], peers: dict[str, dict[str, Wrap]]) -> Contestants:
    found: Contestants = {
        "bare": lambda call: call,
        "ideal": getattr(ideal, row.key),
        "everup": mine[row.key],
    }
    if row.key.startswith("pipeline"):
        found["ideal, nested"] = getattr(ideal, row.key.replace("pipeline", "nested"))
    for name, policies in peers.items():
        if row.key in policies:
            found[name] = policies[row.key]
    return found


# --- measuring --------------------------------------------------------------------------------


@contextlib.contextmanager
def sleep_is_free(free: bool) -> Iterator[None]:
    kept = time.sleep
    if free:
        time.sleep = lambda seconds: None
    try:
        yield
    finally:
        time.sleep = kept


async def once(guarded: Any, is_async: bool) -> BaseException | None:
    try:
        got = guarded(1)
        if is_async:
            await got
    except Exception as error:
        return error
    return None


async def build(row: Row, name: str, wrap: Wrap) -> Any:
    """The guarded function, after a look whether it does what the row says: the number of calls
    that it makes, and whether it raises."""
    for function, calls in (counting(row.function), (row.function, None)):
        guarded = wrap(function)
        if row.opens and name != "bare":
            for _ in range(50):
                await once(guarded, row.is_async)
        if calls is None:
            return guarded
        before = calls[0]
        error = await once(guarded, row.is_async)
        made, expected = calls[0] - before, 1 if name == "bare" else row.calls
        if made != expected or (error is not None) != row.fails:
            raise BenchError(f"{row.name}: {name} made {made} calls and raised {error!r}")
    raise AssertionError


def batch(guarded: Any, n: int, fails: bool) -> int:
    turns = itertools.repeat(None, n)
    if fails:
        began = clock()
        for _ in turns:
            try:
                guarded(1)
            except Exception:
                pass
        return clock() - began
    began = clock()
    for _ in turns:
        guarded(1)
    return clock() - began


async def batch_async(guarded: Any, n: int, fails: bool) -> int:
    turns = itertools.repeat(None, n)
    if fails:
        began = clock()
        for _ in turns:
            try:
                await guarded(1)
            except Exception:
                pass
        return clock() - began
    began = clock()
    for _ in turns:
        await guarded(1)
    return clock() - began


async def run(row: Row, guarded: Any, n: int) -> int:
    if not row.is_async:
        return batch(guarded, n, row.fails)
    took = await batch_async(guarded, n, row.fails)
    for _ in range(3):  # the loop tidies up, and its timers
        await asyncio.sleep(0)
    return took


async def calibrate(row: Row, guarded: Any) -> int:
    n = 4
    while (took := await run(row, guarded, n)) < BATCH_NS / 4 and n < 100_000:
        n *= 2
    return max(4, int(n * BATCH_NS / took))


Times = dict[str, list[float]]


@dataclass
class Field:
    """A row with its contestants: the guarded functions, calls in a batch, and ns per call."""

    row: Row
    guarded: dict[str, Any]
    sizes: dict[str, int]
    took: Times

    @classmethod
    async def of(cls, row: Row, entries: Contestants) -> "Field":
        with sleep_is_free(row.free_sleep):
            guarded = {name: await build(row, name, wrap) for name, wrap in entries.items()}
            sizes = {name: await calibrate(row, call) for name, call in guarded.items()}
        return cls(row, guarded, sizes, {name: [] for name in entries})

    async def round(self, rng: random.Random) -> None:
        gc.collect()
        with sleep_is_free(self.row.free_sleep):
            for name in shuffled(list(self.guarded), rng):
                call, n = self.guarded[name], self.sizes[name]
                batches = [await run(self.row, call, n) for _ in range(BATCHES)]
                self.took[name].append(min(batches) / n)


def ratio(over: list[float], under: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


# --- importing --------------------------------------------------------------------------------

BARE = "bare"
MODULES = {
    BARE: "pass",
    "everup.tolerate": "import everup.tolerate",
    "everup.tolerate, four policies": (
        "from everup.tolerate import Breaker, Pipeline, Retry, Timeout"
    ),
    "everup.tolerate, every name": "from everup.tolerate import *",
    "asyncio": "import asyncio",
    **{name: f"import {name}" for name in LIBRARIES},
    "hyx": "import hyx.bulkhead, hyx.circuitbreaker, hyx.ratelimit, hyx.retry, hyx.timeout",
}


@contextlib.contextmanager
def compiled() -> Iterator[dict[str, str]]:
    """The environment of a user: everup's bytecode is there. In a copy, as nothing is written into
    the sources here."""
    with tempfile.TemporaryDirectory(prefix="everup-bench-") as home:
        target = Path(home) / "everup"
        target.mkdir()
        shutil.copy(SOURCE / "everup" / "__init__.py", target)
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SOURCE / "everup" / "tolerate", target / "tolerate", ignore=leave)
        compileall.compile_dir(home, quiet=2)
        yield {**os.environ, "PYTHONPATH": home}


def start(code: str, env: dict[str, str]) -> tuple[float, float]:
    """ms that an interpreter takes to run this: on the clock, and of CPU."""
    began, before = clock(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, check=False
    )
    took, after = (clock() - began) / 1e6, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise BenchError(done.stderr.strip().rpartition("\n")[2])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, cpu * 1e3


def modules(code: str, env: dict[str, str]) -> int:
    count = subprocess.run(
        [sys.executable, "-P", "-c", f"{code}\nimport sys; print(len(sys.modules))"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(count.stdout)


Imports = dict[str, list[tuple[float, float]]]


def imports(rounds: int, rng: random.Random) -> tuple[Table, Imports]:
    table = Table(
        "Import, ms over a bare interpreter",
        ["import", "CPU", "wall", "modules", "goal", "met"],
    )
    took: Imports = {}
    missing = []
    with compiled() as env:
        for name, code in MODULES.items():
            try:
                start(code, env)
            except BenchError:
                missing.append(name)
            else:
                took[name] = []
        for _ in range(rounds):
            for name in shuffled(list(took), rng):
                took[name].append(start(MODULES[name], env))
        sizes = {name: modules(MODULES[name], env) for name in took}

    def middle(name: str, which: int) -> float:
        return statistics.median(pair[which] for pair in took[name])

    for name in took:
        wall, cpu = (middle(name, which) - middle(BARE, which) for which in (0, 1))
        cells = [name, f"{cpu:.1f}", f"{wall:.1f}", str(sizes[name] - sizes[BARE])]
        if name.startswith("everup"):
            met = "yes" if cpu < IMPORT_GOAL_MS else "NO"
            table.rows.append([*cells, f"< {IMPORT_GOAL_MS:g} ms", met])
        elif name != BARE:
            table.rows.append([*cells, "", ""])
    for name in missing:
        table.missing(name, "not installed")
    table.note = (
        f"The bare interpreter: {middle(BARE, 1):.1f} ms of CPU, {middle(BARE, 0):.1f} ms wall. "
        f"Medians of {rounds} rounds, bytecode compiled before."
    )
    return table, took


# --- the program ------------------------------------------------------------------------------


def tables(results: dict[Row, Times], installed: list[str]) -> list[Table]:
    main = Table(
        "Overhead, ns per call",
        [
            "scenario",
            "bare",
            "ideal",
            "everup",
            "x ideal",
            "goal",
            "met",
            "best peer",
            "its ns",
            "x everup",
            f">= {PEER_GOAL:g} x",
        ],
    )
    peers = Table("Peers, ns per call", ["scenario", "everup", *installed])
    nested = []
    for row, took in results.items():
        median = {name: statistics.median(values) for name, values in took.items()}
        mine = ratio(took["everup"], took["ideal"])
        cells = [row.name, *(f"{median[name]:.0f}" for name in ("bare", "ideal", "everup"))]
        cells += [f"{mine:.2f}", row.goal.text(), row.goal.met(mine, median["everup"])]
        others = [name for name in installed if name in took]
        if others:
            best = min(others, key=median.__getitem__)
            times = ratio(took[best], took["everup"])
            cells += [best, f"{median[best]:.0f}", f"{times:.1f}"]
            least = ratio(took[best], took["ideal"])
            short = "NO" if least >= PEER_GOAL else f"NO (ideal {least:.1f})"
            cells.append("yes" if times >= PEER_GOAL else short)
            peers.rows.append(
                [row.name, f"{median['everup']:.0f}"]
                + [f"{median[name]:.0f}" if name in took else "" for name in installed]
            )
        else:
            cells += ["none", "", "", ""]
        main.rows.append(cells)
        if "ideal, nested" in median:
            nested.append(f"{row.name} {median['ideal, nested']:.0f} ns")
    if nested:
        main.note = f"Three closures by hand inside each other: {', '.join(nested)}."
    return [main, *([peers] if peers.rows else [])]


def elsewhere(args: argparse.Namespace) -> int | None:
    """Run in the interpreter that has the peers; None: this is it."""
    if args.here:
        return None
    program = Path(args.python).expanduser() if args.python else HOME / "bin" / "python"
    if not program.exists():
        if args.python:
            raise SystemExit(f"there is no {args.python}")
        say("no environment with the peers: everup alone (see --help)")
        program = Path(sys.executable)
    paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [str(program), str(HERE / "tolerate.py"), *sys.argv[1:], "--here"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        check=False,
    ).returncode


async def rows(args: argparse.Namespace, report: Report, rounds: int) -> list[Table]:
    rng = random.Random(args.seed)
    peers, report.versions = load()
    report.versions["everup"] = __import__("everup").__version__
    missing = [name for name, version in report.versions.items() if version == "not installed"]
    if missing:
        say(f"not installed: {', '.join(missing)}")
    mine = ours()
    fields = [
        await Field.of(row, contestants(row, mine, peers))
        for row in ROWS
        if wanted(row.name, args.only)
    ]
    gc.collect()
    gc.freeze()
    for number in range(rounds):
        if time.monotonic() - report.started_s > args.limit:
            say(f"out of time after {number} rounds")
            break
        for one in shuffled(fields, rng):
            await one.round(rng)
    gc.unfreeze()
    results = {one.row: one.took for one in fields}
    for row, took in results.items():
        times = ", ".join(f"{name} {statistics.median(t):.0f}" for name, t in took.items())
        say(f"{row.name}: {times}")
    report.raw["ns"] = {row.name: took for row, took in results.items()}
    return tables(results, list(peers)) if results else []


def main() -> None:
    p = parser(__doc__, rounds=ROUNDS, limit_s=1500)
    p.add_argument("--python", metavar="PATH", help="interpreter to run in")
    p.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = p.parse_args()
    if (code := elsewhere(args)) is not None:
        sys.exit(code)
    rounds = args.rounds or (QUICK if args.quick else ROUNDS)
    report = Report("tolerate", {**vars(args), "rounds": rounds})
    try:
        found = asyncio.run(rows(args, report, rounds))
        if wanted("import", args.only):
            table, raw = imports(max(5, rounds // 2), random.Random(args.seed))
            report.raw["import_ms"] = raw
            found.append(table)
    except BenchError as error:
        sys.exit(str(error))
    if not found:
        sys.exit(f"no scenario of that name: {args.only}")
    peers = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    found[0].note = " ".join(
        part
        for part in (
            f"CPython {report.before['python']}, median of {rounds} rounds; {peers}.",
            found[0].note,
        )
        if part
    )
    report.tables = found
    report.publish(args)


if __name__ == "__main__":
    main()
