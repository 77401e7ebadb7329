"""What is told of failures: the error that opened a breaker, and a listener that fails itself."""

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from everup.tolerate import (
    AIMD,
    Breaker,
    BreakerOpen,
    Bulkhead,
    Chaos,
    Consecutive,
    CountWindow,
    Deadline,
    DeadlineExceeded,
    Fallback,
    Hedge,
    Keyed,
    Limit,
    Meter,
    Pipeline,
    Policy,
    RateLimit,
    Retry,
    Shed,
    TimedOut,
    Timeout,
    Vote,
    _clock,
    attempt,
    check,
)
from everup.tolerate._outcome import in_words
from everup.tolerate.testing import FakeClock, Recorder, no_waits


def refuse(*_: Any) -> None:
    raise ConnectionError("refused")


def opened(breaker: Breaker) -> BreakerOpen:
    with pytest.raises(BreakerOpen) as caught:
        breaker.call(refuse)
    return caught.value


def test_the_error_that_opened_is_told_and_named_in_each_rejection() -> None:
    clock = FakeClock()
    breaker = Breaker("db", trip=Consecutive(1), open_s=5.0, clock=clock)
    recorder = Recorder(breaker)
    with pytest.raises(ConnectionError) as failed:
        breaker.call(refuse)
    assert recorder.events[0].detail["error"] is failed.value
    rejection = opened(breaker)
    assert rejection.cause == "ConnectionError: refused"
    assert str(rejection) == "db: open; again in 5 s; ConnectionError: refused"
    clock.advance(6.0)
    with breaker.admit() as permit:  # half-open, all probes under way
        assert opened(breaker).cause == "ConnectionError: refused"
        permit.failed()
    assert opened(breaker).cause == ""  # by hand: nobody knows
    assert recorder.events[-2].detail["error"] is None


def test_a_value_and_a_slow_call_are_no_error() -> None:
    clock = FakeClock()
    breaker = Breaker(trip=CountWindow(2, least=1, slow_s=1.0), result=bool, clock=clock)
    breaker.call(lambda: True)
    assert opened(breaker).cause == ""
    assert "; " not in str(BreakerOpen("db", "open"))


def test_a_failure_in_words_is_short_and_never_fails() -> None:
    class Odd(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError

    assert in_words(None) == ""
    assert in_words(Odd()) == "Odd"
    assert in_words(ValueError()) == "ValueError"
    assert len(in_words(ValueError("x" * 999))) == 200


def broken(*_: Any) -> None:
    raise RuntimeError("of the listener")


def test_a_listener_that_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    retry = Retry("db", attempts=3, backoff=0)
    retry.subscribe(broken)
    with caplog.at_level(logging.WARNING, "everup.tolerate"):
        for _ in range(3):
            with pytest.raises(ConnectionError):
                retry.call(refuse)
    (record,) = caplog.records
    assert record.getMessage() == "db: its listener broken failed; what fails again is not told"
    assert record.exc_info is not None


def test_so_are_those_of_a_keyed_and_the_hooks_of_a_meter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keyed = Keyed(lambda _: Breaker(trip=Consecutive(1)), key=lambda: "a")
    keyed.subscribe(broken)
    clock = FakeClock()
    meter = Meter(clock=clock)
    meter.every(1.0, broken)
    for _ in range(3):
        with pytest.raises((ConnectionError, BreakerOpen)):
            keyed.call(refuse)
        clock.advance(2.0)
        meter.call(len, "a")
    assert sorted(record.getMessage().split(" failed")[0] for record in caplog.records) == [
        "keyed: its listener broken", "meter: its hook broken",
    ]  # fmt: skip


def test_nobody_waits_where_a_test_says_so() -> None:
    """Also in what was made before: a decorator at import."""

    @Retry(attempts=3, backoff=3600.0, max_delay_s=3600.0)
    def fails() -> None:
        refuse()

    @Retry(attempts=3, backoff=3600.0, max_delay_s=3600.0)
    async def fails_async() -> None:
        refuse()

    with no_waits(), no_waits():
        with pytest.raises(ConnectionError):
            fails()
        with pytest.raises(ConnectionError):
            asyncio.run(fails_async())
    assert _clock.skipping == 0
    _clock.system_sleep(0.0)


# -- of which function


class Shop:
    def orders(self, *_: Any) -> Any:
        refuse()

    async def aorders(self, *_: Any) -> Any:
        refuse()


def policies(clock: FakeClock) -> list[Policy]:
    """Each tells something of a call that fails, or comes when it may not."""
    isolated, shed = Breaker("isolated", clock=clock), Shed(waited=lambda *_: 9.0, clock=clock)
    isolated.isolate()
    chaos = Chaos(enabled=True, latency_rate=1.0, error_rate=1.0, limit=2, clock=clock)
    empty = RateLimit(1, clock=clock)
    empty.try_take()
    waits = RateLimit(1, wait_s=9.0, clock=clock)
    waits.try_take()
    full = Bulkhead(1, clock=clock)
    full.__enter__()
    busy = Limit(AIMD(initial=1, min=1, max=1), clock=clock)
    busy.permit().__enter__()
    return [
        Retry(backoff=0, clock=clock),
        Breaker(trip=Consecutive(1), clock=clock),
        isolated,
        shed,
        chaos,
        empty,
        waits,
        RateLimit(9, clock=clock, drain=lambda error: None, weight=lambda *_: 9),
        full,
        busy,
        Fallback(5, clock=clock),
        Fallback(function=lambda error, *_: 5, clock=clock),
        Vote(Shop().orders, quorum=2, clock=clock),
        Pipeline(Retry(backoff=0, clock=clock), Breaker(trip=Consecutive(1), clock=clock)),
        Keyed(lambda _: Retry(backoff=0, clock=clock), key=lambda *_: 1),
    ]


@pytest.mark.parametrize("number", range(15))
@pytest.mark.parametrize("asynchronous", [False, True])
def test_events_have_the_name_of_the_function(number: int, asynchronous: bool) -> None:
    clock = FakeClock(random=(0.0,))
    policy = policies(clock)[number]
    if asynchronous and isinstance(policy, Vote):
        policy = Vote(Shop().aorders, quorum=2, clock=clock)
    recorder = Recorder(policy)

    def go() -> None:
        with contextlib.suppress(Exception):
            if asynchronous:
                clock.run(policy.acall(Shop().aorders, 1))
            else:
                policy.call(Shop().orders, 1)

    go()
    go()
    name = "Shop.aorders" if asynchronous else "Shop.orders"
    # The weight is what fails second: its first call takes all places.
    assert {event.function for event in recorder.events} == {name}


def test_as_does_what_is_told_of_time() -> None:
    clock = FakeClock()

    async def slow() -> None:
        await asyncio.sleep(9.0)

    def late() -> None:
        clock.advance(9.0)
        check()

    async def quick_then_slow() -> None:
        await asyncio.sleep(1.0)

    for policy in (Timeout(1.0, clock=clock), Timeout(None, each=lambda: 1.0, clock=clock)):
        recorder = Recorder(policy)
        for call in (lambda: clock.run(policy.acall(slow)), lambda: policy.call(late)):  # noqa: B023
            with pytest.raises(TimedOut):
                call()
        assert [event.function.rpartition(".")[2] for event in recorder.events] == ["slow", "late"]
        assert [event.detail for event in recorder.events] == [{"seconds": 1.0}] * 2
    deadline = Deadline(1.0, clock=clock)
    recorder = Recorder(deadline)
    with pytest.raises(DeadlineExceeded):
        clock.run(deadline.acall(slow))
    hedge = Hedge(0.5, clock=clock)
    told = Recorder(hedge)
    clock.run(hedge.acall(quick_then_slow))
    names = {event.function.rpartition(".")[2] for event in told.events}
    assert recorder.events[0].function.endswith("slow")
    assert names == {"quick_then_slow"}


def test_a_block_has_no_name_and_a_long_one_is_cut() -> None:
    breaker = Breaker(trip=Consecutive(1))
    recorder = Recorder(breaker)
    with pytest.raises(ConnectionError), breaker:
        refuse()
    breaker.reset()
    assert {event.function for event in recorder.events} == {""}

    def long() -> None:
        refuse()

    long.__qualname__ = "x" * 999
    with pytest.raises(ConnectionError):
        breaker.call(long)
    assert recorder.events[-1].function == "x" * 200


# -- success after repeats


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_later_attempt_that_is_well_is_told(asynchronous: bool) -> None:
    clock = FakeClock()
    retry = Retry(attempts=5, backoff=2.0, clock=clock)
    recorder = Recorder(retry)
    left = [1, 1]

    def twice() -> str:
        if left:
            left.pop()
            refuse()
        return "done"

    async def atwice() -> str:
        return twice()

    assert (clock.run(retry.acall(atwice)) if asynchronous else retry.call(twice)) == "done"
    assert recorder.kinds == ["retry", "retry", "recovered"]
    assert recorder.events[-1].detail == {"attempts": 3, "elapsed_s": 4.0}
    assert (clock.run(retry.acall(atwice)) if asynchronous else retry.call(twice)) == "done"
    assert recorder.kinds == ["retry", "retry", "recovered"]  # at once: nothing to tell


# -- which attempt it is


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_is_called_knows_which_attempt_it_is(asynchronous: bool) -> None:
    clock = FakeClock()
    outer, inner = Retry(attempts=2, backoff=1.0, clock=clock), Retry(attempts=3, backoff=0)
    seen: list[int] = []

    def look() -> None:
        seen.append(attempt.get())
        refuse()

    async def alook() -> None:
        look()

    async def main() -> None:
        try:
            await outer.acall(inner(alook))
        finally:
            seen.append(attempt.get())

    with pytest.raises(ConnectionError):
        clock.run(main()) if asynchronous else outer.call(inner(look))
    # The second attempt of the outer one is the first of the inner one, which sets nothing.
    assert seen[:6] == [1, 2, 3, 2, 2, 3]
    assert seen[6:] == ([1] if asynchronous else [])
    assert attempt.get() == 1


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("ends", [None, KeyboardInterrupt, "bad"])
def test_it_is_as_before_however_the_call_ends(asynchronous: bool, ends: Any) -> None:
    retry = Retry(attempts=3, backoff=0, result=lambda value: value == "bad")
    script: list[Any] = [ConnectionError, ends, ends]

    def next_one() -> Any:
        step = script.pop(0)
        if isinstance(step, type):
            raise step
        return step

    async def anext_one() -> Any:
        return next_one()

    def go() -> Any:
        if not asynchronous:
            return retry.call(next_one)
        coroutine = retry.acall(anext_one)
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value

    attempt.set(7)
    try:
        if ends is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                go()
        else:
            assert go() == ends
        assert attempt.get() == 7
    finally:
        attempt.set(1)


def test_by_hand_it_is_the_number_of_the_attempt() -> None:
    seen: list[tuple[int, int]] = []

    def by_hand(retry: Retry, do: Callable[[int], object]) -> None:
        for one in retry.attempts_of():
            with one:
                seen.append((one.number, attempt.get()))
                do(one.number)

    def second(error: type[BaseException] | None) -> Callable[[int], object]:
        def do(number: int) -> None:
            if number == 1:
                refuse()
            if error is not None:
                raise error

        return do

    retry = Retry(attempts=3, backoff=0)
    with pytest.raises(ConnectionError):
        by_hand(retry, refuse)
    assert seen == [(1, 1), (2, 2), (3, 3)]
    assert attempt.get() == 1
    recorder = Recorder(retry)
    by_hand(retry, second(None))
    assert recorder.kinds == ["retry", "recovered"]
    with pytest.raises(KeyboardInterrupt):
        by_hand(retry, second(KeyboardInterrupt))
    assert attempt.get() == 1


def test_a_generator_that_is_closed_in_another_context_leaves_it_alone() -> None:
    def body() -> Iterator[int]:
        for one in Retry(attempts=3, backoff=0).attempts_of():
            with one:
                if one.number == 1:
                    refuse()
                yield attempt.get()

    generator = body()
    assert contextvars.copy_context().run(next, generator) == 2
    assert attempt.get() == 1
    generator.close()
    assert attempt.get() == 1


@pytest.mark.parametrize("threads", [0, 4])
def test_a_copy_of_a_hedge_knows_its_number(threads: int) -> None:
    seen: list[int] = []

    def ask() -> int:
        number = attempt.get()
        seen.append(number)
        if number == 1:
            refuse()
        return number

    async def aask() -> int:
        return ask()

    if threads:
        assert Hedge(60.0, threads=threads).call(ask) == 2
    else:
        clock = FakeClock()
        assert clock.run(Hedge(60.0, clock=clock).acall(aask)) == 2
    assert seen == [1, 2]
    assert attempt.get() == 1
