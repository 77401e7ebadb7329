"""The retry budget: against a naive model, at its edges, from many threads."""

import contextlib
import math
import signal
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from everup.tolerate import Hedge, Keyed, Pipeline, Policy, Retry, Timeout
from everup.tolerate.budget import RetryBudget
from everup.tolerate.testing import FakeClock


def withdrawals(budget: RetryBudget, at_most: int = 10_000) -> int:
    """How many retries it pays for at once."""
    for number in range(at_most):
        if not budget.withdraw():
            return number
    return at_most


# -- what it pays for


def test_the_floor_alone_pays_for_the_whole_window_at_once() -> None:
    budget = RetryBudget(clock=FakeClock())
    assert budget.left == 100.0
    assert withdrawals(budget) == 100
    assert budget.left == 0.0


def test_without_a_floor_only_calls_pay() -> None:
    budget = RetryBudget(ratio=0.2, floor_per_s=0, clock=FakeClock())
    assert not budget.withdraw()
    for _ in range(4):
        budget.deposit()
    assert not budget.withdraw()
    budget.deposit()
    assert budget.withdraw()
    assert not budget.withdraw()


@pytest.mark.parametrize(
    ("ratio", "calls", "retries"),
    [(0.0, 1000, 0), (0.1, 30, 3), (0.29, 100, 29), (0.2, 99, 19), (1.0, 7, 7), (2.5, 4, 10)],
)
def test_the_ratio_is_exact(ratio: float, calls: int, retries: int) -> None:
    budget = RetryBudget(ratio, floor_per_s=0, clock=FakeClock())
    for _ in range(calls):
        budget.deposit()
    assert withdrawals(budget) == retries


def test_a_refusal_costs_nothing() -> None:
    budget = RetryBudget(ratio=1.0, floor_per_s=0, clock=FakeClock())
    for _ in range(100):
        assert not budget.withdraw()
    budget.deposit()
    assert budget.withdraw()


def test_a_floor_of_less_than_one_retry_adds_to_what_calls_pay() -> None:
    budget = RetryBudget(ratio=0.1, floor_per_s=0.05, window_s=10, clock=FakeClock())
    for _ in range(4):
        budget.deposit()
    assert not budget.withdraw()
    budget.deposit()
    assert budget.withdraw()


# -- time


def test_calls_and_retries_leave_the_window() -> None:
    clock = FakeClock()
    budget = RetryBudget(ratio=0.5, floor_per_s=0, window_s=10, clock=clock)
    for _ in range(10):
        budget.deposit()
    clock.advance(9.5)
    assert budget.left == 5.0
    clock.advance(0.5)
    assert budget.left == 0.0
    floor = RetryBudget(floor_per_s=1, window_s=10, clock=clock)
    assert withdrawals(floor) == 10
    clock.advance(9.5)
    assert withdrawals(floor) == 0
    clock.advance(0.5)
    assert withdrawals(floor) == 10


def test_what_was_paid_for_by_calls_that_have_left_is_not_paid_twice() -> None:
    clock = FakeClock()
    budget = RetryBudget(ratio=1.0, floor_per_s=0, window_s=10, clock=clock)
    for _ in range(10):
        budget.deposit()
    clock.advance(5)
    assert withdrawals(budget) == 10
    clock.advance(5)  # the calls have left, the retries have not: less than nothing is left
    assert budget.left == 0.0
    budget.deposit()
    assert not budget.withdraw()
    clock.advance(5)
    assert withdrawals(budget) == 1


def test_a_pause_of_any_length_leaves_the_floor() -> None:
    clock = FakeClock()
    budget = RetryBudget(floor_per_s=1, window_s=10, clock=clock)
    for pause_s in (10.0, 11.0, 99.5, 1e6, 1e12):
        for _ in range(50):
            budget.deposit()
        assert withdrawals(budget) == 20
        clock.advance(pause_s)
        assert budget.left == 10.0


def test_a_reading_of_the_clock_that_comes_late_moves_nothing_back() -> None:
    # Two threads read the clock, and the one that read the earlier time takes the lock last.
    clock = FakeClock()
    budget = RetryBudget(ratio=1.0, floor_per_s=0, window_s=10, clock=clock)
    budget.deposit()
    clock.advance(5)
    budget.deposit()
    budget._advance(clock.time - 4)
    assert budget.left == 2.0
    clock.advance(5)
    assert budget.left == 1.0


def test_a_storm_is_held_to_the_share() -> None:
    clock = FakeClock()
    budget = RetryBudget(ratio=0.2, floor_per_s=10, window_s=10, clock=clock)
    calls = retries = 0
    for _ in range(60_000):  # 1000 a second, each fails and would be repeated twice
        budget.deposit()
        calls += 1
        retries += budget.withdraw() + budget.withdraw()
        clock.advance(0.001)
    assert retries / calls == pytest.approx(0.2 + 10 / 1000, rel=0.1)


# -- against a model


class Model(RuleBasedStateMachine):
    """Every call and every retry in a list, counted anew each time."""

    @initialize(
        ratio=st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0, 2.0]),
        floor_per_s=st.sampled_from([0.0, 0.25, 1.0, 3.0]),
        window_s=st.sampled_from([2.5, 10.0, 40.0]),
    )
    def start(self, ratio: float, floor_per_s: float, window_s: float) -> None:
        self.clock = FakeClock(start=0.0)
        self.budget = RetryBudget(ratio, floor_per_s, window_s, self.clock)
        self.calls: list[int] = []
        self.retries: list[int] = []
        self.granted = 0

    def slice(self) -> int:
        return math.floor(self.clock.time / (self.budget.window_s / 10))

    def left(self) -> float:
        oldest, budget = self.slice() - 9, self.budget
        calls = sum(number >= oldest for number in self.calls)
        retries = sum(number >= oldest for number in self.retries)
        return budget.floor_per_s * budget.window_s + budget.ratio * calls - retries

    @rule(number=st.integers(1, 20))
    def deposit(self, number: int) -> None:
        for _ in range(number):
            self.budget.deposit()
            self.calls.append(self.slice())

    @rule(number=st.integers(1, 20))
    def withdraw(self, number: int) -> None:
        for _ in range(number):
            payable = self.left() > 1 - 1e-6
            assert self.budget.withdraw() is payable
            if payable:
                self.retries.append(self.slice())
                self.granted += 1

    @rule(quarters=st.integers(1, 50))
    def wait(self, quarters: int) -> None:
        self.clock.advance(quarters * 0.25)  # exact, and a divisor of each slice

    @rule()
    def wait_long(self) -> None:
        self.clock.advance(1000.0)

    @invariant()
    def same(self) -> None:
        if hasattr(self, "budget"):
            assert self.budget.left == pytest.approx(max(0.0, self.left()))

    @invariant()
    def never_more_than_all_calls_and_all_time_pay_for(self) -> None:
        if hasattr(self, "budget"):
            windows = 1 + self.clock.time / (self.budget.window_s * 0.9)
            reserve = self.budget.floor_per_s * self.budget.window_s
            assert self.granted <= self.budget.ratio * len(self.calls) + reserve * windows + 1e-6


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# -- threads


def test_no_deposit_and_no_withdrawal_is_lost_between_threads() -> None:
    budget = RetryBudget(ratio=0.5, floor_per_s=0, window_s=1000, clock=FakeClock())
    start = threading.Barrier(8)
    granted: list[int] = []

    def work() -> None:
        start.wait(30)
        for _ in range(2000):
            budget.deposit()
        granted.append(withdrawals(budget, 500))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) + withdrawals(budget) == 8000


def test_the_clock_is_read_outside_of_the_lock() -> None:
    # A clock of the user's own is user code: it may take its time, or look at the budget itself.
    clock = FakeClock()
    budget = RetryBudget(clock=clock)
    free: list[bool] = []
    inside = False

    def now() -> float:
        nonlocal inside
        if not inside:
            inside = True
            other = threading.Thread(target=lambda: free.append(budget.withdraw()))
            other.start()
            other.join(10)
            inside = False
        return clock.time

    budget._now = now
    clock.advance(3.0)
    budget.deposit()
    assert budget.withdraw()
    assert budget.left == pytest.approx(100.2 - 4)
    assert free == [True, True, True]


def test_a_signal_handler_that_retries_does_not_hang() -> None:
    budget = RetryBudget(clock=FakeClock())
    before = signal.signal(signal.SIGUSR1, lambda *_: budget.deposit() or budget.withdraw())
    try:
        with budget._lock:
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert budget.left == pytest.approx(100.2 - 1)


@pytest.mark.parametrize("option", ["ratio", "floor_per_s", "window_s"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        RetryBudget(**{option: value})


def test_a_window_of_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="window_s"):
        RetryBudget(window_s=0)


def test_the_defaults() -> None:
    budget = RetryBudget()
    budget.deposit()
    assert (budget.ratio, budget.floor_per_s, budget.window_s) == (0.2, 10.0, 10.0)
    assert budget.name == "budget"
    assert RetryBudget(name="orders-db").name == "orders-db"
    assert budget.left == pytest.approx(100.2)


# -- one budget, several who use it


class Way:
    """Guarded as a function, or as an ``async def``."""

    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous = asynchronous

    def count(self, guard: Policy, clock: FakeClock, outcome: Exception | None = None) -> None:
        """One call."""

        def work() -> None:
            if outcome is not None:
                raise outcome

        async def work_async() -> None:
            work()

        with contextlib.suppress(ConnectionError):
            if self.asynchronous:
                clock.run(guard.acall(work_async))
            else:
                guard.call(work)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Way:
    return Way(request.param)


def shared(clock: FakeClock) -> RetryBudget:
    return RetryBudget(ratio=1.0, floor_per_s=0, window_s=1e6, clock=clock)


@pytest.mark.parametrize("order", ["retry-hedge", "hedge-retry", "nested", "subclass", "keyed"])
def test_in_a_pipeline_a_call_is_counted_once(way: Way, order: str) -> None:
    clock = FakeClock()
    budget = shared(clock)
    retry = Retry(budget=budget, backoff=0, clock=clock)
    hedge = Hedge(1.0, budget=budget, threads=4, clock=clock)

    class Own(Pipeline):
        pass

    guard = {
        "retry-hedge": lambda: Pipeline(retry, Timeout(1.0, clock=clock), hedge),
        "hedge-retry": lambda: Pipeline(hedge, retry),
        "nested": lambda: Pipeline(Pipeline(retry), Pipeline(hedge)),
        "subclass": lambda: Pipeline(retry, Own(Own(hedge))),
        "keyed": lambda: Pipeline(retry, Keyed(lambda key: Pipeline(hedge), key=lambda: "k")),
    }[order]()
    for _ in range(10):
        way.count(guard, clock)
    assert budget.left == 10.0
    # Nor does a repetition count as a call.
    way.count(guard, clock, ConnectionError())
    assert budget.left < 11.0


def test_each_budget_is_counted_for_itself(way: Way) -> None:
    clock = FakeClock()
    one, other = shared(clock), shared(clock)
    guard = Pipeline(
        Retry(budget=one, clock=clock), Hedge(1.0, budget=other, threads=4, clock=clock)
    )
    way.count(guard, clock)
    assert (one.left, other.left) == (1.0, 1.0)


def test_what_a_pipeline_compiled_counts_elsewhere(way: Way) -> None:
    clock = FakeClock()
    budget = shared(clock)
    hedge = Hedge(1.0, budget=budget, threads=4, clock=clock)
    way.count(Pipeline(Retry(budget=budget, clock=clock), hedge), clock)
    way.count(hedge, clock)
    way.count(Pipeline(hedge), clock)
    assert budget.left == 3.0


def test_a_pipeline_that_cannot_be_compiled_leaves_nothing_behind() -> None:
    clock = FakeClock()
    budget = shared(clock)
    retry = Retry(budget=budget, clock=clock)
    with pytest.raises(TypeError, match="threads"):
        Pipeline(retry, Hedge(1.0, budget=budget, clock=clock)).call(len, "")
    retry.call(len, "")
    assert budget.left == 1.0
