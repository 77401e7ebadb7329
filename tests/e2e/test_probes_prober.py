"""The prober's schedule and life cycle on a real loop."""

import asyncio
import random
import time
from collections import Counter

import pytest
from test_probes_servers import (
    OK,
    Handler,
    Results,
    descriptors,
    free_port,
    full_listener,
    http,
    no_exec,
    probing,
    serving,
    tcp,
    until,
)

from everup.adapters.probes import Prober
from everup.model.instance import Slot
from everup.model.signal import ProbeKind, ProbeResult, ProbeTarget
from everup.model.spec import Probe

R = ProbeKind.READINESS
RUN = 7


async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def block(seconds: float) -> None:
    """Holds up the loop."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        pass


def command(interval: float = 3600.0, timeout: float = 10.0, **fields: object) -> ProbeTarget:
    probe = Probe(exec=("check",), interval=interval, timeout=timeout)
    return ProbeTarget(Slot("web", 1), R, RUN, probe, **fields)  # type: ignore[arg-type]


def test_rounds_keep_to_their_grid() -> None:
    async def main() -> None:
        async with serving(OK) as requests, probing() as (prober, results):
            prober.start(http(requests.port, interval=0.05))
            (watch,) = prober._watches.values()
            await results.many(10)
            # Without drift: the last round's place on the grid is that of its number.
            assert watch.round >= 10
            place_s = (watch.due_s - watch.schedule.origin_s) / 0.05 - watch.round
            assert 0 <= place_s <= 0.05 + 1e-6
            assert all(r.ok for r in results)

    asyncio.run(main())


def test_a_slow_target_delays_no_other_and_is_asked_one_at_a_time() -> None:
    open_now = Counter[str]()
    most = Counter[str]()

    def counting(name: str) -> Handler:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            open_now[name] += 1
            most[name] = max(most[name], open_now[name])
            if name == "slow":
                await reader.read()  # until the prober goes away
            else:
                writer.write(OK)
            open_now[name] -= 1

        return handler

    async def main() -> None:
        async with (
            serving(counting("slow")) as slow,
            serving(counting("quick")) as quick,
            probing() as (prober, results),
        ):
            with full_listener(2, ("127.0.0.1", 0)) as full:
                port = full.getsockname()[1]
                for i in range(10):
                    at = http(slow.port, slot=Slot("slow", i), interval=0.02, timeout=60.0)
                    prober.start(at)
                    prober.start(tcp(port, slot=Slot("full", i), interval=0.02, timeout=60.0))
                prober.start(http(quick.port, slot=Slot("quick", 1), interval=0.02))
                await results.many(20)
        assert {r.slot.service for r in results} == {"quick"}
        assert all(r.ok for r in results)
        assert most["slow"] <= 10
        assert len(slow) == 10

    asyncio.run(main())


def test_overlong_probes_skip_rounds() -> None:
    async def main() -> None:
        async with serving(silent) as requests, probing() as (prober, results):
            prober.start(http(requests.port, interval=0.02, timeout=0.1))
            first, second = await results.many(2)
            assert not first.ok
            assert not second.ok
            assert len(requests) <= 3

    asyncio.run(main())


def test_after_a_pause_of_the_loop_no_round_is_made_up_for() -> None:
    async def main() -> None:
        async with serving(OK) as requests, probing() as (prober, results):
            prober.start(http(requests.port, interval=0.05))
            await results.many(2)
            before = len(results)
            (watch,) = prober._watches.values()
            round_before = watch.round
            block(0.6)  # 12 rounds
            await results.many(before + 3)
            assert watch.round >= round_before + 11
            assert watch.round - round_before - (len(results) - before) >= 8
            assert max(r.lateness_s for r in results[before:]) >= 0.4
            assert all(r.ok for r in results)

    asyncio.run(main())


def test_an_answer_that_came_during_a_pause_of_the_loop_counts() -> None:
    """The timer of the timeout and the answer are both due when the loop goes on."""

    async def main() -> None:
        async with probing() as (prober, results):

            async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(OK)
                block(0.4)

            async with serving(reply) as requests:
                prober.start(http(requests.port, timeout=0.2))
                (result,) = await results.many(1)
                assert (result.ok, result.detail) == (True, "200 OK")
                assert result.lateness_s >= 0.1
                assert result.latency_s >= 0.3

            # The same, with the timer's turn before the answer's for certain.
            async def reply_then_timer(
                _: asyncio.StreamReader, writer: asyncio.StreamWriter
            ) -> None:
                (watch,) = prober._watches.values()
                assert watch.attempt is not None
                writer.write(OK)
                watch.attempt.on_timer(watch.attempt.deadline_s)

            async with serving(reply_then_timer) as requests:
                prober.start(http(requests.port, timeout=5.0))
                assert [r.detail for r in await results.many(2)] == ["200 OK", "200 OK"]

    asyncio.run(main())


def test_stop_while_under_way_reports_nothing_and_closes_the_socket() -> None:
    ended = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()

    async def main() -> None:
        async with serving(waits) as requests, probing() as (prober, results):
            with full_listener(2, ("127.0.0.1", 0)) as full:
                before = {n for n in descriptors() if "socket" in n}
                for kind in ProbeKind:
                    prober.start(http(requests.port, kind=kind))
                prober.start(tcp(full.getsockname()[1], slot=Slot("full", 1)))
                prober.start(http(0, url="http://localhost:1/", slot=Slot("name", 1)))
                await until(lambda: len(requests) == 3)
                prober.stop(Slot("web", 1), RUN, R)
                await until(ended.is_set)
                for slot in (Slot("web", 1), Slot("full", 1), Slot("name", 1), Slot("none", 1)):
                    prober.stop(slot, RUN)
                await until(lambda: {n for n in descriptors() if "socket" in n} <= before)
                assert not prober._watches
                assert not prober.reactor._handlers
                assert results == [r for r in results if r.slot.service == "name"]

    asyncio.run(main())


def test_close_ends_everything() -> None:
    async def main() -> None:
        before = descriptors()
        async with serving(silent) as requests:
            results = Results()
            prober = Prober(results.report, no_exec)
            for i in range(50):
                prober.start(http(requests.port, slot=Slot("web", i)))
            await until(lambda: len(requests) == 50)
            prober.close()
            prober.close()
            prober.stop(Slot("web", 1), RUN)
            prober.trigger(Slot("web", 1), RUN, R)
            with pytest.raises(RuntimeError):
                prober.start(http(requests.port))
            assert not results
        await until(lambda: len(descriptors()) <= len(before))

    asyncio.run(main())


def test_a_thousand_probes_leak_nothing() -> None:
    async def main() -> None:
        async with serving(OK) as requests, probing() as (prober, results):
            before = len(descriptors())
            refused = free_port()
            for i in range(40):
                port = refused if i % 4 == 0 else requests.port
                prober.start(http(port, slot=Slot("web", i), interval=0.05))
            await results.many(1000)
            for i in range(40):
                prober.stop(Slot("web", i), RUN)
            await until(lambda: len(descriptors()) <= before)
            assert len(prober._heap) <= 2 * 40 + 256

    asyncio.run(main())


def test_trigger() -> None:
    async def main() -> None:
        async with serving(OK) as requests, probing() as (prober, results):
            target = http(requests.port)
            prober.trigger(target.slot, RUN, R)  # nothing there yet
            prober.start(target, first_after_s=3000.0)
            assert not results
            for count in range(1, 4):
                for _ in range(5):
                    prober.trigger(target.slot, RUN, R)  # once is enough
                assert len(results) == count - 1  # never from within the call
                await results.many(count)
            assert len(requests) == 3
            assert all(r.ok and r.lateness_s < 1000 for r in results)
            for _ in range(5000):
                prober.trigger(target.slot, RUN, R)
                prober.stop(target.slot, RUN)
                prober.start(target, first_after_s=3000.0)
            assert len(prober._heap) <= 300

    asyncio.run(main())


def test_start_replaces_the_older_target() -> None:
    async def main() -> None:
        async with serving(silent) as old, serving(OK) as new, probing() as (prober, results):
            prober.start(http(old.port, timeout=0.2))
            await until(lambda: len(old) == 1)
            prober.start(http(new.port))
            await results.many(1)
            await asyncio.sleep(0.3)  # the old one's timeout goes by
            assert [r.detail for r in results] == ["200 OK"]

    asyncio.run(main())


def test_the_report_may_stop_start_and_fail() -> None:
    async def main() -> None:
        seen: list[ProbeResult] = []
        complaints: list[dict[str, object]] = []
        more = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: complaints.append(context))

        def report(result: ProbeResult) -> None:
            seen.append(result)
            more.set()
            match len(seen):
                case 1:
                    prober.stop(result.slot, result.run)
                    prober.start(target)
                case 2:
                    prober.trigger(result.slot, result.run, result.kind)
                case 3:
                    prober.stop(result.slot, result.run)
                    raise ValueError("a bug of the receiver")
                case _:
                    pass

        prober = Prober(report, no_exec)
        for port in (free_port(), 0):
            async with serving(OK) as requests:
                seen.clear()
                target = http(port or requests.port, interval=0.02)
                prober.start(target)
                await until(lambda: len(seen) == 3, more)
                assert not prober._watches
        assert len(complaints) == 2
        prober.close()

    asyncio.run(main())


def test_commands() -> None:
    async def main() -> None:
        async def run_exec(target: ProbeTarget) -> tuple[bool, str]:
            if target.host == "raises":
                raise OSError("no such program")
            return target.host == "good", "exit 1\nsecond line"

        for host, ok, detail in (
            ("good", True, "exit 1 second line"),
            ("bad", False, "exit 1 second line"),
            ("raises", False, "cannot be run: no such program"),
        ):
            async with probing(run_exec) as (prober, results):
                prober.start(command(host=host))
                (result,) = await results.many(1)
                assert (result.ok, result.detail) == (ok, detail)

    asyncio.run(main())


def test_a_command_is_cancelled_on_timeout_and_never_runs_twice_at_a_time() -> None:
    running = most = started = 0
    release = asyncio.Event()

    async def run_exec(_target: ProbeTarget) -> tuple[bool, str]:
        nonlocal running, most, started
        running += 1
        started += 1
        most = max(most, running)
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()  # takes its time to end
            running -= 1
        return True, ""

    async def main() -> None:
        async with probing(run_exec) as (prober, results):
            prober.start(command(interval=0.02, timeout=0.05))
            (result,) = await results.many(1)
            assert result.detail == "still running after 50ms, killed"
            prober.trigger(Slot("web", 1), RUN, R)
            prober.start(command(timeout=0.05))  # its first round has to wait
            await asyncio.sleep(0.1)
            assert started == 1
            release.set()
            await results.many(2)
            assert started == 2
            prober.start(command())
            await until(lambda: started == 3)
            prober.stop(Slot("web", 1), RUN)
            await until(lambda: running == 0)
            assert len(results) == 2
        assert most == 1

    asyncio.run(main())


def test_a_command_that_ended_while_the_loop_was_held_up_counts() -> None:
    async def main() -> None:
        async def run_exec(_target: ProbeTarget) -> tuple[bool, str]:
            process = await asyncio.create_subprocess_exec("sleep", "0.05")
            block(0.5)
            return await process.wait() == 0, "exit 0"

        async with probing(run_exec) as (prober, results):
            prober.start(command(timeout=0.2))
            (result,) = await results.many(1)
            assert result.ok
            assert result.lateness_s >= 0.1

    asyncio.run(main())


def test_random_orders_of_calls_leave_a_working_prober() -> None:
    async def main() -> None:
        dice = random.Random(7)
        async with (
            serving(OK) as good,
            serving(silent) as mute,
            probing() as (prober, results),
        ):
            ports = [good.port, mute.port, free_port()]
            for _ in range(1500):
                slot = Slot("web", dice.randrange(8))
                kind = dice.choice(list(ProbeKind))
                match dice.randrange(5):
                    case 0 | 1:
                        port = dice.choice(ports)
                        prober.start(
                            http(port, slot=slot, kind=kind, interval=0.01, timeout=0.02),
                            first_after_s=dice.choice([None, 0.0, 0.01]),
                        )
                    case 2:
                        prober.stop(slot, RUN, dice.choice([None, kind]))
                    case 3:
                        prober.trigger(slot, RUN, kind)
                    case _:
                        await asyncio.sleep(0)
            for i in range(8):
                prober.stop(Slot("web", i), RUN)
            count = len(results)
            await asyncio.sleep(0.05)
            assert len(results) == count
            assert not prober.reactor._handlers
            prober.start(http(good.port))
            await results.many(count + 1)
            assert results[-1].ok

    asyncio.run(main())


def test_a_round_that_came_due_during_a_probe_follows_at_once() -> None:
    """Not at the next place on the grid: a hung target would be asked every other time only."""
    begun: list[asyncio.Future[tuple[bool, str]]] = []

    async def run_exec(_target: ProbeTarget) -> tuple[bool, str]:
        begun.append(asyncio.get_running_loop().create_future())
        return await begun[-1]

    async def main() -> None:
        async with probing(run_exec) as (prober, _results):
            prober.start(command(interval=0.2))
            until = time.monotonic() + 10
            while not (begun and next(iter(prober._watches.values())).owed):
                assert time.monotonic() < until
                await asyncio.sleep(0.01)
            begun[0].set_result((False, "exit 1"))
            turns = 0
            while len(begun) < 2 and turns < 20:
                turns += 1
                await asyncio.sleep(0)
            assert len(begun) == 2

    asyncio.run(main())
