"""Hedging: ask a second time when the first answer is late, and take the one that comes first.

    python examples/tolerance/hedging.py [--svg FILE] [--seed N] [--calls N]

J. Dean, L. A. Barroso, "The Tail at Scale" (CACM 56(2), 2013): a second request after the 95th
percentile costs about 5 % more load and takes most of the tail away; and a request that needs a
hundred servers meets the tail nearly every time. Here one call in a hundred stalls, and calls are
guarded by ``everup.tolerate.Hedge``, which finds out the percentile itself, on a virtual clock.
"""

import asyncio
import math
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from _plot import BLUE, ORANGE, Axis, Line, Lines, arguments, figure, number, table

from everup.tolerate.hedge import Hedge
from everup.tolerate.testing import FakeClock

MEDIAN_S, SIGMA = 0.005, 0.35
STALLS = 0.01
STALL_S = (0.1, 1.0)
PERCENTILE = 0.95
FAN_OUT = 100
PER_S = 2000.0
"""Calls. How many hardly matters: the servers are never busy here."""


class Latencies(NamedTuple):
    """Seconds, one for each call, and how many copies were made for one call."""

    seconds: list[float]
    load: float

    def at(self, share: float) -> float:
        """The latency within which this share of the calls is answered."""
        return quantile(self.seconds, share)

    def fan_out(self, share: float) -> float:
        """The same for requests that wait for ``FAN_OUT`` calls. The calls do not depend on each
        other, so any ``FAN_OUT`` of them are one request."""
        return quantile(slowest(self.seconds), share)


class Tail(NamedTuple):
    """Milliseconds, and the additional load as a share."""

    p999: float
    fan_out_p50: float
    extra: float


PUBLISHED = {"once": Tail(916, 391, 0.0), "hedged": Tail(17, 14, 0.052)}


def quantile(values: Sequence[float], share: float) -> float:
    """By nearest rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def slowest(seconds: Sequence[float]) -> list[float]:
    """Of each ``FAN_OUT`` calls."""
    return [max(seconds[at : at + FAN_OUT]) for at in range(0, len(seconds) - FAN_OUT + 1, FAN_OUT)]


def latency_s(chance: Random) -> float:
    """Of one copy of a call."""
    body = MEDIAN_S * math.exp(SIGMA * chance.gauss(0.0, 1.0))
    return body + (chance.uniform(*STALL_S) if chance.random() < STALLS else 0.0)


def once(calls: int, seed: int = 1) -> Latencies:
    """Every call made once: nothing to simulate."""
    chance = Random(seed)
    return Latencies([latency_s(chance) for _ in range(calls)], 1.0)


def hedged(calls: int, seed: int = 1, fixed: bool = False) -> Latencies:
    """A second copy for calls that take longer than 95 % do: as measured on the last 400 calls, or
    after a ``fixed`` delay that is right."""
    chance, arrivals = Random(seed), Random(seed + 1)
    clock = FakeClock(start=0.0)
    seconds: list[float] = []
    copies = 0

    if fixed:
        hedge = Hedge(within(PERCENTILE), clock=clock)
    else:
        hedge = Hedge(0.010, percentile=PERCENTILE, clock=clock)

    @hedge
    async def ask() -> None:
        nonlocal copies
        copies += 1
        await asyncio.sleep(latency_s(chance))

    async def request() -> None:
        began = clock.now()
        await ask()
        seconds.append(clock.now() - began)

    async def world() -> None:
        async with asyncio.TaskGroup() as under_way:
            for _ in range(calls):
                under_way.create_task(request())
                await asyncio.sleep(arrivals.expovariate(PER_S))

    clock.run(world())
    return Latencies(seconds, copies / calls)


def tail(run: Latencies) -> Tail:
    return Tail(1000 * run.at(0.999), 1000 * run.fan_out(0.5), run.load - 1)


# -- what theory says of the same latencies, to compare with


def late(seconds: float) -> float:
    """The share of copies that take longer: the body's, or a stall on top of it."""

    def body(x: float) -> float:
        return 0.5 * math.erfc(math.log(x / MEDIAN_S) / SIGMA / math.sqrt(2)) if x > 0 else 1.0

    low, high = STALL_S
    steps = 200
    width = (high - low) / steps
    stalled = sum(body(seconds - low - (step + 0.5) * width) for step in range(steps)) / steps
    return (1 - STALLS) * body(seconds) + STALLS * stalled


def within(share: float, delay_s: float | None = None) -> float:
    """The latency that this share of calls keeps, hedged after ``delay_s`` or not at all: a hedged
    call is late when both of its copies are."""
    low, high = 0.0, 2.0
    while high - low > 1e-7:
        middle = (low + high) / 2
        both = late(middle) * (1.0 if delay_s is None else late(middle - delay_s))
        low, high = (middle, high) if both > 1 - share else (low, middle)
    return high


def theory() -> dict[str, Tail]:
    delay_s = within(PERCENTILE)
    most = 0.5 ** (1 / FAN_OUT)  # so many must be in time for the slowest of them to be, in half
    return {
        "once": Tail(1000 * within(0.999), 1000 * within(most), 0.0),
        "hedged": Tail(1000 * within(0.999, delay_s), 1000 * within(most, delay_s), 1 - PERCENTILE),
    }


def plot(asked_once: Latencies, learned: Latencies) -> str:
    x = Axis("milliseconds, logarithmic", 1, 2000, (1, 3, 10, 30, 100, 300, 1000), log=True)
    rare = Axis(
        "slower than that",
        1e-4,
        1,
        (1, 0.1, 0.01, 0.001, 0.0001),
        log=True,
        names=("100 %", "10 %", "1 %", "0.1 %", "0.01 %"),
    )
    half = Axis("slower than that", 0, 1, (0, 0.5, 1), names=("0 %", "50 %", "100 %"))
    calls, requests = [], []
    for label, run, colour in (
        ("asked once", asked_once, ORANGE),
        ("hedged at the 95th percentile", learned, BLUE),
    ):
        calls.append(Line(label, steps(run.seconds), colour))
        requests.append(Line(label, steps(slowest(run.seconds)), colour))
    return figure(
        "One call in a hundred stalls",
        [
            Lines("One call", x, rare, calls),
            Lines(f"A request that needs {FAN_OUT}", x, half, requests),
        ],
    )


def steps(seconds: Sequence[float], points: int = 120) -> list[tuple[float, float]]:
    """(milliseconds, share that is slower), evenly spaced on a logarithmic axis."""
    ordered = sorted(seconds)
    found, at = [], 0
    for point in range(points + 1):
        limit = 0.001 * 2000 ** (point / points)
        while at < len(ordered) and ordered[at] <= limit:
            at += 1
        found.append((1000 * limit, 1 - at / len(ordered)))
        if at == len(ordered):
            break
    return found


def main() -> None:
    """Print the table, and write the plot where one is asked for."""
    options = arguments("a second question when the first answer is late", calls=200_000)
    asked_once = once(5 * options.calls, options.seed)  # stalls are rare, and nothing is simulated
    learned = hedged(options.calls, options.seed)
    exact = theory()
    tails = {
        "once, published": PUBLISHED["once"],
        "once, theory": exact["once"],
        "once, here": tail(asked_once),
        "hedged, published": PUBLISHED["hedged"],
        "hedged, theory": exact["hedged"],
        "hedged, here, fixed delay": tail(hedged(options.calls, options.seed, fixed=True)),
        "hedged, here, own percentile": tail(learned),
    }
    rows = [
        [name, number(of.p999), number(of.fan_out_p50), f"{of.extra:.1%}"]
        for name, of in tails.items()
    ]
    print(table(["", "p99.9, ms", f"p50 of {FAN_OUT} at once, ms", "extra load"], rows))
    if options.svg:
        options.svg.write_text(plot(asked_once, learned), encoding="utf-8")


if __name__ == "__main__":
    main()
