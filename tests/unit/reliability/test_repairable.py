"""Groups with crews, standby, coverage and common cause: closed forms and the chain beside."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.reliability import blocks, markov
from everup.reliability.repairable import Group, chain, k_of_n, solve, standby

rates = st.floats(1e-3, 1e3)


@given(rates, rates)
def test_one_machine(failure: float, repair: float) -> None:
    found = k_of_n(1, 1, failure, repair)
    assert found.availability == pytest.approx(repair / (failure + repair), rel=1e-13)
    assert found.mttf_s == pytest.approx(1 / failure, rel=1e-13)
    assert found.mean_up_s == pytest.approx(1 / failure, rel=1e-13)
    assert found.mean_down_s == pytest.approx(1 / repair, rel=1e-13)


@given(rates, rates)
def test_two_machines_one_crew(failure: float, repair: float) -> None:
    """Closed forms of Trivedi, Probability and Statistics (2002), chapter 8."""
    found = k_of_n(1, 2, failure, repair, crews=1)
    good = repair**2 + 2 * failure * repair
    assert found.availability == pytest.approx(good / (good + 2 * failure**2), rel=1e-12)
    assert found.unavailability == pytest.approx(
        2 * failure**2 / (good + 2 * failure**2), rel=1e-12
    )
    assert found.mttf_s == pytest.approx((3 * failure + repair) / (2 * failure**2), rel=1e-12)


@given(rates, rates)
def test_cold_standby_one_crew(failure: float, repair: float) -> None:
    found = standby(1, 1, failure, repair, crews=1)
    good = repair**2 + failure * repair
    assert found.availability == pytest.approx(good / (good + failure**2), rel=1e-12)
    assert found.mttf_s == pytest.approx((2 * failure + repair) / failure**2, rel=1e-12)


@pytest.mark.parametrize(("k", "n"), [(1, 1), (1, 3), (2, 3), (5, 8), (30, 40)])
def test_a_crew_for_each_is_the_block_diagram(k: int, n: int) -> None:
    found = k_of_n(k, n, 0.02, 0.7)
    block = blocks.KofN(k, *(blocks.Unit(f"u{at}", 0.02, 0.7) for at in range(n)))
    beside = blocks.steady_state(block)
    assert found.unavailability == pytest.approx(beside.unavailability, rel=1e-11)
    assert found.frequency_per_s == pytest.approx(beside.frequency_per_s, rel=1e-11)
    assert found.mean_down_s == pytest.approx(beside.mean_down_s, rel=1e-11)
    assert found.mean_up_s == pytest.approx(beside.mean_up_s, rel=1e-11)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    units = draw(st.integers(1, 6))
    kind = draw(st.sampled_from(["active", "standby"]))
    coverage = draw(st.one_of(st.just(1.0), st.floats(0, 1)))
    return Group(
        units=units,
        need=draw(st.integers(1, units)),
        failure_rate_per_s=draw(rates),
        repair_rate_per_s=draw(rates),
        crews=draw(st.one_of(st.none(), st.integers(1, units))),
        kind="active" if kind == "active" else "standby",
        dormancy=0.0 if kind == "active" else draw(st.floats(0, 1)),
        coverage=coverage,
        recovery_rate_per_s=draw(rates),
        common_cause=draw(st.one_of(st.just(0.0), st.floats(0, 0.9))),
        fails_when_down=draw(st.booleans()),
    )


@settings(max_examples=150, deadline=None)
@given(groups())
def test_the_closed_form_is_the_chain(group: Group) -> None:
    found = solve(group)
    of, down = chain(group)
    long_run = markov.steady_state(of)
    fails = sum(
        long_run[here] * rate
        for (here, there), rate in of.rates.items()
        if here not in down and there in down
    )
    assert found.availability + found.unavailability == pytest.approx(1, abs=1e-14)
    assert found.unavailability == pytest.approx(
        math.fsum(chance for state, chance in long_run.items() if state in down), rel=1e-11
    )
    assert found.stuck == pytest.approx(
        math.fsum(chance for state, chance in long_run.items() if isinstance(state, tuple)),
        rel=1e-11,
    )
    assert found.frequency_per_s == pytest.approx(fails, rel=1e-11)
    assert found.mttf_s == pytest.approx(markov.absorption(of, 0, down).mean_s, rel=1e-11)
    assert found.mean_up_s * found.frequency_per_s == pytest.approx(found.availability, rel=1e-12)


@given(groups())
def test_perfect_coverage_and_no_common_cause_are_never_worse(group: Group) -> None:
    found = solve(group)
    plain = Group(
        group.units,
        group.need,
        group.failure_rate_per_s,
        group.repair_rate_per_s,
        group.crews,
        group.kind,
        group.dormancy,
        common_cause=group.common_cause,
        fails_when_down=group.fails_when_down,
    )
    assert solve(plain).unavailability <= found.unavailability * (1 + 1e-12)
    assert solve(plain).mttf_s >= found.mttf_s * (1 - 1e-12)


def test_hot_standby_is_active_redundancy() -> None:
    hot = standby(2, 2, 0.1, 1.0, dormancy=1.0, crews=2)
    active = k_of_n(2, 4, 0.1, 1.0, crews=2)
    assert hot == pytest.approx(active, rel=1e-13)


def test_cold_is_better_than_warm_is_better_than_hot() -> None:
    down = [standby(1, 1, 0.1, 1.0, dormancy=d, crews=1).unavailability for d in (0, 0.5, 1)]
    assert down == sorted(down)
    assert down[0] < down[1] < down[2]


def test_imperfect_switching_by_hand() -> None:
    """Cold pair, one crew: what goes wrong is ``pi_0 lambda (1 - c) / delta``."""
    failure, repair, c, delta = 0.01, 1.0, 0.9, 5.0
    found = standby(1, 1, failure, repair, crews=1, switch_success=c, recovery_rate_per_s=delta)
    weights = [1.0, failure / repair, (failure / repair) ** 2, failure * (1 - c) / delta]
    assert found.unavailability == pytest.approx(
        (weights[2] + weights[3]) / sum(weights), rel=1e-13
    )
    assert found.stuck == pytest.approx(weights[3] / sum(weights), rel=1e-13)


def test_common_cause_by_hand() -> None:
    """A pair, a crew for each: balance equations solved on paper."""
    failure, repair, beta = 0.01, 1.0, 0.1
    alone, both = (1 - beta) * failure, beta * failure
    found = solve(Group(2, 1, failure, repair, common_cause=beta))
    one = (2 * alone + both) / repair
    two = (one * alone + (1 + one) * both) / (2 * repair)
    assert found.unavailability == pytest.approx(two / (1 + one + two), rel=1e-13)
    # Nearly all of it is the common cause: what redundancy can't mend.
    assert found.unavailability > 5 * k_of_n(1, 2, failure, repair).unavailability


def test_without_repair_crews_for_all_the_mttf_falls() -> None:
    slow = k_of_n(1, 3, 1.0, 1e-6, crews=1)
    assert slow.mttf_s == pytest.approx(1 + 1 / 2 + 1 / 3, rel=1e-4)


def test_tiny_and_large() -> None:
    tiny = k_of_n(1, 4, 1e-6, 1e-1)
    q = 1e-6 / (1e-6 + 1e-1)
    assert tiny.unavailability == pytest.approx(q**4, rel=1e-12)
    large = k_of_n(900, 1000, 1e-3, 1e-2, crews=200)
    assert 0 < large.availability < 1
    # Far beyond what its crew can mend: the weights pass 1e300 on the way. The crew is always busy,
    # so the number of working units is Poisson with mean mu / lambda.
    lost = k_of_n(1, 400, 1.0, 1e-3, crews=1)
    assert lost.availability == pytest.approx(-math.expm1(-1e-3), rel=1e-11)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"units": 0}, "units 0"),
        ({"need": 4}, "need 4"),
        ({"need": 0}, "need 0"),
        ({"failure_rate_per_s": 0.0}, "failure_rate_per_s"),
        ({"repair_rate_per_s": math.inf}, "repair_rate_per_s"),
        ({"crews": 0}, "crews 0"),
        ({"kind": "cold"}, "kind 'cold'"),
        ({"dormancy": 0.5}, "only for kind"),
        ({"kind": "standby", "dormancy": 2.0}, "dormancy 2.0"),
        ({"coverage": -0.1}, "coverage"),
        ({"coverage": 0.9}, "recovery_rate_per_s is not given"),
        ({"common_cause": 1.0}, "common_cause 1.0"),
    ],
)
def test_refusals(change: dict[str, object], says: str) -> None:
    plain: dict[str, object] = {
        "units": 3,
        "need": 2,
        "failure_rate_per_s": 0.1,
        "repair_rate_per_s": 1.0,
    }
    with pytest.raises(ValueError, match=says):
        Group(**(plain | change))  # type: ignore[arg-type]
