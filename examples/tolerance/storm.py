"""The retry storm: a short outage from which a service does not come back, and what ends it.

    python examples/tolerance/storm.py [--svg FILE] [--seed N] [--rate N]

Clients ask 900 times a second, a server can answer 1000, one after the other, first in, first out.
For ten seconds it hangs. Clients give up after one second, but the server does not know: when it is
back it works on questions that nobody waits for any more, and so it goes on. Bronson et al.,
"Metastable Failures in Distributed Systems" (HotOS 2021), call this state metastable. Both sides
are guarded by ``everup.tolerate``, on a virtual clock.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, NamedTuple

from _plot import GREEN, GREY, Axis, Line, Lines, arguments, figure, table

from everup.tolerate.breaker import Breaker
from everup.tolerate.budget import RetryBudget
from everup.tolerate.errors import Overloaded, Rejected, TimedOut
from everup.tolerate.retry import Retry
from everup.tolerate.shed import Shed
from everup.tolerate.testing import FakeClock
from everup.tolerate.timeout import Timeout

BEFORE_S, OUTAGE_S, AFTER_S = 20, 10, 90
ENDS_S = BEFORE_S + OUTAGE_S + AFTER_S
LOAD = 0.9
"""Of what the server can do."""
TIMEOUT_S = 1.0
WELL = 0.99
"""A second is well when this share of its requests succeeds,"""
WELL_FOR_S = 5
"""and the service has recovered when so many seconds in a row are."""


class Guard(NamedTuple):
    """What is in place. ``shed`` is on the server, the rest on its clients."""

    attempts: int = 3
    budget: bool = False
    breaker: bool = False
    shed: bool = False


GUARDS = {
    "no retry": Guard(attempts=1),
    "3 attempts": Guard(),
    "+ 10 % budget": Guard(budget=True),
    "+ breaker": Guard(breaker=True),
    "+ shed": Guard(shed=True),
    "+ budget + shed": Guard(budget=True, shed=True),
}


class Storm(NamedTuple):
    """What came of it, by the second in which a request was made. ``recovers_s``: from the end of
    the outage on; None: not within the 90 s that were looked at."""

    sent_per_request: float
    recovers_s: int | None
    success: float
    asked: list[int]
    good: list[int]
    sent: list[int]


class Published(NamedTuple):
    sent_per_request: float
    recovers_s: int | None
    success: float


PUBLISHED = {
    "no retry": Published(1.00, None, 0.188),
    "3 attempts": Published(2.64, None, 0.165),
    "+ 10 % budget": Published(1.08, None, 0.165),
    "+ breaker": Published(0.92, 2, 0.907),
    "+ shed": Published(1.16, 1, 0.920),
    "+ budget + shed": Published(1.01, 1, 0.919),
}


class Busy(Exception):  # noqa: N818 - what the server says
    """The server sheds this one: all that its client sees of ``Overloaded``."""


class Server:
    """One at a time, first in, first out. It cannot see that a client has given up."""

    def __init__(self, per_s: float, chance: Random, clock: FakeClock, shed: Shed | None) -> None:
        self._per_s = per_s
        self._chance = chance
        self._now = clock.now
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._busy = self._hangs = False
        self._admit: Callable[[float], None] = lambda arrived: None
        if shed is not None:
            self._admit = shed.around(self._admit)

    def ask(self) -> "asyncio.Future[None]":
        answer: asyncio.Future[None] = self._loop.create_future()
        self._queue.append((self._now(), answer))
        if not self._busy:
            self._work()
        return answer

    def hang(self, hangs: bool) -> None:
        self._hangs = hangs
        if not self._busy:
            self._work()

    def _work(self) -> None:
        while self._queue and not self._hangs:
            arrived, answer = self._queue.popleft()
            try:
                self._admit(arrived)
            except Overloaded:
                if not answer.done():
                    answer.set_exception(Busy())
                continue
            self._busy = True
            self._loop.call_later(self._chance.expovariate(self._per_s), self._answer, answer)
            return

    def _answer(self, answer: "asyncio.Future[None]") -> None:
        self._busy = False
        if not answer.done():
            answer.set_result(None)
        self._work()


def storm(guard: Guard, per_s: float = 1000.0, seed: int = 1) -> Storm:
    """Two minutes of it; ``per_s``: what the server can do. All guards get the same arrivals."""
    clock = FakeClock(start=0.0)
    clock.random = Random(seed).random
    asked, good, sent = [0] * ENDS_S, [0] * ENDS_S, [0] * (2 * ENDS_S)

    async def world() -> None:
        loop = asyncio.get_running_loop()
        shed = None
        if guard.shed:
            # With the target at half the limit there is one limit, in overload and out of it.
            shed = Shed(since=lambda arrived: arrived, max_wait_s=0.5, target_s=0.25, clock=clock)
        server = Server(per_s, Random(seed + 1), clock, shed)
        ask = client(server)
        loop.call_later(BEFORE_S, server.hang, True)
        loop.call_later(BEFORE_S + OUTAGE_S, server.hang, False)

        async def request(second: int) -> None:
            asked[second] += 1
            try:
                await ask()
            except (TimedOut, Busy, Rejected):
                return
            good[second] += 1

        arrivals = Random(seed + 2)
        at = arrivals.expovariate(LOAD * per_s)
        async with asyncio.TaskGroup() as requests:
            while at < ENDS_S:
                await asyncio.sleep(at - clock.now())
                requests.create_task(request(int(at)))
                at += arrivals.expovariate(LOAD * per_s)

    def client(server: Server) -> Callable[[], Coroutine[Any, Any, None]]:
        async def send() -> None:
            sent[int(clock.now())] += 1
            await server.ask()

        call = Timeout(TIMEOUT_S, clock=clock)(send)
        if guard.breaker:
            call = Breaker(open_s=1.0, clock=clock)(call)
        budget = RetryBudget(ratio=0.1, floor_per_s=0.0, clock=clock) if guard.budget else None
        return Retry(attempts=guard.attempts, budget=budget, clock=clock)(call)

    clock.run(world())
    requests = sum(asked)
    well = [g >= WELL * a for g, a in zip(good, asked, strict=True)][BEFORE_S + OUTAGE_S :]
    starts = range(AFTER_S - WELL_FOR_S + 1)
    recovers_s = next((s for s in starts if all(well[s : s + WELL_FOR_S])), None)
    return Storm(sum(sent) / requests, recovers_s, sum(good) / requests, asked, good, sent)


def plot(ours: dict[str, Storm], per_s: float) -> str:
    x = Axis("seconds", 0, ENDS_S, range(0, ENDS_S + 1, 30))
    y = Axis("", 0, 3.5 * per_s, [per_s * n for n in range(4)])
    panels = []
    for name, run in ours.items():
        lines = [
            Line(what, [(t + 0.5, float(counts[t])) for t in range(ENDS_S)], colour)
            for what, counts, colour in (
                ("sent to the server", run.sent, GREY),
                ("answered in time", run.good, GREEN),
            )
        ]
        title = f"{name}: {100 * run.success:.0f} %"
        panels.append(Lines(title, x, y, lines, (BEFORE_S, BEFORE_S + OUTAGE_S, "outage")))
    title = "Ten seconds of outage, and what comes after: requests per second"
    return figure(title, panels, 3, 230)


def main() -> None:
    """Print the table, and write the plot where one is asked for."""
    options = arguments("a short outage, and what ends the storm after it", rate=1000)
    ours = {name: storm(guard, options.rate, options.seed) for name, guard in GUARDS.items()}

    def cells(run: Storm | Published) -> list[str]:
        recovers = "not in 90 s" if run.recovers_s is None else f"{run.recovers_s} s"
        return [f"{run.sent_per_request:.2f}", recovers, f"{100 * run.success:.1f} %"]

    rows = [[name, *cells(PUBLISHED[name]), *cells(run)] for name, run in ours.items()]
    head = ["policy", "sent, published", "recovers", "success", "sent, here", "recovers", "success"]
    print(table(head, rows))
    if options.svg:
        options.svg.write_text(plot(ours, options.rate), encoding="utf-8")


if __name__ == "__main__":
    main()
