"""``Fallback``: value, function, last good value, and what is never replaced."""

import asyncio
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from everup.tolerate.errors import BreakerOpen
from everup.tolerate.fallback import Fallback
from everup.tolerate.testing import FakeClock, Recorder


class Way:
    """The same call, sync or async."""

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


@pytest.fixture(params=["sync", "async"])
def way(request):
    return Way(request.param)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "give value, function or last_good_s"),
        ({"value": 1, "function": print}, "not both"),
        ({"value": 1, "last_good_s": 0}, "last_good_s"),
        ({"value": 1, "keys": 0}, "keys"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        Fallback(**options)


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.mark.parametrize("value", [None, [], "else"])
def test_a_value_instead_of_an_error(way, value):
    fallback = Fallback(value, clock=way.clock)
    error = ValueError()
    recorder = Recorder(fallback)
    assert way.guard(fallback, raising(error))() is value
    assert [(event.kind, event.detail) for event in recorder.events] == [
        ("fell_back", {"source": "value", "error": error, "age_s": None})
    ]
    recorder.stop()
    assert way.guard(fallback, raising(error))() is value
    assert way.guard(fallback, lambda: "good")() == "good"


def test_rejections_are_replaced_too_unless_said_otherwise(way):
    rejected = BreakerOpen("breaker", "open")
    assert way.guard(Fallback(0), raising(rejected))() == 0
    for fallback in (Fallback(0, on=Exception), Fallback(0, unless=BreakerOpen)):
        with pytest.raises(BreakerOpen):
            way.guard(fallback, raising(rejected))()


def test_only_the_failures_told_are_replaced(way):
    fallback = Fallback(0, on=OSError, unless=FileNotFoundError, when=lambda e: e.errno != 28)
    assert way.guard(fallback, raising(OSError(5, "no")))() == 0
    for error in (FileNotFoundError(), OSError(28, "no"), KeyError()):
        with pytest.raises(type(error)) as caught:
            way.guard(fallback, raising(error))()
        assert caught.value is error


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit()])
@pytest.mark.parametrize("on", [Exception, BaseException])
def test_cancellation_is_never_replaced(way, error, on):
    fallback = Fallback(0, on=on, last_good_s=60)
    recorder = Recorder(fallback)
    with pytest.raises(type(error)):
        way.guard(fallback, raising(error))()
    assert recorder.kinds == []


def test_cancelled_at_an_await_it_stays_cancelled():
    clock = FakeClock()

    @Fallback("else")
    async def slow():
        await asyncio.sleep(10)

    async def main():
        task = asyncio.ensure_future(slow())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    clock.run(main())


def test_the_function_gets_what_went_wrong_and_the_arguments(way):
    error = ValueError()
    fallback = Fallback(function=lambda *args, **kwargs: (args, kwargs))
    recorder = Recorder(fallback)
    assert way.guard(fallback, raising(error))(1, x=2) == ((error, 1), {"x": 2})
    assert recorder.events[0].detail == {"source": "function", "error": error, "age_s": None}


def test_a_result_judged_a_failure_is_replaced(way):
    bad = {"result": lambda got: got == 503}
    assert way.guard(Fallback(0, **bad), lambda: 503)() == 0
    assert way.guard(Fallback(0, **bad), lambda: 200)() == 200
    found = way.guard(Fallback(function=lambda *args: args, **bad), lambda x: 503)(7)
    assert found == (503, 7)
    kept = Fallback(last_good_s=60, key=lambda *_: None, clock=way.clock, **bad)
    answers = iter([503, 200, 503])
    guarded = way.guard(kept, lambda: next(answers))
    recorder = Recorder(kept)
    assert [guarded() for _ in range(3)] == [503, 200, 200]
    assert [event.detail["error"] for event in recorder.events] == [None]


def test_the_functions_own_error_has_the_original_as_its_context(way):
    original = ValueError("original")

    def fail(error):
        raise KeyError("fallback")

    with pytest.raises(KeyError) as caught:
        way.guard(Fallback(function=fail), raising(original))()
    assert caught.value.__context__ is original


def test_an_async_function():
    clock = FakeClock()
    original = ValueError("original")

    async def other(wrong, fails):
        await asyncio.sleep(1)
        if fails:
            raise KeyError
        return wrong

    fallback = Fallback(function=other, result=lambda got: got == 503)

    @fallback
    async def call(fails):
        raise original

    @fallback
    async def bad(fails):
        return 503

    assert clock.run(call(False)) is original
    assert clock.run(bad(False)) == 503
    with pytest.raises(KeyError) as caught:
        clock.run(call(True))
    assert caught.value.__context__ is original
    with pytest.raises(TypeError, match="is async"):
        fallback(lambda fails: None)


def test_cancelled_in_the_fallback_it_stays_cancelled():
    clock = FakeClock()

    async def other(error):
        await asyncio.sleep(10)

    @Fallback(function=other)
    async def call():
        raise ValueError

    async def main():
        task = asyncio.ensure_future(call())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    clock.run(main())


def answering(up):
    """Answers while ``up`` says so."""

    def answer(*args, **kwargs):
        if not up[0]:
            raise ConnectionError
        return (args, kwargs)

    return answer


def test_the_last_good_value_while_it_is_young_enough(way):
    up = [True]
    fallback = Fallback(last_good_s=10.0, clock=way.clock)
    recorder = Recorder(fallback)
    guarded = way.guard(fallback, answering(up))
    good = guarded(1, x=2)
    up[0] = False
    way.clock.advance(10.0)
    assert guarded(1, x=2) is good
    assert recorder.events[0].detail["source"] == "last_good"
    assert recorder.events[0].detail["age_s"] == 10.0
    for args, kwargs in (((1,), {}), ((2,), {"x": 2}), ((1,), {"x": 3})):
        with pytest.raises(ConnectionError):  # another's answer is none
            guarded(*args, **kwargs)
    way.clock.advance(0.001)
    with pytest.raises(ConnectionError):
        guarded(1, x=2)
    assert recorder.kinds == ["fell_back"]


def test_then_the_function_or_the_value(way):
    for options in ({"value": "else"}, {"function": lambda error: "else"}):
        fallback = Fallback(**options, last_good_s=1, clock=way.clock)
        up = [False]
        guarded = way.guard(fallback, answering(up))
        assert guarded() == "else"
        up[0] = True
        good = guarded()
        up[0] = False
        assert guarded() is good
        way.clock.advance(2)
        assert guarded() == "else"


def test_a_key_of_ones_own_and_functions_that_share_nothing(way):
    fallback = Fallback("else", last_good_s=60, key=lambda request: request["user"])
    up = [True]
    one, other = way.guard(fallback, answering(up)), way.guard(fallback, answering(up))
    good = one({"user": 1})
    up[0] = False
    assert one({"user": 1, "more": []}) is good
    assert one({"user": 2}) == "else"
    assert other({"user": 1}) == "else"


def test_arguments_that_tell_nothing_apart_are_refused_before_the_call(way):
    called = []
    guarded = way.guard(Fallback(0, last_good_s=60), called.append)
    with pytest.raises(TypeError, match=r"fallback: unhashable type: 'list'.*give key"):
        guarded([])
    assert called == []


def test_the_number_of_keys_is_bounded_and_the_stalest_goes(way):
    up = [True]
    fallback = Fallback("else", last_good_s=60, keys=3)
    guarded = way.guard(fallback, answering(up))
    for number in (1, 2, 3, 1, 4):
        guarded(number)
    assert len(fallback._good) == 3
    up[0] = False
    assert [number for number in (1, 2, 3, 4) if guarded(number) != "else"] == [1, 3, 4]


def test_what_is_kept_holds_for_call_too():
    clock = FakeClock()
    up = [True]
    answer = answering(up)
    fallback = Fallback(last_good_s=60)
    good = fallback.call(answer, 1)
    up[0] = False
    assert fallback.call(answer, 1) is good

    async def aanswer():
        return answer()

    assert clock.run(Fallback("else").acall(aanswer)) == "else"


def test_a_generator_function_is_refused():
    with pytest.raises(TypeError, match="generator"):

        @Fallback(0)
        def numbers():
            yield 1

    assert repr(Fallback(last_good_s=1).value) == "NOTHING"


def test_threads_share_what_is_kept():
    fallback = Fallback(last_good_s=60, keys=5)
    guarded = fallback(lambda number: number)
    threads = [
        threading.Thread(target=lambda: [guarded(n % 11) for n in range(3000)]) for _ in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(fallback._good) == 5


class Model(RuleBasedStateMachine):
    """Against a list of all that was ever answered."""

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        self.up = [True]
        self.answers = []
        self.number = 0

        def answer(key):
            if not self.up[0]:
                raise ConnectionError
            return self.number

        self.fallback = Fallback("else", last_good_s=8, keys=3, clock=self.clock)
        self.guarded = self.fallback(answer)

    @rule(seconds=st.sampled_from([1, 4, 8]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @rule(key=st.integers(0, 5))
    def good(self, key):
        self.number += 1
        self.up[0] = True
        assert self.guarded(key) == self.number
        self.answers.append((key, self.clock.time, self.number))

    @rule(key=st.integers(0, 5))
    def failed(self, key):
        self.up[0] = False
        latest = {}
        for one, at, number in self.answers:
            latest.pop(one, None)
            latest[one] = at, number
        kept = dict(list(latest.items())[-3:])
        at, number = kept.get(key, (float("-inf"), None))
        young = self.clock.time - at <= 8
        assert self.guarded(key) == (number if young else "else")


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
