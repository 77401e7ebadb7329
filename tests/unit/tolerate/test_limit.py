"""``Limit``: admission, what it learns from, permits, threads, and a naive model."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from everup.tolerate.errors import BreakerOpen, LimitReached, TimedOut
from everup.tolerate.limit import AIMD, Gradient2, Limit, Sample, Vegas
from everup.tolerate.testing import FakeClock, Recorder


class Way:
    """The same call, sync or async."""

    def __init__(self, kind):
        self.kind = kind
        self.clock = FakeClock()

    def guard(self, policy, behave):
        if self.kind == "sync":
            return policy(behave)

        async def call(*args):
            return behave(*args)

        guarded = policy(call)
        return lambda *args: self.clock.run(guarded(*args))

    def block(self, policy, behave):
        """The same through ``permit``."""
        if self.kind == "sync":

            def within(*args):
                with policy.permit():
                    return behave(*args)

            return within

        async def awithin(*args):
            async with policy.permit():
                return behave(*args)

        return lambda *args: self.clock.run(awithin(*args))


@pytest.fixture(params=["sync", "async"])
def way(request):
    return Way(request.param)


@pytest.fixture(params=["guard", "block"])
def put(request, way):
    return getattr(way, request.param)


def each(limit=10, clock=None, **options):
    """Every call is a window."""
    estimator = AIMD(limit, 1, 100)
    return Limit(estimator, window_s=0, samples=1, clock=clock, **options)


@pytest.mark.parametrize("options", [{"window_s": -1}, {"samples": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="must"):
        Limit(**options)


def test_what_it_is_by_default():
    limit = Limit()
    assert (limit.name, limit.limit, limit.under_way, limit.utilisation()) == ("limit", 20, 0, 0.0)
    assert isinstance(limit.estimator, Gradient2)
    assert Limit(Vegas(7, 1, 9)).limit == 7


def test_calls_beyond_the_limit_are_refused_each_with_its_own_error(way, put):
    limit = Limit(AIMD(2, 2, 2), clock=way.clock, name="db")
    recorder = Recorder(limit)
    guarded = put(limit, lambda: "done")
    with limit.permit():
        assert guarded() == "done"
        with limit.permit():
            assert limit.utilisation() == 1.0
            errors = []
            for _ in range(2):
                with pytest.raises(LimitReached) as caught:
                    guarded()
                errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert str(errors[0]) == "db: the limit of 2 calls at once is reached"
    assert [event.detail for event in recorder.events] == [{"under_way": 2, "limit": 2}] * 2
    recorder.stop()
    assert limit.under_way == 0
    assert guarded() == "done"


def test_refused_without_a_listener_too(way, put):
    limit = Limit(AIMD(1, 1, 1), clock=way.clock)
    with limit.permit(), pytest.raises(LimitReached):
        put(limit, lambda: None)()
    assert limit.under_way == 0


def test_ok_calls_grow_it_and_drops_shrink_it(way, put):
    limit = each(1, clock=way.clock)
    put(limit, lambda: None)()
    assert limit.limit == 2
    with pytest.raises(TimedOut):
        put(limit, raising(TimedOut("late")))()
    assert limit.limit == 1


def raising(error):
    def fail(*args):
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no overload"),
        BreakerOpen("breaker", "open"),
        LimitReached("inner", "full"),
        asyncio.CancelledError(),
        GeneratorExit(),
    ],
)
def test_other_errors_change_nothing(way, put, error):
    limit = each(2, clock=way.clock)
    before = vars(limit).copy()
    with pytest.raises(type(error)):
        put(limit, raising(error))()
    assert vars(limit) == before


def test_keyboard_interrupt_releases_its_permit_and_changes_nothing():
    limit = each(2)
    before = vars(limit).copy()
    with pytest.raises(KeyboardInterrupt):
        limit.call(raising(KeyboardInterrupt()))
    assert vars(limit) == before


def test_results_and_errors_can_be_told_to_be_drops(way):
    limit = each(10, clock=way.clock, on=OSError, result=lambda got: got == 503)
    assert way.guard(limit, lambda: 503)() == 503
    assert limit.limit == 9
    with pytest.raises(ConnectionResetError):
        way.guard(limit, raising(ConnectionResetError()))()
    assert limit.limit == 8
    assert way.guard(limit, lambda: 200)() == 200
    assert (limit.limit, limit.under_way) == (8, 0)  # used by less than half


@pytest.mark.parametrize("where", ["result", "when"])
def test_a_judge_that_raises_leaks_no_permit(way, where):
    def judge(_):
        raise RuntimeError("judge")

    limit = each(5, clock=way.clock, **{where: judge})
    with pytest.raises(RuntimeError, match="judge"):
        way.guard(limit, (lambda: 1) if where == "result" else raising(TimeoutError()))()
    assert (limit.limit, limit.under_way) == (5, 0)


def test_not_used_by_half_it_does_not_grow(way, put):
    limit = each(10, clock=way.clock)
    for _ in range(50):
        put(limit, lambda: None)()
    assert limit.limit == 10


def test_the_latency_is_that_of_the_calls_alone(way, put):
    seen = []

    class Keep(AIMD):
        def step(self, state, sample):
            seen.append(sample)
            return super().step(state, sample)

    limit = Limit(Keep(), window_s=1.0, samples=2, clock=way.clock)
    guarded = put(limit, way.clock.advance)
    guarded(0.25)
    guarded(0.75)
    assert seen == [Sample(0.5, 1, False, 0.5)]
    guarded(0.25)
    guarded(0.25)
    guarded(0.25)
    assert len(seen) == 1  # the window is not over
    with pytest.raises(TimeoutError):
        put(limit, raising(TimeoutError()))()
    guarded(0.25)  # the first that ends when it is over
    assert seen[1:] == [Sample(0.25, 1, True, 0.5)]
    with pytest.raises(TimeoutError):
        put(limit, raising(TimeoutError()))()
    assert len(seen) == 2
    way.clock.advance(1.0)
    with pytest.raises(TimeoutError):
        put(limit, raising(TimeoutError()))()
    assert seen[2:] == [Sample(None, 1, True, 0.5)]  # drops need no samples


def test_an_end_of_the_window_seen_by_two_is_one_step():
    limit = Limit(AIMD(1, 1, 9), window_s=1.0, samples=1, clock=FakeClock())
    limit.call(lambda: None)
    state = limit._state
    limit._step(limit.clock.now())  # the window has just been ended by another
    limit.clock.advance(2.0)
    limit._step(limit.clock.now())  # nothing is in it
    assert limit._state is state


def test_the_event_is_bounded_in_rate(way):
    limit = each(1, clock=way.clock)
    recorder = Recorder(limit)
    permits = []
    for _ in range(20):  # grows by one with each
        way.guard(limit, lambda: None)()
        permits.append(limit.permit())
        permits[-1].__enter__()
        way.clock.advance(0.125)
    details = [event.detail for event in recorder.events]
    assert details[:2] == [{"limit": 2, "before": 1}, {"limit": 10, "before": 2}]
    assert len(details) == 3
    for permit in permits:
        permit.__exit__(None, None, None)
    assert limit.under_way == 0


def test_a_permit_is_for_one_block_at_a_time(way):
    limit = Limit(clock=way.clock)
    permit = limit.permit()
    with permit, pytest.raises(RuntimeError, match="in use"):
        permit.__enter__()
    with permit:
        assert limit.under_way == 1
    assert limit.under_way == 0


def test_call_and_acall():
    clock = FakeClock()
    limit = Limit(clock=clock)

    async def double(x):
        return 2 * x

    assert limit.call(lambda x, *, y: x + y, 1, y=2) == 3
    assert clock.run(limit.acall(double, 4)) == 8


def test_a_generator_function_is_refused():
    with pytest.raises(TypeError, match="generator"):

        @Limit()
        def numbers():
            yield 1


def test_cancelled_at_every_point_no_permit_leaks():
    clock = FakeClock()
    limit = each(10, clock=clock)

    @limit
    async def steps():
        for _ in range(4):
            await asyncio.sleep(0)

    async def block():
        async with limit.permit():
            for _ in range(4):
                await asyncio.sleep(0)

    async def main():
        for work in (steps, block):
            for after in range(7):
                task = asyncio.ensure_future(work())
                for _ in range(after):
                    await asyncio.sleep(0)
                before = limit._state
                if task.cancel():
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    assert limit._state is before
                assert limit.under_way == 0

    clock.run(main())


def test_a_coroutine_thrown_away_leaks_no_permit():
    limit = each(10)

    @limit
    async def forever():
        await asyncio.Future()

    async def main():
        one = forever()
        one.send(None)
        assert limit.under_way == 1
        one.close()
        assert limit.under_way == 0

    asyncio.run(main())


def test_a_coroutine_thrown_away_while_the_lock_is_held():
    """As the collector may do at any allocation: no deadlock, and no permit leaks."""

    class Collects(AIMD):
        def step(self, state, sample):
            thrown.close()
            return super().step(state, sample)

    limit = Limit(Collects(), window_s=0, samples=1)

    @limit
    async def forever():
        await asyncio.Future()

    async def main():
        thrown.send(None)
        limit.call(lambda: None)
        assert limit.under_way == 0

    thrown = forever()
    asyncio.run(main())


def test_a_herd_of_tasks_never_exceeds_the_limit():
    clock = FakeClock()
    limit = Limit(AIMD(5, 5, 5), clock=clock)
    most = 0

    @limit
    async def work():
        nonlocal most
        most = max(most, limit.under_way)
        await asyncio.sleep(1)

    async def main():
        return await asyncio.gather(*(work() for _ in range(50)), return_exceptions=True)

    got = clock.run(main())
    assert most == 5
    assert sum(isinstance(one, LimitReached) for one in got) == 45


def test_threads_share_it_and_no_lock_is_held_across_a_call():
    limit = Limit(AIMD(8, 8, 8), window_s=0, samples=1)
    inside = threading.Barrier(8, timeout=30)  # passes only if all eight are in the call at once

    def work():
        inside.wait()
        return limit.under_way

    guarded = limit(work)
    with ThreadPoolExecutor(8) as pool:
        assert [one.result() for one in [pool.submit(guarded) for _ in range(8)]]
    assert limit.under_way == 0


def test_many_threads_lose_no_count():
    limit = Limit(AIMD(3, 1, 50), window_s=0, samples=1, on=KeyError)

    def work(number):
        if number % 7 == 0:
            raise KeyError
        if number % 5 == 0:
            raise ValueError
        assert 1 <= limit.under_way <= 50

    guarded = limit(work)

    def many():
        for number in range(2000):
            try:
                guarded(number)
            except (KeyError, ValueError, LimitReached):
                pass

    threads = [threading.Thread(target=many) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert limit.under_way == 0
    assert 1 <= limit.limit <= 50


def test_the_clock_is_monotonic():
    assert Limit().clock.now is time.monotonic


class Model(RuleBasedStateMachine):
    """Against the simplest thing that does the same: a list of calls, AIMD written out."""

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        self.limit = Limit(
            AIMD(4, 2, 8, backoff=0.5, timeout_s=5), window_s=2.0, samples=3, clock=self.clock
        )
        self.calls = []
        self.height = 4.0
        self.latencies, self.peak, self.dropped, self.over = [], 0, False, -1.0

    @rule()
    def begin(self):
        permit = self.limit.permit()
        if len(self.calls) < int(self.height):
            permit.__enter__()
            self.calls.append((permit, self.clock.time, len(self.calls) + 1))
        else:
            with pytest.raises(LimitReached):
                permit.__enter__()

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 6.0]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), how=st.sampled_from(["ok", "ok", "ok", "drop", "error", "cancelled"]))
    def end(self, data, how):
        which = data.draw(st.integers(0, len(self.calls) - 1))
        permit, began, at_once = self.calls.pop(which)
        error = {"drop": TimedOut(), "error": ValueError(), "cancelled": asyncio.CancelledError()}
        permit.__exit__(None, error.get(how), None)
        if how == "ok":
            self.latencies.append(self.clock.time - began)
        if how == "drop":
            self.dropped = True
        if how in ("ok", "drop"):
            self.peak = max(self.peak, at_once)
            enough = len(self.latencies) >= 3 or self.dropped
            if enough and self.clock.time >= self.over:
                self.end_window()

    def end_window(self):
        mean = sum(self.latencies) / len(self.latencies) if self.latencies else 0.0
        if self.dropped or mean > 5:
            self.height = max(2.0, min(self.height - 1, self.height * 0.5))
        elif self.peak >= self.height / 2:
            self.height = min(8.0, self.height + 1)
        self.latencies, self.peak, self.dropped = [], 0, False
        self.over = self.clock.time + 2.0

    @invariant()
    def same(self):
        assert self.limit.limit == int(self.height)
        assert self.limit.under_way == len(self.calls)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
