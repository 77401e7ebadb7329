"""The estimators of ``Limit``, as tables and against a simulated dependency."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.tolerate._estimators import (
    AIMD,
    AIMDState,
    Estimator,
    Gradient2,
    GradientState,
    Sample,
    Vegas,
    VegasState,
)

ALL = [AIMD(), Gradient2(), Vegas(), AIMD(1, 1, 3), Gradient2(1, 1, 3), Vegas(1, 1, 3)]


def full(state, latency_s=0.1, dropped=False, chance=0.5):
    """A sample of calls that used the whole limit."""
    return Sample(latency_s, int(state.limit), dropped, chance)


@pytest.mark.parametrize("kind", [AIMD, Gradient2, Vegas])
@pytest.mark.parametrize(
    "options",
    [
        {"initial": 5, "min": 6, "max": 9},
        {"initial": 10, "min": 6, "max": 9},
    ],
)
def test_limits_out_of_order_are_refused(kind, options):
    text = rf"initial must be from min \(6\) to max \(9\), not {options['initial']}"
    with pytest.raises(ValueError, match=text):
        kind(**options)


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        (AIMD, {"backoff": 1}, "backoff"),
        (AIMD, {"backoff": 0.4}, "backoff"),
        (AIMD, {"timeout_s": 0}, "timeout_s"),
        (Gradient2, {"smoothing": 0}, "smoothing"),
        (Gradient2, {"smoothing": 1.1}, "smoothing"),
        (Gradient2, {"long_window": 0}, "long_window"),
        (Gradient2, {"tolerance": 0.9}, "tolerance"),
        (Gradient2, {"queue": 0}, "queue"),
        (Vegas, {"alpha": 0}, "alpha"),
        (Vegas, {"alpha": 7}, "alpha"),
        (Vegas, {"smoothing": 0}, "smoothing"),
        (Vegas, {"probe": 0}, "probe"),
    ],
)
def test_options_out_of_range_are_refused(kind, options, match):
    with pytest.raises(ValueError, match=match):
        kind(**options)


@given(
    estimator=st.sampled_from(ALL),
    samples=st.lists(
        st.builds(
            Sample,
            st.none() | st.floats(0, 1e6),
            st.integers(0, 2000),
            st.booleans(),
            st.floats(0, 1, exclude_max=True),
        ),
        max_size=200,
    ),
)
def test_whatever_is_seen_the_limit_keeps_its_bounds_and_grows_only_when_used(estimator, samples):
    state = estimator.start()
    assert state.limit == estimator.initial
    for sample in samples:
        after = estimator.step(state, sample)
        assert estimator.min <= after.limit <= estimator.max
        if sample.under_way * 2 < state.limit or sample.latency_s is None:
            assert after.limit <= state.limit  # nothing shows that more would do
        if sample.dropped:
            assert after.limit < state.limit or after.limit == estimator.min
        state = after


@pytest.mark.parametrize(
    ("limit", "sample", "after"),
    [
        (20.0, Sample(0.1, 10, False), 21.0),
        (20.0, Sample(0.1, 9, False), 20.0),  # used by less than half
        (200.0, Sample(0.1, 200, False), 200.0),
        (100.0, Sample(0.1, 100, True), 90.0),
        (100.0, Sample(None, 0, True), 90.0),  # a drop tells, used or not
        (100.0, Sample(6.0, 100, False), 90.0),  # slower than the timeout
        (5.0, Sample(0.1, 5, True), 4.0),  # at least one less
        (100.0, Sample(None, 100, False), 100.0),
    ],
)
def test_aimd(limit, sample, after):
    assert AIMD(min=1).step(AIMDState(limit), sample).limit == after


def test_gradient2_grows_by_its_queue_while_the_latency_is_the_same():
    estimator = Gradient2()
    state = estimator.start()
    for _ in range(10):
        state = estimator.step(state, full(state))
    assert state.limit == pytest.approx(20 + 10 * 0.2 * 4)


def test_gradient2_shrinks_by_the_gradient_and_by_no_more_than_half():
    estimator = Gradient2()
    state = GradientState(100.0, 0.1, 11)
    slower = estimator.step(state, full(state, 0.1 * 1.5 / 0.8))
    assert slower.limit == pytest.approx(100 - 0.2 * 0.2 * 100, rel=1e-3)
    much = estimator.step(state, full(state, 10.0))
    assert much.limit == pytest.approx(100 - 0.2 * 0.5 * 100)
    dropped = estimator.step(state, full(state, 0.1, dropped=True))
    assert dropped.limit == much.limit
    none = estimator.step(state, Sample(None, 1, True))
    assert none == GradientState(much.limit, 0.1, 11)
    assert estimator.step(state, Sample(None, 100, False)) == state


def test_gradient2_averages_the_first_ten_then_exponentially():
    estimator = Gradient2(long_window=600)
    state = estimator.start()
    for latency in range(1, 11):
        state = estimator.step(state, Sample(float(latency), 0, False))
    assert state.long_s == pytest.approx(5.5)
    state = estimator.step(state, Sample(7.5, 0, False))
    assert state.long_s == pytest.approx(5.5 + 2.0 * 2 / 601)


def test_gradient2_forgets_a_long_overload_faster_once_it_is_over():
    estimator = Gradient2()
    state = GradientState(20.0, 1.0, 11)
    for _ in range(15):
        state = estimator.step(state, Sample(0.1, 0, False))
    assert state.long_s < 0.5  # the average alone would be at 0.95
    assert estimator.step(state, Sample(0.0, 20, False)).limit == pytest.approx(20.8)


def original(limit, gradient):
    """Netflix' step: the queue is added whatever the gradient."""
    return limit * 0.8 + 0.2 * (limit * gradient + limit**0.5)


def test_a_gradient_near_08_does_not_let_the_limit_grow():
    """Netflix/concurrency-limits#134, with the queue that Netflix' users take, sqrt(limit): there
    the limit grows under overload; here it does not, from wherever it is."""
    theirs = 10.0
    ours = GradientState(10.0, 0.1, 11)
    estimator = Gradient2(10, 1, 1000, queue=100, long_window=10**9)
    for _ in range(500):
        theirs = original(theirs, 0.8)
        after = estimator.step(ours, full(ours, 0.1 * 1.5 / 0.8))
        assert after.limit <= ours.limit
        ours = after
    assert theirs > 20
    assert ours.limit == 1


@pytest.mark.parametrize("estimator", [AIMD(), Gradient2(), Vegas(20, 20, 200, probe=9999)])
def test_the_max_holds_under_an_overload_without_end(estimator: Estimator):
    """A dependency of 30 places, all of the limit always used: the long average of Gradient2
    follows the latency of its own overload, and the limit follows that, up to its max."""
    state = estimator.start()
    highest = 0.0
    for _ in range(20_000):
        state = estimator.step(state, full(state, 0.1 * max(1.0, state.limit / 30)))
        highest = max(highest, state.limit)
    assert highest <= 200
    if isinstance(estimator, Vegas):
        assert highest < 50  # it keeps the latency without load
    else:
        assert highest == 200


@pytest.mark.parametrize(
    ("latency_s", "change"),
    [
        (0.1, 12),  # no queue: by beta, 6 x log10(100)
        (0.1 / 0.985, 12),  # 2 wait: up to log10
        (0.1 / 0.975, 2),  # 3: below alpha, by log10
        (0.1 / 0.92, 0),  # 8: between alpha and beta
        (0.1 / 0.885, 0),  # 12: beta itself
        (0.1 / 0.86, -2),  # 14
        (9.9, -2),
    ],
)
def test_vegas(latency_s, change):
    after = Vegas().step(VegasState(100.0, 0.1, 50), Sample(latency_s, 100, False))
    assert after == VegasState(100.0 + change, 0.1, 49)


def test_vegas_drops_and_what_tells_nothing():
    estimator, state = Vegas(), VegasState(100.0, 0.1, 50)
    assert estimator.step(state, Sample(0.1, 1, True)).limit == 98
    assert estimator.step(state, Sample(None, 100, False)) == state
    assert estimator.step(state, Sample(0.0, 100, False)) == state
    assert estimator.step(state, Sample(9.0, 49, False)).limit == 100
    assert Vegas(smoothing=0.5).step(state, full(state)).limit == 106


def test_vegas_learns_the_latency_without_load_and_probes_for_it_anew():
    estimator = Vegas(probe=10)
    state = estimator.step(estimator.start(), Sample(0.3, 1, False, 0.0))
    assert state == VegasState(20.0, 0.3, 100)  # half of 10 x 20
    state = estimator.step(state, full(state, 0.2))
    assert state == VegasState(20.0, 0.2, 99)  # less than ever: that alone is learnt
    state = VegasState(20.0, 0.2, 1)
    assert estimator.step(state, full(state, 0.5, chance=0.5)) == VegasState(20.0, 0.5, 150)
