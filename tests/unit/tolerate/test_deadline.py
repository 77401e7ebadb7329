"""The deadline of the whole operation."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.tolerate import deadline
from everup.tolerate.deadline import (
    Deadline,
    carry,
    check,
    deadline_at,
    headers,
    parse_grpc_timeout,
    remaining,
)
from everup.tolerate.errors import DeadlineExceeded
from everup.tolerate.testing import FakeClock, Recorder


class Strict(FakeClock):
    """What a callback of the loop raises fails the test."""

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        wrong: list[Any] = []

        async def watched() -> Any:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: wrong.append(context))
            return await main

        try:
            return super().run(watched())
        finally:
            assert wrong == []


@pytest.fixture
def clock() -> FakeClock:
    return Strict()


def test_without_one_nothing_is_limited() -> None:
    assert remaining() is None
    assert deadline_at() is None
    check()
    assert headers() == {}


def test_a_block_sees_it_and_after_the_block_it_is_gone(clock: FakeClock) -> None:
    with Deadline(2.0, clock=clock):
        assert deadline_at() == 1002.0
        assert remaining() == 2.0
        clock.advance(1.5)
        assert remaining() == 0.5
        check()
        clock.advance(1.0)
        assert remaining() == 0.0
        with pytest.raises(DeadlineExceeded):
            check()
        with pytest.raises(DeadlineExceeded):
            headers()
    assert deadline_at() is None


@pytest.mark.parametrize(("outer", "inner", "at"), [(2, 5, 1002), (5, 2, 1002), (3, 3, 1003)])
def test_nested_takes_the_minimum(clock: FakeClock, outer: int, inner: int, at: int) -> None:
    with Deadline(outer, clock=clock):
        with Deadline(inner, clock=clock):
            assert deadline_at() == at
        assert deadline_at() == 1000 + outer


def test_the_minimum_of_two_clocks_is_the_shorter_time_left(clock: FakeClock) -> None:
    other = FakeClock(start=7.0)
    with Deadline(2.0, clock=clock):
        clock.advance(0.5)
        with Deadline(9.0, clock=other):
            assert deadline_at() == 8.5
        with Deadline(1.0, clock=other):
            assert deadline_at() == 8.0


def test_the_same_object_nests_in_itself(clock: FakeClock) -> None:
    again = Deadline(2.0, clock=clock)
    with again:
        clock.advance(1.0)
        with again:
            assert remaining() == 1.0
        assert remaining() == 1.0
    assert remaining() is None


def test_an_error_leaves_the_block(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="mine"), Deadline(1.0, clock=clock):
        raise ValueError("mine")
    assert remaining() is None


def test_blocks_left_in_the_wrong_order_do_no_harm(clock: FakeClock) -> None:
    first, second = Deadline(5.0, clock=clock), Deadline(2.0, clock=clock)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert remaining() == 2.0
    second.__exit__(None, None, None)
    assert remaining() is None
    second.__exit__(None, None, None)
    assert remaining() is None


def test_left_without_being_entered(clock: FakeClock) -> None:
    async def main() -> None:
        await Deadline(1.0, clock=clock).__aexit__(None, None, None)
        with Deadline(1.0, clock=clock) as limit:
            await limit.__aexit__(None, None, None)
            assert remaining() is None

    clock.run(main())


def test_a_call_that_would_begin_too_late_is_not_made(clock: FakeClock) -> None:
    calls: list[int] = []
    inner = Deadline(5.0, "inner", clock)
    seen = Recorder(inner)
    with Deadline(1.0, clock=clock):
        clock.advance(1.0)
        with pytest.raises(DeadlineExceeded, match="inner"):
            inner(calls.append)(1)
        with pytest.raises(DeadlineExceeded), inner:
            pytest.fail("entered")
        assert deadline_at() == 1001.0
    assert calls == []
    assert seen.kinds == ["refused", "refused"]
    with pytest.raises(DeadlineExceeded):
        Deadline(0, clock=clock).call(calls.append, 2)


def test_a_synchronous_function(clock: FakeClock) -> None:
    @Deadline(2.0, clock=clock)
    def work(a: int, *, b: int) -> tuple[int, float | None]:
        "Works."
        clock.advance(1.0)
        return a + b, remaining()

    assert work(1, b=2) == (3, 1.0)
    assert (work.__name__, work.__doc__) == ("work", "Works.")
    assert remaining() is None


def test_a_late_result_is_a_result(clock: FakeClock) -> None:
    def slow() -> str:
        clock.advance(9.0)
        return "late"

    assert Deadline(1.0, clock=clock).call(slow) == "late"


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_seconds_must_make_sense(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be 0 or more"):
        Deadline(seconds)


def test_generator_functions_are_refused(clock: FakeClock) -> None:
    def generate() -> Any:
        yield 1

    with pytest.raises(TypeError, match="generator"):
        Deadline(1.0, clock=clock)(generate)


# -- asynchronous


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def as_function(limit: Deadline, call: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
    return limit.acall(call)


async def as_block(limit: Deadline, call: Callable[[], Awaitable[Any]]) -> Any:
    async with limit:
        return await call()


WAYS = pytest.mark.parametrize("way", [as_function, as_block])
Way = Callable[[Deadline, Callable[[], Awaitable[Any]]], Awaitable[Any]]


@WAYS
def test_what_runs_too_long_is_cut_off(clock: FakeClock, way: Way) -> None:
    limit = Deadline(2.0, "whole", clock)
    seen = Recorder(limit)

    async def main() -> None:
        errors = []
        for _ in range(2):
            with pytest.raises(DeadlineExceeded, match="whole") as caught:
                await way(limit, forever)
            errors.append(caught.value)
        assert errors[0] is not errors[1]
        assert isinstance(errors[0].__cause__, asyncio.CancelledError)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert remaining() is None
        await asyncio.sleep(1.0)  # the task is as good as new

    clock.run(main())
    assert clock.time == pytest.approx(1005.0)
    assert seen.kinds == ["cut", "cut"]


@WAYS
def test_what_ends_in_time_passes(clock: FakeClock, way: Way) -> None:
    async def work() -> float | None:
        await asyncio.sleep(1.0)
        return remaining()

    async def fail() -> None:
        raise ValueError("mine")

    async def main() -> None:
        assert await way(Deadline(2.0, clock=clock), work) == pytest.approx(1.0)
        with pytest.raises(ValueError, match="mine"):
            await way(Deadline(2.0, clock=clock), fail)
        loop: Any = asyncio.get_running_loop()
        assert all(timer.cancelled() for timer in loop._scheduled)
        await asyncio.sleep(5.0)

    clock.run(main())


@WAYS
def test_the_result_of_the_same_moment_wins(clock: FakeClock, way: Way) -> None:
    async def work() -> str:
        await asyncio.sleep(2.0)
        return "here"

    async def main() -> None:
        assert await way(Deadline(2.0, clock=clock), work) == "here"

    clock.run(main())


@WAYS
def test_over_between_beginning_and_the_timer(clock: FakeClock, way: Way) -> None:
    """The loop was busy: the timer comes late, the first time it looks it is over."""

    async def main() -> None:
        limit = Deadline(2.0, clock=clock)
        once = clock.now
        times = iter([once(), once() + 3.0])
        clock.now = lambda: next(times, once() + 3.0)
        with pytest.raises(DeadlineExceeded):
            await way(limit, forever)

    clock.run(main())


@WAYS
def test_a_loop_that_counts_faster_than_the_clock(clock: FakeClock, way: Way) -> None:
    """A timer that fires early looks again instead of cutting off."""
    slow = FakeClock()
    slow.now = lambda: clock.time / 2

    async def main() -> None:
        with pytest.raises(DeadlineExceeded):
            await way(Deadline(1.0, clock=slow), forever)

    clock.run(main())
    assert clock.time == pytest.approx(1002.0)


@WAYS
@pytest.mark.parametrize("at", [0.5, 1.0])
def test_whoever_else_cancels_wins(clock: FakeClock, way: Way, at: float) -> None:
    async def main() -> None:
        async def body() -> None:
            await way(Deadline(1.0, clock=clock), forever)

        task = asyncio.ensure_future(body())
        asyncio.get_running_loop().call_later(at, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert task.cancelling() == 1

    clock.run(main())


@WAYS
def test_swallowed_the_result_counts(clock: FakeClock, way: Way) -> None:
    async def stubborn() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            return "kept"
        return "never"

    async def main() -> None:
        assert await way(Deadline(1.0, clock=clock), stubborn) == "kept"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    clock.run(main())


@WAYS
@pytest.mark.parametrize(("outer", "inner"), [(1.0, 5.0), (5.0, 1.0), (1.0, 1.0)])
def test_nested_cuts_off_at_the_minimum(
    clock: FakeClock, way: Way, outer: float, inner: float
) -> None:
    async def both() -> None:
        await way(Deadline(inner, clock=clock), forever)

    async def main() -> None:
        with pytest.raises(DeadlineExceeded):
            await way(Deadline(outer, clock=clock), both)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    clock.run(main())
    assert clock.time == pytest.approx(1001.0)


def test_tasks_left_in_the_wrong_order_are_not_cut_off_later(clock: FakeClock) -> None:
    async def main() -> None:
        first, second = Deadline(5.0, clock=clock), Deadline(2.0, clock=clock)
        await first.__aenter__()
        await second.__aenter__()
        await first.__aexit__(None, None, None)
        assert remaining() == 2.0
        await second.__aexit__(None, None, None)
        await asyncio.sleep(9.0)

    clock.run(main())


@WAYS
@pytest.mark.parametrize("turns", range(6))
def test_cancelled_at_every_await(clock: FakeClock, way: Way, turns: int) -> None:
    limit = Deadline(1.0, clock=clock)

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.ensure_future(way(limit, work))
        for _ in range(turns):
            await asyncio.sleep(0)
        ended = task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() is not ended
        loop: Any = asyncio.get_running_loop()
        assert all(timer.cancelled() for timer in loop._scheduled)

    clock.run(main())


@WAYS
def test_entered_while_already_cancelling(clock: FakeClock, way: Way) -> None:
    """The baseline: a task that cleans up after a cancellation may use deadlines."""

    async def body() -> str:
        task = asyncio.current_task()
        assert task is not None
        try:
            await forever()
        except asyncio.CancelledError:
            with pytest.raises(DeadlineExceeded):
                await way(Deadline(1.0, clock=clock), forever)
            assert task.cancelling() == 1
            return "clean"
        return "never"

    async def main() -> None:
        task = asyncio.ensure_future(body())
        await asyncio.sleep(0.1)
        task.cancel()
        assert await task == "clean"

    clock.run(main())


def test_what_is_thrown_away_leaves_the_deadlines_of_others(clock: FakeClock) -> None:
    """Garbage collection closes a call in whatever task it comes upon."""

    async def main() -> None:
        guarded = Deadline(5.0, clock=clock)(forever)()
        guarded.send(None)
        assert remaining() == 5.0  # driven by hand, it set it here

        async def other() -> float | None:
            async with Deadline(2.0, clock=clock):
                guarded.close()
                return remaining()

        assert await asyncio.create_task(other()) == 2.0

    clock.run(main())


def test_a_plain_block_in_a_task_only_carries_it(clock: FakeClock) -> None:
    async def main() -> None:
        with Deadline(1.0, clock=clock):
            await asyncio.sleep(2.0)
            assert remaining() == 0.0

    clock.run(main())


def test_tasks_inherit_it_and_siblings_do_not(clock: FakeClock) -> None:
    async def look() -> float | None:
        return deadline_at()

    async def main() -> None:
        async def one(seconds: float) -> float | None:
            async with Deadline(seconds, clock=clock):
                await asyncio.sleep(0.1)
                return await asyncio.create_task(look())

        seen: list[float | None] = list(await asyncio.gather(one(1.0), one(2.0), look()))
        assert seen == [1001.0, 1002.0, None]

    clock.run(main())


def test_outside_a_task_nothing_can_be_cut_off(clock: FakeClock) -> None:
    async def main() -> None:
        found: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

        def by_hand() -> None:
            try:
                Deadline(1.0, clock=clock).acall(forever).send(None)
            except RuntimeError as error:
                found.set_result(error)

        asyncio.get_running_loop().call_soon(by_hand)
        assert "task" in str(await found)

    clock.run(main())


def test_finds_the_running_task(clock: FakeClock) -> None:
    async def main() -> None:
        assert deadline.task_of()(asyncio.get_running_loop()) is asyncio.current_task()

    clock.run(main())


# -- threads


mine: ContextVar[str] = ContextVar("mine", default="lost")


def test_carried_into_threads_many_times_at_once(clock: FakeClock) -> None:
    meet = threading.Barrier(3, timeout=10)

    def work(n: int, *, plus: int) -> tuple[int, str, float | None]:
        "Works."
        meet.wait()  # all three are inside
        return n + plus, mine.get(), deadline_at()

    with ThreadPoolExecutor(3) as pool, Deadline(2.0, clock=clock):
        mine.set("here")
        carried = carry(work)
        assert (carried.__name__, carried.__doc__) == ("work", "Works.")
        jobs = [pool.submit(carried, n, plus=1) for n in range(3)]
        assert [job.result() for job in jobs] == [(n + 1, "here", 1002.0) for n in range(3)]
        assert pool.submit(deadline_at).result() is None


# -- on the wire


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1e-12, "1n"),
        (0.05, "50000000n"),
        (2.0, "2000000u"),
        (150.0, "150000m"),
        (200_000.0, "200000S"),
        (1e12, "99999999S"),
    ],
)
def test_headers(seconds: float, text: str) -> None:
    clock = FakeClock(start=0.0)
    with Deadline(seconds, clock=clock):
        assert headers() == {"grpc-timeout": text}


@given(st.floats(min_value=1e-8, max_value=9e7))
def test_the_other_side_never_waits_longer(seconds: float) -> None:
    with Deadline(seconds, clock=FakeClock(start=0.0)):
        text = headers()["grpc-timeout"]
    assert len(text) <= 9
    assert seconds * 0.9 <= parse_grpc_timeout(text) <= seconds * (1 + 1e-12)


@pytest.mark.parametrize(
    ("text", "seconds"), [("2H", 7200), ("3M", 180), ("4S", 4), ("5m", 0.005), ("0n", 0)]
)
def test_parse(text: str, seconds: float) -> None:
    assert parse_grpc_timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "S", "5", "5x", "-5S", "1.5S", "123456789S", "٣S", " 5S"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="grpc-timeout"):
        parse_grpc_timeout(text)


def test_the_default_clock_is_monotonic() -> None:
    assert Deadline(1.0).clock.now is __import__("time").monotonic
    assert deadline.SLACK_S < 1e-6
