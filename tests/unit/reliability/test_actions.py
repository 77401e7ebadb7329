"""The order of recovery actions, and the interval of planned restarts."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.reliability.actions import Trial, expected_cost_s, order
from everup.reliability.rejuvenation import cost_rate, optimal


def test_probability() -> None:
    assert Trial("restart", 1).probability == 0.5
    assert Trial("restart", 1, 8, 8).probability == pytest.approx(0.9, abs=1e-12)
    assert Trial("restart", 1, 0, 8, prior=(9, 1)).probability == pytest.approx(0.5, abs=1e-12)
    low, high = Trial("restart", 1).interval()
    assert (low, high) == pytest.approx((0.025, 0.975), abs=1e-9)  # Beta(1, 1) is uniform


def test_order_of_two() -> None:
    quick, sure = Trial("restart", 1, 1, 4), Trial("fail over", 20, 9, 9)
    assert [trial.name for trial in order([sure, quick])] == ["restart", "fail over"]
    assert expected_cost_s([quick, sure]) == pytest.approx(1 + (1 - 1 / 3) * 20, abs=1e-9)
    assert expected_cost_s([]) == 0


TRIALS = st.builds(
    lambda cost_s, successes, more: Trial("x", cost_s, successes, successes + more),
    st.floats(0.1, 100),
    st.integers(0, 20),
    st.integers(0, 20),
)


@given(st.lists(TRIALS, max_size=5))
def test_no_order_costs_less(trials: list[Trial]) -> None:
    best = min(expected_cost_s(some) for some in itertools.permutations(trials))
    assert expected_cost_s(order(trials)) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize(
    ("trial", "word"),
    [
        (Trial("x", 0), "cost_s 0 of x"),
        (Trial("x", 1, 2, 1), "successes 2 of x"),
        (Trial("x", 1, prior=(0, 1)), "prior"),
    ],
)
def test_wrong_trials(trial: Trial, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        order([trial])


# -- planned restarts


def test_a_process_that_does_not_age_is_left_alone() -> None:
    for shape in (0.7, 1.0):
        assert optimal(shape, 1000, 1, 100).interval_s == math.inf
    assert optimal(3, 1000, 5, 5).interval_s == math.inf
    assert optimal(3, 1000, 5, 5).saves == 0


def test_without_planned_restarts() -> None:
    """Renewals: one failure per mean lifetime."""
    assert cost_rate(math.inf, 2, 100, 1, 7) == pytest.approx(
        7 / (100 * math.sqrt(math.pi) / 2), abs=1e-9
    )
    assert cost_rate(1e9, 2, 100, 1, 7) == pytest.approx(7 / (50 * math.sqrt(math.pi)), abs=1e-9)


@pytest.mark.parametrize("shape", [1.2, 1.5, 2.0, 3.5, 8.0])
@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.5])
def test_the_optimum_is_one(shape: float, ratio: float) -> None:
    found = optimal(shape, 3600, ratio, 1)
    if found.interval_s == math.inf:
        grid = np.geomspace(1, 1e6, 400)
        assert min(cost_rate(t, shape, 3600, ratio, 1) for t in grid) > found.cost_rate * (1 - 1e-9)
        return
    assert 0 < found.saves < 1
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2):
        near = cost_rate(found.interval_s * factor, shape, 3600, ratio, 1)
        assert near >= found.cost_rate * (1 - 1e-12)


def test_by_simulation() -> None:
    shape, scale_s, planned, failed = 2.5, 1000.0, 2.0, 60.0
    found = optimal(shape, scale_s, planned, failed)
    lives = scale_s * np.random.default_rng(7).weibull(shape, 400_000)
    up = np.minimum(lives, found.interval_s)
    cost = np.where(lives < found.interval_s, failed, planned)
    rate = cost.sum() / up.sum()
    error = np.std(cost - rate * up) / up.mean() / math.sqrt(len(lives))
    assert abs(rate - found.cost_rate) < 3 * error


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((0, 1, 1, 1), "shape 0"), ((1, math.inf, 1, 1), "scale_s inf"), ((2, 1, -1, 1), "planned")],
)  # fmt: skip
def test_wrong_arguments(arguments: tuple[float, float, float, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        optimal(*arguments)
    with pytest.raises(ValueError, match="interval_s"):
        cost_rate(0, 2, 1, 1, 1)
