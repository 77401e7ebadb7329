"""The engine: events in, actions out, on a clock of the test's own."""

from dataclasses import replace
from itertools import pairwise

import pytest
from _bench import (
    BOTH,
    CLEAN,
    CRASH,
    DB,
    KILLED,
    LISTEN,
    READINESS,
    WEB,
    WEB2,
    WEB3,
    Bench,
    db,
    of,
    web,
)

from everup.engine.core import Engine
from everup.model.action import (
    CloseSockets,
    EmptyQueue,
    Forget,
    OpenSockets,
    Quit,
    Record,
    RunHook,
    SetBalance,
    Signal,
    Spawn,
    Unwatch,
    Watch,
    WatchDrain,
)
from everup.model.event import (
    Adopted,
    Down,
    Drained,
    Exited,
    Hook,
    HookDone,
    Lag,
    Notified,
    Probed,
    Restart,
    Scale,
    SendSignal,
    Spawned,
    SpawnFailed,
    Start,
    Stop,
    Tick,
    Up,
)
from everup.model.instance import Slot, State
from everup.model.journal import Kind
from everup.model.signal import ProbeKind, ProbeResult
from everup.model.spec import (
    Group,
    Hooks,
    Probe,
    Probes,
    Service,
    Spec,
    Strategy,
    Watchdog,
)
from everup.model.spec import Restart as RestartPolicy

# -- start


def test_start_says_so_first_opens_sockets_then_spawns() -> None:
    bench = Bench(web(1))
    actions = bench.tell(Up())
    kinds = [a.kind if isinstance(a, Record) else type(a) for a in actions]
    assert kinds == [
        Kind.SOCKETS_OPENED, OpenSockets, Kind.BALANCE, SetBalance, Kind.STARTING, Spawn,
    ]  # fmt: skip
    assert bench.state(WEB) is State.STARTING


def test_waits_for_what_it_depends_on_and_says_so_once() -> None:
    bench = Bench(db(probe=READINESS), web(1, depends_on=("db",)))
    actions = bench.tell(Up())
    assert of(actions, Spawn) == [Spawn(DB, 1)]
    assert bench.last(Kind.WAITING).subject == "web.1"
    assert bench.last(Kind.WAITING).payload == {"reason": "waits for db"}
    assert not of(actions, OpenSockets)  # nobody may connect to what cannot answer yet

    assert not of(bench.born(DB), Spawn)
    assert not of(bench.tell(Tick(), 5.0), Spawn)  # running is not ready
    assert bench.kinds(WEB).count(Kind.WAITING) == 1
    assert of(bench.probe(DB), Spawn) == [Spawn(WEB, 1, 1)]
    assert bench.engine.waiting == {}


def test_a_dependency_that_is_lost_holds_back_only_who_is_not_up() -> None:
    bench = Bench(db(probe=READINESS), web(1, depends_on=("db",)))
    bench.up()
    bench.probe(DB, False)
    for _ in range(3):
        bench.probe(DB, False)
    assert bench.state(DB) is State.RUNNING
    assert bench.state(WEB) is State.READY
    assert not of(bench.ended(WEB, CRASH), Spawn)  # and who falls now waits
    assert bench.engine.waiting[WEB] == "waits for db"
    assert of(bench.probe(DB), Spawn) == [Spawn(WEB, 2, 1)]


def test_oneshot_then_dependents() -> None:
    bench = Bench(db(type="oneshot"), web(1, depends_on=("db",)))
    assert of(bench.tell(Up()), Spawn) == [Spawn(DB, 1)]
    assert not of(bench.born(DB), Spawn)
    assert of(bench.ended(DB), Spawn) == [Spawn(WEB, 1, 1)]
    assert bench.last(Kind.STOPPED).payload["done"] is True
    assert not of(bench.tell(Tick(), 100.0), Spawn)  # once


def test_a_oneshot_that_fails_holds_its_dependents() -> None:
    bench = Bench(db(type="oneshot"), web(1, depends_on=("db",)))
    bench.tell(Up())
    bench.born(DB)
    assert not of(bench.ended(DB, CRASH), Spawn)
    assert bench.state(DB) is State.FAILED
    assert bench.state(WEB) is State.STOPPED
    assert of(bench.tell(Start((DB,), "ann")), Spawn) == [Spawn(DB, 2)]
    bench.born(DB)
    assert of(bench.ended(DB), Spawn) == [Spawn(WEB, 1, 1)]


def test_pre_start_hook_comes_before_the_process() -> None:
    bench = Bench(db(hooks=Hooks(pre_start=("prepare",))))
    assert of(bench.tell(Up()), RunHook) == [RunHook(DB, 1, Hook.PRE_START)]
    assert of(bench.tell(HookDone(DB, 1, Hook.PRE_START, True)), Spawn) == [Spawn(DB, 1)]
    assert bench.kinds(DB) == [Kind.STARTING, Kind.HOOK, Kind.HOOK_ENDED]


def test_autostart_no_waits_for_an_operator_and_the_operator_s_word_outlives() -> None:
    bench = Bench(db(autostart=False), web(1))
    assert of(bench.tell(Up(wanted=((WEB, False),))), Spawn) == []
    actions = bench.tell(Start((DB, WEB), "ann"))
    assert {a.slot for a in of(actions, Spawn)} == {DB, WEB}
    wanted = [r for r in bench.records if r.kind is Kind.WANTED]
    assert [r.durable for r in wanted] == [True, True]
    assert actions.index(wanted[1]) < actions.index(of(actions, Spawn)[0])


def test_news_of_an_earlier_incarnation_change_nothing() -> None:
    bench = Bench(db())
    bench.up()
    bench.ended(DB, CRASH)
    bench.born(DB)
    before = bench.engine.instances[DB]
    for event in (
        Exited(DB, 1, KILLED), Spawned(DB, 1, 9), SpawnFailed(DB, 1, "no"), Drained(DB, 1),
        Exited(Slot("gone", 1), 1, KILLED), Notified(Slot("gone", 1), (("READY", "1"),)),
    ):  # fmt: skip
        assert bench.tell(event) == []
    assert bench.engine.instances[DB] == before


def test_spawn_failure_is_told_and_retried() -> None:
    bench = Bench(db(restart=RestartPolicy(jitter="none")))
    bench.tell(Up())
    assert of(bench.tell(SpawnFailed(DB, 1, "cannot run x")), Spawn) == [Spawn(DB, 2)]
    assert bench.last(Kind.EXITED).payload["cause"] == "cannot run x"
    bench.tell(SpawnFailed(DB, 2, "cannot run x"))
    assert bench.state(DB) is State.BACKOFF
    due = bench.engine.next_deadline()
    assert due is not None
    assert due == pytest.approx(bench.now + 0.1)
    assert of(bench.tell(Tick(), 0.2), Spawn) == [Spawn(DB, 3)]


# -- groups


def chain(strategy: Strategy) -> Bench:
    names = ("a", "b", "c")
    group = Group("app", names, strategy)
    services = [Service(name, ("serve",)) for name in names]
    bench = Bench(*services, Service("other", ("serve",)), groups=[group])
    bench.up()
    return bench


def test_a_second_crash_before_a_group_is_down_forgets_nobody() -> None:
    """Who waits for the first one is none of those that restart with the second."""
    names = ("first", "second", "third")
    services = [Service(n, ("serve",), replicas=2 if n == "second" else 1) for n in names]
    group = Group("app", names, Strategy.REST_FOR_ONE)
    bench = Bench(*services, groups=[group])
    bench.up()
    late = Slot("second", 2)
    bench.settle(bench.tell(Stop((late,), "ann")))
    bench.ended(Slot("first", 1), CRASH)  # second.1 and third.1 are told to stop
    bench.tell(Start((late,), "ann"))
    bench.born(late)
    bench.ended(late, CRASH)
    todo = bench.ended(Slot("third", 1)) + bench.ended(Slot("second", 1))
    bench.settle(todo)
    states = {str(i.slot): i.state for i in bench.engine.instances.values()}
    assert set(states.values()) == {State.READY}, states


@pytest.mark.parametrize(
    ("strategy", "stopped"),
    [
        (Strategy.ONE_FOR_ONE, []),
        (Strategy.ONE_FOR_ALL, ["c.1", "a.1"]),
        (Strategy.REST_FOR_ONE, ["c.1"]),
    ],
)
def test_group_restarts_its_members_together(strategy: Strategy, stopped: list[str]) -> None:
    bench = chain(strategy)
    actions = bench.ended(Slot("b", 1), CRASH)
    assert [str(a.slot) for a in of(actions, Signal)] == stopped
    assert all(a.signal == "SIGTERM" for a in of(actions, Signal))
    if not stopped:
        assert of(actions, Spawn) == [Spawn(Slot("b", 1), 2)]
        return
    assert not of(actions, Spawn)
    assert "group" in bench.engine.waiting[Slot("b", 1)]
    for name in stopped[:-1]:
        assert not of(bench.ended(Slot.parse(name)), Spawn)  # all are down before one is up
    actions = bench.ended(Slot.parse(stopped[-1]))
    assert sorted(str(a.slot) for a in of(actions, Spawn)) == sorted([*stopped, "b.1"])
    assert bench.engine.regrouping == {}
    assert bench.engine.instances[Slot("other", 1)].run == 1


def test_a_member_that_an_operator_stopped_stays_down() -> None:
    bench = chain(Strategy.ONE_FOR_ALL)
    bench.settle(bench.tell(Stop((Slot("c", 1),), "ann")))
    bench.settle(bench.ended(Slot("a", 1), CRASH))
    assert bench.state(Slot("a", 1)) is State.READY
    assert bench.state(Slot("b", 1)) is State.READY
    assert bench.engine.instances[Slot("b", 1)].run == 2
    assert bench.state(Slot("c", 1)) is State.STOPPED


def test_a_clean_end_restarts_no_group() -> None:
    bench = chain(Strategy.ONE_FOR_ALL)
    assert not of(bench.ended(Slot("a", 1), CLEAN), Signal)


# -- stop


def test_stop_goes_to_dependents_first() -> None:
    bench = Bench(db(), web(2, depends_on=("db",)))
    bench.up()
    actions = bench.tell(Stop((DB, WEB, WEB2), "ann"))
    assert [a.slot for a in of(actions, Signal)] == [WEB2, WEB]
    assert bench.state(DB) is State.READY
    assert not of(bench.ended(WEB), Signal)
    assert of(bench.ended(WEB2), Signal) == [Signal(DB, 1, "SIGTERM")]


def test_stop_of_a_dependency_alone_does_not_take_its_users_down() -> None:
    bench = Bench(db(), web(1, depends_on=("db",)))
    bench.up()
    assert [a.slot for a in of(bench.tell(Stop((DB,), "ann")), Signal)] == [DB]
    bench.ended(DB)
    assert bench.state(WEB) is State.READY


def test_operators_stop_wins_over_a_crash_and_over_a_backoff() -> None:
    bench = Bench(db(restart=RestartPolicy(jitter="none")))
    bench.up()
    bench.tell(Stop((DB,), "ann"))
    assert not of(bench.ended(DB, KILLED), Spawn)
    assert bench.state(DB) is State.STOPPED
    assert not of(bench.tell(Tick(), 1000.0), Spawn)

    bench.settle(bench.tell(Start((DB,), "ann")))
    bench.ended(DB, CRASH)
    bench.born(DB)
    bench.ended(DB, CRASH)
    assert bench.state(DB) is State.BACKOFF
    bench.tell(Stop((DB,), "ann"))
    assert bench.state(DB) is State.STOPPED
    assert not of(bench.tell(Tick(), 1000.0), Spawn)


def test_stop_during_the_birth_kills_who_is_born_too_late() -> None:
    bench = Bench(db())
    bench.tell(Up())
    bench.tell(Stop((DB,), "ann"))
    bench.done.clear()
    assert of(bench.born(DB), Signal) == [Signal(DB, 1, "SIGKILL", "all")]
    assert not of(bench.ended(DB, KILLED), Spawn)
    assert bench.state(DB) is State.STOPPED


def test_start_during_the_stop_starts_again_once_it_is_down() -> None:
    bench = Bench(db())
    bench.up()
    bench.tell(Stop((DB,), "ann"))
    assert not of(bench.tell(Start((DB,), "ann")), Spawn)
    assert of(bench.ended(DB), Spawn) == [Spawn(DB, 2)]


def test_what_does_not_end_in_time_is_killed_whole() -> None:
    bench = Bench(db(stop_timeout=5.0))
    bench.up()
    bench.tell(Stop((DB,), "ann"))
    assert not of(bench.tell(Tick(), 4.9), Signal)
    assert of(bench.tell(Tick(), 0.2), Signal) == [Signal(DB, 1, "SIGKILL", "all")]
    assert bench.last(Kind.KILLING).subject == "db.1"


def test_drain_ends_with_the_last_connection_or_its_time() -> None:
    for end in ("drained", "time"):
        bench = Bench(web(2, drain_timeout=3.0))
        bench.up()
        actions = bench.tell(Stop((WEB,), "ann"))
        assert of(actions, SetBalance) == [SetBalance("web", (2,))]
        assert of(actions, WatchDrain) == [WatchDrain(WEB, 1)]
        assert not of(actions, Signal)
        actions = bench.tell(Drained(WEB, 1)) if end == "drained" else bench.tell(Tick(), 3.1)
        assert of(actions, Signal) == [Signal(WEB, 1, "SIGTERM")]
        assert of(bench.ended(WEB), EmptyQueue) == [EmptyQueue("web", 1)]


def test_nobody_is_told_to_stop_while_connections_are_sent_there() -> None:
    bench = Bench(web(2))
    bench.up()
    actions = bench.tell(Stop((WEB,), "ann"))
    assert actions.index(SetBalance("web", (2,))) < actions.index(Signal(WEB, 1, "SIGTERM"))


def test_the_record_of_a_new_balance_stands_before_it() -> None:
    bench = Bench(web(2))
    bench.up()
    actions = bench.tell(Stop((WEB,), "ann"))
    told = next(a for a in of(actions, Record) if a.kind is Kind.BALANCE)
    assert actions.index(told) < actions.index(SetBalance("web", (2,)))


def test_operators_signal_goes_only_to_who_has_a_process() -> None:
    bench = Bench(db(), web(1))
    bench.up()
    bench.settle(bench.tell(Stop((WEB,), "ann")))
    actions = bench.tell(SendSignal((DB, WEB), "SIGHUP", "ann"))
    assert of(actions, Signal) == [Signal(DB, 1, "SIGHUP")]
    assert bench.last(Kind.SIGNALLED).payload == {"signal": "SIGHUP", "by": "ann"}


# -- scale


def test_scale_up_starts_the_new_ones_and_down_stops_the_last_ones() -> None:
    bench = Bench(web(1))
    bench.up()
    actions = bench.tell(Scale("web", 3, "ann"))
    assert of(actions, OpenSockets) == [OpenSockets("web", 3)]
    assert [a.slot for a in of(actions, Spawn)] == [WEB2, WEB3]
    assert bench.last(Kind.SCALED).payload == {"replicas": 3, "before": 1, "by": "ann"}
    assert bench.last(Kind.SCALED).durable
    bench.settle(actions)
    assert bench.engine.active["web"] == (1, 2, 3)

    actions = bench.tell(Scale("web", 1, "ann"))
    assert [a.slot for a in of(actions, Signal)] == [WEB3, WEB2]
    assert of(actions, SetBalance) == [SetBalance("web", (1,))]
    bench.ended(WEB3)
    assert of(bench.ended(WEB2), Forget) == [Forget(WEB2)]
    assert set(bench.engine.instances) == {WEB}


def test_run_numbers_go_on_when_a_slot_comes_back() -> None:
    bench = Bench(web(2))
    bench.up()
    bench.settle(bench.ended(WEB2, CRASH))
    assert bench.engine.instances[WEB2].run == 2
    bench.settle(bench.tell(Scale("web", 1, "ann")))
    assert WEB2 not in bench.engine.instances
    assert of(bench.tell(Scale("web", 2, "ann")), Spawn) == [Spawn(WEB2, 3, 2)]


def test_scale_back_up_while_it_is_stopping_brings_it_back() -> None:
    bench = Bench(web(2))
    bench.up()
    bench.tell(Scale("web", 1, "ann"))
    bench.tell(Scale("web", 2, "ann"))
    bench.settle(bench.ended(WEB2))
    assert bench.state(WEB2) is State.READY
    assert bench.engine.instances[WEB2].run == 2


def test_scale_of_what_is_stopped_starts_nothing() -> None:
    bench = Bench(web(1))
    bench.up()
    bench.settle(bench.tell(Stop((WEB,), "ann")))
    assert not of(bench.tell(Scale("web", 3, "ann")), Spawn)


def test_scaled_to_none_closes_the_sockets_only_when_the_last_is_down() -> None:
    bench = Bench(web(1))
    bench.up()
    assert not of(bench.tell(Scale("web", 0, "ann")), CloseSockets)
    actions = bench.ended(WEB)
    assert of(actions, CloseSockets) == [CloseSockets("web", LISTEN)]
    assert of(actions, Forget) == [Forget(WEB)]


# -- rolling restart


def test_rolling_restart_goes_one_after_the_other() -> None:
    """Of a service that overlaps: each successor is ready before its predecessor stops."""
    bench = Bench(web(3, probe=READINESS))
    bench.up()
    actions = bench.tell(Restart((WEB, WEB2, WEB3), "ann"))
    lane = 4  # the spare one; then the one that was left last
    for slot, others in ((WEB, (2, 3)), (WEB2, (3, 4)), (WEB3, (1, 4))):
        assert not of(actions, Signal)
        assert of(actions, Spawn) == [Spawn(slot, 2, lane)]
        assert not of(bench.born(slot), Signal)  # up is not ready
        actions = bench.probe(slot)
        assert bench.engine.active["web"] == tuple(sorted((*others, lane)))
        assert of(actions, WatchDrain) == [WatchDrain(slot, 1)]
        assert of(bench.tell(Drained(slot, 1)), Signal) == [Signal(slot, 1, "SIGTERM")]
        actions = bench.ended(slot, run=1)
        lane = slot.replica
    assert bench.engine.rolling == {}
    assert not of(actions, Signal)
    assert bench.engine.active["web"] == (1, 2, 4)
    assert [i.lane for i in bench.engine.of("web")] == [4, 1, 2]


def test_rolling_restart_without_overlap_goes_one_after_the_other() -> None:
    bench = Bench(web(3, probe=READINESS, overlap=False))
    bench.up()
    actions = bench.tell(Restart((WEB, WEB2, WEB3), "ann"))
    for slot, others in ((WEB, (2, 3)), (WEB2, (1, 3)), (WEB3, (1, 2))):
        assert of(actions, WatchDrain) == [WatchDrain(slot, 1)]  # others serve meanwhile
        assert not of(actions, Signal)
        assert bench.engine.active["web"] == others
        assert [a.slot for a in of(bench.tell(Drained(slot, 1)), Signal)] == [slot]
        assert of(bench.ended(slot), Spawn) == [Spawn(slot, 2, slot.replica)]
        assert not of(bench.born(slot), Signal)  # up is not ready
        actions = bench.probe(slot)
    assert bench.engine.rolling == {}
    assert not of(actions, Signal)
    assert bench.engine.active["web"] == (1, 2, 3)


def test_rolling_restart_stops_when_one_does_not_come_up() -> None:
    bench = Bench(web(3))
    bench.up()
    bench.tell(Restart((WEB, WEB2, WEB3), "ann"))
    actions = bench.tell(SpawnFailed(WEB, 2, "cannot run it"))
    assert not of(actions, Spawn)
    assert not of(actions, Signal)
    assert bench.state(WEB) is State.READY  # the old one goes on
    assert bench.runs("web") == [1, 1, 1]
    stopped = bench.last(Kind.ROLLOUT_STOPPED)
    assert stopped.subject == "web"
    assert stopped.payload["replaced"] == []
    assert stopped.payload["not_replaced"] == ["web.1", "web.2", "web.3"]
    assert stopped.payload["reason"] == "web.1 did not come to ready: it ended: cannot run it"
    assert bench.engine.rolling == {}


def test_rolling_restart_without_overlap_stops_when_one_does_not_come_back() -> None:
    bench = Bench(web(3, overlap=False, restart=RestartPolicy(jitter="none")))
    bench.up()
    bench.tell(Restart((WEB, WEB2, WEB3), "ann"))
    bench.ended(WEB)
    bench.tell(SpawnFailed(WEB, 2, "cannot run it"))  # the first failure is enough
    stopped = bench.last(Kind.ROLLOUT_STOPPED)
    assert stopped.payload["replaced"] == ["web.1"]
    assert stopped.payload["not_replaced"] == ["web.2", "web.3"]
    assert "web.1 did not come to ready" in stopped.payload["reason"]
    assert bench.engine.rolling == {}
    assert bench.state(WEB) is State.STARTING  # and is tried again, as after any crash
    bench.tell(SpawnFailed(WEB, 3, "cannot run it"))
    assert bench.state(WEB) is State.BACKOFF
    assert [bench.engine.instances[s].run for s in (WEB2, WEB3)] == [1, 1]


def test_restart_of_what_is_down_starts_it() -> None:
    bench = Bench(web(2))
    bench.up()
    bench.settle(bench.tell(Stop((WEB,), "ann")))
    bench.finish(bench.tell(Restart((WEB, WEB2), "ann")))
    assert [bench.engine.instances[s].run for s in (WEB, WEB2)] == [2, 2]
    assert [bench.state(s) for s in (WEB, WEB2)] == [State.READY] * 2
    bench.check_quiet()


def test_an_operators_stop_ends_a_rolling_restart() -> None:
    bench = Bench(web(2, overlap=False))
    bench.up()
    bench.tell(Restart((WEB, WEB2), "ann"))
    bench.tell(Stop((WEB,), "ann"))
    assert not of(bench.ended(WEB), Spawn)
    assert bench.engine.rolling == {}
    assert bench.engine.instances[WEB2].run == 1
    assert bench.state(WEB2) is State.READY


def test_a_rolling_restart_skips_who_was_scaled_away() -> None:
    bench = Bench(web(3, overlap=False))
    bench.up()
    bench.tell(Restart((WEB, WEB2, WEB3), "ann"))
    bench.tell(Scale("web", 2, "ann"))  # its stop ends the rollout
    bench.settle(bench.ended(WEB3))
    bench.settle(bench.ended(WEB))
    assert set(bench.engine.instances) == {WEB, WEB2}
    assert bench.state(WEB) is State.READY


# -- probes, suspicion, balance


def test_suspicion_takes_out_of_the_balance_and_does_nothing_else() -> None:
    bench = Bench(web(2, probe=BOTH))
    bench.up()
    actions = bench.probe(WEB, False)
    assert of(actions, SetBalance) == [SetBalance("web", (2,))]
    assert not of(actions, Signal)
    assert bench.state(WEB) is State.READY
    assert bench.last(Kind.SUSPECTED).payload["reason"] == "readiness probe: refused"
    assert of(bench.probe(WEB), SetBalance) == [SetBalance("web", (1, 2))]
    assert bench.kinds(WEB)[-1] is Kind.CLEARED


def test_suspicion_of_all_leaves_the_balance_as_it_is_better_than_empty() -> None:
    bench = Bench(web(2, probe=BOTH))
    bench.up()
    bench.probe(WEB, False)
    bench.probe(WEB2, False)
    assert bench.engine.active["web"] == (1, 2)


def test_a_suspicion_by_one_probe_is_not_cleared_by_the_other() -> None:
    bench = Bench(web(2, probe=BOTH))
    bench.up()
    bench.probe(WEB, False, ProbeKind.LIVENESS)
    bench.probe(WEB, True, ProbeKind.READINESS)
    assert bench.engine.instances[WEB].suspected
    bench.probe(WEB, True, ProbeKind.LIVENESS)
    assert not bench.engine.instances[WEB].suspected


def test_readiness_never_restarts() -> None:
    bench = Bench(web(2, probe=READINESS))
    bench.up()
    for _ in range(20):
        assert not of(bench.probe(WEB, False), Signal)
    assert bench.state(WEB) is State.RUNNING
    assert bench.kinds(WEB).count(Kind.RUNNING) == 2  # on its way up, and now
    bench.probe(WEB)
    assert bench.state(WEB) is State.READY


def test_liveness_kills_and_starts_again() -> None:
    bench = Bench(web(2, probe=BOTH))
    bench.up()
    assert not of(bench.probe(WEB, False, ProbeKind.LIVENESS), Signal)
    actions = bench.probe(WEB, False, ProbeKind.LIVENESS)
    assert of(actions, Signal) == [Signal(WEB, 1, "SIGKILL", "all")]
    assert of(actions, Unwatch) == [Unwatch(WEB, 1)]
    assert bench.last(Kind.UNHEALTHY).payload["reason"] == "liveness probe: refused"
    assert of(bench.ended(WEB, KILLED), Spawn) == [Spawn(WEB, 2, 1)]
    assert bench.last(Kind.EXITED).payload["killed_for"] == "liveness probe: refused"
    assert bench.last(Kind.EXITED).payload["run"] == 1


def test_answers_that_come_too_late_count_for_nothing() -> None:
    bench = Bench(web(2, probe=BOTH))
    bench.up()
    run = bench.engine.instances[WEB].run
    bench.probe(WEB, False, ProbeKind.LIVENESS)
    bench.probe(WEB, False, ProbeKind.LIVENESS)
    old = ProbeResult(WEB, ProbeKind.READINESS, run, True, "200 OK", 0.1, 0.0)
    assert bench.tell(Probed(old)) == []  # it is stopping
    bench.ended(WEB, KILLED)
    bench.born(WEB)
    assert bench.tell(Probed(old)) == []  # it is another process
    assert bench.state(WEB) is State.RUNNING


def test_failures_that_everup_came_late_to_are_neutral() -> None:
    bench = Bench(web(2, probe=BOTH))
    bench.up()
    for _ in range(10):
        assert bench.probe(WEB, False, ProbeKind.LIVENESS, late_s=1.0) == []
    assert not bench.engine.instances[WEB].suspected


def test_a_verdict_is_postponed_while_everup_is_starved_but_not_for_ever() -> None:
    bench = Bench(web(2, probe=BOTH), starvation_max=3.0)
    bench.up()
    bench.probe(WEB, False, ProbeKind.LIVENESS)
    bench.tell(Lag(1.5))
    assert not of(bench.probe(WEB, False, ProbeKind.LIVENESS), Signal)
    assert bench.last(Kind.POSTPONED).payload == {
        "verdict": "liveness probe: refused",
        "sign": "everup's own loop was 1.50 s late",
    }
    for _ in range(2):
        bench.tell(Lag(1.5), 1.0)
        assert not of(bench.probe(WEB, False, ProbeKind.LIVENESS), Signal)
    assert bench.kinds(WEB).count(Kind.POSTPONED) == 1
    assert bench.engine.instances[WEB].suspected  # out of the balance all the while
    bench.tell(Lag(1.5), 1.0)
    assert of(bench.probe(WEB, False, ProbeKind.LIVENESS), Signal)


def test_a_postponed_verdict_falls_once_the_starvation_is_over() -> None:
    bench = Bench(web(2, probe=BOTH))
    bench.up()
    bench.tell(Lag(1.5))
    bench.probe(WEB, False, ProbeKind.LIVENESS)
    assert not of(bench.probe(WEB, False, ProbeKind.LIVENESS), Signal)
    bench.tell(Lag(0.0), 5.0)
    assert of(bench.probe(WEB, False, ProbeKind.LIVENESS), Signal)


def test_no_watchdog_verdict_while_pings_may_have_been_lost() -> None:
    bench = Bench(web(2, watchdog=Watchdog(interval=1.0)), starvation_max=3.0)
    bench.up()
    for _ in range(60):  # far longer than a starvation may last
        bench.tell(Lag(0.0, deaf=True), 0.2)
        assert not of(bench.tell(Tick()), Signal)
    assert bench.kinds(WEB).count(Kind.POSTPONED) == 1
    assert "notify socket" in bench.last(Kind.POSTPONED).payload["sign"]
    bench.tell(Notified(WEB2, (("WATCHDOG", "1"),)), 0.9)
    assert not of(bench.tell(Tick()), Signal)
    signals = []
    for _ in range(4):  # until there was a whole interval in which it would have been heard
        bench.tell(Notified(WEB2, (("WATCHDOG", "1"),)))
        signals += of(bench.tell(Tick(), 0.5), Signal)
    assert {signal.slot for signal in signals} == {WEB}


def test_who_reloads_is_out_of_the_balance_until_it_says_ready() -> None:
    bench = Bench(web(2, probe=READINESS, start_timeout=5.0))
    bench.up()

    def say(*fields: tuple[str, str]) -> None:
        bench.tell(Notified(WEB, fields), 0.1)

    say(("RELOADING", "1"))
    assert bench.engine.active["web"] == (2,)
    bench.probe(WEB)  # it still answers, by the old config
    assert bench.engine.active["web"] == (2,)
    say(("READY", "1"))
    assert bench.engine.active["web"] == (1, 2)
    say(("RELOADING", "1"), ("MONOTONIC_USEC", "0"))  # of a process before this one
    assert bench.engine.active["web"] == (1, 2)
    say(("RELOADING", "1"), ("MONOTONIC_USEC", str(int(bench.now * 1e6) + 1000)))
    assert bench.engine.active["web"] == (2,)
    bench.tell(Tick(), 4.0)
    bench.probe(WEB)
    assert bench.engine.active["web"] == (2,)
    bench.tell(Tick(), 2.0)  # it does not end: its probe has the word again
    bench.probe(WEB)
    assert bench.engine.active["web"] == (1, 2)


def test_who_reloads_for_ever_comes_back_without_a_probe_too() -> None:
    bench = Bench(web(2, start_timeout=5.0))
    bench.up()
    bench.tell(Notified(WEB, (("RELOADING", "1"),)))
    assert bench.engine.active["web"] == (2,)
    bench.tell(Tick(), 6.0)
    assert bench.engine.active["web"] == (1, 2)


def test_restart_reset_forgets_the_failures() -> None:
    bench = Bench(web(1))
    bench.up()
    for _ in range(2):
        bench.settle(bench.ended(WEB, KILLED))
        bench.settle(bench.tell(Tick(), 3.0))
    before = bench.engine.instances[WEB]
    assert before.attempt
    bench.tell(Notified(WEB, (("RESTART_RESET", "1"),)))
    after = bench.engine.instances[WEB]
    assert (after.attempt, after.crashes, after.parked) == (0, (), False)
    assert bench.kinds(WEB)[-1] == Kind.STABLE  # the next engine knows as well


def test_pressure_of_the_machine_is_no_excuse_where_others_answer() -> None:
    for others in (True, False):
        bench = Bench(web(2, probe=BOTH))
        bench.up()
        bench.tell(Tick(), 60.0)  # the answers of the start are long past
        bench.tell(Lag(0.0, 90.0))
        bench.probe(WEB, False, ProbeKind.LIVENESS)
        if others:
            bench.probe(WEB2)
        actions = bench.probe(WEB, False, ProbeKind.LIVENESS)
        assert bool(of(actions, Signal)) is others


def test_a_standby_takes_over_and_stays() -> None:
    bench = Bench(web(1, standby=1))
    bench.up()
    assert bench.engine.active["web"] == (1,)
    actions = bench.ended(WEB, KILLED)
    assert of(actions, SetBalance) == [SetBalance("web", (2,))]
    bench.settle(actions)
    assert bench.state(WEB) is State.READY
    assert bench.engine.active["web"] == (2,)


def test_startup_probe_holds_the_others_back() -> None:
    probes = Probes(startup=Probe(tcp="listen"), readiness=Probe(tcp="listen"))
    bench = Bench(web(1, probe=probes))
    bench.tell(Up())
    assert of(bench.born(WEB), Watch) == [Watch(WEB, 1, startup=True)]
    assert bench.probe(WEB, True, ProbeKind.READINESS) == []
    actions = bench.probe(WEB, True, ProbeKind.STARTUP)
    assert of(actions, Watch) == [Watch(WEB, 1, startup=False)]
    assert bench.state(WEB) is State.RUNNING


# -- sd_notify


def test_notify_service_is_ready_on_its_word() -> None:
    bench = Bench(db(notify=True, start_timeout=5.0))
    bench.tell(Up())
    bench.born(DB)
    assert bench.state(DB) is State.STARTING
    bench.tell(Notified(DB, (("STATUS", "loading"), ("EXTEND_TIMEOUT_USEC", "20000000"))))
    assert bench.engine.instances[DB].status_text == "loading"
    assert not of(bench.tell(Tick(), 10.0), Signal)
    bench.tell(Notified(DB, (("READY", "1"),)))
    assert bench.state(DB) is State.READY


def test_watchdog_silence_kills_and_each_ping_buys_time() -> None:
    bench = Bench(db(notify=True, watchdog=Watchdog(1.0)))
    bench.tell(Up())
    bench.born(DB)
    bench.tell(Notified(DB, (("READY", "1"),)))
    for _ in range(5):
        bench.tell(Notified(DB, (("WATCHDOG", "1"),)), 0.9)
        assert not of(bench.tell(Tick()), Signal)
    assert of(bench.tell(Tick(), 1.1), Signal) == [Signal(DB, 1, "SIGKILL", "all")]
    assert "watchdog" in bench.last(Kind.UNHEALTHY).payload["reason"]


# -- sockets and the end


def test_sockets_stay_open_through_a_crash_and_close_when_all_is_down_and_unwanted() -> None:
    bench = Bench(web(2))
    bench.up()
    assert not of(bench.ended(WEB, CRASH), CloseSockets)
    bench.born(WEB)
    assert not of(bench.tell(Stop((WEB, WEB2), "ann")), CloseSockets)
    assert not of(bench.ended(WEB), CloseSockets)
    assert of(bench.ended(WEB2), CloseSockets) == [CloseSockets("web", LISTEN)]
    assert of(bench.tell(Start((WEB,), "ann")), OpenSockets) == [OpenSockets("web", 2)]


def test_down_stops_in_order_then_quits_once() -> None:
    bench = Bench(db(), web(2, depends_on=("db",)))
    bench.up()
    actions = bench.tell(Down("ann"))
    assert [a.slot for a in of(actions, Signal)] == [WEB2, WEB]
    assert bench.tell(Down("bob")) == []
    bench.ended(WEB)
    actions = bench.ended(WEB2)
    assert of(actions, CloseSockets) == [CloseSockets("web", LISTEN)]
    assert [a.slot for a in of(actions, Signal)] == [DB]
    actions = bench.ended(DB)
    assert actions[-1] == Quit(0)
    assert bench.engine.finished
    assert not of(bench.tell(Tick(), 1.0), Quit)


def test_down_does_not_start_what_crashes_or_waits() -> None:
    bench = Bench(db(probe=READINESS), web(1, depends_on=("db",)))
    bench.tell(Up())
    bench.born(DB)
    bench.tell(Down("ann"))
    actions = bench.ended(DB, CRASH)
    assert not of(actions, Spawn)
    assert of(actions, Quit)


def test_down_of_nothing_quits_at_once() -> None:
    bench = Bench(db(autostart=False))
    bench.tell(Up())
    assert of(bench.tell(Down("ann")), Quit) == [Quit(0)]


# -- takeover


def test_adopted_processes_go_on_untouched() -> None:
    bench = Bench(web(2, probe=READINESS))
    adopted = tuple(Adopted(s, 4, 70, State.READY, 900.0, 3) for s in (WEB, WEB2))
    actions = bench.tell(Up(adopted=adopted, active=(("web", (1, 2)),)))
    assert not of(actions, Signal)
    assert not of(actions, Spawn)
    assert of(actions, Watch) == [Watch(WEB, 4, startup=False), Watch(WEB2, 4, startup=False)]
    assert [bench.state(s) for s in (WEB, WEB2)] == [State.READY] * 2
    assert of(bench.ended(WEB, CRASH), Spawn) == [Spawn(WEB, 5, 1)]
    assert bench.engine.instances[WEB].restarts == 4


def test_adopted_but_unwanted_is_stopped_and_stopping_is_waited_for() -> None:
    bench = Bench(db(stop_timeout=5.0), web(1))
    adopted = (
        Adopted(DB, 2, 70, State.STOPPING, 900.0, signalled=True),
        Adopted(WEB, 3, 71, State.READY, 900.0),
    )
    actions = bench.tell(Up(wanted=((DB, False), (WEB, False)), adopted=adopted))
    assert [a.slot for a in of(actions, Signal)] == [WEB]
    assert of(bench.tell(Tick(), 5.1), Signal) == [Signal(DB, 2, "SIGKILL", "all")]
    bench.ended(DB, KILLED)
    bench.ended(WEB)
    assert bench.state(DB) is State.STOPPED
    assert bench.state(WEB) is State.STOPPED


def test_a_stop_signal_that_was_not_sent_before_the_engine_died_is_sent() -> None:
    bench = Bench(db())
    adopted = (Adopted(DB, 2, 70, State.STOPPING, 900.0),)
    actions = bench.tell(Up(wanted=((DB, False),), adopted=adopted))
    assert of(actions, Signal) == [Signal(DB, 2, "SIGTERM")]


def test_a_takeover_goes_on_with_taking_down() -> None:
    bench = Bench(db())
    up = Up(adopted=(Adopted(DB, 1, 70, State.READY, 900.0),), quitting=True)
    assert [a.slot for a in of(bench.tell(up), Signal)] == [DB]
    assert of(bench.ended(DB), Quit) == [Quit(0)]


def test_done_oneshots_are_not_run_again() -> None:
    bench = Bench(db(type="oneshot"), web(1, depends_on=("db",)))
    actions = bench.tell(Up(done=(DB,), runs=((DB, 1),)))
    assert of(actions, Spawn) == [Spawn(WEB, 1, 1)]


# -- timers


def test_one_timer_for_each_slot_however_often_its_deadline_moves() -> None:
    bench = Bench(db(notify=True, watchdog=Watchdog(2.0)), web(2))
    bench.up()
    bench.tell(Notified(DB, (("READY", "1"),)))
    for _ in range(500):
        bench.tell(Notified(DB, (("WATCHDOG", "1"),)))
        bench.tell(Tick())
    assert len(bench.engine._timers) <= 2 * len(bench.engine.instances)
    assert {slot for slot, _run in bench.engine._timer_of} <= set(bench.engine.instances)


def test_ticks_come_to_rest() -> None:
    """After each tick at the deadline the next one lies ahead: no loop of ticks."""
    bench = Bench(db(), web(2, probe=BOTH))
    bench.up()
    deadlines: list[float] = []
    for _ in range(20):
        due = bench.engine.next_deadline()
        if due is None:
            break
        deadlines.append(due)
        bench.now = max(bench.now, due)
        bench.tell(Tick(), 0.0)
    else:
        raise AssertionError("timers without end")
    assert all(a <= b for a, b in pairwise(deadlines))


def test_stable_resets_the_backoff() -> None:
    bench = Bench(db(restart=RestartPolicy(jitter="none", reset_after=10.0)))
    bench.up()
    for _ in range(3):
        bench.ended(DB, CRASH)
        bench.tell(Tick(), 1.0)
        bench.born(DB)
    assert bench.engine.instances[DB].attempt == 3
    bench.tell(Tick(), 10.1)
    assert bench.engine.instances[DB].attempt == 0
    assert bench.kinds(DB)[-1] is Kind.STABLE


def test_the_spec_is_not_changed_by_scaling() -> None:
    spec = Spec({"web": web(1)})
    engine = Engine(spec, random=lambda: 0.0)
    engine.handle(Up(), 1.0)
    engine.handle(Scale("web", 2, "ann"), 2.0)
    assert spec.service["web"] == replace(web(1))
    assert engine.services["web"].replicas == 2
