"""Importance measures: their definitions by enumeration and by evaluating twice."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.reliability import blocks, trees
from everup.reliability.blocks import KofN, Parallel, Series, Unit, unavailability
from everup.reliability.importance import YEAR_S, Importance, of_block, of_tree
from everup.reliability.trees import And, Basic, Event, Not, Or, Vote


def replaced(block: blocks.Block, unit: Unit) -> blocks.Block:
    if isinstance(block, Unit):
        return unit if block.name == unit.name else block
    parts = tuple(replaced(part, unit) for part in block.parts)
    if isinstance(block, KofN):
        return KofN(block.k, *parts)
    return Series(*parts) if isinstance(block, Series) else Parallel(*parts)


POOL = [Unit(f"u{at}", 0.1 * (at + 1), 1.0 + at) for at in range(5)]

diagrams = st.recursive(
    st.sampled_from(POOL),
    lambda parts: st.lists(parts, min_size=1, max_size=3).flatmap(
        lambda chosen: st.one_of(
            st.just(Series(*chosen)),
            st.just(Parallel(*chosen)),
            st.integers(1, len(chosen)).map(lambda k: KofN(k, *chosen)),
        )
    ),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(diagrams)
def test_definitions(block: blocks.Block) -> None:
    total = unavailability(block)
    for each in of_block(block):
        unit = next(unit for unit in POOL if unit.name == each.name)
        q = unit.steady[0]
        never = unavailability(replaced(block, Unit(unit.name, unavailability=0.0)))
        surely = unavailability(replaced(block, Unit(unit.name, unavailability=1.0)))
        assert each.birnbaum == pytest.approx(surely - never, abs=1e-14)
        assert each.criticality == pytest.approx((surely - never) * q / total, abs=1e-13)
        assert each.raw == pytest.approx(surely / total, rel=1e-12)
        assert each.rrw == (pytest.approx(total / never, rel=1e-12) if never else math.inf)
        assert each.saved_s_per_year == pytest.approx((total - never) * YEAR_S, abs=1e-6)
        assert unit.failure_rate_per_s is not None
        assert unit.repair_rate_per_s is not None
        twice = Unit(unit.name, unit.failure_rate_per_s, 2 * unit.repair_rate_per_s)
        saved = (total - unavailability(replaced(block, twice))) * YEAR_S
        assert each.saved_by_half_mttr_s_per_year == pytest.approx(saved, abs=1e-6)
        assert each.fussell_vesely is not None
        assert each.criticality <= each.fussell_vesely * (1 + 1e-12) + 1e-15


EVENTS = [Basic(f"e{at}", 0.1 * (at + 1)) for at in range(6)]

coherent = st.recursive(
    st.sampled_from(EVENTS),
    lambda parts: st.lists(parts, min_size=1, max_size=4).flatmap(
        lambda chosen: st.one_of(
            st.just(And(*chosen)),
            st.just(Or(*chosen)),
            st.integers(1, len(chosen)).map(lambda k: Vote(k, *chosen)),
        )
    ),
    max_leaves=14,
)


@settings(max_examples=60, deadline=None)
@given(coherent)
def test_fussell_vesely_by_enumeration(top: Event) -> None:
    """Probability that a minimal cut set with the event is down, over that of the top."""
    cuts = trees.minimal_cut_sets(top).sets
    total = trees.top_probability(top)
    for each in of_tree(top):
        wanted = 0.0
        for states in itertools.product((False, True), repeat=len(EVENTS)):
            true = {e.name for e, state in zip(EVENTS, states, strict=True) if state}
            if any(each.name in cut and cut <= true for cut in cuts):
                wanted += math.prod(
                    (e.probability or 0) if e.name in true else 1 - (e.probability or 0)
                    for e in EVENTS
                )
        assert each.fussell_vesely == pytest.approx(wanted / total, rel=1e-12)


def test_a_series_is_as_weak_as_its_weakest() -> None:
    ranked = of_block(Series(Unit("good", 1e-6, 1.0), Unit("bad", 1e-3, 1.0)))
    assert [each.name for each in ranked] == ["bad", "good"]
    assert ranked[0].saved_s_per_year == pytest.approx(
        YEAR_S * (1 / (1 + 1e-6)) * 1e-3 / (1 + 1e-3), rel=1e-12
    )


def test_only_one() -> None:
    (found,) = of_block(Unit("a", 1.0, 3.0))
    assert found == Importance(
        "a", 1.0, 1.0, 1.0, 4.0, math.inf, 0.25 * YEAR_S, pytest.approx(YEAR_S * (1 / 4 - 1 / 7))
    )


def test_what_does_not_matter() -> None:
    """The second is absorbed by the first."""
    a, b = Unit("a", 1.0, 3.0), Unit("b", 1.0, 1.0)
    found = {each.name: each for each in of_block(Series(a, Parallel(a, b)))}
    assert found["b"] == Importance("b", 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)


def test_rare_events_keep_their_digits() -> None:
    pair = Parallel(Unit("a", unavailability=1e-9), Unit("b", unavailability=1e-8))
    a, b = sorted(of_block(pair))
    assert a.birnbaum == pytest.approx(1e-8, rel=1e-14)
    assert b.birnbaum == pytest.approx(1e-9, rel=1e-14)
    assert a.raw == pytest.approx(1e9, rel=1e-13)
    assert a.saved_s_per_year == pytest.approx(1e-17 * YEAR_S, rel=1e-13)


def test_not_has_no_fussell_vesely() -> None:
    ranked = of_tree(Or(EVENTS[0], And(Not(EVENTS[1]), EVENTS[2])))
    assert all(each.fussell_vesely is None for each in ranked)
    assert min(each.birnbaum for each in ranked) == pytest.approx(-(0.9 * 0.3), rel=1e-13)


def test_without_fussell_vesely() -> None:
    assert of_block(POOL[0], fussell_vesely=False)[0].fussell_vesely is None
    assert of_tree(EVENTS[0], fussell_vesely=False)[0].fussell_vesely is None
