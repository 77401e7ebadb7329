"""What operators do at run time: open a breaker, watch only, drain and change a rate."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.tolerate import (
    Breaker,
    BreakerOpen,
    Consecutive,
    CountWindow,
    Policy,
    RateLimit,
    RateLimited,
    Retry,
    State,
    Why,
)
from everup.tolerate._quota import CLOSE_S, Tokens, Window
from everup.tolerate.testing import FakeClock, Recorder

Do = Callable[..., Any]


class Way:
    """The same call, sync or async."""

    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous = asynchronous
        self.clock = FakeClock()

    def guard(self, policy: Policy, do: Do) -> Do:
        """``do`` behind a policy."""
        if not self.asynchronous:
            return policy(do)

        async def ado(*args: Any) -> Any:
            return do(*args)

        guarded = policy(ado)
        return lambda *args: self.clock.run(guarded(*args))


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Way:
    return Way(request.param)


class TooMany(Exception):  # noqa: N818
    """What a client raises for a 429."""

    def __init__(self, retry_after_s: Any) -> None:
        super().__init__("429")
        self.retry_after_s = retry_after_s


def raising(error: Exception) -> Do:
    def do(*_: Any) -> None:
        raise error

    return do


def fail(guarded: Do, kind: type[BaseException], *args: Any) -> Any:
    with pytest.raises(kind) as caught:
        guarded(*args)
    return caught.value


# -- a breaker, by hand


def test_open_keeps_calls_away_for_so_long(way: Way) -> None:
    breaker = Breaker("db", open_s=30.0, clock=way.clock)
    recorder = Recorder(breaker)
    guarded = way.guard(breaker, lambda: "done")
    breaker.open(7.0)
    rejection = fail(guarded, BreakerOpen)
    assert (breaker.state, rejection.retry_after_s) == (State.OPEN, 7.0)
    assert str(rejection) == "db: open; again in 7 s; opened by hand"
    assert recorder.events[0].kind == "opened"
    assert recorder.events[0].detail == {
        "why": Why.HAND.value, "calls": 0, "failures": 0, "slow": 0, "rate": 0.0, "open_s": 7.0,
        "error": None, "generation": 1,
    }  # fmt: skip
    way.clock.advance(7.0)
    assert guarded() == "done"
    assert breaker.state is State.CLOSED


@pytest.mark.parametrize("before", ["isolated", "open", "half-open"])
def test_open_from_any_state(way: Way, before: str) -> None:
    breaker = Breaker(open_s=1.0, trip=Consecutive(1), clock=way.clock)
    if before == "isolated":
        breaker.isolate()
    else:
        fail(way.guard(breaker, raising(OSError())), OSError)
    if before == "half-open":
        way.clock.advance(1.0)
        breaker.admit()
    breaker.open(timedelta(minutes=2))
    assert fail(way.guard(breaker, len), BreakerOpen, "a").retry_after_s == 120.0


def test_a_call_from_before_says_nothing_after_it() -> None:
    breaker = Breaker(trip=Consecutive(1), clock=FakeClock())
    permit = breaker.admit()
    breaker.open(5.0)
    permit.failed()
    assert breaker.generation == 1


def test_open_wins_over_whoever_moves_it_at_the_same_time() -> None:
    clock = FakeClock()

    class Racing(Breaker):
        raced = False

        def _move(self, old: Any, new: Any) -> bool:
            if not self.raced:
                self.raced = True
                self.isolate()
            return super()._move(old, new)

    breaker = Racing(clock=clock)
    breaker.open(5.0)
    assert (breaker.state, breaker.generation) == (State.OPEN, 2)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_open_for_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be above 0"):
        Breaker().open(seconds)


# -- a breaker that only watches


def test_a_watching_breaker_tells_and_refuses_nothing(way: Way) -> None:
    breaker = Breaker("db", trip=Consecutive(2), watch_only=True, clock=way.clock)
    recorder = Recorder(breaker)
    fails = way.guard(breaker, raising(OSError("gone")))
    for _ in range(5):
        fail(fails, OSError)
    assert recorder.kinds == ["would_open", "would_open"]
    first, second = recorder.events
    assert (first.detail["why"], first.detail["failures"]) == ("failures", 2)
    assert str(first.detail["error"]) == "gone"
    assert (first.detail["generation"], second.detail["generation"]) == (1, 2)
    assert breaker.state is State.CLOSED
    assert breaker.counts().failures == 1  # begun anew


def test_who_isolates_a_watching_breaker_means_it(way: Way) -> None:
    breaker = Breaker(watch_only=True, clock=way.clock)
    breaker.isolate()
    fail(way.guard(breaker, len), BreakerOpen, "a")


def test_one_that_trips_a_watching_breaker_twice_at_once_tells_once() -> None:
    breaker = Breaker(trip=Consecutive(1), watch_only=True, clock=FakeClock())
    recorder = Recorder(breaker)
    phase, counts = breaker._phase, breaker.counts()._replace(calls=1)
    for _ in range(2):
        breaker._trip_on(phase, 0.0, Why.FAILURES, counts, None, None)
    assert recorder.kinds == ["would_open"]


# -- how long the other side wants it to be open


@pytest.mark.parametrize(
    ("wish", "open_s"),
    [(7.0, 7.0), (500, 60.0), (0, 30.0), (-5.0, 30.0), ("7", 30.0), (None, 30.0)],
)
def test_open_as_long_as_the_failure_asks_for(way: Way, wish: Any, open_s: float) -> None:
    breaker = Breaker(trip=Consecutive(1), retry_after_max_s=60.0, clock=way.clock)
    fail(way.guard(breaker, raising(TooMany(wish))), TooMany)
    assert fail(way.guard(breaker, len), BreakerOpen, "a").retry_after_s == open_s


def test_it_is_not_heeded_unless_asked_for(way: Way) -> None:
    breaker = Breaker(trip=CountWindow(1, least=1), open_s=3.0, clock=way.clock)
    fail(way.guard(breaker, raising(TooMany(7.0))), TooMany)
    assert fail(way.guard(breaker, len), BreakerOpen, "a").retry_after_s == 3.0


def test_a_probe_that_fails_is_heeded_too(way: Way) -> None:
    breaker = Breaker(trip=Consecutive(1), open_s=1.0, retry_after_max_s=60, clock=way.clock)
    fails = way.guard(breaker, raising(TooMany(9.0)))
    fail(fails, TooMany)
    way.clock.advance(9.0)
    fail(fails, TooMany)
    assert fail(fails, BreakerOpen).retry_after_s == 9.0


# -- a rate, by hand


def test_try_take_takes_if_there_is_a_place() -> None:
    for limit in (RateLimit(2, clock=FakeClock()), RateLimit(2, kind="window", clock=FakeClock())):
        recorder = Recorder(limit)
        assert [limit.try_take() for _ in range(3)] == [True, True, False]
        assert recorder.kinds == []
        with limit.off():
            assert limit.try_take()
        fail(limit(len), RateLimited, "a")


@pytest.mark.parametrize("kind", ["token", "window"])
def test_drained_by_an_answer_no_call_goes_for_so_long(way: Way, kind: Any) -> None:
    limit = RateLimit(
        100, kind=kind, clock=way.clock, drain=lambda error: getattr(error, "retry_after_s", None)
    )
    recorder = Recorder(limit)
    fail(way.guard(limit, raising(OSError())), OSError)
    assert recorder.kinds == []
    fail(way.guard(limit, raising(TooMany(5.0))), TooMany)
    assert recorder.events[0].detail == {"for_s": 5.0}
    guarded = way.guard(limit, lambda: "done")
    assert fail(guarded, RateLimited).retry_after_s == pytest.approx(5.0)
    way.clock.advance(5.0)
    assert guarded() == "done"


def test_what_a_drained_limit_tells_has_the_name_of_the_function() -> None:
    limit = RateLimit(1, drain=lambda error: None, clock=FakeClock())
    recorder = Recorder(limit)

    def ask() -> None:
        pass

    guarded = limit(ask)
    guarded()
    fail(guarded, RateLimited)
    assert recorder.events[0].function.endswith("<locals>.ask")


def test_a_drain_never_shortens_another(way: Way) -> None:
    for kind in ("token", "window"):
        limit = RateLimit(3, kind=kind, clock=way.clock)  # type: ignore[arg-type]
        limit.drain_for(timedelta(seconds=9))
        limit.drain_for(2)
        limit.drain_for(0)
        assert fail(way.guard(limit, len), RateLimited, "a").retry_after_s == pytest.approx(9.0)
    with pytest.raises(ValueError, match="for_s"):
        limit.drain_for(-1)


def test_who_may_wait_waits_for_the_drain(way: Way) -> None:
    limit = RateLimit(10, wait_s=60.0, clock=way.clock)
    limit.drain_for(5.0)
    began = way.clock.time
    assert way.guard(limit, len)("abc") == 3
    assert way.clock.time - began == pytest.approx(5.0)


@pytest.mark.parametrize("kind", ["token", "window"])
def test_another_rate_counts_from_now_on(way: Way, kind: Any) -> None:
    limit = RateLimit(2, kind=kind, clock=way.clock)
    guarded = way.guard(limit, len)
    guarded("a")
    guarded("a")
    limit.set_rate(4)
    assert (limit.rate, limit.per_s) == (4, 1.0)
    made = 0
    while limit.try_take():
        made += 1
    # A window knows that two went; a bucket has what was left in it.
    assert made == (2 if kind == "window" else 0)
    assert "more than 4 in 1 s" in str(fail(guarded, RateLimited, "a"))
    way.clock.advance(1.0)
    for _ in range(4):
        guarded("a")
    fail(guarded, RateLimited, "a")
    limit.set_rate(1, timedelta(minutes=1))
    assert limit.per_s == 60.0
    assert fail(guarded, RateLimited, "a").retry_after_s == pytest.approx(60.0, rel=0.01)
    way.clock.advance(61.0)
    guarded("a")
    fail(guarded, RateLimited, "a")


@pytest.mark.parametrize(
    ("kind", "rate", "match"),
    [
        ("token", 0, "rate must be above 0"),
        ("token", float("nan"), "rate must be above 0"),
        ("window", 1.5, "rate must be a whole number"),
        ("window", 10**9, "rate must be a whole number"),
    ],
)
def test_a_rate_out_of_range_changes_nothing(kind: Any, rate: float, match: str) -> None:
    limit = RateLimit(3, kind=kind, clock=FakeClock())
    with pytest.raises(ValueError, match=match):
        limit.set_rate(rate)
    with pytest.raises(ValueError, match="per_s must be above 0"):
        limit.set_rate(5, 0)
    assert (limit.rate, limit.per_s) == (3, 1.0)
    assert [limit.try_take() for _ in range(4)] == [True, True, True, False]


def test_a_burst_that_was_given_stays() -> None:
    clock = FakeClock()
    limit = RateLimit(1, burst=3, clock=clock)
    limit.set_rate(10)
    assert [limit.try_take() for _ in range(4)] == [True] * 3 + [False]


@settings(max_examples=200)
@given(
    changes=st.lists(st.tuples(st.integers(1, 9), st.floats(0.01, 3.0)), min_size=1, max_size=9),
    asks=st.integers(1, 30),
)
def test_no_window_ever_holds_more_than_the_higher_of_two_rates(
    changes: list[tuple[int, float]], asks: int
) -> None:
    """Whatever the rate is changed to: in a second of one rate never more than it allows."""
    clock = FakeClock()
    limit = RateLimit(changes[0][0], kind="window", clock=clock)
    for rate, wait_s in changes:
        limit.set_rate(rate)
        since = clock.time
        went = [clock.time for _ in range(asks) if limit.try_take()]
        clock.advance(wait_s)
        went += [clock.time for _ in range(asks) if limit.try_take()]
        within_a_second = [at for at in went if at > went[-1] - 1.0 + CLOSE_S] if went else []
        assert len(within_a_second) <= rate, since
        clock.advance(1.1)


@given(
    rates=st.lists(st.floats(0.1, 1000.0), min_size=1, max_size=6),
    asks=st.integers(1, 50),
)
def test_no_change_of_a_bucket_gives_more_than_one_burst(rates: list[float], asks: int) -> None:
    clock = FakeClock()
    limit = RateLimit(rates[0], burst=7, clock=clock)
    went = 0
    for rate in rates:
        limit.set_rate(rate)
        went += sum(limit.try_take() for _ in range(asks))
    assert went <= 7


def test_a_change_between_a_booking_and_its_end_gives_no_place_twice() -> None:
    """A task that gives up after the change cannot undo what it booked before."""
    clock = FakeClock()
    for kind in ("token", "window"):
        limit = RateLimit(1, kind=kind, wait_s=9.0, clock=clock)  # type: ignore[arg-type]

        async def main(limit: RateLimit = limit) -> None:
            assert limit.try_take()
            waits = asyncio.ensure_future(limit.acall(asyncio.sleep, 0))
            await asyncio.sleep(0)
            limit.set_rate(2)
            waits.cancel()
            await asyncio.gather(waits, return_exceptions=True)
            await asyncio.sleep(5.0)
            assert limit.try_take()

        clock.run(main())


# -- weights


@pytest.mark.parametrize("wait_s", [0.0, 100.0])
def test_a_call_takes_as_many_places_as_it_weighs(way: Way, wait_s: float) -> None:
    limit = RateLimit(10, weight=lambda rows: len(rows), wait_s=wait_s, clock=way.clock)
    recorder = Recorder(limit)
    guarded = way.guard(limit, len)
    began = way.clock.time
    assert guarded("a" * 4) == 4
    assert guarded("a" * 6) == 6
    assert way.clock.time == began
    if not wait_s:
        assert fail(guarded, RateLimited, "a" * 5).retry_after_s == pytest.approx(0.5)
        way.clock.advance(0.5)
    assert guarded("a" * 5) == 5
    assert way.clock.time - began == pytest.approx(0.5)
    assert recorder.kinds == ["delayed" if wait_s else "rejected"]


@pytest.mark.parametrize("weight", [0, 11, -1, 2.5, "3"])
def test_a_weight_out_of_range_is_refused(way: Way, weight: Any) -> None:
    limit = RateLimit(10, weight=lambda: weight, clock=way.clock)
    with pytest.raises((ValueError, TypeError), match="weight must be a whole number"):
        way.guard(limit, print)()
    assert limit.try_take()


def test_an_interrupted_wait_of_a_heavy_call_gives_its_places_back() -> None:
    clock = FakeClock()
    limit = RateLimit(10, weight=lambda: 10, wait_s=10.0, clock=clock)

    async def nothing() -> None:
        pass

    async def heavy() -> None:
        await limit.acall(nothing)
        waits = asyncio.ensure_future(limit.acall(nothing))
        await asyncio.sleep(0.2)
        waits.cancel()
        (ended,) = await asyncio.gather(waits, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)
        await asyncio.sleep(0.8)
        assert limit.try_take()

    clock.run(heavy())

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    clock.sleep = interrupted
    limit = RateLimit(10, weight=lambda: 10, wait_s=10.0, clock=clock)
    guarded = limit(lambda: None)
    guarded()
    fail(guarded, KeyboardInterrupt)
    clock.advance(1.0)
    guarded()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"weight": len, "kind": "window"}, ValueError, "weight is for kind 'token'"),
        ({"weight": asyncio.sleep}, TypeError, "weight"),
        ({"drain": asyncio.sleep}, TypeError, "drain"),
    ],
)
def test_options_that_cannot_be(options: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        RateLimit(5, **options)


@given(
    weights=st.lists(st.integers(1, 5), min_size=1, max_size=40),
    gaps=st.lists(st.floats(0, 0.5), min_size=40, max_size=40),
)
def test_weights_keep_to_the_rate(weights: list[int], gaps: list[float]) -> None:
    """Never more than a burst and what the rate has given since."""
    tokens = Tokens(0.1, 5)
    now, given_so_far = 100.0, 0
    for weight, gap in zip(weights, gaps, strict=False):
        now += gap
        if tokens.take(now, weight) is None:
            given_so_far += weight
        assert given_so_far <= 5 + (now - 100.0) / 0.1 + 0.001


def test_undo_gives_back_what_was_booked_last_alone() -> None:
    for bucket in (Tokens(1.0, 1), Window(1, 1.0)):
        assert bucket.take(0.0) is None
        first, second = bucket.book(), bucket.book()
        assert not bucket.undo(first)
        assert bucket.undo(second)
        assert bucket.undo(first)
        assert bucket.take(0.0) == 1.0


# -- waits that are written out


def test_a_list_of_waits_is_gone_through(way: Way) -> None:
    retry = Retry(attempts=5, backoff=[0.1, timedelta(seconds=2), 3], clock=way.clock)
    fail(way.guard(retry, raising(OSError())), OSError)
    assert way.clock.slept == [0.1, 2.0, 3, 3]


@pytest.mark.parametrize("waits", [[], (), [-1.0], [0.1, float("nan")]])
def test_a_list_that_is_none_is_refused(waits: Any) -> None:
    with pytest.raises(ValueError, match="delays_s"):
        Retry(backoff=waits)
