"""Verdicts that are not carried out: where killing would make it worse."""

import pytest
from _bench import BOTH, CRASH, DB, KILLED, WEB, WEB2, Bench, db, of, web

from everup.model.action import Action, Signal, Spawn, WatchDrain
from everup.model.event import Notified, Restart, Scale, Stop, Tick
from everup.model.instance import Slot, State
from everup.model.journal import Kind
from everup.model.signal import ProbeKind
from everup.model.spec import (
    Intensity,
    Probe,
    Probes,
    Service,
    StormBrake,
    Watchdog,
)
from everup.model.spec import Restart as RestartPolicy

LIVENESS = Probes(liveness=Probe(tcp="listen", failure_threshold=2))
SUCCESSOR_S = 60.0
"""A successor is tried at most this often."""


def condemn(bench: Bench, slot: Slot = WEB, run: int | None = None) -> list[Action]:
    """Liveness fails until it is a verdict; what follows from the last failure."""
    bench.probe(slot, False, ProbeKind.LIVENESS, run=run)
    return bench.probe(slot, False, ProbeKind.LIVENESS, run=run)


def ready(replicas: int = 1, **more: object) -> Bench:
    bench = Bench(web(replicas, **({"probe": BOTH} | more)))
    bench.up()
    bench.records.clear()
    return bench


def kills(actions: list[Action]) -> list[Slot]:
    return [a.slot for a in of(actions, Signal) if a.signal == "SIGKILL"]


# -- the last ready replica


def test_the_last_ready_one_is_not_killed_but_gets_a_successor() -> None:
    bench = ready()
    actions = condemn(bench)
    assert not of(actions, Signal)
    assert of(actions, Spawn) == [Spawn(WEB, 2, 2)]
    spared = bench.last(Kind.SPARED)
    assert spared.subject == "web.1"
    assert spared.payload == {
        "run": 1,
        "verdict": "liveness probe: refused",
        "reason": "it is the last ready replica, and its readiness probe says that it serves",
    }
    assert bench.last(Kind.ROLLOUT).payload["how"] == "verdict"
    assert bench.engine.active["web"] == (1,)
    bench.born(WEB)
    actions = bench.probe(WEB)
    assert of(actions, WatchDrain) == [WatchDrain(WEB, 1)]
    bench.finish(actions)
    assert bench.runs("web") == [2]
    assert not of(bench.done, Signal)[1:]  # one SIGTERM, and that is all
    assert of(bench.done, Signal)[0].signal == "SIGTERM"
    bench.check_quiet()


def test_it_is_told_once_however_often_it_fails() -> None:
    bench = ready(overlap=False)
    for _ in range(10):
        assert not of(condemn(bench), Signal)
    assert bench.kinds(WEB).count(Kind.SPARED) == 1
    bench.probe(WEB, True, ProbeKind.LIVENESS)  # it was a false alarm
    condemn(bench)
    assert bench.kinds(WEB).count(Kind.SPARED) == 2  # another one


def test_one_that_cannot_run_twice_is_spared_as_long_as_it_serves() -> None:
    bench = ready(overlap=False)
    assert not of(condemn(bench), Spawn)
    assert bench.state(WEB) is State.READY
    bench.probe(WEB, False)
    actions = condemn(bench)
    assert kills(actions) == [WEB]
    assert of(bench.ended(WEB, KILLED), Spawn) == [Spawn(WEB, 2, 1)]


@pytest.mark.parametrize("first", [ProbeKind.READINESS, ProbeKind.LIVENESS])
def test_not_spared_when_its_readiness_fails_as_well(first: ProbeKind) -> None:
    bench = ready()
    if first is ProbeKind.READINESS:
        bench.probe(WEB, False)  # a single failure is enough to doubt that it serves
        actions = condemn(bench)
    else:
        bench.probe(WEB, False, ProbeKind.LIVENESS)
        bench.probe(WEB, False)
        actions = bench.probe(WEB, False, ProbeKind.LIVENESS)
    assert kills(actions) == [WEB]
    assert Kind.SPARED not in bench.kinds(WEB)


def test_not_spared_without_a_readiness_probe() -> None:
    bench = ready(probe=LIVENESS)
    assert kills(condemn(bench)) == [WEB]


def test_not_spared_where_another_one_is_ready() -> None:
    bench = ready(2)
    assert kills(condemn(bench)) == [WEB]
    assert Kind.SPARED not in bench.kinds(WEB)
    assert not kills(condemn(bench, WEB2))  # but now this is the last one
    assert bench.kinds(WEB2).count(Kind.SPARED) == 1


def test_another_one_that_is_suspected_does_not_count() -> None:
    bench = ready(2)
    bench.probe(WEB2, False)
    assert bench.engine.instances[WEB2].suspected
    assert not kills(condemn(bench, WEB))


def test_a_standby_counts() -> None:
    bench = ready(1, standby=1)
    assert kills(condemn(bench)) == [WEB]
    assert bench.engine.active["web"] == (2,)


def test_all_hang_at_once_and_one_goes_on_serving() -> None:
    """A wrong liveness probe must not take the service down."""
    bench = ready(3, overlap=False)
    slots = [Slot("web", n) for n in (1, 2, 3)]
    for slot in slots:
        bench.probe(slot, False, ProbeKind.LIVENESS)
    # All are suspected: nobody is trusted more than the others, and all say that they serve.
    killed = []
    for _ in range(3):
        for slot in slots:
            if bench.state(slot) is State.READY:
                killed += kills(bench.probe(slot, False, ProbeKind.LIVENESS))
    assert len(killed) < 3
    assert bench.engine.active["web"]
    assert any(bench.state(slot) is State.READY for slot in slots)


def test_the_successor_fails_and_the_condemned_one_goes_on_serving() -> None:
    bench = ready()
    condemn(bench)
    bench.sick.add((WEB, 2))
    bench.born(WEB)
    bench.finish(bench.ended(WEB, CRASH))
    assert bench.runs("web") == [1]
    assert bench.state(WEB) is State.READY
    bench.check_quiet()
    assert bench.last(Kind.ROLLOUT_STOPPED).payload["how"] == "verdict"


def test_another_successor_is_tried_after_a_while() -> None:
    bench = ready()
    condemn(bench)
    bench.born(WEB)
    bench.finish(bench.ended(WEB, CRASH))
    assert not of(condemn(bench), Spawn)
    began = bench.now
    while bench.now - began < SUCCESSOR_S - 5:
        bench.tell(Tick(), 5.0)
        assert not of(condemn(bench), Spawn)
    bench.tell(Tick(), 10.0)
    assert of(condemn(bench), Spawn) == [Spawn(WEB, 3, 2)]


def test_no_successor_of_its_own_while_a_rollout_brings_one_anyway() -> None:
    bench = ready()
    bench.tell(Restart((WEB,), "ann"))
    assert not of(condemn(bench, run=1), Spawn)
    assert len(bench.told(Kind.ROLLOUT)) == 1
    bench.born(WEB)
    bench.finish(bench.probe(WEB))
    assert bench.runs("web") == [2]
    bench.check_quiet()


def test_a_silent_watchdog_spares_the_last_one_as_well() -> None:
    bench = ready(probe=BOTH, overlap=False, watchdog=Watchdog(2.0))
    assert not kills(bench.tell(Tick(), 2.5))
    assert bench.last(Kind.SPARED).payload["verdict"].startswith("watchdog:")
    for _ in range(10):
        assert not kills(bench.tell(Tick(), 1.0))
    assert bench.kinds(WEB).count(Kind.SPARED) == 1
    bench.probe(WEB, False)
    assert kills(bench.tell(Tick(), 1.1)) == [WEB]


def test_a_ping_ends_it() -> None:
    bench = ready(probe=BOTH, overlap=False, watchdog=Watchdog(2.0))
    bench.tell(Tick(), 2.5)
    for _ in range(5):
        bench.tell(Notified(WEB, (("WATCHDOG", "1"),)))
        assert not kills(bench.tell(Tick(), 1.5))
    bench.tell(Tick(), 1.0)
    assert bench.kinds(WEB).count(Kind.SPARED) == 2  # another silence, told again


def test_what_it_asks_for_itself_is_carried_out() -> None:
    bench = ready()
    actions = bench.tell(Notified(WEB, (("WATCHDOG", "trigger"),)))
    assert kills(actions) == [WEB]


def test_an_operators_stop_spares_nobody() -> None:
    bench = ready()
    condemn(bench)
    bench.settle(bench.tell(Stop((WEB,), "ann")))
    bench.settle(bench.born(WEB, 2) if WEB in bench.engine.outgoing else [])
    bench.finish()
    assert bench.state(WEB) is State.STOPPED
    assert bench.processes == {}


# -- what it depends on is down


def stack() -> Bench:
    bench = Bench(
        db(probe=Probes(readiness=Probe(tcp="listen"))), web(2, probe=BOTH, depends_on=("db",))
    )
    bench.up()
    bench.records.clear()
    return bench


def lose_db(bench: Bench) -> None:
    for _ in range(3):
        bench.probe(DB, False)
    assert bench.state(DB) is State.RUNNING


def test_who_depends_on_what_is_down_is_held_and_told_once() -> None:
    bench = stack()
    lose_db(bench)
    for _ in range(5):
        for slot in (WEB, WEB2):
            bench.probe(slot, False)
            assert not of(condemn(bench, slot), Signal)
    for slot in (WEB, WEB2):
        assert bench.kinds(slot).count(Kind.SPARED) == 1
        assert bench.engine.instances[slot].run == 1
    assert bench.last(Kind.SPARED).payload["reason"] == "db is down, which it depends on"


def test_killed_once_it_is_back_if_it_still_fails() -> None:
    bench = stack()
    lose_db(bench)
    assert not kills(condemn(bench))
    bench.probe(DB)
    assert bench.state(DB) is State.READY
    assert kills(condemn(bench)) == [WEB]


def test_held_who_recovers_with_what_it_depends_on_is_not_touched() -> None:
    bench = stack()
    lose_db(bench)
    condemn(bench)
    bench.probe(DB)
    bench.probe(WEB, True, ProbeKind.LIVENESS)
    bench.probe(WEB, True)
    assert not bench.engine.instances[WEB].suspected
    assert bench.engine.instances[WEB].run == 1
    assert bench.engine.spared == {}


def test_a_dependency_that_is_being_replaced_is_not_down() -> None:
    bench = Bench(web(1, probe=BOTH), db(probe=LIVENESS, depends_on=("web",)))
    bench.up()
    bench.tell(Restart((WEB,), "ann"))
    assert kills(condemn(bench, DB)) == [DB]


def test_a_oneshot_that_is_done_is_not_down() -> None:
    bench = Bench(db(type="oneshot"), web(1, probe=LIVENESS, depends_on=("db",)))
    bench.up()
    assert kills(condemn(bench)) == [WEB]


# -- the storm brake is empty


def test_nobody_is_killed_who_could_not_be_started_again() -> None:
    policy = RestartPolicy(delay=0.0, jitter="none", intensity=Intensity(limit=100))
    bench = Bench(
        web(2, probe=BOTH),
        Service("other", ("serve",), restart=policy),
        storm_brake=StormBrake(limit=2, period=200.0),
    )
    bench.up()
    other = Slot("other", 1)
    for _ in range(2):
        bench.settle(bench.ended(other, CRASH))
    assert not of(bench.ended(other, CRASH), Spawn)
    assert not kills(condemn(bench))
    assert bench.last(Kind.SPARED).payload["reason"].startswith("storm brake: more than 2")
    bench.settle(bench.tell(Tick(), 250.0))
    bench.tell(Tick(), 250.0)
    assert kills(condemn(bench)) == [WEB]


# -- what is remembered


def test_nothing_is_remembered_of_who_is_gone() -> None:
    bench = ready()
    condemn(bench)
    bench.born(WEB)
    bench.finish(bench.probe(WEB))
    condemn(bench)  # of the successor: another one, told again
    assert bench.kinds(WEB).count(Kind.SPARED) == 2


def test_who_is_scaled_away_leaves_nothing() -> None:
    bench = ready(overlap=False)
    condemn(bench)
    assert len(bench.engine.spared) == 1
    bench.settle(bench.tell(Scale("web", 0, "ann")))
    assert bench.engine.spared == {}
    assert bench.engine.replaced_at == {}
