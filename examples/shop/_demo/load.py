"""HTTP load that hides nothing: open loop, one connection a request, no retry.

A request is answered when its whole 2xx answer is here within ``DEADLINE_S`` of the moment it was
due, and lost otherwise. Latency counts from that moment too, so that a stalled server (or a late
client) cannot hide behind requests that were never sent.

As a program (``python load.py --port 8080``) it is a burst: many connections for a few seconds.
"""

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

DEADLINE_S = 5.0
_MAX_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: when it was due (monotonic), how long it took, how it ended."""

    due_s: float
    took_s: float
    ok: bool
    why: str = ""
    """For a lost one: the status or the error."""

    @property
    def ended_s(self) -> float:
        """When it was answered or given up."""
        return self.due_s + self.took_s


@dataclass(frozen=True, slots=True)
class Window:
    """The requests that ended in a stretch of time."""

    sent: int
    answered: int
    lost: int
    slow: int
    """Answered, but late."""
    slowest_s: float
    """Of the answered ones."""
    reasons: dict[str, int]


def window(samples: Iterable[Sample], from_s: float, to_s: float, slow_s: float) -> Window:
    """Sum up the samples that ended in [from_s, to_s).

    By their end, not their start: a request that was under way when its replica was killed belongs
    to the kill, not to the calm before it.
    """
    chosen = [s for s in samples if from_s <= s.ended_s < to_s]
    reasons: dict[str, int] = {}
    for sample in chosen:
        if not sample.ok:
            reasons[sample.why] = reasons.get(sample.why, 0) + 1
    took = [s.took_s for s in chosen if s.ok]
    slow = sum(took_s > slow_s for took_s in took)
    slowest_s = max(took, default=0.0)
    return Window(len(chosen), len(took), len(chosen) - len(took), slow, slowest_s, reasons)


async def exchange(port: int, method: str, path: str, body: bytes = b"") -> int:
    """Send one request over its own connection; the status, once the answer is complete."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (x.partition(":") for x in lines)}
        length = int(headers["content-length"])
        if length > _MAX_ANSWER_BYTES:
            raise ValueError("answer too long")
        await reader.readexactly(length)
        return int(lines[0].split()[1])
    finally:
        writer.close()


@dataclass(slots=True)
class Shopper:
    """Sends the demo's mix of requests and keeps the books."""

    port: int
    name: str
    """Prefix of the order ids, unique to this run."""
    samples: list[Sample] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    """Orders that the shop answered with 2xx."""
    unanswered: list[str] = field(default_factory=list)
    """Orders without an answer: the shop may or may not have them."""
    _open: dict[int, float] = field(default_factory=dict)
    """When the requests that are under way were due."""
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def one(self, due_s: float) -> bool:
        """One request of the mix: 2 in 5 the page, the others products, prices and an order."""
        number = next(self._numbers)
        self._open[number] = due_s
        try:
            if number % 5 == 4:
                return await self.order(f"{self.name}-{number}", due_s)
            path = ("/", "/products", "/", "/prices/USD")[number % 5]
            return await self._timed(due_s, "GET", path, b"")
        finally:
            del self._open[number]

    def oldest_open_s(self) -> float:
        """Age of the request that has waited longest and waits still; 0: none waits."""
        now_s = time.monotonic()
        return now_s - min(self._open.values(), default=now_s)

    async def order(self, order_id: str, due_s: float) -> bool:
        """Place one order."""
        body = json.dumps({"id": order_id, "items": {"tea": 1, "mug": 2}}).encode()
        answered = False
        try:
            answered = await self._timed(due_s, "POST", "/orders", body)
        finally:
            (self.acknowledged if answered else self.unanswered).append(order_id)
        return answered

    async def _timed(self, due_s: float, method: str, path: str, body: bytes) -> bool:
        try:
            async with asyncio.timeout_at(due_s + DEADLINE_S):
                status = await exchange(self.port, method, path, body)
            why = "" if 200 <= status < 300 else f"status {status}"
        except TimeoutError:
            why = f"no answer in {DEADLINE_S:g} s"
        except (asyncio.IncompleteReadError, ConnectionResetError):
            why = "connection closed before the answer"
        except OSError as error:
            why = error.strerror or "connection failed"
        except (ValueError, KeyError, IndexError):
            why = "malformed answer"
        self.samples.append(Sample(due_s, time.monotonic() - due_s, not why, why))
        return not why

    async def steady(self, rate: float, stop: asyncio.Event, limit: int) -> None:
        """``rate`` requests a second on a fixed schedule until ``stop``, at most ``limit``."""
        first_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(limit):
                due_s = first_s + number / rate
                while not stop.is_set() and (wait_s := due_s - time.monotonic()) > 0:
                    await asyncio.sleep(wait_s)
                if stop.is_set():
                    return
                group.create_task(self.one(due_s))

    async def burst(self, connections: int, duration_s: float) -> None:
        """``connections`` clients at once, each sending its next request after its last answer."""
        end_s = time.monotonic() + duration_s

        async def client() -> None:
            while time.monotonic() < end_s:
                if not await self.one(time.monotonic()):
                    await asyncio.sleep(0.1)  # refused: no tight loop

        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(client())


def main() -> None:
    """Run a burst and print its samples as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--name", default="burst")
    options = parser.parse_args()
    shopper = Shopper(options.port, options.name)
    asyncio.run(shopper.burst(min(options.connections, 500), min(options.seconds, 30.0)))
    json.dump(
        {
            "samples": [asdict(sample) for sample in shopper.samples],
            "acknowledged": shopper.acknowledged,
            "unanswered": shopper.unanswered,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
