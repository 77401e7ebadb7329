"""The traps in which libraries of this kind sit, one section for each; then how policies go
together. By the public names alone; each for synchronous and asynchronous functions, for a policy
alone, in a pipeline, and in a pipeline within a pipeline."""

import asyncio
import contextvars
import gc
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _schedule import Tasks, Threads
from hypothesis import given, settings
from hypothesis import strategies as st

import everup.tolerate
from everup.tolerate import (
    AIMD,
    Breaker,
    BreakerOpen,
    Bulkhead,
    Chaos,
    Clock,
    Consecutive,
    Counts,
    Deadline,
    DeadlineExceeded,
    Fallback,
    Hedge,
    Keyed,
    Limit,
    Meter,
    NoQuorum,
    Pipeline,
    Policy,
    RateLimit,
    Rejected,
    Retry,
    RetryBudget,
    Shed,
    State,
    TimedOut,
    Timeout,
    Vote,
    arrived,
    check,
)
from everup.tolerate.testing import FakeClock, Recorder

CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
MODES = ("sync", "async")
SHAPES = ("alone", "pipeline", "nested")
NO_EXCEPTION = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)


class DownError(Exception):
    pass


def down() -> Any:
    raise DownError


def drive(coroutine: Any) -> Any:
    """Run a coroutine that waits for nothing; no event loop, which would take a KeyboardInterrupt
    for itself."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Mode:
    """How a function is guarded, and called."""

    def __init__(self, mode: str, shape: str, clock: FakeClock) -> None:
        self.asynchronous = mode == "async"
        self.shape = shape
        self.clock = clock

    def around(self, policy: Policy) -> Policy:
        if self.shape == "alone":
            return policy
        if self.shape == "pipeline":
            return Pipeline(policy)
        inner = Pipeline(policy, Bulkhead(1000, clock=self.clock))
        return Pipeline(Meter(clock=self.clock), inner)

    def guard(self, policy: Policy, do: Callable[..., Any]) -> Callable[..., Any]:
        """A plain function again, whatever the mode; for what waits for nothing."""
        guarded = self.around(policy)(self.function(do))
        return (lambda *args: drive(guarded(*args))) if self.asynchronous else guarded

    def guard_waiting(self, policy: Policy, do: Callable[..., Any]) -> Callable[..., Any]:
        """The same for what waits: on the clock's loop, each call on a loop of its own."""
        guarded = self.around(policy)(self.function(do))
        return (lambda *args: self.clock.run(guarded(*args))) if self.asynchronous else guarded

    def function(self, do: Callable[..., Any]) -> Callable[..., Any]:
        if not self.asynchronous:
            return do

        async def ado(*args: Any) -> Any:
            return do(*args)

        return ado


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, shape: str, clock: FakeClock) -> Mode:
    return Mode(request.param, shape, clock)


def breaker_of(clock: FakeClock, **options: Any) -> Breaker:
    return Breaker(clock=clock, **{"trip": Consecutive(2), "open_s": 10.0} | options)


def opened(clock: FakeClock, **options: Any) -> Breaker:
    breaker = breaker_of(clock, **options)
    while breaker.state is CLOSED:
        breaker.admit().failed()
    return breaker


def due(clock: FakeClock, **options: Any) -> Breaker:
    breaker = opened(clock, **options)
    clock.advance(10.0)
    return breaker


def policies_of(clock: Clock | None = None) -> dict[str, Callable[[], Policy]]:
    """One of each, through which a call passes."""
    return {
        "retry": lambda: Retry(clock=clock),
        "breaker": lambda: Breaker(clock=clock),
        "timeout": lambda: Timeout(5.0, clock=clock),
        "deadline": lambda: Deadline(5.0, clock=clock),
        "bulkhead": lambda: Bulkhead(8, clock=clock),
        "limit": lambda: Limit(clock=clock),
        "rate": lambda: RateLimit(100.0, clock=clock),
        "shed": lambda: Shed(clock=clock),
        "throttle": lambda: Shed("throttle", clock=clock),
        "fallback": lambda: Fallback(None, on=DownError, clock=clock),
        "last good": lambda: Fallback(last_good_s=5.0, on=DownError, clock=clock),
        "chaos": lambda: Chaos(enabled=True, clock=clock),
        "meter": lambda: Meter(clock=clock),
        "keyed": lambda: Keyed(lambda key: Breaker(clock=clock), key=lambda *args: 1, clock=clock),
    }


# -- half-open herd


@pytest.mark.parametrize("probes", [1, 3])
def test_half_open_herd_of_tasks(clock: FakeClock, shape: str, probes: int) -> None:
    breaker = due(clock, probes=probes, closes_after=probes)
    ran = 0

    @Mode("async", shape, clock).around(breaker)
    async def work() -> None:
        nonlocal ran
        ran += 1
        await clock.asleep(1.0)

    async def main() -> list[Any]:
        return await asyncio.gather(*(work() for _ in range(50)), return_exceptions=True)

    answers = clock.run(main())
    assert ran == probes
    assert sum(isinstance(answer, BreakerOpen) for answer in answers) == 50 - probes
    assert breaker.state is CLOSED


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("probes", [1, 3])
def test_half_open_herd_of_threads(clock: FakeClock, shape: str, probes: int, seed: int) -> None:
    threads = Threads(seed)
    breaker = due(clock, probes=probes, closes_after=10**6)
    guard = Mode("sync", shape, clock).around(breaker)
    threads.adopt(breaker, *getattr(guard, "policies", ()))
    inside = most = ran = 0
    refused: list[BreakerOpen] = []

    @guard
    def work() -> None:
        nonlocal inside, most, ran
        inside, ran = inside + 1, ran + 1
        most = max(most, inside)
        for _ in range(30):
            threads.switch()
        inside -= 1

    def job() -> None:
        try:
            work()
        except BreakerOpen as error:
            refused.append(error)

    threads.run(*[job] * 12)
    assert most <= probes <= ran
    assert ran + len(refused) == 12
    assert breaker.state is HALF_OPEN


# -- a cancelled call counted


@pytest.mark.parametrize("error", NO_EXCEPTION)
@pytest.mark.parametrize("state", [CLOSED, HALF_OPEN])
def test_a_cancelled_call_counts_neither_way(
    clock: FakeClock, mode: Mode, error: type[BaseException], state: State
) -> None:
    trip = Consecutive(1)
    breaker = breaker_of(clock, trip=trip) if state is CLOSED else due(clock, trip=trip)
    told = Recorder(breaker)

    def leave() -> None:
        raise error

    for _ in range(3):
        with pytest.raises(error):
            mode.guard(breaker, leave)()
    assert breaker.state is state
    assert breaker.counts() == Counts(0, 0, 0)
    assert set(told.kinds) <= {"half_open"}
    assert mode.guard(breaker, lambda: 7)() == 7
    assert breaker.state is CLOSED


def test_a_cancelled_task_counts_neither_way(clock: FakeClock, shape: str) -> None:
    breaker = due(clock)

    @Mode("async", shape, clock).around(breaker)
    async def work() -> None:
        await clock.asleep(5.0)

    async def main() -> None:
        task = asyncio.create_task(work())
        await clock.asleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert breaker.state is HALF_OPEN
        await work()  # the slot is free

    clock.run(main())
    assert breaker.state is CLOSED


# -- outcomes that come late


def test_a_late_success_does_not_close_an_open_breaker(clock: FakeClock, mode: Mode) -> None:
    breaker = breaker_of(clock)
    failing = mode.guard(breaker, down)

    def late() -> int:
        for _ in range(2):  # others fail while it is under way
            with pytest.raises(DownError):
                failing()
        return 7

    assert mode.guard(breaker, late)() == 7
    assert (breaker.state, breaker.generation) == (OPEN, 1)


def test_a_late_failure_does_not_open_a_half_open_one(clock: FakeClock, mode: Mode) -> None:
    breaker = breaker_of(clock, closes_after=2)
    failing = mode.guard(breaker, down)

    def late() -> None:
        for _ in range(2):
            with pytest.raises(DownError):
                failing()
        clock.advance(10.0)
        mode.guard(breaker, lambda: 1)()
        assert breaker.state is HALF_OPEN
        raise DownError

    with pytest.raises(DownError):
        mode.guard(breaker, late)()
    assert (breaker.state, breaker.generation) == (HALF_OPEN, 2)
    mode.guard(breaker, lambda: 1)()
    assert breaker.state is CLOSED


# -- a lock held across the user's call


@pytest.mark.parametrize("name", policies_of())
def test_calls_of_threads_overlap(clock: FakeClock, shape: str, name: str) -> None:
    meeting = threading.Barrier(8, timeout=60)
    guard = Mode("sync", shape, clock).around(policies_of(clock)[name]())
    work = guard(meeting.wait)
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not meeting.broken


@pytest.mark.parametrize("name", policies_of())
def test_calls_of_tasks_overlap(clock: FakeClock, shape: str, name: str) -> None:
    inside = 0

    @Mode("async", shape, clock).around(policies_of(clock)[name]())
    async def work() -> int:
        nonlocal inside
        inside += 1
        await clock.asleep(1.0)
        return inside

    async def main() -> list[int]:
        return await asyncio.gather(*(work() for _ in range(8)))

    assert clock.run(main()) == [8] * 8


# -- a breaker that never trips


def test_a_breaker_trips(clock: FakeClock, mode: Mode) -> None:
    breaker = breaker_of(clock)
    failing = mode.guard(breaker, down)
    for _ in range(2):
        with pytest.raises(DownError):
            failing()
    with pytest.raises(BreakerOpen) as rejected:
        failing()
    assert rejected.value.retry_after_s == 10.0


# -- one exception raised again and again


def refusing(clock: FakeClock) -> dict[str, Callable[[], Policy]]:
    def taken(policy: Any, enter: Any) -> Policy:
        enter.__enter__()
        return policy  # type: ignore[no-any-return]

    bulkhead, limit = Bulkhead(1, clock=clock), Limit(AIMD(1, 1, 1), clock=clock)
    rate = RateLimit(1.0, 60.0, clock=clock)
    return {
        "breaker": lambda: opened(clock),
        "bulkhead": lambda: taken(bulkhead, bulkhead),
        "limit": lambda: taken(limit, limit.permit()),
        "rate": lambda: taken(rate, rate),
        "shed": lambda: Shed(waited=lambda: 100.0, clock=clock),
    }


@pytest.mark.parametrize("name", ["breaker", "bulkhead", "limit", "rate", "shed"])
def test_every_rejection_is_its_own(clock: FakeClock, mode: Mode, name: str) -> None:
    work = mode.guard_waiting(refusing(clock)[name](), lambda: 1)
    kept, depths = [], set()
    for _ in range(20):
        with pytest.raises(Rejected) as rejected:
            work()
        kept.append(rejected.value)
        depths.add(len(traceback.extract_tb(rejected.value.__traceback__)))
    assert len({id(error) for error in kept}) == 20
    assert len(depths) == 1


# -- a permit leaked


class Full:
    """A pipeline of everything that can hold something, and whether all is back."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.budget = RetryBudget(clock=clock)
        self.retry = Retry(attempts=3, backoff=1.0, budget=self.budget, clock=clock)
        self.breaker = breaker_of(clock, trip=Consecutive(1000))
        self.bulkhead = Bulkhead(2, 4, clock=clock)
        self.limit = Limit(AIMD(4, 1, 8), clock=clock)
        self.rate = RateLimit(4.0, wait_s=60.0, clock=clock)
        self.meter = Meter(clock=clock)
        self.pipeline = Pipeline(
            self.meter,
            Fallback("instead", on=BreakerOpen, clock=clock),
            Deadline(120.0, clock=clock),
            Pipeline(self.retry, self.breaker),
            self.bulkhead,
            self.limit,
            self.rate,
            Timeout(30.0, clock=clock),
        )

    def assert_idle(self) -> None:
        assert (self.bulkhead.in_use, self.bulkhead.waiting) == (0, 0)
        assert self.limit.under_way == 0
        assert self.breaker.counts() == Counts(0, 0, 0)
        assert self.breaker.generation == 0


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("crowd", [0, 2, 9])
@pytest.mark.parametrize("at", range(24))
def test_cancelled_at_every_await(clock: FakeClock, at: int, crowd: int) -> None:
    """In the queue of the bulkhead, in that of the rate limit, in the call, in its cleaning up, in
    the wait of the retry: all permits come back, and nothing is counted."""
    full = Full(clock)
    running = 0

    @full.pipeline
    async def work(fails: bool) -> None:
        nonlocal running
        running += 1
        try:
            await asyncio.sleep(0)
            if fails:
                raise DownError
            await asyncio.sleep(0.5)
        finally:
            try:
                await asyncio.sleep(0)
            finally:
                running -= 1

    async def main() -> None:
        others = [asyncio.create_task(work(False)) for _ in range(crowd)]
        await turns(at % 3)
        task = asyncio.create_task(work(at % 2 == 1))
        await turns(at % 8)
        await asyncio.sleep(at / 4 if at > 8 else 0.0)
        cancelled = task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        answer = (await asyncio.gather(task, return_exceptions=True))[0]
        if cancelled and not isinstance(answer, (DownError, Rejected)):
            assert isinstance(answer, asyncio.CancelledError)
        assert running == 0
        full.breaker.reset() if full.breaker.counts().failures else None
        assert asyncio.all_tasks() == {asyncio.current_task()}

    clock.run(main())
    assert (full.bulkhead.in_use, full.bulkhead.waiting, full.limit.under_way) == (0, 0, 0)
    assert full.breaker.counts() == Counts(0, 0, 0)


@pytest.mark.parametrize("stop", ["cancel", "throw", "close"])
@pytest.mark.parametrize("at", range(4))
def test_stopped_at_every_await_by_hand(clock: FakeClock, stop: str, at: int) -> None:
    """No loop has a hand in it: the coroutine itself is thrown at, or thrown away."""
    bulkhead, limit = Bulkhead(1, clock=clock), Limit(AIMD(1, 1, 1), clock=clock)
    breaker = due(clock, trip=Consecutive(1))
    pipe = Pipeline(
        Retry(clock=clock), Fallback(1, clock=clock), breaker, bulkhead, limit, Meter(clock=clock)
    )

    class Pause:
        def __await__(self) -> Iterator[None]:
            yield

    @pipe
    async def work() -> None:
        try:
            for _ in range(3):
                await Pause()
        finally:
            if stop != "close":
                await Pause()

    coroutine: Any = work()
    for _ in range(min(at, 2) + 1 if stop == "close" else at + 1):
        coroutine.send(None)
    if stop == "close":
        coroutine.close()
    else:
        error = asyncio.CancelledError if stop == "cancel" else KeyboardInterrupt
        if at < 3:
            coroutine.throw(error)
        with pytest.raises(error):
            coroutine.throw(error)
    assert (bulkhead.in_use, limit.under_way, breaker.state) == (0, 0, HALF_OPEN)
    assert drive(pipe.acall(drive_nothing)) is None
    assert breaker.state is CLOSED


async def drive_nothing() -> None: ...


@pytest.mark.parametrize("error", [*NO_EXCEPTION, DownError, DeadlineExceeded])
def test_permits_come_back_whatever_is_raised(
    clock: FakeClock, mode: Mode, error: type[BaseException]
) -> None:
    bulkhead, limit = Bulkhead(1, clock=clock), Limit(AIMD(1, 1, 1), clock=clock)

    def leave() -> None:
        raise error

    for _ in range(3):
        for policy in (bulkhead, limit, Pipeline(bulkhead, limit)):
            with pytest.raises(error):
                mode.guard(policy, leave)()
    assert (bulkhead.in_use, limit.under_way) == (0, 0)


def test_coroutines_never_awaited_hold_nothing(clock: FakeClock) -> None:
    full = Full(clock)

    async def work() -> None: ...

    full.pipeline(work)().close()
    gc.collect()
    full.assert_idle()


@pytest.mark.parametrize("at", range(10))
def test_cancelled_in_the_queue_around_the_turn_in_which_its_place_comes(
    clock: FakeClock, shape: str, at: int
) -> None:
    bulkhead = Bulkhead(1, 2, clock=clock)

    @Mode("async", shape, clock).around(bulkhead)
    async def work(seconds: float) -> None:
        await clock.asleep(seconds)

    async def main() -> None:
        first = asyncio.create_task(work(1.0))
        await turns(2)
        waits = asyncio.create_task(work(1.0))
        await turns(2)
        assert (bulkhead.in_use, bulkhead.waiting) == (1, 1)

        def soon(left: int) -> None:
            if left:
                asyncio.get_running_loop().call_soon(soon, left - 1)
            else:
                waits.cancel()

        asyncio.get_running_loop().call_at(first_ends - 0.5 if at == 9 else first_ends, soon, at)
        await asyncio.gather(first, waits, return_exceptions=True)
        assert waits.cancelled()
        assert (bulkhead.in_use, bulkhead.waiting) == (0, 0)
        await work(0.0)

    first_ends = clock.now() + 1.0
    clock.run(main())


def test_cancelled_while_it_waits_for_its_rate_the_next_moves_up(
    clock: FakeClock, shape: str
) -> None:
    ended: list[float] = []

    @Mode("async", shape, clock).around(RateLimit(1.0, wait_s=60.0, clock=clock))
    async def work() -> None:
        ended.append(clock.now() - 1000.0)

    async def main() -> None:
        tasks = [asyncio.create_task(work()) for _ in range(4)]
        await turns(4)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    clock.run(main())
    assert ended == pytest.approx([0.0, 1.0, 2.0])


# -- cancellation swallowed and retried


@pytest.mark.parametrize("error", NO_EXCEPTION)
@pytest.mark.parametrize("on", [Exception, BaseException, asyncio.CancelledError])
def test_cancellation_is_never_retried(
    clock: FakeClock, mode: Mode, error: type[BaseException], on: type[BaseException]
) -> None:
    asked = 0

    def leave() -> None:
        nonlocal asked
        asked += 1
        raise error

    retry = Retry(attempts=5, backoff=0.0, on=on, unless=OSError, clock=clock)
    with pytest.raises(error):
        mode.guard(retry, leave)()
    assert asked == 1
    with pytest.raises(error):
        mode.guard(Fallback(1, on=(on, Rejected), clock=clock), leave)()


def test_a_task_is_cancelled_though_it_retries(clock: FakeClock, shape: str) -> None:
    asked = 0

    @Mode("async", shape, clock).around(Retry(attempts=None, total_s=60.0, clock=clock))
    async def work() -> None:
        nonlocal asked
        asked += 1
        await clock.asleep(10.0)

    async def main() -> None:
        task = asyncio.create_task(work())
        await clock.asleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    clock.run(main())
    assert asked == 1


# -- generator functions


@pytest.mark.parametrize("name", [*policies_of(), "hedge", "vote", "thread"])
def test_generator_functions_are_refused(clock: FakeClock, shape: str, name: str) -> None:
    more: dict[str, Callable[[], Policy]] = {
        "hedge": lambda: Hedge(0.1, threads=1),
        "vote": lambda: Vote(len),
        "thread": lambda: Timeout(1.0, thread=True),
    }
    guard = Mode("sync", shape, clock).around((policies_of(clock) | more)[name]())

    def numbers() -> Iterator[int]:
        yield 1

    async def anumbers() -> Any:
        yield 1

    for function in (numbers, anumbers):
        with pytest.raises(TypeError, match="generator function"):
            guard(function)
        with pytest.raises(TypeError, match="generator function"):
            guard.call(function)
        with pytest.raises(TypeError, match="generator function"):
            drive(guard.acall(function))


# -- context variables lost

HERE: contextvars.ContextVar[str] = contextvars.ContextVar("here", default="lost")


@pytest.mark.parametrize("name", [*policies_of(), "hedge", "vote", "thread"])
def test_context_variables_arrive(mode: Mode, name: str) -> None:
    more: dict[str, Callable[[], Policy]] = {
        "hedge": lambda: Hedge(0.0, threads=4),
        "vote": lambda: Vote(mode.function(lambda: HERE.get()), threads=4),
        "thread": lambda: Timeout(60.0, thread=not mode.asynchronous),
    }
    guarded = mode.around((policies_of() | more)[name]())(mode.function(lambda: HERE.get()))
    token = HERE.set("here")
    try:
        got = asyncio.run(guarded()) if mode.asynchronous else guarded()  # type: ignore[arg-type]
    finally:
        HERE.reset(token)
    assert got == "here"


# -- the wall clock


def test_the_wall_clock_is_looked_at_by_nobody(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {name: make() for name, make in policies_of().items()}
    assert all(policy.clock.now is time.monotonic for policy in made.values())

    def wall() -> float:
        raise AssertionError("the wall clock")

    monkeypatch.setattr(time, "time", wall)
    token = arrived.set(time.monotonic())
    try:
        for policy in made.values():
            guarded = mode.around(policy)(mode.function(lambda: 7))
            assert (asyncio.run(guarded()) if mode.asynchronous else guarded()) == 7  # type: ignore[arg-type,comparison-overlap]
    finally:
        arrived.reset(token)


def test_no_module_knows_the_wall_clock() -> None:
    for file in Path(everup.tolerate.__file__).parent.rglob("*.py"):
        if file.name == "_dates.py":  # of headers, which are about it
            continue
        assert not re.search(r"\btime\.time\b|import time\b.*\btime\b|datetime", file.read_text())


# -- a total time that is overshot


@pytest.mark.parametrize("backoff", [2.0, 3.0, 4.9, 5.0])
def test_the_total_time_is_not_overshot(clock: FakeClock, mode: Mode, backoff: float) -> None:
    began: list[float] = []

    def work() -> None:
        began.append(clock.now() - 1000.0)
        raise DownError

    retry = Retry(attempts=None, total_s=5.0, backoff=backoff, clock=clock)
    with pytest.raises(DownError):
        mode.guard_waiting(retry, work)()
    assert began == pytest.approx([at * backoff for at in range(1 + int(4.999 / backoff))])
    assert clock.now() < 1005.0


# -- a hedge without a budget


def test_a_hedge_whose_budget_is_used_up_asks_once(clock: FakeClock, mode: Mode) -> None:
    budget = RetryBudget(0.0, 0.0)
    asked = []
    guarded = mode.around(Hedge(0.0, budget=budget, threads=4))(
        mode.function(lambda: asked.append(1) or 7)
    )
    got = asyncio.run(guarded()) if mode.asynchronous else guarded()  # type: ignore[arg-type]
    assert (got, asked) == (7, [1])


def test_a_slow_call_whose_hedge_has_no_budget_is_waited_for(clock: FakeClock, shape: str) -> None:
    hedge = Hedge(1.0, budget=RetryBudget(0.0, 0.0, clock=clock), clock=clock)
    told = Recorder(hedge)

    @Mode("async", shape, clock).around(hedge)
    async def work() -> int:
        await clock.asleep(5.0)
        return 7

    assert clock.run(work()) == 7
    assert told.kinds == ["not_hedged"]


# -- probes that hang, or are cancelled


def test_a_hung_probe_loses_its_slot(clock: FakeClock, mode: Mode) -> None:
    breaker = due(clock)
    work = mode.guard(breaker, lambda: 1)

    def hangs() -> int:
        with pytest.raises(BreakerOpen):
            work()
        clock.advance(10.0)  # as long as it was open
        return int(work())

    assert mode.guard(breaker, hangs)() == 1
    assert breaker.state is CLOSED


@pytest.mark.parametrize("error", NO_EXCEPTION)
def test_a_cancelled_probe_gives_its_slot_back(
    clock: FakeClock, mode: Mode, error: type[BaseException]
) -> None:
    breaker = due(clock)

    def leave() -> None:
        raise error

    with pytest.raises(error):
        mode.guard(breaker, leave)()
    assert breaker.state is HALF_OPEN
    assert mode.guard(breaker, lambda: 1)() == 1
    assert breaker.state is CLOSED


# -- a budget charged too late


def test_a_budget_is_charged_before_the_wait(shape: str) -> None:
    left: list[float] = []
    clock = Clock(now=lambda: 1000.0, sleep=lambda seconds: left.append(budget.left))
    budget = RetryBudget(0.0, 0.3, 10.0, clock)
    retry = Retry(attempts=9, backoff=1.0, budget=budget, clock=clock)
    with pytest.raises(DownError):
        Mode("sync", shape, FakeClock()).around(retry)(down)()
    assert left == [2.0, 1.0, 0.0]


def test_all_that_wait_at_one_time_do_not_overdraw_a_budget(clock: FakeClock, shape: str) -> None:
    budget = RetryBudget(0.0, 0.3, 10.0, clock)
    asked = 0

    @Mode("async", shape, clock).around(Retry(backoff=1.0, budget=budget, clock=clock))
    async def work() -> None:
        nonlocal asked
        asked += 1
        raise DownError

    async def main() -> None:
        await asyncio.gather(*(work() for _ in range(50)), return_exceptions=True)

    clock.run(main())
    assert asked == 50 + 3


# -- which goes around which


class Script:
    """A function that does what is written: a number of seconds to take, then fail or not."""

    def __init__(self, clock: FakeClock, *steps: tuple[float, bool]) -> None:
        self.clock = clock
        self.steps = list(steps)
        self.began: list[float] = []

    def __call__(self) -> int:
        self.began.append(self.clock.now() - 1000.0)
        seconds, fails = self.steps[min(len(self.began), len(self.steps)) - 1]
        self.clock.advance(seconds)
        check()
        if fails:
            raise DownError
        return len(self.began)

    async def later(self) -> int:
        self.began.append(self.clock.now() - 1000.0)
        seconds, fails = self.steps[min(len(self.began), len(self.steps)) - 1]
        await self.clock.asleep(seconds)
        if fails:
            raise DownError
        return len(self.began)

    def run(self, asynchronous: bool, policy: Policy) -> Any:
        if asynchronous:
            return self.clock.run(policy.acall(self.later))
        return policy.call(self)


@pytest.fixture(params=[False, True], ids=MODES)
def asynchronous(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_breaker_in_a_retry_sees_each_attempt(clock: FakeClock, asynchronous: bool) -> None:
    breaker = breaker_of(clock, trip=Consecutive(3))
    script = Script(clock, (0.0, True))
    pipe = Pipeline(Retry(attempts=5, backoff=1.0, clock=clock), breaker)
    with pytest.raises(BreakerOpen):  # the fourth attempt is refused, and that is not repeated
        script.run(asynchronous, pipe)
    assert script.began == [0.0, 1.0, 2.0]
    assert breaker.state is OPEN


def test_a_retry_may_wait_for_the_breaker_where_it_is_told_to(
    clock: FakeClock, asynchronous: bool
) -> None:
    breaker = breaker_of(clock, trip=Consecutive(1), open_s=4.0)
    script = Script(clock, (0.0, True), (0.0, False))
    retry = Retry(attempts=5, backoff=1.0, on=(Exception, Rejected), clock=clock)
    assert script.run(asynchronous, Pipeline(retry, breaker)) == 2
    assert script.began == [0.0, 4.0]  # refused at 1, and told to come back after 3
    assert breaker.state is CLOSED


def test_a_breaker_around_a_retry_sees_the_last_attempt(
    clock: FakeClock, asynchronous: bool
) -> None:
    breaker = breaker_of(clock, trip=Consecutive(3))
    script = Script(clock, (0.0, True))
    pipe = Pipeline(breaker, Retry(attempts=4, backoff=1.0, clock=clock))
    for _ in range(2):
        with pytest.raises(DownError):
            script.run(asynchronous, pipe)
    assert len(script.began) == 8
    assert (breaker.state, breaker.counts()) == (CLOSED, Counts(2, 2, 0))


def test_a_timeout_in_a_retry_is_for_each_attempt(clock: FakeClock, asynchronous: bool) -> None:
    script = Script(clock, (9.0, False), (9.0, False), (1.0, False))
    pipe = Pipeline(Retry(backoff=1.0, clock=clock), Timeout(2.0, clock=clock))
    assert script.run(asynchronous, pipe) == 3
    assert script.began == ([0.0, 3.0, 6.0] if asynchronous else [0.0, 10.0, 20.0])


def test_a_timeout_around_a_retry_is_for_all_attempts(clock: FakeClock, asynchronous: bool) -> None:
    script = Script(clock, (1.0, True))
    pipe = Pipeline(Timeout(3.5, clock=clock), Retry(attempts=9, backoff=1.0, clock=clock))
    with pytest.raises(TimedOut if asynchronous else (DownError, TimedOut)):  # type: ignore[arg-type]
        script.run(asynchronous, pipe)
    assert script.began == [0.0, 2.0]
    assert clock.now() <= 1003.5


@pytest.mark.parametrize("outside", [False, True])
def test_a_bulkhead_and_the_waits_of_a_retry(clock: FakeClock, outside: bool) -> None:
    """Outside of the retry it holds the place while that waits; inside it does not."""
    bulkhead, retry = Bulkhead(1, clock=clock), Retry(attempts=2, backoff=4.0, clock=clock)
    pipe = Pipeline(bulkhead, retry) if outside else Pipeline(retry, bulkhead)
    script = Script(clock, (1.0, True), (1.0, False))

    async def main() -> tuple[int, int]:
        task = asyncio.create_task(pipe.acall(script.later))
        await clock.asleep(2.0)
        during = bulkhead.in_use
        await task
        return during, bulkhead.in_use

    assert clock.run(main()) == (int(outside), 0)
    seen: list[int] = []
    real = clock.sleep
    waiting = Clock(clock.now, lambda s: (seen.append(bulkhead.in_use), real(s))[1])
    retry = Retry(attempts=2, backoff=4.0, clock=waiting)
    pipe = Pipeline(bulkhead, retry) if outside else Pipeline(retry, bulkhead)
    with pytest.raises(DownError):
        pipe.call(down)
    assert (seen, bulkhead.in_use) == ([int(outside)], 0)


def test_a_fallback_outermost_answers_for_all_of_them(clock: FakeClock, asynchronous: bool) -> None:
    breaker = breaker_of(clock, trip=Consecutive(4))
    fallback = Fallback("instead", clock=clock)
    pipe = Pipeline(
        fallback, Retry(attempts=2, backoff=1.0, clock=clock), breaker, Timeout(2.0, clock=clock)
    )
    reasons: list[object] = []
    fallback.subscribe(lambda event: reasons.append(type(event.detail["error"])))
    script = Script(clock, (0.0, True), (9.0, False), (9.0, False), (0.0, True))
    assert [script.run(asynchronous, pipe) for _ in range(3)] == ["instead"] * 3
    assert reasons == [TimedOut, DownError, BreakerOpen]
    assert len(script.began) == 4


def test_a_fallback_inside_leaves_nothing_to_retry(clock: FakeClock, asynchronous: bool) -> None:
    script = Script(clock, (0.0, True))
    pipe = Pipeline(Retry(clock=clock), Fallback("instead", clock=clock))
    assert script.run(asynchronous, pipe) == "instead"
    assert len(script.began) == 1


def test_a_hedge_in_a_retry(clock: FakeClock) -> None:
    """Both copies of the first attempt fail; of the second, the second copy answers."""
    script = Script(clock, (3.0, True), (3.0, True), (9.0, False), (1.0, False))
    hedge = Hedge(1.0, on_failure=False, clock=clock)
    pipe = Pipeline(Retry(backoff=1.0, clock=clock), hedge)
    assert clock.run(pipe.acall(script.later)) == 4
    assert script.began == [0.0, 1.0, 5.0, 6.0]
    assert clock.now() == 1007.0


def test_a_hedge_in_a_retry_of_threads() -> None:
    asked = []

    def work() -> int:
        asked.append(1)
        if len(asked) < 3:
            raise DownError
        return 7

    pipe = Pipeline(Retry(backoff=0.0), Hedge(60.0, threads=4))
    assert pipe.call(work) == 7
    assert len(asked) == 3  # two copies of the first attempt, one of the second


# -- nested ones are as flat ones

FATES = st.sampled_from(["ok", "down", "slow", "refused"])


@settings(max_examples=40, deadline=None)
@given(st.lists(FATES, min_size=1, max_size=12), st.booleans(), st.integers(0, 3))
def test_grouping_changes_nothing(fates: list[str], asynchronous: bool, cut: int) -> None:
    """Decorators on top of each other, a pipeline, and any pipeline in a pipeline: the same."""

    def play(group: Callable[[list[Policy]], Policy]) -> tuple[Any, ...]:
        clock = FakeClock()
        parts: list[Policy] = [
            Fallback("instead", on=BreakerOpen, clock=clock),
            Retry(attempts=2, backoff=0.5, clock=clock),
            breaker_of(clock, open_s=2.0),
            Timeout(2.0, clock=clock),
        ]
        told = Recorder(*parts)
        left = list(fates)

        def work() -> str:
            fate = left.pop(0) if left else "ok"
            clock.advance(3.0 if fate == "slow" else 0.0)
            check()
            if fate == "down":
                raise DownError
            if fate == "refused":
                raise Rejected("x", "full")
            return fate

        mode = Mode("async" if asynchronous else "sync", "alone", clock)
        guarded = group(parts)(mode.function(work))
        answers: list[Any] = []
        for _ in range(len(fates)):
            try:
                got = clock.run(guarded()) if asynchronous else guarded()  # type: ignore[arg-type]
            except Exception as error:
                got = type(error)
            answers.append(got)
        events = [(event.policy, event.kind, event.at) for event in told.events]
        return answers, events, clock.now()

    class Stack(Policy):
        def __init__(self, parts: list[Policy]) -> None:
            super().__init__("stack")
            self.parts = parts

        def __call__(self, function: Any) -> Any:
            for part in reversed(self.parts):
                function = part(function)
            return function

    flat = play(lambda parts: Pipeline(*parts))
    assert play(Stack) == flat
    assert play(lambda parts: Pipeline(*parts[:cut], Pipeline(*parts[cut:]))) == flat
    assert play(lambda parts: Pipeline(Pipeline(*parts[:cut]), Pipeline(*parts[cut:]))) == flat


# -- many at once


@pytest.mark.parametrize("seed", range(10))
def test_tasks_under_a_seeded_scheduler(clock: FakeClock, seed: int) -> None:
    full = Full(clock)
    tasks = Tasks(seed)
    inside = most = 0

    @full.pipeline
    async def work() -> str:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            await tasks.pause(0.5)
            if tasks.random.random() < 0.3:
                raise DownError
            return "ok"
        finally:
            await tasks.pause()
            inside -= 1

    answers = clock.run(tasks.run(60, work, 20.0, cancelled=0.3))
    kinds = {answer if answer == "ok" else type(answer) for answer in answers}
    assert kinds <= {"ok", DownError, asyncio.CancelledError, *rejections()}
    assert {"ok", asyncio.CancelledError} <= kinds
    assert most <= full.bulkhead.limit
    assert inside == 0
    assert (full.bulkhead.in_use, full.bulkhead.waiting, full.limit.under_way) == (0, 0, 0)
    seen = full.meter.snapshot()
    assert seen.calls <= len(answers)
    again = clock.run(full.pipeline.acall(drive_nothing))
    assert again is None


@pytest.mark.parametrize("seed", range(10))
def test_copies_versions_and_keys_under_a_seeded_scheduler(clock: FakeClock, seed: int) -> None:
    """What makes tasks of its own, or a policy for each key, inside of what holds permits: whoever
    is cancelled wherever, no copy is left, no permit is lost, and no cancelled call has counted."""
    tasks = Tasks(seed)
    budget = RetryBudget(clock=clock)
    retry = Retry(attempts=2, backoff=0.5, budget=budget, clock=clock)
    hedge = Hedge(0.2, attempts=3, budget=budget, clock=clock)
    bulkhead, limit = Bulkhead(4, 8, clock=clock), Limit(AIMD(6, 1, 8), clock=clock)
    shed = Shed("throttle", least=1000, clock=clock)
    breakers = Keyed(
        lambda key: breaker_of(clock, trip=Consecutive(1000)), key=lambda key: key, clock=clock
    )
    inside = 0

    async def copy(key: int) -> str:
        nonlocal inside
        inside += 1
        try:
            await tasks.pause(0.5)
            if tasks.random.random() < 0.2:
                raise DownError
            return "ok"
        finally:
            try:
                await tasks.pause()  # may be cancelled once more
            finally:
                inside -= 1

    vote = Vote(copy, copy, quorum=2, clock=clock)
    chaos = Chaos(
        enabled=True, latency_rate=0.5, latency_s=0.1, limit=10**6, window_s=None, clock=clock
    )
    pipe = Pipeline(
        retry, breakers, bulkhead, shed, limit, hedge, Timeout(2.0, clock=clock), chaos, vote
    )
    guarded = pipe(copy)

    async def main() -> list[Any]:
        answers = await tasks.run(
            40, lambda: guarded(tasks.random.randrange(3)), 20.0, cancelled=0.4
        )
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return answers

    answers = clock.run(main())
    kinds = {answer if answer == "ok" else type(answer) for answer in answers}
    assert kinds <= {
        "ok", DownError, NoQuorum, TimedOut, asyncio.CancelledError, *rejections(),
    }  # fmt: skip
    assert {"ok", asyncio.CancelledError} <= kinds
    assert inside == 0
    assert (bulkhead.in_use, bulkhead.waiting, limit.under_way) == (0, 0, 0)
    counted = sum(answer == "ok" or isinstance(answer, Exception) for answer in answers)
    seen = [breaker.counts() for breaker in breakers.policies().values()]
    assert sum(count.calls for count in seen) <= counted * retry.attempts  # type: ignore[operator]
    calm = Pipeline(bulkhead, shed, limit, hedge)
    assert clock.run(calm.acall(drive_nothing)) is None


def rejections() -> set[type[Exception]]:
    return set(Rejected.__subclasses__())


@pytest.mark.parametrize("seed", range(10))
def test_threads_under_a_seeded_scheduler(clock: FakeClock, seed: int) -> None:
    threads = Threads(seed)
    budget = RetryBudget(0.0, 1.0, 10.0, clock)
    retry = Retry(attempts=3, backoff=0.0, budget=budget, clock=clock)
    breaker = breaker_of(clock, trip=Consecutive(3))
    bulkhead, limit = Bulkhead(3, clock=clock), Limit(AIMD(4, 1, 8), clock=clock)
    rate = RateLimit(1000.0, burst=40, clock=clock)
    pipe = Pipeline(retry, breaker, Pipeline(bulkhead, limit), rate, Timeout(5.0, clock=clock))
    threads.adopt(*pipe.policies)
    told = Recorder(pipe)
    inside = most = ran = 0
    answers: list[object] = []

    @pipe
    def work(fails: bool) -> str:
        nonlocal inside, most, ran
        inside, ran = inside + 1, ran + 1
        most = max(most, inside)
        for _ in range(5):
            threads.switch()
        inside -= 1
        if fails:
            raise DownError
        return "ok"

    def job(number: int) -> Callable[[], None]:
        def run() -> None:
            for turn in range(4):
                try:
                    answers.append(work((number + turn) % 3 == 0))
                except (DownError, Rejected) as error:
                    answers.append(type(error))

        return run

    threads.run(*map(job, range(6)))
    assert len(answers) == 24
    assert set(answers) <= {"ok", DownError, *rejections()}
    assert most <= 3
    assert (inside, bulkhead.in_use, limit.under_way) == (0, 0, 0)
    assert told.kinds.count("retry") <= 10
    assert ran <= 40
    clock.advance(10.0)
    assert work(False) == "ok"
    assert breaker.state is CLOSED


@pytest.mark.parametrize("seed", range(4))
def test_the_same_seed_is_the_same_run(seed: int) -> None:
    def play() -> list[str]:
        clock = FakeClock()
        threads, breaker = Threads(seed), breaker_of(clock)
        threads.adopt(breaker)
        told = Recorder(breaker)
        log: list[str] = []

        @breaker
        def work(name: str) -> None:
            log.append(name)
            threads.switch()
            raise DownError

        def job(name: str) -> Callable[[], None]:
            def run() -> None:
                for _ in range(3):
                    try:
                        work(name)
                    except (DownError, BreakerOpen):
                        log.append(name.upper())

            return run

        threads.run(*map(job, "abcd"))
        return log + told.kinds

    assert play() == play()
