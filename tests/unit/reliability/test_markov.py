"""Markov chains: against linear algebra, the matrix exponential and closed forms."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from everup.reliability.markov import (
    Chain,
    State,
    absorption,
    birth_death,
    steady_state,
    transient,
)


def machine(failure: float, repair: float) -> Chain:
    return Chain({("up", "down"): failure, ("down", "up"): repair})


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """Irreducible: a ring of all states, and more."""
    count = draw(st.integers(2, 7))
    rate = st.floats(1e-3, 1e2)
    rates: dict[tuple[State, State], float] = {
        (at, (at + 1) % count): draw(rate) for at in range(count)
    }
    more = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1), rate)))
    rates.update({(here, there): value for here, there, value in more if here != there})
    return Chain(rates, tuple(range(count)))


def generator(chain: Chain) -> np.ndarray:
    matrix = chain.matrix()
    return matrix - np.diag(matrix.sum(axis=1))


@given(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3))
def test_one_machine(failure: float, repair: float) -> None:
    found = steady_state(machine(failure, repair))
    assert found["up"] == pytest.approx(repair / (failure + repair), rel=1e-14)
    assert found["down"] == pytest.approx(failure / (failure + repair), rel=1e-14)


@settings(max_examples=60, deadline=None)
@given(chains())
def test_steady_state_balances(chain: Chain) -> None:
    found = np.array(list(steady_state(chain).values()))
    count = len(found)
    system = np.vstack([generator(chain).T, np.ones(count)])
    solved = np.linalg.lstsq(system, np.append(np.zeros(count), 1.0), rcond=None)[0]
    assert found == pytest.approx(solved, abs=1e-9)
    flow = found @ generator(chain)
    assert np.abs(flow).max() <= 1e-13 * (found @ chain.matrix().sum(axis=1))


def test_rare_states_keep_their_digits() -> None:
    """Nine machines, one crew, rates 1e-9 apart: the last state has about 1e-76."""
    failure, repair, count = 1e-9, 1.0, 9
    chain = birth_death([(count - at) * failure for at in range(count)], [repair] * count)
    found = steady_state(chain)
    weights = [Fraction(1)]
    for at in range(count):
        weights.append(weights[-1] * Fraction((count - at) * failure) / Fraction(repair))
    for at, weight in enumerate(weights):
        assert found[at] == pytest.approx(float(weight / sum(weights)), rel=1e-13)


def test_large_weights_do_not_overflow() -> None:
    found = steady_state(birth_death([1e6] * 200, [1e-6] * 200))
    assert found[200] == pytest.approx(1, rel=1e-11)
    assert found[199] == pytest.approx(1e-12, rel=1e-9)


def test_states_left_for_ever_have_no_share() -> None:
    found = steady_state(Chain({("start", "a"): 1.0, ("a", "b"): 2.0, ("b", "a"): 1.0}))
    assert found == pytest.approx({"start": 0.0, "a": 1 / 3, "b": 2 / 3}, rel=1e-14)
    assert steady_state(Chain({("up", "dead"): 1.0})) == {"up": 0.0, "dead": 1.0}
    assert steady_state(Chain({}, ("only",))) == {"only": 1.0}


def test_a_reducible_chain_is_refused() -> None:
    parts = Chain({("s", "a"): 1.0, ("s", "b"): 1.0, ("a", "a2"): 1.0, ("a2", "a"): 1.0})
    with pytest.raises(ValueError, match="reducible, with 2 closed classes"):
        steady_state(parts)


@pytest.mark.parametrize("time_s", [0.0, 1e-9, 0.1, 1.0, 10.0, 1e3, 1e6, 1e9])
def test_one_machine_at_a_time(time_s: float) -> None:
    failure, repair = 0.02, 3.0
    both = failure + repair
    found = transient(machine(failure, repair), "up", time_s)
    down = failure / both * -math.expm1(-both * time_s)
    assert found.probability["down"] == pytest.approx(down, rel=1e-12)
    assert found.probability["up"] == pytest.approx(1 - down, rel=1e-12)
    up_s = repair / both * time_s + failure / both**2 * -math.expm1(-both * time_s)
    assert found.time_in_s["up"] == pytest.approx(up_s, rel=1e-12)
    assert sum(found.time_in_s.values()) == pytest.approx(time_s, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(chains(), st.floats(1e-4, 1e3))
def test_transient_is_the_matrix_exponential(chain: Chain, time_s: float) -> None:
    """Both ways of solving: a short time sums, a long one squares. expm itself is the less exact
    one where q t is large."""
    found = transient(chain, 0, time_s)
    fastest = float(chain.matrix().sum(axis=1).max())
    wanted = expm(generator(chain) * time_s)[0]
    allowed = 1e-12 + 1e-15 * fastest * time_s
    assert list(found.probability.values()) == pytest.approx(list(wanted), abs=allowed)
    assert sum(found.probability.values()) == pytest.approx(1, abs=1e-12)
    assert 0 <= found.error <= 1e-12


@settings(max_examples=40, deadline=None)
@given(chains(), st.floats(1e-3, 1e2))
def test_time_in_states_is_the_integral(chain: Chain, time_s: float) -> None:
    """By the exponential of an augmented matrix (Van Loan 1978)."""
    count = len(chain.states)
    wide = np.zeros((2 * count, 2 * count))
    wide[:count, :count] = generator(chain)
    wide[:count, count:] = np.eye(count)
    wanted = expm(wide * time_s)[0, count:]
    found = list(transient(chain, 0, time_s).time_in_s.values())
    assert found == pytest.approx(list(wanted), abs=1e-9 * time_s)


def test_stiff_chain_far_out_is_the_long_run() -> None:
    chain = Chain(
        {
            ("2", "1"): 2e-7,
            ("1", "2"): 1e-1,
            ("1", "0"): 1e-7,
            ("0", "1"): 1e-1,
            ("1", "1'"): 1e4,
            ("1'", "1"): 1e4,
        }
    )
    long_run = steady_state(chain)
    found = transient(chain, "2", 1e7)
    assert found.probability == pytest.approx(long_run, rel=1e-10)
    assert transient(chain, long_run, 1e5).probability == pytest.approx(long_run, rel=1e-10)


def test_the_bound_of_what_is_cut_off() -> None:
    """A coarse sum, against a fine one."""
    chain = birth_death([3.0, 2.0, 1.0], [1.0, 2.0, 3.0])
    fine, coarse = transient(chain, 0, 5.0), transient(chain, 0, 5.0, tolerance=1e-4)
    off = max(abs(fine.probability[at] - coarse.probability[at]) for at in range(4))
    assert 1e-14 < coarse.error < 1e-4
    assert off <= coarse.error


def test_both_ways_agree_where_one_takes_over() -> None:
    """Just below and above the number of jumps from which squaring is used."""
    chain = birth_death([3.0, 2.0, 1.0], [1.0, 2.0, 3.0])
    fastest = float(chain.matrix().sum(axis=1).max())
    edge_s = (100 + 30 * 4) / fastest
    below, above = (
        transient(chain, 0, edge_s * (1 - 1e-9)),
        transient(chain, 0, edge_s * (1 + 1e-9)),
    )
    assert below.probability == pytest.approx(above.probability, rel=1e-12)
    assert below.time_in_s == pytest.approx(above.time_in_s, rel=1e-8)


def test_absorption_of_a_pair_without_repair_and_with() -> None:
    failure, repair = 0.1, 2.0
    alone = Chain({(2, 1): 2 * failure, (1, 0): failure})
    assert absorption(alone, 2).mean_s == pytest.approx(15, rel=1e-14)
    mended = Chain({(2, 1): 2 * failure, (1, 0): failure, (1, 2): repair, (0, 1): repair})
    found = absorption(mended, 2, targets=[0])
    assert found.mean_s == pytest.approx((3 * failure + repair) / (2 * failure**2), rel=1e-13)
    assert found.probability == {0: 1.0}
    assert absorption(mended, 0, targets=[0]).mean_s == 0


def test_absorption_says_where() -> None:
    chain = Chain({("a", "b"): 1.0, ("b", "a"): 3.0, ("b", "left"): 1.0, ("a", "right"): 1.0})
    found = absorption(chain, "a")
    assert found.probability == pytest.approx({"right": 0.8, "left": 0.2}, rel=1e-14)
    only_b = absorption(chain, "a", reward={"a": 0.0})
    assert only_b.mean_s == pytest.approx(0.2, rel=1e-13)


@settings(max_examples=50, deadline=None)
@given(chains())
def test_absorption_solves_the_linear_system(chain: Chain) -> None:
    last = len(chain.states) - 1
    inner = generator(chain)[:last, :last]
    wanted = np.linalg.solve(-inner, np.ones(last))[0]
    assert absorption(chain, 0, targets=[last]).mean_s == pytest.approx(wanted, rel=1e-8)


def test_absorption_that_never_comes_is_refused() -> None:
    chain = Chain({("a", "b"): 1.0, ("a", "end"): 1.0, ("b", "c"): 1.0, ("c", "b"): 1.0})
    with pytest.raises(ValueError, match=r"state 'b'.*infinite"):
        absorption(chain, "a")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Chain({}), "at least one"),
        (lambda: Chain({("a", "a"): 1.0}), "between two states"),
        (lambda: Chain({("a", "b"): -1.0}), "rate -1.0"),
        (lambda: Chain({("a", "b"): math.inf}), "rate inf"),
        (lambda: Chain({("a", "b"): 1.0}, ("a",)), "not between known"),
        (lambda: Chain({("a", "b"): 1.0}, ("a", "b", "a")), "twice"),
        (lambda: transient(machine(1, 1), "x", 1), "state 'x'"),
        (lambda: transient(machine(1, 1), "up", -1), "time_s"),
        (lambda: transient(machine(1, 1), "up", 1, 0), "tolerance"),
        (lambda: transient(machine(1, 1), {"up": 0.5}, 1), "add up to 0.5"),
        (lambda: transient(machine(1, 1), {"up": 2.0}, 1), "between 0 and 1"),
        (lambda: birth_death([1.0], []), "as many as"),
    ],
)
def test_refusals(make: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()  # type: ignore[operator]
