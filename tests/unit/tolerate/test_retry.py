"""Retry: every case for functions and for coroutine functions."""

import asyncio
import functools
import gc
import inspect
import itertools
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.tolerate.backoff import constant, decorrelated, exponential
from everup.tolerate.budget import RetryBudget
from everup.tolerate.deadline import Deadline
from everup.tolerate.errors import BreakerOpen, DeadlineExceeded, RateLimited, Rejected
from everup.tolerate.retry import Attempt, Retry
from everup.tolerate.testing import FakeClock, Recorder


class FlakyError(Exception):
    pass


class DownError(FlakyError):
    pass


class Service:
    """Does what its script says, call by call, and the last of it for ever; each call takes
    ``takes_s``."""

    def __init__(self, clock: FakeClock, *script: Any, takes_s: float = 0.0) -> None:
        self.clock = clock
        self.script = script
        self.takes_s = takes_s
        self.at: list[float] = []
        """When it was called, since the first call."""
        self.began = clock.time

    @property
    def calls(self) -> int:
        return len(self.at)

    def _enter(self) -> Any:
        self.at.append(self.clock.time - self.began)
        return self.script[min(len(self.at), len(self.script)) - 1]

    @staticmethod
    def _leave(step: Any) -> Any:
        if isinstance(step, BaseException) or (
            isinstance(step, type) and issubclass(step, BaseException)
        ):
            raise step
        return step

    def call(self, *args: Any, **kwargs: Any) -> Any:
        step = self._enter()
        self.clock.advance(self.takes_s)
        return self._leave(step)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        step = self._enter()
        if self.takes_s:
            await asyncio.sleep(self.takes_s)
        return self._leave(step)


class Mode:
    """The same case for both kinds of functions."""

    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous = asynchronous

    def go(self, policy: Any, service: Service) -> Any:
        """One guarded call of the service."""
        if not self.asynchronous:
            return policy(service.call)()
        return service.clock.run(policy(service.acall)())

    def by_hand(self, retry: Retry, clock: FakeClock, body: Callable[[Attempt], Any]) -> None:
        """The same with ``attempts_of``."""

        async def loop() -> None:
            async for attempt in retry.attempts_of():
                with attempt:
                    body(attempt)

        if self.asynchronous:
            clock.run(loop())
            return
        for attempt in retry.attempts_of():
            with attempt:
                body(attempt)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> Mode:
    return Mode(request.param)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def retry_of(clock: FakeClock, **options: Any) -> Retry:
    options.setdefault("backoff", 1.0)
    return Retry(clock=clock, **options)


# -- attempts and outcomes


@pytest.mark.parametrize(("attempts", "failures"), list(itertools.product([1, 2, 3, 5], range(7))))
def test_attempts_by_failures(mode: Mode, clock: FakeClock, attempts: int, failures: int) -> None:
    service = Service(clock, *[FlakyError] * failures, "done")
    retry = retry_of(clock, attempts=attempts)
    recorder = Recorder(retry)
    if failures < attempts:
        assert mode.go(retry, service) == "done"
        assert recorder.kinds == ["retry"] * failures + ["recovered"] * (failures > 0)
    else:
        with pytest.raises(FlakyError):
            mode.go(retry, service)
        assert recorder.kinds == ["retry"] * (attempts - 1) + ["gave_up"]
    assert service.at == [float(n) for n in range(min(attempts, failures + 1))]


@pytest.mark.parametrize(("attempts", "failures"), list(itertools.product([1, 2, 4], range(6))))
def test_attempts_by_bad_values(mode: Mode, clock: FakeClock, attempts: int, failures: int) -> None:
    service = Service(clock, *[None] * failures, "done")
    retry = retry_of(clock, attempts=attempts, result=lambda value: value is None)
    recorder = Recorder(retry)
    assert mode.go(retry, service) == ("done" if failures < attempts else None)
    given_up = failures >= attempts
    last = ["gave_up"] if given_up else ["recovered"] * (failures > 0)
    assert recorder.kinds == ["retry"] * min(failures, attempts - 1) + last
    assert service.at == [float(n) for n in range(min(attempts, failures + 1))]


def test_errors_and_bad_values_count_together(mode: Mode, clock: FakeClock) -> None:
    service = Service(clock, FlakyError, None, FlakyError, None, "late")
    assert mode.go(retry_of(clock, attempts=5, result=lambda v: v is None), service) == "late"
    service = Service(clock, None, FlakyError, None)
    assert mode.go(retry_of(clock, attempts=3, result=lambda v: v is None), service) is None
    service = Service(clock, None, FlakyError)
    with pytest.raises(FlakyError):
        mode.go(retry_of(clock, attempts=2, result=lambda v: v is None), service)


def test_without_a_predicate_every_value_is_good(mode: Mode, clock: FakeClock) -> None:
    for value in (None, 0, False, "", FlakyError("a value, not raised")):

        async def give(value: Any = value) -> Any:
            return value

        retry = retry_of(clock)
        if mode.asynchronous:
            assert clock.run(retry(give)()) is value
        else:
            assert retry(lambda value=value: value)() is value
    assert clock.slept == []


def test_the_value_given_back_is_the_very_object(mode: Mode, clock: FakeClock) -> None:
    bad = [object(), object(), object()]
    retry = retry_of(clock, result=lambda value: True)
    assert mode.go(retry, Service(clock, *bad)) is bad[2]


def test_events_say_what_happened(mode: Mode, clock: FakeClock) -> None:
    first, last = FlakyError(1), FlakyError(3)
    retry = retry_of(clock, backoff=exponential(1.0), name="shop", result=lambda v: v is None)
    recorder = Recorder(retry)
    with pytest.raises(FlakyError):
        mode.go(retry, Service(clock, first, None, last))
    assert [
        (event.policy, event.kind, event.at - 1000, event.detail) for event in recorder.events
    ] == [
        ("shop", "retry", 0, {"attempt": 1, "delay_s": 1, "error": first}),
        ("shop", "retry", 1, {"attempt": 2, "delay_s": 2, "error": None}),
        ("shop", "gave_up", 3, {"attempts": 3, "why": "attempts", "elapsed_s": 3, "error": last}),
    ]


def test_a_listener_that_raises_breaks_nothing(mode: Mode, clock: FakeClock) -> None:
    retry = retry_of(clock)
    retry.subscribe(lambda event: 1 / 0)
    assert mode.go(retry, Service(clock, FlakyError, "done")) == "done"


def test_one_object_guards_many_calls_one_after_the_other(mode: Mode, clock: FakeClock) -> None:
    retry = retry_of(clock, backoff=exponential(1.0))
    for _ in range(3):
        clock.slept.clear()
        assert mode.go(retry, Service(clock, FlakyError, FlakyError, "done")) == "done"
        assert clock.slept == [1, 2]


# -- which errors


@pytest.mark.parametrize(
    ("options", "raised", "calls"),
    [
        ({}, FlakyError, 3),
        ({}, ValueError, 3),
        ({"on": FlakyError}, FlakyError, 3),
        ({"on": FlakyError}, DownError, 3),
        ({"on": DownError}, FlakyError, 1),
        ({"on": (KeyError, FlakyError)}, FlakyError, 3),
        ({"on": (KeyError, FlakyError)}, ValueError, 1),
        ({"on": ()}, FlakyError, 1),
        ({"unless": DownError}, DownError, 1),
        ({"unless": DownError}, FlakyError, 3),
        ({"on": FlakyError, "unless": (DownError, ValueError)}, DownError, 1),
        ({"when": lambda error: True}, FlakyError, 3),
        ({"when": lambda error: False}, FlakyError, 1),
        ({"on": FlakyError, "when": lambda error: True}, ValueError, 1),
        ({"unless": DownError, "when": lambda error: True}, DownError, 1),
        # Rejected by another policy: not asked at all, so there is nothing to repeat.
        ({}, Rejected("breaker", "open"), 1),
        ({"on": Exception}, BreakerOpen("breaker", "open"), 1),
        ({"on": (Exception, Rejected)}, BreakerOpen("breaker", "open"), 3),
        ({"on": Rejected}, BreakerOpen("breaker", "open"), 3),
        ({"on": (Exception, RateLimited)}, RateLimited("rate", "too fast"), 3),
        ({"on": (Exception, RateLimited)}, BreakerOpen("breaker", "open"), 1),
        ({"on": Rejected, "unless": BreakerOpen}, BreakerOpen("breaker", "open"), 1),
        ({"when": lambda error: True}, Rejected("breaker", "open"), 1),
    ],
)
def test_which_errors(
    mode: Mode, clock: FakeClock, options: dict[str, Any], raised: Any, calls: int
) -> None:
    service = Service(clock, raised)
    retry = retry_of(clock, **options)
    recorder = Recorder(retry)
    with pytest.raises(raised if isinstance(raised, type) else type(raised)):
        mode.go(retry, service)
    assert service.calls == calls
    assert recorder.events[-1].detail["why"] == ("error" if calls == 1 else "attempts")


def test_an_error_that_is_not_to_be_repeated_ends_it_midway(mode: Mode, clock: FakeClock) -> None:
    service = Service(clock, FlakyError, KeyError, "never")
    retry = retry_of(clock, attempts=5, on=FlakyError)
    recorder = Recorder(retry)
    with pytest.raises(KeyError) as caught:
        mode.go(retry, service)
    assert recorder.kinds == ["retry", "gave_up"]
    assert recorder.events[-1].detail["attempts"] == 2
    assert caught.value.__notes__ == ["retry: 2 attempts in 1 s; not an error to repeat after"]


NEUTRAL = [asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit, BaseException]


@pytest.mark.parametrize("error", NEUTRAL)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"on": BaseException},
        {"on": tuple(NEUTRAL)},
        {"unless": FlakyError},  # tenacity's retry_if_not_exception_type swallows a cancellation
        {"on": BaseException, "when": lambda error: True, "result": lambda value: True},
    ],
)
def test_what_is_no_exception_is_never_repeated(
    mode: Mode, clock: FakeClock, error: type[BaseException], options: dict[str, Any]
) -> None:
    raised = error("stop")
    budget = RetryBudget(clock=clock)
    retry = retry_of(clock, attempts=None, total_s=100, budget=budget, **options)
    recorder = Recorder(retry)
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        raise raised

    async def astop() -> None:
        stop()

    def go() -> None:
        if mode.asynchronous:  # by hand: an event loop has its own ideas of these
            retry(astop)().send(None)
        else:
            retry(stop)()

    with pytest.raises(error) as caught:
        go()
    assert caught.value is raised
    assert not hasattr(raised, "__notes__")
    assert (calls, clock.slept, recorder.events) == (1, [], [])
    assert budget.left == pytest.approx(100.2)


def test_an_error_of_a_predicate_passes(mode: Mode, clock: FakeClock) -> None:
    def broken(subject: Any) -> Any:
        raise ZeroDivisionError

    for options in ({"when": broken}, {"retry_after": broken}, {"result": broken}):
        service = Service(clock, "value" if "result" in options else FlakyError)
        with pytest.raises(ZeroDivisionError):
            mode.go(retry_of(clock, **options), service)
        assert service.calls == 1


# -- the error that comes out


def test_the_last_error_comes_out_itself_with_a_note(mode: Mode, clock: FakeClock) -> None:
    errors = [FlakyError(1), FlakyError(2), FlakyError(3)]
    with pytest.raises(FlakyError) as caught:
        mode.go(retry_of(clock, name="shop"), Service(clock, *errors))
    assert caught.value is errors[2]
    assert caught.value.__notes__ == ["shop: 3 attempts in 2 s; no attempts left"]
    # What went before is no part of it: neither a context nor a longer traceback.
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert not hasattr(errors[0], "__notes__")


def test_a_single_attempt_is_noted_as_one(mode: Mode, clock: FakeClock) -> None:
    with pytest.raises(FlakyError) as caught:
        mode.go(retry_of(clock, attempts=1), Service(clock, FlakyError))
    assert caught.value.__notes__ == ["retry: 1 attempt in 0 s; no attempts left"]


def test_an_error_that_was_not_repeated_has_no_note(mode: Mode, clock: FakeClock) -> None:
    with pytest.raises(FlakyError) as caught:
        mode.go(retry_of(clock, on=KeyError), Service(clock, FlakyError))
    assert not hasattr(caught.value, "__notes__")


def test_the_traceback_names_the_place_and_one_frame_of_retry(mode: Mode, clock: FakeClock) -> None:
    with pytest.raises(FlakyError) as caught:
        mode.go(retry_of(clock, attempts=5), Service(clock, FlakyError))
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == "_leave"
    assert (
        sum(
            str(entry.path).endswith("tolerate/retry.py") and "src" in str(entry.path)
            for entry in caught.traceback
        )
        == 1
    )


def test_one_and_the_same_exception_gets_no_notes_without_end(mode: Mode, clock: FakeClock) -> None:
    cached = FlakyError("as a cache of failures gives it")
    for _ in range(50):
        with pytest.raises(FlakyError):
            mode.go(retry_of(clock, attempts=2), Service(clock, cached))
    assert len(cached.__notes__) == 8


def test_an_exception_that_takes_no_notes_comes_out_all_the_same(
    mode: Mode, clock: FakeClock
) -> None:
    class FrozenError(Exception):
        def __setattr__(self, name: str, value: Any) -> None:
            raise AttributeError(name)

    with pytest.raises(FrozenError):
        mode.go(retry_of(clock), Service(clock, FrozenError()))


def test_nothing_keeps_an_error_alive(mode: Mode, clock: FakeClock) -> None:
    # A cycle of exception, traceback and frame would hold all locals until the collector comes.
    alive: list[weakref.ref[FlakyError]] = []

    def fail() -> str:
        error = FlakyError()
        alive.append(weakref.ref(error))
        if len(alive) % 3:
            try:
                raise error
            finally:
                del error
        return "done"

    async def afail() -> str:
        return fail()

    def case() -> None:
        retry = retry_of(clock, attempts=3)
        if mode.asynchronous:
            coroutine = retry(afail)()
            with asyncio.Runner() as runner:  # waits are on the fake clock: none is real
                runner.run(coroutine)
        else:
            retry(fail)()

    clock.asleep = _at_once
    gc.collect()
    gc.disable()
    try:
        case()
        assert len(alive) == 3
        assert [one() for one in alive] == [None, None, None]
    finally:
        gc.enable()


async def _at_once(seconds: float) -> None:
    await asyncio.sleep(0)


# -- waits


def test_a_wait_of_nothing_is_no_wait(mode: Mode, clock: FakeClock) -> None:
    for backoff in (0, 0.0, constant(0), lambda *_: -1.0, lambda *_: float("nan")):
        with pytest.raises(FlakyError):
            mode.go(retry_of(clock, attempts=4, backoff=backoff), Service(clock, FlakyError))
    retry = retry_of(clock, backoff=0, result=lambda value: value is None)
    assert mode.go(retry, Service(clock, None, "done")) == "done"
    assert clock.slept == []


def test_backoff_is_told_of_attempts_and_of_the_wait_before(mode: Mode, clock: FakeClock) -> None:
    asked: list[tuple[int, float]] = []

    def backoff(failed: int, previous_s: float, random: Callable[[], float]) -> float:
        asked.append((failed, previous_s))
        assert random is clock.random
        return failed * 1.5

    retry = retry_of(clock, attempts=4, backoff=backoff)
    for _ in range(2):  # and starts anew with each call
        with pytest.raises(FlakyError):
            mode.go(retry, Service(clock, FlakyError))
    assert asked == [(1, 0.0), (2, 1.5), (3, 3.0)] * 2
    assert clock.slept == [1.5, 3.0, 4.5] * 2


def test_decorrelated_jitter_remembers(mode: Mode, clock: FakeClock) -> None:
    with pytest.raises(FlakyError):
        mode.go(retry_of(clock, attempts=4, backoff=decorrelated(1.0)), Service(clock, FlakyError))
    assert clock.slept == [2.0, 3.5, 5.75]


def test_by_default_it_is_full_jitter(mode: Mode, clock: FakeClock) -> None:
    with pytest.raises(FlakyError):
        mode.go(Retry(clock=clock), Service(clock, FlakyError))
    assert clock.slept == [0.05, 0.1]


def test_no_wait_is_longer_than_the_longest(mode: Mode, clock: FakeClock) -> None:
    retry = retry_of(clock, attempts=5, backoff=exponential(1.0, 100.0), max_delay_s=3.0)
    with pytest.raises(FlakyError):
        mode.go(retry, Service(clock, FlakyError))
    assert clock.slept == [1, 2, 3, 3]


# -- what the server asks for


class BusyError(FlakyError):
    def __init__(self, retry_after_s: Any) -> None:
        self.retry_after_s = retry_after_s


@pytest.mark.parametrize(
    ("wish", "slept"),
    [
        (5.0, [5.0]),
        (5, [5]),
        (0.0, []),
        (-3.0, []),
        (float("inf"), [60.0]),
        (1e9, [60.0]),
        (None, [1.0]),
        (float("nan"), [1.0]),
        ("Wed, 21 Oct 2015 07:28:00 GMT", [1.0]),
        ("7", [7.0]),  # as it stands in a header
        ("0", []),
        ("99999", [60.0]),
        ("9" * 400, [1.0]),
        ("-7", [1.0]),
        ("", [1.0]),
    ],
)
def test_the_attribute_of_the_exception(
    mode: Mode, clock: FakeClock, wish: Any, slept: list[float]
) -> None:
    assert mode.go(retry_of(clock), Service(clock, BusyError(wish), "done")) == "done"
    assert clock.slept == slept


def test_a_rejection_says_itself_when_it_may_be_repeated(mode: Mode, clock: FakeClock) -> None:
    service = Service(clock, RateLimited("rate", "too fast", 0.25), "done")
    assert mode.go(retry_of(clock, on=(Exception, Rejected)), service) == "done"
    assert clock.slept == [0.25]


def test_a_callable_is_asked_first_and_then_the_attribute(mode: Mode, clock: FakeClock) -> None:
    asked: list[Any] = []

    def after(subject: Any) -> float | None:
        asked.append(subject)
        return {1: 7.0, 2: None, 3: None}[len(asked)]

    errors = [BusyError(5.0), BusyError(6.0), FlakyError()]
    service = Service(clock, *errors, "done")
    assert mode.go(retry_of(clock, attempts=4, retry_after=after), service) == "done"
    assert asked == errors
    assert clock.slept == [7.0, 6.0, 1.0]


def test_a_value_can_ask_for_a_wait_too(mode: Mode, clock: FakeClock) -> None:
    retry = retry_of(
        clock,
        result=lambda answer: answer["status"] == 429,
        retry_after=lambda answer: answer.get("after"),
    )
    answers = [{"status": 429, "after": 4.0}, {"status": 429}, {"status": 200}]
    assert mode.go(retry, Service(clock, *answers)) == {"status": 200}
    assert clock.slept == [4.0, 1.0]


def test_an_attribute_of_a_value_does_not_count(mode: Mode, clock: FakeClock) -> None:
    class Answer:
        retry_after_s = 9.0

    retry = retry_of(clock, result=lambda value: isinstance(value, Answer))
    assert mode.go(retry, Service(clock, Answer(), "done")) == "done"
    assert clock.slept == [1.0]


def test_what_the_server_asks_for_does_not_move_the_backoff(mode: Mode, clock: FakeClock) -> None:
    retry = retry_of(clock, attempts=5, backoff=decorrelated(1.0))
    with pytest.raises(FlakyError):
        mode.go(retry, Service(clock, FlakyError(), BusyError(50.0), FlakyError()))
    assert clock.slept == [2.0, 50.0, 3.5, 5.75]


# -- total time


def test_the_total_time_is_not_overshot(mode: Mode, clock: FakeClock) -> None:
    # tenacity#423: stop_after_delay(5) with waits of 3.5 s comes back after 7 s.
    service = Service(clock, FlakyError)
    retry = retry_of(clock, attempts=None, total_s=5.0, backoff=3.5)
    recorder = Recorder(retry)
    with pytest.raises(FlakyError) as caught:
        mode.go(retry, service)
    assert service.at == [0.0, 3.5]
    assert clock.slept == [3.5]
    assert recorder.events[-1].detail["why"] == "total"
    assert caught.value.__notes__ == [
        "retry: 2 attempts in 3.5 s; the wait would end after total_s"
    ]


def test_the_time_of_attempts_counts(mode: Mode, clock: FakeClock) -> None:
    service = Service(clock, FlakyError, takes_s=2.0)
    with pytest.raises(FlakyError):
        mode.go(retry_of(clock, attempts=None, total_s=7.0), service)
    assert service.at == [0.0, 3.0, 6.0]  # the last began in time, and ended when it was done


def test_an_attempt_that_would_begin_at_the_very_end_is_not_made(
    mode: Mode, clock: FakeClock
) -> None:
    service = Service(clock, FlakyError)
    with pytest.raises(FlakyError):
        mode.go(retry_of(clock, attempts=None, total_s=3.0), service)
    assert service.at == [0.0, 1.0, 2.0]


def test_an_attempt_that_takes_all_the_time_is_the_last(mode: Mode, clock: FakeClock) -> None:
    service = Service(clock, FlakyError, takes_s=10.0)
    with pytest.raises(FlakyError):
        mode.go(retry_of(clock, total_s=7.0, backoff=0), service)
    assert service.calls == 1


def test_a_server_that_asks_for_more_time_than_there_is(mode: Mode, clock: FakeClock) -> None:
    service = Service(clock, BusyError(30.0))
    with pytest.raises(BusyError):
        mode.go(retry_of(clock, total_s=10.0), service)
    assert (service.calls, clock.slept) == (1, [])


def test_a_bad_value_at_the_end_of_the_time_is_returned(mode: Mode, clock: FakeClock) -> None:
    service = Service(clock, None)
    retry = retry_of(clock, attempts=None, total_s=2.5, result=lambda value: value is None)
    recorder = Recorder(retry)
    assert mode.go(retry, service) is None
    assert service.at == [0.0, 1.0, 2.0]
    assert recorder.events[-1].detail["why"] == "total"


@pytest.mark.parametrize("script", [FlakyError, None])
def test_a_wait_that_took_too_long_is_not_followed_by_an_attempt(
    mode: Mode, clock: FakeClock, script: Any
) -> None:
    def oversleep(seconds: float) -> None:
        clock.advance(seconds + 10.0)

    async def aoversleep(seconds: float) -> None:
        oversleep(seconds)

    clock.sleep, clock.asleep = oversleep, aoversleep
    service = Service(clock, script)
    retry = retry_of(clock, total_s=5.0, result=lambda value: value is None)
    recorder = Recorder(retry)
    if script is FlakyError:
        with pytest.raises(FlakyError):
            mode.go(retry, service)
    else:
        assert mode.go(retry, service) is None
    assert service.at == [0.0]
    assert recorder.kinds == ["retry", "gave_up"]
    assert recorder.events[-1].detail["why"] == "total"
    assert recorder.events[-1].detail["attempts"] == 1


# -- the deadline of the whole operation


def test_no_wait_goes_past_the_deadline(mode: Mode, clock: FakeClock) -> None:
    service = Service(clock, FlakyError)
    retry = retry_of(clock, attempts=10, backoff=1.0)
    recorder = Recorder(retry)
    with Deadline(2.5, clock=clock), pytest.raises(FlakyError) as caught:
        mode.go(retry, service)
    assert service.at == [0.0, 1.0, 2.0]
    assert recorder.events[-1].detail["why"] == "deadline"
    assert "the deadline" in caught.value.__notes__[0]


def test_the_nearer_of_total_time_and_deadline_counts(mode: Mode, clock: FakeClock) -> None:
    for total_s, deadline_s, why in ((2.5, 9.0, "total"), (9.0, 2.5, "deadline")):
        retry = retry_of(clock, attempts=10, total_s=total_s)
        recorder = Recorder(retry)
        service = Service(clock, FlakyError)
        with Deadline(deadline_s, clock=clock), pytest.raises(FlakyError):
            mode.go(retry, service)
        assert service.calls == 3
        assert recorder.events[-1].detail["why"] == why


def test_a_deadline_of_each_attempt_is_not_that_of_all(mode: Mode, clock: FakeClock) -> None:
    retry, deadline = retry_of(clock), Deadline(1.5, clock=clock)
    service = Service(clock, FlakyError, FlakyError, "done", takes_s=1.0)
    inner = deadline(service.acall if mode.asynchronous else service.call)
    guarded = retry(inner)
    assert (clock.run(guarded()) if mode.asynchronous else guarded()) == "done"
    assert service.at == [0.0, 2.0, 4.0]


def test_an_attempt_that_the_deadline_cuts_off_is_not_repeated(clock: FakeClock) -> None:
    service = Service(clock, FlakyError, takes_s=2.0)
    retry = retry_of(clock, attempts=None, total_s=99)
    recorder = Recorder(retry)
    with pytest.raises(DeadlineExceeded):
        clock.run(Deadline(4.5, clock=clock)(retry(service.acall))())
    assert service.at == [0.0, 3.0]
    assert recorder.kinds == ["retry"]


# -- the budget


def test_a_budget_that_is_empty_ends_it_at_once(mode: Mode, clock: FakeClock) -> None:
    budget = RetryBudget(ratio=0.0, floor_per_s=0.0, clock=clock)
    service = Service(clock, FlakyError)
    retry = retry_of(clock, budget=budget)
    recorder = Recorder(retry)
    with pytest.raises(FlakyError) as caught:
        mode.go(retry, service)
    assert (service.calls, clock.slept, recorder.kinds) == (1, [], ["gave_up"])
    assert recorder.events[0].detail["why"] == "budget"
    assert caught.value.__notes__ == ["retry: 1 attempt in 0 s; the retry budget is empty"]


def test_a_budget_that_runs_out_midway(mode: Mode, clock: FakeClock) -> None:
    budget = RetryBudget(ratio=0.0, floor_per_s=0.2, clock=clock)
    service = Service(clock, None)
    retry = retry_of(clock, attempts=9, budget=budget, result=lambda value: value is None)
    assert mode.go(retry, service) is None
    assert service.calls == 3


def test_a_call_deposits_once_and_each_retry_withdraws(mode: Mode, clock: FakeClock) -> None:
    budget = RetryBudget(ratio=0.5, floor_per_s=1.0, clock=clock)
    retry = retry_of(clock, backoff=0, budget=budget)
    assert mode.go(retry, Service(clock, "done")) == "done"
    assert budget.left == 10.5
    assert mode.go(retry, Service(clock, FlakyError, FlakyError, "done")) == "done"
    assert budget.left == 9.0


def test_nothing_is_charged_for_a_retry_that_is_not_made(mode: Mode, clock: FakeClock) -> None:
    budget = RetryBudget(ratio=0.0, clock=clock)
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"attempts": 1}, FlakyError),
        ({"on": KeyError}, FlakyError),
        ({"total_s": 0.5}, FlakyError),
        ({}, Rejected("breaker", "open")),
    ]
    for options, raised in cases:
        with pytest.raises((FlakyError, Rejected)):
            mode.go(retry_of(clock, budget=budget, **options), Service(clock, raised))
    with Deadline(0.5, clock=clock), pytest.raises(FlakyError):
        mode.go(retry_of(clock, budget=budget), Service(clock, FlakyError))
    assert budget.left == 100.0


def test_the_budget_is_charged_before_the_wait(clock: FakeClock) -> None:
    # envoy#30205: charged after it, all twenty would wait, and all would be repeated.
    budget = RetryBudget(ratio=0.0, floor_per_s=0.5, clock=clock)
    retry = retry_of(clock, attempts=2, backoff=5.0, budget=budget)
    recorder = Recorder(retry)
    service = Service(clock, FlakyError)

    async def all_at_once() -> None:
        await asyncio.gather(*(retry(service.acall)() for _ in range(20)), return_exceptions=True)

    clock.run(all_at_once())
    assert service.at == [0.0] * 20 + [5.0] * 5
    empty = [event for event in recorder.events if event.detail.get("why") == "budget"]
    assert [event.at for event in empty] == [1000.0] * 15


def test_functions_share_a_budget(mode: Mode, clock: FakeClock) -> None:
    budget = RetryBudget(ratio=0.0, floor_per_s=0.3, clock=clock)
    services = [Service(clock, FlakyError) for _ in range(3)]
    for service in services:
        with pytest.raises(FlakyError):
            mode.go(Retry(attempts=3, backoff=0, budget=budget, clock=clock), service)
    assert [service.calls for service in services] == [3, 2, 1]


# -- nested


def test_nested_retries_multiply(mode: Mode, clock: FakeClock) -> None:
    service = Service(clock, FlakyError)
    inner, outer = retry_of(clock, name="inner"), retry_of(clock, name="outer")
    function = service.acall if mode.asynchronous else service.call
    guarded = outer(inner(function))
    with pytest.raises(FlakyError) as caught:
        clock.run(guarded()) if mode.asynchronous else guarded()
    assert service.calls == 9
    assert [note.split(";")[0] for note in caught.value.__notes__] == [
        "inner: 3 attempts in 2 s",
        "outer: 3 attempts in 8 s",
    ]


def test_a_shared_budget_keeps_nested_retries_from_multiplying(
    mode: Mode, clock: FakeClock
) -> None:
    budget = RetryBudget(ratio=0.0, floor_per_s=0.2, clock=clock)
    service = Service(clock, FlakyError)
    function = service.acall if mode.asynchronous else service.call
    guarded = retry_of(clock, budget=budget)(retry_of(clock, budget=budget)(function))
    with pytest.raises(FlakyError):
        clock.run(guarded()) if mode.asynchronous else guarded()
    assert service.calls == 3


# -- cancellation


def test_cancelled_at_every_moment(clock: FakeClock) -> None:
    # Attempts of two waits each, 1 s and 1 s, and 1 s between them: 0-2, 3-5, 6-8.
    async def attempt() -> None:
        calls.append(clock.time)
        await asyncio.sleep(1.0)
        await asyncio.sleep(1.0)
        raise FlakyError

    for moment in range(8):
        calls: list[float] = []
        retry = retry_of(clock)
        recorder = Recorder(retry)

        async def case(moment: int = moment, retry: Retry = retry) -> None:
            task = asyncio.ensure_future(retry(attempt)())
            await asyncio.sleep(moment + 0.5)
            task.cancel("enough")
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
            await asyncio.sleep(30.0)

        clock.run(case())
        assert len(calls) == moment // 3 + 1
        assert recorder.kinds == ["retry"] * ((moment + 1) // 3)


@pytest.mark.parametrize("thrown", [asyncio.CancelledError, GeneratorExit, KeyboardInterrupt])
def test_thrown_into_every_await(clock: FakeClock, thrown: type[BaseException]) -> None:
    class Pause:
        def __await__(self) -> Iterator[None]:
            yield

    async def asleep(seconds: float) -> None:
        await Pause()

    async def attempt() -> None:
        calls.append(None)
        await Pause()
        await Pause()
        raise FlakyError

    clock.asleep = asleep
    reached = 0
    for stop_at in itertools.count():
        calls: list[None] = []
        retry = retry_of(clock)
        recorder = Recorder(retry)
        coroutine = retry(attempt)()
        try:
            for _ in range(stop_at + 1):
                coroutine.send(None)
        except FlakyError:
            break  # there are no more awaits than that
        reached += 1
        made, told = len(calls), recorder.kinds
        with pytest.raises(thrown):
            coroutine.throw(thrown())
        assert (len(calls), recorder.kinds) == (made, told)
        with pytest.raises(RuntimeError, match="already awaited"):
            coroutine.send(None)
    assert reached == 8


def test_a_cancelled_wait_gives_nothing_back_and_takes_nothing_more(clock: FakeClock) -> None:
    budget = RetryBudget(ratio=0.0, clock=clock)
    retry = retry_of(clock, backoff=10.0, budget=budget)

    async def case() -> None:
        task = asyncio.ensure_future(retry(Service(clock, FlakyError).acall)())
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.wait([task])

    clock.run(case())
    assert budget.left == 99.0


def test_a_timeout_around_it_works(clock: FakeClock) -> None:
    service = Service(clock, FlakyError)

    async def case() -> None:
        async with asyncio.timeout(2.5):
            await retry_of(clock, attempts=100)(service.acall)()

    with pytest.raises(TimeoutError):
        clock.run(case())
    assert service.at == [0.0, 1.0, 2.0]


def test_a_timeout_within_it_is_an_error_like_others(clock: FakeClock) -> None:
    calls = 0

    async def slow() -> str:
        nonlocal calls
        calls += 1
        async with asyncio.timeout(1.0):
            await asyncio.sleep(5.0 if calls < 3 else 0.5)
        return "done"

    assert clock.run(retry_of(clock, on=TimeoutError)(slow)()) == "done"
    assert clock.slept == [1.0, 1.0]


def test_an_interrupt_during_the_wait_ends_it(clock: FakeClock) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    clock.sleep = interrupted
    service = Service(clock, FlakyError)
    retry = retry_of(clock)
    recorder = Recorder(retry)
    with pytest.raises(KeyboardInterrupt):
        retry(service.call)()
    assert (service.calls, recorder.kinds) == (1, ["retry"])


# -- what can be guarded


def test_generator_functions_are_refused(clock: FakeClock) -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def anumbers() -> Any:
        yield 1

    class Numbers:
        def __call__(self) -> Iterator[int]:
            yield 1

    for function in (numbers, anumbers, Numbers(), functools.partial(numbers)):
        with pytest.raises(TypeError, match="generator function"):
            retry_of(clock)(function)


def test_names_and_signatures_stay(clock: FakeClock) -> None:
    retry = retry_of(clock)

    @retry
    def get(key: str, *, default: int = 0) -> int:
        """Get it."""
        return default

    @retry
    async def aget(key: str, *, default: int = 0) -> int:
        return default

    assert (get.__name__, get.__doc__) == ("get", "Get it.")
    assert str(inspect.signature(get)) == "(key: str, *, default: int = 0) -> int"
    assert get("a", default=4) == 4
    assert inspect.iscoroutinefunction(aget)
    assert not inspect.iscoroutinefunction(get)
    assert clock.run(aget("a", default=5)) == 5


def test_arguments_arrive_each_time(mode: Mode, clock: FakeClock) -> None:
    seen: list[Any] = []

    def take(*args: Any, **kwargs: Any) -> str:
        seen.append((args, kwargs))
        if len(seen) < 3:
            raise FlakyError
        return "done"

    async def atake(*args: Any, **kwargs: Any) -> str:
        return take(*args, **kwargs)

    retry = retry_of(clock)
    guarded: Any = retry(atake if mode.asynchronous else take)
    result = guarded(1, self=2, call=3)
    assert (clock.run(result) if mode.asynchronous else result) == "done"
    assert seen == [((1,), {"self": 2, "call": 3})] * 3


def test_methods(mode: Mode, clock: FakeClock) -> None:
    retry = retry_of(clock)

    class Client:
        def __init__(self) -> None:
            self.calls = 0

        @retry
        def get(self, key: str) -> str:
            self.calls += 1
            if self.calls < 3:
                raise FlakyError
            return key

        @retry
        async def aget(self, key: str) -> str:
            return type(self).get.__wrapped__(self, key)  # type: ignore[attr-defined]

    client = Client()
    assert (clock.run(client.aget("k")) if mode.asynchronous else client.get("k")) == "k"
    assert client.calls == 3


def test_direct_calls(clock: FakeClock) -> None:
    retry = retry_of(clock)
    assert retry.call(Service(clock, FlakyError, "done").call, 1, a=2) == "done"
    assert clock.run(retry.acall(Service(clock, FlakyError, "done").acall, 1, a=2)) == "done"


# -- threads and tasks


def test_threads_share_nothing_but_the_budget(clock: FakeClock) -> None:
    budget = RetryBudget(ratio=0.0, floor_per_s=1.0, clock=clock)
    retry = retry_of(clock, attempts=3, backoff=0, budget=budget)
    together = threading.Barrier(8, timeout=30)
    calls: list[int] = []
    lock = threading.Lock()

    @retry
    def work(number: int) -> None:
        with lock:
            calls.append(number)
            first = calls.count(number) == 1
        if first:
            together.wait()  # all are inside at once: no lock is held across the call
        raise FlakyError

    def run(number: int) -> None:
        with pytest.raises(FlakyError):
            work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 8 + 10
    assert all(1 <= calls.count(number) <= 3 for number in range(8))


def test_tasks_wait_at_the_same_time(clock: FakeClock) -> None:
    retry = retry_of(clock, attempts=2, backoff=5.0)

    async def case() -> list[str]:
        services = [Service(clock, FlakyError, str(number)) for number in range(50)]
        return await asyncio.gather(*(retry(one.acall)() for one in services))

    assert clock.run(case()) == [str(number) for number in range(50)]
    assert clock.time == 1005.0


# -- by hand


@pytest.mark.parametrize(("attempts", "failures"), list(itertools.product([1, 2, 3], range(5))))
def test_by_hand_is_the_same(mode: Mode, clock: FakeClock, attempts: int, failures: int) -> None:
    service = Service(clock, *[FlakyError] * failures, "done")
    budget = RetryBudget(ratio=1.0, floor_per_s=1.0, clock=clock)
    retry = retry_of(clock, attempts=attempts, budget=budget)
    recorder = Recorder(retry)
    numbers: list[int] = []

    def body(attempt: Attempt) -> None:
        numbers.append(attempt.number)
        service.call()

    if failures < attempts:
        mode.by_hand(retry, clock, body)
        assert recorder.kinds == ["retry"] * failures + ["recovered"] * (failures > 0)
    else:
        with pytest.raises(FlakyError) as caught:
            mode.by_hand(retry, clock, body)
        assert recorder.kinds == ["retry"] * (attempts - 1) + ["gave_up"]
        assert len(caught.value.__notes__) == 1
        assert caught.value.__context__ is None
    made = min(attempts, failures + 1)
    assert numbers == list(range(1, made + 1))
    assert service.at == [float(n) for n in range(made)]
    assert budget.left == 10 + 1 - (made - 1)


@pytest.mark.parametrize("error", [ValueError, *NEUTRAL, Rejected("breaker", "open")])
def test_by_hand_other_errors_pass(mode: Mode, clock: FakeClock, error: Any) -> None:
    calls = 0

    def body(attempt: Attempt) -> None:
        nonlocal calls
        calls += 1
        raise error

    async def loop() -> None:
        async for attempt in retry.attempts_of():
            with attempt:
                body(attempt)

    retry = retry_of(clock, on=FlakyError)
    with pytest.raises(error if isinstance(error, type) else Rejected):
        loop().send(None) if mode.asynchronous else mode.by_hand(retry, clock, body)
    assert calls == 1


def test_by_hand_without_waits(mode: Mode, clock: FakeClock) -> None:
    service = Service(clock, FlakyError, FlakyError, "done")
    mode.by_hand(retry_of(clock, backoff=0), clock, lambda attempt: service.call())
    assert (service.calls, clock.slept) == (3, [])


def test_by_hand_no_attempt_begins_too_late(mode: Mode, clock: FakeClock) -> None:
    def oversleep(seconds: float) -> None:
        clock.advance(seconds + 10.0)

    async def aoversleep(seconds: float) -> None:
        oversleep(seconds)

    service = Service(clock, FlakyError)
    with pytest.raises(FlakyError):
        mode.by_hand(retry_of(clock, total_s=1.5), clock, lambda attempt: service.call())
    assert service.at == [0.0, 1.0]
    clock.sleep, clock.asleep = oversleep, aoversleep
    service = Service(clock, FlakyError)
    retry = retry_of(clock, total_s=5.0)
    recorder = Recorder(retry)
    with pytest.raises(FlakyError) as caught:
        mode.by_hand(retry, clock, lambda attempt: service.call())
    assert service.at == [0.0]
    assert recorder.events[-1].detail["why"] == "total"
    assert len(caught.value.__notes__) == 1


def test_by_hand_a_block_can_be_left(clock: FakeClock) -> None:
    def leave() -> str:
        for attempt in retry_of(clock).attempts_of():
            with attempt:
                if attempt.number == 1:
                    raise FlakyError
                return "returned"
        return "never"

    assert leave() == "returned"
    for attempt in retry_of(clock).attempts_of():
        with attempt:
            break
    assert attempt.number == 1
    numbers = []
    for attempt in retry_of(clock).attempts_of():
        with attempt:
            numbers.append(attempt.number)
            continue
    assert numbers == [1]


def test_by_hand_what_is_over_stays_over(mode: Mode, clock: FakeClock) -> None:
    attempts = retry_of(clock).attempts_of()
    for attempt in attempts:
        with attempt:
            pass
    assert list(attempts) == []

    async def more() -> list[Attempt]:
        return [attempt async for attempt in attempts]

    assert clock.run(more()) == []


def test_by_hand_the_wrong_way(mode: Mode, clock: FakeClock) -> None:
    async def without() -> list[Attempt]:
        return [attempt async for attempt in retry_of(clock).attempts_of()]

    with pytest.raises(RuntimeError, match="with attempt"):
        clock.run(without()) if mode.asynchronous else list(retry_of(clock).attempts_of())
    attempt = next(retry_of(clock).attempts_of())
    with attempt:
        pass
    with pytest.raises(RuntimeError, match="one `with`"), attempt:
        pass
    with pytest.raises(TypeError, match="results"):
        retry_of(clock, result=lambda value: True).attempts_of()


def test_by_hand_cancelled_at_every_moment(clock: FakeClock) -> None:
    for moment in range(8):
        calls: list[float] = []

        async def loop(calls: list[float] = calls) -> None:
            async for attempt in retry_of(clock).attempts_of():
                with attempt:
                    calls.append(clock.time)
                    await asyncio.sleep(2.0)
                    raise FlakyError

        async def case(moment: int = moment, run: Callable[[], Awaitable[None]] = loop) -> None:
            task = asyncio.ensure_future(run())
            await asyncio.sleep(moment + 0.5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(30.0)

        clock.run(case())
        assert len(calls) == moment // 3 + 1


# -- against a model

STEP = st.tuples(
    st.sampled_from(["ok", "error", "other", "bad", "busy"]),
    st.sampled_from([0.0, 0.5, 3.0]),  # how long it takes
)


def model(
    steps: list[tuple[str, float]],
    attempts: int | None,
    total_s: float | None,
    delay_s: float,
    retries: int,
) -> tuple[list[float], str, str | None]:
    """When attempts begin, what comes out, and why it is given up."""
    at, begins = 0.0, []
    for made, (kind, takes_s) in enumerate(steps, 1):
        begins.append(at)
        at += takes_s
        if kind == "ok":
            return begins, kind, None
        if kind == "other":
            return begins, kind, "error"
        wait_s = 2.0 if kind == "busy" else delay_s
        if attempts is not None and made >= attempts:
            return begins, kind, "attempts"
        if total_s is not None and at + wait_s >= total_s:
            return begins, kind, "total"
        if retries == 0:
            return begins, kind, "budget"
        retries -= 1
        at += wait_s
    raise AssertionError("the last step is ok")


@settings(max_examples=200, deadline=None)
@given(
    asynchronous=st.booleans(),
    steps=st.lists(STEP, max_size=8),
    attempts=st.sampled_from([None, 1, 2, 3, 6]),
    total_s=st.sampled_from([None, 0.5, 2.0, 7.25, 100.0]),
    delay_s=st.sampled_from([0.0, 0.25, 1.0, 5.0]),
    retries=st.sampled_from([0, 1, 3, 100]),
)
def test_it_does_what_a_naive_model_does(
    asynchronous: bool,
    steps: list[tuple[str, float]],
    attempts: int | None,
    total_s: float | None,
    delay_s: float,
    retries: int,
) -> None:
    if attempts is None and total_s is None:
        total_s = 50.0
    steps = [*steps, ("ok", 0.0)]
    begins, outcome, why = model(steps, attempts, total_s, delay_s, retries)
    clock = FakeClock()
    results = {
        "error": FlakyError(),
        "other": KeyError(),
        "busy": BusyError(2.0),
        "bad": None,
        "ok": "done",
    }
    at: list[float] = []

    def begin() -> tuple[str, float]:
        at.append(clock.time - 1000.0)
        return steps[len(at) - 1]

    def call() -> Any:
        kind, takes_s = begin()
        clock.advance(takes_s)
        return Service._leave(results[kind])

    async def acall() -> Any:
        kind, takes_s = begin()
        await asyncio.sleep(takes_s)
        return Service._leave(results[kind])

    retry = Retry(
        attempts=attempts,
        total_s=total_s,
        backoff=delay_s,
        on=FlakyError,
        result=lambda value: value is None,
        budget=RetryBudget(0.0, retries, 1.0, FakeClock()),
        clock=clock,
    )
    recorder = Recorder(retry)
    try:
        result = clock.run(retry(acall)()) if asynchronous else retry(call)()
    except Exception as error:
        result = error
    assert result is results[outcome]
    assert at == begins
    assert recorder.kinds.count("retry") == len(begins) - 1
    assert [event.detail["why"] for event in recorder.events if event.kind == "gave_up"] == (
        [] if why is None else [why]
    )


# -- options


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"attempts": 0}, "attempts"),
        ({"attempts": -1}, "attempts"),
        ({"attempts": None}, "total_s"),
        ({"total_s": 0}, "total_s"),
        ({"total_s": -1.0}, "total_s"),
        ({"total_s": float("inf")}, "total_s"),
        ({"total_s": float("nan")}, "total_s"),
        ({"max_delay_s": -1.0}, "max_delay_s"),
        ({"max_delay_s": float("nan")}, "max_delay_s"),
        ({"backoff": -1.0}, "backoff"),
        ({"backoff": float("nan")}, "backoff"),
        ({"backoff": 61.0}, "max_delay_s"),
        ({"backoff": 2.0, "max_delay_s": 1.0}, "max_delay_s"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Retry(**options)


def test_what_is_no_exception_class_is_refused() -> None:
    with pytest.raises(TypeError, match="exception class"):
        Retry(on="ValueError")  # type: ignore[arg-type]


def test_a_group_is_repeated_for_what_is_in_it(mode: Mode, clock: FakeClock) -> None:
    down, full = ExceptionGroup("g", [DownError(), KeyError()]), RateLimited("rate", "full")
    for error, calls in ((down, 3), (ExceptionGroup("g", [full]), 1), (KeyError(), 1)):
        service = Service(clock, error)
        with pytest.raises(type(error)):
            mode.go(retry_of(clock, on=FlakyError), service)
        assert service.calls == calls
    service = Service(clock, ExceptionGroup("g", [full]))
    with pytest.raises(ExceptionGroup):
        mode.go(retry_of(clock), service)  # any error will do, but a refusal
    assert service.calls == 1
