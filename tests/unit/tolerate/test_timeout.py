"""A call may take so long."""

import asyncio
import contextlib
import gc
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.tolerate import _threaded
from everup.tolerate.deadline import Deadline, check, remaining
from everup.tolerate.errors import DeadlineExceeded, Rejected, TimedOut
from everup.tolerate.testing import FakeClock, Recorder, _loop
from everup.tolerate.timeout import Timeout


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


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def this_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None
    return task


def as_function(limit: Timeout, call: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
    return limit.acall(call)


async def as_block(limit: Timeout, call: Callable[[], Awaitable[Any]]) -> Any:
    async with limit:
        return await call()


WAYS = pytest.mark.parametrize("way", [as_function, as_block])
Way = Callable[[Timeout, Callable[[], Awaitable[Any]]], Awaitable[Any]]


def queued(limit: Timeout) -> int:
    return sum(len(lane.queue) for lane in limit._lanes.values())


# -- asynchronous: what it does


@WAYS
def test_what_takes_too_long_is_cut_off(clock: FakeClock, way: Way) -> None:
    limit = Timeout(2.0, "whole", clock)
    seen = Recorder(limit)

    async def main() -> None:
        errors = []
        for turn in range(3):
            with pytest.raises(TimedOut, match="whole: took longer than 2 s") as caught:
                await way(limit, forever)
            errors.append(caught.value)
            assert clock.time == pytest.approx(1002.0 + 2 * turn)
        assert len({id(error) for error in errors}) == 3
        assert isinstance(errors[0].__cause__, asyncio.CancelledError)
        assert this_task().cancelling() == 0
        await asyncio.sleep(1.0)  # the task is as good as new

    clock.run(main())
    assert seen.kinds == ["timed_out"] * 3


@WAYS
def test_what_ends_in_time_passes(clock: FakeClock, way: Way) -> None:
    limit = Timeout(2.0, clock=clock)

    async def work() -> str:
        await asyncio.sleep(1.9)
        return "done"

    async def fail() -> None:
        await asyncio.sleep(1.9)
        raise ValueError("mine")

    async def main() -> None:
        for _ in range(3):
            assert await way(limit, work) == "done"
            with pytest.raises(ValueError, match="mine"):
                await way(limit, fail)
        await asyncio.sleep(9.0)

    clock.run(main())
    assert queued(limit) == 0


def test_the_signature_stays(clock: FakeClock) -> None:
    @Timeout(1.0, clock=clock)
    async def work(a: int, *, b: int) -> int:
        "Works."
        return a + b

    assert (work.__name__, work.__doc__) == ("work", "Works.")
    assert asyncio.iscoroutinefunction(work)
    assert clock.run(work(1, b=2)) == 3


@WAYS
def test_the_result_of_the_same_moment_wins(clock: FakeClock, way: Way) -> None:
    """Whichever timer fires first, and also when the task has been told but has not run yet."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for early in (True, False):
            limit = Timeout(2.0, clock=clock)
            future: asyncio.Future[str] = loop.create_future()
            if early:
                loop.call_later(2.0, future.set_result, "here")

            async def work(future: "asyncio.Future[str]" = future, early: bool = early) -> str:
                if not early:
                    loop.call_later(2.0, future.set_result, "here")
                return await future

            assert await way(limit, work) == "here"
            assert this_task().cancelling() == 0
        await asyncio.sleep(9.0)

    clock.run(main())


@WAYS
def test_a_task_that_spins_is_cut_off_too(clock: FakeClock, way: Way) -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)
            clock.advance(0.25)

    async def main() -> None:
        with pytest.raises(TimedOut):
            await way(Timeout(2.0, clock=clock), spin)

    clock.run(main())
    assert clock.time < 1004.0


@WAYS
def test_swallowed_the_result_counts(clock: FakeClock, way: Way) -> None:
    limit = Timeout(1.0, clock=clock)
    seen = Recorder(limit)

    async def stubborn() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            await asyncio.sleep(5.0)  # cancelled once, not again
        return "kept"

    async def translated() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise KeyError("mine") from None

    async def main() -> None:
        assert await way(limit, stubborn) == "kept"
        assert this_task().cancelling() == 0
        with pytest.raises(KeyError, match="mine"):
            await way(limit, translated)
        assert this_task().cancelling() == 0

    clock.run(main())
    assert [(e.kind, e.detail["error"]) for e in seen.events] == [
        ("late", None),
        ("late", "KeyError"),
    ]


# -- asynchronous: never confused with a cancellation from outside


@WAYS
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("at", [0.5, 1.0])
def test_whoever_else_cancels_wins(clock: FakeClock, way: Way, at: float, swapped: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def body() -> None:
            if not swapped:
                loop.call_later(at, task.cancel)
            await way(Timeout(1.0, clock=clock), forever)

        task = asyncio.ensure_future(body())
        if swapped:
            loop.call_later(at, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert task.cancelling() == 1

    clock.run(main())


@WAYS
@pytest.mark.parametrize("turns", range(6))
def test_cancelled_in_any_turn_around_the_cut(clock: FakeClock, way: Way, turns: int) -> None:
    """Just before, between being cut off and seeing it, and after: then it has timed out."""

    async def body() -> str:
        try:
            await way(Timeout(1.0, clock=clock), forever)
        except TimedOut:
            await asyncio.sleep(1.0)
        return "ended"

    async def main() -> None:
        task = asyncio.ensure_future(body())
        await asyncio.sleep(1.0)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert task.cancelling() == 1

    clock.run(main())


@WAYS
def test_cut_off_while_it_cleans_up_after_a_cancellation(clock: FakeClock, way: Way) -> None:
    async def slow_to_leave() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(9.0)

    async def main() -> None:
        task = asyncio.ensure_future(way(Timeout(1.0, clock=clock), slow_to_leave))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert task.cancelling() == 1
        assert clock.time == pytest.approx(1001.0)

    clock.run(main())


@WAYS
@pytest.mark.parametrize("turns", range(8))
def test_cancelled_at_every_await(clock: FakeClock, way: Way, turns: int) -> None:
    limit = Timeout(1.0, clock=clock)

    async def work() -> None:
        for _ in range(4):
            await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.ensure_future(way(limit, work))
        for _ in range(turns):
            await asyncio.sleep(0)
        ended = task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() is not ended

    clock.run(main())
    assert queued(limit) == 0
    assert not any(lane.blocks for lane in limit._lanes.values())


@WAYS
def test_entered_while_already_cancelling(clock: FakeClock, way: Way) -> None:
    """The baseline: a task that cleans up after a cancellation may use timeouts."""

    async def body() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            assert this_task().cancelling() == 1
            with pytest.raises(TimedOut):
                await way(Timeout(1.0, clock=clock), forever)
            assert this_task().cancelling() == 1
            return "clean"
        return "never"

    async def main() -> None:
        task = asyncio.ensure_future(body())
        await asyncio.sleep(0.1)
        task.cancel()
        assert await task == "clean"

    clock.run(main())


@WAYS
@pytest.mark.parametrize(("outer_s", "inner_s"), [(1.0, 5.0), (5.0, 1.0), (1.0, 1.0)])
def test_nested(clock: FakeClock, way: Way, outer_s: float, inner_s: float) -> None:
    outer, inner = Timeout(outer_s, "outer", clock), Timeout(inner_s, "inner", clock)

    async def both() -> None:
        await way(inner, forever)

    async def main() -> None:
        with pytest.raises(TimedOut) as caught:
            await way(outer, both)
        assert ("outer" if outer_s <= inner_s else "inner") in str(caught.value)
        assert this_task().cancelling() == 0

    clock.run(main())
    assert clock.time == pytest.approx(1001.0)


@WAYS
def test_the_same_object_in_itself(clock: FakeClock, way: Way) -> None:
    limit = Timeout(1.0, clock=clock)

    async def work(depth: int) -> str:
        if depth == 0:
            await asyncio.sleep(0.5)
            return "deep"
        return str(await way(limit, lambda: work(depth - 1)))

    async def main() -> None:
        assert await work(3) == "deep"
        with pytest.raises(TimedOut):
            await way(limit, lambda: way(limit, forever))
        assert this_task().cancelling() == 0

    clock.run(main())


def test_inside_a_task_group(clock: FakeClock) -> None:
    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(forever())
            tasks.create_task(forever())

    async def main() -> None:
        with pytest.raises(TimedOut):
            await Timeout(1.0, clock=clock).acall(group)

    clock.run(main())


Step = tuple[str, float, tuple[Any, ...]]
DELAYS = st.integers(1, 40)
STEPS = st.recursive(
    st.tuples(st.just("sleep"), DELAYS, st.just(())),
    lambda inner: st.tuples(
        st.sampled_from(["limit", "swallow"]),
        DELAYS,
        st.lists(inner, min_size=1, max_size=3).map(tuple),
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=300)
@given(st.lists(STEPS, min_size=1, max_size=4), st.lists(DELAYS, max_size=3), st.integers(0, 9999))
def test_as_asyncio_timeout_does(steps: list[Step], cancels: list[int], seed: int) -> None:
    """Any nesting, cancelled at any time: the same happens as with ``asyncio.timeout``. No two
    things happen in the same moment, as there this one differs: the result wins."""

    def play(ours: bool) -> list[tuple[float, str]]:
        clock = FakeClock(start=0.0)
        log: list[tuple[float, str]] = []
        salt = 0

        def unequal(units: float) -> float:
            nonlocal salt
            salt += 1
            return units + ((seed + salt * 7919) % 10007) / 20014

        def limit(seconds: float) -> contextlib.AbstractAsyncContextManager[Any]:
            return Timeout(seconds, clock=clock) if ours else asyncio.timeout(seconds)

        # Times are dealt out in advance: both runs get the same.
        def deal(step: Step) -> Step:
            return step[0], unequal(step[1]), tuple(deal(one) for one in step[2])

        async def run(step: Step) -> None:
            kind, seconds, inner = step
            if kind == "sleep":
                await asyncio.sleep(seconds)
            elif kind == "limit":
                try:
                    async with limit(seconds):
                        for one in inner:
                            await run(one)
                except TimeoutError:
                    log.append((clock.time, "timed out"))
            else:
                try:
                    for one in inner:
                        await run(one)
                except asyncio.CancelledError:
                    log.append((clock.time, "swallowed"))
            log.append((clock.time, kind))

        async def body(dealt: list[Step]) -> None:
            for one in dealt:
                await run(one)

        async def main() -> None:
            task = asyncio.ensure_future(body([deal(one) for one in steps]))
            for units in cancels:
                asyncio.get_running_loop().call_later(unequal(units), task.cancel)
            await asyncio.wait([task])
            log.append((clock.time, f"{task.cancelled()} {task.cancelling()}"))

        clock.run(main())
        return [(round(at, 6), what) for at, what in log]

    assert play(ours=True) == play(ours=False)


# -- asynchronous: one queue and one timer


def test_one_timer_serves_all_calls(clock: FakeClock) -> None:
    limit = Timeout(10.0, clock=clock)
    ends: list[float] = []

    async def one(start: float, takes: float) -> None:
        await asyncio.sleep(start)
        try:
            await limit.acall(asyncio.sleep, takes)
        except TimedOut:
            ends.append(clock.time - start)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls = [one(n / 7, 99.0 if n % 3 == 0 else n % 10) for n in range(60)]
        async with asyncio.TaskGroup() as tasks:
            for call in calls:
                tasks.create_task(call)
            await asyncio.sleep(9.0)
            timers = [h for h in loop._scheduled if "_fire" in repr(h)]  # type: ignore[attr-defined]
            assert len(timers) == 1

    clock.run(main())
    assert len(ends) == 20
    assert ends == pytest.approx([1010.0] * 20)


def test_ended_calls_do_not_pile_up_behind_a_slow_one(clock: FakeClock) -> None:
    limit = Timeout(60.0, clock=clock)

    async def quick() -> None:
        pass

    async def main() -> None:
        slow = asyncio.ensure_future(limit.acall(asyncio.sleep, 50.0))
        also = asyncio.ensure_future(limit.acall(forever))
        await asyncio.sleep(0)
        guarded = limit(quick)
        for _ in range(1000):
            await guarded()
            assert queued(limit) < 100
        await slow
        await guarded()
        # The dead ones behind the second slow one are what the timer finds.
        with pytest.raises(TimedOut):
            await also
        await asyncio.sleep(99.0)

    clock.run(main())
    assert queued(limit) == 0
    assert all(lane.dead == 0 and not lane.armed for lane in limit._lanes.values())


def test_the_timer_finds_ended_calls(clock: FakeClock) -> None:
    """The slow one is due first; what ended behind it goes with it, what runs is waited for."""
    limit = Timeout(10.0, clock=clock)

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(self_timed(forever))
            await asyncio.sleep(1.0)
            tasks.create_task(self_timed(lambda: asyncio.sleep(1.0)))
            await asyncio.sleep(0)
            last = tasks.create_task(self_timed(forever))
        assert first.result() == pytest.approx(10.0)
        assert last.result() == pytest.approx(10.0)

    async def self_timed(call: Callable[[], Awaitable[Any]]) -> float:
        began = clock.time
        with contextlib.suppress(TimedOut):
            await limit.acall(call)
        return clock.time - began

    clock.run(main())


def test_one_object_on_two_loops_at_once() -> None:
    limit = Timeout(0.01)
    meet = threading.Barrier(2, timeout=10)
    caught: list[str] = []

    async def main() -> None:
        guarded = limit(forever)
        meet.wait()
        for _ in range(3):
            try:
                await guarded()
            except TimedOut as error:
                caught.append(str(error))

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert caught == ["timeout: took longer than 0.01 s"] * 6


def test_one_object_on_loop_after_loop_keeps_none_of_them(clock: FakeClock) -> None:
    limit = Timeout(5.0, clock=clock)
    guarded = limit(forever)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        with pytest.raises(TimedOut):
            await guarded()
        await limit.acall(asyncio.sleep, 0)  # leaves a timer behind

    for _ in range(4):
        clock.run(main())
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1  # the last used


def test_the_timer_keeps_no_variables_alive(clock: FakeClock) -> None:
    class Big:
        pass

    held: ContextVar[Big] = ContextVar("held")
    limit = Timeout(5.0, clock=clock)

    async def one() -> "weakref.ref[Big]":
        big = Big()
        held.set(big)
        await limit.acall(asyncio.sleep, 0)
        return weakref.ref(big)

    async def main() -> None:
        gone = await asyncio.create_task(one())
        await asyncio.sleep(0)  # the loop itself holds what it ran last
        gc.collect()
        assert gone() is None

    clock.run(main())


def test_calls_left_on_a_closed_loop_are_let_go(clock: FakeClock) -> None:
    """They hold their loop, and the queue holds them."""
    limit = Timeout(5.0, clock=clock)

    def left_behind() -> "weakref.ref[asyncio.AbstractEventLoop]":
        loop = _loop(clock)
        ways: list[Any] = [as_function(limit, forever), as_block(limit, forever)]
        tasks = [loop.create_task(way) for way in ways]
        loop.run_until_complete(asyncio.sleep(0))
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        return weakref.ref(loop)

    wrong: list[Any] = []
    gone, hook, sys.unraisablehook = left_behind(), sys.unraisablehook, wrong.append
    try:
        clock.run(limit.acall(asyncio.sleep, 0))  # another loop
        gc.collect()
    finally:
        sys.unraisablehook = hook
    assert gone() is None
    assert len(limit._lanes) == 1
    assert wrong == []


def test_a_collection_may_come_while_the_lock_is_held(clock: FakeClock) -> None:
    """A finalizer may use the same object, on another loop too."""
    limit = Timeout(5.0, clock=clock)
    lanes: Any = limit._lanes
    hand_over = lanes.setdefault
    inner: list[str] = []

    def collected(loop: Any, lane: Any) -> Any:
        lanes.setdefault = hand_over
        other = _loop(clock)
        inner.append(str(limit._lane_of(other).armed))
        other.close()
        return hand_over(loop, lane)

    lanes.setdefault = collected
    assert clock.run(limit.acall(asyncio.sleep, 0, "done")) == "done"
    assert inner == ["False"]


def test_outside_a_task_nothing_can_be_cut_off(clock: FakeClock) -> None:
    limit = Timeout(1.0, clock=clock)

    async def main() -> None:
        found: list[str] = []

        def by_hand() -> None:
            for step in (limit.acall(forever), limit.__aenter__()):
                try:
                    step.send(None)
                except RuntimeError as error:
                    found.append(str(error))

        asyncio.get_running_loop().call_soon(by_hand)
        await asyncio.sleep(0.1)
        assert ["task" in one for one in found] == [True, True]
        await limit.__aenter__()
        with pytest.raises(RuntimeError, match="another task"):
            await asyncio.create_task(limit.__aexit__(None, None, None))
        await limit.__aexit__(None, None, None)

    clock.run(main())


# -- synchronous


def enter(limit: Timeout, call: Callable[[], Any]) -> Any:
    with limit:
        return call()


SYNC_WAYS = pytest.mark.parametrize("way", [Timeout.call, enter])
SyncWay = Callable[[Timeout, Callable[[], Any]], Any]


@SYNC_WAYS
def test_sync_sets_a_deadline(clock: FakeClock, way: SyncWay) -> None:
    limit = Timeout(2.0, clock=clock)
    assert way(limit, remaining) == 2.0
    assert remaining() is None
    with Deadline(1.0, clock=clock):
        assert way(limit, remaining) == 1.0
        assert way(Timeout(0.5, clock=clock), remaining) == 0.5
    with pytest.raises(ValueError, match="mine"):
        way(limit, lambda: int("mine"))
    assert remaining() is None


@SYNC_WAYS
def test_sync_what_checks_is_stopped(clock: FakeClock, way: SyncWay) -> None:
    limit = Timeout(2.0, "whole", clock)
    seen = Recorder(limit)

    def steps() -> None:
        while True:
            clock.sleep(0.7)
            check()

    errors = []
    for _ in range(2):
        with pytest.raises(TimedOut, match="whole: took longer than 2 s") as caught:
            way(limit, steps)
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert isinstance(errors[0].__cause__, DeadlineExceeded)
    assert seen.kinds == ["timed_out", "timed_out"]


@SYNC_WAYS
def test_sync_a_deadline_around_or_inside_is_not_ours(clock: FakeClock, way: SyncWay) -> None:
    def late(seconds: float = 1.5) -> None:
        clock.sleep(seconds)
        check()

    def later() -> None:
        late(2.5)

    def shorter() -> None:
        with Deadline(1.0, clock=clock):
            late()

    for call in (late, later):  # also when both are over
        with Deadline(1.0, clock=clock), pytest.raises(DeadlineExceeded):
            way(Timeout(2.0, clock=clock), call)
    with pytest.raises(DeadlineExceeded):
        way(Timeout(2.0, clock=clock), shorter)


@SYNC_WAYS
def test_sync_a_late_result_is_returned_and_told(clock: FakeClock, way: SyncWay) -> None:
    limit = Timeout(1.0, clock=clock)

    def slow() -> str:
        clock.sleep(1.5)
        return "late"

    assert way(limit, slow) == "late"
    seen = Recorder(limit)
    assert way(limit, slow) == "late"
    assert way(limit, lambda: "soon") == "soon"
    assert seen.kinds == ["late"]


def test_sync_blocks_left_in_the_wrong_order(clock: FakeClock) -> None:
    first, second = Timeout(5.0, clock=clock), Timeout(2.0, clock=clock)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert remaining() == 2.0
    second.__exit__(None, None, None)
    assert remaining() is None
    second.__exit__(None, None, None)
    assert remaining() is None


def test_arguments() -> None:
    for seconds in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="seconds must be above 0"):
            Timeout(seconds)
    with pytest.raises(ValueError, match="max_hung must be a whole number, 1 or more"):
        Timeout(1.0, max_hung=0)
    with pytest.raises(TypeError, match="thread"), Timeout(1.0, thread=True):
        pass

    def generate() -> Any:
        yield 1

    with pytest.raises(TypeError, match="generator"):
        Timeout(1.0)(generate)


# -- in a thread; the waiting itself is real time, of calls that do not end before they are told to


mine: ContextVar[str] = ContextVar("mine", default="lost")


def test_thread_result_error_and_variables() -> None:
    limit = Timeout(30.0, thread=True)

    @limit
    def work(a: int, *, b: int) -> tuple[int, str, bool, bool]:
        left = remaining()
        assert left is not None
        return a + b, mine.get(), 0 < left <= 30.0, threading.current_thread().daemon

    mine.set("here")
    assert work(1, b=2) == (3, "here", True, True)
    for error in (ValueError, KeyboardInterrupt, SystemExit):

        def fail(error: type[BaseException] = error) -> None:
            raise error("mine")

        with pytest.raises(error, match="mine"):
            limit.call(fail)
    assert limit.hung == 0


def test_thread_hung_calls_are_bounded_and_told() -> None:
    limit = Timeout(0.001, "whole", thread=True, max_hung=2)
    seen, told = Recorder(limit), threading.Semaphore(0)
    limit.subscribe(lambda event: told.release() if event.kind == "late" else None)
    go = threading.Event()

    def hang(fail: bool) -> str:
        go.wait(30)
        if fail:
            raise ValueError("nobody sees it")
        return "dropped"

    for fail in (False, True):
        with pytest.raises(TimedOut, match="whole"):
            limit.call(hang, fail)
    assert limit.hung == 2
    assert not limit.forgettable
    with pytest.raises(Rejected, match="2 threads hang") as caught:
        limit.call(hang, False)
    assert caught.value.retry_after_s is None
    assert seen.kinds == ["timed_out", "timed_out", "rejected"]
    go.set()
    for _ in range(2):
        assert told.acquire(timeout=10)
    assert limit.hung == 0
    assert limit.forgettable
    assert sorted(str(e.detail["error"]) for e in seen.events[3:]) == ["None", "ValueError"]
    assert Timeout(30.0, thread=True).call(lambda: "again") == "again"


def test_thread_calls_made_at_once_may_all_hang_but_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then it refuses until all but ``max_hung`` - 1 have ended."""
    limit = Timeout(0.001, thread=True, max_hung=2)
    go, meet, told = threading.Event(), threading.Barrier(4, timeout=30), threading.Semaphore(0)
    limit.subscribe(lambda event: told.release() if event.kind == "late" else None)

    def caller() -> None:
        with contextlib.suppress(TimedOut):
            limit.call(hang)

    def hang() -> None:
        go.wait(30)

    def together() -> Context:
        meet.wait()  # all four are let through before the first has hung
        return copy_context()

    monkeypatch.setattr(_threaded, "copy_context", together)
    callers = [threading.Thread(target=caller) for _ in range(4)]
    for one in callers:
        one.start()
    for one in callers:
        one.join(30)
    assert limit.hung == 4
    with pytest.raises(Rejected, match="4 threads hang"):
        limit.call(hang)
    go.set()
    for _ in range(4):
        assert told.acquire(timeout=30)
    assert limit.hung == 0


def test_thread_a_deadline_around_ends_the_wait() -> None:
    limit, go = Timeout(60.0, thread=True), threading.Event()
    with Deadline(0.001), pytest.raises(DeadlineExceeded):
        limit.call(go.wait, 30)
    assert limit.hung == 1
    go.set()


def test_thread_a_result_of_the_same_moment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait is over and the call as well: nobody has given it up yet."""
    limit, over = Timeout(0.001, thread=True), threading.Event()
    abandon = limit._abandon

    def later(job: Any) -> bool:
        over.set()
        with job.done:  # free: it has come back
            return abandon(job)

    monkeypatch.setattr(limit, "_abandon", later)
    assert limit.call(lambda: over.wait(30)) is True
    assert limit.hung == 0


def test_thread_what_checks_is_stopped(clock: FakeClock) -> None:
    def late(seconds: float) -> None:
        clock.advance(seconds)
        check()

    def shorter() -> None:
        with Deadline(1.0, clock=clock):
            late(1.5)

    limit = Timeout(20.0, clock=clock, thread=True)
    with pytest.raises(TimedOut):
        limit.call(late, 25.0)
    with pytest.raises(DeadlineExceeded):
        limit.call(shorter)


def test_thread_interrupted_wait_gives_the_call_up(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, go, ended = Timeout(30.0, thread=True), threading.Event(), threading.Event()
    began = threading.Event()
    limit.subscribe(lambda event: ended.set())

    def hang() -> None:
        began.set()
        go.wait(30)

    class Interrupted:
        def acquire(self, timeout: float) -> bool:
            assert began.wait(30)
            raise KeyboardInterrupt

        def release(self) -> None:
            pass

    job = _threaded._Job
    init = job.__init__

    def broken(self: Any) -> None:
        init(self)
        self.done = Interrupted()

    monkeypatch.setattr(job, "__init__", broken)
    with pytest.raises(KeyboardInterrupt):
        limit.call(hang)
    assert limit.hung == 1
    go.set()
    assert ended.wait(10)
    assert limit.hung == 0


# -- seconds for each call


def test_each_call_has_the_seconds_that_it_is_given(clock: FakeClock) -> None:
    limit = Timeout(9.0, each=lambda tries, *_: tries, clock=clock)
    recorder = Recorder(limit)

    async def slow(tries: float | None) -> None:
        await forever()

    async def main() -> None:
        for tries, lasts in ((2.0, 2.0), (None, 9.0), (timedelta(seconds=3), 3.0)):
            began = clock.time
            with pytest.raises(TimedOut, match=f"took longer than {lasts:g} s"):
                await limit.acall(slow, tries)
            assert clock.time - began == lasts
            assert this_task().cancelling() == 0
        assert await limit.acall(asyncio.sleep, 1.5, "done") == "done"  # its argument is both

    clock.run(main())
    assert [event.detail["seconds"] for event in recorder.events] == [2.0, 9.0, 3.0]


def test_calls_of_different_seconds_end_in_their_own_order(clock: FakeClock) -> None:
    limit = Timeout(None, each=lambda lasts: lasts, clock=clock)
    ended: list[float] = []

    async def slow(lasts: float) -> None:
        await forever()

    async def one(lasts: float) -> None:
        with pytest.raises(TimedOut):
            await limit.acall(slow, lasts)
        ended.append(lasts)

    async def main() -> None:
        await asyncio.gather(*(one(lasts) for lasts in (5.0, 1.0, 3.0)))

    clock.run(main())
    assert ended == [1.0, 3.0, 5.0]


def test_what_ends_at_its_own_time_tells_as_it_went(clock: FakeClock) -> None:
    limit = Timeout(None, each=lambda *_: 1.0, clock=clock)
    recorder = Recorder(limit)

    async def stubborn() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            await asyncio.sleep(1.0)
        return "done"

    async def cleaning_up() -> None:
        try:
            await forever()
        finally:
            raise KeyError("mine")

    async def main() -> None:
        assert await limit.acall(stubborn) == "done"
        with pytest.raises(KeyError):
            await limit.acall(cleaning_up)
        with pytest.raises(ZeroDivisionError):
            await limit.acall(quick)
        await asyncio.sleep(9.0)

    async def quick() -> None:
        raise ZeroDivisionError

    clock.run(main())
    assert [(event.kind, event.detail) for event in recorder.events] == [
        ("late", {"error": None}), ("late", {"error": "KeyError"}),
    ]  # fmt: skip


def test_a_timer_that_comes_too_early_is_set_again(clock: FakeClock) -> None:
    """A loop may round, or count by another clock than the policy does."""
    behind = FakeClock(start=0.0)
    limit = Timeout(None, each=lambda: 1.0, clock=behind)
    recorder = Recorder(limit)

    async def main() -> None:
        call = asyncio.ensure_future(limit.acall(forever))
        await asyncio.sleep(1.5)
        assert not call.done()
        behind.advance(1.0)
        with pytest.raises(TimedOut):
            await call

    clock.run(main())
    assert recorder.kinds == ["timed_out"]


def test_who_cancels_a_call_of_its_own_seconds_wins(clock: FakeClock) -> None:
    limit = Timeout(None, each=lambda: 5.0, clock=clock)

    async def main() -> None:
        call = asyncio.ensure_future(limit.acall(forever))
        await asyncio.sleep(1.0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    clock.run(main())


@pytest.mark.parametrize("thread", [False, True])
def test_each_synchronous_call_has_its_own_seconds(thread: bool) -> None:
    limit = Timeout(6000.0, each=lambda lasts: lasts, thread=thread)

    def look(lasts: float | None) -> float | None:
        return remaining()

    for lasts, most in ((500.0, 500.0), (None, 6000.0)):
        left = limit.call(look, lasts)
        assert left is not None
        assert most / 2 < left <= most


@pytest.mark.parametrize("thread", [False, True])
def test_without_a_number_of_seconds_a_call_takes_as_long_as_it_likes(
    clock: FakeClock, thread: bool
) -> None:
    def look() -> float | None:
        return remaining()

    async def alook() -> float | None:
        await asyncio.sleep(9999.0)
        return remaining()

    for each in (None, lambda: None):
        limit = Timeout(None, each=each, thread=thread, clock=clock)
        assert limit.call(look) is None
        assert clock.run(limit.acall(alook)) is None
    assert limit.seconds is None


@pytest.mark.parametrize("lasts", [0, -1.0, float("nan"), "3", True])
def test_seconds_of_a_call_that_cannot_be(clock: FakeClock, lasts: Any) -> None:
    limit = Timeout(5.0, each=lambda: lasts, clock=clock)
    with pytest.raises((ValueError, TypeError), match="each must be"):
        limit.call(lambda: None)
    with pytest.raises((ValueError, TypeError), match="each must be"):
        clock.run(limit.acall(forever))


def test_a_block_needs_a_number_of_seconds(clock: FakeClock) -> None:
    limit = Timeout(None, "orders", clock=clock)

    async def main() -> None:
        async with limit:
            pass

    message = "^orders: a block needs a number of seconds$"
    with pytest.raises(TypeError, match=message), limit:
        pass
    with pytest.raises(TypeError, match=message):
        clock.run(main())
    with pytest.raises(TypeError, match="each"):
        Timeout(5.0, each=forever)
    with pytest.raises(RuntimeError, match="only what runs in a task can be cut off"):
        clock.run(without_a_task(Timeout(None, each=lambda: 5.0, clock=clock)))


async def without_a_task(limit: Timeout) -> Any:
    """What a callback of the loop makes of it: nothing can be cancelled there."""
    got: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def callback() -> None:
        try:
            limit.acall(forever).send(None)
        except BaseException as error:
            got.set_exception(error)

    asyncio.get_running_loop().call_soon(callback)
    return await got
