"""Under trio: what works, and what says that it does not. Real loops, no time that passes."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from everup.tolerate import (
    Breaker,
    Bulkhead,
    BulkheadFull,
    Chaos,
    Clock,
    Consecutive,
    Deadline,
    DeadlineExceeded,
    Fallback,
    Hedge,
    Keyed,
    Limit,
    Meter,
    Pipeline,
    Policy,
    RateLimit,
    Retry,
    Shed,
    State,
    TimedOut,
    Timeout,
    Vote,
    _loops,
    remaining,
)
from everup.tolerate.testing import Recorder, no_waits


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    """Under trio, whose time passes at once when all wait."""
    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def trio_clock() -> Clock:
    return Clock(now=trio.current_time)


async def work() -> str:
    await trio.sleep(0.1)
    return "done"


async def forever() -> None:
    await trio.sleep_forever()


async def refuse() -> None:
    await trio.sleep(0)
    raise ConnectionError("refused")


@pytest.mark.parametrize(
    "make",
    [
        Retry,
        Breaker,
        lambda: Timeout(60.0),
        lambda: Timeout(None),
        lambda: Timeout(None, each=lambda: 60.0),
        lambda: Deadline(60.0),
        Bulkhead,
        Limit,
        lambda: RateLimit(100),
        lambda: RateLimit(100, weight=lambda: 2),
        lambda: Shed(waited=lambda: 0.0),
        lambda: Shed("throttle"),
        lambda: Chaos(enabled=True),
        lambda: Fallback("other"),
        Meter,
        lambda: Keyed(lambda _: Breaker(), key=lambda: 1),
        lambda: Pipeline(Retry(), Breaker(), Timeout(60.0)),
    ],
)
def test_a_call_that_is_well(make: Callable[[], Policy]) -> None:
    policy = make()
    assert run(lambda: policy.acall(work)) == "done"
    with pytest.raises(ConnectionError) if not isinstance(policy, Fallback) else no_waits():
        run(lambda: policy.but().acall(refuse))


def test_a_retry_waits_by_the_loop_of_trio() -> None:
    retry = Retry(attempts=3, backoff=100.0, max_delay_s=100.0)

    async def main() -> float:
        with pytest.raises(ConnectionError):
            await retry.acall(refuse)
        return trio.current_time()

    assert run(main) >= 200.0
    with no_waits():
        assert run(main) < 1.0


def test_a_heavy_call_waits_for_its_places() -> None:
    async def main() -> float:
        limit = RateLimit(1, wait_s=60.0, weight=lambda: 1, clock=trio_clock())
        began = trio.current_time()
        for _ in range(3):
            await limit.acall(work)
        return trio.current_time() - began

    assert run(main) == pytest.approx(2.1)


@pytest.mark.parametrize("make", [lambda: Timeout(5.0), lambda: Timeout(9.0, each=lambda: 5.0)])
def test_what_takes_too_long_is_cut_off(make: Callable[[], Timeout]) -> None:
    limit = make()
    recorder = Recorder(limit)

    async def main() -> float:
        with pytest.raises(TimedOut, match="timeout: took longer than 5 s"):
            await limit.acall(forever)
        with limit.off(), trio.move_on_after(100.0):
            await limit.acall(forever)
        return trio.current_time()

    assert run(main) == pytest.approx(105.0)
    assert recorder.kinds == ["timed_out"]
    assert recorder.events[0].detail == {"seconds": 5.0}


def test_who_cancels_from_outside_wins() -> None:
    limit = Timeout(50.0)

    async def main() -> bool:
        with trio.move_on_after(5.0) as scope:
            await limit.acall(forever)
        return scope.cancelled_caught

    assert run(main) is True


def test_a_deadline_cuts_off_and_is_seen_inside() -> None:
    seen: list[float | None] = []

    async def look() -> None:
        seen.append(remaining())
        await forever()

    async def main() -> float:
        deadline = Deadline(5.0, clock=trio_clock())
        recorder = Recorder(deadline)
        with pytest.raises(DeadlineExceeded, match="deadline: over before the call was"):
            await deadline.acall(look)
        assert recorder.kinds == ["cut"]
        assert remaining() is None
        with pytest.raises(ConnectionError):
            await deadline.acall(refuse)
        assert remaining() is None
        with deadline.off(), trio.move_on_after(100.0):
            await deadline.acall(look)
        return trio.current_time()

    run(main)
    assert seen == [pytest.approx(5.0), None]


def test_a_breaker_of_tasks_opens() -> None:
    breaker = Breaker(trip=Consecutive(2))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(once)

    async def once() -> None:
        with pytest.raises(ConnectionError):
            await breaker.acall(refuse)

    run(main)
    assert breaker.state is State.OPEN


def test_a_bulkhead_without_a_queue() -> None:
    bulkhead = Bulkhead(1)

    async def main() -> str:
        async with bulkhead:
            with pytest.raises(BulkheadFull):
                await bulkhead.acall(work)
        return await bulkhead.acall(work)

    assert run(main) == "done"


def waiting_bulkhead() -> Policy:
    bulkhead = Bulkhead(1, queue=5)
    bulkhead.__enter__()
    return bulkhead


def waiting_rate() -> Policy:
    limit = RateLimit(1, wait_s=60.0)
    limit.try_take()
    return limit


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Hedge(1.0), "hedge: a second copy"),
        (lambda: Vote(refuse, quorum=2), "vote: asking several at once"),
        (waiting_bulkhead, "bulkhead: waiting for a place"),
        (waiting_rate, "rate: waiting for a place"),
    ],
)
def test_what_needs_asyncio_says_so(make: Callable[[], Policy], what: str) -> None:
    policy = make()
    message = f"^{what} works under asyncio alone, which does not run here$"
    with pytest.raises(RuntimeError, match=message):
        run(lambda: policy.acall(work))


@pytest.mark.parametrize("policy", [Timeout(5.0), Timeout(None, each=lambda: 5.0), Deadline(5.0)])
def test_so_does_a_block_and_what_runs_without_a_loop(policy: Policy) -> None:
    block: Any = policy

    async def main() -> None:
        async with block:
            pass

    with pytest.raises(RuntimeError, match="works under asyncio alone, which does not run here"):
        run(main)
    with pytest.raises(RuntimeError, match="runs neither under asyncio nor under trio"):
        policy.acall(work).send(None)


def test_without_trio_nobody_runs_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trio")
    assert _loops.running_trio() is None


def test_asyncio_is_asyncio_where_trio_is_imported() -> None:
    async def soon() -> str:
        await asyncio.sleep(0)
        return "done"

    async def main() -> str:
        assert _loops.running_trio() is None
        return await Pipeline(Retry(), Deadline(5.0), Timeout(5.0)).acall(soon)

    assert asyncio.run(main()) == "done"


def test_nobody_imports_it_unasked() -> None:
    code = (
        "import sys, asyncio; from everup.tolerate import Retry, Timeout\n"
        "async def fail(): raise OSError\n"
        "async def main():\n"
        "    try: await Retry(backoff=0.001)(Timeout(5)(fail))()\n"
        "    except OSError: pass\n"
        "asyncio.run(main()); assert 'trio' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
