"""The storm brake: a budget of restarts over all services together."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from _bench import CRASH, DB, KILLED, READINESS, Bench, db, of
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.model.action import Spawn
from everup.model.event import Reload, Restart, Start, Tick
from everup.model.instance import Slot, State
from everup.model.journal import Kind
from everup.model.spec import Intensity, Rollout, Service, StormBrake
from everup.model.spec import Restart as RestartPolicy
from everup.supervise.storm import Bucket, is_empty, missing, passes_at, take

BRAKE = StormBrake(limit=10, period=20.0)
AT_ONCE = RestartPolicy(delay=0.0, jitter="none", intensity=Intensity(limit=1000))
"""Nothing but the brake holds them back."""


# -- the bucket


def test_so_many_at_once_and_then_one_by_one() -> None:
    bucket, waits = Bucket(), []
    for _ in range(12):
        bucket, wait_s = take(bucket, BRAKE, 0.0)
        waits.append(wait_s)
    assert waits[:10] == [0.0] * 10
    assert waits[10:] == [2.0, 2.0]  # nothing was taken: it is the same one that comes next
    assert take(bucket, BRAKE, 1.9)[1] == pytest.approx(0.1)
    bucket, wait_s = take(bucket, BRAKE, 2.1)
    assert wait_s == 0.0
    assert take(bucket, BRAKE, 2.1)[1] > 1.8


def test_limit_0_is_no_brake() -> None:
    brake, bucket = StormBrake(limit=0), Bucket()
    for _ in range(1000):
        bucket, wait_s = take(bucket, brake, 0.0, reserve=5)
        assert wait_s == 0.0
    assert not is_empty(bucket, brake, 0.0)
    assert passes_at(bucket, brake) is None


def test_a_storm_is_over_when_half_of_the_budget_is_back() -> None:
    bucket = Bucket()
    for _ in range(11):
        bucket, _wait_s = take(bucket, BRAKE, 0.0)
    assert bucket.braking
    assert passes_at(bucket, BRAKE) == pytest.approx(10.0)
    assert passes_at(Bucket(10.0, 0.0), BRAKE) is None  # there was none


class Naive:
    """Drop by drop, exactly: the level rises with time and is never above the limit."""

    def __init__(self, brake: StormBrake) -> None:
        self.limit = Fraction(brake.limit)
        self.rate = self.limit / Fraction(brake.period)
        self.level, self.at = self.limit, Fraction(0)

    def take(self, now: float, reserve: int) -> Fraction:
        """How long until there is a token above the reserve."""
        self.level = min(self.limit, self.level + (Fraction(now) - self.at) * self.rate)
        self.at = Fraction(now)
        if self.level - reserve >= 1:
            self.level -= 1
            return Fraction(0)
        return (1 + reserve - self.level) / self.rate


_STEPS = st.lists(
    st.tuples(st.floats(0.0, 30.0, allow_subnormal=False), st.integers(0, 3)), max_size=60
)


@given(st.integers(1, 12), st.floats(0.5, 1000.0), _STEPS)
@settings(max_examples=150, deadline=None)
def test_like_a_naive_model(limit: int, period: float, steps: list[tuple[float, int]]) -> None:
    brake = StormBrake(limit=limit, period=period)
    bucket, naive, now = Bucket(), Naive(brake), 0.0
    for passed_s, reserve in steps:
        now += passed_s
        before = naive.level, naive.at
        wanted = naive.take(now, reserve)
        bucket, wait_s = take(bucket, brake, now, reserve)
        if (wait_s == 0) != (wanted == 0):  # on the edge, by rounding
            assert min(abs(wait_s), abs(float(wanted))) < 1e-6 * period
            assert abs(wait_s - float(wanted)) < 1e-6 * period
            naive.level, naive.at = before
            naive.level = Fraction(limit) - Fraction(missing(bucket, brake, now))
            naive.at = Fraction(now)
            continue
        assert math.isclose(wait_s, float(wanted), rel_tol=1e-6, abs_tol=1e-6 * period)
        assert math.isclose(
            missing(bucket, brake, now), float(naive.limit - naive.level), abs_tol=1e-6
        )
        assert 0.0 <= missing(bucket, brake, now) <= limit


@given(st.integers(1, 12), st.floats(0.5, 1000.0), _STEPS)
@settings(max_examples=100, deadline=None)
def test_never_more_than_the_budget(
    limit: int, period: float, steps: list[tuple[float, int]]
) -> None:
    """In any time of length t: ``limit`` and what comes back in t."""
    brake = StormBrake(limit=limit, period=period)
    bucket, now, taken = Bucket(), 0.0, []
    for passed_s, reserve in steps:
        now += passed_s
        for _ in range(3):
            bucket, wait_s = take(bucket, brake, now, reserve)
            if not wait_s:
                taken.append(now)
    for i, start in enumerate(taken):
        for n, end in enumerate(taken[i:], 1):
            assert n <= limit + (end - start) * limit / period + 1e-6


@given(st.integers(1, 12), st.floats(0.5, 1000.0), _STEPS)
@settings(max_examples=100, deadline=None)
def test_after_the_wait_there_is_one(
    limit: int, period: float, steps: list[tuple[float, int]]
) -> None:
    brake = StormBrake(limit=limit, period=period)
    bucket, now = Bucket(), 0.0
    for passed_s, reserve in steps:
        now += passed_s
        reserve = min(reserve, limit - 1)
        bucket, wait_s = take(bucket, brake, now, reserve)
        if wait_s:
            assert take(bucket, brake, now + wait_s * 1.000001 + 1e-9, reserve)[1] == 0.0
            assert is_empty(bucket, brake, now) or reserve


# -- in the engine


def many(count: int, brake: StormBrake, **more: object) -> Bench:
    """So many services of one replica, all ready."""
    given: dict[str, object] = {"command": ("serve",), "restart": AT_ONCE}
    services = [Service(name=f"s{n}", **(given | more)) for n in range(count)]  # type: ignore[arg-type]
    bench = Bench(*services, storm_brake=brake)
    bench.up()
    bench.records.clear()
    return bench


def crash_all(bench: Bench) -> list[Slot]:
    """Who is started again at once."""
    started = []
    for slot in list(bench.engine.instances):
        started += [a.slot for a in of(bench.ended(slot, CRASH), Spawn)]
    return started


def test_beyond_the_budget_they_wait_and_come_one_by_one() -> None:
    bench = many(8, StormBrake(limit=4, period=400.0))
    assert len(crash_all(bench)) == 4
    assert len(bench.engine.waiting) == 4
    reason = "storm brake: more than 4 restarts in 400 s"
    assert set(bench.engine.waiting.values()) == {reason}
    waiting = [r for r in bench.records if r.kind is Kind.WAITING]
    assert [r.payload["reason"] for r in waiting] == [reason] * 4  # each once
    for left in (3, 2, 1, 0):
        due = bench.engine.next_deadline()
        assert due is not None
        while due - bench.now < 90.0:  # those that are up by now become stable
            bench.tell(Tick(), max(0.0, due - bench.now) + 0.001)
            due = bench.engine.next_deadline()
            assert due is not None
        assert not of(bench.tell(Tick(), 90.0), Spawn)
        assert len(of(bench.tell(Tick(), 10.0), Spawn)) == 1
        assert len(bench.engine.waiting) == left


def test_a_storm_is_told_once_and_so_is_its_end() -> None:
    bench = many(8, StormBrake(limit=4, period=40.0))
    crash_all(bench)
    told = bench.told(Kind.STORM, Kind.STORM_OVER)
    assert told == [(Kind.STORM, "everup")]
    assert bench.last(Kind.STORM).payload == {"limit": 4, "period_s": 40.0}
    for _ in range(200):
        bench.settle(bench.tell(Tick(), 1.0))
    assert bench.engine.waiting == {}
    assert bench.told(Kind.STORM, Kind.STORM_OVER) == [
        (Kind.STORM, "everup"), (Kind.STORM_OVER, "everup"),
    ]  # fmt: skip
    crash_all(bench)
    assert len(bench.told(Kind.STORM)) == 2  # another one


def test_its_end_is_told_though_nobody_crashes_any_more() -> None:
    bench = many(5, StormBrake(limit=4, period=40.0))
    crash_all(bench)
    assert bench.told(Kind.STORM)
    for _ in range(200):
        bench.settle(bench.tell(Tick(), 1.0))
    assert bench.told(Kind.STORM_OVER)


def test_the_last_quarter_is_for_those_with_nobody_ready() -> None:
    brake = StormBrake(limit=8, period=8000.0)
    services = [Service(f"s{n}", ("serve",), replicas=2, restart=AT_ONCE) for n in range(8)]
    bench = Bench(*services, storm_brake=brake)
    bench.up()
    started = [a for n in range(8) for a in of(bench.ended(Slot(f"s{n}", 1), CRASH), Spawn)]
    assert len(started) == 6  # of each service another replica is ready
    lost = [a for n in (6, 7) for a in of(bench.ended(Slot(f"s{n}", 2), CRASH), Spawn)]
    assert len(lost) == 2  # nobody is: these may have the rest
    assert not of(bench.ended(Slot("s0", 2), CRASH), Spawn)


def test_what_operators_ask_for_is_not_counted() -> None:
    bench = many(3, StormBrake(limit=1, period=4000.0))
    crash_all(bench)
    assert len(bench.engine.waiting) == 2
    slots = tuple(bench.engine.waiting)
    assert [a.slot for a in of(bench.tell(Start(slots, "ann")), Spawn)] == list(slots)
    for slot in slots:
        bench.born(slot)
    bench.finish(bench.tell(Restart(slots, "ann")))
    assert all(bench.state(slot) is State.READY for slot in slots)
    assert bench.told(Kind.ROLLOUT_DONE)


def test_first_starts_and_clean_ends_on_purpose_are_not_counted() -> None:
    bench = many(20, StormBrake(limit=1, period=4000.0))
    assert all(i.state is State.READY for i in bench.engine.instances.values())
    assert bench.engine.storm == Bucket()


def test_the_successor_in_a_rollout_is_not_braked() -> None:
    bench = Bench(
        db(probe=READINESS, overlap=True, restart=AT_ONCE, rollout=Rollout(min_ready=0.0)),
        Service("other", ("serve",), restart=AT_ONCE),
        storm_brake=StormBrake(limit=1, period=4000.0),
    )
    bench.up()
    other = Slot("other", 1)
    bench.settle(bench.ended(other, CRASH))
    assert not of(bench.ended(other, CRASH), Spawn)
    bench.finish(bench.tell(Restart((DB,), "ann")))
    assert bench.runs("db") == [2]


def test_a_change_of_the_brake_holds_at_once() -> None:
    bench = many(3, StormBrake(limit=1, period=4000.0))
    crash_all(bench)
    assert len(bench.engine.waiting) == 2
    everup = bench.spec.everup
    spec = replace(bench.spec, everup=replace(everup, storm_brake=StormBrake(limit=0)))
    actions = bench.tell(Reload(spec, "ann"))
    assert len(of(actions, Spawn)) == 2
    bench.settle(actions)
    assert bench.engine.waiting == {}


def test_wakes_do_not_pile_up_while_they_wait() -> None:
    brake = StormBrake(limit=1, period=86400.0)
    bench = Bench(
        Service("s", ("serve",), replicas=4, restart=AT_ONCE, probe=READINESS), storm_brake=brake
    )
    bench.up()
    for n in (1, 2, 3):
        bench.ended(Slot("s", n), KILLED)
    last = Slot("s", 4)
    for _ in range(300):
        bench.probe(last, False)
        bench.probe(last, True)
    assert bench.engine.box.waiting < 20
