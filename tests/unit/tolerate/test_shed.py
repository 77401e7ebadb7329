"""``Shed``: by waiting time, by priority, and the client's throttle."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.tolerate.errors import LimitReached, Overloaded
from everup.tolerate.limit import AIMD, Limit
from everup.tolerate.shed import Shed, arrived, priority
from everup.tolerate.testing import FakeClock, Recorder


class Way:
    """The same call, sync or async, as a function or as a block."""

    def __init__(self, kind):
        self.sync = kind == "sync"
        self.clock = FakeClock()

    def guard(self, policy, behave=lambda *args: "done"):
        if self.sync:
            return policy(behave)

        async def call(*args):
            return behave(*args)

        guarded = policy(call)
        return lambda *args: self.clock.run(guarded(*args))

    def block(self, policy, behave=lambda *args: "done"):
        if self.sync:

            def within(*args):
                with policy.permit(*args):
                    return behave(*args)

            return within

        async def awithin(*args):
            async with policy.permit(*args):
                return behave(*args)

        return lambda *args: self.clock.run(awithin(*args))


@pytest.fixture(params=["sync", "async"])
def way(request):
    return Way(request.param)


@pytest.fixture(params=["guard", "block"])
def put(request, way):
    return getattr(way, request.param)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"by": "luck"}, "by"),
        ({"by": "throttle", "waited": abs}, "waited"),
        ({"by": "throttle", "since": abs}, "since"),
        ({"matters": abs}, "matters"),
        ({"load": float}, "load"),
        ({"by": "priority"}, "needs load"),
        ({"waited": abs, "since": abs}, "not both"),
        ({"max_wait_s": -1}, "max_wait_s"),
        ({"target_s": -1}, "target_s"),
        ({"interval_s": 0}, "interval_s"),
        ({"window_s": 0}, "window_s"),
        ({"levels": 1}, "levels"),
        ({"start": 0}, "start"),
        ({"start": 1}, "start"),
        ({"k": 0.9}, "k must"),
        ({"least": -1}, "least"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        Shed(**options)


def sheds(guarded, *args):
    try:
        guarded(*args)
    except Overloaded:
        return True
    return False


# -- by waiting time


def test_who_waited_too_long_is_refused_each_with_its_own_error(put, way):
    shed = Shed(waited=lambda seconds: seconds, max_wait_s=0.5, clock=way.clock, name="queue")
    recorder = Recorder(shed)
    guarded = put(shed)
    assert guarded(0.5) == "done"
    errors = []
    for _ in range(2):
        with pytest.raises(Overloaded) as caught:
            guarded(0.75)
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert str(errors[0]) == "queue: waited 0.75 s before it came here"
    assert [event.detail for event in recorder.events] == [{"by": "wait", "wait_s": 0.75}] * 2
    recorder.stop()
    assert sheds(guarded, 0.75)


def test_a_standing_queue_is_shed_above_twice_the_target(put, way):
    shed = Shed(
        waited=lambda seconds: seconds, target_s=0.05, interval_s=1.0, max_wait_s=9, clock=way.clock
    )
    guarded = put(shed)
    for _ in range(8):  # the least of this second: 0.06
        assert not sheds(guarded, 0.2)
        way.clock.advance(0.125)
        assert not sheds(guarded, 0.06)
    assert sheds(guarded, 0.2)
    assert shed.overloaded
    assert not sheds(guarded, 0.1)  # twice the target may go
    assert not sheds(guarded, 0.01)  # the queue drains: the next interval is a good one
    way.clock.advance(1.0)
    assert not sheds(guarded, 0.2)
    assert not shed.overloaded


def test_one_quick_request_in_each_interval_is_no_standing_queue(put, way):
    shed = Shed(waited=lambda seconds: seconds, interval_s=1.0, clock=way.clock)
    guarded = put(shed)
    for number in range(100):
        assert not sheds(guarded, 0.01 if number % 10 == 0 else 0.4)
        way.clock.advance(0.1)


def test_a_quiet_time_ends_an_overload(put, way):
    shed = Shed(waited=lambda seconds: seconds, interval_s=1.0, clock=way.clock)
    guarded = put(shed)
    for _ in range(3):
        guarded(0.09)
        way.clock.advance(1.0)
    assert shed.overloaded
    way.clock.advance(2.0)
    assert not sheds(guarded, 0.4)


def test_the_wait_since_a_time_told_by_a_callable(put, way):
    shed = Shed(since=lambda at: at, clock=way.clock)
    guarded = put(shed)
    assert not sheds(guarded, way.clock.time - 0.5)
    assert sheds(guarded, way.clock.time - 0.75)
    assert not sheds(guarded, None)  # not known


def test_the_wait_since_the_arrival_in_the_context(put, way):
    guarded = put(Shed(clock=way.clock))
    assert not sheds(guarded)  # not set
    token = arrived.set(way.clock.time)
    try:
        assert not sheds(guarded)
        way.clock.advance(0.75)
        assert sheds(guarded)
    finally:
        arrived.reset(token)


# -- by priority


def test_the_less_important_go_first_as_the_load_rises(put, way):
    load = 0.0
    shed = Shed("priority", matters=lambda level: level, load=lambda: load, start=0.7)
    guarded = put(shed)
    admitted = {}
    for load in (0.69, 0.7, 0.79, 0.81, 0.91, 1.5):
        admitted[load] = [
            level for level in (None, -1, 0, 1, 2, 3, 99) if not sheds(guarded, level)
        ]
    always = [None, -1, 0]
    assert admitted == {
        0.69: [*always, 1, 2, 3, 99],
        0.7: [*always, 1, 2],
        0.79: [*always, 1, 2],
        0.81: [*always, 1],
        0.91: always,
        1.5: always,
    }


def test_the_priority_of_the_context_and_the_utilisation_of_a_limit(put, way):
    limit = Limit(AIMD(2, 2, 2), clock=way.clock)
    shed = Shed("priority", load=limit.utilisation, clock=way.clock)
    recorder = Recorder(shed)
    guarded = put(shed)
    with limit.permit(), limit.permit():
        assert not sheds(guarded)
        token = priority.set(3)
        assert sheds(guarded)
        detail = {"by": "priority", "priority": 3, "load": 1.0}
        assert [event.detail for event in recorder.events] == [detail]
    assert not sheds(guarded)
    priority.reset(token)


# -- the client's throttle


def raising(error):
    def fail():
        raise error

    return fail


def test_it_throttles_once_fewer_than_one_in_k_are_accepted(put, way):
    shed = Shed(
        "throttle", least=0, max_chance=1.0, clock=way.clock, name="api"
    )  # the clock's chance is always 0.5
    recorder = Recorder(shed)
    fails = put(shed, raising(ConnectionError()))
    sent, told = 0, set()
    for _ in range(10):
        try:
            fails()
        except ConnectionError:
            sent += 1
        except Overloaded as error:
            told.add(str(error))
    assert told == {"api: too few calls were accepted of late"}
    assert sent == 2  # 0/1, 1/2, then 2/3 > 0.5
    assert shed.chance == pytest.approx(10 / 11)
    assert recorder.events[0].detail == {"by": "throttle", "chance": pytest.approx(2 / 3)}
    assert len(recorder.events) == 8


def test_a_burst_of_first_calls_is_not_throttled():
    clock = FakeClock(random=[0.0])
    shed = Shed("throttle", clock=clock)

    @shed
    async def call():
        await asyncio.sleep(1)

    async def main():
        got = await asyncio.gather(*(call() for _ in range(25)), return_exceptions=True)
        return sum(isinstance(one, Overloaded) for one in got)

    assert clock.run(main()) == 5  # as many as ``least`` go, whatever chance says
    assert shed.chance == 0.0


def test_while_half_are_accepted_nothing_is_throttled(put, way):
    shed = Shed("throttle", least=0, clock=way.clock)
    ok, fails = put(shed), put(shed, raising(ValueError()))
    for _ in range(50):
        assert ok() == "done"
        with pytest.raises(ValueError):  # noqa: PT011
            fails()
    assert shed.chance == 0.0


def test_it_forgets_after_its_window(put, way):
    shed = Shed("throttle", window_s=120.0, least=0, max_chance=1.0, clock=way.clock)
    fails = put(shed, raising(ValueError()))
    for _ in range(12):
        sheds_or_fails(fails)
        way.clock.advance(10.0)
    assert shed.chance == pytest.approx(12 / 13)
    sheds_or_fails(fails)
    assert shed.chance == pytest.approx(12 / 13)  # the first has left as this one came
    way.clock.advance(1000.0)
    sheds_or_fails(fails)
    assert shed.chance == pytest.approx(1 / 2)


def sheds_or_fails(guarded):
    with pytest.raises((ValueError, Overloaded)):
        guarded()


@pytest.mark.parametrize(
    "error",
    [LimitReached("limit", "full"), asyncio.CancelledError(), GeneratorExit()],
)
def test_neutral_outcomes_are_taken_back(put, way, error):
    shed = Shed("throttle", least=0, clock=way.clock)
    sheds_or_fails(put(shed, raising(ValueError())))
    for _ in range(20):
        with pytest.raises(type(error)):
            put(shed, raising(error))()
    assert (shed._throttle.all_requests, shed._throttle.all_accepts) == (1, 0)


def test_which_outcomes_were_not_accepted(way):
    shed = Shed("throttle", unless=KeyError, result=lambda got: got == 503, clock=way.clock)
    with pytest.raises(KeyError):
        way.guard(shed, raising(KeyError()))()
    assert way.guard(shed, lambda: 200)() == 200
    assert way.guard(shed, lambda: 503)() == 503
    assert (shed._throttle.all_requests, shed._throttle.all_accepts) == (3, 2)


def test_an_answer_later_than_the_window_counts_nowhere(put, way):
    shed = Shed("throttle", least=0, clock=way.clock)

    def slow():
        way.clock.advance(130.0)
        put(shed)()

    shed.call(slow)  # the clock's loop is not for one within another
    assert (shed._throttle.all_requests, shed._throttle.all_accepts) == (1, 1)

    def cancelled():
        slow()
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        shed.call(cancelled)
    assert (shed._throttle.all_requests, shed._throttle.all_accepts) == (1, 1)


@given(
    st.lists(
        st.tuples(st.floats(0, 60), st.sampled_from(["ok", "failed", "neutral", "refused"])),
        max_size=80,
    )
)
def test_the_throttle_against_a_list_of_calls(steps):
    clock = FakeClock(start=0.0)
    chance = 1.0
    clock.random = lambda: chance
    shed = Shed("throttle", window_s=120.0, least=0, max_chance=1.0, clock=clock)
    calls = []
    errors = {"failed": ValueError(), "neutral": asyncio.CancelledError()}
    for pause, how in steps:
        clock.advance(pause)
        epoch = clock.time // 10
        calls = [call for call in calls if call[0] > epoch - 12]
        requests, accepts = len(calls), sum(ok for _, ok in calls)
        expected = max(0.0, (requests - 2 * accepts) / (requests + 1))
        chance = 0.0 if how == "refused" else 1.0  # refuses wherever it may
        refused = False
        try:
            with shed.permit():
                if how in errors:
                    raise errors[how]
        except Overloaded:
            refused = True
        except (ValueError, asyncio.CancelledError):
            pass
        assert refused == (how == "refused" and expected > 0)
        if how != "neutral":
            calls.append((epoch, how == "ok" or (how == "refused" and not refused)))
        requests, accepts = len(calls), sum(ok for _, ok in calls)
        assert shed.chance == max(0.0, (requests - 2 * accepts) / (requests + 1))


def test_threads_lose_no_count():
    shed = Shed("throttle", k=1e9)
    guarded = shed(lambda: None)
    threads = [threading.Thread(target=lambda: [guarded() for _ in range(2000)]) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (shed._throttle.all_requests, shed._throttle.all_accepts) == (8000, 8000)


@pytest.mark.parametrize("by", ["wait", "throttle"])
def test_no_lock_is_held_across_a_call(by):
    inside = threading.Barrier(4, timeout=30)
    guarded = Shed(by)(inside.wait)
    threads = [threading.Thread(target=guarded) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not inside.broken


@pytest.mark.parametrize("by", ["wait", "throttle"])
def test_call_and_acall_and_generators(by):
    clock = FakeClock()
    shed = Shed(by, clock=clock)

    async def double(x):
        return 2 * x

    assert shed.call(lambda x, *, y: x + y, 1, y=2) == 3
    assert clock.run(shed.acall(double, 4)) == 8
    with pytest.raises(TypeError, match="generator"):

        @shed
        def numbers():
            yield 1
