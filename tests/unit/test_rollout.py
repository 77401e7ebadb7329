"""Rollouts: processes are replaced on purpose, without a gap, or what was before comes back."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from _bench import (
    BOTH,
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

from everup.model.action import (
    Action,
    CloseSockets,
    EmptyQueue,
    Forget,
    GiveTime,
    OpenSockets,
    Quit,
    Record,
    SetBalance,
    Signal,
    Spawn,
    Unwatch,
    Watch,
    WatchDrain,
)
from everup.model.event import (
    Down,
    Drained,
    Event,
    Exited,
    Restart,
    Scale,
    Spawned,
    SpawnFailed,
    Start,
    Stop,
    Tick,
)
from everup.model.instance import Slot, State
from everup.model.journal import Kind
from everup.model.signal import ProbeKind
from everup.model.spec import Group, Hooks, Probe, Probes, Rollout, Strategy
from everup.model.spec import Restart as RestartPolicy

ALL = (WEB, WEB2, WEB3)
NO_PROBE = Rollout(min_ready=0.0)
FORKS = Probes(startup=Probe(tcp="listen"), readiness=Probe(tcp="listen"))


def ready_bench(replicas: int = 2, **more: object) -> Bench:
    bench = Bench(web(replicas, **({"probe": READINESS} | more)))
    bench.up()
    bench.records.clear()
    return bench


def names(actions: list[Action]) -> list[str]:
    """What the actions are, records by their kind."""
    return [a.kind.value if isinstance(a, Record) else type(a).__name__ for a in actions]


# -- with overlap


def test_the_successor_gets_a_lane_of_its_own_and_is_ready_before_the_old_one_drains() -> None:
    bench = ready_bench(1)
    actions = bench.tell(Restart((WEB,), "ann"))
    assert of(actions, OpenSockets) == [OpenSockets("web", 2)]
    assert of(actions, Spawn) == [Spawn(WEB, 2, 2)]
    assert not of(actions, SetBalance)
    assert bench.outgoing(WEB).state is State.READY
    assert bench.state(WEB) is State.STARTING
    assert bench.engine.active["web"] == (1,)  # the old one serves all the while
    accepts, answers = of(bench.born(WEB), Watch)
    assert accepts == Watch(WEB, 2, startup=True)  # that it takes a connection in is a part of it
    assert answers == Watch(WEB, 2, startup=False)
    assert bench.engine.active["web"] == (1,)

    actions = bench.probe(WEB)
    assert names(actions) == [
        "instance.ready", "instance.draining", "GiveTime", "Unwatch", "WatchDrain",
        "balance.changed", "SetBalance",
    ]  # fmt: skip
    assert of(actions, SetBalance) == [SetBalance("web", (2,))]
    assert of(actions, Unwatch) == [Unwatch(WEB, 1)]
    actions = bench.tell(Drained(WEB, 1))
    assert names(actions) == ["instance.stopping", "instance.signalled", "Signal"]
    assert of(actions, Signal) == [Signal(WEB, 1, "SIGTERM")]
    actions = bench.ended(WEB, run=1)
    assert not of(actions, Spawn)
    assert bench.state(WEB) is State.READY
    bench.check_quiet()


def test_what_the_journal_says_of_it() -> None:
    bench = ready_bench(1)
    bench.finish(bench.tell(Restart((WEB,), "ann")))
    about = {r.kind: r for r in bench.records}
    started = about[Kind.ROLLOUT].payload
    assert started == {
        "gen": 1, "how": "restart", "slots": ["web.1"], "batch": 1, "overlap": True, "by": "ann",
    }  # fmt: skip
    outgoing = about[Kind.OUTGOING].payload
    assert (outgoing["run"], outgoing["lane"], outgoing["gen"]) == (1, 1, 0)
    assert (outgoing["pid"], outgoing["state"]) == (100, "ready")
    starting, spawned = about[Kind.STARTING].payload, about[Kind.SPAWNED].payload
    assert (starting["run"], starting["lane"], starting["gen"]) == (2, 2, 1)
    assert (spawned["run"], spawned["lane"], spawned["gen"], spawned["restarts"]) == (2, 2, 1, 1)
    assert about[Kind.DRAINING].payload == {"run": 1, "reason": "replaced by run 2"}
    assert about[Kind.ROLLOUT_DONE].payload["slots"] == ["web.1"]
    order = [r.kind for r in bench.records]
    wanted = [
        Kind.WANTED, Kind.ROLLOUT, Kind.OUTGOING, Kind.STARTING, Kind.SPAWNED, Kind.READY,
        Kind.DRAINING, Kind.STOPPING, Kind.EXITED, Kind.ROLLOUT_DONE,
    ]  # fmt: skip
    assert [kind for kind in order if kind in wanted] == wanted


def test_the_balance_flips_before_anybody_is_told_to_stop() -> None:
    """Without open connections to wait for as well."""
    bench = ready_bench(3)
    todo = bench.tell(Restart(ALL, "ann"))
    bench.finish(todo)
    for slot in ALL:
        signal = bench.done.index(Signal(slot, 1, "SIGTERM"))
        lane = next(a.lane for a in of(bench.done, Spawn) if (a.slot, a.run) == (slot, 1))
        before = of(bench.done[:signal], SetBalance)
        assert lane not in before[-1].lanes
        assert len(before[-1].lanes) == 3  # never fewer than before
    assert bench.runs("web") == [2, 2, 2]


def test_connections_in_the_queue_of_the_old_one_get_time() -> None:
    """It may have some that came before the balance changed: drain, though no time is set."""
    bench = ready_bench(1)
    bench.tell(Restart((WEB,), "ann"))
    bench.born(WEB)
    assert not of(bench.probe(WEB), Signal)
    assert bench.outgoing(WEB).state is State.DRAINING
    assert not of(bench.tell(Tick(), 0.9), Signal)
    assert of(bench.tell(Tick(), 0.2), Signal) == [Signal(WEB, 1, "SIGTERM")]


def test_a_drain_timeout_that_is_longer_holds() -> None:
    bench = ready_bench(1, drain_timeout=30.0)
    bench.tell(Restart((WEB,), "ann"))
    bench.born(WEB)
    bench.probe(WEB)
    assert not of(bench.tell(Tick(), 29.0), Signal)
    assert of(bench.tell(Tick(), 1.5), Signal) == [Signal(WEB, 1, "SIGTERM")]


def test_who_does_not_end_is_killed_and_the_next_one_waits_for_that() -> None:
    bench = ready_bench(2, stop_timeout=5.0)
    bench.tell(Restart((WEB, WEB2), "ann"))
    bench.born(WEB)
    bench.probe(WEB)
    bench.tell(Drained(WEB, 1))
    assert not of(bench.tell(Tick(), 4.0), Spawn)  # no three processes for two replicas
    actions = bench.tell(Tick(), 1.5)
    assert of(actions, Signal) == [Signal(WEB, 1, "SIGKILL", "all")]
    assert of(bench.ended(WEB, KILLED, run=1), Spawn) == [Spawn(WEB2, 2, 1)]


def test_the_end_of_the_old_one_starts_nothing_and_counts_as_no_crash() -> None:
    bench = ready_bench(1)
    bench.finish(bench.tell(Restart((WEB,), "ann")))
    new = bench.engine.instances[WEB]
    assert (new.run, new.attempt, new.crashes) == (2, 0, ())
    assert new.restarts == 1
    assert Kind.UNHEALTHY not in bench.kinds(WEB)


def test_lanes_stay_open_and_few() -> None:
    bench = ready_bench(3)
    for _ in range(5):
        bench.finish(bench.tell(Restart(ALL, "ann")))
    assert bench.runs("web") == [6, 6, 6]
    assert bench.engine.open_lanes["web"] == 4
    assert not of(bench.done, CloseSockets)
    opened = [a.lanes for a in of(bench.done, OpenSockets)]
    assert opened == [3, 4]
    bench.check_quiet()


def test_a_queue_is_not_emptied_that_a_successor_has() -> None:
    """Where the kernel steers nobody, both have one socket: who waits there waits for the new
    one."""
    bench = ready_bench(1)
    bench.engine.can_steer = lambda _service: False
    actions = bench.tell(Restart((WEB,), "ann"))
    assert of(actions, Spawn) == [Spawn(WEB, 2, 1)]
    bench.finish(actions)
    assert not of(bench.done, EmptyQueue)
    assert bench.engine.open_lanes["web"] == 1
    bench.check_quiet()


def test_a_queue_is_emptied_that_nobody_has_any_more() -> None:
    bench = ready_bench(1)
    bench.finish(bench.tell(Restart((WEB,), "ann")))
    assert of(bench.done, EmptyQueue) == [EmptyQueue("web", 1)]


def test_without_readiness_probe_a_successor_must_hold_out_for_a_while() -> None:
    bench = ready_bench(1, probe=Probes())
    bench.tell(Restart((WEB,), "ann"))
    actions = bench.born(WEB)
    assert bench.state(WEB) is State.READY
    assert not of(actions, WatchDrain)
    assert not of(bench.tell(Tick(), 0.9), WatchDrain)
    assert of(bench.tell(Tick(), 0.2), WatchDrain) == [WatchDrain(WEB, 1)]


def test_min_ready_starts_anew_when_readiness_is_lost() -> None:
    bench = ready_bench(1, rollout=Rollout(min_ready=10.0))
    bench.tell(Restart((WEB,), "ann"))
    bench.born(WEB)
    assert not of(bench.probe(WEB), WatchDrain)
    bench.tell(Tick(), 6.0)
    for _ in range(3):
        bench.probe(WEB, False)
    assert bench.state(WEB) is State.RUNNING
    bench.probe(WEB)
    assert not of(bench.tell(Tick(), 6.0), WatchDrain)
    assert of(bench.tell(Tick(), 4.1), WatchDrain)


def test_a_successor_that_is_suspected_is_not_trusted_yet() -> None:
    bench = ready_bench(1, probe=BOTH, rollout=Rollout(min_ready=5.0))
    bench.tell(Restart((WEB,), "ann"))
    bench.born(WEB)
    bench.probe(WEB)
    bench.probe(WEB, False, ProbeKind.LIVENESS)
    assert bench.engine.instances[WEB].suspected
    assert not of(bench.tell(Tick(), 6.0), WatchDrain)
    assert bench.engine.active["web"] == (1,)
    actions = bench.probe(WEB, True, ProbeKind.LIVENESS)
    assert of(actions, WatchDrain) == [WatchDrain(WEB, 1)]


def test_dependents_need_not_stop_or_wait() -> None:
    bench = Bench(web(1, probe=READINESS), db(depends_on=("web",)))
    bench.up()
    bench.tell(Restart((WEB,), "ann"))
    actions = bench.ended(DB, CRASH)  # in the middle of it
    assert of(actions, Spawn) == [Spawn(DB, 2)]  # the old one is ready all the while


# -- batches and pauses


@pytest.mark.parametrize("overlap", [True, False])
def test_batches(overlap: bool) -> None:
    bench = ready_bench(5, rollout=Rollout(batch=2), overlap=overlap)
    slots = tuple(Slot("web", n) for n in range(1, 6))
    bench.tell(Restart(slots, "ann"))
    seen = []
    for _ in range(3):
        turns = [turn.slot for turn in bench.rolling().turns]
        seen.append([slot.replica for slot in turns])
        for slot in turns:
            if not overlap:
                if bench.state(slot) is State.DRAINING:  # others serve meanwhile
                    bench.tell(Drained(slot, 1))
                assert bench.state(slot) is State.STOPPING
                bench.ended(slot)
            bench.born(slot)
            bench.probe(slot)
        for slot in turns if overlap else ():
            bench.tell(Drained(slot, 1))
            bench.ended(slot, run=1)
    assert seen == [[1, 2], [3, 4], [5]]
    assert bench.runs("web") == [2] * 5
    bench.check_quiet()


def test_a_batch_waits_for_its_slowest() -> None:
    bench = ready_bench(3, rollout=Rollout(batch=2))
    bench.tell(Restart(ALL, "ann"))
    bench.born(WEB)
    bench.born(WEB2)
    assert of(bench.probe(WEB), WatchDrain) == [WatchDrain(WEB, 1)]  # each as soon as it may
    bench.tell(Drained(WEB, 1))
    assert not of(bench.ended(WEB, run=1), Spawn)
    bench.probe(WEB2)
    bench.tell(Drained(WEB2, 1))
    assert [a.slot for a in of(bench.ended(WEB2, run=1), Spawn)] == [WEB3]


@pytest.mark.parametrize(("batch", "first"), [(1, 1), (2, 2), (3, 2), (9, 2)])
def test_without_overlap_one_that_is_ready_is_left(batch: int, first: int) -> None:
    bench = ready_bench(3, overlap=False, rollout=Rollout(batch=batch))
    assert len(of(bench.tell(Restart(ALL, "ann")), GiveTime)) == first
    assert bench.engine.active["web"]


def test_without_overlap_what_came_before_the_balance_changed_is_served() -> None:
    """Where another one serves meanwhile; a last one gets its signal at once, and who comes then
    waits in its socket."""
    bench = ready_bench(2, overlap=False)
    assert not of(bench.tell(Restart((WEB,), "ann")), Signal)
    assert bench.state(WEB) is State.DRAINING
    assert bench.engine.active["web"] == (2,)
    assert of(bench.tell(Drained(WEB, 1)), Signal)
    lone = ready_bench(1, overlap=False)
    assert of(lone.tell(Restart((WEB,), "ann")), Signal)


def test_one_that_does_not_serve_yet_leaves_its_socket_and_what_waits_there() -> None:
    """Beside it, its successor would get another socket, and who waits at this one no answer."""
    bench = ready_bench(1)
    bench.ended(WEB, KILLED)
    bench.tell(Spawned(WEB, bench.engine.instances[WEB].run, 99))
    assert bench.state(WEB) is State.STARTING
    lane = bench.engine.instances[WEB].lane
    bench.tell(Restart((WEB,), "ann"))
    assert not bench.engine.outgoing
    (spawn,) = of(bench.ended(WEB), Spawn)
    assert spawn.lane == lane


def test_this_once_without_overlap() -> None:
    bench = ready_bench(2)
    bench.tell(Restart((WEB, WEB2), "ann", overlap=False))
    assert bench.last(Kind.ROLLOUT).payload["overlap"] is False
    assert not bench.engine.outgoing
    bench.tell(Drained(WEB, 1))
    assert not bench.engine.outgoing
    assert of(bench.ended(WEB, run=1), Spawn)
    bench.born(WEB)
    bench.probe(WEB)
    bench.tell(Drained(WEB2, 1))
    bench.settle(bench.ended(WEB2, run=1))
    assert bench.runs("web") == [2, 2]
    bench.tell(Restart((WEB,), "ann"))
    assert bench.engine.outgoing  # the next one is as the config says


@pytest.mark.parametrize("overlap", [True, False])
def test_a_pause_between_batches(overlap: bool) -> None:
    bench = ready_bench(2, rollout=Rollout(pause=20.0), overlap=overlap)
    bench.settle(bench.tell(Restart((WEB, WEB2), "ann")))
    assert bench.runs("web") == [2, 1]
    assert not of(bench.tell(Tick(), 19.0), Spawn)
    actions = bench.tell(Tick(), 1.5)
    bench.settle(actions)
    assert bench.runs("web") == [2, 2]
    bench.check_quiet()  # and none after the last


def test_a_replica_that_fails_in_the_pause_stops_the_rollout() -> None:
    bench = ready_bench(2, rollout=Rollout(pause=20.0))
    bench.settle(bench.tell(Restart((WEB, WEB2), "ann")))
    bench.tell(Tick(), 5.0)
    bench.settle(bench.ended(WEB, CRASH))
    bench.finish()
    assert bench.last(Kind.ROLLOUT_STOPPED).payload["not_replaced"] == ["web.2"]
    assert bench.engine.instances[WEB2].run == 1


# -- when it fails


def crashed(bench: Bench) -> list[Action]:
    bench.born(WEB)
    return bench.ended(WEB, CRASH)


def not_spawned(bench: Bench) -> list[Action]:
    return bench.tell(SpawnFailed(WEB, 2, "cannot run it"))


def never_ready(bench: Bench) -> list[Action]:
    bench.born(WEB)
    assert not of(bench.tell(Tick(), 29.0), Signal)
    return bench.tell(Tick(), 1.5)


def not_started(bench: Bench) -> list[Action]:
    """Its startup probe does not succeed within start_timeout."""
    bench.engine.services["web"] = web(3, probe=FORKS, start_timeout=30.0)
    bench.born(WEB)
    return bench.tell(Tick(), 30.5)


def condemned(bench: Bench) -> list[Action]:
    bench.born(WEB)
    bench.probe(WEB, False, ProbeKind.LIVENESS)
    return bench.probe(WEB, False, ProbeKind.LIVENESS)


@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        (crashed, "it ended: exit 1"),
        (not_spawned, "it ended: cannot run it"),
        (never_ready, "it is running after 30.5 s"),
        (not_started, "not started within 30 s: its startup probe has not succeeded"),
        (condemned, "liveness probe: refused"),
    ],
)
def test_the_old_one_goes_on_when_the_new_one_fails(
    fails: Callable[[Bench], list[Action]], reason: str
) -> None:
    bench = ready_bench(3, probe=BOTH, start_timeout=30.0)
    bench.tell(Restart(ALL, "ann"))
    actions = fails(bench)
    assert not of(actions, SetBalance)
    assert all(a.run == 2 for a in of(actions, Signal))
    bench.finish(actions)
    assert bench.runs("web") == [1, 1, 1]
    assert [bench.state(s) for s in ALL] == [State.READY] * 3
    assert bench.engine.active["web"] == (1, 2, 3)
    bench.check_quiet()
    stopped = bench.last(Kind.ROLLOUT_STOPPED).payload
    assert stopped["reason"] == f"web.1 did not come to ready: {reason}"
    assert (stopped["replaced"], stopped["not_replaced"]) == ([], ["web.1", "web.2", "web.3"])
    assert (stopped["gen"], stopped["how"]) == (1, "restart")
    assert bench.engine.instances[WEB].want
    assert bench.engine.instances[WEB].crashes == ()
    # Its number is used up: the next one has another.
    assert of(bench.ended(WEB, CRASH), Spawn) == [Spawn(WEB, 3, 1)]


def test_those_before_it_stay_replaced() -> None:
    bench = ready_bench(3)
    bench.sick.add((WEB2, 2))
    bench.finish(bench.tell(Restart(ALL, "ann")))
    stopped = bench.last(Kind.ROLLOUT_STOPPED).payload
    assert (stopped["replaced"], stopped["not_replaced"]) == (["web.1"], ["web.2", "web.3"])
    assert bench.runs("web") == [2, 1, 1]
    assert [bench.state(s) for s in ALL] == [State.READY] * 3
    bench.check_quiet()


def test_one_of_a_batch_fails() -> None:
    bench = ready_bench(3, rollout=Rollout(batch=3))
    bench.sick.add((WEB2, 2))
    bench.finish(bench.tell(Restart(ALL, "ann")))
    assert bench.runs("web") == [2, 1, 2]
    stopped = bench.last(Kind.ROLLOUT_STOPPED).payload
    assert (stopped["replaced"], stopped["not_replaced"]) == (["web.1", "web.3"], ["web.2"])
    bench.check_quiet()


def test_a_failed_restart_can_be_asked_for_again() -> None:
    bench = ready_bench(2)
    bench.sick.add((WEB, 2))
    bench.finish(bench.tell(Restart((WEB, WEB2), "ann")))
    bench.finish(bench.tell(Restart((WEB, WEB2), "ann")))
    assert bench.runs("web") == [3, 2]
    assert bench.last(Kind.ROLLOUT_DONE).payload["gen"] == 2
    bench.check_quiet()


def test_without_overlap_one_that_fails_is_tried_again_as_ever() -> None:
    bench = ready_bench(2, overlap=False, probe=Probes(), restart=RestartPolicy(jitter="none"))
    bench.tell(Restart((WEB, WEB2), "ann"))
    bench.ended(WEB)
    bench.born(WEB)
    bench.settle(bench.ended(WEB, CRASH))
    assert bench.last(Kind.ROLLOUT_STOPPED).payload["replaced"] == ["web.1"]
    assert bench.runs("web") == [3, 1]
    assert [bench.state(s) for s in (WEB, WEB2)] == [State.READY] * 2
    bench.check_quiet()


# -- what happens meanwhile


def test_the_old_one_crashes_meanwhile() -> None:
    """Connections go to the new one as soon as it can; nothing is started twice."""
    bench = ready_bench(1)
    bench.tell(Restart((WEB,), "ann"))
    actions = bench.ended(WEB, CRASH, run=1)
    assert not of(actions, Spawn)
    assert of(actions, SetBalance) == [SetBalance("web", (2,))]  # who comes waits there
    bench.born(WEB)
    bench.finish(bench.probe(WEB))
    assert bench.runs("web") == [2]
    assert bench.last(Kind.ROLLOUT_DONE)
    bench.check_quiet()


def test_both_crash() -> None:
    """Nothing is left to go back to: the slot is started again as after any crash."""
    bench = ready_bench(1)
    bench.tell(Restart((WEB,), "ann"))
    bench.ended(WEB, CRASH, run=1)
    bench.born(WEB)
    bench.finish(bench.ended(WEB, CRASH))
    assert bench.last(Kind.ROLLOUT_STOPPED).payload["replaced"] == ["web.1"]
    assert bench.runs("web") == [3]
    assert bench.state(WEB) is State.READY
    bench.check_quiet()


def test_the_old_one_fails_its_probes_meanwhile() -> None:
    bench = ready_bench(1, probe=BOTH)
    bench.tell(Restart((WEB,), "ann"))
    bench.born(WEB)
    for kind in (ProbeKind.READINESS, ProbeKind.LIVENESS, ProbeKind.LIVENESS):
        actions = bench.probe(WEB, False, kind, run=1)
    assert of(actions, Signal) == [Signal(WEB, 1, "SIGKILL", "all")]
    assert not of(bench.ended(WEB, KILLED, run=1), Spawn)
    bench.finish(bench.probe(WEB))
    assert bench.runs("web") == [2]
    bench.check_quiet()


def test_the_new_one_is_unready_again_while_the_old_one_drains() -> None:
    """Too late to go back: what is ready no more is not killed for that."""
    bench = ready_bench(1)
    bench.tell(Restart((WEB,), "ann"))
    bench.born(WEB)
    bench.probe(WEB)
    for _ in range(3):
        bench.probe(WEB, False)
    assert bench.state(WEB) is State.RUNNING
    bench.settle(bench.tell(Drained(WEB, 1)))
    bench.finish(bench.probe(WEB))
    assert bench.runs("web") == [2]
    bench.check_quiet()


@pytest.mark.parametrize("when", ["starting", "running", "draining"])
def test_an_operators_stop_wins_over_both(when: str) -> None:
    bench = ready_bench(1)
    bench.tell(Restart((WEB,), "ann"))
    if when != "starting":
        bench.born(WEB)
    if when == "draining":
        bench.probe(WEB)
    actions = bench.tell(Stop((WEB,), "bob"))
    assert len(of(actions, Signal)) == (1 if when == "draining" else 2)
    if when == "starting":
        bench.settle(actions)
        actions = bench.born(WEB, 2)  # too late
        assert of(actions, Signal) == [Signal(WEB, 2, "SIGKILL", "all")]
    bench.finish(actions)
    bench.finish(bench.tell(Tick(), 100.0))
    assert bench.processes == {}
    assert bench.state(WEB) is State.STOPPED
    assert not bench.engine.instances[WEB].want
    assert of(bench.done, CloseSockets) == [CloseSockets("web", LISTEN)]
    bench.check_quiet()


def test_a_stop_of_another_replica_ends_the_rollout() -> None:
    bench = ready_bench(2)
    bench.tell(Restart((WEB, WEB2), "ann"))
    bench.born(WEB)
    bench.finish(bench.tell(Stop((WEB2,), "bob")))
    assert bench.last(Kind.ROLLOUT_STOPPED).payload["reason"] == "stopped by bob"
    assert bench.runs("web") == [1, 1]
    assert [bench.state(s) for s in (WEB, WEB2)] == [State.READY, State.STOPPED]
    bench.check_quiet()


def test_who_was_stopped_before_its_turn_is_left_out() -> None:
    bench = ready_bench(3)
    bench.settle(bench.tell(Stop((WEB2,), "bob")))
    bench.finish(bench.tell(Restart((WEB, WEB3), "ann")))
    assert bench.runs("web") == [2, 1, 2]
    assert bench.state(WEB2) is State.STOPPED
    bench.check_quiet()


def test_start_meanwhile_changes_nothing() -> None:
    bench = ready_bench(2)
    todo = bench.tell(Restart((WEB, WEB2), "ann"))
    assert not of(bench.tell(Start((WEB, WEB2), "bob")), Spawn)
    bench.finish(todo)
    assert bench.runs("web") == [2, 2]
    bench.check_quiet()


def test_another_restart_meanwhile_begins_anew() -> None:
    bench = ready_bench(2)
    bench.tell(Restart((WEB, WEB2), "ann"))
    bench.born(WEB)
    bench.finish(bench.tell(Restart((WEB, WEB2), "bob")))
    assert "bob" in bench.last(Kind.ROLLOUT_STOPPED).payload["reason"]
    assert bench.last(Kind.ROLLOUT_DONE).payload["gen"] == 2
    assert bench.engine.instances[WEB].run > 2
    assert [bench.state(s) for s in (WEB, WEB2)] == [State.READY] * 2
    bench.check_quiet()


def test_scaled_up_meanwhile_no_lane_is_given_twice() -> None:
    bench = ready_bench(3)
    bench.tell(Restart((WEB,), "ann"))  # its successor has lane 4
    actions = bench.tell(Scale("web", 4, "ann"))
    assert of(actions, Spawn) == [Spawn(Slot("web", 4), 1, 5)]
    assert of(actions, OpenSockets) == [OpenSockets("web", 5)]
    bench.born(WEB)
    bench.settle(bench.probe(WEB))
    bench.finish(bench.born(Slot("web", 4)))
    assert sorted(i.lane for i in bench.engine.of("web")) == [2, 3, 4, 5]
    assert bench.engine.active["web"] == (2, 3, 4, 5)
    bench.check_quiet()


@pytest.mark.parametrize("when", ["starting", "running", "draining"])
def test_scaled_away_meanwhile(when: str) -> None:
    bench = ready_bench(2)
    actions = bench.tell(Restart((WEB2,), "ann"))
    if when != "starting":
        bench.born(WEB2)
    if when == "draining":
        bench.probe(WEB2)
    todo = bench.tell(Scale("web", 1, "ann"))
    if when == "starting":
        bench.settle(of(actions, Spawn))
    bench.settle(todo)
    bench.finish()
    assert set(bench.engine.instances) == {WEB}
    assert bench.engine.last_runs[WEB2] == 2
    assert [slot for slot, _ in bench.processes] == [WEB]
    assert of(bench.done, Forget) == [Forget(WEB2)]
    bench.check_quiet()
    assert of(bench.tell(Scale("web", 2, "ann")), Spawn)[0].run == 3


@pytest.mark.parametrize("when", ["starting", "running", "draining"])
def test_everup_down_meanwhile(when: str) -> None:
    bench = ready_bench(2)
    todo = of(bench.tell(Restart((WEB, WEB2), "ann")), Spawn)
    if when != "starting":
        todo = bench.born(WEB)
    if when == "draining":
        bench.probe(WEB)
    actions = bench.tell(Down("ann"))
    bench.settle([*todo, *actions])
    for _ in range(20):
        if bench.engine.finished:
            break
        due = bench.engine.next_deadline()
        assert due is not None
        bench.settle(bench.tell(Tick(), max(0.0, due - bench.now)))
    assert of(bench.done, Quit) == [Quit(0)]
    assert bench.processes == {}


@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
def test_a_crash_in_its_group_ends_the_rollout(strategy: Strategy) -> None:
    group = Group("app", ("db", "web"), strategy)
    bench = Bench(db(), web(1, probe=READINESS), groups=[group])
    bench.up()
    bench.tell(Restart((WEB,), "ann"))
    bench.born(WEB)
    actions = bench.ended(DB, CRASH)
    assert "db.1 crashed" in bench.last(Kind.ROLLOUT_STOPPED).payload["reason"]
    bench.finish(actions)
    bench.finish()
    assert bench.state(DB) is bench.state(WEB) is State.READY
    assert bench.engine.regrouping == {}
    bench.check_quiet()


def test_a_restart_of_many_services_goes_side_by_side() -> None:
    bench = Bench(db(), web(1, probe=READINESS))
    bench.up()
    actions = bench.tell(Restart((DB, WEB), "ann"))
    assert [a.slot for a in of(actions, Spawn)] == [WEB]
    assert [a.slot for a in of(actions, Signal)] == [DB]
    bench.finish(actions)
    assert (bench.runs("db"), bench.runs("web")) == ([2], [2])
    bench.check_quiet()


# -- without overlap


def test_one_replica_that_cannot_run_twice_keeps_its_socket() -> None:
    bench = ready_bench(1, overlap=False)
    actions = bench.tell(Restart((WEB,), "ann"))
    assert not of(actions, Spawn)
    assert of(actions, Signal) == [Signal(WEB, 1, "SIGTERM")]
    assert bench.engine.active["web"] == (1,)  # connections queue there
    actions = bench.ended(WEB)
    assert not of(actions, CloseSockets)
    assert not of(actions, EmptyQueue)
    assert of(actions, Spawn) == [Spawn(WEB, 2, 1)]
    bench.finish(actions)
    assert bench.engine.active["web"] == (1,)
    bench.check_quiet()


def test_overlap_can_be_asked_for_without_sockets() -> None:
    bench = Bench(db(overlap=True))
    bench.up()
    actions = bench.tell(Restart((DB,), "ann"))
    assert of(actions, Spawn) == [Spawn(DB, 2)]
    assert not of(actions, Signal)
    bench.finish(actions)
    assert bench.runs("db") == [2]
    assert bench.state(DB) is State.READY
    bench.check_quiet()


def test_hooks_run_for_each_process() -> None:
    hooks = Hooks(pre_start=("a",), pre_stop=("b",), post_stop=("c",))
    bench = ready_bench(1, hooks=hooks)
    bench.finish(bench.tell(Restart((WEB,), "ann")))
    told = [(r.payload["hook"], r.payload["run"]) for r in bench.records if r.kind is Kind.HOOK]
    assert told == [("pre_start", 2), ("pre_stop", 1), ("post_stop", 1)]
    bench.check_quiet()


def test_what_is_not_up_is_only_started() -> None:
    bench = ready_bench(2, restart=RestartPolicy(jitter="none"))
    for _ in range(2):
        bench.ended(WEB, CRASH)
        if bench.state(WEB) is State.STARTING:
            bench.born(WEB)
    assert bench.state(WEB) is State.BACKOFF
    actions = bench.tell(Restart((WEB,), "ann"))
    assert of(actions, Spawn) == [Spawn(WEB, 3, 1)]
    assert Kind.ROLLOUT not in bench.kinds("web")


# -- timers


def test_wakes_do_not_pile_up() -> None:
    """However often something happens while a successor has to hold out."""
    bench = ready_bench(2, rollout=Rollout(min_ready=60.0))
    bench.tell(Restart((WEB,), "ann"))
    bench.born(WEB)
    bench.probe(WEB)
    for _ in range(200):
        bench.probe(WEB2, False)  # suspected, and not: each is a look at the service
        bench.probe(WEB2, True)
    assert bench.engine.box.waiting < 20


# -- the engine dies


def restart_of(**more: object) -> Callable[[], tuple[Bench, tuple[Event, ...]]]:
    def make() -> tuple[Bench, tuple[Event, ...]]:
        return ready_bench(2, **more), (Restart((WEB, WEB2), "ann"),)

    return make


def sick_restart() -> tuple[Bench, tuple[Event, ...]]:
    bench = ready_bench(2)
    bench.sick.add((WEB2, 2))
    return bench, (Restart((WEB, WEB2), "ann"),)


def crash_of_the_old_one() -> tuple[Bench, tuple[Event, ...]]:
    return ready_bench(1), (Restart((WEB,), "ann"), Exited(WEB, 1, CRASH))


STORIES = {
    "overlap": restart_of(),
    "no overlap": restart_of(overlap=False),
    "batch": restart_of(rollout=Rollout(batch=2)),
    "hooks": restart_of(hooks=Hooks(pre_start=("a",), pre_stop=("b",), post_stop=("c",))),
    "startup": restart_of(probe=FORKS),
    "min_ready": restart_of(rollout=Rollout(min_ready=3.0)),
    "the old one crashes": crash_of_the_old_one,
}


@pytest.mark.parametrize("story", STORIES)
def test_the_engine_dies_at_any_step_and_the_end_is_the_same(story: str) -> None:
    bench, events = STORIES[story]()
    bench.play(*events)
    bench.check_quiet()
    slots, steps = list(bench.engine.instances), bench.steps
    assert steps > 10
    for die_at in range(1, steps + 1):
        bench, events = STORIES[story]()
        bench.die_at = {die_at}
        bench.play(*events)
        where = f"killed at step {die_at} of {steps}"
        assert bench.deaths == 1, where
        bench.check_quiet()
        engine = bench.engine
        assert list(engine.instances) == slots, where
        for instance in engine.instances.values():
            assert instance.state is State.READY, where
            born = [run for slot, run in bench.births if slot == instance.slot]
            assert born == [1, instance.run], where  # replaced, and only once
            assert instance.run <= 3, where  # a number is lost where nothing came of it
        assert engine.active["web"] == tuple(sorted(i.lane for i in engine.of("web"))), where
        assert bench.told(Kind.ROLLOUT_DONE), where
        assert not bench.told(Kind.ROLLOUT_STOPPED), where


@pytest.mark.parametrize("story", STORIES)
def test_the_next_engine_dies_as_well_while_it_takes_over(story: str) -> None:
    bench, events = STORIES[story]()
    bench.play(*events)
    for die_at in range(1, bench.steps + 1):
        bench, events = STORIES[story]()
        later = 2 + die_at % 7
        bench.die_at = {die_at, die_at + later}
        bench.play(*events)
        where = f"killed at step {die_at} and {later} steps later"
        bench.check_quiet()
        for instance in bench.engine.instances.values():
            assert instance.state is State.READY, where
            born = [run for slot, run in bench.births if slot == instance.slot]
            assert born == [1, instance.run], where
        assert not bench.told(Kind.ROLLOUT_STOPPED), where


def test_the_engine_dies_at_any_step_of_a_restart_that_fails() -> None:
    bench, events = sick_restart()
    bench.play(*events)
    steps = bench.steps
    for die_at in range(1, steps + 1):
        bench, events = sick_restart()
        bench.die_at = {die_at}
        bench.play(*events)
        bench.check_quiet()
        where = f"killed at step {die_at} of {steps}"
        assert [bench.state(s) for s in (WEB, WEB2)] == [State.READY] * 2, where
        # Either it was stopped and the old one goes on, or the journal had lost sight of the
        # first successor and another one came to ready.
        runs = bench.engine.instances[WEB2].run
        assert (runs == 1) == bool(bench.told(Kind.ROLLOUT_STOPPED)), where
        assert runs in (1, 3), where


def test_a_take_over_keeps_the_roles_of_two_processes_in_one_slot() -> None:
    bench = ready_bench(1)
    bench.tell(Restart((WEB,), "ann"))
    bench.born(WEB)
    bench.die()
    up, *_ = bench._todo
    bench._todo.clear()
    actions = bench.tell(up)
    assert not of(actions, Spawn)
    assert not of(actions, Signal)
    assert bench.outgoing(WEB).run == 1
    assert bench.outgoing(WEB).state is State.READY
    assert bench.engine.instances[WEB].run == 2
    assert [bench.outgoing(WEB).lane, bench.engine.instances[WEB].lane] == [1, 2]
    assert bench.engine.active["web"] == (1,)
    assert [r.payload["run"] for r in bench.records if r.kind is Kind.ADOPTED] == [1, 2]
    assert bench.rolling().gen == 1
    actions = bench.probe(WEB)
    assert of(actions, WatchDrain) == [WatchDrain(WEB, 1)]


def test_the_lanes_of_adopted_processes_count_as_open() -> None:
    bench = ready_bench(1)
    bench.finish(bench.tell(Restart((WEB,), "ann")))
    bench.die()
    up = bench._todo.pop(0)
    assert of(bench.tell(up), OpenSockets) == [OpenSockets("web", 2)]
    assert not of(bench.ended(WEB, CRASH), OpenSockets)


def test_states_only_go_where_the_table_says() -> None:
    """A whole restart, seen from the journal: each process ready once and gone once."""
    bench = ready_bench(3, rollout=Rollout(batch=2))
    bench.finish(bench.tell(Restart(ALL, "ann")))
    for slot in ALL:
        told = [
            (r.payload["run"], r.kind)
            for r in bench.records
            if r.subject == str(slot) and "run" in r.payload
        ]
        assert [kind for run, kind in told if run == 1] == [
            Kind.OUTGOING, Kind.DRAINING, Kind.STOPPING, Kind.SIGNALLED, Kind.EXITED,
            Kind.STOPPED,
        ]  # fmt: skip
        assert [kind for run, kind in told if run == 2] == [
            Kind.STARTING, Kind.SPAWNED, Kind.RUNNING, Kind.READY,
        ]  # fmt: skip
    seqs = [e.seq for e in bench.journal]
    assert all(a < b for a, b in pairwise(seqs))
