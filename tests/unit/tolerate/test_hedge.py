"""A further copy of a slow call."""

import asyncio
import contextlib
import gc
import random
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from everup.tolerate import _race
from everup.tolerate._clock import Clock
from everup.tolerate.budget import RetryBudget
from everup.tolerate.deadline import Deadline
from everup.tolerate.errors import BreakerOpen, BulkheadFull, Rejected, TimedOut
from everup.tolerate.hedge import Hedge
from everup.tolerate.testing import FakeClock, Recorder
from everup.tolerate.timeout import Timeout


class Strict(FakeClock):
    """What a callback of the loop raises fails the test, and so does a task left behind."""

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        wrong: list[Any] = []

        async def watched() -> Any:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: wrong.append(context))
            result = await main
            assert len(asyncio.all_tasks()) == 1
            return result

        try:
            return super().run(watched())
        finally:
            gc.collect()
            assert wrong == []


@pytest.fixture
def clock() -> Strict:
    return Strict()


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def this_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None
    return task


class Fatal(BaseException):
    """Not an ``Exception``; the loop does not stop for it as it does for KeyboardInterrupt."""


class Copies:
    """A call whose copies behave in turn: seconds, then a value, or an exception to raise. Notes
    when each began and how it ended."""

    def __init__(self, clock: FakeClock, *plans: tuple[float, Any], cleanup_s: float = 0.0) -> None:
        self.clock = clock
        self.start = clock.time
        self.plans = plans
        self.cleanup_s = cleanup_s
        self.began: list[float] = []
        self.ended: list[tuple[int, str, float]] = []
        self.alive = 0
        self.most = 0

    def at(self) -> float:
        return round(self.clock.time - self.start, 6)

    async def __call__(self) -> Any:
        number = len(self.began)
        seconds, outcome = self.plans[number]
        self.began.append(self.at())
        self.alive += 1
        self.most = max(self.most, self.alive)
        try:
            await asyncio.sleep(seconds)
            if isinstance(outcome, BaseException):
                raise outcome
            self.ended.append((number + 1, "ended", self.at()))
            return outcome
        except asyncio.CancelledError:
            if self.cleanup_s:
                await asyncio.sleep(self.cleanup_s)
            self.ended.append((number + 1, "cancelled", self.at()))
            raise
        finally:
            self.alive -= 1


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


def details(seen: Recorder) -> list[tuple[str, dict[str, Any]]]:
    return [(event.kind, dict(event.detail)) for event in seen.events]


# -- asynchronous: who wins


def test_an_answer_before_the_delay_needs_no_copy(clock: Strict) -> None:
    hedge = Hedge(1.0, clock=clock)
    seen = Recorder(hedge)
    here: ContextVar[str] = ContextVar("here")
    tasks = []

    @hedge
    async def work(a: int, *, b: int) -> int:
        "Works."
        tasks.append(this_task())
        here.set("set inside")
        await asyncio.sleep(0.9)
        return a + b

    async def main() -> None:
        for _ in range(3):
            assert await work(1, b=2) == 3
        assert here.get() == "set inside"
        assert set(tasks) == {this_task()}
        await asyncio.sleep(9.0)

    assert (work.__name__, work.__doc__) == ("work", "Works.")
    assert asyncio.iscoroutinefunction(work)
    clock.run(main())
    assert seen.kinds == []


def test_a_copy_wins_over_a_first_that_hangs(clock: Strict) -> None:
    hedge = Hedge(1.0, clock=clock)
    seen = Recorder(hedge)
    copies = Copies(clock, (60, "first"), (0.5, "second"), cleanup_s=0.25)

    async def main() -> None:
        assert await hedge.acall(copies) == "second"
        assert copies.alive == 0  # awaited, not only cancelled
        assert this_task().cancelling() == 0
        await asyncio.sleep(9.0)  # the task is as good as new

    clock.run(main())
    assert copies.began == [0, 1]
    assert copies.ended == [(2, "ended", 1.5), (1, "cancelled", 1.75)]
    assert details(seen) == [
        ("hedged", {"copy": 2, "why": "delay"}),
        ("won", {"copy": 2, "copies": 2}),
    ]


def test_the_first_wins_over_its_copy(clock: Strict) -> None:
    hedge = Hedge(1.0, clock=clock)
    seen = Recorder(hedge)
    copies = Copies(clock, (1.5, "first"), (60, "second"), cleanup_s=0.25)

    async def main() -> None:
        assert await hedge.acall(copies) == "first"
        assert copies.alive == 0

    clock.run(main())
    assert copies.ended == [(1, "ended", 1.5), (2, "cancelled", 1.75)]
    assert details(seen)[1:] == [("won", {"copy": 1, "copies": 2})]


@pytest.mark.parametrize("attempts", [1, 2, 3, 5])
def test_there_are_at_most_so_many_copies(clock: Strict, attempts: int) -> None:
    hedge = Hedge(1.0, attempts=attempts, clock=clock)
    copies = Copies(clock, *[(60, "late")] * attempts)

    async def main() -> None:
        assert await hedge.acall(copies) == "late"

    clock.run(main())
    assert copies.began == list(range(attempts))
    assert copies.most == attempts
    assert copies.at() == 60


def test_without_a_delay_all_start_at_once(clock: Strict) -> None:
    hedge = Hedge(0, attempts=3, clock=clock)
    copies = Copies(clock, (3, 1), (2, 2), (1, 3))

    async def main() -> None:
        assert await hedge.acall(copies) == 3

    clock.run(main())
    assert copies.began == [0, 0, 0]


@pytest.mark.parametrize("early", [True, False])
def test_an_answer_of_the_same_moment_needs_no_copy(clock: Strict, early: bool) -> None:
    hedge = Hedge(1.0, clock=clock)
    seen = Recorder(hedge)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()

        async def work() -> str:
            if not early:
                loop.call_later(1.0, future.set_result, "here")
            return await future

        if early:
            loop.call_later(1.0, future.set_result, "here")
        assert await hedge.acall(work) == "here"
        await asyncio.sleep(5)

    clock.run(main())
    assert seen.kinds == []


def test_two_that_win_at_one_moment_are_one_answer(clock: Strict) -> None:
    hedge = Hedge(1.0, attempts=3, clock=clock)
    seen = Recorder(hedge)
    copies = Copies(clock, (60, 1), (2, 2), (1, ValueError("of the same moment")))

    async def main() -> None:
        assert await hedge.acall(copies) == 2

    clock.run(main())
    assert seen.kinds == ["hedged", "hedged", "won"]


def test_a_function_that_only_returns_an_awaitable_will_do(clock: Strict) -> None:
    hedge = Hedge(1.0, clock=clock)
    copies = Copies(clock, (60, 1), (1, 2))

    async def main() -> None:
        assert await hedge.around_async(lambda: asyncio.ensure_future(copies()))() == 2

    clock.run(main())
    assert copies.ended[-1][:2] == (1, "cancelled")


def test_how_a_copy_is_started_is_up_to_the_kind_of_race(clock: Strict) -> None:
    with pytest.raises(NotImplementedError):
        _race.Race(Hedge(1.0, clock=clock), clock.time, print).spawn(2)


# -- asynchronous: failures


def test_a_failure_starts_the_next_at_once(clock: Strict) -> None:
    hedge = Hedge(5.0, attempts=3, clock=clock)
    seen = Recorder(hedge)
    copies = Copies(clock, (1, OSError("one")), (1, OSError("two")), (1, "third"))

    async def main() -> None:
        assert await hedge.acall(copies) == "third"

    clock.run(main())
    assert copies.began == [0, 1, 2]
    assert details(seen) == [
        ("hedged", {"copy": 2, "why": "failure"}),
        ("hedged", {"copy": 3, "why": "failure"}),
        ("won", {"copy": 3, "copies": 3}),
    ]


def test_after_a_failure_the_delay_begins_anew(clock: Strict) -> None:
    hedge = Hedge(5.0, attempts=3, clock=clock)
    copies = Copies(clock, (1, OSError("one")), (60, "second"), (1, "third"))

    async def main() -> None:
        assert await hedge.acall(copies) == "third"

    clock.run(main())
    assert copies.began == [0, 1, 6]


def test_a_failure_starts_none_where_that_is_not_wanted(clock: Strict) -> None:
    hedge = Hedge(2.0, on_failure=False, clock=clock)
    alone = Copies(clock, (1, OSError("mine")))

    async def main() -> None:
        with pytest.raises(OSError, match="mine"):
            await hedge.acall(alone)
        both = Copies(clock, (3, OSError("mine")), (4, "second"))
        assert await hedge.acall(both) == "second"  # but the copies that there are have time

    clock.run(main())
    assert alone.began == [0]


def test_when_all_fail_the_last_failure_tells_of_the_others(clock: Strict) -> None:
    hedge = Hedge(1.0, attempts=3, clock=clock)
    mine = OSError("one"), OSError("two"), OSError("three")

    async def main() -> None:
        for seconds, last in (((9, 6, 3), 0), ((1, 1, 1), 2)):
            hedge.on_failure = last == 2
            copies = Copies(clock, *zip(seconds, mine, strict=True))
            with pytest.raises(OSError) as caught:  # noqa: PT011
                await hedge.acall(copies)
            assert caught.value is mine[last]
            assert caught.value.__context__ is None
            assert len(copies.began) == 3
        assert notes(mine[2]) == [
            "hedge: copy 1 failed before: OSError: one",
            "hedge: copy 2 failed before: OSError: two",
        ]
        assert notes(mine[0])[:2] == [
            "hedge: copy 3 failed before: OSError: three",
            "hedge: copy 2 failed before: OSError: two",
        ]

    clock.run(main())


def test_a_value_can_be_a_failure(clock: Strict) -> None:
    hedge = Hedge(1.0, result=lambda value: value == "bad", clock=clock)

    async def main() -> None:
        assert await hedge.acall(Copies(clock, (0.5, "bad"), (1, "good"))) == "good"
        assert await hedge.acall(Copies(clock, (0.5, "good"))) == "good"
        assert await hedge.acall(Copies(clock, (0.5, "bad"), (1, "bad"))) == "bad"
        copies = Copies(clock, (3, "bad"), (9, "good"))
        assert await hedge.acall(copies) == "good"
        assert copies.at() == 10
        with pytest.raises(OSError, match="mine") as caught:
            await hedge.acall(Copies(clock, (0.5, "bad"), (1, OSError("mine"))))
        assert notes(caught.value) == ["hedge: copy 1 failed before: a value that is a failure"]
        hedge.attempts = 1
        assert await hedge.acall(Copies(clock, (0.5, "bad"))) == "bad"

    clock.run(main())


def test_one_and_the_same_error_is_not_told_with_itself(clock: Strict) -> None:
    hedge = Hedge(1.0, clock=clock)
    mine = OSError("mine")

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(OSError, match="mine"):
                await hedge.acall(Copies(clock, (0.5, mine), (1, mine)))

    clock.run(main())
    assert notes(mine) == []


def test_notes_are_bounded_and_never_in_the_way() -> None:
    class UnwritableError(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    error = OSError("mine")
    _race.note(error, "hedge", "copy 1 failed before", UnwritableError())
    assert notes(error) == []
    for _ in range(99):
        _race.note(error, "hedge", "copy 1 failed before", OSError("x" * 9999))
    assert len(notes(error)) == 8
    assert max(map(len, notes(error))) == 300


def test_an_error_that_is_no_failure_is_an_answer(clock: Strict) -> None:
    hedge = Hedge(1.0, unless=KeyError, clock=clock)
    seen = Recorder(hedge)

    async def main() -> None:
        alone = Copies(clock, (0.5, KeyError("first")))
        with pytest.raises(KeyError, match="first"):
            await hedge.acall(alone)
        assert alone.began == [0]
        both = Copies(clock, (60, "late"), (0.5, KeyError("second")))
        with pytest.raises(KeyError, match="second"):
            await hedge.acall(both)
        assert both.at() == 1.5

    clock.run(main())
    assert seen.kinds == ["hedged", "won"]


@pytest.mark.parametrize("first", [True, False])
def test_what_the_judge_raises_comes_out(clock: Strict, first: bool) -> None:
    def when(error: Exception) -> bool:
        raise ZeroDivisionError("the judge's")

    hedge = Hedge(1.0, when=when, clock=clock)
    plans = [(0.5, OSError("mine"))] if first else [(60, "late"), (0.5, OSError("mine"))]

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await hedge.acall(Copies(clock, *plans))

    clock.run(main())


def test_what_the_judge_of_values_raises_comes_out(clock: Strict) -> None:
    def result(value: Any) -> bool:
        raise ZeroDivisionError("the judge's")

    hedge = Hedge(1.0, result=result, clock=clock)

    async def main() -> None:
        for plans in ([(0.5, 1)], [(3, 1), (60, 2)]):
            with pytest.raises(ZeroDivisionError):
                await hedge.acall(Copies(clock, *plans))

    clock.run(main())


# -- asynchronous: rejections are neutral


def test_a_rejected_first_copy_starts_no_other(clock: Strict) -> None:
    hedge = Hedge(1.0, clock=clock)
    copies = Copies(clock, (0, BreakerOpen("breaker", "open")))

    async def main() -> None:
        with pytest.raises(BreakerOpen):
            await hedge.acall(copies)
        await asyncio.sleep(5)

    clock.run(main())
    assert copies.began == [0]


def test_a_rejected_copy_fails_no_call(clock: Strict) -> None:
    hedge = Hedge(1.0, clock=clock)
    full = BulkheadFull("bulkhead", "full")

    async def main() -> None:
        assert await hedge.acall(Copies(clock, (3, "first"), (0, full))) == "first"
        assert await hedge.acall(Copies(clock, (3, full), (9, "second"))) == "second"
        with pytest.raises(OSError, match="the real one"):
            await hedge.acall(Copies(clock, (3, OSError("the real one")), (0, full)))
        with pytest.raises(OSError, match="the real one"):
            await hedge.acall(Copies(clock, (0.5, OSError("the real one")), (0, full)))
        with pytest.raises(BulkheadFull):
            await hedge.acall(Copies(clock, (3, full), (0, full)))

    clock.run(main())


def test_a_rejection_is_a_failure_where_it_is_named(clock: Strict) -> None:
    hedge = Hedge(1.0, on=(Exception, Rejected), clock=clock)

    async def main() -> None:
        copies = Copies(clock, (0, BulkheadFull("bulkhead", "full")), (1, "second"))
        assert await hedge.acall(copies) == "second"

    clock.run(main())


# -- asynchronous: the budget


def test_a_budget_that_is_used_up_fails_no_call(clock: Strict) -> None:
    """failsafe-go#141."""
    budget = RetryBudget(ratio=0, floor_per_s=0.1, clock=clock)
    hedge = Hedge(1.0, attempts=3, budget=budget, clock=clock)
    seen = Recorder(hedge)

    async def main() -> None:
        copies = Copies(clock, (5, "first"), (60, "second"))
        assert await hedge.acall(copies) == "first"
        assert copies.began == [0, 1]
        copies = Copies(clock, (3, "first"))
        assert await hedge.acall(copies) == "first"
        with pytest.raises(OSError, match="mine"):
            await hedge.acall(Copies(clock, (0.5, OSError("mine"))))

    clock.run(main())
    assert details(seen) == [
        ("hedged", {"copy": 2, "why": "delay"}),
        ("not_hedged", {"why": "budget"}),
        ("won", {"copy": 1, "copies": 2}),
        ("not_hedged", {"why": "budget"}),
        ("not_hedged", {"why": "budget"}),
    ]


def test_calls_pay_in_and_copies_pay_before_they_start(clock: Strict) -> None:
    budget = RetryBudget(ratio=0.5, floor_per_s=0, clock=clock)
    hedge = Hedge(1.0, budget=budget, clock=clock)
    left = []

    async def work() -> str:
        left.append(budget.left)
        await asyncio.sleep(3)
        return "done"

    async def main() -> None:
        await asyncio.gather(*(hedge.acall(work) for _ in range(4)))

    clock.run(main())
    assert left == [0.5, 1.0, 1.5, 2.0, 0.0, 0.0]  # both have paid before either ran


def test_no_copy_is_started_after_the_deadline(clock: Strict) -> None:
    hedge = Hedge(1.0, clock=clock)
    seen = Recorder(hedge)

    async def main() -> None:
        with Deadline(2.0, clock=clock):
            clock.advance(3)
            with pytest.raises(OSError, match="mine"):
                await hedge.acall(Copies(clock, (0, OSError("mine"))))

    clock.run(main())
    assert details(seen) == [("not_hedged", {"why": "deadline"})]


# -- asynchronous: cancellation

PLANS: dict[str, list[tuple[float, Any]]] = {
    "all hang": [(60, 1), (60, 2), (60, 3)],
    "first fails": [(0.5, OSError()), (60, 2), (60, 3)],
    "second wins": [(60, 1), (1.25, 2), (60, 3)],
    "first wins": [(2.25, 1), (60, 2), (60, 3)],
}


@pytest.mark.parametrize("plans", PLANS.values(), ids=list(PLANS))
@pytest.mark.parametrize("at", [0, 0.5, 0.75, 1, 1.5, 2, 2.25, 2.375, 2.5])
@pytest.mark.parametrize("times", [1, 2])
def test_cancelling_the_caller_cancels_all(
    clock: Strict, plans: list[tuple[float, Any]], at: float, times: int
) -> None:
    """At every await: before and after copies start, while losers clean up."""
    hedge = Hedge(1.0, attempts=3, clock=clock)
    copies = Copies(clock, *plans, cleanup_s=0.25)

    async def main() -> None:
        task = asyncio.ensure_future(hedge.acall(copies))
        await asyncio.sleep(at)
        over = task.done()
        for _ in range(times):
            task.cancel()
        assert task.cancelling() >= times or over
        with contextlib.suppress(asyncio.CancelledError):
            await task
            assert over
        assert task.cancelled() or over
        assert copies.alive == 0
        assert len(asyncio.all_tasks()) == 1
        began = len(copies.began)
        await asyncio.sleep(9.0)
        assert len(copies.began) == began

    clock.run(main())


def test_a_second_cancellation_reaches_the_clean_up(clock: Strict) -> None:
    hedge = Hedge(1.0, clock=clock)
    copies = Copies(clock, (1.5, "first"), (60, "second"), cleanup_s=100)

    async def main() -> None:
        task = asyncio.ensure_future(hedge.acall(copies))
        await asyncio.sleep(2)  # the first has won, the second takes its time
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert copies.at() == 2
        assert copies.alive == 0

    clock.run(main())


@pytest.mark.parametrize("before", [True, False])
def test_a_caller_cancelled_at_the_moment_of_the_win_stays_cancelled(
    clock: Strict, before: bool
) -> None:
    hedge = Hedge(1.0, clock=clock)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[str]] = []

        async def work() -> str:
            futures.append(loop.create_future())
            return await futures[-1]

        task = asyncio.ensure_future(hedge.acall(work))
        await asyncio.sleep(2)
        futures[1].set_result("second")
        if before:
            task.cancel()
        else:
            while not task.cancelling():
                await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1

    clock.run(main())


def test_what_the_first_does_when_it_is_cancelled_does_not_matter(clock: Strict) -> None:
    hedge = Hedge(1.0, clock=clock)

    async def main() -> None:
        for last in ("a value", OSError("of the clean up")):
            count = 0

            async def work(last: Any = last) -> Any:
                nonlocal count
                count += 1
                if count == 2:
                    return "second"
                try:
                    await forever()
                except asyncio.CancelledError:
                    if isinstance(last, Exception):
                        raise last from None
                    return last

            assert await hedge.acall(work) == "second"
            assert this_task().cancelling() == 0

    clock.run(main())


def test_a_caller_that_is_being_cancelled_cleans_up_undisturbed(clock: Strict) -> None:
    """Nor is a copy started for it."""
    hedge = Hedge(1.0, attempts=3, clock=clock)
    copies = Copies(clock, (60, 1), (2, 2), (60, 3), cleanup_s=5)

    async def main() -> None:
        task = asyncio.ensure_future(hedge.acall(copies))
        await asyncio.sleep(1.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    clock.run(main())
    assert copies.began == [0, 1]
    assert copies.ended == [(2, "ended", 3), (1, "cancelled", 6.5)]


def test_what_is_no_exception_comes_out_of_any_copy(clock: Strict) -> None:
    hedge = Hedge(1.0, clock=clock)

    async def main() -> None:
        for plans in (
            [(0.5, Fatal())],
            [(3, Fatal()), (60, 2)],
            [(60, 1), (3, Fatal())],
        ):
            copies = Copies(clock, *plans)
            with pytest.raises(Fatal):
                await hedge.acall(copies)
            assert copies.alive == 0
        count = 0

        async def dies() -> Any:
            nonlocal count
            count += 1
            if count == 2:
                return "second"
            try:
                await forever()
            finally:
                raise Fatal()

        with pytest.raises(Fatal):
            await hedge.acall(dies)

    clock.run(main())


def test_a_copy_that_somebody_else_cancels_is_out(clock: Strict) -> None:
    hedge = Hedge(1.0, clock=clock)

    async def main() -> None:
        for plans, ends in (([(5, "first"), (60, 2)], "first"), ([(2, OSError()), (60, 2)], None)):
            copies = Copies(clock, *plans)
            before = asyncio.all_tasks()
            task = asyncio.ensure_future(hedge.acall(copies))
            await asyncio.sleep(1.5)
            (second,) = asyncio.all_tasks() - before - {task}
            second.cancel()
            if ends is None:
                with pytest.raises(OSError):  # noqa: PT011
                    await task
            else:
                assert await task == ends

    clock.run(main())


@pytest.mark.parametrize("stage", ["alone", "hedged", "failed", "clearing"])
def test_a_coroutine_that_is_closed_leaves_nothing(clock: Strict, stage: str) -> None:
    hedge = Hedge(1.0, clock=clock)
    plans, at = {
        "alone": ([(60, 1)], 0.5),
        "hedged": ([(60, 1), (60, 2)], 1.5),
        "failed": ([(0.5, OSError()), (60, 2)], 0.75),
        "clearing": ([(1.5, 1), (60, 2)], 1.625),
    }[stage]
    copies = Copies(clock, *plans, cleanup_s=0.25 if stage == "clearing" else 0)

    async def main() -> None:
        coroutine = hedge.acall(copies)
        task = asyncio.ensure_future(coroutine)
        await asyncio.sleep(at)
        coroutine.close()
        task.cancel()
        with contextlib.suppress(RuntimeError, asyncio.CancelledError):
            await task
        await asyncio.sleep(9)
        assert copies.alive == 0

    clock.run(main())


def test_a_call_whose_loop_is_gone_can_be_thrown_away() -> None:
    clock = FakeClock()
    hedge = Hedge(1.0, clock=clock)
    held: list[Any] = []

    async def main() -> None:
        tasks = _race.Tasks(asyncio.get_running_loop(), copy_context(), lambda number, task: None)
        tasks.start(2, forever, ((), {}))
        held.append(tasks)
        await asyncio.sleep(0)

    clock.run(main())
    held[0].alive[object()] = 3  # as if one had survived its loop
    held[0].cancel()
    assert hedge.busy == 0


def test_timeouts_inside_and_outside(clock: Strict) -> None:
    hedge = Hedge(1.0, clock=clock)

    async def main() -> None:
        for make in (lambda: asyncio.timeout(3), lambda: Timeout(3, clock=clock)):
            with pytest.raises(TimeoutError):
                async with make():
                    await hedge.acall(forever)
            assert this_task().cancelling() == 0
            count = 0

            async def work(make: Callable[[], Any] = make) -> Any:
                nonlocal count
                count += 1
                if count == 2:
                    return "second"
                async with make():
                    await forever()

            assert await hedge.acall(work) == "second"

        with pytest.raises(TimedOut):
            await hedge.acall(Timeout(3, clock=clock)(forever))
        assert this_task().cancelling() == 0
        at = clock.time
        with pytest.raises(TimedOut):  # of the very moment at which the copy wins
            await Timeout(3, clock=clock).acall(
                hedge.around_async(Copies(clock, (60, 1), (2, OSError()), (60, 2)))
            )
        assert clock.time == at + 3

    clock.run(main())


def test_a_hedge_in_a_hedge(clock: Strict) -> None:
    copies = Copies(clock, *[(60, "late")] * 3, (1, "last"))
    inner = Hedge(1.0, clock=clock)
    outer = Hedge(1.5, clock=clock)

    async def main() -> None:
        assert await outer.acall(inner.around_async(copies)) == "last"

    clock.run(main())
    assert copies.began == [0, 1, 1.5, 2.5]
    assert sorted(number for number, how, _ in copies.ended if how == "cancelled") == [1, 2, 3]


# -- asynchronous: around it


def test_copies_see_the_context_of_the_call(clock: Strict) -> None:
    here: ContextVar[str] = ContextVar("here")
    hedge = Hedge(1.0, attempts=3, clock=clock)
    seen: list[str] = []

    async def work() -> None:
        seen.append(here.get())
        here.set("changed inside")
        await asyncio.sleep(60)

    def told(event: Any) -> None:
        seen.append(f"told in {here.get()}")

    async def main() -> None:
        here.set("mine")
        hedge.subscribe(told)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await hedge.acall(work)

    clock.run(main())
    assert seen == ["mine", "told in mine", "mine", "told in mine", "mine"]


def test_what_is_told_of_later_copies_is_told_in_the_context_of_the_call(clock: Strict) -> None:
    here: ContextVar[str] = ContextVar("here")
    hedge = Hedge(9.0, attempts=3, clock=clock)
    seen: list[str] = []

    async def work() -> None:
        here.set("changed inside")
        await asyncio.sleep(1)
        raise OSError("mine")

    async def main() -> None:
        here.set("mine")
        hedge.subscribe(lambda event: seen.append(here.get()))
        with pytest.raises(OSError, match="mine"):
            await hedge.acall(work)

    clock.run(main())
    # The second is started by the first, which has changed what is the caller's own context.
    assert seen == ["changed inside", "mine"]


def test_what_a_loser_raises_is_nobodys_business(clock: Strict) -> None:
    """The loop does not complain of it either."""
    hedge = Hedge(1.0, clock=clock)
    count = 0

    async def work() -> str:
        nonlocal count
        count += 1
        if count == 1:
            await asyncio.sleep(1.5)
            return "first"
        try:
            await asyncio.sleep(60)
        finally:
            raise OSError("of the clean up")

    async def main() -> None:
        assert await hedge.acall(work) == "first"

    clock.run(main())


def test_only_the_newest_timer_counts(clock: Strict) -> None:
    fired: list[float] = []

    def delay_s() -> float:
        fired.append(clock.time)
        return 1.0

    lane = _race.Lane(lambda: clock.time, delay_s, lambda loop, lane, entry: None)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for left_s in (3, 2, 4):
            lane.arm(loop, left_s)
        await asyncio.sleep(9)

    clock.run(main())
    assert fired == [1004]


def test_a_task_factory_without_context_will_do(clock: Strict) -> None:
    here: ContextVar[str] = ContextVar("here")
    hedge = Hedge(1.0, clock=clock)

    async def work() -> str:
        await asyncio.sleep(1.5 if here.get() == "mine" else 60)
        return here.get()

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(
            lambda loop, coroutine: asyncio.Task(coroutine, loop=loop)
        )
        here.set("mine")
        assert await hedge.acall(work) == "mine"

    clock.run(main())


def test_outside_a_task_nothing_can_be_cancelled(clock: Strict) -> None:
    hedge = Hedge(1.0, clock=clock)

    async def main() -> None:
        failed: list[BaseException] = []

        def step() -> None:
            try:
                hedge.acall(forever).send(None)
            except RuntimeError as error:
                failed.append(error)

        asyncio.get_running_loop().call_soon(step)
        await asyncio.sleep(1)
        assert "only what runs in a task" in str(failed[0])

    clock.run(main())


def test_generator_functions_are_refused() -> None:
    def work() -> Any:
        yield 1

    with pytest.raises(TypeError, match="generator function"):
        Hedge(1.0)(work)


def test_ended_calls_do_not_pile_up_behind_a_slow_one(clock: Strict) -> None:
    hedge = Hedge(100.0, clock=clock)

    class Thing:
        pass

    async def nothing(thing: object) -> None:
        await asyncio.sleep(1)

    async def main() -> None:
        slow = asyncio.ensure_future(hedge.acall(forever))
        await asyncio.sleep(0)
        thing = Thing()
        gone = weakref.ref(thing)
        await hedge.acall(nothing, thing)
        del thing
        assert gone() is None
        for _ in range(20):
            await asyncio.gather(*(hedge.acall(nothing, 0) for _ in range(20)))
        lane = hedge._here[1]
        assert len(lane.queue) < 140
        many = [asyncio.ensure_future(hedge.acall(forever)) for _ in range(150)]
        await asyncio.sleep(0)
        for one in many[:70]:
            one.cancel()
        await asyncio.sleep(0)
        slow.cancel()
        for one in many[70:]:
            one.cancel()
        await asyncio.wait([slow, *many])
        await asyncio.sleep(0)
        assert not lane.queue
        assert lane.dead == 0
        await asyncio.sleep(200)
        assert not lane.armed

    clock.run(main())


def test_the_timer_drops_what_has_ended(clock: Strict) -> None:
    hedge = Hedge(2.0, attempts=1, clock=clock)

    async def nap(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def main() -> None:
        slow = asyncio.ensure_future(hedge.acall(nap, 9.0))
        await asyncio.sleep(0.5)
        await hedge.acall(nap, 0.5)
        lane = hedge._here[1]
        assert (len(lane.queue), lane.dead) == (2, 1)
        await asyncio.sleep(2)
        assert (len(lane.queue), lane.dead) == (0, 0)
        await slow

    clock.run(main())


def test_each_loop_has_its_own_and_is_not_kept_alive() -> None:
    hedge = Hedge(1.0)
    seen = Recorder(hedge)
    loops: list[weakref.ref[Any]] = []

    async def main(clock: FakeClock) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        copies = Copies(clock, (60, "first"), (1, "second"))
        assert await hedge.acall(copies) == "second"

    for _ in range(3):
        clock = FakeClock()
        hedge.clock = clock
        clock.run(main(clock))
    assert seen.kinds == ["hedged", "won"] * 3
    hedge._here = (None, hedge._here[1])
    del clock
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3


def test_two_loops_take_turns(clock: Strict) -> None:
    """The lane used last is only a shortcut."""
    hedge = Hedge(1.0, clock=clock)
    first = asyncio.new_event_loop()
    second = asyncio.new_event_loop()

    async def quick() -> int:
        return 1

    try:
        lanes = set()
        for loop in (first, second, first, second):
            assert loop.run_until_complete(hedge.acall(quick)) == 1
            lanes.add(hedge._here[1])
        assert len(lanes) == 2
    finally:
        first.close()
        second.close()


# -- the percentile


def measured(clock: FakeClock, **options: Any) -> Hedge:
    options = {"percentile": 0.9, "window": 40, "min_delay_s": 0.01, **options}
    return Hedge(5.0, clock=clock, **options)


async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)


def test_the_delay_is_the_percentile_of_what_was_measured(clock: Strict) -> None:
    hedge = measured(clock)

    async def main() -> None:
        for n in range(9):
            await hedge.acall(nap, 0.1 * (n + 1))
        assert hedge.delay_s == 5.0  # too few
        await hedge.acall(nap, 1.0)
        assert hedge.delay_s == pytest.approx(0.9)
        hedge.on_failure = False
        for _ in range(39):
            await hedge.acall(nap, 0.2)
        assert hedge.delay_s == pytest.approx(0.6)
        await hedge.acall(nap, 0.2)
        assert hedge.delay_s == pytest.approx(0.2)  # the old ones have left the window
        for _ in range(40):
            await hedge.acall(nap, 0)
        assert hedge.delay_s == 0.01

    clock.run(main())


def test_the_delay_stays_below_its_ceiling(clock: Strict) -> None:
    hedge = measured(clock, max_delay_s=6.0, attempts=1)

    async def main() -> None:
        for _ in range(10):
            await hedge.acall(nap, 9.0)
        assert hedge.delay_s == 6.0

    clock.run(main())


def test_slow_first_copies_count_though_they_lost(clock: Strict) -> None:
    """Else the percentile would sink with every hedge that wins, and more would be hedged."""
    hedge = measured(clock, window=200)
    chance = random.Random(1)
    seen = Recorder(hedge)

    async def main() -> None:
        for _ in range(4000):
            first_s = 60.0 if chance.random() < 0.05 else chance.uniform(0.1, 0.2)
            await hedge.acall(Copies(clock, (first_s, 1), (0.001, 2)))

    clock.run(main())
    share = seen.kinds.count("hedged") / 4000
    assert 0.08 < share < 0.14
    assert hedge.delay_s == pytest.approx(0.195, abs=0.006)


def test_failures_count_only_when_they_come_late(clock: Strict) -> None:
    hedge = measured(clock)

    async def main() -> None:
        for _ in range(30):
            with contextlib.suppress(OSError):
                await hedge.acall(Copies(clock, (0.1, OSError()), (0.1, OSError())))
        assert len(hedge._seen) == 0
        assert await hedge.acall(Copies(clock, (6, OSError()), (3, "second"))) == "second"
        assert list(hedge._seen) == [6]
        with pytest.raises(BreakerOpen):
            await hedge.acall(Copies(clock, (0.1, BreakerOpen("breaker", "open"))))
        hedge.judge.unless = (KeyError,)
        with pytest.raises(KeyError):
            await hedge.acall(Copies(clock, (0.5, KeyError())))
        assert list(hedge._seen) == [6, 0.5]
        task = asyncio.ensure_future(hedge.acall(forever))
        await asyncio.sleep(9)
        task.cancel()
        await asyncio.wait([task])
        assert len(hedge._seen) == 2

    clock.run(main())


def test_a_shorter_delay_holds_at_once(clock: Strict) -> None:
    hedge = measured(clock)

    async def main() -> None:
        for _ in range(10):
            await hedge.acall(nap, 0.1)
        assert hedge.delay_s == pytest.approx(0.1)
        copies = Copies(clock, (3, "first"), (1, "second"))
        assert await hedge.acall(copies) == "second"
        assert copies.began == [0, 0.1]

    clock.run(main())


@pytest.mark.parametrize(
    "options",
    [
        {"delay_s": -1},
        {"delay_s": float("nan")},
        {"delay_s": float("inf")},
        {"attempts": 0},
        {"threads": -1},
        {"percentile": 0},
        {"percentile": 1},
        {"percentile": 0.95, "min_delay_s": 0},
        {"percentile": 0.95, "max_delay_s": float("inf")},
        {"percentile": 0.95, "delay_s": 20},
        {"percentile": 0.95, "delay_s": 0},
        {"percentile": 0.95, "window": 19},
        {"percentile": 0.999, "window": 999},
        {"percentile": 0.5, "window": 3},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(reversed(options))):
        Hedge(**{"delay_s": 1.0, **options})


def test_the_smallest_windows_will_do() -> None:
    Hedge(1.0, percentile=0.95, window=20)
    Hedge(1.0, percentile=0.999, window=1000)
    Hedge(1.0, percentile=0.5, window=4)


# -- a crowd, against a naive model


def model(plans: list[tuple[float, Any]], delay_s: float) -> tuple[Any, float]:
    """What a call gives and when, with ``on_failure``, by trying out all moments in turn."""
    began, ends = [0.0], [plans[0][0]]
    over: set[int] = set()
    last: Any = None
    while True:
        hedge_at = began[-1] + delay_s if len(began) < len(plans) else float("inf")
        running = [n for n in range(len(began)) if n not in over]
        if not running:
            return last, max(ends)
        first = min(running, key=lambda n: ends[n])
        if ends[first] <= hedge_at:
            over.add(first)
            last = plans[first][1]
            if not isinstance(last, Exception):
                return last, ends[first]
            if len(began) == len(plans):
                continue
            hedge_at = ends[first]
        began.append(hedge_at)
        ends.append(hedge_at + plans[len(began) - 1][0])


@pytest.mark.parametrize("seed", range(20))
def test_a_crowd_of_calls_does_as_the_model_says(clock: Strict, seed: int) -> None:
    chance = random.Random(seed)
    attempts = chance.choice([1, 2, 3, 4])
    hedge = Hedge(1.0, attempts=attempts, clock=clock)

    async def one(number: int) -> None:
        await asyncio.sleep(chance.uniform(0, 5))
        plans: list[tuple[float, Any]] = [
            (chance.uniform(0, 3), OSError(n) if chance.random() < 0.4 else (number, n))
            for n in range(attempts)
        ]
        copies = Copies(clock, *plans)
        expected, at = model(plans, 1.0)
        leaves = chance.uniform(0, 9)
        task = asyncio.ensure_future(hedge.acall(copies))
        done, _ = await asyncio.wait([task], timeout=leaves)
        if done:
            got: Any = task.exception() or task.result()
            assert got == expected
            assert copies.at() == pytest.approx(at, abs=1e-5)
        else:
            assert leaves <= at + 1e-5
            task.cancel()
            await asyncio.wait([task])
        assert copies.alive == 0
        assert copies.most <= attempts

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in range(60)))
        assert not hedge._here[1].queue

    clock.run(main())


# -- in threads


def threads_of(hedge: Hedge) -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith(f"everup-{hedge.name}-")]


def joined(hedge: Hedge) -> None:
    """Until all its threads have ended."""
    for thread in threads_of(hedge):
        thread.join(30)
    assert (hedge.busy, hedge.losers) == (0, 0)


class Threaded:
    """A call whose copies behave as their numbers say: in threads by their names, in the caller's
    own by how often it was called. ``None``: it hangs until ``release``."""

    def __init__(self, *plans: Any) -> None:
        self.plans = plans
        self.release = threading.Event()
        self.idents: list[int] = []

    def __call__(self) -> Any:
        self.idents.append(threading.get_ident())
        name = threading.current_thread().name
        number = int(name[-1]) if name.startswith("everup-") else len(self.idents)
        plan = self.plans[number - 1]
        if plan is None:
            assert self.release.wait(30)
            return "late"
        if isinstance(plan, BaseException):
            raise plan
        return plan


def test_a_sync_function_needs_threads() -> None:
    with pytest.raises(TypeError, match="cannot be cancelled"):
        Hedge(1.0)(lambda: 1)


def test_in_threads_a_quick_answer_needs_no_copy() -> None:
    hedge = Hedge(60.0, threads=4, name="quick")
    seen = Recorder(hedge)
    work = Threaded("first")
    assert hedge.call(work) == "first"
    assert work.idents != [threading.get_ident()]
    assert seen.kinds == []
    joined(hedge)


@pytest.mark.parametrize("delay_s", [0, 0.001])
def test_in_threads_a_copy_wins_and_the_loser_runs_on(delay_s: float) -> None:
    hedge = Hedge(delay_s, threads=4, name="loser")
    seen = Recorder(hedge)
    work = Threaded(None, "second")
    assert hedge.call(work) == "second"
    assert (hedge.busy, hedge.losers) == (1, 1)
    assert details(seen) == [
        ("hedged", {"copy": 2, "why": "delay"}),
        ("won", {"copy": 2, "copies": 2}),
    ]
    work.release.set()
    joined(hedge)


def test_in_threads_a_call_without_a_free_one_is_made_alone() -> None:
    hedge = Hedge(0.0, threads=2, name="few")
    seen = Recorder(hedge)
    hung = Threaded(None, "second")
    assert hedge.call(hung) == "second"  # one of the two hangs now
    for thread in threads_of(hedge):
        if thread.name.endswith("2"):
            thread.join(30)
    assert (hedge.busy, hedge.losers) == (1, 1)
    work = Threaded(None)
    caller = threading.Thread(target=hedge.call, args=(work,))
    ready = threading.Event()
    hedge.subscribe(lambda event: ready.set() if event.kind == "not_hedged" else None)
    caller.start()
    assert ready.wait(30)  # there is no thread for its copy
    alone = Threaded("mine", OSError("mine"))
    assert hedge.call(alone) == "mine"
    with pytest.raises(OSError, match="mine"):
        hedge.call(alone)
    assert alone.idents == [threading.get_ident()] * 2
    hung.release.set()
    work.release.set()
    caller.join(30)
    assert [kind for kind, detail in details(seen) if detail.get("why") == "threads"] == [
        "not_hedged"
    ] * 3
    joined(hedge)


def test_in_threads_failures_are_as_they_are_in_tasks() -> None:
    hedge = Hedge(60.0, threads=4, attempts=3, name="fails")
    seen = Recorder(hedge)
    assert hedge.call(Threaded(OSError(), OSError(), "third")) == "third"
    assert seen.kinds == ["hedged", "hedged", "won"]
    with pytest.raises(OSError, match="three") as caught:
        hedge.call(Threaded(OSError("one"), OSError("two"), OSError("three")))
    assert notes(caught.value) == [
        "fails: copy 1 failed before: OSError: one",
        "fails: copy 2 failed before: OSError: two",
    ]
    with pytest.raises(BreakerOpen):
        hedge.call(Threaded(BreakerOpen("breaker", "open")))
    with pytest.raises(SystemExit):
        hedge.call(Threaded(SystemExit(3)))
    with pytest.raises(OSError, match="one"):
        hedge.call(Threaded(OSError("one"), BreakerOpen("breaker", "open")))
    joined(hedge)


def test_in_threads_the_budget_is_charged() -> None:
    budget = RetryBudget(ratio=0, floor_per_s=0.1)
    hedge = Hedge(0.0, threads=9, attempts=3, budget=budget, name="paid")
    seen = Recorder(hedge)
    work = Threaded(None, None)
    hedge.subscribe(lambda event: work.release.set() if event.kind == "not_hedged" else None)
    assert hedge.call(work) == "late"
    assert details(seen)[:2] == [
        ("hedged", {"copy": 2, "why": "delay"}),
        ("not_hedged", {"why": "budget"}),
    ]
    joined(hedge)


def test_threads_get_the_context_of_the_call() -> None:
    here: ContextVar[str] = ContextVar("here")
    here.set("mine")
    hedge = Hedge(0.0, threads=2, attempts=2, name="context")
    got: list[str] = []
    both = threading.Barrier(2, timeout=30)

    def work() -> None:
        got.append(here.get())
        here.set("changed inside")
        both.wait()

    hedge.call(work)
    assert got == ["mine", "mine"]
    assert here.get() == "mine"
    joined(hedge)


def test_a_caller_that_is_interrupted_leaves_its_copies_behind() -> None:
    calls = 0

    def now() -> float:
        nonlocal calls
        calls += 1
        if calls == 4:  # not the start of the call, nor of its copy: while it waits
            raise KeyboardInterrupt
        return 1000.0

    hedge = Hedge(60.0, threads=2, name="interrupted", clock=Clock(now=now))
    work = Threaded(None)
    calls = 1
    with pytest.raises(KeyboardInterrupt):
        hedge.call(work)
    assert (hedge.busy, hedge.losers) == (1, 1)
    work.release.set()
    joined(hedge)


def test_where_the_system_gives_no_thread_the_caller_does_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    hedge = Hedge(0.0, threads=2, name="none")
    assert hedge.call(lambda: "mine") == "mine"
    assert (hedge.busy, hedge.losers) == (0, 0)


def test_in_threads_the_percentile_is_measured() -> None:
    time = 1000.0
    clock = Clock(now=lambda: time)
    hedge = Hedge(5.0, threads=2, percentile=0.75, window=4, name="measured", clock=clock)

    def work() -> None:
        nonlocal time
        time += 2.0

    for _ in range(4):
        hedge.call(work)
    assert hedge.delay_s == 2.0
    joined(hedge)


def test_in_threads_a_slow_first_counts_though_it_lost() -> None:
    hedge = Hedge(0.001, threads=2, percentile=0.75, window=4, name="slow")
    work = Threaded(None, "second")
    assert hedge.call(work) == "second"
    assert len(hedge._seen) == 1
    assert hedge._seen[0] >= 0.001
    work.release.set()
    joined(hedge)
    assert len(hedge._seen) == 1


class MineError(Exception):
    pass


def test_nothing_keeps_an_error_alive(clock: Strict) -> None:
    """No circles through tracebacks: they would pile up until a collection."""

    def fail() -> None:
        raise MineError

    async def fail_later() -> None:
        await asyncio.sleep(0.5)
        raise MineError

    async def main() -> None:
        gone: Any = None
        try:
            await hedge.acall(fail_later)
        except MineError as error:
            gone = weakref.ref(error)
        assert gone() is None

    threaded = Hedge(60.0, threads=2, name="cycle")
    hedge = Hedge(1.0, clock=clock)
    gc.disable()
    try:
        gone: Any = None
        try:
            threaded.call(fail)
        except MineError as error:
            gone = weakref.ref(error)
        joined(threaded)
        assert gone() is None
        clock.run(main())
    finally:
        gc.enable()
