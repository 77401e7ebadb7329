"""``Meter``: what it counts, how well it knows latencies, and who is told on the way."""

import asyncio
import random
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.tolerate.breaker import Breaker
from everup.tolerate.bulkhead import Bulkhead
from everup.tolerate.errors import BreakerOpen, Rejected
from everup.tolerate.meter import BOUNDS_S, Meter, Watched
from everup.tolerate.testing import FakeClock


class Way:
    """The same call, sync or async; it takes time on the clock."""

    def __init__(self, kind):
        self.sync = kind == "sync"
        self.clock = FakeClock()

    def guard(self, policy, behave):
        if self.sync:
            return policy(behave)

        async def call(*args, **kwargs):
            return behave(*args, **kwargs)

        guarded = policy(call)
        return lambda *args, **kwargs: self.clock.run(guarded(*args, **kwargs))

    def takes(self, took_s, error=None):
        def behave(*args):
            self.clock.advance(took_s)
            if error is not None:
                raise error
            return args

        return behave


@pytest.fixture(params=["sync", "async"])
def way(request):
    return Way(request.param)


def counts(meter):
    shot = meter.snapshot()
    return shot.ok, shot.failed, shot.neutral, shot.rejected


def test_ok_with_its_latency(way):
    meter = Meter("db", clock=way.clock)
    assert way.guard(meter, way.takes(0.25))(1, 2) == (1, 2)
    shot = meter.snapshot()
    assert counts(meter) == (1, 0, 0, 0)
    assert (shot.name, shot.at, shot.calls, shot.total_s) == ("db", 1000.25, 1, 0.25)
    assert sum(shot.buckets) == 1
    assert shot.watched == ()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError(), (0, 1, 0, 0)),
        (TimeoutError(), (0, 1, 0, 0)),
        (BreakerOpen("b", "open"), (0, 0, 0, 1)),
        (Rejected("b", "so"), (0, 0, 0, 1)),
        (asyncio.CancelledError(), (0, 0, 1, 0)),
        (GeneratorExit(), (0, 0, 1, 0)),
    ],
)
def test_what_is_raised_is_counted_and_raised(way, error, expected):
    meter = Meter(clock=way.clock)
    with pytest.raises(type(error)) as caught:
        way.guard(meter, way.takes(0.5, error))()
    assert caught.value is error
    assert counts(meter) == expected
    shot = meter.snapshot()
    assert shot.total_s == (0.5 if expected[1] else 0)
    assert sum(shot.buckets) == expected[1]


def test_cancelled_at_an_await_it_is_neutral():
    clock = FakeClock()
    meter = Meter(clock=clock)

    @meter
    async def slow():
        await asyncio.sleep(10)

    async def main():
        task = asyncio.ensure_future(slow())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    clock.run(main())
    assert counts(meter) == (0, 0, 1, 0)


def test_the_judge_says_what_a_failure_is(way):
    meter = Meter(
        on=(OSError, BreakerOpen), unless=FileNotFoundError, when=lambda e: e.args != ("fine",),
        result=lambda args: args == (13,), clock=way.clock,
    )  # fmt: skip
    for error in (
        OSError(),
        FileNotFoundError(),
        KeyError(),
        OSError("fine"),
        BreakerOpen("b", ""),
    ):
        with pytest.raises(type(error)):
            way.guard(meter, way.takes(0.1, error))()
    assert counts(meter) == (3, 2, 0, 0)
    guarded = way.guard(meter, way.takes(0.1))
    assert guarded(13) == (13,)
    assert guarded(1) == (1,)
    assert counts(meter) == (4, 3, 0, 0)
    assert meter.snapshot().total_s == pytest.approx(0.7)


def test_a_predicate_that_raises_leaves_the_call_neutral(way):
    def broken(_):
        raise ZeroDivisionError

    meter = Meter(result=broken, clock=way.clock)
    with pytest.raises(ZeroDivisionError):
        way.guard(meter, way.takes(0))()
    meter_of_errors = Meter(when=broken, clock=way.clock)
    with pytest.raises(ZeroDivisionError):
        way.guard(meter_of_errors, way.takes(0, OSError()))()
    assert counts(meter) == counts(meter_of_errors) == (0, 0, 1, 0)


def test_since_an_earlier_one(way):
    meter = Meter(clock=way.clock)
    fast, slow = way.guard(meter, way.takes(0.001)), way.guard(meter, way.takes(2.0, OSError()))
    for _ in range(99):
        fast()
    before = meter.snapshot()
    for _ in range(2):
        with pytest.raises(OSError, match=r"^$"):
            slow()
    fast()
    now = meter.snapshot()
    fresh = now.since(before)
    assert (fresh.ok, fresh.failed, fresh.calls) == (1, 2, 3)
    assert fresh.total_s == pytest.approx(4.001)
    assert (fresh.at, fresh.name) == (now.at, now.name)
    assert fresh.p50_s == pytest.approx(2.0, rel=0.2)
    assert now.p50_s == pytest.approx(0.001, rel=0.2)
    assert now.p95_s == pytest.approx(0.001, rel=0.2)
    assert now.p99_s == pytest.approx(2.0, rel=0.2)
    none = now.since(now)
    assert (none.calls, none.p50_s) == (0, None)


@given(
    st.lists(st.floats(0, 300, allow_nan=False), min_size=1, max_size=200),
    st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0]),
)
def test_quantiles_lie_in_the_bucket_of_the_true_one(values, q):
    clock = FakeClock(start=0.0)
    meter = Meter(clock=clock)

    @meter
    def call(took_s):
        clock.advance(took_s)

    taken = []
    for value in values:
        before = clock.time
        call(value)
        taken.append(clock.time - before)
    estimate = meter.snapshot().quantile(q)
    ordered = sorted(taken)
    n = len(ordered)
    true = ordered[max(0, min(n - 1, -int(-(q * n) // 1) - 1))]
    if true > BOUNDS_S[-1]:
        assert estimate == BOUNDS_S[-1]
    elif true <= BOUNDS_S[0]:
        assert 0 <= estimate <= BOUNDS_S[0]
    else:
        assert true / 1.1893 <= estimate <= true * 1.1893


@pytest.mark.parametrize("q", [-0.1, 1.1, float("nan")])
def test_a_quantile_is_from_0_to_1(q):
    with pytest.raises(ValueError, match="q is"):
        Meter().snapshot().quantile(q)


def test_quantiles_of_a_lognormal_service():
    clock = FakeClock(start=0.0)
    meter = Meter(clock=clock)
    draw = random.Random(5)
    values = sorted(draw.lognormvariate(-4, 1) for _ in range(5000))

    @meter
    def call(took_s):
        clock.time = took_s  # from 0, so nothing is lost in the sum

    for value in values:
        clock.time = 0.0
        call(value)
    shot = meter.snapshot()
    for q, estimate in ((0.5, shot.p50_s), (0.95, shot.p95_s), (0.99, shot.p99_s)):
        assert estimate == pytest.approx(values[int(q * 5000) - 1], rel=0.05)


def test_what_is_watched_is_shown():
    clock = FakeClock()
    breaker = Breaker("b", clock=clock)
    bulkhead = Bulkhead(3, name="places", clock=clock)
    meter = Meter(watch=[breaker, bulkhead], clock=clock)
    with bulkhead:
        assert meter.snapshot().watched == (
            Watched("b", "closed", {}),
            Watched("places", None, {"in_use": 1, "waiting": 0, "limit": 3}),
        )
    breaker.isolate()
    assert meter.snapshot().watched[0].state == "isolated"
    assert Meter(watch=breaker).watch == (breaker,)
    with pytest.raises(ValueError, match="two of one name: b, b"):
        Meter(watch=(breaker, Breaker("b")))


def test_somebody_is_told_now_and_then_at_the_end_of_a_call(way):
    meter = Meter(clock=way.clock)
    told = []
    end = meter.every(10, lambda: told.append(way.clock.time - 1000))
    fine, failing = way.guard(meter, way.takes(4)), way.guard(meter, way.takes(4, OSError()))
    fine()
    fine()
    assert told == []
    with pytest.raises(OSError, match=r"^$"):
        failing()
    assert told == [12]
    fine()
    fine()
    fine()
    assert told == [12, 24]
    end()
    way.clock.advance(100)
    fine()
    assert told == [12, 24]


def test_several_are_told_each_in_its_time_and_their_errors_dropped():
    clock = FakeClock()
    meter = Meter(clock=clock)
    told = []

    def broken():
        told.append("broken")
        raise OSError

    end = meter.every(1, broken)
    meter.every(3, lambda: told.append("slow"))
    for _ in range(4):
        clock.advance(1)
        meter.call(lambda: None)
    assert told == ["broken", "broken", "broken", "slow", "broken"]
    end()
    clock.advance(3)
    meter.call(lambda: None)
    assert told[-1] == "slow"
    with pytest.raises(ValueError, match="seconds"):
        meter.every(0, print)


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="exact with the GIL alone"
)
def test_threads_lose_no_count():
    meter = Meter()
    guarded = meter(lambda error: (_ for _ in ()).throw(OSError) if error else None)

    def work():
        for number in range(2000):
            try:
                guarded(number % 2)
            except OSError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shot = meter.snapshot()
    assert (shot.ok, shot.failed, sum(shot.buckets)) == (4000, 4000, 8000)


def test_generator_functions_are_refused():
    def rows():
        yield 1

    with pytest.raises(TypeError, match="generator function"):
        Meter()(rows)
