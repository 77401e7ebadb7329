"""The plan of a config: closed forms, what must not get worse, and the way to a target."""

import math
from dataclasses import replace

import numpy as np
import pytest
from _journals import BEGAN, US, Script
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.model.instance import ExitCause, ExitKind, Slot
from everup.model.record import Instance
from everup.model.spec import (
    Group,
    Intensity,
    Listener,
    Probe,
    Probes,
    Restart,
    Service,
    Spec,
    Strategy,
    Watchdog,
)
from everup.reliability import blocks
from everup.reliability.account import account
from everup.reliability.importance import YEAR_S
from everup.reliability.plan import (
    Assumptions,
    Observed,
    Plan,
    Route,
    WhatIf,
    detect_s,
    observed,
    plan,
    route,
    wait_s,
)
from everup.reliability.repairable import Group as Repaired
from everup.reliability.repairable import solve
from everup.supervise.restart import after_exit

LIVENESS = Probes(liveness=Probe(http="/"))
LISTEN = (Listener("main", "127.0.0.1:80"),)
DAY_S = 86400.0


def service(name: str, *depends_on: str, **settings: object) -> Service:
    given: dict[str, object] = {"probe": LIVENESS, "listen": LISTEN, **settings}
    return Service(name, ("serve",), depends_on=depends_on, **given)  # type: ignore[arg-type]


def spec(*services: Service, **groups: Group) -> Spec:
    return Spec(service={s.name: s for s in services}, group=groups)


def predicted(of: Spec, **options: object) -> Plan:
    return plan(of, np.random.default_rng(1), **options)  # type: ignore[arg-type]


def down(of: Spec, **options: object) -> float:
    """Unavailability with its digits."""
    value = predicted(of, **options).downtime_s_per_year.value
    assert value is not None
    return value / YEAR_S


def known(mttf_s: float, mttr_s: float, *names: str, beta: float = 0.0) -> WhatIf:
    return WhatIf(
        mttf_s=dict.fromkeys(names, mttf_s),
        mttr_s=dict.fromkeys(names, mttr_s),
        common_cause=dict.fromkeys(names, beta),
    )


# -- closed forms


def test_one_replica() -> None:
    found = predicted(spec(service("web")), what_if=known(1000.0, 10.0, "web"))
    (web,) = found.services
    assert found.availability.value == pytest.approx(1000 / 1010, abs=1e-12)
    assert web.outages_per_year == pytest.approx(YEAR_S / 1010, rel=1e-9)
    assert (web.mttf_s, web.mttr_s) == (pytest.approx(1000), pytest.approx(10))
    # Everything is known: nothing is uncertain.
    assert found.availability.low == pytest.approx(found.availability.high, abs=1e-12)


@pytest.mark.parametrize("units", [2, 3, 5])
def test_replicas_agree_with_the_markov_model(units: int) -> None:
    found = predicted(spec(service("web", replicas=units)), what_if=known(100.0, 10.0, "web"))
    same = solve(Repaired(units, 1, 1 / 100, 1 / 10))
    assert found.downtime_s_per_year.value == pytest.approx(same.unavailability * YEAR_S, rel=1e-9)
    assert found.outages_per_year == pytest.approx(same.frequency_per_s * YEAR_S, rel=1e-9)


def test_a_standby_counts_as_a_replica_that_can_fail_too() -> None:
    what_if = known(100.0, 10.0, "web", beta=0.1)
    assert down(spec(service("web", standby=1)), what_if=what_if) == pytest.approx(
        down(spec(service("web", replicas=2)), what_if=what_if), rel=1e-12
    )


def test_common_cause_is_a_unit_in_series() -> None:
    what_if = known(100.0, 10.0, "web", beta=0.2)
    alone = blocks.Unit("alone", failure_rate_per_s=0.8 / 100, repair_rate_per_s=1 / 10)
    twin = replace(alone, name="twin")
    common = blocks.Unit("common", failure_rate_per_s=0.2 / 100, repair_rate_per_s=1 / 10)
    same = blocks.steady_state(blocks.Series(common, blocks.Parallel(alone, twin)))
    found = predicted(spec(service("web", replicas=2)), what_if=what_if)
    assert found.downtime_s_per_year.value == pytest.approx(same.unavailability * YEAR_S, rel=1e-9)
    assert found.outages_per_year == pytest.approx((same.frequency_per_s or 0) * YEAR_S, rel=1e-9)


def test_common_cause_is_never_better_than_the_markov_model() -> None:
    """There the first of n replicas is back after a part of the time that one takes."""
    group = Repaired(3, 1, 1 / 100, 1 / 10, common_cause=0.2)
    what_if = known(100.0, 10.0, "web", beta=0.2)
    assert down(spec(service("web", replicas=3)), what_if=what_if) > solve(group).unavailability


def test_what_two_need_counts_once() -> None:
    of = spec(
        service("db"), service("api", "db"), service("jobs", "db"), service("web", "api", "jobs")
    )
    what_if = known(100.0, 10.0, "db", "api", "jobs", "web")
    names = ("db", "api", "jobs", "web")
    units = {n: blocks.Unit(n, failure_rate_per_s=0.01, repair_rate_per_s=0.1) for n in names}
    graph = [blocks.Replicated(n, (units[n],), 1, of.service[n].depends_on) for n in names]
    found = predicted(of, what_if=what_if)
    for each in found.services:
        same = blocks.steady_state(blocks.from_graph(graph, each.name))
        assert each.availability.value == pytest.approx(same.availability, abs=1e-12)
        assert each.outages_per_year == pytest.approx(
            (same.frequency_per_s or 0) * YEAR_S, rel=1e-9
        )
        assert each.alone.value == pytest.approx(100 / 110, abs=1e-12)
    assert found.services[3].needs == ("api", "db", "jobs")
    scoped = predicted(of, what_if=what_if, scope="api")
    assert [s.name for s in scoped.services] == ["api", "db"]
    assert scoped.availability.value == pytest.approx((100 / 110) ** 2, abs=1e-12)


def test_kinds_of_failure_each_with_its_time() -> None:
    assumed = Assumptions()
    u, start = assumed.not_recovered, assumed.start_s
    crash, hang = 1 / assumed.crash_every_s, 1 / assumed.hang_every_s
    x = crash * ((1 - u) * start + u * assumed.person_s)
    seen = x + hang * ((1 - u) * (3.5 + start) + u * (3.5 + assumed.person_s))
    # Backoff at one failure a month: less than a microsecond.
    assert down(spec(service("web"))) == pytest.approx(seen / (1 + seen), rel=1e-6)
    unseen = x + hang * assumed.unseen_s
    blind = spec(service("web", probe=Probes()))
    assert down(blind) == pytest.approx(unseen / (1 + unseen), rel=1e-6)
    never = spec(service("web", restart=Restart(policy="never")))
    waits = crash * assumed.person_s + hang * (3.5 + assumed.person_s)
    assert down(never) == pytest.approx(waits / (1 + waits), rel=1e-6)
    assert "never" in predicted(never).warnings[0]


def test_services_that_restart_together() -> None:
    both = Group("app", ("a", "b"), Strategy.ONE_FOR_ALL)
    of = spec(service("a"), service("b", replicas=2), app=both)
    what_if = known(100.0, 10.0, "a", "b")
    found = predicted(of, what_if=what_if)
    x = 3 / 100 * 10
    assert found.availability.value == pytest.approx(1 / (1 + x), abs=1e-12)
    assert all(s.alone.value == pytest.approx(1 / (1 + x), abs=1e-12) for s in found.services)
    rest = replace(of, group={"app": replace(both, strategy=Strategy.REST_FOR_ONE)})
    a, b = predicted(rest, what_if=what_if).services
    assert a.alone.value == pytest.approx(100 / 110, abs=1e-12)
    assert b.alone.value == pytest.approx(100 / 110 / (1 + 0.2), abs=1e-12)


def test_what_is_not_to_be_up_is_left_out() -> None:
    of = spec(
        service("migrate", type="oneshot", listen=()), service("web", "migrate"),
        service("off", replicas=0),
    )  # fmt: skip
    assert [s.name for s in predicted(of).services] == ["web"]
    with pytest.raises(ValueError, match="no service to plan"):
        predicted(of, scope="off")
    with pytest.raises(ValueError, match="nope"):
        predicted(of, what_if=WhatIf(replicas={"nope": 2}))
    with pytest.raises(ValueError, match="coverage of web"):
        WhatIf(coverage={"web": 1.5})


# -- times from the settings


def test_detection_of_a_hang() -> None:
    probe = Probe(http="/", interval=2.0, timeout=0.5, failure_threshold=4)
    assert detect_s(service("web", probe=Probes(liveness=probe))) == 1 + 3 * 2 + 0.5
    slow = replace(probe, timeout=3.0)
    assert detect_s(service("web", probe=Probes(liveness=slow))) == 1 + 3 * 3 + 3
    assert detect_s(service("web", probe=Probes(readiness=probe))) == math.inf
    accepts = Probes(liveness=Probe(tcp="listen"))
    assert detect_s(service("web", probe=accepts)) == math.inf
    assert detect_s(service("web", probe=accepts, listen=(), port=80)) < math.inf
    assert detect_s(service("web", probe=Probes(), watchdog=Watchdog(4.0), notify=True)) == 3.0


def test_an_unseen_hang_is_the_first_thing_to_mend() -> None:
    found = predicted(spec(service("db", probe=Probes()), service("web", "db", replicas=2)))
    assert found.warnings == (
        "a hang of db is never detected: it has no liveness probe and no watchdog",
    )
    assert (found.mend[0].service, found.mend[0].what) == ("db", "unseen hangs")
    mended = predicted(spec(service("db"), service("web", "db", replicas=2)))
    saved = (found.downtime_s_per_year.value or 0) - (mended.downtime_s_per_year.value or 0)
    assert found.mend[0].saved_s_per_year == pytest.approx(saved, rel=1e-9)
    assert found.importance[0].service == "db"


@pytest.mark.parametrize("every_s", [3.0, 10.0, 30.0, 300.0])
@pytest.mark.parametrize("limit", [2, 1000])
def test_the_wait_before_a_restart_agrees_with_the_restart_engine(
    every_s: float, limit: int
) -> None:
    restart = Restart(
        delay=1.0, max_delay=8.0, jitter="full", reset_after=10.0,
        intensity=Intensity(limit, 10.0), park_interval=20.0,
    )  # fmt: skip
    one = service("web", restart=restart)
    rng, now, total, count = np.random.default_rng(7), 0.0, 0.0, 20_000
    instance = Instance(Slot("web", 1))
    crash = ExitCause(ExitKind.CODE, 1)
    for up_s, luck in zip(rng.exponential(every_s, count), rng.random(count), strict=True):
        instance = replace(instance, up_at=now)
        now += float(up_s)
        instance, decision = after_exit(one, instance, crash, float(luck), now)
        total += decision.delay_s
        now += decision.delay_s
    # Waits make failures rarer than the formula takes them to be: only noticed where it waits much.
    found = wait_s(restart, 1 / every_s)
    assert found == pytest.approx(total / count, rel=0.05 if limit == 1000 else 0.35, abs=1e-3)


# -- what must not get worse


TIMES = st.floats(1e-3, 1e5)
SHARES = st.floats(0.0, 0.5)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 3), TIMES, TIMES, SHARES)
def test_more_replicas_never_lower_the_availability(
    replicas: int, standby: int, up_s: float, down_s: float, uncovered: float
) -> None:
    def of(more: int, spare: int) -> float:
        what_if = WhatIf(
            mttf_s={"web": up_s},
            coverage={"web": 1 - uncovered},
            common_cause={"web": 0.0},
            replicas={"web": replicas + more},
            standby={"web": standby + spare},
        )
        assumed = Assumptions(start_s=down_s)
        return down(spec(service("web")), what_if=what_if, assumed=assumed)

    least = of(0, 0)
    assert of(1, 0) <= least * (1 + 1e-12)
    assert of(0, 1) == pytest.approx(of(1, 0), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), TIMES, TIMES, SHARES, SHARES, st.floats(1.01, 10.0))
def test_better_numbers_never_lower_the_availability(
    replicas: int, up_s: float, down_s: float, uncovered: float, beta: float, factor: float
) -> None:
    def of(**other: float) -> float:
        number = {"up": up_s, "down": down_s, "uncovered": uncovered, "beta": beta, **other}
        what_if = WhatIf(
            mttf_s={"web": number["up"]},
            coverage={"web": 1 - number["uncovered"]},
            common_cause={"web": number["beta"]},
        )
        assumed = Assumptions(start_s=number["down"], person_s=1e6)
        return down(spec(service("web", replicas=replicas)), what_if=what_if, assumed=assumed)

    worst = of() * (1 + 1e-9)
    assert of(up=up_s * factor) <= worst
    assert of(down=down_s / factor) <= worst
    assert of(uncovered=uncovered / factor) <= worst
    # A common cause in place of coincidences: worse, while each failure is short beside its rarity.
    if down_s * factor < up_s / 100 and uncovered == 0:
        assert of(beta=beta / factor) <= worst


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.floats(0.1, 1e4))
def test_the_interval_holds_its_estimate_and_narrows_with_data(count: int, every_s: float) -> None:
    def of(times: int) -> Plan:
        seen = Observed(
            up_s=count * times * every_s, crashes=count * times, starts_s=(0.5, 1.0, 2.0) * times,
            recovered=count * times,
        )  # fmt: skip
        what_if = WhatIf(coverage={"web": 1.0})
        return predicted(spec(service("web")), seen={"web": seen}, what_if=what_if)

    few, many = of(1).availability, of(100).availability
    for each in (few, many):
        assert each.value is not None
        assert 0 <= each.low <= each.value <= each.high <= 1
    assert many.high - many.low < few.high - few.low


def test_the_same_seed_gives_the_same_plan() -> None:
    of = spec(service("db", probe=Probes()), service("web", "db", replicas=2))
    assert predicted(of) == predicted(of)


# -- numbers from a journal


@pytest.mark.parametrize(("true_every_s", "window_s"), [(100.0, 500.0), (100.0, 20_000.0)])
def test_the_interval_of_a_measured_rate_covers_the_true_one(
    true_every_s: float, window_s: float
) -> None:
    rng, inside, runs = np.random.default_rng(3), 0, 400
    for crashes in rng.poisson(window_s / true_every_s, runs):
        seen = {"web": Observed(up_s=window_s, crashes=int(crashes))}
        what_if = WhatIf(mttr_s={"web": 1.0})
        assumed = Assumptions(crash_every_s=true_every_s, hang_every_s=1e15)
        found = predicted(spec(service("web")), seen=seen, what_if=what_if, assumed=assumed)
        true = 1.0 / true_every_s / (1 + 1.0 / true_every_s)
        interval = found.downtime_s_per_year
        inside += interval.low <= true * YEAR_S <= interval.high
    assert inside / runs >= 0.925


def test_relapses_widen_the_rate_and_do_not_lower_it() -> None:
    def rate_of(relapses: int) -> tuple[float, float, float]:
        seen = {"web": Observed(up_s=1e6, crashes=20, relapses=relapses)}
        rows = predicted(spec(service("web")), seen=seen).assumptions
        row = next(row for row in rows if "crashes" in row.name)
        assert row.source == "measured"
        return row.low, row.value, row.high

    low, value, high = rate_of(0)
    wide_low, wide_value, wide_high = rate_of(16)
    assert value == pytest.approx(1e6 / 20.5)
    assert wide_value == pytest.approx(value, rel=0.1)
    assert wide_low < low < high < wide_high


def test_what_was_not_seen_is_assumed_and_says_so() -> None:
    found = predicted(spec(service("web")))
    assert {row.source for row in found.assumptions} == {"assumed", "config"}
    quiet = predicted(spec(service("web")), seen={"web": Observed(up_s=300 * DAY_S)})
    rows = {row.name: row for row in quiet.assumptions}
    crashes = rows["time between crashes of a replica"]
    assert (crashes.source, crashes.note) == ("measured", "no crash in 300 d")
    assert crashes.value == pytest.approx(330 * DAY_S)
    assert rows["start time"].source == "assumed"


def test_elasticities() -> None:
    """Of one replica ``U = x / (1 + x)``, so ``d ln U / d ln x`` is the availability."""
    found = predicted(spec(service("web")), what_if=known(100.0, 50.0, "web"))
    rows = {row.name: row.elasticity for row in found.assumptions}
    assert rows["time to repair, all kinds"] == pytest.approx(100 / 150, abs=1e-4)
    kinds = sum(value for name, value in rows.items() if name.startswith("time between"))
    assert kinds == pytest.approx(-100 / 150, abs=1e-4)


def test_a_journal_as_a_plan_takes_it() -> None:
    script, web = Script().engine().up("web.1", 1), "web.1"
    for n in range(1, 6):
        script.at(n * 4000).exit(web, n).at(n * 4000 + 2).start(web, n + 1)
        script.at(n * 4000 + 12).ready(web, n + 1)
    script.at(30_000).i("suspected", web, 6, reason="liveness probe: no answer")
    script.at(30_003).i("unhealthy", web, 6, reason="liveness probe: no answer")
    script.at(30_004).exit(web, 6, kind="signal", value=9, killed_for="liveness probe: no answer")
    script.start(web, 7).at(30_009).ready(web, 7)
    script.at(40_000).exit(web, 7).at(42_000).up(web, 8)
    history = script.at(50_000).history()
    begin, end = int(BEGAN * US), int((BEGAN + 50_000) * US)
    history.close(end, running=True)
    found = observed(history, account(history, begin, end), begin, end)["web"]
    assert (found.crashes, found.hangs, found.unready, found.relapses) == (6, 1, 0, 0)
    assert (found.recovered, found.not_recovered) == (6, 1)
    assert found.persons_s == (2000.0,)
    assert sorted(found.starts_s) == [5.0] + [10.0] * 5
    assert found.up_s == pytest.approx(50_000 - 60 - 9 - 2000)
    assert found.availability == pytest.approx(found.up_s / 50_000)
    plan_of = predicted(spec(service("web")), seen={"web": found})
    comparison = plan_of.services[0].comparison
    assert comparison is not None
    assert comparison.inside


def test_failures_of_all_replicas_at_once_are_a_common_cause() -> None:
    script, slots, at = Script().engine(), ("web.1", "web.2"), 0.0
    run = dict.fromkeys(slots, 1)
    for slot in slots:
        script.up(slot, 1)
    for n in range(1, 13):
        at += 5000.0
        struck = slots if n % 4 == 0 else (slots[n % 2],)
        for slot in struck:
            script.at(at).exit(slot, run[slot]).start(slot, run[slot] + 1)
            run[slot] += 1
            at += 1.0
        for slot in struck:
            script.at(at).ready(slot, run[slot])
    history = script.at(at + 5000).history()
    begin, end = int(BEGAN * US), int((BEGAN + at + 5000) * US)
    history.close(end, running=True)
    found = observed(history, account(history, begin, end), begin, end)["web"]
    assert (found.apart, found.together, found.replicas) == (9, 3, 2)
    rows = predicted(spec(service("web", replicas=2)), seen={"web": found}).assumptions
    beta = next(row for row in rows if row.name.startswith("common cause"))
    # Three of 3 + 9/2 events, beside an assumed 5 % of ten.
    assert beta.value == pytest.approx((0.5 + 3) / (10 + 3 + 4.5))


def test_numbers_that_leave_nothing() -> None:
    """No up time, though it failed; down all the time."""
    seen = {"web": Observed(up_s=0.0, crashes=3)}
    assert 0 < (predicted(spec(service("web")), seen=seen).availability.value or 0) < 1
    gone = predicted(spec(service("web")), what_if=known(1e-6, 1e18, "web"))
    assert gone.availability.value == 0
    assert gone.outages_per_year == 0


# -- compared with what was measured


@pytest.mark.parametrize(
    ("measured", "errs"), [(0.99, ""), (0.95, "optimistic"), (0.9999, "pessimistic")]
)
def test_which_way_it_errs(measured: float, errs: str) -> None:
    seen = {"web": Observed(up_s=0.0, valid_s=1e6, availability=measured)}
    what_if = known(990.0, 10.0, "web")
    found = predicted(spec(service("web")), seen=seen, what_if=what_if, whole=(1e6, measured))
    for comparison in (found.services[0].comparison, found.comparison):
        assert comparison is not None
        assert (comparison.errs, comparison.inside) == (errs, not errs)
    other = predicted(spec(service("web")), seen=seen, what_if=WhatIf(replicas={"web": 2}))
    assert other.services[0].comparison is None


def test_the_interval_of_a_finite_time_covers() -> None:
    """Outages at a constant rate with exponential times, in windows of ten mean up times."""
    rng, inside, runs = np.random.default_rng(5), 0, 300
    up_s, down_s, long_s = 1000.0, 20.0, 10_000.0
    seen = {"web": Observed(0.0, valid_s=long_s, availability=1.0)}
    found = predicted(spec(service("web")), seen=seen, what_if=known(up_s, down_s, "web"))
    assert found.services[0].comparison is not None
    interval = found.services[0].comparison.predicted
    for _ in range(runs):
        at, lost = rng.exponential(up_s), 0.0
        while at < long_s:
            outage = min(rng.exponential(down_s), long_s - at)
            lost += outage
            at += outage + rng.exponential(up_s)
        inside += interval.low <= 1 - lost / long_s <= interval.high
    assert 0.92 <= inside / runs <= 0.98


# -- the way to a target


def applied(of: Spec, way: Route) -> Spec:
    """The config with the changes of a way that are made in the config."""
    for change in way.changes:
        one = of.service[change.service]
        match change.kind:
            case "liveness":
                one = replace(one, probe=replace(one.probe, liveness=Probe(http="/")))
            case "probe":
                assert one.probe.liveness
                fast = replace(one.probe.liveness, interval=0.5, timeout=0.5)
                one = replace(one, probe=replace(one.probe, liveness=fast))
            case "standby":
                one = replace(one, standby=one.standby + 1)
            case "replica":
                one = replace(one, replicas=one.replicas + 1)
            case "restart":
                one = replace(one, restart=replace(one.restart, policy="always"))
            case _:
                raise AssertionError(change.kind)
        of = replace(of, service={**of.service, change.service: one})
    return of


SITE = spec(
    service("db", probe=Probes(), listen=()),
    service("jobs", "db", restart=Restart(policy="never")),
    service("web", "db", replicas=2),
)


@pytest.mark.parametrize("target", [0.999, 0.9999, 0.99999])
def test_the_way_to_a_target_gets_there(target: float) -> None:
    way = route(SITE, target)
    assert way.reached
    assert way.limits == ()
    assert [c.cost for c in way.changes] == sorted(c.cost for c in way.changes)
    after = predicted(applied(SITE, way))
    assert after.availability.value == pytest.approx(way.after, abs=1e-12)
    assert way.after >= target
    assert way.changes[-1].availability == way.after
    saved = sum(c.saved_s_per_year for c in way.changes) / YEAR_S
    assert saved == pytest.approx(way.after - way.before, abs=1e-12)
    for left_out in range(len(way.changes)):  # none is needless
        kept = way.changes[:left_out] + way.changes[left_out + 1 :]
        shorter = applied(SITE, replace(way, changes=kept))
        assert (predicted(shorter).availability.value or 0) < target


def test_the_texts_count_what_is_there() -> None:
    of = spec(service("db", listen=(), port=80))
    for target in (0.99999, 0.999999, 0.9999995):
        way = route(of, target, what_if=WhatIf(common_cause={"db": 0.001}))
        replicas = [c.text for c in way.changes if c.kind == "replica"]
        assert replicas == [f"one more replica of db: {n + 2}" for n in range(len(replicas))]


def test_config_comes_before_hardware() -> None:
    way = route(SITE, 0.9999, scope="web")
    assert [(c.service, c.kind, c.cost) for c in way.changes] == [("db", "liveness", 0)]


def test_a_target_that_is_reached_already() -> None:
    way = route(SITE, 0.5)
    assert (way.reached, way.changes, way.before) == (True, (), way.after)


def test_a_target_out_of_reach_says_what_limits_it() -> None:
    way = route(SITE, 0.999999999999, scope="web")
    assert not way.reached
    assert way.after < way.target
    assert all("common cause" in limit for limit in way.limits[:2])
    assert any(c.cost == 3 for c in way.changes)
    one = route(spec(service("db", listen=())), 0.9999999999, what_if=WhatIf(mttr_s={"db": 10.0}))
    assert any(c.text == "halve the time to repair db" for c in one.changes) or one.limits
    with pytest.raises(ValueError, match="target"):
        route(SITE, 1.0)
    with pytest.raises(ValueError, match="nope"):
        route(SITE, 0.9, scope="nope")


def test_a_hundred_services() -> None:
    of = spec(
        *(
            service(f"s{i}", *([f"s{i // 2}"] if i else []), replicas=1 + i % 3, probe=Probes())
            for i in range(100)
        )
    )
    found = predicted(of)
    assert len(found.services) == 100
    assert route(of, 0.999).reached


# -- evidence that must not be lost, and numbers that must not be mixed


def struck_together(scaled: bool, gap_s: float = 5000.0, standby: bool = False) -> Observed:
    """Both processes of a service are killed together three times; then it is scaled to 3 and
    back, or not."""
    script, slots, at = Script().engine(), ("web.1", "web.2"), 0.0
    for slot in slots:
        script.up(slot, 1)
    for n in range(1, 4):
        at += gap_s
        for slot in slots:
            script.at(at).exit(slot, n)
            at += 0.1
        for slot in slots:
            script.at(at + 1).up(slot, n + 1)
        at += 1
    if scaled:
        script.at(at + 700).add("service.scaled", "web", replicas=3, before=2)
        script.at(at + 701).up("web.3", 1)
        script.at(at + 800).add("service.scaled", "web", replicas=2, before=3)
        script.stop("web.3", 1)
    history = script.at(at + 5000).history()
    begin, end = int(BEGAN * US), int((BEGAN + at + 5000) * US)
    history.close(end, running=True)
    return observed(history, account(history, begin, end), begin, end)["web"]


def common_cause_of(seen: Observed, of: Spec) -> float:
    rows = predicted(of, seen={"web": seen}).assumptions
    return next(row.value for row in rows if row.name.startswith("common cause"))


def test_scaling_erases_no_evidence_of_a_common_cause() -> None:
    """How many there were when they failed is what counts, not how many there have been since."""
    two = spec(service("web", replicas=2))
    before, after = struck_together(scaled=False), struck_together(scaled=True)
    assert (before.together, after.together) == (3, 3)
    assert (before.apart, after.apart) == (0, 0)
    assert common_cause_of(after, two) == pytest.approx(common_cause_of(before, two))


def test_relapses_that_strike_all_with_a_first_failure_are_part_of_it() -> None:
    """One of two had failed alone minutes before: that both fail at once now is evidence still."""
    script = Script().engine().up("web.1", 1).up("web.2", 1)
    script.at(5000).exit("web.1", 1).at(5001).up("web.1", 2)
    script.at(5100).exit("web.1", 2).exit("web.2", 1).at(5101).up("web.1", 3).up("web.2", 2)
    history = script.at(9000).history()
    begin, end = int(BEGAN * US), int((BEGAN + 9000) * US)
    history.close(end, running=True)
    found = observed(history, account(history, begin, end), begin, end)["web"]
    assert (found.apart, found.together) == (1, 1)


def test_a_failure_while_it_was_the_only_one_says_nothing_of_a_common_cause() -> None:
    script = Script().engine().up("web.1", 1).at(5000).exit("web.1", 1).at(5001).up("web.1", 2)
    script.at(6000).add("service.scaled", "web", replicas=2, before=1).at(6001).up("web.2", 1)
    script.at(9000).exit("web.2", 1).at(9001).up("web.2", 2)
    history = script.at(12_000).history()
    begin, end = int(BEGAN * US), int((BEGAN + 12_000) * US)
    history.close(end, running=True)
    found = observed(history, account(history, begin, end), begin, end)["web"]
    assert (found.apart, found.alone, found.together) == (1, 0.5, 0)


def test_one_burst_does_not_inflate_the_rate() -> None:
    seen = Observed(up_s=125.4, crashes=3, relapses=2)
    rows = predicted(spec(service("web")), seen={"web": seen}).assumptions
    row = next(row for row in rows if "crashes" in row.name)
    assert row.sample == pytest.approx(41.8)
    assert row.value == pytest.approx(125.4 / 3.5)  # as if they had come one by one
    assert row.clustering == pytest.approx(1.5 * 3 / 3.5)
    assert row.low < row.value < row.high
    assert "one each 41.8 s" in row.note
    assert "2 of them soon after another" in row.note


def test_no_second_replica_where_clients_know_one_port() -> None:
    of = spec(service("db", listen=(), port=5432))
    way = route(of, 0.99999)
    assert not [change for change in way.changes if change.kind == "replica"]
    assert "its clients know port 5432 alone" in way.notes[0]
    many = route(spec(service("db", listen=(), port=5432, replicas=2)), 0.9999999)
    assert not many.notes  # they know several already


def test_a_what_if_that_changes_nothing_is_told_so() -> None:
    one = spec(service("web"))
    found = predicted(one, what_if=WhatIf(common_cause={"web": 0.01}))
    assert found.notes == (
        "common cause of web changes nothing: it has one replica and no standby, so nothing"
        " strikes several at once",
    )
    three = spec(service("web", replicas=3))
    for count in (4, 1000):
        (note,) = predicted(three, what_if=WhatIf(replicas={"web": count})).notes
        assert "common cause" in note
    same = predicted(three, what_if=WhatIf(replicas={"web": 3})).notes
    assert same == ("replicas of web changes nothing: 3 is what the config says",)
    both = WhatIf(mttr_s={"web": 3.0}, coverage={"web": 0.5})
    (note,) = predicted(one, what_if=both).notes
    assert "coverage of web changes nothing" in note
    elsewhere = spec(service("web"), service("db"))
    (note,) = predicted(elsewhere, scope="web", what_if=WhatIf(mttr_s={"db": 9.0})).notes
    assert "web does not need db" in note
    assert predicted(one, what_if=WhatIf(mttr_s={"web": 3.0})).notes == ()
