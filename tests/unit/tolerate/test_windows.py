"""The windows of breakers, against lists of all that happened."""

import sys
import threading
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.tolerate._windows import (
    Consecutive,
    Counts,
    CountWindow,
    Growing,
    TimeWindow,
    Trip,
    Why,
    Window,
)

Step = tuple[float, bool, bool]
"""Seconds since the step before, failed, slow."""
STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.75, 40.0]), st.booleans(), st.booleans()),
    max_size=60,
)


def good(window: Window, now: float) -> None:
    """A good call, in the way that the breaker takes."""
    if now >= window.ends:
        window.ok(now)
    elif window.hit is not None:
        window.hit()


def seen(trip: Trip, born: float, past: list[Step], now: float) -> list[Step]:
    """What of the past (absolute times) is in the window."""
    if isinstance(trip, Consecutive):
        row: list[Step] = []
        for step in past:
            row = [*row, step] if step[1] or step[2] else []
        return row
    if isinstance(trip, CountWindow):
        return past[-trip.size :]
    width = trip.window_s / trip.buckets

    def bucket(at: float) -> int:
        return int((at - born) // width)

    return [step for step in past if bucket(step[0]) > bucket(now) - trip.buckets]


def verdict(trip: Trip, held: list[Step]) -> Why | None:
    """After a call that was bad."""
    failures, slow = sum(f for _, f, _ in held), sum(s for _, _, s in held)
    if isinstance(trip, Consecutive):
        if len(held) < trip.failures:
            return None
        return Why.FAILURES if held[-1][1] else Why.SLOW
    if len(held) < trip.least:
        return None
    if failures / len(held) >= trip.rate:
        return Why.RATE
    return Why.SLOW if slow / len(held) >= trip.slow_rate else None


TRIPS = st.one_of(
    st.builds(Consecutive, st.integers(1, 6)),
    st.builds(
        CountWindow,
        st.integers(4, 12),
        st.sampled_from([0.1, 0.5, 1.0]),
        st.integers(1, 4),
        slow_rate=st.sampled_from([0.3, 1.0]),
    ),
    st.builds(
        TimeWindow,
        st.just(4.0),
        st.sampled_from([1, 2, 8]),
        st.sampled_from([0.1, 0.5, 1.0]),
        st.integers(1, 4),
        slow_rate=st.sampled_from([0.3, 1.0]),
    ),
)


@given(TRIPS, STEPS, st.lists(st.integers(0, 60)))
def test_windows_hold_what_a_list_holds(trip: Trip, steps: list[Step], looks: list[int]) -> None:
    born = now = 1000.0
    window = trip.window(born)
    past: list[Step] = []
    for index, (after, failed, slow) in enumerate(steps):
        now += after
        past.append((now, failed, slow))
        if failed or slow:
            assert window.bad(now, failed, slow) is verdict(trip, seen(trip, born, past, now))
        else:
            good(window, now)
        if index in looks:  # looking changes nothing
            held = seen(trip, born, past, now)
            expected = Counts(len(held), sum(f for _, f, _ in held), sum(s for _, _, s in held))
            assert window.counts(now) == expected == window.counts(now)


@pytest.mark.parametrize("trip", [CountWindow(size=50, least=50), TimeWindow(1.0, buckets=5)])
def test_memory_stays(trip: Trip) -> None:
    window = trip.window(0.0)
    for number in range(5000):
        window.bad(number / 1000, True, True)
    held = [getattr(window, name) for name in ("_failed", "_slow")]
    assert all(len(numbers) <= 50 for numbers in held)


def test_rates_are_met_exactly() -> None:
    """3 of 30 is 0.1, though 0.1 * 30 is above 3."""
    for calls in range(1, 200):
        for failures in (1, calls // 3, calls // 10, calls):
            if not failures:
                continue
            window = CountWindow(size=calls, rate=failures / calls, least=calls).window(0.0)
            for _ in range(calls - failures):
                good(window, 0.0)
            verdicts = [window.bad(0.0, True, False) for _ in range(failures)]
            assert verdicts == [None] * (failures - 1) + [Why.RATE]


def test_time_that_goes_back_between_threads_counts_in_the_current_bucket() -> None:
    window = TimeWindow(10.0, buckets=10).window(0.0)
    window.bad(3.5, True, False)
    window.bad(2.9, True, False)  # read its clock before the other, came later
    assert window.counts(12.9) == Counts(2, 2, 0)
    assert window.counts(13.0) == Counts(0, 0, 0)


@pytest.mark.parametrize("trip", [CountWindow(size=10**6), TimeWindow(1000.0)])
def test_no_good_call_is_lost_between_threads(trip: Trip) -> None:
    window = trip.window(0.0)
    lock = threading.Lock()
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        for number in range(4000):
            if number % 10:
                good(window, 0.0)
            else:
                with lock:
                    window.bad(0.0, True, False)

    threads = [threading.Thread(target=work) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert window.counts(0.0) == Counts(32000, 3200, 0)


@pytest.mark.parametrize(
    ("make", "options", "word"),
    [
        (Consecutive, {"failures": 0}, "failures"),
        (Consecutive, {"failures": 2.0}, "failures"),
        (Consecutive, {"slow_s": 0}, "slow_s"),
        (CountWindow, {"size": 0}, "size"),
        (CountWindow, {"size": 5}, "least"),
        (CountWindow, {"rate": 0}, "rate"),
        (CountWindow, {"rate": 1.5}, "rate"),
        (CountWindow, {"rate": nan}, "rate"),
        (CountWindow, {"slow_rate": -1}, "slow_rate"),
        (CountWindow, {"slow_s": -1}, "slow_s"),
        (TimeWindow, {"window_s": 0}, "window_s"),
        (TimeWindow, {"window_s": inf}, "window_s"),
        (TimeWindow, {"buckets": 0}, "buckets"),
        (TimeWindow, {"least": 0}, "least"),
        (TimeWindow, {"slow_s": nan}, "slow_s"),
        (Growing, {"first_s": 0}, "first_s"),
        (Growing, {"factor": 0.5}, "factor"),
        (Growing, {"factor": nan}, "factor"),
        (Growing, {"cap_s": 1.0}, "cap_s"),
        (Growing, {"cap_s": inf}, "cap_s"),
        (Growing, {"jitter": 1.0}, "jitter"),
    ],
)
def test_options_out_of_range(make: Any, options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        make(**options)
