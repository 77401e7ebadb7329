"""The shop under faults: what everup does when a replica dies, hangs, crashes or is flooded.

    .venv/bin/python examples/shop/demo.py

Everything runs on 127.0.0.1 and in a temporary directory, takes about a minute, and is gone
afterwards. Exit status 0 says that the service recovered every time and no order was lost.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import psutil
from _demo.control import DemoError, Event, Everup, Instance, kill_left_over
from _demo.incident import Step, recovery
from _demo.load import DEADLINE_S, Sample, Shopper, window
from _demo.orders import until_shipped
from _demo.report import journal_lines, requests_text, result_rows
from _demo.terminal import Terminal

T = TypeVar("T")

HERE = Path(__file__).resolve().parent
RATE = 200.0
SLOW_S = 0.5
TIMEOUT_S = 90.0
RECOVERY_S = 20.0
SETTLE_S = 1.5
BURST_CONNECTIONS = 200
BURST_S = 3.0
POLL_S = 0.5
MAX_SHOWN = 30
INCIDENT_LINES = 5


class Demo:
    """One run, from an empty directory to the verdict."""

    def __init__(self, directory: Path, program: Path, terminal: Terminal) -> None:
        self._directory = directory
        self._terminal = terminal
        self._port = _free_port(8080)
        self._rates_port = _free_port(8081)
        self._everup = Everup(program, self._write_config())
        self._shopper = Shopper(self._port, "demo")
        self._burst_samples: list[Sample] = []
        self._acknowledged: list[str] = []
        self._steps: list[Step] = []
        self._stopped: psutil.Process | None = None
        self._started = False

    async def run(self) -> None:
        """All of it; ``DemoError`` at the first thing that is not as expected."""
        await self._up()
        stop = asyncio.Event()
        step = self._begin("no fault")
        load = asyncio.create_task(self._shopper.steady(RATE, stop, int(RATE * TIMEOUT_S)))
        try:
            await self._wait("a look at normal service", self._settle(2))
            self._end(step)
            await self._fault("web.1 SIGKILL", "web.1", self._kill)
            await self._fault("web.2 SIGSTOP", "web.2", self._stop)
            await self._fault("web.1 exits 3x", "web.1", self._crash, exits=4)
            await self._outage()
            await self._incident()
            step = await self._overload()
            stop.set()
            await self._wait("the last answers", load)
            self._end(step)
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
        await self._check_orders()
        await self._report()

    async def last_events(self) -> list[Event]:
        """For a failure's report."""
        return (await self._everup.events(count=25)) if self._started else []

    async def take_down(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self._stopped is not None:  # interrupted: a stopped process could not end in order
            with contextlib.suppress(psutil.Error):
                self._stopped.resume()
        if self._started:
            self._terminal.line()
            self._terminal.line("$ everup down", "dim")
            failed = ""
            try:
                await self._everup.run("down", timeout_s=20)
            except DemoError as failure:
                failed = str(failure)
            if killed := kill_left_over(self._directory):
                self._terminal.line(failed, "red")
                self._terminal.line(f"killed {killed} processes that were left", "red")
            elif not failed:
                self._terminal.line("  all processes have ended")

    def show_events(self, events: list[Event], zero_s: float) -> None:
        """Journal lines with their time since a fault."""
        for text in journal_lines(events, zero_s):
            self._terminal.line(f"  {text}")

    def _write_config(self) -> Path:
        """The shop's own files and config in the temporary directory, with a free port."""
        shutil.copytree(
            HERE / "shop", self._directory / "shop", ignore=shutil.ignore_patterns("__pycache__")
        )
        text = (HERE / "everup.toml").read_text()
        for given, port, times in (("8080", self._port, 1), ("8081", self._rates_port, 2)):
            text, count = re.subn(rf"127\.0\.0\.1:{given}", f"127.0.0.1:{port}", text)
            if count != times:
                raise DemoError(f"everup.toml: expected 127.0.0.1:{given} {times} times")
        config = self._directory / "everup.toml"
        config.write_text(text)
        return config

    async def _up(self) -> None:
        self._terminal.head("A shop: 2 web replicas, a worker, a database")
        self._terminal.line(f"$ everup -c {self._directory / 'everup.toml'} up -d", "dim")
        self._started = True
        began_s = time.monotonic()
        await self._wait("everything ready", self._everup.run("up", "-d", timeout_s=40))
        states = ", ".join(f"{i.slot} {i.state}" for i in await self._everup.instances("web"))
        self._terminal.line(f"  up after {time.monotonic() - began_s:.1f} s: {states}")
        self._terminal.line(
            f"  http://127.0.0.1:{self._port}/ gets {RATE:g} requests/s from now on"
        )

    def _begin(self, name: str, slot: str = "") -> Step:
        """Begin a step where the one before ended, so that each request counts in exactly one."""
        now_s = time.monotonic()
        step = Step(name, self._steps[-1].to_s if self._steps else now_s, now_s, slot=slot)
        self._steps.append(step)
        return step

    def _end(self, step: Step) -> None:
        step.to_s = time.monotonic()
        samples = self._shopper.samples + self._burst_samples
        part = window(samples, step.from_s, step.to_s, SLOW_S)
        self._terminal.line(f"  {requests_text(part, SLOW_S)}", "yellow" if part.lost else None)

    async def _settle(self, duration_s: float) -> None:
        """Go on with normal service, and until what waited during a fault has its end."""
        await asyncio.sleep(duration_s)
        while self._shopper.oldest_open_s() > SLOW_S:  # ends: every request has a deadline
            await asyncio.sleep(0.05)

    async def _fault(
        self, name: str, slot: str, inject: Callable[[Instance], None], exits: int = 1
    ) -> None:
        """Inject one fault into one replica and wait until it is ready again."""
        self._terminal.head(name)
        victim = await self._instance(slot)
        step = self._begin(name, slot)
        inject(victim)
        recovered = self._until_ready(slot, step.fault_s, exits)
        step.noticed_s, step.ready_s = await self._wait(f"{slot} ready again", recovered)
        successor = await self._instance(slot)
        if successor.pid == victim.pid:
            raise DemoError(f"{slot}: expected a new process, but pid {victim.pid} is still there")
        await self._wait("normal service", self._settle(SETTLE_S))
        self._terminal.line(
            f"  noticed after {step.noticed_s:.3f} s, ready again after {step.ready_s:.3f} s"
            f" (pid {victim.pid} -> {successor.pid})",
            "green",
        )
        self._end(step)

    async def _outage(self) -> None:
        """The service that gives the rates hangs: prices go on with those of before."""
        self._terminal.head("rates hangs: SIGSTOP")
        (victim,) = await self._everup.instances("rates")
        step = self._begin("rates hangs")
        self._stop(victim)
        told = await self._wait("the breakers opened", self._until_breakers({"open", "half-open"}))
        self._terminal.line("  $ everup status", "dim")
        for slot, state in told.items():
            self._terminal.line(f"  {slot}: its breaker of rates is {state}")
        await self._wait("a while without rates", self._settle(SETTLE_S))
        assert self._stopped is not None
        self._stopped.resume()
        await self._wait("the breakers closed", self._until_breakers({"closed"}))
        await self._wait("normal service", self._settle(SETTLE_S))
        self._terminal.line("  prices went on with the last good rates; all is well again", "green")
        step.all_events = True
        self._end(step)

    async def _incident(self) -> None:
        """The disk of the rates is full: one incident, whose first sentence names that."""
        self._terminal.head("rates killed, and its disk is full")
        step = self._begin("rates: disk full")
        file = self._directory / "rates.json"
        file.unlink(missing_ok=True)
        file.symlink_to("/dev/full")  # who writes to it gets the error of a full disk
        (victim,) = await self._everup.instances("rates")
        self._kill(victim)
        number = await self._wait("its incident", self._until_incident("disk is full"))
        told_s = time.monotonic() - step.fault_s
        self._terminal.line(f"  the cause was named after {told_s:.1f} s", "green")
        self._terminal.line(f"  $ everup incident {number}", "dim")
        shown = await self._everup.run("incident", number, timeout_s=10)
        for line in shown.splitlines()[:INCIDENT_LINES]:
            self._terminal.line(f"  {line}")
        file.unlink()
        await self._everup.run("restart", "rates", timeout_s=RECOVERY_S)
        await self._wait("the breakers closed", self._until_breakers({"closed"}))
        await self._wait("normal service", self._settle(SETTLE_S))
        step.all_events = True
        self._end(step)

    async def _until_incident(self, words: str) -> str:
        """Give the number of the incident of the rates, once its sentence has these words."""
        end_s = time.monotonic() + RECOVERY_S
        while time.monotonic() < end_s:
            text = await self._everup.run("incidents", "--json", timeout_s=10, fine=(0, 4))
            for incident in json.loads(text):
                if incident["subject"] == "rates" and words in incident["sentence"]:
                    return str(incident["number"])
            await asyncio.sleep(POLL_S)
        raise DemoError(f"everup incidents: expected one of rates, because the {words}")

    async def _until_breakers(self, states: set[str]) -> dict[str, str]:
        end_s = time.monotonic() + RECOVERY_S
        while time.monotonic() < end_s:
            told = await self._everup.breakers("web", "rates")
            if set(told.values()) <= states:
                return told
            await asyncio.sleep(POLL_S)
        raise DemoError(f"web: expected that its breakers of rates are {' or '.join(states)}")

    def _kill(self, victim: Instance) -> None:
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)

    def _stop(self, victim: Instance) -> None:
        assert victim.pid is not None
        self._stopped = psutil.Process(victim.pid)  # knows its start time, so never another's pid
        self._stopped.suspend()

    def _crash(self, victim: Instance) -> None:
        (self._directory / "crash").write_text("3")
        self._kill(victim)

    async def _overload(self) -> Step:
        self._terminal.head(f"overload: {BURST_CONNECTIONS} connections at once for {BURST_S:g} s")
        before = await self._everup.instances("web")
        step = self._begin("overload")
        # In a process of its own, so that the steady load stays on its schedule.
        await self._wait("the burst", self._burst())
        await self._wait("all replicas ready", self._until_all_ready(before))
        calm_s = time.monotonic()
        await self._wait("normal service", self._settle(SETTLE_S))
        step.all_events = True
        after = await self._everup.instances("web")
        if [i.pid for i in before] != [i.pid for i in after]:
            raise DemoError("overload: expected that no replica is killed for being busy")
        if lost := window(self._shopper.samples, calm_s, time.monotonic(), SLOW_S).lost:
            raise DemoError(f"after the overload: expected no lost requests, got {lost}")
        self._terminal.line("  no replica was restarted; both are ready", "green")
        return step

    async def _burst(self) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / "_demo" / "load.py"),
            f"--port={self._port}",
            f"--connections={BURST_CONNECTIONS}",
            f"--seconds={BURST_S}",
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            out, _ = await asyncio.wait_for(process.communicate(), BURST_S + 15)
        except TimeoutError:
            raise DemoError("overload: expected the burst to end") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        result = json.loads(out)
        self._burst_samples = [Sample(**sample) for sample in result["samples"]]
        self._acknowledged += result["acknowledged"]
        self._shopper.unanswered += result["unanswered"]

    async def _check_orders(self) -> None:
        self._terminal.head("orders")
        unanswered, self._shopper.unanswered = self._shopper.unanswered, []
        again = Shopper(self._port, "again")  # books of its own: these are no new requests
        for order_id in unanswered:  # what a client does: the same order, with the same id, again
            if not await again.order(order_id, time.monotonic()):
                raise DemoError(f"order {order_id}: expected an answer to the second attempt")
        acknowledged = set(self._acknowledged + self._shopper.acknowledged + again.acknowledged)
        await self._wait(
            "all orders shipped", until_shipped(self._directory / "shop.db", acknowledged)
        )
        self._terminal.line(
            f"  {len(acknowledged)} acknowledged, none lost: all are in the database, each shipped"
            f" once\n  {len(unanswered)} of them had no answer at first and were sent again",
            "green",
        )

    async def _report(self) -> None:
        events = await self._everup.events("web")
        self._terminal.head("journal: seconds since the fault  ($ everup events --service web)")
        for step in self._steps[1:]:
            self._terminal.line(f"  {step.name}", "yellow")
            shown = step.journal(events)
            self.show_events(shown[:MAX_SHOWN], step.fault_s)
            if len(shown) > MAX_SHOWN:
                self._terminal.line(f"  ... and {len(shown) - MAX_SHOWN} more")
            if not shown:
                self._terminal.line("  nothing: no replica was suspected")
        self._terminal.head("result")
        samples = self._shopper.samples + self._burst_samples
        rows, total = result_rows(self._steps, samples, SLOW_S)
        self._terminal.table(rows)
        for note in (
            "noticed, ready again: from the fault to that line of the journal",
            f"lost: no whole 2xx answer within {DEADLINE_S:g} s, and the client does not try again."
            " A replica that dies loses",
            "    what it had accepted; what waited in its queue is answered by its successor",
            f"slow: answered after more than {SLOW_S:g} s; slowest: of those that were answered",
        ):
            self._terminal.line(f"  {note}", "dim")
        for why, count in sorted(total.reasons.items()):
            self._terminal.line(f"  {count} lost: {why}", "yellow")
        faults = len(self._steps) - 1
        self._terminal.line()
        self._terminal.line(
            f"PASS: recovered from {faults} of {faults} faults; {total.lost} of {total.sent}"
            " requests lost; no order lost",
            "green",
        )

    async def _instance(self, slot: str) -> Instance:
        for instance in await self._everup.instances("web"):
            if instance.slot == slot:
                if instance.state != "ready" or instance.pid is None:
                    raise DemoError(f"{slot}: expected ready, got {instance.state}")
                return instance
        raise DemoError(f"everup status: expected an instance {slot}")

    async def _until_ready(self, slot: str, from_s: float, exits: int) -> tuple[float, float]:
        end_s = time.monotonic() + RECOVERY_S
        while time.monotonic() < end_s:
            times = recovery(await self._everup.events("web"), slot, from_s, exits)
            if times is not None:
                return times
            await asyncio.sleep(POLL_S)
        raise DemoError(f"{slot}: expected it to be ready again within {RECOVERY_S:g} s")

    async def _until_all_ready(self, before: list[Instance]) -> None:
        end_s = time.monotonic() + RECOVERY_S
        while time.monotonic() < end_s:
            after = await self._everup.instances("web")
            if len(after) == len(before) and all(i.state == "ready" for i in after):
                return
            await asyncio.sleep(POLL_S)
        raise DemoError(f"web: expected all replicas ready within {RECOVERY_S:g} s")

    async def _wait(self, what: str, awaited: Awaitable[T]) -> T:
        """Await something while the progress line shows how the load fares."""
        began_s = time.monotonic()
        task = asyncio.ensure_future(awaited)
        try:
            while not task.done():
                if self._terminal.gone:
                    raise DemoError("expected somebody to read the output")
                sent = len(self._shopper.samples)
                lost = sum(not sample.ok for sample in self._shopper.samples)
                waited_s = time.monotonic() - began_s
                text = f"  {waited_s:4.1f} s  waiting for {what}; {sent} requests, {lost} lost"
                self._terminal.progress(text)
                await asyncio.wait({task}, timeout=0.2)
            return task.result()
        finally:
            self._terminal.clear()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


async def perform(directory: Path, program: Path, terminal: Terminal) -> int:
    """Run the demo and clean up; the exit status."""
    demo = Demo(directory, program, terminal)
    running = asyncio.create_task(demo.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Kept until the end: a second Ctrl-C must not interrupt the cleaning up.
        loop.add_signal_handler(number, running.cancel)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await running
    except DemoError as failure:
        await explain(demo, terminal, str(failure))
    except TimeoutError:
        await explain(demo, terminal, f"expected an end within {TIMEOUT_S:g} s")
    except asyncio.CancelledError:
        terminal.line("interrupted", "yellow")
        return 130
    else:
        return 0
    finally:
        await demo.take_down()
    return 1


async def explain(demo: Demo, terminal: Terminal, text: str) -> None:
    """What was expected, and what everup saw last."""
    terminal.line()
    terminal.line(f"FAIL: {text}", "red")
    try:
        events = await demo.last_events()
    except (DemoError, ValueError, KeyError) as error:
        terminal.line(f"  no events: {error}")
        return
    terminal.line("  the last events, seconds before now:")
    demo.show_events(events, time.monotonic())


def _free_port(best: int) -> int:
    for port in (best, 0):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as sock:
            return int(sock.getsockname()[1])
    raise DemoError("expected a free port on 127.0.0.1")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(sys.executable).with_name("everup")
    parser.add_argument("--everup", type=Path, default=default, help="default: beside this Python")
    options = parser.parse_args()
    program = options.everup.absolute()
    if not os.access(program, os.X_OK):
        print(f'{program}: expected everup; install it with pip install -e ".[demo]"')
        return 1
    directory = Path(tempfile.mkdtemp(prefix="everup-shop-"))
    try:
        return asyncio.run(perform(directory, program, Terminal()))
    except DemoError as failure:  # before anything was started
        print(failure)
        return 1
    except KeyboardInterrupt:  # before anything was started
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
