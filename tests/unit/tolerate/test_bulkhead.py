"""At most so many calls at once."""

import asyncio
import gc
import random
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from everup.tolerate import _queue, bulkhead
from everup.tolerate._clock import Clock
from everup.tolerate.bulkhead import Bulkhead
from everup.tolerate.errors import BulkheadFull
from everup.tolerate.testing import FakeClock, Recorder, _loop


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


async def turns(count: int = 8) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def leave(limited: Bulkhead) -> None:
    limited.__exit__(None, None, None)


def idle(limited: Bulkhead) -> bool:
    """No place lost, none won, nobody forgotten."""
    return len(limited._places.free) == limited.limit and limited.waiting == 0


class Crowd:
    """Tasks that hold a place until told to leave."""

    def __init__(self, limited: Bulkhead, block: bool) -> None:
        self.limited, self.block = limited, block
        self.inside: list[int] = []
        self.leave: dict[int, asyncio.Event] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    def come(self, *numbers: int) -> None:
        for n in numbers:
            self.leave[n] = asyncio.Event()
            self.tasks[n] = asyncio.ensure_future(self._one(n))

    async def _one(self, n: int) -> None:
        if self.block:
            async with self.limited:
                await self._inside(n)
        else:
            await self.limited.acall(self._inside, n)

    async def _inside(self, n: int) -> None:
        self.inside.append(n)
        await self.leave[n].wait()

    async def go(self, *numbers: int) -> None:
        for n in numbers:
            self.leave[n].set()
        await turns()


BLOCK = pytest.mark.parametrize("block", [False, True])


# -- the plain cases


def test_sync_limits_and_gives_back(clock: FakeClock) -> None:
    limited = Bulkhead(2, clock=clock)
    seen = Recorder(limited)

    @limited
    def work(depth: int) -> int:
        "Works."
        assert limited.in_use == 3 - depth
        return work(depth - 1) if depth > 1 else 7

    assert work.__doc__ == "Works."
    assert work(2) == 7
    errors = []
    for _ in range(2):
        with pytest.raises(BulkheadFull, match="bulkhead: full") as caught:
            limited.call(lambda: limited.call(lambda: work(1)))
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert errors[0].retry_after_s is None
    assert errors[0].__cause__ is None
    assert errors[0].__context__ is None
    assert [(e.kind, e.detail["why"]) for e in seen.events] == [("rejected", "full")] * 2
    for error in (ValueError, KeyboardInterrupt, GeneratorExit):

        def fail(error: type[BaseException] = error) -> None:
            raise error("mine")

        with pytest.raises(error, match="mine"):
            limited.call(fail)
    with limited, limited:
        assert limited.in_use == 2
        assert not limited.forgettable
        with pytest.raises(BulkheadFull), limited:
            pytest.fail("entered")
    assert idle(limited)
    assert limited.forgettable


@BLOCK
def test_async_limits_and_gives_back(clock: FakeClock, block: bool) -> None:
    limited = Bulkhead(2, clock=clock)

    async def main() -> None:
        crowd = Crowd(limited, block)
        crowd.come(1, 2, 3)
        await turns()
        assert crowd.inside == [1, 2]
        with pytest.raises(BulkheadFull):
            await crowd.tasks[3]
        crowd.tasks[1].cancel()
        await turns()
        assert limited.in_use == 1
        await crowd.go(2)

    clock.run(main())
    assert idle(limited)


@BLOCK
@pytest.mark.parametrize(("order", "inside"), [("fifo", [1, 2, 3, 4]), ("lifo", [1, 4, 3, 2])])
def test_the_queue_and_its_order(clock: FakeClock, block: bool, order: Any, inside: Any) -> None:
    limited = Bulkhead(1, 3, clock=clock, order=order)
    seen = Recorder(limited)

    async def main() -> None:
        crowd = Crowd(limited, block)
        crowd.come(1, 2, 3, 4, 5)
        await turns()
        assert (limited.in_use, limited.waiting) == (1, 3)
        with pytest.raises(BulkheadFull):
            await crowd.tasks[5]
        for n in inside:
            await crowd.go(n)
        assert crowd.inside == inside

    clock.run(main())
    assert seen.kinds == ["queued"] * 3 + ["rejected"]
    assert [e.detail for e in seen.events[:3]] == [{"waiting": n} for n in (1, 2, 3)]
    assert idle(limited)


@BLOCK
def test_nobody_gets_in_between(clock: FakeClock, block: bool) -> None:
    """The place that is given back is the waiter's, even before its task has run."""
    limited = Bulkhead(1, 2, clock=clock)

    async def main() -> None:
        crowd = Crowd(limited, block)
        crowd.come(1, 2)
        await turns()
        crowd.leave[1].set()
        crowd.come(3)  # asks after 1 has left, before 2 runs
        await turns()
        assert crowd.inside == [1, 2]
        await crowd.go(2, 3)
        assert crowd.inside == [1, 2, 3]

    clock.run(main())
    assert idle(limited)


def test_only_the_next_one_wakes_up(clock: FakeClock) -> None:
    limited = Bulkhead(1, 50, clock=clock)

    async def main() -> None:
        crowd = Crowd(limited, True)
        crowd.come(*range(50))
        await turns()
        await crowd.go(0)
        awake = [n for n, task in crowd.tasks.items() if not task.done() and n in crowd.inside]
        assert awake == [1]
        await crowd.go(*range(50))
        await turns(300)

    clock.run(main())
    assert idle(limited)


# -- waiting times


@BLOCK
def test_waited_too_long(clock: FakeClock, block: bool) -> None:
    limited = Bulkhead(1, 2, clock=clock, wait_s=1.5)
    seen = Recorder(limited)

    async def main() -> None:
        crowd = Crowd(limited, block)
        crowd.come(1, 2)
        await asyncio.sleep(1.0)
        crowd.come(3)
        with pytest.raises(BulkheadFull, match="time to wait"):
            await crowd.tasks[2]
        assert clock.time == pytest.approx(1001.5)
        await crowd.go(1)
        await asyncio.sleep(9.0)  # no timer is left
        await crowd.go(3)
        assert crowd.inside == [1, 3]

    clock.run(main())
    assert [e.detail.get("why") for e in seen.events] == [None, None, "waited"]
    assert idle(limited)


@BLOCK
def test_an_early_timer_waits_on(clock: FakeClock, block: bool) -> None:
    half = FakeClock()
    half.now = lambda: clock.time / 2
    limited = Bulkhead(1, 1, clock=half, wait_s=1.0)

    async def main() -> None:
        crowd = Crowd(limited, block)
        crowd.come(1, 2)
        with pytest.raises(BulkheadFull):
            await crowd.tasks[2]
        assert clock.time == pytest.approx(1002.0)
        await crowd.go(1)

    clock.run(main())
    assert idle(limited)


def test_a_place_is_not_given_to_those_whose_time_is_over(clock: FakeClock) -> None:
    """The loop was busy, their timers have not fired yet."""
    limited = Bulkhead(1, 3, clock=clock, wait_s=1.0)

    async def main() -> None:
        crowd = Crowd(limited, True)
        crowd.come(1, 2)
        await asyncio.sleep(0.9)
        crowd.come(3)
        await turns()
        clock.advance(0.2)
        await crowd.limited.__aexit__(None, None, None)  # as if 1 had left in this very turn
        await turns()
        assert crowd.inside == [1, 3]
        with pytest.raises(BulkheadFull):
            await crowd.tasks[2]
        await crowd.go(3)
        limited._places.free.pop()  # what 1 will give back a second time
        await crowd.go(1)

    clock.run(main())
    assert idle(limited)


def test_sync_waited_too_long(clock: FakeClock) -> None:
    """Under a replaced clock, waiting is sleeping."""
    limited = Bulkhead(1, 1, clock=clock, wait_s=1.5)
    with limited, pytest.raises(BulkheadFull, match="time to wait"):
        limited.call(print)
    assert clock.slept == [1.5]
    assert idle(limited)


def test_sync_waited_too_long_in_real_time() -> None:
    limited = Bulkhead(1, 1, wait_s=0.001)
    with limited, pytest.raises(BulkheadFull, match="time to wait"), limited:
        pytest.fail("entered")
    assert idle(limited)


def test_sync_a_place_within_the_time(clock: FakeClock) -> None:
    limited = Bulkhead(1, 1, clock=clock, wait_s=1.5)
    clock.sleep = lambda seconds: limited.__exit__(None, None, None)
    limited.__enter__()
    assert limited.call(lambda: limited.in_use) == 1
    assert idle(limited)


# -- controlled delay


def test_a_burst_may_wait_and_a_standing_queue_may_not(clock: FakeClock) -> None:
    limited = Bulkhead(1, 9, clock=clock, target_s=0.005, interval_s=0.1)
    seen = Recorder(limited)
    ends: dict[int, float] = {}

    async def main() -> None:
        crowd = Crowd(limited, True)

        def note(n: int) -> Callable[[Any], None]:
            return lambda task: ends.__setitem__(n, round(clock.time - 1000.0, 4))

        def come(n: int) -> None:
            crowd.come(n)
            crowd.tasks[n].add_done_callback(note(n))

        come(0)
        for n in range(1, 4):  # 1 and 2 are a burst; when 3 comes it has stood for 0.12 s
            come(n)
            await asyncio.sleep(0.06)
        come(4)  # it was empty: a burst again
        await asyncio.sleep(0.2)
        assert ends == {1: 0.1, 2: 0.16, 3: 0.125, 4: 0.28}
        for n in range(1, 5):
            with pytest.raises(BulkheadFull, match="stands"):
                await crowd.tasks[n]
        await crowd.go(0)

    clock.run(main())
    assert [e.detail["why"] for e in seen.events if e.kind == "rejected"] == ["codel"] * 4
    assert idle(limited)


def test_codel_is_fifo_with_controlled_delay(clock: FakeClock) -> None:
    limited = Bulkhead(1, 9, clock=clock, order="codel", wait_s=9.0)

    async def main() -> None:
        crowd = Crowd(limited, True)
        crowd.come(1, 2, 3)
        await asyncio.sleep(0.09)
        await crowd.go(1)
        assert crowd.inside == [1, 2]
        crowd.come(4)
        await asyncio.sleep(0.02)  # 3 is over; it has stood for 0.11
        crowd.come(5, 6)
        began = clock.time
        with pytest.raises(BulkheadFull, match="stands"):
            await crowd.tasks[5]
        assert clock.time - began == pytest.approx(0.005)
        await crowd.go(2)
        assert crowd.inside == [1, 2, 4]
        await crowd.go(4)

    clock.run(main())
    assert idle(limited)
    assert Bulkhead(1, 1, order="codel", interval_s=0.001)._places._target_s == 0.001


def test_adaptive_lifo(clock: FakeClock) -> None:
    """First in first out in a burst; the newest first while the queue stands."""
    limited = Bulkhead(1, 9, clock=clock, order="lifo", target_s=0.1, interval_s=0.1)

    async def main() -> None:
        crowd = Crowd(limited, True)
        crowd.come(1, 2, 3)
        await turns()
        await crowd.go(1)
        assert crowd.inside == [1, 2]
        await asyncio.sleep(0.08)
        crowd.come(4, 5)
        await asyncio.sleep(0.03)  # 3 is over; it has stood for 0.11
        await crowd.go(2)
        assert crowd.inside == [1, 2, 5]
        await crowd.go(5, 4)
        assert crowd.inside == [1, 2, 5, 4]

    clock.run(main())
    assert idle(limited)


def test_the_shorter_of_both_times_counts(clock: FakeClock) -> None:
    limited = Bulkhead(1, 9, clock=clock, wait_s=0.05, target_s=0.01, interval_s=0.1)
    with limited, pytest.raises(BulkheadFull, match="time to wait"):
        limited.call(print)
    assert clock.slept == [pytest.approx(0.05)]


# -- cancelled


@BLOCK
@pytest.mark.parametrize("after", range(6))
@pytest.mark.parametrize("handed", [False, True])
def test_cancelled_at_every_await(clock: FakeClock, block: bool, after: int, handed: bool) -> None:
    """Also in the moment in which it was handed the place."""
    limited = Bulkhead(1, 2, clock=clock, wait_s=9.0)

    async def main() -> None:
        crowd = Crowd(limited, block)
        crowd.come(1)
        await turns()
        crowd.come(2, 3)
        for _ in range(after):
            await asyncio.sleep(0)
        if handed:
            crowd.leave[1].set()
            await asyncio.sleep(0)  # 1 gives it back, 2 has not run
        crowd.tasks[2].cancel()
        await turns()
        assert crowd.tasks[2].cancelled()
        await crowd.go(1)
        assert crowd.inside[-1] == 3
        await crowd.go(3)

    clock.run(main())
    assert idle(limited)


@BLOCK
def test_cancelled_before_the_place_is_given_back(clock: FakeClock, block: bool) -> None:
    """A cancelled waiter that has not run yet is passed over."""
    limited = Bulkhead(1, 2, clock=clock)

    async def main() -> None:
        crowd = Crowd(limited, block)
        crowd.come(1, 2, 3)
        await turns()
        crowd.tasks[2].cancel()
        crowd.leave[1].set()
        await turns()
        assert crowd.inside == [1, 3]
        crowd.come(4)
        await turns()
        crowd.tasks[4].cancel()
        await crowd.go(3)

    clock.run(main())
    assert idle(limited)


def test_a_cancelled_waiter_costs_the_next_no_time(clock: FakeClock) -> None:
    limited = Bulkhead(1, 2, clock=clock)

    async def main() -> None:
        crowd = Crowd(limited, True)
        crowd.come(1, 2, 3)
        await turns()
        crowd.tasks[2].cancel()
        leave(limited)
        assert limited.waiting == 0  # 3 has the place already
        await turns()
        crowd.tasks[1].cancel()
        limited._places.free.clear()  # 1 gave its place back above
        await turns()
        await crowd.go(3)

    clock.run(main())


def test_a_waiting_coroutine_that_is_thrown_away(clock: FakeClock) -> None:
    """GeneratorExit: once while it waits, once when it was handed the place."""
    limited = Bulkhead(1, 2, clock=clock)

    async def main() -> None:
        await limited.__aenter__()
        one, two = limited.__aenter__(), limited.__aenter__()
        one.send(None)
        two.send(None)
        one.close()
        assert limited.waiting == 1
        await limited.__aexit__(None, None, None)
        assert limited.in_use == 1
        two.close()
        assert idle(limited)

    clock.run(main())
    gc.collect()


@pytest.mark.parametrize("when", ["looked at", "chosen"])
def test_collected_while_it_is_chosen(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Garbage collection closes the waiting coroutine in the middle of the hand-over."""
    limited = Bulkhead(1, 2, clock=clock)

    async def main() -> None:
        await limited.__aenter__()
        one, two = limited.__aenter__(), limited.__aenter__()
        one.send(None)
        two.send(None)
        name = "alive" if when == "looked at" else "wake"
        step: Any = getattr(_queue.Waiter, name)

        def collect(waiter: _queue.Waiter) -> bool:
            found: bool = step(waiter)
            monkeypatch.setattr(_queue.Waiter, name, step)
            one.close()
            return found

        monkeypatch.setattr(_queue.Waiter, name, collect)
        leave(limited)
        assert (limited.in_use, limited.waiting) == (1, 0)
        with pytest.raises(StopIteration):  # the other has it
            two.send(None)
        leave(limited)

    clock.run(main())
    assert idle(limited)


def test_interrupted_threads_leave_the_queue(clock: FakeClock) -> None:
    limited = Bulkhead(1, 1, clock=clock, wait_s=1.0)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    clock.sleep = interrupt
    with limited, pytest.raises(KeyboardInterrupt):
        limited.call(print)
    assert idle(limited)


def test_a_listener_that_breaks_off(clock: FakeClock) -> None:
    limited = Bulkhead(1, 1, clock=clock)

    def interrupt(event: Any) -> None:
        raise KeyboardInterrupt

    limited.subscribe(interrupt)
    with limited, pytest.raises(KeyboardInterrupt):
        limited.call(print)
    assert idle(limited)


# -- several loops, and threads


def test_threads_and_loops_share_one_queue() -> None:
    limited = Bulkhead(2, 100)
    most, inside, lock = 0, 0, threading.Lock()
    meet = threading.Barrier(4, timeout=10)

    def step(by: int) -> None:
        nonlocal most, inside
        with lock:
            inside += by
            most = max(most, inside)

    @limited
    def blocking() -> None:
        step(1)
        step(-1)

    @limited
    async def task() -> None:
        step(1)
        await asyncio.sleep(0)
        step(-1)

    async def tasks() -> None:
        for _ in range(20):
            await asyncio.gather(*(task() for _ in range(10)))

    def in_thread() -> None:
        meet.wait()
        for _ in range(300):
            blocking()

    def in_loop() -> None:
        meet.wait()
        asyncio.run(tasks())

    threads = [threading.Thread(target=t) for t in (in_thread, in_thread, in_loop, in_loop)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert most <= 2
    assert idle(limited)


def test_a_waiter_on_a_closed_loop_is_passed_over(clock: FakeClock) -> None:
    limited = Bulkhead(1, 3, clock=clock)
    left: list[Any] = []

    async def leave_one_behind() -> None:
        waiting = limited.__aenter__()
        waiting.send(None)
        left.append(waiting)

    limited.__enter__()
    for _ in range(2):
        clock.run(leave_one_behind())
    assert limited.waiting == 2
    limited.__exit__(None, None, None)
    assert idle(limited)
    for one in left:
        one.close()
    assert idle(limited)


def test_a_closed_loop_whose_waiter_is_thrown_away_meanwhile(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = Bulkhead(1, 3, clock=clock)
    left: list[Any] = []

    async def leave_one_behind() -> None:
        waiting = limited.__aenter__()
        waiting.send(None)
        left.append(waiting)

    def wake(waiter: _queue.Waiter) -> bool:
        left.pop().close()
        return False

    limited.__enter__()
    clock.run(leave_one_behind())
    monkeypatch.setattr(_queue.Waiter, "wake", wake)
    limited.__exit__(None, None, None)
    assert idle(limited)


def test_woken_after_it_was_cancelled_on_another_loop(clock: FakeClock) -> None:
    limited = Bulkhead(1, 1, clock=clock)

    async def main() -> None:
        await limited.__aenter__()
        task = asyncio.ensure_future(limited.__aenter__())
        await turns()
        thread = threading.Thread(target=limited.__exit__, args=(None, None, None))
        thread.start()
        thread.join(10)  # told thread-safe: its future is still open
        task.cancel()
        await turns()
        assert task.cancelled()

    clock.run(main())
    assert idle(limited)


class Race(list[None]):
    """Places: what another thread does just after none was found (``missed``), just before one is
    put back (``early``) and just after (``late``)."""

    missed: Callable[[], Any] | None = None
    early: Callable[[], Any] | None = None
    late: Callable[[], Any] | None = None

    def _once(self, which: str) -> None:
        act = getattr(self, which)
        setattr(self, which, None)
        if act is not None:
            act()

    def pop(self, index: Any = -1) -> None:
        try:
            super().pop(index)
        except IndexError:
            self._once("missed")
            raise

    def append(self, item: None) -> None:
        self._once("early")
        super().append(item)
        self._once("late")


def racing(clock: FakeClock) -> tuple[Bulkhead, Race]:
    limited, race = Bulkhead(1, 2, clock=clock), Race([None])
    limited._places.free = race
    return limited, race


def test_a_place_comes_back_before_the_queue_is_joined(clock: FakeClock) -> None:
    limited, race = racing(clock)
    seen = Recorder(limited)

    def taken() -> None:
        limited.__enter__()
        race.missed = lambda: leave(limited)

    taken()
    assert limited.call(lambda: limited.in_use) == 1

    async def main() -> None:
        taken()
        assert await limited.acall(asyncio.sleep, 0, "in") == "in"

    clock.run(main())
    assert idle(limited)
    assert seen.kinds == []  # nobody had to wait


def joined(limited: Bulkhead) -> _queue.Waiter:
    waiter = _queue.Waiter(threading.Lock())
    waiter.gate.acquire()
    assert limited._places.join(waiter)
    return waiter


@pytest.mark.parametrize("stolen", [False, True])
@pytest.mark.parametrize("way", ["sync", "async", "block"])
def test_a_waiter_joins_before_the_place_is_put_back(
    clock: FakeClock, way: str, stolen: bool
) -> None:
    """It is found afterwards, also where a third, who saw no queue yet, was faster than both."""
    limited, race = racing(clock)
    waiters: list[_queue.Waiter] = []
    race.early = lambda: waiters.append(joined(limited))
    if stolen:
        race.late = race.pop
    if way == "sync":
        limited.call(int)
    elif way == "block":
        with limited:
            pass
    else:
        clock.run(limited.acall(asyncio.sleep, 0))
    (waiter,) = waiters
    if stolen:
        assert waiter.state == _queue.WAITING
        leave(limited)
    assert waiter.state == _queue.HELD
    assert waiter.gate.acquire(blocking=False)
    leave(limited)
    assert idle(limited)


@pytest.mark.parametrize("way", ["sync", "async", "block", "async block"])
def test_nobody_gets_in_between_in_a_race(clock: FakeClock, way: str) -> None:
    """A place is put back, its giver has not looked at the queue yet, and somebody asks."""
    limited = Bulkhead(1, 2, clock=clock, wait_s=1.0)
    limited._places.free.clear()
    waiter = joined(limited)
    limited._places.free.append(None)

    async def block() -> None:
        async with limited:
            pytest.fail("got in between")

    def ask() -> None:
        if way == "sync":
            limited.call(pytest.fail, "got in between")
        elif way == "block":
            with limited:
                pytest.fail("got in between")
        else:
            clock.run(limited.acall(forever) if way == "async" else block())

    with pytest.raises(BulkheadFull):
        ask()
    assert waiter.state == _queue.HELD


def test_a_thread_gets_the_place_of_one_that_leaves(clock: FakeClock) -> None:
    limited = Bulkhead(1, 1, clock=clock)
    end = limited.subscribe(lambda event: leave(limited))  # it leaves once the other is queued
    limited.__enter__()
    assert limited.call(lambda: limited.in_use) == 1
    end()
    waiters: list[_queue.Waiter] = []
    limited.call(lambda: waiters.append(joined(limited)))
    assert waiters[0].state == _queue.HELD
    late = joined(limited)
    leave(limited)
    assert limited._places.hold(late)
    leave(limited)
    assert idle(limited)


def test_no_lock_is_held_across_the_call() -> None:
    limited, meet = Bulkhead(2), threading.Barrier(2, timeout=10)
    threads = [threading.Thread(target=limited.call, args=(meet.wait,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not meet.broken
    assert idle(limited)


class Threads:
    """Real threads of which one runs at a time; who is next is drawn at every opcode of the code
    under test, and where one blocks. The same seed gives the same run. Time is virtual."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.time = 0.0
        self.clock = Clock(now=lambda: self.time, sleep=self.sleep)
        self.ready: list[int] = []
        self.asleep: dict[int, float] = {}
        self.turn: dict[int, threading.Semaphore] = {}
        self.me = threading.local()
        self.over = threading.Semaphore(0)
        self.errors: list[BaseException] = []

    def run(self, *targets: Callable[[], None]) -> None:
        for number, target in enumerate(targets):
            self.turn[number] = threading.Semaphore(0)
            self.ready.append(number)
            threading.Thread(target=self._body, args=(number, target), daemon=True).start()
        self._pass()
        assert self.over.acquire(timeout=30), "everybody blocks for ever"
        if self.errors:
            raise self.errors[0]

    def _body(self, number: int, target: Callable[[], None]) -> None:
        self.me.number = number
        self.turn[number].acquire()
        sys.settrace(self._trace)
        try:
            target()
        except BaseException as error:
            self.errors.append(error)
        finally:
            sys.settrace(None)
        self.ready.remove(number)
        self._pass()

    def _trace(self, frame: Any, what: str, arg: Any) -> Any:
        if frame.f_code.co_filename not in (_queue.__file__, bulkhead.__file__):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if what == "opcode" and self.random.random() < 0.2:
            self.give_way()
        return self._trace

    def _pass(self) -> None:
        if not self.ready and self.asleep:
            number = min(self.asleep, key=lambda n: self.asleep[n])
            self.time = max(self.time, self.asleep.pop(number))
            self.ready.append(number)
        if self.ready:
            self.turn[self.random.choice(self.ready)].release()
        else:
            # All done; or all block, which ``run`` then says.
            self.over.release()

    def give_way(self) -> None:
        self._pass()
        self.turn[self.me.number].acquire()

    def block(self) -> int:
        number: int = self.me.number
        self.ready.remove(number)
        self.give_way()
        return number

    def sleep(self, seconds: float) -> None:
        self.asleep[self.me.number] = self.time + seconds
        self.block()


class Lock:
    """Of ``Threads``; re-entrant where its owner takes it again and ``again`` is set."""

    def __init__(self, threads: Threads, again: bool) -> None:
        self.threads, self.again = threads, again
        self.owner: int | None = None
        self.depth = 0
        self.blocked: list[int] = []

    def acquire(self) -> bool:
        me = self.threads.me.number
        while self.depth and not (self.again and self.owner == me):
            self.blocked.append(me)
            self.threads.block()
        self.owner, self.depth = me, self.depth + 1
        return True

    def release(self) -> None:
        self.depth -= 1
        if not self.depth:
            self.threads.ready += self.blocked
            self.blocked.clear()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


@pytest.mark.parametrize("options", [{}, {"order": "lifo"}, {"wait_s": 1.0}])
@pytest.mark.parametrize("seed", range(20))
def test_threads_under_a_seeded_scheduler(
    seed: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = Threads(seed)
    monkeypatch.setattr(_queue, "new_lock", lambda: Lock(threads, again=True))
    monkeypatch.setattr(bulkhead, "new_gate", lambda: Lock(threads, again=False))
    limited = Bulkhead(1 + seed % 2, 1 + seed % 3, clock=threads.clock, **options)
    inside = done = 0

    def call() -> None:
        nonlocal inside, done
        inside += 1
        assert inside <= limited.limit
        if threads.random.random() < 0.5:
            threads.sleep(threads.random.random())
        else:
            threads.give_way()
        inside -= 1
        done += 1

    def body() -> None:
        nonlocal done
        for _ in range(4):
            try:
                limited.call(call)
            except BulkheadFull:
                done += 1

    threads.run(*[body] * 4)
    assert done == 16
    assert idle(limited)


@pytest.mark.parametrize("options", [{}, {"order": "lifo"}, {"wait_s": 1.0}, {"target_s": 0.1}])
@pytest.mark.parametrize("seed", range(25))
def test_tasks_under_a_seeded_scheduler(seed: int, options: dict[str, Any]) -> None:
    """Which ready task runs next is drawn; so is who is cancelled, and when."""
    clock, draw = FakeClock(), random.Random(seed)
    limited = Bulkhead(1 + seed % 3, 1 + seed % 4, clock=clock, **options)
    inside = 0

    async def call() -> None:
        nonlocal inside
        inside += 1
        try:
            assert inside <= limited.limit
            await asyncio.sleep(draw.choice([0, 0, 0.3, 2.0]))
        finally:
            inside -= 1

    async def body() -> None:
        for _ in range(5):
            try:
                await limited.acall(call)
            except BulkheadFull:
                await asyncio.sleep(draw.choice([0, 0.1]))

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        select = loop._selector.select

        def shuffled(timeout: float | None = None) -> Any:
            waiting = list(loop._ready)
            draw.shuffle(waiting)
            loop._ready.clear()
            loop._ready.extend(waiting)
            return select(timeout)

        loop._selector.select = shuffled
        tasks = [asyncio.ensure_future(body()) for _ in range(8)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(draw.choice([0, 0, 0.2]))
            if draw.random() < 0.1:
                draw.choice(tasks).cancel()
        assert all(task.cancelled() or task.result() is None for task in tasks)

    clock.run(main())
    assert idle(limited)


# -- against a naive model


class Naive(RuleBasedStateMachine):
    """Any order of coming, leaving, cancelling and time passing, with the loop running in between
    only where a rule says so: what happens in the same turn is in there."""

    def __init__(self) -> None:
        super().__init__()
        self.limited: Bulkhead | None = None
        # The model: who holds a place, who was handed one but has not run, who waits until when.
        self.held: list[int] = []
        self.handed: list[int] = []
        self.waiting: list[tuple[int, float]] = []
        self.rejected: set[int] = set()
        self.cancelled: set[int] = set()

    @precondition(lambda self: self.limited is None)
    @rule(
        limit=st.integers(1, 3),
        queue=st.integers(0, 3),
        order=st.sampled_from(["fifo", "lifo"]),
        wait_s=st.sampled_from([None, 2.5]),
    )
    def begin(self, limit: int, queue: int, order: Any, wait_s: float | None) -> None:
        self.clock = FakeClock()
        self.loop: Any = _loop(self.clock)
        self.wait_s = wait_s if queue else None
        self.limited = Bulkhead(limit, queue, clock=self.clock, order=order, wait_s=self.wait_s)
        self.limit, self.queue, self.newest = limit, queue, order == "lifo"
        self.tasks: list[asyncio.Task[Any]] = []

    ready = precondition(lambda self: self.limited is not None)

    def hand_on(self) -> None:
        if self.waiting:
            self.handed.append(self.waiting.pop(-1 if self.newest else 0)[0])

    def run_loop(self) -> None:
        self.loop.run_until_complete(turns())
        for n in [n for n in self.handed if n in self.cancelled]:
            self.handed.remove(n)
            self.hand_on()
        self.held += self.handed
        self.handed.clear()
        self.compare()

    def compare(self) -> None:
        assert self.limited is not None
        assert self.limited.in_use == len(self.held)
        assert self.limited.waiting == len(self.waiting)
        waiting = [n for n, _ in self.waiting]
        for n, task in enumerate(self.tasks):
            assert task.done() is (n not in waiting)
            if task.done():
                assert task.cancelled() is (n in self.cancelled)
                if not task.cancelled():
                    assert isinstance(task.exception(), BulkheadFull) is (n in self.rejected)

    @ready
    @rule()
    def settle(self) -> None:
        self.run_loop()

    @ready
    @rule()
    def come(self) -> None:
        assert self.limited is not None
        self.run_loop()
        n = len(self.tasks)
        self.tasks.append(self.loop.create_task(self.limited.__aenter__()))
        if not self.waiting and len(self.held) < self.limit:
            self.held.append(n)
        elif len(self.waiting) < self.queue:
            wait_s = 1e9 if self.wait_s is None else self.wait_s
            self.waiting.append((n, self.clock.time + wait_s))
        else:
            self.rejected.add(n)
        self.run_loop()

    @ready
    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        assert self.limited is not None
        self.held.remove(data.draw(st.sampled_from(self.held)))
        with pytest.raises(StopIteration):  # it never waits: no turn of the loop
            self.limited.__aexit__(None, None, None).send(None)
        self.hand_on()

    @ready
    @precondition(lambda self: self.waiting or self.handed)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        n = data.draw(st.sampled_from([n for n, _ in self.waiting] + self.handed))
        self.tasks[n].cancel()
        self.cancelled.add(n)
        self.waiting = [one for one in self.waiting if one[0] != n]

    @ready
    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0]))
    def time_passes(self, seconds: float) -> None:
        self.run_loop()
        self.clock.advance(seconds)
        over = {n for n, until in self.waiting if until <= self.clock.time}
        self.rejected |= over
        self.waiting = [one for one in self.waiting if one[0] not in over]
        self.run_loop()

    @invariant()
    def never_too_many(self) -> None:
        if self.limited is not None:
            assert len(self.held) + len(self.handed) <= self.limit
            assert self.limited.in_use <= self.limit

    def teardown(self) -> None:
        if self.limited is None:
            return
        self.run_loop()
        while self.held:
            self.held.pop()
            self.limited.__exit__(None, None, None)
            self.hand_on()
            self.run_loop()
        assert idle(self.limited)
        self.loop.close()


TestNaive = Naive.TestCase
TestNaive.settings = settings(deadline=None, max_examples=80, stateful_step_count=40)


# -- arguments


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"limit": 0}, "limit must be a whole number, 1 or more"),
        ({"queue": -1}, "queue must be a whole number, 0 or more"),
        ({"order": "random"}, "order must be"),
        ({"queue": 1, "wait_s": 0}, "wait_s must be above 0"),
        ({"queue": 1, "target_s": -1}, "target_s must be above 0"),
        ({"order": "codel"}, "target_s needs a queue"),
        ({"interval_s": 0}, "interval_s must be above 0"),
        ({"queue": 1, "target_s": 0.2}, "at most interval_s"),
        ({"wait_s": 1}, "wait_s needs a queue"),
        ({"target_s": 0.01}, "target_s needs a queue"),
    ],
)
def test_arguments(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Bulkhead(**options)


def test_generator_functions_are_refused() -> None:
    def generate() -> Any:
        yield 1

    with pytest.raises(TypeError, match="generator"):
        Bulkhead()(generate)


def thread_waiter() -> _queue.Waiter:
    gate = _queue.new_gate()
    gate.acquire()
    return _queue.Waiter(gate)


@pytest.mark.parametrize("queue", [0, 1])
def test_a_rejection_needs_no_event_loop(clock: FakeClock, queue: int) -> None:
    """Coroutines may be driven by hand, or by another library than asyncio."""
    limit = Bulkhead(1, queue, clock=clock)

    async def work() -> None: ...

    async def block() -> None:
        async with limit:
            pass

    with limit:
        for _ in range(queue):
            limit._join(thread_waiter())
        for one in (limit(work), block):
            with pytest.raises(BulkheadFull, match="full"):
                one().send(None)
        assert limit.waiting == queue


def test_a_queue_that_fills_up_in_the_last_moment_is_full(clock: FakeClock) -> None:
    limit = Bulkhead(1, 1, clock=clock)
    seen = Recorder(limit)
    with limit:
        limit._refuse_full()  # there is room
        limit._join(thread_waiter())  # another takes it
        with pytest.raises(BulkheadFull, match="full"):
            limit._join(thread_waiter())
        assert seen.kinds == ["queued", "rejected"]
