"""Why waits need chance: a hundred clients that want to write the same thing.

    python examples/tolerance/jitter.py [--svg FILE] [--seed N] [--trials N]

The experiment of M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, March 2015.
Each client reads a version and writes back; the write wins if nobody else's came between, else the
client backs off and begins again. Messages take 10 ms, normally distributed with a deviation of
2 ms. Here the clients are guarded by ``everup.tolerate.Retry``, on a virtual clock.
"""

import asyncio
from random import Random
from typing import NamedTuple

from _plot import BLUE, Axis, Bar, Bars, arguments, figure, number, table

from everup.tolerate.backoff import Backoff, constant, decorrelated, equal, exponential, full
from everup.tolerate.retry import Retry
from everup.tolerate.testing import FakeClock

MEAN_S, DEVIATION_S = 0.010, 0.002
BASE_S, CAP_S = 0.005, 2.0
# Brooker's first wait is twice his base, except for the decorrelated one; here it is the base.
POLICIES: dict[str, Backoff] = {
    "none": constant(0.0),
    "exponential": exponential(2 * BASE_S, CAP_S),
    "equal": equal(2 * BASE_S, CAP_S),
    "full": full(2 * BASE_S, CAP_S),
    "decorrelated": decorrelated(BASE_S, CAP_S),
}


class Contention(NamedTuple):
    """``calls``: writes tried until all were through, which took ``done_ms``."""

    calls: float
    done_ms: float


PUBLISHED = {
    "none": Contention(2438, 2048),
    "exponential": Contention(1860, 63244),
    "equal": Contention(812, 6610),
    "full": Contention(797, 4962),
    "decorrelated": Contention(999, 4820),
}


class Conflict(Exception):  # noqa: N818 - what the server says
    """Somebody else's write came first."""


def contend(backoff: Backoff, clients: int = 100, seed: int = 1) -> Contention:
    """Let the clients begin together; until the last has won."""
    chance = Random(seed)
    clock = FakeClock(start=0.0)
    clock.random = chance.random
    version = calls = 0

    def delay_s() -> float:
        return abs(chance.normalvariate(MEAN_S, DEVIATION_S))

    @Retry(attempts=100_000, backoff=backoff, on=Conflict, clock=clock)
    async def update() -> None:
        nonlocal version, calls
        await asyncio.sleep(delay_s())  # the read, on its way there
        seen = version
        await asyncio.sleep(delay_s() + delay_s())  # its answer, and the write on its way there
        calls += 1
        won = seen == version
        if won:
            version += 1
        await asyncio.sleep(delay_s())
        if not won:
            raise Conflict

    async def everyone() -> None:
        await asyncio.gather(*(update() for _ in range(clients)))

    clock.run(everyone())
    return Contention(calls, 1000 * clock.now())


def mean(backoff: Backoff, trials: int = 20, clients: int = 100, seed: int = 1) -> Contention:
    """The mean of so many trials."""
    runs = [contend(backoff, clients, seed + trial) for trial in range(trials)]
    return Contention(sum(r.calls for r in runs) / trials, sum(r.done_ms for r in runs) / trials)


def plot(ours: dict[str, Contention]) -> str:
    names = list(PUBLISHED)
    both = [
        (PUBLISHED, "published", True),
        (ours, "everup.tolerate.Retry", False),
    ]
    calls = [Bar(what, [of[n].calls for n in names], BLUE, pale) for of, what, pale in both]
    done = [Bar(what, [of[n].done_ms / 1000 for n in names], BLUE, pale) for of, what, pale in both]
    return figure(
        "100 clients want to write the same thing",
        [
            Bars("Writes tried", names, Axis("", 0, 3000, range(0, 3001, 500)), calls),
            Bars(
                "Seconds until all were through",
                names,
                Axis("logarithmic", 1, 100, (1, 2, 5, 10, 20, 50, 100), log=True),
                done,
            ),
        ],
    )


def main() -> None:
    """Print the table, and write the plot where one is asked for."""
    options = arguments("a hundred clients that want to write the same thing", trials=50)
    ours = {name: mean(b, options.trials, seed=options.seed) for name, b in POLICIES.items()}
    rows = []
    for name, (calls, done_ms) in ours.items():
        then = PUBLISHED[name]
        rows.append([name, *map(number, (then.calls, calls, then.done_ms, done_ms))])
    print(table(["backoff", "calls, published", "here", "ms, published", "here"], rows))
    if options.svg:
        options.svg.write_text(plot(ours), encoding="utf-8")


if __name__ == "__main__":
    main()
