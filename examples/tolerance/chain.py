"""Chain amplification: when every service in a chain retries, the last one pays for all of them.

    python examples/tolerance/chain.py [--svg FILE] [--seed N]

M. Brooker, "Timeouts, retries, and backoff with jitter" (Amazon Builders' Library): a call passes
five services and ends at a database that fails; each tries three times; the database gets
3 x 3 x 3 x 3 x 3 = 243 calls for one. Here the services are guarded by ``everup.tolerate``, on a
virtual clock: by ``Retry`` alone, and in the ways that keep it from multiplying.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from random import Random
from typing import Any, NamedTuple

from _plot import BLUE, GREEN, ORANGE, RED, VIOLET, Axis, Line, Lines, arguments, figure, table

from everup.tolerate.budget import RetryBudget
from everup.tolerate.deadline import Deadline, headers, parse_grpc_timeout
from everup.tolerate.errors import DeadlineExceeded
from everup.tolerate.retry import Retry
from everup.tolerate.testing import FakeClock

DEPTHS = (1, 2, 3, 4, 5)
ATTEMPTS = 3
RATIO = 0.2
"""Of every budget: the library's default. No floor, which would hide the ratio at this rate."""
DEADLINE_S = 1.0
FAILS_AFTER_S = 0.1
PER_S = 100.0
"""Requests that enter the chain."""

Call = Callable[[], Coroutine[Any, Any, None]]
COLOURS = {
    "every service retries": RED,
    "with a budget in each service": ORANGE,
    "with one budget for all": VIOLET,
    "with a deadline that is passed on": GREEN,
    "only the first service retries": BLUE,
}
EVERY, BUDGETS, BUDGET, DEADLINE, FIRST = WAYS = tuple(COLOURS)
REQUESTS = {EVERY: 50, BUDGETS: 2000, BUDGET: 2000, DEADLINE: 200, FIRST: 200}
"""A budget takes some time to run dry; everything else does the same with every request."""


class Chain(NamedTuple):
    """For one request that enters the chain, in the mean: calls that reach its end, and seconds
    until its caller knows that it failed."""

    calls: float
    waits_s: float


class Down(Exception):  # noqa: N818 - what the database says
    """The end of the chain fails."""


def chain(way: str, depth: int, seed: int = 1) -> Chain:
    """So many services in a row, before a database that fails."""
    clock = FakeClock(start=0.0)
    clock.random = Random(seed).random
    requests = REQUESTS[way]
    calls = 0
    waited_s = 0.0
    shared = RetryBudget(RATIO, 0.0, clock=clock)

    async def database() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(FAILS_AFTER_S)
        raise Down

    def budget() -> RetryBudget | None:
        if way == BUDGETS:
            return RetryBudget(RATIO, 0.0, clock=clock)
        return shared if way == BUDGET else None

    def service(call: Call, first: bool) -> Call:
        attempts = ATTEMPTS if first or way != FIRST else 1
        guarded = Retry(attempts=attempts, budget=budget(), clock=clock)(call)
        return remote(guarded, clock) if way == DEADLINE and not first else guarded

    call: Call = database
    for level in reversed(range(depth)):
        call = service(call, first=level == 0)
    if way == DEADLINE:
        call = Deadline(DEADLINE_S, clock=clock)(call)

    async def request() -> None:
        nonlocal waited_s
        began = clock.now()
        try:
            await call()
        except (Down, DeadlineExceeded):
            waited_s += clock.now() - began

    async def world() -> None:
        async with asyncio.TaskGroup() as under_way:
            for _ in range(requests):
                under_way.create_task(request())
                await asyncio.sleep(1 / PER_S)

    clock.run(world())
    return Chain(calls / requests, waited_s / requests)


def remote(call: Call, clock: FakeClock) -> Call:
    """``call`` in another process: it knows nothing of its caller but the header that is sent."""

    async def serve(timeout: str) -> None:
        async with Deadline(parse_grpc_timeout(timeout), clock=clock):
            await call()

    async def ask() -> None:
        timeout = headers()["grpc-timeout"]
        await asyncio.get_running_loop().create_task(serve(timeout), context=Context())

    return ask


def plot(ours: dict[str, list[Chain]]) -> str:
    x = Axis("services in the chain", 0.8, 5.2, DEPTHS)
    most = Axis("logarithmic", 1, 300, (1, 3, 9, 27, 81, 243), log=True)
    long = Axis("logarithmic", 0.1, 100, (0.1, 1, 10, 100), log=True)
    calls = [
        Line(way, [(d, run.calls) for d, run in zip(DEPTHS, runs, strict=True)], COLOURS[way], True)
        for way, runs in ours.items()
    ]
    waits = [
        Line(way, [(d, r.waits_s) for d, r in zip(DEPTHS, runs, strict=True)], COLOURS[way], True)
        for way, runs in ours.items()
    ]
    return figure(
        "What one request costs when the end of the chain fails",
        [
            Lines("Calls that reach the end", x, most, calls),
            Lines("Seconds until the caller knows", x, long, waits),
        ],
    )


def main() -> None:
    """Print the table, and write the plot where one is asked for."""
    options = arguments("retries in every service of a chain")
    ours = {way: [chain(way, depth, options.seed) for depth in DEPTHS] for way in WAYS}
    head = ["calls at the end, for one", *(f"{depth} deep" for depth in DEPTHS), "caller waits"]
    rows = [["every service, published", *(str(ATTEMPTS**depth) for depth in DEPTHS), ""]]
    for way, runs in ours.items():
        rows.append([way, *(f"{run.calls:.2f}" for run in runs), f"{runs[-1].waits_s:.2f} s"])
    print(table(head, rows))
    if options.svg:
        options.svg.write_text(plot(ours), encoding="utf-8")


if __name__ == "__main__":
    main()
