"""Fault trees: against enumeration, published trees and counts."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.reliability import _bdd
from everup.reliability.trees import (
    And,
    Basic,
    Event,
    Not,
    Or,
    Vote,
    compiled,
    minimal_cut_sets,
    quantify,
    top_probability,
)

PRIMES = (2, 3, 5, 7, 11, 13, 17)
POOL = [Basic(f"e{at}", 1 / prime) for at, prime in enumerate(PRIMES)]


def occurs(event: Event, true: frozenset[str]) -> bool:
    if isinstance(event, Basic):
        return event.name in true
    if isinstance(event, Not):
        return not occurs(event.input, true)
    count = sum(occurs(each, true) for each in event.inputs)
    needed = len(event.inputs) if isinstance(event, And) else 1
    return count >= (event.k if isinstance(event, Vote) else needed)


def subsets() -> list[frozenset[str]]:
    names = [event.name for event in POOL]
    return [
        frozenset(chosen)
        for size in range(len(names) + 1)
        for chosen in itertools.combinations(names, size)
    ]


def by_enumeration(top: Event) -> tuple[float, set[frozenset[str]]]:
    total, cuts = 0.0, set[frozenset[str]]()
    for true in subsets():
        if occurs(top, true):
            total += math.prod(
                (event.probability or 0) if event.name in true else 1 - (event.probability or 0)
                for event in POOL
            )
            if not any(cut <= true for cut in cuts):
                cuts.add(true)
    return total, cuts


def gates(parts: st.SearchStrategy[Event]) -> st.SearchStrategy[Event]:
    return st.lists(parts, min_size=1, max_size=4).flatmap(
        lambda chosen: st.one_of(
            st.just(And(*chosen)),
            st.just(Or(*chosen)),
            st.integers(1, len(chosen)).map(lambda k: Vote(k, *chosen)),
        )
    )


coherent = st.recursive(st.sampled_from(POOL), gates, max_leaves=20)
any_tree = st.recursive(
    st.sampled_from(POOL), lambda parts: st.one_of(gates(parts), parts.map(Not)), max_leaves=12
)


@settings(max_examples=150, deadline=None)
@given(coherent)
def test_cut_sets_and_probability_are_those_of_enumeration(top: Event) -> None:
    total, cuts = by_enumeration(top)
    found = quantify(top)
    assert found.probability == pytest.approx(total, rel=1e-12)
    assert found.complement == pytest.approx(1 - total, rel=1e-9, abs=1e-15)
    assert found.cut_sets is not None
    assert set(found.cut_sets.sets) == cuts
    assert found.cut_sets.total == len(cuts) == len(found.cut_sets.sets)
    assert found.cut_sets.truncated == ""
    assert found.rare_event is not None
    assert found.min_cut_upper_bound is not None
    slack = 1 + 1e-12
    assert total <= found.min_cut_upper_bound * slack <= found.rare_event * slack * slack


@settings(max_examples=80, deadline=None)
@given(any_tree)
def test_not_is_exact(top: Event) -> None:
    assert top_probability(top) == pytest.approx(by_enumeration(top)[0], rel=1e-12, abs=1e-15)


def test_not_has_no_cut_sets() -> None:
    top = Or(And(POOL[0], POOL[1]), And(Not(POOL[0]), POOL[2]))
    with pytest.raises(ValueError, match="prime implicants"):
        minimal_cut_sets(top)
    found = quantify(top)
    assert found.cut_sets is None
    assert found.rare_event is None
    assert found.probability == pytest.approx(1 / 2 / 3 + 1 / 2 / 5, rel=1e-14)


class TestPublished:
    def test_pressure_tank(self) -> None:
        """NASA Fault Tree Handbook with Aerospace Applications (2002), after NUREG-0492; exact
        result of DFTCalc in the FFORT collection, model "pt": 3.5013348120867e-5, itself right to
        seven digits (the closed form beside says 3.50133492e-5)."""
        k2, tank = Basic("K2", 3e-5), Basic("T", 5e-6)
        s, s1, k1, r = Basic("S", 1e-4), Basic("S1", 3e-5), Basic("K1", 5e-6), Basic("R", 1e-4)
        top = Or(tank, Or(And(s, Or(s1, Or(k1, r))), k2))
        found = quantify(top)
        assert found.probability == pytest.approx(3.5013348120867e-5, rel=1e-7)
        inner = -math.expm1(math.fsum(map(math.log1p, (-3e-5, -5e-6, -1e-4))))
        exact = -math.expm1(math.fsum(map(math.log1p, (-5e-6, -3e-5, -1e-4 * inner))))
        assert found.probability == pytest.approx(exact, rel=1e-13)
        assert found.cut_sets is not None
        assert [sorted(cut) for cut in found.cut_sets.sets] == [
            ["K2"],
            ["T"],
            ["R", "S"],
            ["S", "S1"],
            ["K1", "S"],
        ]

    def test_compression_seals(self) -> None:
        """The same handbook; FFORT model "csd", DFTCalc exact: 1.000000999999e-6."""
        common = And(Basic("tape", 1e-1), Basic("common", 1e-5))
        seals = And(Basic("seal1", 1e-3), Basic("seal2", 1e-3))
        top = Or(common, And(Basic("metal", 1e-3), seals, Basic("plug", 1e-3)))
        assert top_probability(top) == pytest.approx(1.000000999999e-6, rel=1e-12)

    def test_spread_mooring(self) -> None:
        """Mentes and Helvacioglu, Ocean Engineering 38 (2011), doi:10.1016/j.oceaneng.2010.11.003;
        FFORT model "SMS_A1", DFTCalc exact: 0.026246389824230341."""
        chances = (1.73e-5, 4.2e-3, 9.31e-3, 8.64e-3, 8.95e-6, 8.95e-6, 9.93e-5, 4.37e-5, 5.46e-8)
        top = Or(*(Basic(f"e{at}", p) for at, p in enumerate((*chances, 4.17e-3))))
        assert top_probability(top) == pytest.approx(0.026246389824230341, rel=1e-13)

    def test_chinese_tree(self) -> None:
        """The "chinese" tree of the Aralia benchmark (Rauzy and Dutuit, Exact and truncated
        computations of prime implicants, Reliability Engineering and System Safety 58 (1997)).
        The expected numbers are those of SCRAM's regression test: 392 minimal cut sets, 12, 24,
        188 and 168 of order 2, 4, 5 and 6; probability 0.0045691 to 1e-5 with all events at 0.02.
        """
        e = [Basic(f"e{at}", 0.02) for at in range(26)]
        left, right = Or(e[17], e[18], e[21]), Or(e[19], e[20])
        third = And(Or(e[22], e[23]), Or(e[24], e[25]))
        inner = Or(*e[14:17], And(left, right))
        switch = And(Or(e[12], e[13]), Or(*e[9:12], And(Or(e[17], e[18]), Or(*e[19:22]))))
        first, second = Or(*e[1:4]), Or(*e[4:8])
        crossed = And(Or(first, And(inner, third)), Or(second, switch))
        top = And(Or(first, switch), And(Or(second, And(inner, third)), Or(e[8], crossed)))
        found = quantify(top)
        assert found.cut_sets is not None
        assert found.cut_sets.total == 392
        assert found.cut_sets.by_order == {2: 12, 4: 24, 5: 188, 6: 168}
        assert found.probability == pytest.approx(0.0045691, abs=1e-5)


def large_tree() -> tuple[Event, int]:
    """200 basic events, 20 000 minimal cut sets: see ``bench/structures.py``."""
    e = [Basic(f"e{at:03}", 1e-3 * (1 + at % 7)) for at in range(200)]
    # 3 of 41: C(41, 3) = 10660 of order 3.
    vote = Vote(3, *e[:41])
    # 2 of 20 in each of two trains: 190 x 43 = 8170 of order 3.
    pair = And(Vote(2, *e[41:61]), Or(*e[61:104]))
    # 26 x 45 = 1170 of order 2.
    cross = And(Or(*e[104:130]), Or(*e[130:175]))
    # The first absorbs the last: e[175] and e[176] alone, not with others.
    rest = Or(And(e[175], Or(e[176], And(e[177], e[178]))), And(e[175], e[176], *e[179:200]))
    return Or(vote, pair, cross, rest), 10660 + 8170 + 1170 + 2


def test_many_cut_sets_are_counted_and_listed() -> None:
    top, count = large_tree()
    found = quantify(top)
    assert found.cut_sets is not None
    assert found.cut_sets.total == len(found.cut_sets.sets) == count
    assert found.cut_sets.by_order == {2: 1170 + 1, 3: 10660 + 8170 + 1}
    assert len(set(found.cut_sets.sets)) == count
    orders = [len(cut) for cut in found.cut_sets.sets]
    assert orders == sorted(orders)


def test_limits_say_what_is_left_out() -> None:
    top, count = large_tree()
    low = minimal_cut_sets(top, max_order=2)
    assert len(low.sets) == 1171
    assert low.total == count
    assert low.truncated == (
        f"1171 of {count} minimal cut sets are listed, lowest orders first (max_order 2)"
    )
    few = minimal_cut_sets(top, limit=2000)
    assert [len(cut) for cut in few.sets] == [2] * 1171 + [3] * 829
    assert len(set(few.sets)) == 2000
    assert set(low.sets) < set(few.sets)
    assert "limit 2000" in few.truncated
    assert quantify(top, limit=10).min_cut_upper_bound is None
    assert quantify(top, limit=10).rare_event == pytest.approx(quantify(top).rare_event, rel=1e-12)


def test_counts_without_listing() -> None:
    """10^20 cut sets: never listed, still counted."""
    top = And(*(Or(*(Basic(f"{a}.{b}", 1e-2) for b in range(10))) for a in range(20)))
    found = minimal_cut_sets(top, limit=5)
    assert found.total == 10**20
    assert found.by_order == {20: 10**20}
    assert len(found.sets) == 5


def test_shared_gates_are_walked_once() -> None:
    """2^60 paths through the tree."""
    event: Event = Or(Basic("a", 0.1), Basic("b", 0.2))
    for at in range(60):
        event = Or(And(event, Basic(f"x{at}", 0.5)), event)
    assert top_probability(event) == pytest.approx(0.28, rel=1e-14)


def test_deep_trees() -> None:
    names = [Basic(f"e{at}", 1e-3) for at in range(1500)]
    assert top_probability(Or(*names)) == pytest.approx(-math.expm1(1500 * math.log1p(-1e-3)))
    assert minimal_cut_sets(Or(*names)).by_order == {1: 1500}


def test_too_large_is_said() -> None:
    formula = _bdd.Formula()
    events = [formula.event(f"e{at}") for at in range(12)]
    formula.top = formula.vote(6, events)
    with pytest.raises(_bdd.StructureTooLargeError, match=r"12 events.*20 nodes"):
        _bdd.compile_formula(formula, limits=(10, 20))
    assert _bdd.compile_formula(formula, limits=(10, 1000)).nodes


def test_rates() -> None:
    pump = Basic("pump", failure_rate_per_s=1e-3, repair_rate_per_s=1e-1)
    valve = Basic("valve", failure_rate_per_s=1e-4)
    long_run = 1e-3 / (1e-3 + 1e-1)
    assert top_probability(pump) == pytest.approx(long_run, rel=1e-14)
    assert top_probability(pump, 20) == pytest.approx(
        long_run * -math.expm1(-0.101 * 20), rel=1e-13
    )
    assert top_probability(valve, 10) == pytest.approx(-math.expm1(-1e-3), rel=1e-14)
    assert quantify(pump).frequency_per_s == pytest.approx(1e-3 * (1 - long_run), rel=1e-13)
    assert quantify(pump, 20).frequency_per_s is None
    assert quantify(Or(pump, Basic("p", 0.1))).frequency_per_s is None
    with pytest.raises(ValueError, match=r"valve is never repaired.*time_s"):
        top_probability(And(pump, valve))
    # The structure needs no numbers.
    assert minimal_cut_sets(And(pump, valve)).sets == (frozenset({"pump", "valve"}),)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Basic("", 0.1), "name"),
        (lambda: Basic("a"), "either probability"),
        (lambda: Basic("a", 0.1, 1.0), "either probability"),
        (lambda: Basic("a", 1.1), "between 0 and 1"),
        (lambda: Basic("a", 0.1, repair_rate_per_s=1.0), "goes with"),
        (lambda: Basic("a", failure_rate_per_s=0.0), "above 0"),
        (lambda: And(), "at least one"),
        (lambda: Or("a"), "input 'a'"),  # type: ignore[arg-type]
        (lambda: Vote(2, POOL[0]), "k 2"),
        (lambda: top_probability(Or(Basic("a", 0.1), Basic("a", 0.2))), "different numbers"),
        (lambda: top_probability(POOL[0], -1), "time_s"),
        (lambda: minimal_cut_sets(POOL[0], limit=0), "limit 0"),
        (lambda: minimal_cut_sets(POOL[0], max_order=0), "max_order 0"),
    ],
)
def test_refusals(make: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()  # type: ignore[operator]


def test_the_compiled_order_holds_all_events() -> None:
    structure, events = compiled(large_tree()[0])
    assert sorted(structure.order) == sorted(events)
