"""Another policy, or none: ``policy``, ``but``, ``off``, and what a policy looks like."""

import asyncio
import functools
import threading
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import pytest

from everup.tolerate import (
    AIMD,
    Breaker,
    BreakerOpen,
    Bulkhead,
    BulkheadFull,
    Chaos,
    Consecutive,
    CountWindow,
    Deadline,
    Fallback,
    Growing,
    Hedge,
    Keyed,
    Limit,
    LimitReached,
    Meter,
    Overloaded,
    Pipeline,
    Policy,
    RateLimit,
    RateLimited,
    Retry,
    RetryBudget,
    Shed,
    State,
    TimedOut,
    Timeout,
    Vote,
    _options,
    backoff,
    check,
    remaining,
)
from everup.tolerate.testing import FakeClock, Recorder

Do = Callable[..., Any]


class Way:
    """The same call, sync or async."""

    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous = asynchronous
        self.clock = FakeClock()

    def kind(self, do: Do) -> Do:
        """``do``, or an asynchronous function that does it."""
        if not self.asynchronous:
            return do

        async def ado(*args: Any) -> Any:
            return do(*args)

        return ado

    def guard(self, policy: Policy, do: Do) -> Do:
        """``do`` behind a policy."""
        if not self.asynchronous:
            return policy(do)
        guarded: Any = policy(self.kind(do))
        return lambda *args: self.clock.run(guarded(*args))


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Way:
    return Way(request.param)


def refuse(*_: Any) -> Any:
    raise ConnectionError("refused")


async def arefuse(*_: Any) -> Any:
    raise ConnectionError("refused")


# -- policy


def test_a_guarded_function_tells_what_guards_it() -> None:
    retry, breaker = Retry(), Breaker()
    for guarded, plain in ((retry(refuse), refuse), (retry(arefuse), arefuse)):
        found: Any = guarded
        assert found.policy is retry
        assert found.__wrapped__ is plain
        twice: Any = breaker(guarded)
        assert twice.policy is breaker  # the outermost
        assert twice.__wrapped__.policy is retry
    assert not hasattr(refuse, "policy")


def test_so_does_one_without_a_time() -> None:
    never: Any = Timeout(None)(refuse)
    assert isinstance(never.policy, Timeout)


# -- but


def test_but_makes_another_one_with_other_options(way: Way) -> None:
    budget, calls = RetryBudget(), []
    retry = Retry("db", attempts=5, backoff=1.0, budget=budget, clock=way.clock)
    recorder = Recorder(retry)
    once = retry.but(attempts=1)
    assert (once.name, once.attempts, once.budget, once.clock) == ("db", 1, budget, way.clock)
    assert retry.attempts == 5

    def fail() -> None:
        calls.append(1)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        way.guard(once, fail)()
    assert calls == [1]
    assert recorder.kinds == []  # nobody listens to the new one
    assert type(once.but()) is Retry


def test_a_state_begins_anew() -> None:
    breaker = Breaker("db", trip=Consecutive(1))
    breaker.isolate()
    other = breaker.but(name="other")
    assert (other.name, other.state) == ("other", State.CLOSED)
    with pytest.raises(ConnectionError):
        other.call(refuse)
    assert other.state is State.OPEN


def test_but_knows_what_came_without_a_name() -> None:
    limit = Timeout(2.0, "short").but(seconds=3.0)
    assert (limit.seconds, limit.name) == (3.0, "short")
    vote = Vote(len, max, quorum=3).but(name="three")
    assert (vote.others, vote.quorum, vote.name) == ((len, max), 3, "three")
    bulkhead = Bulkhead(3, 7).but(queue=1)
    assert (bulkhead.limit, bulkhead.queue) == (3, 1)


def test_but_refuses_as_the_constructor_does() -> None:
    with pytest.raises(ValueError, match="attempts"):
        Retry().but(attempts=0)
    with pytest.raises(TypeError, match="atempts"):
        Retry().but(atempts=1)


def test_but_of_a_pipeline_goes_to_the_member_that_takes_it(way: Way) -> None:
    retry, breaker = Retry("again", attempts=4), Breaker("db")
    pipeline = Pipeline(retry, breaker, retry, name="orders")
    other = pipeline.but(attempts=1, trip=Consecutive(1), name="one")
    first, second, third = other.policies
    assert first is third  # one policy twice stays one
    assert (first.name, first.attempts) == ("again", 1)  # type: ignore[attr-defined]
    assert other.name == "one"
    assert second is not breaker
    with pytest.raises(ConnectionError):
        way.guard(other, refuse)()
    assert second.state is State.OPEN  # type: ignore[attr-defined]
    assert (breaker.state, retry.attempts) == (State.CLOSED, 4)


def test_a_clock_is_for_all_members() -> None:
    clock = FakeClock()
    other = Pipeline(Retry(backoff=5.0), Breaker(), RateLimit(9)).but(clock=clock)
    assert [one.clock for one in other.policies] == [clock] * 3
    with pytest.raises(ConnectionError):
        other.call(refuse)
    assert clock.slept == [5.0, 5.0]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"seconds": 3}, "^orders: no member takes seconds$"),
        ({"on": OSError}, "^orders: again and db take on$"),
        ({"_lock": 1}, "^orders: no member takes _lock$"),
    ],
)
def test_an_option_of_none_or_several_is_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Pipeline(Retry("again"), Breaker("db"), name="orders").but(**option)


def test_a_class_of_one_s_own_can_be_made_anew() -> None:
    class Mine(Retry):
        def __init__(self, attempts: int, *, note: str = "a") -> None:
            super().__init__("mine", attempts=attempts)
            self.note = note

    mine = Mine(4, note="b").but(attempts=2)
    assert (type(mine), mine.attempts, mine.note) == (Mine, 2, "b")


# -- off


class Off:
    """A policy that refuses, changes or repeats; and the call through it, which it would not."""

    def __init__(self, make: Callable[[Way], Policy], raises: type[BaseException] | None) -> None:
        self.make = make
        self.raises = raises


def opened(way: Way) -> Policy:
    breaker = Breaker(clock=way.clock)
    breaker.isolate()
    return breaker


def one_at_a_time(way: Way) -> Policy:
    return Limit(AIMD(initial=1, min=1, max=1), clock=way.clock)


def throttle(way: Way) -> Policy:
    shed = Shed("throttle", least=1, clock=FakeClock(random=(0.0,)))
    for _ in range(9):
        with pytest.raises((ConnectionError, Overloaded)):
            shed.call(refuse)
    return shed


REFUSING = {
    "breaker": Off(opened, BreakerOpen),
    "breaker, timed": Off(
        lambda way: Breaker(trip=CountWindow(1, least=1, slow_s=9), clock=way.clock), None
    ),
    "rate": Off(lambda way: RateLimit(1, clock=way.clock), RateLimited),
    "rate, window": Off(lambda way: RateLimit(1, kind="window", clock=way.clock), RateLimited),
    "rate, waiting": Off(lambda way: RateLimit(1, wait_s=0.1, clock=way.clock), RateLimited),
    "rate, weighted": Off(
        lambda way: RateLimit(1, weight=lambda *_: 1, clock=way.clock), RateLimited
    ),
    "shed, wait": Off(lambda way: Shed(waited=lambda *_: 9.0, clock=way.clock), Overloaded),
    "shed, priority": Off(
        lambda way: Shed("priority", matters=lambda *_: 3, load=lambda: 1.0, clock=way.clock),
        Overloaded,
    ),
    "shed, throttle": Off(throttle, Overloaded),
    "chaos": Off(lambda way: Chaos(enabled=True, error_rate=1.0, clock=way.clock), Exception),
}


def repeat(times: int, guarded: Do) -> None:
    for _ in range(times):
        guarded()


@pytest.mark.parametrize("name", list(REFUSING))
def test_what_refuses_lets_pass_while_it_is_off(way: Way, name: str) -> None:
    case = REFUSING[name]
    policy = case.make(way)
    recorder = Recorder(policy)
    guarded = way.guard(policy, lambda: "done")
    with policy.off():
        for _ in range(3):
            assert guarded() == "done"
    assert recorder.kinds == []
    if case.raises is not None:
        with pytest.raises(case.raises):
            repeat(3, guarded)


@pytest.mark.parametrize("make", [lambda way: Bulkhead(1, clock=way.clock), one_at_a_time])
def test_more_at_once_than_there_are_places(way: Way, make: Callable[[Way], Policy]) -> None:
    policy: Any = make(way)

    def nested(depth: int) -> Any:
        return through(depth - 1) if depth else "done"

    async def anested(depth: int) -> Any:
        return await through(depth - 1) if depth else "done"

    through: Any = policy(anested if way.asynchronous else nested)

    def go(depth: int) -> Any:
        return way.clock.run(through(depth)) if way.asynchronous else through(depth)

    with policy.off():
        assert go(4) == "done"
    with pytest.raises((BulkheadFull, LimitReached)):
        go(1)
    assert go(0) == "done"  # all places are there again


def test_a_block_of_a_limit_that_is_off() -> None:
    limit = one_at_a_time(Way(False))
    assert isinstance(limit, Limit)
    with limit.off(), limit.permit(), limit.permit():
        assert limit.under_way == 2
    assert limit.under_way == 0
    with limit.permit(), pytest.raises(LimitReached), limit.permit():
        pass


def test_a_waiting_task_of_a_bulkhead_that_is_off() -> None:
    bulkhead = Bulkhead(1, queue=5)

    async def main() -> str:
        async with bulkhead:
            with bulkhead.off():
                async with bulkhead:
                    return "done"

    assert asyncio.run(main()) == "done"
    with bulkhead, bulkhead.off(), bulkhead:
        pass
    assert bulkhead.in_use == 0


def test_a_retry_that_is_off_calls_once_and_notes_nothing(way: Way) -> None:
    retry = Retry(backoff=5.0, clock=way.clock)
    recorder = Recorder(retry)
    with retry.off(), pytest.raises(ConnectionError) as caught:
        way.guard(retry, refuse)()
    assert not hasattr(caught.value, "__notes__")
    assert way.clock.slept == []
    assert recorder.kinds == []


def test_a_breaker_that_is_off_counts_and_does_not_open(way: Way) -> None:
    breaker = Breaker(trip=Consecutive(2), clock=way.clock)
    fails = way.guard(breaker, refuse)
    with breaker.off():
        for _ in range(5):
            with pytest.raises(ConnectionError):
                fails()
        with pytest.raises(ConnectionError), breaker:
            refuse()
    assert breaker.state is State.CLOSED
    assert breaker.counts().failures == 6
    breaker.isolate()
    with breaker.off(), pytest.raises(ConnectionError), breaker:
        refuse()
    with breaker.off(), pytest.raises(ConnectionError):
        fails()
    assert breaker.state is State.ISOLATED


def test_what_changes_the_answer_leaves_it_while_it_is_off(way: Way) -> None:
    for policy in (Fallback("other"), Fallback("other", result=lambda got: got == "bad")):
        with policy.off():
            with pytest.raises(ConnectionError):
                way.guard(policy, refuse)()
            assert way.guard(policy, lambda: "bad")() == "bad"
        assert way.guard(policy, refuse)() == "other"


def test_a_keyed_that_is_off_looks_for_no_key(way: Way) -> None:
    keyed = Keyed(lambda _: Breaker(), key=refuse)
    guarded = way.guard(keyed, lambda: "done")
    with keyed.off():
        assert guarded() == "done"
    with pytest.raises(ConnectionError):
        guarded()


@pytest.mark.parametrize("threads", [0, 4])
def test_a_vote_that_is_off_asks_no_other(way: Way, threads: int) -> None:
    if way.asynchronous and threads:
        pytest.skip("threads are for synchronous functions")
    asked: list[str] = []

    def other() -> str:
        asked.append("other")
        return "done"

    vote = Vote(way.kind(other), quorum=2, threads=threads)
    guarded = way.guard(vote, lambda: "done")
    with vote.off():
        assert guarded() == "done"
    assert asked == []
    assert guarded() == "done"
    assert asked == ["other"]


def test_a_hedge_that_is_off_makes_no_copy() -> None:
    clock, calls = FakeClock(), []

    async def slow() -> None:
        calls.append(1)
        await asyncio.sleep(9.0)
        raise ConnectionError

    hedge = Hedge(1.0, clock=clock)
    with hedge.off(), pytest.raises(ConnectionError):
        clock.run(hedge.acall(slow))
    assert calls == [1]
    threaded = Hedge(0.0, threads=2)
    with threaded.off(), pytest.raises(ConnectionError):
        threaded.call(refuse)
    caller = Hedge(5.0, threads=2)(threading.get_ident)
    with caller.policy.off():  # type: ignore[attr-defined]
        assert caller() == threading.get_ident()
    assert caller() != threading.get_ident()


def test_a_hedge_switched_off_with_a_copy_under_way_starts_no_other() -> None:
    clock, calls = FakeClock(), []
    hedge = Hedge(1.0, attempts=5, clock=clock)

    async def slow() -> str:
        calls.append(clock.time)
        await asyncio.sleep(9.0)
        return "done"

    async def main() -> str:
        call = asyncio.ensure_future(hedge.acall(slow))
        await asyncio.sleep(1.5)
        with hedge.off():
            return await call

    assert clock.run(main()) == "done"
    assert calls == [1000.0, 1001.0]


@pytest.mark.parametrize("limit", [Timeout(1.0), Timeout(None, each=lambda: 1.0), Deadline(1.0)])
def test_a_time_that_is_off_is_not_over(limit: Policy) -> None:
    clock = FakeClock()
    policy = limit.but(clock=clock)

    async def slow() -> str:
        await asyncio.sleep(5.0)
        return "done"

    async def began_before() -> str:
        call = asyncio.ensure_future(policy.acall(slow))
        await asyncio.sleep(0.5)
        with policy.off():
            return await call

    with policy.off():
        assert clock.run(policy.acall(slow)) == "done"
    assert clock.run(began_before()) == "done"
    with pytest.raises((TimedOut, TimeoutError)):
        clock.run(policy.acall(slow))


@pytest.mark.parametrize("limit", [Timeout(1.0), Timeout(None, each=lambda: 1.0), Deadline(1.0)])
def test_nor_for_what_looks_at_it(limit: Policy) -> None:
    clock = FakeClock()
    policy = limit.but(clock=clock)

    def slow() -> float | None:
        clock.advance(5.0)
        check()
        return remaining()

    with policy.off():
        assert policy.call(slow) is None
    with pytest.raises(TimeoutError):
        policy.call(slow)


def test_nor_in_a_block() -> None:
    clock = FakeClock()
    limit, deadline = Timeout(1.0, clock=clock), Deadline(1.0, clock=clock)
    for policy in (limit, deadline):
        with policy.off(), policy:
            clock.advance(5.0)
            check()
            assert remaining() is None

    async def main() -> None:
        for policy in (limit, deadline):
            with policy.off():
                async with policy:
                    await asyncio.sleep(5.0)

    clock.run(main())


def test_a_deadline_around_stays_while_one_inside_is_off() -> None:
    clock = FakeClock()
    outer, inner = Deadline(3.0, clock=clock), Deadline(1.0, clock=clock)
    with outer, inner.off(), inner:
        assert remaining() == 3.0


def test_a_thread_of_a_timeout_that_is_off_is_none() -> None:
    guarded = Timeout(60.0, thread=True)(threading.get_ident)
    with guarded.policy.off():  # type: ignore[attr-defined]
        assert guarded() == threading.get_ident()
    assert guarded() != threading.get_ident()


def test_off_is_for_each_that_wants_it_and_ends_with_an_error(way: Way) -> None:
    breaker = opened(way)
    guarded = way.guard(breaker, lambda: "done")
    with pytest.raises(KeyError), breaker.off(), breaker.off():
        raise KeyError
    with breaker.off():
        with breaker.off():
            pass
        assert guarded() == "done"
    with pytest.raises(BreakerOpen):
        guarded()


def test_threads_that_switch_it_off_at_once_leave_it_on() -> None:
    retry = Retry()
    meet = threading.Barrier(4)

    def switch() -> None:
        meet.wait()
        for _ in range(500):
            with retry.off():
                assert retry._off

    threads = [threading.Thread(target=switch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not retry._off


def test_a_pipeline_is_off_with_all_its_members(way: Way) -> None:
    pipeline = Pipeline(Retry(backoff=5.0, clock=way.clock), opened(way))
    guarded = way.guard(pipeline, refuse)
    with pipeline.off(), pytest.raises(ConnectionError):
        guarded()
    assert way.clock.slept == []
    with pytest.raises(BreakerOpen):
        guarded()


def test_a_meter_that_is_off_counts_on(way: Way) -> None:
    meter = Meter("db", clock=way.clock)
    with meter.off():
        assert way.guard(meter, lambda: "done")() == "done"
    assert meter.snapshot().ok == 1


# -- looks


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError


VARIABLE: ContextVar[int] = ContextVar("mine")


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (Retry(), "<Retry 'retry'>"),
        (Retry("db", attempts=5, on=OSError), "<Retry 'db' attempts=5 on=OSError>"),
        (
            Retry(on=(OSError, KeyError), backoff=backoff.full(0.1, 5)),
            "<Retry 'retry' on=(OSError, KeyError) backoff=full(0.1, 5, 2)>",
        ),
        (
            Retry(budget=RetryBudget(0.1), when=refuse, total_s=timedelta(seconds=3)),
            "<Retry 'retry' budget=<RetryBudget 'budget' ratio=0.1 floor_per_s=10 window_s=10> "
            "when=refuse total_s=datetime.timedelta(seconds=3)>",
        ),
        (Timeout(5, "slow"), "<Timeout 'slow' seconds=5>"),
        (Vote(refuse, quorum=2), "<Vote 'vote' quorum=2>"),
        (
            Breaker("db", trip=Consecutive(3), open_s=Growing(1, jitter=0.5)),
            "<Breaker 'db' trip=Consecutive(failures=3, slow_s=None) "
            "open_s=Growing(cap_s=600.0, factor=2.0, first_s=1, jitter=0.5)>",
        ),
        (
            Pipeline(Retry("a"), Breaker("b"), name="c"),
            "<Pipeline 'c', <Retry 'a'>, <Breaker 'b'>>",
        ),
        (Bulkhead(3, 7, "b", clock=FakeClock()), "<Bulkhead 'b' limit=3 queue=7>"),
    ],
)
def test_a_policy_shows_what_it_was_made_with(policy: Policy, text: str) -> None:
    assert repr(policy) == text


def test_what_is_shown_is_bounded_whatever_it_is() -> None:
    assert _options.shown(Odd()) == "<Odd>"
    assert len(_options.shown("x" * 999)) == 83
    assert _options.shown(functools.partial(refuse, 1)) == "refuse"
    assert repr(AIMD(25)).startswith("AIMD(backoff=0.9, initial=25, max=200, min=20")


def test_a_default_name_is_not_shown_twice() -> None:
    assert repr(Breaker(name="x")) == "<Breaker 'x'>"


@pytest.mark.parametrize("policy", [Deadline(5.0), Timeout(5.0)])
def test_a_block_outside_of_a_task_cannot_be_cut_off(policy: Policy) -> None:
    """A callback of the loop, say, that drives a coroutine itself."""
    block: Any = policy
    raised: list[BaseException] = []

    async def body() -> None:
        async with block:
            pass

    def callback() -> None:
        try:
            body().send(None)
        except BaseException as error:
            raised.append(error)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert [str(error) for error in raised] == ["only what runs in a task can be cut off"]
