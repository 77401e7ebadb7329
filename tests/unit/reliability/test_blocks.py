"""Block diagrams: against enumeration of all states, closed forms, and a published system."""

import itertools
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.reliability.blocks import (
    Block,
    KofN,
    Parallel,
    Replicated,
    Series,
    Unit,
    availability,
    from_graph,
    mission,
    mttf_s,
    steady_state,
    unavailability,
)

HOUR_S = 3600.0


def is_up(block: Block, down: frozenset[str]) -> bool:
    if isinstance(block, Unit):
        return block.name not in down
    ups = [is_up(part, down) for part in block.parts]
    if isinstance(block, KofN):
        return sum(ups) >= block.k
    return all(ups) if isinstance(block, Series) else any(ups)


def units_of(block: Block) -> dict[str, Unit]:
    if isinstance(block, Unit):
        return {block.name: block}
    found: dict[str, Unit] = {}
    for part in block.parts:
        found.update(units_of(part))
    return found


def enumerated(block: Block) -> tuple[Fraction, Fraction]:
    """Exact unavailability, and failure frequency, by all 2^n states."""
    units = units_of(block)
    total = frequency = Fraction(0)
    for states in itertools.product((False, True), repeat=len(units)):
        down = frozenset(name for name, is_down in zip(units, states, strict=True) if is_down)
        weight = Fraction(1)
        for name, unit in units.items():
            assert unit.failure_rate_per_s is not None
            assert unit.repair_rate_per_s is not None
            failure, repair = Fraction(unit.failure_rate_per_s), Fraction(unit.repair_rate_per_s)
            weight *= (failure if name in down else repair) / (failure + repair)
        if not is_up(block, down):
            total += weight
            continue
        for name in units:
            if name not in down and not is_up(block, down | {name}):
                frequency += weight * Fraction(units[name].failure_rate_per_s or 0.0)
    return total, frequency


POOL = [Unit(f"u{at}", 10.0 ** (-at), 0.5 * (at + 1)) for at in range(6)]

diagrams = st.recursive(
    st.sampled_from(POOL),
    lambda parts: st.lists(parts, min_size=1, max_size=4).flatmap(
        lambda chosen: st.one_of(
            st.just(Series(*chosen)),
            st.just(Parallel(*chosen)),
            st.integers(1, len(chosen)).map(lambda k: KofN(k, *chosen)),
        )
    ),
    max_leaves=14,
)


@settings(max_examples=60, deadline=None)
@given(diagrams)
def test_equals_the_sum_over_all_states(block: Block) -> None:
    """Units repeat in most of these: what the product rule gets wrong."""
    found = steady_state(block)
    down, frequency = enumerated(block)
    assert found.unavailability == pytest.approx(float(down), rel=1e-12)
    assert found.availability == pytest.approx(float(1 - down), rel=1e-12)
    assert found.frequency_per_s == pytest.approx(float(frequency), rel=1e-11)
    assert availability(block) == found.availability
    assert unavailability(block) == found.unavailability
    if frequency:
        assert found.mean_up_s == pytest.approx(float((1 - down) / frequency), rel=1e-11)
        assert found.mean_down_s == pytest.approx(float(down / frequency), rel=1e-11)


def test_one_unit() -> None:
    failure, repair = 1 / 250.0, 1 / 10.0
    found = steady_state(Unit("a", failure, repair))
    assert found.availability == pytest.approx(repair / (failure + repair), abs=1e-15)
    assert found.mean_up_s == pytest.approx(250, rel=1e-13)
    assert found.mean_down_s == pytest.approx(10, rel=1e-13)


def test_small_unavailability_keeps_its_digits() -> None:
    q = Fraction(1e-6) / (1 + Fraction(1e-6))
    block = Parallel(Unit("a", 1e-6, 1.0), Unit("b", 1e-6, 1.0))
    assert unavailability(block) == pytest.approx(float(q * q), rel=1e-14)
    five = Series(*(Parallel(*(Unit(f"{s}{r}", 1e-4, 1.0) for r in range(3))) for s in range(5)))
    q = Fraction(1e-4) / (1 + Fraction(1e-4))
    assert unavailability(five) == pytest.approx(float(1 - (1 - q**3) ** 5), rel=1e-13)
    given_directly = Parallel(Unit("a", unavailability=1e-9), Unit("b", unavailability=1e-9))
    assert unavailability(given_directly) == pytest.approx(1e-18, rel=1e-14)


def radio_block_centre() -> Series:
    def several(name: str, count: int, mttf_h: float, repair_per_h: float) -> list[Unit]:
        rates = mttf_h / HOUR_S, repair_per_h / HOUR_S
        return [Unit(f"{name}{at}", *rates) for at in range(count)]

    return Series(
        Parallel(*several("power", 3, 1.8182e-5, 6)),
        Parallel(*several("wan", 2, 2.5e-6, 6)),
        Parallel(*several("bus", 2, 4.4444e-6, 4)),
        Parallel(*several("gsmr", 2, 5.7078e-6, 6)),
        KofN(2, *several("cpu", 3, 7.4074e-6, 6)),
        Parallel(*several("voter", 2, 3.003e-9, 4)),
    )


def test_radio_block_centre() -> None:
    """The ERTMS/ETCS radio block centre of Flammini, Mazzocca, Iacono and Marrone (HASE 2005,
    doi:10.1109/HASE.2005.26), as in the FFORT collection of fault trees (model "rbc", exact results
    of DFTCalc): unavailability 6.8855993019126e-12, unreliability after 1 h 2.231940944647528e-10.
    The published digits of the second carry the rounding of 1 - R near 1.
    """
    block = radio_block_centre()
    assert unavailability(block) == pytest.approx(6.8855993019126e-12, rel=1e-6)
    assert mission(block, HOUR_S).unreliability == pytest.approx(2.231940944647528e-10, rel=1e-6)


def test_mission() -> None:
    a, b = Unit("a", 1e-3), Unit("b", 2e-3)
    found = mission(Series(a, b), 100)
    assert found.reliability == pytest.approx(math.exp(-0.3), rel=1e-14)
    assert found.unreliability == pytest.approx(-math.expm1(-0.3), rel=1e-14)
    tiny = mission(Parallel(a, b), 1e-6)
    assert tiny.unreliability == pytest.approx(math.expm1(-1e-9) * math.expm1(-2e-9), rel=1e-14)
    assert mission(Series(a, b), 0) == (1.0, 0.0)


@pytest.mark.parametrize(("k", "n"), [(1, 1), (1, 2), (2, 3), (1, 5), (7, 9), (20, 40)])
def test_mttf_of_k_of_n(k: int, n: int) -> None:
    """``(1 / lambda) sum_(i=k)^n 1/i``: Trivedi, Probability and Statistics (2002), section 4.6."""
    block = KofN(k, *(Unit(f"u{at}", 0.01) for at in range(n)))
    assert mttf_s(block) == pytest.approx(100 * sum(1 / i for i in range(k, n + 1)), rel=1e-11)


def test_mttf_of_rates_far_apart() -> None:
    fast, slow = 5.0, 1e-9
    both = Parallel(Unit("a", fast), Unit("b", slow))
    assert mttf_s(both) == pytest.approx(1 / fast + 1 / slow - 1 / (fast + slow), rel=1e-11)
    assert mttf_s(Series(Unit("a", fast), Unit("b", slow))) == pytest.approx(
        1 / (fast + slow), rel=1e-11
    )


def test_mttf_with_units_that_never_fail() -> None:
    never, sometimes = Unit("n", 0.0), Unit("s", 0.1)
    assert mttf_s(Parallel(never, sometimes)) == math.inf
    assert mttf_s(Series(never, sometimes)) == pytest.approx(10, rel=1e-11)
    assert steady_state(never) == (1.0, 0.0, 0.0, math.inf, 0.0)


def test_frequency_needs_rates_only_where_they_matter() -> None:
    rated, bare = Unit("r", 0.1, 1.0), Unit("b", availability=0.9)
    assert steady_state(Series(rated, bare)).frequency_per_s is None
    # The bare unit never decides: absorbed.
    found = steady_state(Series(rated, Parallel(rated, bare)))
    assert found.mean_up_s == pytest.approx(10, rel=1e-12)


def test_two_hundred_components() -> None:
    tiers = [KofN(2, *(Unit(f"{t}.{r}", 1e-5, 1e-2) for r in range(4))) for t in range(50)]
    q = Fraction(1e-5) / (Fraction(1e-5) + Fraction(1e-2))
    p = 1 - q
    tier = q**4 + 4 * q**3 * p
    assert unavailability(Series(*tiers)) == pytest.approx(float(1 - (1 - tier) ** 50), rel=1e-13)


def test_services_spread_over_shared_hosts() -> None:
    """Against conditioning on all states of the hosts, below which services are independent."""
    rng = random.Random(5)
    hosts = [Unit(f"h{at}", 1e-3, 1e-1) for at in range(6)]
    placed = [rng.sample(range(6), 3) for _ in range(25)]
    q, p = 0.02 / 1.02, 1 / 1.02
    services = [
        Replicated(
            f"s{at}",
            tuple(Series(hosts[h], Unit(f"s{at}.{h}", 0.02, 1.0)) for h in places),
            need=1 + at % 2,
        )
        for at, places in enumerate(placed)
    ]
    wanted = 0.0
    for states in itertools.product((0, 1), repeat=6):
        up = math.prod((1 / 1.01 if state else 0.01 / 1.01) for state in states)
        for at, places in enumerate(placed):
            n = sum(states[h] for h in places)
            up *= sum(math.comb(n, i) * p**i * q ** (n - i) for i in range(1 + at % 2, n + 1))
        wanted += up
    assert availability(from_graph(services)) == pytest.approx(wanted, rel=1e-12)


def test_deep_diagram_does_not_recurse() -> None:
    wide = Series(*(Unit(f"u{at}", 1e-6, 1.0) for at in range(3000)))
    assert availability(wide) == pytest.approx((1 / (1 + 1e-6)) ** 3000, rel=1e-11)


class TestGraph:
    host = (Unit("h1", 1e-6, 1e-3), Unit("h2", 2e-6, 1e-3))
    web = Replicated(
        "web",
        tuple(Series(h, Unit(f"web{at}", 1e-4, 1e-1)) for at, h in enumerate(host)),
        depends_on=("db", "cache"),
    )
    cache = Replicated("cache", (Series(host[0], Unit("cache0", 1e-4, 1e-1)),), 1, ("db",))
    db = Replicated("db", tuple(Unit(f"db{at}", 1e-5, 1e-2) for at in range(3)), 2)
    lone = Replicated("lone", (Unit("lone0", 1e-3, 1e-2),))

    def test_one_service_needs_what_it_depends_on(self) -> None:
        block = from_graph([self.web, self.cache, self.db, self.lone], "web")
        by_hand = Series(
            Parallel(*self.web.replicas), self.cache.replicas[0], KofN(2, *self.db.replicas)
        )
        assert unavailability(block) == pytest.approx(unavailability(by_hand), rel=1e-14)
        assert unavailability(block) == pytest.approx(float(enumerated(by_hand)[0]), rel=1e-12)

    def test_the_whole(self) -> None:
        block = from_graph([self.web, self.cache, self.db, self.lone])
        without = unavailability(from_graph([self.web, self.cache, self.db, self.lone], "web"))
        lone = unavailability(self.lone.replicas[0])
        assert unavailability(block) == pytest.approx(1 - (1 - without) * (1 - lone), rel=1e-12)

    def test_a_service_without_dependencies(self) -> None:
        assert from_graph([self.db, self.lone], "lone") == self.lone.replicas[0]

    def test_refusals(self) -> None:
        a = Replicated("a", (Unit("a", 1.0, 1.0),), 1, ("b",))
        b = Replicated("b", (Unit("b", 1.0, 1.0),), 1, ("c",))
        c = Replicated("c", (Unit("c", 1.0, 1.0),), 1, ("a",))
        with pytest.raises(ValueError, match="a -> b -> c -> a"):
            from_graph([a, b, c])
        with pytest.raises(ValueError, match=r"depends_on 'b' of service a.*there are a"):
            from_graph([a])
        with pytest.raises(ValueError, match="service 'x'"):
            from_graph([self.db], "x")
        with pytest.raises(ValueError, match="given twice"):
            from_graph([self.db, self.db])
        with pytest.raises(ValueError, match="at least one"):
            from_graph([])
        with pytest.raises(ValueError, match="need 3"):
            Replicated("a", (Unit("a", 1.0, 1.0),), 3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Unit("", 1.0), "name"),
        (lambda: Unit("a"), "is needed"),
        (lambda: Unit("a", -1.0), "failure_rate_per_s -1.0 of unit a"),
        (lambda: Unit("a", math.inf), "finite"),
        (lambda: Unit("a", 1.0, 0.0), "repair_rate_per_s 0.0"),
        (lambda: Unit("a", repair_rate_per_s=1.0), "failure_rate_per_s"),
        (lambda: Unit("a", availability=1.5), "between 0 and 1"),
        (lambda: Unit("a", availability=0.5, unavailability=0.5), "one of"),
        (lambda: Unit("a", 1.0, 1.0, 0.5), "one of"),
        (lambda: Series(), "at least one"),
        (lambda: Series("a"), "part 'a'"),  # type: ignore[arg-type]
        (lambda: KofN(3, Unit("a", 1.0), Unit("b", 1.0)), "k 3"),
        (lambda: KofN(0, Unit("a", 1.0)), "k 0"),
        (lambda: availability(Series(Unit("a", 1.0, 1.0), Unit("a", 2.0, 1.0))), "twice"),
        (lambda: availability(Unit("a", 1.0)), "without repair"),
        (lambda: mission(Unit("a", availability=0.9), 1), "needed for a mission"),
        (lambda: mttf_s(Unit("a", availability=0.9)), "needed for a mission"),
        (lambda: mission(Unit("a", 1.0), -1), "time_s -1"),
    ],
)
def test_refusals(make: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()  # type: ignore[operator]
