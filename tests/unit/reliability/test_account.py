"""The numbers of a report, against what was done; and against a simulated world's own truth."""

import json
import math
from collections import defaultdict

import pytest
from _journals import BEGAN, US, Script

from everup.model.instance import Slot, State
from everup.model.spec import Listener, Probe, Probes, Restart, Service, Spec
from everup.reliability.account import Account, Objective, account, bins, plain, timeline
from everup.reliability.history import History
from everup.reliability.rates import failure_rate, mttf_s
from everup.testing.sim import SimWorld

ZERO = int(BEGAN * US)
WEB = "web.1"
DAY_S = 86400.0


def of(script: Script, end_s: float, start_s: float = 0.0, **options: object) -> Account:
    history = script.at(end_s).history()
    history.close(script.now(history), running=True)
    start, end = ZERO + int(start_s * US), ZERO + int(end_s * US)
    return account(history, start, end, **options)  # type: ignore[arg-type]


def failing(every_s: float, down_s: float, count: int) -> Script:
    """Up from 0; ``count`` crashes, each ``down_s`` long."""
    script = Script().engine().up(WEB, 1)
    for n in range(1, count + 1):
        script.at(n * every_s).exit(WEB, n).at(n * every_s + down_s).up(WEB, n + 1)
    return script


def test_the_numbers_of_one_service() -> None:
    found = of(failing(1000, 10, 9), 10_000)
    (web,) = found.services
    assert web.state == "up"
    assert web.times.down_s == 90
    assert web.times.up_s == 9910
    assert web.availability is not None
    assert web.availability.value == pytest.approx(0.991, abs=1e-12)
    assert web.availability.low < 0.991 < web.availability.high
    assert web.replica_weighted == pytest.approx(0.991, abs=1e-12)
    assert web.outages == 9
    assert web.failures.by_kind == {"exit": 9}
    assert web.failures.rate_per_s == failure_rate(9, 9910.0)
    assert web.failures.mttf_s == mttf_s(9, 9910.0)
    total = web.repairs.total
    assert (total.count, total.median_s, total.p95_s, total.mean_s) == (9, 10, 10, 10)
    assert web.repairs.detect.mean_s == 0
    assert web.failures.trend == "no trend shown"
    assert found.whole.failures.count == 9
    assert found.whole.every_service_up == web.availability.value
    assert len(web.down) == 9


def test_failures_that_come_closer_and_closer_are_a_trend() -> None:
    script = Script().engine().up(WEB, 1)
    for n in range(1, 31):
        script.at(100_000 * math.sqrt(n)).exit(WEB, n).at(100_000 * math.sqrt(n) + 1)
        script.up(WEB, n + 1)
    (web,) = of(script, 560_000).services
    assert web.failures.trend == "more frequent"
    assert web.failures.beta is not None
    assert web.failures.beta.low > 1


def test_a_crash_loop_is_one_failure_in_the_rate_and_all_of_it_in_the_downtime() -> None:
    script = Script().engine().up(WEB, 1)
    for n in range(1, 101):
        script.at(10_000 + 60 * n).exit(WEB, n).at(10_000 + 60 * n + 50).up(WEB, n + 1)
    (web,) = of(script, 100_000).services
    assert (web.failures.count, web.failures.relapses) == (100, 99)
    assert web.times.down_s == 5000
    assert web.failures.mttf_s is not None
    assert web.failures.mttf_s.value == 95_000


def test_maintenance_is_left_out_and_told_apart() -> None:
    script = Script().engine().up(WEB, 1).at(100).stop(WEB, 1).at(600).up(WEB, 2)
    script.at(700).exit(WEB, 2).at(800).up(WEB, 3)
    (web,) = of(script, 1000).services
    assert web.times.maintenance_s == 500
    assert web.times.valid_s == 500
    assert web.availability is not None
    assert web.availability.value == pytest.approx(0.8, abs=1e-12)


def test_two_replicas() -> None:
    script = Script().engine().up("web.1", 1).up("web.2", 1)
    script.at(100).exit("web.1", 1).at(200).exit("web.2", 1).at(250).up("web.1", 2)
    (web,) = of(script.at(300).up("web.2", 2), 1000).services
    assert web.times.down_s == 50
    assert web.times.degraded_s == 150
    assert web.outages == 1
    assert web.availability is not None
    assert web.availability.value == pytest.approx(0.95, abs=1e-12)
    assert web.replica_weighted == pytest.approx(1 - 250 / 2000, abs=1e-12)
    assert [(i.name, i.failures, i.times.down_s) for i in web.instances] == [
        ("web.1", 1, 150), ("web.2", 1, 100),
    ]  # fmt: skip


def test_a_window_counts_what_is_in_it() -> None:
    script = failing(1000, 100, 3)
    (web,) = of(script, 4000, 2050).services
    assert web.failures.count == 1
    assert web.times.down_s == 50 + 100  # the rest of an outage that began before
    assert web.times.valid_s == 1950
    assert web.failures.mttf_s is not None
    assert web.failures.mttf_s.value == 1800


def test_no_failure_gives_a_bound() -> None:
    (web,) = of(Script().engine().up(WEB, 1), 1000).services
    assert web.failures.mttf_s is not None
    assert web.failures.mttf_s.value is None
    assert web.failures.mttf_s.low == pytest.approx(1000 / -math.log(0.05))
    assert web.failures.mttf_s.high == math.inf
    assert plain(web.failures.mttf_s) == {
        "value": None, "low": web.failures.mttf_s.low, "high": None, "confidence": 0.95,
    }  # fmt: skip


def test_no_outage_of_the_service_is_bounded_by_how_long_an_instance_takes() -> None:
    """3 / 1000 s is the bound of the rate; 10 s each."""
    script = Script().engine().up("web.1", 1).up("web.2", 1)
    (web,) = of(script.at(100).exit("web.1", 1).at(110).up("web.1", 2), 1000).services
    assert web.availability is not None
    assert web.availability.value == web.availability.high == 1
    assert web.availability.low == pytest.approx(1 / (1 - math.log(0.05) / 1000 * 10))
    (web,) = of(Script().engine().up(WEB, 1), 1000).services
    assert web.availability is not None
    assert web.availability[:3] == (1, 0, 1)  # nobody knows how long one would take


def test_an_outage_that_goes_on_counts_until_now() -> None:
    (web,) = of(Script().engine().up(WEB, 1).at(900).exit(WEB, 1), 1000).services
    assert web.state == "down"
    assert web.times.down_s == 100
    assert web.failures.count == 1
    assert web.repairs.total.count == 0
    (still,) = web.open
    assert (still.end, still.down_s) == (None, 100)


def test_the_budget_by_time() -> None:
    script = failing(10 * DAY_S, 60, 2)
    objective = Objective(99.9, 30 * DAY_S)
    (web,) = of(script, 25 * DAY_S, objectives={"web": objective}).services
    assert web.slo is not None
    assert web.slo.by == "time"
    assert web.slo.allowed == pytest.approx(2592)
    assert web.slo.spent == 120
    assert web.slo.left == pytest.approx(1 - 120 / 2592)
    assert web.slo.burn_1h == 0
    assert web.slo.met is True


def test_the_burn_rate_of_the_last_hour() -> None:
    script = Script().engine().up(WEB, 1).at(DAY_S - 36).exit(WEB, 1)
    objective = Objective(99.0, 30 * DAY_S)
    (web,) = of(script, DAY_S, objectives={"web": objective}).services
    assert web.slo is not None
    assert web.slo.burn_1h == pytest.approx(36 / 3600 / 0.01)


def test_requests_count_where_callers_tell_them() -> None:
    script = Script().engine().up(WEB, 1).at(7200)
    script.calls("web", 997, 2, 1)
    objective = Objective(99.0, 30 * DAY_S)
    (web,) = of(script, DAY_S, objectives={"web": objective}).services
    assert web.requests is not None
    assert web.requests.availability is not None
    assert web.requests.availability.value == 0.997
    assert web.slo is not None
    assert (web.slo.by, web.slo.allowed, web.slo.spent) == ("requests", pytest.approx(10), 3)


@pytest.mark.parametrize("minute", [0, 1, 29, 31, 59])
def test_the_last_hour_by_requests_is_the_last_60_minutes(minute: int) -> None:
    """Whatever the clock shows."""
    script = Script().engine().up(WEB, 1)
    end = 10 * 3600 + 60 * minute
    script.at(end - 4200).calls("web", 0, 500).at(end - 3000).calls("web", 90, 10)
    script.at(end - 60).calls("web", 98, 2)
    (web,) = of(script, end, objectives={"web": Objective(99.0, 30 * DAY_S)}).services
    assert web.slo is not None
    assert web.slo.burn_1h == pytest.approx(12 / 200 / 0.01)


def test_few_calls_say_nothing_of_an_objective() -> None:
    """Of 900 calls 99.9 % would not allow a single one to fail; of 1100 one."""
    objectives = {"web": Objective(99.9, 30 * DAY_S)}
    for calls, by in ((900, "time"), (1100, "requests")):
        script = Script().engine().up(WEB, 1).at(60).calls("web", calls - 3, 3)
        (web,) = of(script, 7200, objectives=objectives).services
        assert web.requests is not None
        assert web.slo is not None
        assert (web.slo.by, web.slo.met) == (by, by == "time")


def test_no_calls_lately_burn_nothing() -> None:
    script = Script().engine().up(WEB, 1).at(60).calls("web", 1, 99)
    (web,) = of(script, DAY_S, objectives={"web": Objective(99.0, 30 * DAY_S)}).services
    assert web.slo is not None
    assert web.slo.burn_1h == 0


def test_the_slowest_recoveries_lead_to_their_events() -> None:
    script = failing(1000, 10, 3).at(5000).exit(WEB, 4)
    seq = script.rows[-1][0]
    (web,) = of(script.at(5300).up(WEB, 5), 6000, slowest=2).services
    assert [round(i.down_s) for i in web.slowest] == [300, 10]
    assert web.slowest[0].first_seq == seq
    assert web.slowest[0].start == BEGAN + 5000


def test_one_service_alone_and_one_that_never_was() -> None:
    script = Script().engine().up(WEB, 1).up("db.1", 1)
    script.add("service.wanted", "idle.1", want=False)
    found = of(script, 100)
    assert [s.name for s in found.services] == ["db", "web"]
    assert [s.name for s in of(script, 200, only="db").services] == ["db"]


def test_bins_and_the_timeline_add_up() -> None:
    script = failing(1000, 10, 9)
    history = script.at(10_000).history()
    history.close(script.now(history), running=True)
    edges = [ZERO + n * 1500 * US for n in range(6)] + [ZERO + 10_000 * US]
    found = bins(history, edges, ["web"])
    assert sum(count for count, _, _ in found) == 9
    assert sum(down_s for _, down_s, _ in found) == pytest.approx(90)
    assert sum(valid_s for _, _, valid_s in found) == pytest.approx(10_000)
    spans = timeline(history, "web", ZERO, ZERO + 10_000 * US)
    assert spans[0][0] == BEGAN
    assert spans[-1][1] == BEGAN + 10_000
    assert sum(b - a for a, b, state in spans if state == "down") == pytest.approx(90)


def test_an_empty_history_has_an_account() -> None:
    found = account(History(), 0, 1)
    assert found.services == ()
    assert json.dumps(plain(found))


def test_an_open_outage_is_counted_once_in_bins() -> None:
    script = Script().engine().up(WEB, 1).at(100).exit(WEB, 1)
    history = script.at(1000).history()
    history.close(script.now(history), running=True)
    edges = [ZERO + n * 250 * US for n in range(5)]
    assert [count for count, _, _ in bins(history, edges, ["web"])] == [1, 0, 0, 0]


# -- a simulated world


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_in_a_simulated_world_adds_up(seed: int) -> None:
    """Random faults, operators, reloads and deaths of everup itself."""
    world = SimWorld(seed)
    world.run_faults(60.0)
    history = History()
    history.feed(world.journal)
    end = int(world.now * US)
    history.close(end, running=True)
    found = account(history, 0, end)
    assert json.dumps(plain(found))
    for service in found.services:
        for instance in service.instances:
            born = history.slots[instance.name].line.born
            assert sum(history.slots[instance.name].line.sums(born, end)) == end - born
        states = {str(i.slot): i.state for i in world.engine.instances.values()}
        for instance in service.instances:
            if instance.name in states:
                assert (instance.state == "up") == (
                    states[instance.name] is State.READY
                    or any(str(s) == instance.name and o.state is State.READY
                           for s, o in world.engine.outgoing.items())
                ), instance  # fmt: skip


class Truth:
    """When processes of a simulated world really served, asked of the world itself."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self.down: dict[str, float] = defaultdict(float)
        self.failed: dict[str, int] = defaultdict(int)
        self._up: dict[str, bool] = {}
        self._since = world.now

    def look(self) -> None:
        """Before anything changes: what held since the last look."""
        world = self.world
        step, self._since = world.now - self._since, world.now
        for slot, up in self._up.items():
            if not up:
                self.down[slot] += step
        for slot in world.engine.instances:
            process = world.process_of(slot)
            up = process is not None and process.up_at <= world.now and not process.hung
            if self._up.get(str(slot), True) and not up:
                self.failed[str(slot)] += 1
            self._up[str(slot)] = up


def is_ready(world: SimWorld, slot: Slot) -> bool:
    return world.engine.instances[slot].state is State.READY


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_downtime_agrees_with_a_simulated_world(seed: int) -> None:
    """Crashes and hangs of instances that are probed twice a second: the downtime of the journal
    is the true one, but for the time until a probe sees a hang, and sees that it is over."""
    probe = Probe(http="/", interval=0.5, timeout=0.1, failure_threshold=2, success_threshold=1)
    service = Service(
        "web", ("serve",), listen=(Listener("main", "127.0.0.1:80"),), replicas=3,
        probe=Probes(readiness=probe, liveness=probe), restart=Restart(delay=1.0, reset_after=5.0),
    )  # fmt: skip
    world = SimWorld(seed, Spec(service={"web": service}), engine_deaths=False)
    world.run_until(10.0)
    truth = Truth(world)
    began, failures = world.now, 0
    world.run_until(began + 1.0)  # or the first one may be dated before the beginning
    for _ in range(30):
        ready = [p for p in world.processes.values() if p.alive and not p.hung]
        ready = [p for p in ready if p.up_at <= world.now and is_ready(world, p.slot)]
        if ready:
            process = world.rng.choice(ready)
            failures += 1
            if world.rng.random() < 0.3:
                process.hung = True
            else:
                world.end(process, code=1)
        end = world.now + world.rng.uniform(0.5, 40.0)
        while world.now < end:
            truth.look()
            world.run_until(world.now + 0.02)
        truth.look()
    end = world.now + 10.0
    while world.now < end:  # the last one is found as well
        world.run_until(world.now + 0.02)
        truth.look()
    history = History()
    history.feed(world.journal)
    history.close(int(world.now * US), running=True)
    (web,) = account(history, int(began * US), int(world.now * US)).services
    told, true = sum(i.times.down_s for i in web.instances), sum(truth.down.values())
    assert web.failures.count == failures
    # A probe comes up to an interval late at both ends; the world is looked at every 20 ms.
    assert abs(told - true) <= failures * (2 * probe.interval + 0.1 + 0.04)
    assert told == pytest.approx(true, rel=0.5)
    assert web.times.maintenance_s == 0
