"""Availability: closed forms, Trivedi's example, spans against counting by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from everup.reliability.availability import (
    downtime_s_per_year,
    exponential_interval,
    lognormal_interval,
    measured,
    nines,
    point,
    replica_availability,
    request_availability,
    service_availability,
)


def test_trivedi_example_10_27() -> None:
    """Trivedi, Probability and Statistics with Reliability, Queuing, and Computer Science
    Applications, 2nd ed., example 10.27: one failure, 999 h up and 1 h down: (0.9624, 1); ten
    failures, 9990 h and 10 h: (0.9975, 0.9996)."""
    one = exponential_interval(999, 1, 1, terminated="failure")
    assert one.value == pytest.approx(0.999, rel=1e-12)
    assert round(one.low, 4) == 0.9624
    assert round(one.high, 4) == 1.0
    ten = exponential_interval(9990, 10, 10, terminated="failure")
    assert (round(ten.low, 4), round(ten.high, 4)) == (0.9975, 0.9996)


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(1, 500), st.floats(1, 1e8), st.floats(1e-3, 1e6), st.floats(0.5, 0.99))
def test_the_f_interval(n: int, up_s: float, down_s: float, confidence: float) -> None:
    tail = (1 - confidence) / 2
    found = exponential_interval(up_s, down_s, n, confidence, "failure")
    a = up_s / (up_s + down_s)
    assert found.value == pytest.approx(a, rel=1e-9)
    for bound, quantile in ((found.low, 1 - tail), (found.high, tail)):
        f = stats.f.ppf(quantile, 2 * n, 2 * n)
        assert bound == pytest.approx(a / (a + (1 - a) * f), rel=1e-7)
    by_time = exponential_interval(up_s, down_s, n, confidence)
    assert by_time.high == found.high
    assert by_time.low < found.low


def test_no_failure_is_a_bound() -> None:
    assert exponential_interval(1000, 0, 0) == (1.0, 0.0, 1.0, 0.95)
    bound = exponential_interval(1000, 0, 0, mttr_s=2)
    assert bound.low == pytest.approx(1 / (1 + 2 * -math.log(0.05) / 1000), rel=1e-12)
    assert (bound.value, bound.high) == (1.0, 1.0)


def test_lognormal_interval_falls_back_honestly() -> None:
    assert lognormal_interval(1000, []) == (1.0, 0.0, 1.0, 0.95)
    assert lognormal_interval(990, [10.0]) == (0.99, 0.0, 1.0, 0.95)
    found = lognormal_interval(1e6, [10.0, 14.0, 9.0, 30.0])
    assert 0.999 < found.low < (found.value or 0) < found.high < 1
    # With no spread of the repair times only the rate is uncertain: exact chi-square bounds.
    even = lognormal_interval(1e6, [10.0, 10.0, 10.0])
    worst = stats.chi2.isf(0.025, 8) / 2e6 * 10
    assert even.low == pytest.approx(1 / (1 + worst), rel=1e-9)


def test_point_and_measured() -> None:
    assert point(99, 1) == pytest.approx(0.99, rel=1e-15)
    assert point(5, 0) == 1
    assert measured(80, 100, 20) == 1
    assert measured(72, 100, 20) == pytest.approx(0.9, rel=1e-15)


def test_replicas_and_service_are_different_numbers() -> None:
    down = [[(10.0, 20.0)], [(15.0, 30.0)], []]
    window = (0.0, 100.0)
    assert replica_availability(down, window) == pytest.approx(1 - 25 / 300, rel=1e-12)
    assert service_availability(down, window) == 1
    assert service_availability(down, window, needed=2) == pytest.approx(0.95, rel=1e-12)
    assert service_availability(down, window, needed=3) == pytest.approx(0.8, rel=1e-12)
    during = [(12.0, 18.0)]
    assert service_availability(down, window, during, 2) == pytest.approx(1 - 2 / 94, rel=1e-12)
    assert replica_availability(down, window, during) == pytest.approx(
        1 - (2 + 2 + 12) / (3 * 94), rel=1e-12
    )


SPANS = st.lists(
    st.tuples(st.integers(-5, 25), st.integers(0, 9)).map(lambda x: (x[0], x[0] + x[1])),
    max_size=6,
)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(SPANS, min_size=1, max_size=4), SPANS, st.data())
def test_spans_against_counting_seconds(down, maintenance, data) -> None:  # type: ignore[no-untyped-def]
    """Integer edges: each second is wholly up or down, so counting them is exact."""
    window = (0, 20)
    needed = data.draw(st.integers(1, len(down)))
    seconds = np.arange(*window)

    def within(spans: list[tuple[int, int]]) -> np.ndarray:
        hit = np.zeros(len(seconds), bool)
        for begin, end in spans:
            hit |= (seconds >= begin) & (seconds < end)
        return hit

    counted = ~within(maintenance)
    if not counted.any():
        with pytest.raises(ValueError, match="maintenance"):
            replica_availability(down, window, maintenance)
        return
    up = np.array([~within(spans) for spans in down])[:, counted]
    assert replica_availability(down, window, maintenance) == pytest.approx(up.mean(), abs=1e-12)
    served = (up.sum(axis=0) >= needed).mean()
    assert service_availability(down, window, maintenance, needed) == pytest.approx(
        served, abs=1e-12
    )


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.5, 0.999))
def test_requests_against_scipy(good: int, bad: int, confidence: float) -> None:
    if good + bad == 0:
        assert request_availability(0, 0) == (None, 0.0, 1.0, 0.95)
        return
    reference = stats.binomtest(good, good + bad)
    for method in ("exact", "wilson"):
        found = request_availability(good, good + bad, confidence, method)  # type: ignore[arg-type]
        expected = reference.proportion_ci(confidence, method)
        assert found.value == good / (good + bad)
        assert found.low == pytest.approx(expected.low, rel=1e-7, abs=1e-12)
        assert found.high == pytest.approx(expected.high, rel=1e-7, abs=1e-12)


def test_nines_and_downtime() -> None:
    assert nines(0.999) == pytest.approx(3, rel=1e-12)
    assert nines(1) == math.inf
    assert nines(0) == 0
    assert downtime_s_per_year(0.9999) == pytest.approx(3155.76, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: point(0, 1), "mttf_s: 0"),
        (lambda: measured(90, 100, 20), "up_s: 90"),
        (lambda: measured(0, 100, 100), "total_s - maintenance_s"),
        (lambda: exponential_interval(10, 5, 0), "down_s: 5"),
        (lambda: exponential_interval(10, 5, 0, terminated="failure"), "failures: 0"),
        (lambda: request_availability(5, 4), "good: 5"),
        (lambda: service_availability([[]], (0, 9), needed=2), "needed: 2"),
        (lambda: service_availability([], (0, 9)), "needed: 1"),
        (lambda: replica_availability([], (0, 9)), "down: empty"),
        (lambda: replica_availability([[(5, 2)]], (0, 9)), r"span: \(5, 2\)"),
        (lambda: replica_availability([[]], (9, 9)), "window"),
        (lambda: nines(1.2), "availability: 1.2"),
    ],
)
def test_wrong_arguments_are_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
