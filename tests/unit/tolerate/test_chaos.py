"""``Chaos``: what it injects, when it does not, and its bounds. Cases after Polly 8's specs of its
chaos strategies (Simmy): switched on or off, within the rate or not, nothing made, no latency,
cancelled meanwhile."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.tolerate.breaker import Breaker
from everup.tolerate.chaos import Chaos
from everup.tolerate.errors import BreakerOpen, ChaosError
from everup.tolerate.retry import Retry
from everup.tolerate.testing import FakeClock, Recorder


class Way:
    """The same call, sync or async."""

    def __init__(self, kind):
        self.sync = kind == "sync"
        self.clock = FakeClock()
        self.calls = 0

    def chaos(self, **options):
        options = {"enabled": True, "clock": self.clock} | options
        return Chaos(**options)

    def guard(self, policy):
        def call(*args, **kwargs):
            self.calls += 1
            return "real", args, kwargs

        if self.sync:
            return policy(call)

        async def acall(*args, **kwargs):
            return call(*args, **kwargs)

        guarded = policy(acall)
        return lambda *args, **kwargs: self.clock.run(guarded(*args, **kwargs))


@pytest.fixture(params=["sync", "async"])
def way(request):
    return Way(request.param)


REAL = ("real", (), {})


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"error_rate": -0.1}, ValueError, r"error_rate must be from 0 to 1, not -0\.1"),
        ({"latency_rate": 1.1}, ValueError, r"latency_rate must be from 0 to 1, not 1\.1"),
        ({"result_rate": float("nan")}, ValueError, "result_rate must be from 0 to 1, not nan"),
        ({"result_rate": 0.5}, ValueError, "result_rate needs result"),
        ({"latency_s": -1}, ValueError, "latency_s must be 0 or more, and finite, not -1"),
        ({"latency_s": (2, 1)}, ValueError, r"latency_s must be \(low, high\), not \(2, 1\)"),
        ({"latency_s": (-1, 1)}, ValueError, "latency_s"),
        (
            {"latency_s": float("inf")},
            ValueError,
            "latency_s must be 0 or more, .* not inf",
        ),
        ({"limit": 0}, ValueError, "limit must be a whole number, 1 or more, not 0"),
        ({"window_s": 0}, ValueError, "window_s must be above 0, and finite, not 0"),
        ({"error_rate": 1, "errors": []}, ValueError, "error_rate needs errors"),
        ({"errors": ValueError("one object")}, TypeError, "neither an exception class nor"),
        ({"errors": int}, TypeError, "no exception class"),
        ({"errors": UnicodeDecodeError}, TypeError, "argument"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        Chaos(**options)


ALL = {"error_rate": 1.0, "latency_rate": 1.0, "result_rate": 1.0, "result": lambda: "made up"}


@pytest.mark.parametrize("options", [{}, {"enabled": False}, {"enabled": lambda: False}])
def test_off_it_touches_nothing(way, options, monkeypatch):
    monkeypatch.setenv("CHAOS", "1")
    monkeypatch.setenv("EVERUP_CHAOS", "1")
    chaos = Chaos(**ALL, clock=way.clock, **options)
    recorder = Recorder(chaos)
    assert way.guard(chaos)(1, a=2) == ("real", (1,), {"a": 2})
    assert (chaos.injected, recorder.kinds, way.clock.slept) == (0, [], [])


def test_the_switch_is_looked_at_for_each_call(way):
    chaos = way.chaos(enabled=False, error_rate=1.0)
    guarded = way.guard(chaos)
    assert guarded() == REAL
    chaos.enabled = True
    with pytest.raises(ChaosError, match="injected by chaos"):
        guarded()
    on = [True, False]
    chaos.enabled = lambda: on.pop(0)
    assert callable(chaos.enabled)
    with pytest.raises(ChaosError):
        guarded()
    assert guarded() == REAL
    assert way.calls == 2


def test_a_switch_that_fails_is_not_hidden(way):
    def broken():
        raise KeyError("flag")

    with pytest.raises(KeyError):
        way.guard(way.chaos(enabled=broken))()


@pytest.mark.parametrize(
    ("rate", "is_injected"), [(0.0, False), (0.4, False), (0.5, False), (0.6, True), (1.0, True)]
)
def test_within_the_rate_and_not_within_it(way, rate, is_injected):
    """The random number is 0.5."""
    chaos = way.chaos(error_rate=rate, errors=OSError)
    recorder = Recorder(chaos)
    if is_injected:
        with pytest.raises(OSError, match="injected by chaos") as caught:
            way.guard(chaos)()
        (event,) = recorder.events
        assert (event.policy, event.kind, event.at) == ("chaos", "injected", 1000.0)
        assert event.detail == {"what": "error", "error": caught.value}
    else:
        assert way.guard(chaos)() == REAL
        assert recorder.kinds == []
    assert way.calls == (not is_injected)
    assert chaos.injected == is_injected


def test_each_error_is_an_object_of_its_own(way):
    guarded = way.guard(way.chaos(error_rate=1.0))
    seen = []
    for _ in range(3):
        with pytest.raises(ChaosError) as caught:
            guarded()
        seen.append(caught.value)
    assert len({id(error) for error in seen}) == 3


def test_several_errors_are_drawn_evenly(way):
    way.clock = FakeClock(random=[0.0, 0.0, 0.0, 0.49, 0.0, 0.5, 0.0, 0.99])
    made = KeyError("made")
    guarded = way.guard(way.chaos(error_rate=1.0, errors=(OSError, lambda: made)))
    for expected in (OSError, OSError, KeyError, KeyError):
        with pytest.raises(expected):
            guarded()


def test_what_makes_no_error_this_time_injects_nothing(way):
    chaos = way.chaos(error_rate=1.0, errors=lambda: None)
    recorder = Recorder(chaos)
    assert way.guard(chaos)() == REAL
    assert (chaos.injected, recorder.kinds) == (0, [])


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_also_what_is_no_exception_can_be_injected(way, error):
    with pytest.raises(error):
        way.guard(way.chaos(error_rate=1.0, errors=error))()


@pytest.mark.parametrize(
    ("latency_s", "numbers", "delay_s"),
    [(2.0, [0.5], 2.0), ((1.0, 3.0), [0.5], 2.0), ((1.0, 3.0), [0.0], 1.0), (0.25, [0.0], 0.25)],
)
def test_latency_comes_before_the_call(way, latency_s, numbers, delay_s):
    way.clock = FakeClock(random=numbers)
    chaos = way.chaos(latency_rate=0.6, latency_s=latency_s)
    recorder = Recorder(chaos)
    assert way.guard(chaos)() == REAL
    assert way.clock.slept == [delay_s]
    assert way.clock.time == 1000.0 + delay_s
    assert [e.detail for e in recorder.events] == [{"what": "latency", "delay_s": delay_s}]


def test_not_within_the_rate_there_is_no_latency(way):
    assert way.guard(way.chaos(latency_rate=0.4))() == REAL
    assert way.clock.slept == []


def test_latency_of_nothing_is_none(way):
    chaos = way.chaos(latency_rate=1.0, latency_s=0)
    recorder = Recorder(chaos)
    assert way.guard(chaos)() == REAL
    assert (chaos.injected, recorder.kinds, way.clock.slept) == (0, [], [])


def test_a_result_instead_of_the_call(way):
    chaos = way.chaos(result_rate=0.6, result=lambda: None)
    recorder = Recorder(chaos)
    assert way.guard(chaos)() is None
    assert way.calls == 0
    assert [e.detail for e in recorder.events] == [{"what": "result"}]
    assert way.guard(way.chaos(result_rate=0.4, result=lambda: None))() == REAL


def test_latency_then_error_before_any_result(way):
    chaos = way.chaos(**ALL)
    recorder = Recorder(chaos)
    with pytest.raises(ChaosError):
        way.guard(chaos)()
    assert [e.detail["what"] for e in recorder.events] == ["latency", "error"]
    assert chaos.injected == 2


def test_no_more_than_the_limit_in_a_window(way):
    chaos = way.chaos(error_rate=1.0, limit=2, window_s=10.0, name="storm")
    recorder = Recorder(chaos)
    guarded = way.guard(chaos)

    def outcomes(count):
        found = []
        for _ in range(count):
            try:
                found.append(guarded()[0])
            except ChaosError:
                found.append("chaos")
        return found

    assert outcomes(5) == ["chaos", "chaos", "real", "real", "real"]
    assert recorder.kinds == ["injected", "injected", "limited"]
    assert recorder.events[-1].detail == {"limit": 2, "window_s": 10.0}
    way.clock.advance(9.9)
    assert outcomes(1) == ["real"]
    way.clock.advance(0.2)
    assert outcomes(3) == ["chaos", "chaos", "real"]
    assert recorder.kinds.count("limited") == 2
    assert chaos.injected == 4


def test_a_limit_without_a_window_is_for_good(way):
    chaos = way.chaos(latency_rate=1.0, limit=3, window_s=None)
    guarded = way.guard(chaos)
    for _ in range(5):
        assert guarded() == REAL
        way.clock.advance(1e6)
    assert way.clock.slept == [1.0] * 3
    results = way.chaos(result_rate=1.0, result=lambda: 1, limit=1, window_s=None)
    guarded = way.guard(results)
    assert [guarded(), guarded()] == [1, REAL]


def test_the_default_is_bounded():
    chaos = Chaos(enabled=True, error_rate=1.0, clock=FakeClock())
    passed = 0
    for _ in range(1000):
        try:
            chaos.call(lambda: None)
            passed += 1
        except ChaosError:
            pass
    assert (chaos.injected, passed) == (100, 900)


@given(st.integers(1, 8), st.integers(1, 40))
def test_threads_together_do_not_pass_the_limit(limit, calls):
    chaos = Chaos(enabled=True, error_rate=1.0, limit=limit, window_s=None, clock=FakeClock())
    failed = []

    def work():
        for _ in range(calls):
            try:
                chaos.call(lambda: None)
            except ChaosError:
                failed.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == min(limit, 3 * calls) == chaos.injected


def test_cancelled_in_the_latency_the_call_is_not_made():
    clock = FakeClock()
    chaos = Chaos(enabled=True, latency_rate=1.0, latency_s=10.0, clock=clock)
    called = []

    @chaos
    async def call():
        called.append(1)

    async def main():
        task = asyncio.ensure_future(call())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    clock.run(main())
    assert called == []


def test_a_cancelled_call_stays_cancelled():
    clock = FakeClock()
    chaos = Chaos(enabled=True, clock=clock)

    @chaos
    async def call():
        await asyncio.sleep(10)

    async def main():
        task = asyncio.ensure_future(call())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    clock.run(main())
    assert chaos.injected == 0


def test_innermost_it_is_what_the_others_tolerate():
    """Retries go on until the breaker has seen enough."""
    clock = FakeClock()
    chaos = Chaos(enabled=True, error_rate=1.0, clock=clock)
    breaker = Breaker(clock=clock)
    retry = Retry(attempts=10, clock=clock)
    called = []
    with pytest.raises(BreakerOpen):
        retry.call(breaker.around(chaos.around(lambda: called.append(1))))
    assert (chaos.injected, called) == (5, [])


def test_generator_functions_are_refused():
    def rows():
        yield 1

    with pytest.raises(TypeError, match="generator function"):
        Chaos()(rows)
