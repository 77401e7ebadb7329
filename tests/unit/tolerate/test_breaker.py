"""The breaker. A case that has to do with calls runs in every way to make one."""

import asyncio
import functools
import gc
import random
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from typing import Any, Literal

import pytest
from _schedule import Threads
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from everup.tolerate._windows import Consecutive, Counts, CountWindow, Growing, TimeWindow, Trip
from everup.tolerate.breaker import Breaker, Permit, State
from everup.tolerate.errors import BreakerOpen, RateLimited, Rejected
from everup.tolerate.testing import FakeClock, Recorder

CLOSED, OPEN, HALF_OPEN, ISOLATED = State.CLOSED, State.OPEN, State.HALF_OPEN, State.ISOLATED
Do = Callable[[], Any]
WAYS = ("decorator", "call", "with", "permit", "adecorator", "acall", "awith", "apermit")
NEUTRAL = (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit, RateLimited)


class DownError(Exception):
    pass


def down() -> Any:
    raise DownError


def neutral() -> Any:
    raise RateLimited("rate", "too many")


def make(clock: FakeClock, **options: Any) -> Breaker:
    options = {"trip": Consecutive(2), "open_s": 10.0} | options
    return Breaker(clock=clock, **options)


def opened(clock: FakeClock, **options: Any) -> Breaker:
    breaker = make(clock, **options)
    while breaker.state is CLOSED:
        breaker.admit().failed()
    return breaker


def due(clock: FakeClock, **options: Any) -> Breaker:
    """Open, and its time is over."""
    breaker = opened(clock, **options)
    clock.advance(10.0)
    return breaker


def drive(coroutine: Any) -> Any:
    """Run a coroutine that waits for nothing; no event loop, which would take a KeyboardInterrupt
    for itself."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[Breaker, Do], Any]:
    """Makes a call through a breaker, once."""

    async def ado(do: Do) -> Any:
        return do()

    def through(breaker: Breaker, do: Do) -> Any:
        if request.param == "decorator":
            return breaker(do)()
        if request.param == "call":
            return breaker.call(do)
        if request.param == "with":
            with breaker:
                return do()
        if request.param == "permit":
            with breaker.admit():
                return do()
        if request.param == "adecorator":
            return drive(breaker(ado)(do))
        if request.param == "acall":
            return drive(breaker.acall(ado, do))

        async def body() -> Any:
            async with breaker if request.param == "awith" else breaker.admit():
                return await ado(do)

        return drive(body())

    return through


Way = Callable[[Breaker, Do], Any]


# -- states


def test_the_whole_round(clock: FakeClock, way: Way) -> None:
    breaker = make(clock)
    told = Recorder(breaker)
    assert way(breaker, lambda: 7) == 7
    for _ in range(2):
        with pytest.raises(DownError):
            way(breaker, down)
    assert (breaker.state, breaker.generation) == (OPEN, 1)
    clock.advance(4.0)
    with pytest.raises(BreakerOpen) as rejected:
        way(breaker, lambda: pytest.fail("called"))
    assert (rejected.value.reason, rejected.value.retry_after_s) == ("open", 6.0)
    clock.advance(6.0)
    assert breaker.state is OPEN  # nobody has called
    with pytest.raises(DownError):
        way(breaker, down)
    assert (breaker.state, breaker.generation) == (OPEN, 3)
    clock.advance(10.0)
    assert way(breaker, lambda: breaker.state) is HALF_OPEN
    assert (breaker.state, breaker.generation) == (CLOSED, 5)
    with pytest.raises(DownError):
        way(breaker, down)
    assert breaker.counts() == Counts(1, 1, 0)  # from nothing
    assert told.kinds == ["opened", "rejected", "half_open", "opened", "half_open", "closed"]
    opened = dict(told.events[0].detail)
    assert isinstance(opened.pop("error"), DownError)
    assert rejected.value.cause == "DownError"
    assert str(rejected.value).endswith("; DownError")
    assert opened == {
        "why": "failures", "calls": 2, "failures": 2, "slow": 0, "rate": 1.0, "open_s": 10.0,
        "generation": 1,
    }  # fmt: skip
    assert told.events[1].detail == {"reason": "open", "retry_after_s": 6.0}
    assert told.events[2].detail == {"generation": 2}
    assert told.events[3].detail["why"] == "probe"
    assert told.events[5].detail == {"generation": 5}


MATRIX = [
    # state at first, what happens, state after
    *(("closed", event, "closed") for event in ("ok", "failed", "neutral", "old ok", "old failed")),
    ("closed", "failed failed", "open"),
    ("closed", "failed ok failed", "closed"),
    ("closed", "failed neutral failed", "open"),
    ("closed", "old failed old failed", "open"),
    ("closed", "wait", "closed"),
    ("closed", "isolate", "isolated"),
    ("closed", "failed reset failed", "closed"),
    *(("open", event, "open") for event in ("call", "old ok", "old failed", "old neutral", "wait")),
    ("open", "isolate", "isolated"),
    ("open", "reset", "closed"),
    ("open", "wait call", "half-open"),
    *(("due", event, "open") for event in ("old ok", "old failed", "failed")),
    ("due", "ok", "closed"),
    ("due", "neutral", "half-open"),
    ("due", "isolate", "isolated"),
    ("due", "reset", "closed"),
    *(("half-open", event, "half-open") for event in ("old ok", "old failed", "call", "wait")),
    ("half-open", "probe ok", "closed"),
    ("half-open", "probe failed", "open"),
    ("half-open", "probe neutral", "half-open"),
    ("half-open", "probe neutral probe ok", "half-open"),  # settled once
    ("half-open", "probe neutral ok", "closed"),
    ("half-open", "probe neutral failed", "open"),
    ("half-open", "wait probe ok", "closed"),
    ("half-open", "wait call probe failed", "open"),
    ("half-open", "isolate", "isolated"),
    ("half-open", "isolate probe ok", "isolated"),
    ("half-open", "isolate probe failed", "isolated"),
    ("half-open", "reset probe failed", "closed"),
    *(("isolated", event, "isolated") for event in ("call", "old ok", "old failed", "wait call")),
    ("isolated", "isolate", "isolated"),
    ("isolated", "reset", "closed"),
    ("isolated", "reset old failed old failed", "closed"),
]


@pytest.mark.parametrize(("first", "events", "last"), MATRIX)
def test_states_and_events(clock: FakeClock, first: str, events: str, last: str) -> None:
    breaker = make(clock)
    olds = [breaker.admit() for _ in range(2)]
    probe = None
    if first == "isolated":
        breaker.isolate()
    elif first != "closed":
        for _ in range(2):
            breaker.admit().failed()
        if first != "open":
            clock.advance(10.0)
        if first == "half-open":
            probe = breaker.admit()
    words = iter(events.split())
    for word in words:
        if word in ("isolate", "reset"):
            getattr(breaker, word)()
        elif word == "wait":
            clock.advance(10.0)
        elif word == "call":
            try:
                breaker.admit()
            except BreakerOpen:
                pass
        else:
            if word == "old":
                permit, word = olds.pop(), next(words)
            elif word == "probe":
                assert probe is not None
                permit, word = probe, next(words)
            else:
                permit = breaker.admit()
            getattr(permit, word)()
    assert breaker.state.value == last


@pytest.mark.parametrize("trip", [Consecutive(3), CountWindow(4, 0.75, 4), TimeWindow(5.0, 5, 0.9)])
@pytest.mark.parametrize(
    ("closes_after", "outcomes", "last"),
    [
        (1, "f", OPEN),
        (1, "s", CLOSED),
        (1, "nnf", OPEN),
        (1, "nns", CLOSED),
        (3, "f", OPEN),
        (3, "ss", HALF_OPEN),
        (3, "ssf", OPEN),
        (3, "sf", OPEN),
        (3, "sss", CLOSED),
        (3, "snsns", CLOSED),
    ],
)
def test_half_open_counts_for_itself(
    clock: FakeClock, way: Way, trip: Trip, closes_after: int, outcomes: str, last: State
) -> None:
    """What trips a closed breaker has no say: one failed probe opens it, so many good ones in all
    close it."""
    breaker = due(clock, trip=trip, closes_after=closes_after)
    for outcome in outcomes:
        assert breaker.state is not CLOSED
        do = {"f": down, "s": lambda: 1, "n": neutral}[outcome]
        try:
            way(breaker, do)
        except (DownError, RateLimited):
            pass
    assert breaker.state is last


def test_probes_and_their_slots(clock: FakeClock) -> None:
    breaker = due(clock, probes=3, closes_after=2)
    first, second, third = (breaker.admit() for _ in range(3))
    clock.advance(4.0)
    with pytest.raises(BreakerOpen, match="every probe is under way") as full:
        breaker.admit()
    assert full.value.retry_after_s == 6.0  # when the oldest expires
    second.neutral()
    fourth = breaker.admit()
    with pytest.raises(BreakerOpen):
        breaker.admit()
    first.ok()
    breaker.admit()  # hangs
    fourth.ok()
    assert breaker.state is CLOSED
    third.failed()  # of the generation before
    assert breaker.counts() == Counts(0, 0, 0)


def test_a_hung_probe_loses_its_slot_and_its_outcome_still_counts(clock: FakeClock) -> None:
    breaker = due(clock)
    hung = breaker.admit()
    clock.advance(9.75)
    with pytest.raises(BreakerOpen) as full:
        breaker.admit()
    assert full.value.retry_after_s == 0.25
    clock.advance(0.25)
    second = breaker.admit()
    with pytest.raises(BreakerOpen):
        breaker.admit()
    hung.ok()  # slow, but the dependency has answered
    assert breaker.state is CLOSED
    second.failed()
    assert breaker.state is CLOSED


def test_isolation(clock: FakeClock, way: Way) -> None:
    breaker = make(clock)
    told = Recorder(breaker)
    breaker.isolate()
    breaker.isolate()
    clock.advance(1e9)
    with pytest.raises(BreakerOpen) as rejected:
        way(breaker, lambda: 1)
    assert (rejected.value.reason, rejected.value.retry_after_s) == ("isolated", None)
    breaker.reset()
    assert way(breaker, lambda: 1) == 1
    assert told.kinds == ["isolated", "rejected", "reset"]
    told.stop()


def test_open_times_grow_with_each_reopening_up_to_the_cap_and_start_over(clock: FakeClock) -> None:
    breaker = opened(clock, open_s=Growing(10.0, 3.0, 50.0))
    told = Recorder(breaker)
    for seconds in (10.0, 30.0, 50.0, 50.0):
        with pytest.raises(BreakerOpen) as rejected:
            breaker.admit()
        assert rejected.value.retry_after_s == seconds
        clock.advance(seconds)
        probe = breaker.admit()
        assert breaker.state is HALF_OPEN
        with pytest.raises(BreakerOpen) as rejected:
            breaker.admit()
        assert rejected.value.retry_after_s == seconds  # a probe may hang as long
        probe.failed()
    clock.advance(50.0)
    breaker.admit().ok()
    for _ in range(2):
        breaker.admit().failed()
    assert [e.detail["open_s"] for e in told.events if e.kind == "opened"] == [
        30.0, 50.0, 50.0, 50.0, 10.0,
    ]  # fmt: skip


def test_jitter_shortens() -> None:
    clock = FakeClock(random=(0.5, 0.0, 1.0))
    breaker = make(clock, open_s=Growing(10.0, jitter=0.4))
    told = Recorder(breaker)
    for _ in range(3):
        for _ in range(2):
            breaker.admit().failed()
        breaker.reset()
    times = [e.detail["open_s"] for e in told.events if e.kind == "opened"]
    assert times == pytest.approx([8.0, 10.0, 6.0])


# -- what trips


def test_consecutive(clock: FakeClock, way: Way) -> None:
    breaker = make(clock, trip=Consecutive(3))
    for do in (down, down, int, down, neutral, down):
        try:
            way(breaker, do)
        except (DownError, RateLimited):
            pass
    assert breaker.counts() == Counts(2, 2, 0)
    with pytest.raises(DownError):
        way(breaker, down)
    assert breaker.state is OPEN
    assert breaker.counts() == Counts(0, 0, 0)


def test_count_window(clock: FakeClock, way: Way) -> None:
    breaker = make(clock, trip=CountWindow(8, 0.5, 4))
    told = Recorder(breaker)
    for do in (down, down, down, int, int, int, int, int, int, int, int, down, down, down):
        try:
            way(breaker, do)
        except DownError:
            pass
    assert breaker.state is CLOSED  # 3 of 4 at the good call, which does not trip; then 3 of 8
    with pytest.raises(DownError):
        way(breaker, down)
    assert breaker.state is OPEN
    assert told.events[0].detail["why"] == "rate"
    assert told.events[0].detail["rate"] == 0.5


def test_time_window(clock: FakeClock, way: Way) -> None:
    breaker = make(clock, trip=TimeWindow(2.0, 2, 0.5, 3))
    for do in (down, int, int):
        try:
            way(breaker, do)
        except DownError:
            pass
    clock.advance(2.0)  # rolled off
    for do in (down, int):
        try:
            way(breaker, do)
        except DownError:
            pass
    assert breaker.counts() == Counts(2, 1, 0)
    clock.advance(1.0)  # the next bucket
    with pytest.raises(DownError):
        way(breaker, down)
    assert breaker.state is OPEN


@pytest.mark.parametrize(
    ("trip", "calls"),
    [
        (Consecutive(2, slow_s=1.0), 2),
        (CountWindow(10, 0.9, 4, slow_s=1.0, slow_rate=0.5), 4),
        (TimeWindow(60.0, 6, 0.9, 4, slow_s=1.0, slow_rate=0.5), 4),
    ],
)
@pytest.mark.parametrize("kind", ["sync", "async", "permit"])
def test_slow_calls(clock: FakeClock, trip: Trip, calls: int, kind: str) -> None:
    breaker = make(clock, trip=trip)
    told = Recorder(breaker)

    def work(seconds: float) -> None:
        clock.advance(seconds)

    async def awork(seconds: float) -> None:
        clock.advance(seconds)

    def call(seconds: float) -> None:
        if kind == "sync":
            breaker(work)(seconds)
        elif kind == "async":
            drive(breaker(awork)(seconds))
        else:
            with breaker.admit():
                work(seconds)

    for _ in range(calls - 2):
        call(0.75)
    call(1.0)
    assert breaker.state is CLOSED
    call(1.0)
    assert breaker.state is OPEN
    assert told.events[0].detail["why"] == "slow"
    assert told.events[0].detail["slow"] == 2
    clock.advance(10.0)
    call(1.0)
    assert breaker.state is OPEN  # a slow probe is no proof of health
    assert told.events[2].detail["why"] == "slow_probe"
    clock.advance(10.0)
    call(0.5)
    assert breaker.state is CLOSED


def test_a_slow_failure_is_both(clock: FakeClock, way: Way) -> None:
    breaker = make(clock, trip=CountWindow(10, 1.0, 3, slow_s=1.0, slow_rate=1.0))

    def late() -> None:
        clock.advance(2.0)
        raise DownError

    with pytest.raises(DownError):
        way(breaker, late)
    assert breaker.counts() == Counts(1, 1, 1)


# -- judging


def test_what_is_a_failure(clock: FakeClock, way: Way) -> None:
    breaker = make(
        clock, trip=CountWindow(10, 1.0, 10), on=(OSError, ValueError), unless=FileNotFoundError,
        when=lambda error: "mild" not in str(error),
    )  # fmt: skip

    def throw(error: Exception) -> Any:
        raise error

    for error in (OSError("x"), ValueError("y"), KeyError(), FileNotFoundError(), OSError("mild")):
        with pytest.raises(type(error)):
            way(breaker, lambda error=error: throw(error))
    assert breaker.counts() == Counts(5, 2, 0)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("trip", [Consecutive(2), TimeWindow(60.0, least=3)])
def test_results_that_are_failures(clock: FakeClock, kind: str, trip: Trip) -> None:
    breaker = make(clock, trip=trip, result=lambda value: value >= 500)

    async def work(value: int) -> int:
        return value

    def call(value: int) -> int:
        if kind == "sync":
            return breaker.call(lambda: value)
        answer: int = drive(breaker(work)(value))
        return answer

    assert [call(value) for value in (200, 500, 503)] == [200, 500, 503]
    assert breaker.state is OPEN
    with pytest.raises(BreakerOpen) as rejected:
        call(200)
    assert rejected.value.retry_after_s == 10.0
    clock.advance(10.0)
    assert call(500) == 500
    assert breaker.state is OPEN
    clock.advance(10.0)
    assert call(200) == 200
    assert breaker.state is CLOSED


@pytest.mark.parametrize("error", NEUTRAL)
def test_neutral_outcomes_change_nothing(
    clock: FakeClock, way: Way, error: type[BaseException]
) -> None:
    def throw() -> Any:
        raise error("x", "y") if error is RateLimited else error

    breaker = make(clock)
    with pytest.raises(DownError):
        way(breaker, down)
    for _ in range(5):
        with pytest.raises(error):
            way(breaker, throw)
    assert breaker.counts() == Counts(1, 1, 0)
    with pytest.raises(DownError):
        way(breaker, down)
    assert breaker.state is OPEN
    clock.advance(10.0)
    for _ in range(5):  # the slot comes back at once
        with pytest.raises(error):
            way(breaker, throw)
        assert breaker.state is HALF_OPEN
    assert way(breaker, lambda: 3) == 3
    assert breaker.state is CLOSED


def test_a_predicate_that_raises_keeps_no_slot(clock: FakeClock, way: Way) -> None:
    def ask(error: Exception) -> bool:
        raise LookupError

    breaker = make(clock, when=ask)
    with pytest.raises(LookupError):
        way(breaker, down)
    for _ in range(2):
        breaker.admit().failed()
    clock.advance(10.0)
    for _ in range(2):
        with pytest.raises(LookupError):
            way(breaker, down)
        assert breaker.state is HALF_OPEN


def test_a_result_predicate_that_raises_keeps_no_slot(clock: FakeClock) -> None:
    breaker = due(clock, result=lambda value: value > 1)
    for _ in range(2):
        with pytest.raises(TypeError):
            breaker.call(lambda: "text")
        assert breaker.state is HALF_OPEN


# -- traps


def test_async_functions_trip_it(clock: FakeClock) -> None:
    breaker = make(clock)

    @breaker
    async def work() -> None:
        await clock.asleep(1.0)
        raise DownError

    assert asyncio.iscoroutinefunction(work)

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(DownError):
                await work()

    clock.run(main())
    assert breaker.state is OPEN


def test_generator_functions_are_refused() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def anumbers() -> Any:
        yield 1

    for function in (numbers, anumbers):
        with pytest.raises(TypeError, match="generator"):
            Breaker()(function)


def test_every_rejection_is_its_own_and_its_traceback_stays_short(
    clock: FakeClock, way: Way
) -> None:
    breaker = opened(clock)
    kept, depths = [], set()
    for _ in range(20):
        with pytest.raises(BreakerOpen) as rejected:
            way(breaker, lambda: 1)
        kept.append(rejected.value)
        depths.add(len(traceback.extract_tb(rejected.value.__traceback__)))
    assert len({id(error) for error in kept}) == 20
    assert len(depths) == 1


def test_the_clock_is_monotonic() -> None:
    breaker = Breaker()
    assert breaker.clock.now is time.monotonic


def test_late_outcomes_of_decorated_calls(clock: FakeClock) -> None:
    """A call that began before the opening ends after it, and in the half-open time."""
    breaker = make(clock, trip=CountWindow(4, 0.5, 2))
    results: list[Any] = []

    @breaker
    async def work(seconds: float, fails: bool) -> None:
        await clock.asleep(seconds)
        if fails:
            raise DownError

    async def main() -> None:
        calls = [
            work(1.0, True), work(1.0, True),  # open at 1, due at 11
            work(2.0, False), work(3.0, True),  # end in the open time
            work(12.0, True), work(12.0, False),  # end while a probe is under way
            work(14.0, True), work(14.0, True),  # end when it is closed again
        ]  # fmt: skip
        tasks = [asyncio.create_task(call) for call in calls]
        await clock.asleep(3.5)
        results.append(breaker.state)
        await clock.asleep(8.0)
        probe = asyncio.create_task(work(2.0, False))
        await clock.asleep(1.0)
        results.append(breaker.state)
        await clock.asleep(1.25)
        results.append(breaker.state)
        await asyncio.gather(*tasks, probe, return_exceptions=True)
        results.append(breaker.state)

    clock.run(main())
    assert results == [OPEN, HALF_OPEN, CLOSED, CLOSED]
    assert breaker.counts() == Counts(0, 0, 0)


def test_half_open_herd_of_tasks(clock: FakeClock) -> None:
    breaker = due(clock, probes=3, closes_after=3)
    inside = most = ran = 0

    @breaker
    async def work() -> None:
        nonlocal inside, most, ran
        inside, ran = inside + 1, ran + 1
        most = max(most, inside)
        await clock.asleep(1.0)
        inside -= 1

    async def main() -> list[Any]:
        return await asyncio.gather(*(work() for _ in range(50)), return_exceptions=True)

    answers = clock.run(main())
    assert (most, ran) == (3, 3)
    assert sum(isinstance(answer, BreakerOpen) for answer in answers) == 47
    assert breaker.state is CLOSED


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("probes", [1, 3])
def test_half_open_herd_of_threads(clock: FakeClock, seed: int, probes: int) -> None:
    breaker = due(clock, probes=probes, closes_after=10**6)
    turns = Threads(seed)
    turns.adopt(breaker)
    told = Recorder(breaker)
    inside = most = ran = 0
    answers: list[str] = []

    @breaker
    def work() -> str:
        nonlocal inside, most, ran
        inside, ran = inside + 1, ran + 1
        most = max(most, inside)
        for _ in range(40):
            turns.switch()
        inside -= 1
        return "ok"

    def job() -> None:
        try:
            answers.append(work())
        except BreakerOpen as error:
            answers.append(error.reason)

    turns.run(*[job] * 16)
    assert most <= probes <= ran < 16
    assert (answers.count("ok"), len(answers)) == (ran, 16)
    assert told.kinds.count("half_open") == 1
    assert told.kinds.count("rejected") == 16 - ran
    assert (breaker.state, breaker.generation) == (HALF_OPEN, 2)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("trip", [Consecutive(3), CountWindow(8, 0.5, 4), TimeWindow(8.0, 4)])
def test_threads_in_any_order_keep_the_machine_whole(
    clock: FakeClock, seed: int, trip: Trip
) -> None:
    """Whatever comes between, each change of state is told once and follows one that allows it."""
    allowed = {
        "opened": {"closed", "reset", "half_open"}, "half_open": {"opened"},
        "closed": {"half_open"}, "isolated": {"closed", "reset", "half_open", "opened"},
        "reset": {"closed", "reset", "half_open", "opened", "isolated"},
    }  # fmt: skip
    breaker = make(clock, trip=trip, probes=2, closes_after=2)
    turns = Threads(seed)
    turns.adopt(breaker)
    told = Recorder(breaker)
    random_ = random.Random(seed)
    plans = [[random_.choice("sssfffffnw") for _ in range(25)] for _ in range(6)]
    plans[0] += "ir"
    plans[1][12] = "r"

    def job(plan: list[str]) -> None:
        for step in plan:
            try:
                if step == "w":
                    clock.advance(10.0)
                elif step == "i":
                    breaker.isolate()
                elif step == "r":
                    breaker.reset()
                else:
                    breaker.call({"s": int, "f": down, "n": neutral}[step])
            except (DownError, Rejected):
                pass

    turns.run(*(functools.partial(job, plan) for plan in plans))
    steps = [event for event in told.events if event.kind != "rejected"]
    steps.sort(key=lambda event: int(event.detail["generation"]))
    assert [event.detail["generation"] for event in steps] == list(range(1, len(steps) + 1))
    before = "closed"
    for event in steps:
        assert before in allowed[event.kind]
        before = event.kind
    assert breaker.generation == len(steps)
    assert not breaker._phase.under_way


@pytest.mark.parametrize("state", [CLOSED, HALF_OPEN])
def test_calls_of_threads_overlap(clock: FakeClock, state: State) -> None:
    """No lock is held across a call: all are inside at once."""
    breaker = make(clock) if state is CLOSED else due(clock, probes=8, closes_after=8)
    meeting = threading.Barrier(8, timeout=60)
    work = breaker(meeting.wait)
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not meeting.broken
    assert (breaker.state, breaker.generation) == (CLOSED, 0 if state is CLOSED else 3)


class Meddling:
    """A lock; before it is first had, another thread is quicker."""

    def __init__(self, other: Do) -> None:
        self.others = [other]

    def __enter__(self) -> None:
        if self.others:
            self.others.pop()()

    def __exit__(self, *exc: object) -> None: ...


@pytest.mark.parametrize(
    ("first", "mine", "other", "last"),
    [
        ("closed", "isolate", "reset", ISOLATED),
        ("closed", "reset", "isolate", CLOSED),
        ("due", "admit", "admit", HALF_OPEN),
        ("due", "admit", "isolate", ISOLATED),
        ("due", "admit", "reset", CLOSED),
        ("half-open", "admit", "admit", HALF_OPEN),
        ("half-open", "admit", "isolate", ISOLATED),
        ("half-open", "admit", "reset", CLOSED),
    ],
)
def test_another_thread_is_quicker(
    clock: FakeClock, first: str, mine: str, other: str, last: State
) -> None:
    breaker = make(clock) if first == "closed" else due(clock)
    if first == "half-open":
        breaker.admit().neutral()
    breaker._lock = Meddling(getattr(breaker, other))  # type: ignore[assignment]
    if mine == "admit" and last is not CLOSED:
        with pytest.raises(BreakerOpen, match="isolated" if last is ISOLATED else "every probe"):
            breaker.admit()
    else:
        getattr(breaker, mine)()
    assert breaker.state is last


def test_a_call_that_fails_after_its_time_opens_nothing(clock: FakeClock, way: Way) -> None:
    breaker = make(clock)
    told = Recorder(breaker)
    with pytest.raises(DownError):
        way(breaker, down)

    def late() -> None:
        breaker.reset()
        raise DownError

    with pytest.raises(DownError):
        way(breaker, late)
    assert told.kinds == ["reset"]
    assert breaker.counts() == Counts(0, 0, 0)


def test_used_again_by_the_thread_that_holds_its_lock(clock: FakeClock) -> None:
    """As a signal handler does, or a finalizer."""
    breaker = due(clock)
    with breaker._lock:
        assert breaker.call(int) == 0
    assert breaker.state is CLOSED


class Pause:
    """One await."""

    def __await__(self) -> Generator[None, None, None]:
        yield


@pytest.mark.parametrize("how", ["cancel", "close", "interrupt"])
@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("kind", ["decorator", "acall", "awith"])
@pytest.mark.parametrize("state", [CLOSED, HALF_OPEN])
@pytest.mark.parametrize("trip", [Consecutive(2), CountWindow(8, 0.5, 2, slow_s=1.0)])
def test_cancelled_at_every_await(
    clock: FakeClock, how: str, at: int, kind: str, state: State, trip: Trip
) -> None:
    breaker = make(clock, trip=trip) if state is CLOSED else due(clock, trip=trip)

    async def work() -> None:
        try:
            for _ in range(3):
                await Pause()
        finally:
            await Pause()

    async def body() -> None:
        async with breaker:
            await work()

    coroutine: Any = {
        "decorator": breaker(work), "acall": lambda: breaker.acall(work), "awith": body
    }[kind]()  # fmt: skip
    for _ in range(at + 1):
        coroutine.send(None)
    clock.advance(5.0)
    if how == "close" and at == 3:
        coroutine.close()
    else:
        error = asyncio.CancelledError if how == "cancel" else KeyboardInterrupt
        if at < 3:
            coroutine.throw(error)  # stopped by the await of the finally
        with pytest.raises(error):
            coroutine.throw(error)
    assert breaker.state is state
    assert breaker.counts() == Counts(0, 0, 0)
    breaker.admit().ok()
    assert breaker.state is CLOSED


def test_a_coroutine_never_awaited_holds_nothing(clock: FakeClock) -> None:
    breaker = due(clock)

    async def work() -> None: ...

    breaker(work)().close()
    assert breaker.state is OPEN


# -- nested, reentered, and entered in odd places


def test_the_outer_is_not_moved_by_rejections_of_the_inner(clock: FakeClock, way: Way) -> None:
    inner, outer = opened(clock), make(clock)
    counting = make(clock, on=Rejected)
    for _ in range(5):
        with pytest.raises(BreakerOpen):
            way(outer, lambda: way(inner, lambda: 1))
    assert (outer.state, outer.counts()) == (CLOSED, Counts(0, 0, 0))
    for _ in range(2):
        with pytest.raises(BreakerOpen):
            way(counting, lambda: way(inner, lambda: 1))
    assert counting.state is OPEN


def test_a_failure_counts_in_both(clock: FakeClock, way: Way) -> None:
    inner, outer = make(clock), make(clock, trip=Consecutive(4))
    for _ in range(2):
        with pytest.raises(DownError):
            way(outer, lambda: way(inner, down))
    assert (inner.state, outer.counts()) == (OPEN, Counts(2, 2, 0))


def test_a_probe_that_needs_a_second_of_the_same_breaker(clock: FakeClock, way: Way) -> None:
    breaker = due(clock)
    with pytest.raises(BreakerOpen):
        way(breaker, lambda: way(breaker, lambda: 1))
    assert breaker.state is HALF_OPEN
    assert way(breaker, lambda: 1) == 1
    assert way(breaker, lambda: way(breaker, lambda: 2)) == 2


def test_with_in_interleaved_generators(clock: FakeClock) -> None:
    one, two = due(clock), due(clock, trip=Consecutive(2))
    probe_of_two = []

    def holding(breaker: Breaker) -> Iterator[None]:
        with breaker as permit:
            probe_of_two.append(permit)
            yield

    first, second = holding(one), holding(two)
    next(first)
    next(second)
    assert next(first, None) is None  # ends first though entered first
    assert (one.state, two.state) == (CLOSED, HALF_OPEN)
    second.close()
    two.admit().ok()
    assert two.state is CLOSED


def test_with_entered_in_another_context_expires(clock: FakeClock) -> None:
    breaker = due(clock)
    asyncio.run(breaker.__aenter__())  # a context that is gone
    breaker.__exit__(None, None, None)
    assert breaker.state is HALF_OPEN
    clock.advance(10.0)
    with breaker:
        pass
    assert breaker.state is CLOSED


def test_a_permit_is_settled_once(clock: FakeClock) -> None:
    breaker = make(clock)
    with breaker as permit:
        assert permit.generation == 0
        permit.failed()
    permit = breaker.admit()
    permit.ok()
    permit.__exit__(DownError, DownError(), None)
    breaker.admit()  # lost: counts nowhere
    gc.collect()
    assert breaker.counts() == Counts(0, 0, 0)
    permit = breaker.admit()
    for settle in (permit.failed, permit.failed, permit.ok, permit.neutral):
        settle()
    assert breaker.counts() == Counts(1, 1, 0)


# -- listeners


def test_listeners_may_use_the_breaker_and_may_raise(clock: FakeClock, way: Way) -> None:
    breaker = make(clock)
    seen: list[tuple[str, State]] = []

    def meddle(event: Any) -> None:
        seen.append((event.kind, breaker.state))
        if event.kind == "opened":
            breaker.reset()
        raise ValueError

    breaker.subscribe(meddle)
    for _ in range(4):
        with pytest.raises(DownError):
            way(breaker, down)
    assert seen == [("opened", OPEN), ("reset", CLOSED)] * 2


def test_a_listener_may_take_the_probe(clock: FakeClock) -> None:
    breaker = due(clock)
    taken: list[Permit] = []
    breaker.subscribe(lambda event: taken.append(breaker.admit()) if not taken else None)
    with pytest.raises(BreakerOpen, match="every probe"):
        breaker.admit()
    taken[0].ok()
    assert breaker.state is CLOSED


@pytest.mark.parametrize(
    "options",
    [{"open_s": 0}, {"open_s": -1}, {"open_s": float("inf")}, {"probes": 0}, {"closes_after": 0}],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Breaker(**options)


def test_forgettable(clock: FakeClock) -> None:
    assert make(clock).forgettable
    assert not opened(clock).forgettable


# -- against a naive model


class Model:
    """Lists of what happened, looked through from the start each time."""

    def __init__(self, trip: Trip, probes: int, closes_after: int, now: float) -> None:
        self.trip, self.probes, self.closes_after = trip, probes, closes_after
        self.generation = -1
        self.reopenings = 0
        self.go(CLOSED, now)

    def go(self, state: State, now: float) -> None:
        self.state, self.since = state, now
        self.generation += 1
        self.past: list[tuple[float, bool, bool]] = []
        self.slots: dict[int, float] = {}
        if state is CLOSED:
            self.reopenings = 0

    def open_s(self) -> float:
        return min(40.0, 10.0 * 2 ** max(0, self.reopenings - 1))

    def admit(self, number: int, now: float) -> float | Literal[True] | None:
        """True, or when to come again."""
        if self.state is ISOLATED:
            return None
        if self.state is OPEN:
            if now < self.since + self.open_s():
                return self.since + self.open_s() - now
            self.go(HALF_OPEN, now)
        if self.state is HALF_OPEN:
            held = [n for n, at in self.slots.items() if now < at + self.open_s()]
            if len(held) >= self.probes:
                return min(self.slots[n] for n in held) + self.open_s() - now
            self.slots[number] = now
        return True

    def settle(self, number: int, generation: int, began: float, how: str, now: float) -> None:
        if generation != self.generation:
            return
        self.slots.pop(number, None)
        if how == "neutral":
            return
        slow_s = self.trip.slow_s
        slow = slow_s is not None and now - began >= slow_s
        self.past.append((now, how == "failed", slow))
        bad = how == "failed" or slow
        if self.state is HALF_OPEN:
            if bad:
                self.reopen(now)
            elif len(self.past) == self.closes_after:
                self.go(CLOSED, now)
        elif bad:
            held = self.held(now)
            if isinstance(self.trip, Consecutive):
                trips = len(held) >= self.trip.failures
            else:
                trips = len(held) >= self.trip.least and (
                    sum(f for _, f, _ in held) / len(held) >= self.trip.rate
                    or sum(s for _, _, s in held) / len(held) >= self.trip.slow_rate
                )
            if trips:
                self.reopen(now)

    def reopen(self, now: float) -> None:
        reopenings = self.reopenings + 1
        self.go(OPEN, now)
        self.reopenings = reopenings

    def held(self, now: float) -> list[tuple[float, bool, bool]]:
        trip = self.trip
        if self.state is not CLOSED:
            return []
        if isinstance(trip, Consecutive):
            goods = [i for i, (_, failed, slow) in enumerate(self.past) if not (failed or slow)]
            return self.past[goods[-1] + 1 :] if goods else self.past
        if isinstance(trip, CountWindow):
            return self.past[-trip.size :]
        width = trip.window_s / trip.buckets
        first = (now - self.since) // width - trip.buckets + 1
        return [call for call in self.past if (call[0] - self.since) // width >= first]


class Machine(RuleBasedStateMachine):
    TRIP: Trip = Consecutive(3)
    PROBES, CLOSES_AFTER = 1, 1

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.breaker = Breaker(
            trip=self.TRIP, open_s=Growing(10.0, 2.0, 40.0), probes=self.PROBES,
            closes_after=self.CLOSES_AFTER, result=lambda value: value == "bad", clock=self.clock,
        )  # fmt: skip
        self.model = Model(self.TRIP, self.PROBES, self.CLOSES_AFTER, self.clock.time)
        self.permits: dict[int, tuple[Permit, float]] = {}
        self.number = 0

    def admitted(self, through: Callable[[], Any]) -> bool:
        self.number += 1
        expected = self.model.admit(self.number, self.clock.time)
        if expected is True:
            return True
        with pytest.raises(BreakerOpen) as rejected:
            through()
        assert rejected.value.retry_after_s == expected
        return False

    @rule(seconds=st.sampled_from([0.25, 1.0, 3.5, 10.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def admit(self) -> None:
        if self.admitted(self.breaker.admit):
            self.permits[self.number] = (self.breaker.admit(), self.clock.time)

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), how=st.sampled_from(["ok", "failed", "neutral"]))
    def settle(self, data: st.DataObject, how: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.permits)))
        permit, began = self.permits.pop(number)
        self.model.settle(number, permit.generation, began, how, self.clock.time)
        getattr(permit, how)()

    @rule(
        how=st.sampled_from(["ok", "bad", "raise", "neutral"]),
        seconds=st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0]),
        asynchronous=st.booleans(),
    )
    def call(self, how: str, seconds: float, asynchronous: bool) -> None:
        def work() -> str:
            self.clock.advance(seconds)
            if how == "raise":
                raise DownError
            return neutral() if how == "neutral" else how

        async def awork() -> str:
            return work()

        def through() -> Any:
            return drive(self.breaker(awork)()) if asynchronous else self.breaker(work)()

        if self.admitted(through):
            began, generation = self.clock.time, self.model.generation
            try:
                assert through() == how
            except (DownError, RateLimited):
                assert how in ("raise", "neutral")
            kind = {"ok": "ok", "neutral": "neutral"}.get(how, "failed")
            self.model.settle(self.number, generation, began, kind, self.clock.time)

    @rule()
    def isolate(self) -> None:
        if self.model.state is not ISOLATED:
            self.model.go(ISOLATED, self.clock.time)
        self.breaker.isolate()

    @rule()
    def reset(self) -> None:
        self.model.go(CLOSED, self.clock.time)
        self.breaker.reset()

    @invariant()
    def same(self) -> None:
        assert self.breaker.state is self.model.state
        assert self.breaker.generation == self.model.generation
        held = self.model.held(self.clock.time)
        failures, slow = sum(f for _, f, _ in held), sum(s for _, _, s in held)
        assert self.breaker.counts() == Counts(len(held), failures, slow)


MACHINES: list[tuple[Trip, int, int]] = [
    (Consecutive(3), 1, 1),
    (Consecutive(2, slow_s=1.0), 2, 3),
    (CountWindow(6, 0.5, 3), 3, 2),
    (CountWindow(5, 0.8, 2, slow_s=1.0, slow_rate=0.6), 1, 2),
    (TimeWindow(4.0, 4, 0.5, 3), 2, 1),
    (TimeWindow(8.0, 2, 0.8, 2, slow_s=1.0, slow_rate=0.6), 2, 2),
]


@pytest.mark.parametrize("number", range(len(MACHINES)))
def test_against_the_model(number: int) -> None:
    trip, probes, closes_after = MACHINES[number]
    options = {"TRIP": trip, "PROBES": probes, "CLOSES_AFTER": closes_after}
    case = type(f"Machine{number}", (Machine,), options).TestCase
    case.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
    case().runTest()
