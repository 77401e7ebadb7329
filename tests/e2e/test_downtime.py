"""The downtime that the report tells of, against that which a client sees.

A client asks every 10 ms and never gives up: what it saw is the truth. Hangs, kills, slow deaths,
failing readiness and watchdogs at random moments; what everup reports must be within 5 % of it.
"""

import asyncio
import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable

import pytest
from _everup import Everup

POLL_S = 0.01
SLOW_S = 0.1
"""A request that takes longer was asked of a service that did not serve."""
GIVE_UP_S = 20.0
EACH = 4
RESTART = {
    "delay": "1s", "max_delay": "1s", "jitter": "none", "reset_after": "1h",
    "intensity": {"limit": 1000, "period": "60s"},
}  # fmt: skip
"""Each outage is as long as it takes to see it and to start again, not longer with each."""
PROBES = {
    "readiness": {"http": "/readyz", "interval": "200ms", "timeout": "1s", "failure_threshold": 1},
    "liveness": {"http": "/healthz", "interval": "300ms", "timeout": "1s", "failure_threshold": 2},
}


class Client:
    """Asks every 10 ms from a thread of its own; ``down`` is when it had no answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ended = threading.Event()
        self._asked: list[tuple[float, float]] = []
        """When a request began, and when its good answer came; infinity: never."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> "Client":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def down(self, since: float) -> list[tuple[float, float]]:
        """From the first request that was not answered at once to the first good answer."""
        asked = sorted(a for a in self._asked.copy() if a[0] >= since)
        ends, end = [], float("inf")
        for _began, answered in reversed(asked):
            end = min(end, answered)
            ends.append(end)
        found: list[tuple[float, float]] = []
        for (began, answered), end in zip(asked, reversed(ends), strict=True):
            if answered - began > SLOW_S and (not found or began >= found[-1][1]):
                found.append((began, end))
        return [one for one in found if one[1] < float("inf")]

    def is_well(self, for_s: float) -> bool:
        """Whether all was answered at once lately."""
        now = time.monotonic()
        late = [a for a in self._asked[-200:] if a[0] > now - for_s]
        return len(late) > 5 and all(answered - began < SLOW_S for began, answered in late)

    async def _run(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        while not self._ended.is_set():
            task = asyncio.create_task(self._ask())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(POLL_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self) -> None:
        began, answered = time.monotonic(), float("inf")
        with contextlib.suppress(OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(GIVE_UP_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
                    if b" 200 " in await reader.readline():
                        answered = time.monotonic()
                finally:
                    writer.close()
        self._asked.append((began, answered))


# -- faults


def hang(everup: Everup, slot: str) -> None:
    os.kill(everup.pid(slot), signal.SIGSTOP)


def kill(everup: Everup, slot: str) -> None:
    os.kill(everup.pid(slot), signal.SIGKILL)


def slow_death(everup: Everup, slot: str) -> None:
    pid = everup.pid(slot)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(random.uniform(0.5, 1.2))
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def not_ready(everup: Everup, slot: str) -> None:
    everup.tell("unready")
    time.sleep(random.uniform(1.0, 2.0))
    everup.untell("unready")


FAULTS = (
    ("hang", "web", hang),
    ("kill", "web", kill),
    ("slow death", "web", slow_death),
    ("not ready", "web", not_ready),
    ("watchdog", "dog", hang),
)


@pytest.mark.timeout(400)
def test_report_tells_what_a_client_saw(everup: Everup) -> None:
    ports = {"web": everup.port(), "dog": everup.port()}
    everup.control.joinpath("dog").mkdir(exist_ok=True)
    everup.tell("dog/watchdog")
    dog = everup.server("dog", listen=f"127.0.0.1:{ports['dog']}", watchdog={"interval": "1s"},
                        restart=RESTART)  # fmt: skip
    web = everup.server(listen=f"127.0.0.1:{ports['web']}", probe=PROBES, restart=RESTART)
    everup.up({"web": web, "dog": dog}, storm_brake={"limit": 1000})
    truth, told = 0.0, 0.0
    for name, service, fault in FAULTS:
        saw, says = watch(everup, service, ports[service], fault)
        print(f"{name}: {saw:.3f} s seen, {says:.3f} s reported")
        truth, told = truth + saw, told + says
    assert told == pytest.approx(truth, rel=0.05)


def watch(
    everup: Everup, service: str, port: int, fault: Callable[[Everup, str], None]
) -> tuple[float, float]:
    """Seconds down by some faults of one kind: as a client saw it, and as everup reports."""
    slot = f"{service}.1"
    with Client(port) as client:
        everup.wait_for(lambda: client.is_well(0.5), "the client is answered")
        before, since = reported(everup, service), time.monotonic()
        for _ in range(EACH):
            everup.wait_for(lambda: client.is_well(0.5), "the client is answered")
            everup.wait_state(slot, "ready")
            time.sleep(random.uniform(0.5, 0.9))
            seen = len(client.down(since))
            fault(everup, slot)
            everup.wait_for(lambda seen=seen: len(client.down(since)) > seen, "it was down")  # type: ignore[misc]
        everup.wait_for(lambda: client.is_well(1.0), "the client is answered")
        everup.wait_state(slot, "ready")
        saw = client.down(since)
    return sum(end - begin for begin, end in saw), reported(everup, service) - before


def reported(everup: Everup, service: str) -> float:
    """Seconds down, as ``everup report`` says."""
    report = everup.cli("report", "--json").json
    return float(next(s for s in report["services"] if s["name"] == service)["times"]["down_s"])
