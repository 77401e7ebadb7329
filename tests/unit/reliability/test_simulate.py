"""The mathematics against a simulation of the same structures: within three standard errors.

The seed of structure i is (5, i), chosen once, before any result was seen, and the tolerance is
the required one. With so many structures about one choice of seeds in twelve would miss a bound by
chance alone; that is no reason to tune either.
"""

import math
from collections import deque

import numpy as np
import pytest

from everup.reliability import markov, repairable, simulate, trees
from everup.reliability.blocks import Block, KofN, Parallel, Series, Unit, steady_state
from everup.reliability.repairable import Group
from everup.reliability.trees import And, Basic, Event, Not, Or, Vote

SEED = 5

GROUPS = [
    Group(1, 1, 0.1, 1.0),
    Group(2, 1, 0.2, 1.0, crews=1),
    Group(2, 1, 0.2, 1.0, crews=2),
    Group(3, 2, 0.1, 1.0, crews=1),
    Group(5, 3, 0.2, 1.0, crews=2),
    Group(8, 5, 0.1, 1.0, crews=3),
    Group(3, 2, 0.1, 1.0, crews=1, fails_when_down=False),
    Group(2, 1, 0.2, 1.0, 1, "standby"),
    Group(3, 2, 0.2, 1.0, 2, "standby"),
    Group(3, 1, 0.4, 1.0, 1, "standby", 0.3),
    Group(4, 2, 0.2, 1.0, 2, "standby", 1.0),
    Group(2, 1, 0.1, 1.0, 1, "active", 0.0, 0.9, 4.0),
    Group(4, 2, 0.1, 1.0, 2, "active", 0.0, 0.8, 2.0),
    Group(2, 1, 0.1, 1.0, 1, "standby", 0.0, 0.95, 0.5),
    Group(4, 2, 0.2, 1.0, 1, "standby", 0.5, 0.7, 3.0, fails_when_down=False),
    Group(3, 1, 0.1, 1.0, 3, common_cause=0.1),
    Group(4, 2, 0.1, 1.0, 1, common_cause=0.05),
    Group(3, 2, 0.1, 1.0, 1, "standby", 0.2, 0.9, 2.0, 0.1),
    Group(3, 2, 0.1, 1.0, 1, "active", 0.0, 0.9, 2.0, 0.2, False),
]


def units(count: int, failure: float = 0.1, repair: float = 1.0) -> list[Unit]:
    return [Unit(f"u{at}", failure * (1 + at / 4), repair * (1 + at / 7)) for at in range(count)]


A, B, C, D, E = units(5)
HOST = Unit("host", 0.02, 0.5)

DIAGRAMS: list[Block] = [
    A,
    Series(A, B, C),
    Parallel(A, B, C),
    KofN(2, A, B, C),
    KofN(3, A, B, C, D, E),
    Series(Parallel(A, B), KofN(2, C, D, E)),
    # The bridge.
    Parallel(Series(A, D), Series(B, E), Series(A, C, E), Series(B, C, D)),
    Parallel(Series(HOST, A), Series(HOST, B)),
    Series(KofN(2, Series(HOST, A), Series(HOST, B), Series(C, D)), E),
    Series(*(KofN(2, *(Unit(f"{t}.{r}", 0.02, 0.5) for r in range(3))) for t in range(6))),
    Parallel(Unit("rare", 0.01, 0.1), Unit("fast", 2.0, 20.0)),
]

SHARED_CREWS: list[tuple[Block, int]] = [
    (Series(Parallel(A, B), C), 1),
    (KofN(2, A, B, C), 2),
    (Parallel(Series(HOST, A), Series(HOST, B), C), 1),
    (KofN(2, A, B, C, D), 2),
]

P = [Basic(f"e{at}", 0.05 * (at + 1)) for at in range(6)]
TREES: list[Event] = [
    Or(And(P[3], P[4]), Vote(2, P[0], P[1], P[2])),
    Vote(3, *P),
    Or(And(P[0], P[1]), And(P[1], P[2]), And(Not(P[1]), P[5])),
    And(Or(P[0], P[2]), Or(P[2], P[4]), Or(Basic("t", failure_rate_per_s=0.1), P[5])),
]


def generator(kind: int, at: int) -> np.random.Generator:
    return np.random.default_rng((SEED, kind, at))


def within(found: float | None, error: float | None, wanted: float | None) -> float:
    assert found is not None
    assert error is not None
    assert wanted is not None
    away = (found - wanted) / error
    assert abs(away) <= 3
    return away


@pytest.mark.parametrize("at", range(len(GROUPS)))
def test_groups(at: int) -> None:
    wanted = repairable.solve(GROUPS[at])
    found = simulate.group(GROUPS[at], generator(0, at), 8000)
    assert found.failures > 200
    within(found.availability, found.availability_error, wanted.availability)


@pytest.mark.parametrize("at", range(len(DIAGRAMS)))
def test_diagrams(at: int) -> None:
    wanted = steady_state(DIAGRAMS[at])
    found = simulate.diagram(DIAGRAMS[at], generator(1, at), 100_000.0)
    assert found.failures > 200
    within(found.availability, found.availability_error, wanted.availability)


@pytest.mark.parametrize("at", range(len(SHARED_CREWS)))
def test_shared_crews(at: int) -> None:
    block, crews = SHARED_CREWS[at]
    found = simulate.diagram_with_crews(block, generator(2, at), 15_000, crews)
    within(found.availability, found.availability_error, queued(block, crews))


@pytest.mark.parametrize("at", range(len(TREES)))
def test_trees(at: int) -> None:
    found = simulate.tree(TREES[at], generator(3, at), 200_000, time_s=4.0)
    within(found.probability, found.error, trees.top_probability(TREES[at], 4.0))


def queued(block: Block, crews: int) -> float:
    """Availability by a Markov chain whose states are the failed units in order of failure."""
    by_name = {unit.name: unit for unit in simulate._units(block)}
    rates: dict[tuple[markov.State, markov.State], float] = {}
    seen: set[tuple[str, ...]] = {()}
    todo = deque(seen)
    while todo:
        state = todo.popleft()
        following = [
            ((*state, name), unit.failure_rate_per_s)
            for name, unit in by_name.items()
            if name not in state
        ]
        following += [
            (tuple(each for each in state if each != name), by_name[name].repair_rate_per_s)
            for name in state[:crews]
        ]
        for there, rate in following:
            assert rate is not None
            rates[state, there] = rate
            if there not in seen:
                seen.add(there)
                todo.append(there)
    total = 0.0
    for state, chance in markov.steady_state(markov.Chain(rates)).items():
        assert isinstance(state, tuple)
        if simulate._up_now(block, lambda unit, failed=state: unit not in failed):
            total += chance
    return total


def test_errors_are_honest() -> None:
    """Over many runs the deviations in units of the standard error have mean 0 and spread 1, for
    availability, failure frequency and MTTF alike."""
    group = GROUPS[-2]
    wanted = repairable.solve(group)
    away = []
    for at in range(60):
        found = simulate.group(group, generator(4, at), 500)
        assert found.mttf_s is not None
        assert found.mttf_error_s is not None
        away.append(
            (
                (found.availability - wanted.availability) / found.availability_error,
                (found.frequency_per_s - wanted.frequency_per_s) / found.frequency_error_per_s,
                (found.mttf_s - wanted.mttf_s) / found.mttf_error_s,
            )
        )
    assert np.abs(np.mean(away, axis=0)).max() < 4 / math.sqrt(60)
    assert np.std(away, axis=0) == pytest.approx([1, 1, 1], abs=0.4)


def test_frequency_of_diagrams() -> None:
    for at, block in enumerate(DIAGRAMS):
        wanted = steady_state(block)
        found = simulate.diagram(block, generator(5, at), 20_000.0)
        assert wanted.frequency_per_s is not None
        away = (found.frequency_per_s - wanted.frequency_per_s) / found.frequency_error_per_s
        assert abs(away) < 5


def test_the_same_seed_gives_the_same_run() -> None:
    for _ in range(2):
        first = simulate.group(GROUPS[-1], generator(6, 0), 200)
        assert first == simulate.group(GROUPS[-1], generator(6, 0), 200)
        assert first != simulate.group(GROUPS[-1], generator(6, 1), 200)


def test_a_group_that_was_never_down() -> None:
    found = simulate.group(Group(6, 1, 1e-3, 1.0), generator(6, 2), 50)
    assert found.availability == 1.0
    assert found.mttf_s is None
    assert found.failures == 0


def test_units_that_never_fail() -> None:
    found = simulate.diagram(Parallel(Unit("never", 0.0), A), generator(6, 3), 1000.0)
    assert found.availability == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: simulate.group(GROUPS[0], generator(6, 0), 1), "cycles 1"),
        (lambda: simulate.diagram(A, generator(6, 0), 10.0, 1), "batches 1"),
        (lambda: simulate.diagram(A, generator(6, 0), 0.0), "horizon_s 0.0"),
        (lambda: simulate.diagram(A, generator(6, 0), 1e12), "at most"),
        (lambda: simulate.diagram(Unit("a", 1.0), generator(6, 0), 1.0), "needs its failure"),
        (lambda: simulate.diagram_with_crews(A, generator(6, 0), 10, 0), "crews 0"),
        (lambda: simulate.tree(P[0], generator(6, 0), 0), "samples 0"),
    ],
)
def test_refusals(make: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()  # type: ignore[operator]
