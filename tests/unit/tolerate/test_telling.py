"""What is told of failures: the error that opened a breaker, and a listener that fails itself."""

import asyncio
import logging
from typing import Any

import pytest

from everup.tolerate import (
    Breaker,
    BreakerOpen,
    Consecutive,
    CountWindow,
    Keyed,
    Meter,
    Retry,
    _clock,
)
from everup.tolerate._outcome import in_words
from everup.tolerate.testing import FakeClock, Recorder, no_waits


def refuse() -> None:
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
