"""``RateLimit``: both kinds, exact retry times, the queue, cancellation, and naive models."""

import asyncio
import gc
import threading
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from everup.tolerate._clock import Clock
from everup.tolerate.errors import RateLimited
from everup.tolerate.rate import RateLimit
from everup.tolerate.testing import FakeClock, Recorder

KINDS = ["token", "window"]


class Way:
    """The same call, sync or async, as a function or as a block."""

    def __init__(self, kind):
        self.sync = kind == "sync"
        self.clock = FakeClock()

    def guard(self, policy, behave=lambda: "done"):
        if self.sync:
            return policy(behave)

        async def call(*args):
            return behave(*args)

        guarded = policy(call)
        return lambda *args: self.clock.run(guarded(*args))

    def block(self, policy, behave=lambda: "done"):
        if self.sync:

            def within():
                with policy:
                    return behave()

            return within

        async def awithin():
            async with policy:
                return behave()

        return lambda: self.clock.run(awithin())


@pytest.fixture(params=["sync", "async"])
def way(request):
    return Way(request.param)


@pytest.fixture(params=["guard", "block"])
def put(request, way):
    return getattr(way, request.param)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"rate": 0}, "above 0"),
        ({"rate": float("inf")}, "finite"),
        ({"rate": 1, "per_s": 0}, "above 0"),
        ({"rate": 1, "wait_s": -1}, "wait_s"),
        ({"rate": 1, "wait_s": float("inf")}, "wait_s must be 0 or more, and finite"),
        ({"rate": 1, "burst": 0}, "burst"),
        ({"rate": 1, "burst": 1, "kind": "window"}, "burst"),
        ({"rate": 1.5, "kind": "window"}, "whole"),
        ({"rate": 1_000_001, "kind": "window"}, "whole"),
        ({"rate": 1, "kind": "leaky"}, "kind"),
    ],
)
def test_options_out_of_range_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        RateLimit(**options)


def refused(guarded):
    with pytest.raises(RateLimited) as caught:
        guarded()
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_beyond_the_rate_refused_and_the_time_told_is_exact(way, put, kind):
    limit = RateLimit(4, 1.0, kind=kind, clock=way.clock, name="api")
    recorder = Recorder(limit)
    guarded = put(limit)
    assert [guarded() for _ in range(4)] == ["done"] * 4
    first, second = refused(guarded), refused(guarded)
    assert first is not second
    after = 0.25 if kind == "token" else 1.0
    assert first.retry_after_s == second.retry_after_s == after
    assert str(first) == f"api: more than 4 in 1 s; again in {after:g} s"
    assert [event.detail for event in recorder.events] == [{"retry_after_s": after}] * 2
    recorder.stop()
    way.clock.advance(after - 0.001)
    assert refused(guarded).retry_after_s == pytest.approx(0.001)
    way.clock.advance(0.001)
    assert guarded() == "done"


@pytest.mark.parametrize("kind", KINDS)
@given(
    rate=st.integers(1, 50),
    per_s=st.floats(0.001, 1000),
    start=st.floats(0, 1e8),
    calls=st.integers(1, 80),
)
def test_who_waits_as_told_is_admitted(kind, rate, per_s, start, calls):
    clock = FakeClock(start)
    limit = RateLimit(rate, per_s, kind=kind, clock=clock)
    guarded = limit(lambda: None)
    for _ in range(calls):
        try:
            guarded()
        except RateLimited as error:
            clock.advance(error.retry_after_s)
            guarded()


def test_a_bucket_fills_up_to_its_burst(way):
    guarded = way.guard(RateLimit(2, 1.0, burst=3, clock=way.clock))
    for pause in (0.0, 100.0, 1.5):
        way.clock.advance(pause)
        for _ in range(3):
            guarded()
        assert refused(guarded).retry_after_s == 0.5


def test_a_rate_below_one_has_a_burst_of_one():
    clock = FakeClock()
    guarded = RateLimit(0.5, 1.0, clock=clock)(lambda: None)
    guarded()
    assert refused(guarded).retry_after_s == 2.0


def test_a_window_slides():
    clock = FakeClock()
    guarded = RateLimit(2, 1.0, kind="window", clock=clock)(lambda: None)
    guarded()
    clock.advance(0.75)
    guarded()
    assert refused(guarded).retry_after_s == 0.25
    clock.advance(0.25)
    guarded()
    assert refused(guarded).retry_after_s == 0.75  # no second one at the border


@pytest.mark.parametrize("kind", KINDS)
def test_waits_within_its_time_and_not_beyond(way, put, kind):
    limit = RateLimit(1, 1.0, kind=kind, wait_s=1.5, clock=way.clock)
    recorder = Recorder(limit)
    guarded = put(limit)
    start = way.clock.time
    for number in range(4):
        assert guarded() == "done"
        assert way.clock.time == start + number
    recorder.stop()
    assert [event.detail for event in recorder.events] == [{"wait_s": 1.0}] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_queue_goes_in_order_and_who_would_wait_too_long_is_refused_at_once(kind):
    clock = FakeClock()
    limit = RateLimit(1, 1.0, kind=kind, wait_s=3.0, clock=clock)
    went = []

    @limit
    async def work(name):
        went.append((name, clock.time - 1000))

    async def main():
        got = await asyncio.gather(*(work(n) for n in range(7)), return_exceptions=True)
        return [one.retry_after_s for one in got if one is not None]

    assert clock.run(main()) == [1.0, 1.0, 1.0]
    assert went == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]
    assert limit._lines == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cancelled", [1, 2, 3])
def test_who_is_cancelled_gives_its_place_to_those_behind(kind, cancelled):
    clock = FakeClock()
    limit = RateLimit(1, 1.0, kind=kind, wait_s=3.0, clock=clock)
    went = []

    @limit
    async def work(name):
        went.append((name, clock.time - 1000))

    async def main():
        tasks = [asyncio.ensure_future(work(n)) for n in range(4)]
        await asyncio.sleep(0.5)
        tasks[cancelled].cancel()
        await asyncio.sleep(0)
        await work(9)  # and the last place is free again
        await asyncio.gather(*tasks, return_exceptions=True)

    clock.run(main())
    left = [n for n in range(4) if n != cancelled]
    assert went == [(n, float(at)) for at, n in enumerate([*left, 9])]
    assert limit._lines == {}


@pytest.mark.parametrize("kind", KINDS)
def test_all_cancelled_leaves_it_as_if_they_had_never_come(kind):
    clock = FakeClock()
    limit = RateLimit(1, 1.0, kind=kind, wait_s=9.0, clock=clock)
    guarded = limit(empty)

    async def main():
        tasks = [asyncio.ensure_future(guarded()) for _ in range(9)]
        await asyncio.sleep(0)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limit._lines == {}
        await asyncio.sleep(1.0)
        start = clock.time
        await guarded()
        assert clock.time == start

    clock.run(main())


async def empty():
    return "done"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("behind", [0, 1])
def test_cancelled_just_as_its_place_comes_the_place_is_not_lost(kind, behind):
    """The timer has given the place, the task has not run since: cancelled now."""
    clock = FakeClock()
    limit = RateLimit(1, 1.0, kind=kind, wait_s=9.0, clock=clock)
    went = []

    @limit
    async def work(name):
        went.append((name, clock.time - 1000))

    async def main():
        await work(0)
        first = asyncio.ensure_future(work(1))
        others = [asyncio.ensure_future(work(2 + n)) for n in range(behind)]
        await asyncio.sleep(0)
        line = next(iter(limit._lines.values()))
        line.timer.cancel()
        clock.advance(1.0)
        limit._due(line)
        first.cancel()
        await asyncio.gather(first, *others, return_exceptions=True)
        assert first.cancelled()
        await work(9)

    clock.run(main())
    if behind:
        assert went == [(0, 0.0), (2, 1.0), (9, 2.0)]
    else:
        assert went == [(0, 0.0), (9, 1.0)]


@pytest.mark.parametrize("kind", KINDS)
def test_cancelled_in_the_same_moment_before_the_timer_the_place_is_not_lost(kind):
    clock = FakeClock()
    limit = RateLimit(1, 1.0, kind=kind, wait_s=9.0, clock=clock)
    guarded = limit(empty)

    async def main():
        await guarded()
        task = asyncio.ensure_future(guarded())
        await asyncio.sleep(0)
        line = next(iter(limit._lines.values()))
        line.timer.cancel()
        clock.advance(1.0)
        task.cancel()
        limit._due(line)  # before the task has run
        await asyncio.gather(task, return_exceptions=True)
        start = clock.time
        await guarded()
        assert clock.time == start

    clock.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_that_cannot_be_given_back_goes_to_the_next_task(kind):
    """A thread has booked behind the task that gives up: the place stays with the loop."""
    clock = FakeClock()
    limit = RateLimit(1, 1.0, kind=kind, wait_s=9.0, clock=clock)
    guarded = limit(empty)

    async def main():
        await guarded()
        task = asyncio.ensure_future(guarded())
        await asyncio.sleep(0)
        clock.sleep = lambda seconds: None  # a thread that sleeps meanwhile
        limit._wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        start = clock.time
        await guarded()
        assert clock.time == start + 1.0
        await guarded()
        assert clock.time == start + 3.0  # the thread had the one between

    clock.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_nobody_takes_passes(kind):
    clock = FakeClock()
    limit = RateLimit(1, 1.0, kind=kind, wait_s=9.0, clock=clock)
    guarded = limit(empty)

    async def main():
        await guarded()
        task = asyncio.ensure_future(guarded())
        await asyncio.sleep(0)
        clock.sleep = lambda seconds: None
        limit._wait()
        task.cancel()
        await asyncio.sleep(5.0)
        assert limit._lines == {}
        start = clock.time
        await guarded()
        assert clock.time == start

    clock.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_in_its_sleep_a_thread_gives_its_place_back(kind):
    clock = FakeClock()
    limit = RateLimit(1, 1.0, kind=kind, wait_s=9.0, clock=clock)
    guarded = limit(lambda: "done")
    guarded()
    sleep = clock.sleep

    def interrupted(seconds):
        raise KeyboardInterrupt

    clock.sleep = interrupted
    with pytest.raises(KeyboardInterrupt):
        guarded()
    clock.sleep = sleep
    guarded()
    assert clock.time == 1001.0


def test_a_place_that_comes_free_meanwhile_is_taken_at_once(way):
    """Between the first look and the second, time may have passed."""
    limit = RateLimit(1, 1.0, wait_s=1.0, clock=way.clock)
    times = iter([0.0, 0.5, 1.0])
    limit.clock = Clock(now=lambda: next(times))
    guarded = way.guard(limit)
    guarded()
    guarded()


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_abandoned_with_tasks_in_it_costs_their_places_alone(kind):
    clock = FakeClock()
    limit = RateLimit(1, 1.0, kind=kind, wait_s=9.0, clock=clock)
    guarded = limit(empty)
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(guarded()) for _ in range(3)]
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert clock.run(guarded()) == "done"
    assert clock.time == 1003.0
    assert limit._lines == {}
    for task in tasks:
        task._log_destroy_pending = False
        coroutine = task.get_coro()
        coroutine.close()  # as the collector does
    del tasks, task, coroutine
    gc.collect()
    assert clock.run(guarded()) == "done"
    assert clock.time == 1004.0


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, GeneratorExit])
def test_what_the_call_raises_comes_out_and_its_place_stays_taken(way, put, error):
    def fail():
        raise error

    limit = RateLimit(1, 1.0, clock=way.clock)
    with pytest.raises(error):
        put(limit, fail)()
    refused(put(limit))


def test_call_and_acall_and_generators():
    clock = FakeClock()
    limit = RateLimit(9, clock=clock)
    assert limit.call(lambda x, *, y: x + y, 1, y=2) == 3
    assert clock.run(limit.acall(empty)) == "done"
    with pytest.raises(TypeError, match="generator"):

        @limit
        async def numbers():
            yield 1


@pytest.mark.parametrize("kind", KINDS)
def test_threads_get_no_more_than_there_is(kind):
    clock = FakeClock()  # stands still
    limit = RateLimit(100, 1.0, kind=kind, clock=clock)
    guarded = limit(lambda: None)
    admitted = []

    def many():
        for _ in range(50):
            try:
                guarded()
            except RateLimited:
                continue
            admitted.append(1)

    threads = [threading.Thread(target=many) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(admitted) == 100


@pytest.mark.parametrize("kind", KINDS)
def test_no_lock_is_held_across_a_call(kind):
    limit = RateLimit(4, 3600.0, kind=kind)
    inside = threading.Barrier(4, timeout=30)
    guarded = limit(inside.wait)
    threads = [threading.Thread(target=guarded) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not inside.broken


def test_threads_that_wait_have_each_a_place_of_its_own():
    clock = FakeClock()
    waits = []
    clock.sleep = waits.append  # they wait while the clock stands still
    limit = RateLimit(1, 1.0, wait_s=100.0, clock=clock)
    guarded = limit(lambda: None)
    threads = [threading.Thread(target=guarded) for _ in range(20)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(waits) == [float(n) for n in range(1, 20)]


class Model(RuleBasedStateMachine):
    """Against the simplest things that do the same: a count of tokens, a list of times. Rates and
    pauses are powers of two, so that both reckon without rounding."""

    @initialize(
        kind=st.sampled_from(KINDS), rate=st.sampled_from([1, 2, 8]), burst=st.integers(1, 5)
    )
    def start(self, kind, rate, burst):
        self.kind, self.rate = kind, rate
        self.clock = FakeClock()
        burst_or_none = burst if kind == "token" else None
        self.limit = RateLimit(rate, 1.0, burst_or_none, kind, clock=self.clock)
        self.burst = self.tokens = burst
        self.times = []

    @rule(pause=st.sampled_from([0, 1, 2, 32, 128, 256, 1024]))
    def wait(self, pause):
        self.clock.advance(pause / 256)
        self.tokens = min(self.burst, self.tokens + pause / 256 * self.rate)
        self.times = [at for at in self.times if at + 1 > self.clock.time]

    @rule()
    def call(self):
        if self.kind == "token":
            free, after = self.tokens >= 1, (1 - self.tokens) / self.rate
        else:
            free = len(self.times) < self.rate
            after = 0.0 if free else self.times[0] + 1 - self.clock.time
        if free:
            self.limit.call(lambda: None)
            self.tokens -= 1
            self.times.append(self.clock.time)
        else:
            assert refused(self.limit(lambda: None)).retry_after_s == after


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    rate=st.sampled_from([1, 2, 4]),
    comes=st.lists(
        st.tuples(st.integers(0, 64), st.none() | st.integers(0, 48)), min_size=1, max_size=20
    ),
)
def test_tasks_that_come_and_are_cancelled_at_any_time(kind, rate, comes):
    """Nobody overtakes, nobody waits longer than it may, the rate holds; and when all is over, the
    places of those who gave up are free."""
    clock = FakeClock()
    limit = RateLimit(rate, 1.0, 1 if kind == "token" else None, kind, 2.0, clock=clock)
    went = []

    turns = count()

    async def one(comes_at, patience):
        await asyncio.sleep(comes_at / 8)
        came, number = clock.time, next(turns)  # timers of one moment come in any order

        async def done():
            went.append((came, number, clock.time))

        task = asyncio.ensure_future(limit.acall(done))
        if patience is not None:
            asyncio.get_running_loop().call_later(patience / 16, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        except RateLimited:
            return "refused"
        return "went"

    async def main():
        ends = await asyncio.gather(*(one(*come) for come in comes))
        await asyncio.sleep(1.0)
        assert limit._lines == {}
        for _ in range(1 if kind == "token" else rate):
            start = clock.time
            await limit.acall(empty)
            assert clock.time == start
        return ends

    ends = clock.run(main())
    assert ends.count("went") == len(went)
    assert [number for _, number, _ in went] == sorted(number for _, number, _ in went)
    assert all(at - came <= 2.0 for came, _, at in went)
    times = [at for _, _, at in went]
    if kind == "token":
        assert all(second - first >= 1 / rate for first, second in pairwise(times))
    else:
        assert all(b - a >= 1.0 for a, b in zip(times, times[rate:], strict=False))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("within", ["due", "call"])
def test_a_coroutine_thrown_away_while_the_lock_is_held(kind, within):
    """As the collector may do at any allocation: no deadlock, and its place is free."""
    clock = FakeClock()
    limit = RateLimit(1, 1.0, kind=kind, wait_s=9.0, clock=clock)

    async def main():
        guarded = limit(empty)
        await guarded()
        thrown = guarded()
        thrown.send(None)  # waits
        line = next(iter(limit._lines.values()))
        now = clock.now

        def collects():
            thrown.close()
            return now()

        clock.now = collects
        guarded = limit(empty)
        if within == "due":
            line.timer.cancel()
            limit._due(line)
            assert limit._lines == {}
        start = clock.time
        await guarded()
        assert clock.time == start + 1.0

    clock.run(main())
