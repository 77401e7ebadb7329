"""Reload: a changed config is applied to what runs, all of it or nothing."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from _bench import (
    CRASH,
    DB,
    READINESS,
    WEB,
    WEB2,
    Bench,
    changed,
    db,
    of,
    spec_of,
    web,
)

from everup.engine.records import CannotChangeError
from everup.model.action import (
    CloseSockets,
    Commit,
    Configure,
    Discard,
    Forget,
    OpenSockets,
    Quit,
    Record,
    Signal,
    Spawn,
    Unwatch,
    Watch,
)
from everup.model.event import (
    Down,
    Drained,
    Reload,
    Restart,
    Scale,
    Start,
    Stop,
    Tick,
)
from everup.model.instance import Slot, State
from everup.model.journal import Kind
from everup.model.signal import ProbeKind
from everup.model.spec import (
    Everup,
    Group,
    Listener,
    Probe,
    Probes,
    Service,
    Spec,
    StormBrake,
    Strategy,
)
from everup.model.spec import Restart as RestartPolicy

EXTRA = Slot("extra", 1)
V2 = ("serve", "v2")
CRASHES, MUTE, REFUSED = ("serve", "crash"), ("serve", "mute"), ("serve", "refused")
ELSEWHERE = (Listener("main", "127.0.0.1:9090"),)


def extra(**more: object) -> Service:
    given: dict[str, object] = {"name": "extra", "command": ("serve",), "probe": READINESS}
    return Service(**(given | more))  # type: ignore[arg-type]


def shop(**more: object) -> Bench:
    """A database and two replicas that depend on it, ready."""
    bench = Bench(
        db(),
        web(2, probe=READINESS, depends_on=("db",), start_timeout=30.0, **more),  # type: ignore[arg-type]
    )
    bench.up()
    bench.records.clear()
    bench.done.clear()
    return bench


def new(bench: Bench, name: str, **more: object) -> Service:
    return replace(bench.engine.spec.service[name], **more)  # type: ignore[arg-type]


def reload(bench: Bench, spec: Spec) -> None:
    """From beginning to end."""
    bench.finish(bench.tell(Reload(spec, "ann")))
    bench.check_quiet()


def commands(bench: Bench) -> dict[str, tuple[str, ...]]:
    """What runs, and by which command."""
    return {str(slot): p.command for (slot, _), p in sorted(bench.processes.items())}


# -- what is told first


def test_the_intent_says_what_changes() -> None:
    bench = shop()
    spec = changed(
        bench.spec,
        db=new(bench, "db", stop_timeout=3.0),
        web=new(bench, "web", command=V2, replicas=3),
        extra=extra(),
    )
    actions = bench.tell(Reload(replace(spec, everup=Everup(starvation_max=2.0)), "ann"))
    assert isinstance(actions[0], Record)
    assert actions[0].kind is Kind.RELOADING
    assert actions[0].durable
    assert actions[0].payload == {
        "by": "ann", "added": ["extra"], "removed": [], "restarted": ["web"], "changed": ["db"],
        "settings": ["everup.starvation_max"],
    }  # fmt: skip


def test_a_change_that_cannot_be_applied_is_refused_and_nothing_happens() -> None:
    bench = shop()
    before = dict(bench.engine.instances)
    spec = replace(changed(bench.spec, extra=extra()), everup=Everup(state_dir="/elsewhere"))
    with pytest.raises(CannotChangeError, match=r"state_dir changes .* everup down and everup up"):
        bench.engine.handle(Reload(spec, "ann"), bench.now)
    assert bench.engine.reloading is None
    assert bench.engine.instances == before
    assert "extra" not in bench.engine.services
    bench.candidate = None
    reload(bench, changed(bench.spec, extra=extra()))


def test_the_same_config_is_accepted_at_once() -> None:
    bench = shop()
    actions = bench.tell(Reload(bench.spec, "ann"))
    assert not of(actions, Spawn)
    assert not of(actions, Signal)
    assert of(actions, Commit) == [Commit()]
    bench.check_quiet()


# -- what is added, removed, restarted, changed


def test_added_comes_up_then_changed_is_replaced_then_removed_stops() -> None:
    bench = shop()
    spec = changed(bench.spec, db=None, web=new(bench, "web", command=V2, depends_on=("extra",)))
    spec = changed(spec, extra=extra())
    actions = bench.tell(Reload(spec, "ann"))
    assert of(actions, Spawn) == [Spawn(EXTRA, 1)]
    bench.born(EXTRA)
    assert not of(bench.done, Signal)
    assert bench.engine.spec != spec  # nothing is decided yet
    bench.settle(bench.probe(EXTRA))
    assert bench.runs("web") == [2, 2]
    assert of(bench.done, Commit) == [Commit()]
    assert of(bench.done, Forget) == [Forget(DB)]
    told = [
        f"{r.kind.value} {r.subject}"
        for r in bench.records
        if r.kind in (Kind.ROLLOUT, Kind.ROLLOUT_DONE, Kind.RELOADED, Kind.READY)
        or (r.kind is Kind.STOPPING and r.subject == "db.1")
    ]
    assert told == [
        "instance.ready extra.1",
        "rollout.started web", "instance.ready web.1", "instance.ready web.2", "rollout.done web",
        "config.reloaded everup",
        "instance.stopping db.1",
    ]  # fmt: skip
    assert commands(bench) == {"extra.1": ("serve",), "web.1": V2, "web.2": V2}
    bench.check_quiet()
    assert bench.engine.spec == spec


def test_the_successor_is_what_the_new_config_says_and_the_old_one_is_not() -> None:
    """Each process is stopped by what it was started with."""
    bench = shop(stop_signal="SIGQUIT")
    spec = changed(bench.spec, web=new(bench, "web", command=V2, stop_signal="SIGINT"))
    bench.tell(Reload(spec, "ann"))
    assert bench.engine.definition(bench.outgoing(WEB)).command == ("serve",)
    assert bench.engine.definition(bench.engine.instances[WEB]).command == V2
    bench.born(WEB)
    bench.probe(WEB)
    assert of(bench.tell(Drained(WEB, 1)), Signal) == [Signal(WEB, 1, "SIGQUIT")]
    bench.finish(bench.ended(WEB, run=1))
    assert of(bench.tell(Stop((WEB,), "ann")), Signal) == [Signal(WEB, 2, "SIGINT")]


def test_a_crash_before_its_turn_brings_the_old_command_back() -> None:
    """Until its turn comes a replica is what it was: the new command is not proven."""
    bench = shop()
    bench.tell(Reload(changed(bench.spec, web=new(bench, "web", command=V2)), "ann"))
    bench.settle(bench.ended(WEB2, CRASH))
    assert commands(bench)["web.2"] == ("serve",)
    bench.born(WEB)
    bench.finish(bench.probe(WEB))
    assert commands(bench) == {"db.1": ("serve",), "web.1": V2, "web.2": V2}
    bench.check_quiet()


def test_those_that_others_depend_on_are_replaced_first() -> None:
    names = ("c", "b", "a")  # each depends on the next, and stands before it
    services = [
        Service(name, ("serve",), depends_on=tuple(names[n + 1 : n + 2]))
        for n, name in enumerate(names)
    ]
    bench = Bench(*services)
    bench.up()
    bench.records.clear()
    reload(bench, spec_of(*(replace(s, command=V2) for s in services)))
    assert bench.told(Kind.ROLLOUT) == [(Kind.ROLLOUT, name) for name in ("a", "b", "c")]
    began = [n for n, r in enumerate(bench.records) if r.kind is Kind.ROLLOUT]
    ended = [n for n, r in enumerate(bench.records) if r.kind is Kind.ROLLOUT_DONE]
    assert sorted([*began, *ended]) == [n for pair in zip(began, ended, strict=True) for n in pair]


def test_what_everup_goes_by_changes_without_a_restart() -> None:
    bench = shop()
    restart = RestartPolicy(jitter="none", delay=5.0)
    web_ = new(bench, "web", stop_timeout=3.0, drain_timeout=7.0, restart=restart)
    actions = bench.tell(Reload(changed(bench.spec, web=web_), "ann"))
    assert of(actions, Configure) == [Configure("web")]
    assert not of(actions, Spawn)
    assert not of(actions, Signal)
    assert not of(actions, Watch)
    bench.check_quiet()
    bench.tell(Stop((WEB,), "ann"))
    assert not of(bench.tell(Tick(), 6.9), Signal)
    assert of(bench.tell(Tick(), 0.2), Signal) == [Signal(WEB, 1, "SIGTERM")]
    assert of(bench.tell(Tick(), 3.1), Signal) == [Signal(WEB, 1, "SIGKILL", "all")]
    bench.born(WEB2)


def test_settings_of_everup_and_groups_hold_from_the_commit_on() -> None:
    bench = shop()
    group = Group("app", ("db", "web"), Strategy.ONE_FOR_ALL)
    spec = replace(bench.spec, group={"app": group}, everup=Everup(storm_brake=StormBrake(limit=7)))
    reload(bench, spec)
    assert bench.engine.spec.everup.storm_brake.limit == 7
    assert len(of(bench.ended(DB, CRASH), Signal)) == 2  # the members restart together
    bench.finish()


def test_depends_on_changes_in_place() -> None:
    bench = Bench(db(), web(1, probe=READINESS))
    bench.up()
    reload(bench, changed(bench.spec, web=new(bench, "web", depends_on=("db",))))
    assert bench.engine.dependents["db"] == ("web",)
    actions = bench.tell(Stop((DB, WEB), "ann"))
    assert [a.slot for a in of(actions, Signal)] == [WEB]


# -- probes


def test_changed_probes_ask_anew() -> None:
    bench = shop()
    liveness = Probe(tcp="listen", failure_threshold=2)
    probes = Probes(readiness=Probe(tcp="listen", interval=9.0), liveness=liveness)
    bench.probe(WEB, False)
    assert bench.engine.instances[WEB].suspected
    actions = bench.tell(Reload(changed(bench.spec, web=new(bench, "web", probe=probes)), "ann"))
    assert of(actions, Unwatch) == [Unwatch(WEB, 1), Unwatch(WEB2, 1)]
    assert of(actions, Watch) == [Watch(WEB, 1, startup=False), Watch(WEB2, 1, startup=False)]
    assert not of(actions, Spawn)
    assert bench.engine.probes == {}  # what the old probes counted is no more
    assert [bench.state(s) for s in (WEB, WEB2)] == [State.READY] * 2
    bench.probe(WEB)
    assert not bench.engine.instances[WEB].suspected
    for _ in range(2):
        actions = bench.probe(WEB, False, ProbeKind.LIVENESS)
    assert of(actions, Signal) == [Signal(WEB, 1, "SIGKILL", "all")]


def test_a_readiness_probe_that_is_taken_away_makes_ready() -> None:
    bench = shop()
    for _ in range(3):
        bench.probe(WEB, False)
    assert bench.state(WEB) is State.RUNNING
    spec = changed(bench.spec, web=new(bench, "web", probe=Probes()))
    actions = bench.tell(Reload(spec, "ann"))
    assert not of(actions, Watch)
    assert [bench.state(s) for s in (WEB, WEB2)] == [State.READY] * 2
    assert bench.engine.active["web"] == (1, 2)
    bench.check_quiet()


def test_a_suspicion_ends_with_the_probes_that_raised_it() -> None:
    bench = shop()
    bench.probe(WEB, False)
    reload(bench, changed(bench.spec, web=new(bench, "web", probe=Probes())))
    assert not bench.engine.instances[WEB].suspected
    assert bench.engine.active["web"] == (1, 2)


def test_a_readiness_probe_that_comes_in_addition_leaves_the_ready_ones_in_the_balance() -> None:
    bench = Bench(web(2))
    bench.up()
    actions = bench.tell(Reload(changed(bench.spec, web=new(bench, "web", probe=READINESS)), "a"))
    assert len(of(actions, Watch)) == 2
    assert bench.engine.active["web"] == (1, 2)
    for _ in range(3):
        bench.probe(WEB, False)
    assert bench.state(WEB) is State.RUNNING
    assert bench.engine.active["web"] == (2,)


def test_a_startup_probe_that_is_taken_away_lets_go_of_who_waits_for_it() -> None:
    both = Probes(startup=Probe(tcp="listen"), readiness=Probe(tcp="listen"))
    bench = Bench(web(1, probe=both))
    bench.tell(Start((WEB,), "ann"))
    bench.born(WEB)
    assert bench.state(WEB) is State.STARTING
    spec = changed(bench.spec, web=new(bench, "web", probe=READINESS))
    actions = bench.tell(Reload(spec, "ann"))
    assert of(actions, Watch) == [Watch(WEB, 1, startup=True)]  # it need only accept by now
    actions = bench.accept(WEB, 1)
    assert bench.state(WEB) is State.RUNNING
    assert of(actions, Watch) == [Watch(WEB, 1, startup=False)]
    bench.probe(WEB)
    assert bench.state(WEB) is State.READY


# -- numbers of replicas


def test_more_and_fewer_replicas() -> None:
    bench = shop()
    reload(bench, changed(bench.spec, web=new(bench, "web", replicas=3)))
    assert bench.runs("web") == [1, 1, 1]
    assert bench.engine.active["web"] == (1, 2, 3)
    assert bench.last(Kind.SCALED).payload == {"replicas": 3, "before": 2, "by": "the config"}
    reload(bench, changed(bench.spec, web=new(bench, "web", replicas=1)))
    assert bench.runs("web") == [1]
    assert bench.engine.active["web"] == (1,)


def test_standbys_come_and_go() -> None:
    bench = shop()
    reload(bench, changed(bench.spec, web=new(bench, "web", standby=1)))
    assert bench.runs("web") == [1, 1, 1]
    assert bench.engine.active["web"] == (1, 2)
    assert bench.engine.services["web"].standby == 1
    reload(bench, changed(bench.spec, web=new(bench, "web", standby=0)))
    assert bench.runs("web") == [1, 1]


def test_replicas_and_command_at_once() -> None:
    bench = shop()
    reload(bench, changed(bench.spec, web=new(bench, "web", replicas=3, command=V2)))
    assert bench.runs("web") == [2, 2, 1]
    assert set(commands(bench).values()) == {("serve",), V2}
    assert [c for s, c in commands(bench).items() if s.startswith("web")] == [V2] * 3
    assert len(bench.engine.active["web"]) == 3


def test_what_an_operator_scaled_stays_unless_the_config_says_another_number() -> None:
    bench = shop()
    bench.settle(bench.tell(Scale("web", 3, "ann")))
    reload(bench, changed(bench.spec, web=new(bench, "web", command=V2)))
    assert bench.runs("web") == [2, 2, 2]
    reload(bench, changed(bench.spec, web=new(bench, "web", stop_timeout=1.0)))
    assert bench.runs("web") == [2, 2, 2]
    reload(bench, changed(bench.spec, web=new(bench, "web", replicas=1)))
    assert bench.runs("web") == [2]


def test_scaled_meanwhile() -> None:
    bench = shop()
    bench.tell(Reload(changed(bench.spec, web=new(bench, "web", command=V2)), "ann"))
    todo = bench.tell(Scale("web", 3, "bob"))
    bench.settle(todo)
    bench.born(WEB)
    bench.finish(bench.probe(WEB))
    bench.check_quiet()
    assert [c for s, c in commands(bench).items() if s.startswith("web")] == [V2] * 3


# -- cold changes


def test_other_sockets_take_a_stop_of_all_and_the_old_sockets_are_closed() -> None:
    bench = shop()
    spec = changed(bench.spec, web=new(bench, "web", listen=ELSEWHERE))
    actions = bench.tell(Reload(spec, "ann"))
    assert not of(actions, Spawn)
    assert bench.last(Kind.ROLLOUT).payload["overlap"] is False
    for slot in (WEB, WEB2):
        if bench.state(slot) is State.DRAINING:
            bench.tell(Drained(slot, 1))
    assert not of(bench.ended(WEB2), Spawn)
    actions = bench.ended(WEB)
    old = bench.engine.spec.service["web"].listen
    assert of(actions, CloseSockets) == [CloseSockets("web", old)]
    assert of(actions, OpenSockets) == [OpenSockets("web", 2)]
    assert [a.slot for a in of(actions, Spawn)] == [WEB, WEB2]
    kinds = [type(a) for a in actions]
    assert kinds.index(CloseSockets) < kinds.index(OpenSockets) < kinds.index(Spawn)
    assert bench.last(Kind.SOCKETS_OPENED).payload["addresses"] == ["127.0.0.1:9090"]
    bench.finish(actions)
    bench.check_quiet()
    assert bench.engine.services["web"].listen == ELSEWHERE


def test_a_cold_change_that_fails_brings_the_old_sockets_back() -> None:
    bench = shop()
    listen = bench.spec.service["web"].listen
    reload(bench, changed(bench.spec, web=new(bench, "web", listen=ELSEWHERE, command=CRASHES)))
    assert bench.engine.services["web"].listen == listen
    assert [c for s, c in commands(bench).items() if s.startswith("web")] == [("serve",)] * 2
    closed = [a.listen for a in of(bench.done, CloseSockets)]
    assert closed == [listen, ELSEWHERE]
    assert bench.last(Kind.SOCKETS_OPENED).payload["addresses"] == ["127.0.0.1:8080"]
    assert bench.told(Kind.ROLLED_BACK)


def test_sockets_that_come_or_go() -> None:
    bench = shop()
    before = bench.spec
    reload(bench, changed(before, web=new(bench, "web", listen=(), port=8000, probe=Probes())))
    assert bench.engine.open_lanes == {}
    assert len(of(bench.done, CloseSockets)) == 1
    reload(bench, before)
    assert bench.engine.open_lanes == {"web": 2}
    assert bench.engine.active["web"] == (1, 2)


# -- who does not run


def test_what_is_stopped_stays_so_and_starts_later_with_the_new_command() -> None:
    bench = shop()
    bench.settle(bench.tell(Stop((WEB, WEB2), "ann")))
    reload(bench, changed(bench.spec, web=new(bench, "web", command=V2)))
    assert [bench.state(s) for s in (WEB, WEB2)] == [State.STOPPED] * 2
    bench.settle(bench.tell(Start((WEB,), "ann")))
    assert commands(bench)["web.1"] == V2


def test_one_of_two_is_stopped() -> None:
    bench = shop()
    bench.settle(bench.tell(Stop((WEB2,), "ann")))
    reload(bench, changed(bench.spec, web=new(bench, "web", command=V2)))
    assert commands(bench) == {"db.1": ("serve",), "web.1": V2}
    bench.settle(bench.tell(Start((WEB2,), "ann")))
    assert commands(bench)["web.2"] == V2


def test_a_reload_mends_what_crashes_all_the_time() -> None:
    bench = Bench(web(2, command=CRASHES, restart=RestartPolicy(jitter="none")))
    bench.up()
    assert bench.state(WEB) is State.BACKOFF
    reload(bench, changed(bench.spec, web=new(bench, "web", command=V2)))
    assert [bench.state(s) for s in (WEB, WEB2)] == [State.READY] * 2
    assert commands(bench) == {"web.1": V2, "web.2": V2}


def test_a_oneshot_that_is_done_is_not_run_again() -> None:
    bench = Bench(db(type="oneshot"))
    bench.up()
    reload(bench, changed(bench.spec, db=new(bench, "db", command=V2)))
    assert bench.runs("db") == [1]
    bench.settle(bench.tell(Start((DB,), "ann")))
    assert bench.runs("db") == [2]


def test_an_added_oneshot_must_succeed() -> None:
    bench = shop()
    reload(bench, changed(bench.spec, extra=extra(type="oneshot", probe=Probes())))
    assert bench.engine.instances[EXTRA].done
    assert bench.told(Kind.RELOADED)


def test_added_without_autostart_is_not_started() -> None:
    bench = shop()
    reload(bench, changed(bench.spec, extra=extra(autostart=False)))
    assert bench.state(EXTRA) is State.STOPPED
    assert of(bench.tell(Start((EXTRA,), "ann")), Spawn)


def test_removed_and_added_again_numbers_go_on() -> None:
    bench = shop()
    before = bench.spec
    reload(bench, changed(before, web=None))
    assert "web" not in bench.engine.services
    reload(bench, before)
    assert bench.runs("web") == [2, 2]
    assert [bench.state(s) for s in (WEB, WEB2)] == [State.READY] * 2


def test_added_while_the_one_before_is_still_stopping_is_refused() -> None:
    bench = shop()
    before = bench.spec
    bench.tell(Reload(changed(before, web=None), "ann"))
    assert bench.engine.reloading is None
    with pytest.raises(CannotChangeError, match="web was removed and is still stopping"):
        bench.engine.handle(Reload(before, "ann"), bench.now)
    for slot in (WEB2, WEB):
        bench.ended(slot)
    bench.candidate = None
    reload(bench, before)


# -- the way back


def test_the_second_one_fails_and_the_first_one_goes_back() -> None:
    bench = shop()
    spec = changed(
        bench.spec,
        db=new(bench, "db", command=V2),
        web=new(bench, "web", command=CRASHES),
    )
    before = dict(bench.engine.services)
    reload(bench, spec)
    assert commands(bench) == {"db.1": ("serve",), "web.1": ("serve",), "web.2": ("serve",)}
    assert (bench.runs("db"), bench.runs("web")) == ([3], [1, 1])  # the old ones went on
    assert bench.engine.services == before
    reason = "web: web.1 did not come to ready: it ended: exit 1"
    assert bench.last(Kind.ROLLING_BACK).payload == {"reason": reason}
    assert bench.last(Kind.ROLLED_BACK).payload == {"reason": reason}
    assert bench.last(Kind.ROLLED_BACK).durable
    assert of(bench.done, Discard) == [Discard()]
    assert not of(bench.done, Commit)
    assert [(r.subject, r.payload["how"]) for r in bench.records if r.kind is Kind.ROLLOUT] == [
        ("db", "reload"), ("web", "reload"), ("db", "rollback"),
    ]  # fmt: skip


def test_the_second_replica_fails_and_the_first_one_goes_back() -> None:
    bench = shop()
    bench.sick.add((WEB2, 2))
    reload(bench, changed(bench.spec, web=new(bench, "web", command=V2)))
    assert commands(bench) == {"db.1": ("serve",), "web.1": ("serve",), "web.2": ("serve",)}
    assert bench.runs("web") == [3, 1]
    assert len(bench.engine.active["web"]) == 2


@pytest.mark.parametrize("command", [CRASHES, MUTE, REFUSED])
def test_what_is_added_fails_and_goes(command: tuple[str, ...]) -> None:
    bench = shop()
    before = bench.spec
    spec = changed(
        before,
        extra=extra(command=command, start_timeout=20.0),
        web=new(bench, "web", command=V2, depends_on=("db", "extra")),
    )
    reload(bench, spec)
    assert bench.spec == before
    assert EXTRA not in bench.engine.instances
    assert (bench.runs("db"), bench.runs("web")) == ([1], [1, 1])
    assert bench.last(Kind.ROLLED_BACK).payload["reason"].startswith("extra: extra.1 did not come")
    assert of(bench.done, Forget) == [Forget(EXTRA)]
    assert bench.engine.dependents == {"db": ("web",), "web": ()}


def test_what_is_added_cannot_start_as_it_waits_for_what_is_down() -> None:
    bench = shop()
    bench.settle(bench.tell(Stop((DB,), "bob")))
    reload(bench, changed(bench.spec, extra=extra(depends_on=("db",), start_timeout=20.0)))
    assert "waits for db" in bench.last(Kind.ROLLED_BACK).payload["reason"]
    assert EXTRA not in bench.engine.instances


def test_a_change_in_place_goes_back_as_well() -> None:
    bench = shop()
    spec = changed(
        bench.spec, db=new(bench, "db", stop_timeout=3.0), web=new(bench, "web", command=MUTE)
    )
    reload(bench, spec)
    assert bench.engine.services["db"].stop_timeout == 10.0
    assert not of(bench.done, Configure)


def test_without_overlap_the_old_command_comes_back() -> None:
    bench = Bench(db())
    bench.up()
    reload(bench, changed(bench.spec, db=new(bench, "db", command=CRASHES)))
    assert commands(bench) == {"db.1": ("serve",)}
    assert bench.state(DB) is State.READY
    assert bench.engine.instances[DB].crashes == ()  # those of another command don't count


def test_a_rollback_that_fails_is_not_for_ever() -> None:
    """The old command is broken by now as well: it is tried again as after any crash."""
    bench = Bench(db(restart=RestartPolicy(jitter="none", delay=1.0)))
    bench.up()
    bench.tell(Reload(changed(bench.spec, db=new(bench, "db", command=V2)), "ann"))
    bench.ended(DB)
    bench.born(DB)
    actions = bench.ended(DB, CRASH)
    assert of(actions, Spawn) == [Spawn(DB, 3)]
    assert bench.engine.definition(bench.engine.instances[DB]).command == ("serve",)
    bench.born(DB)
    bench.settle(bench.ended(DB, CRASH))
    bench.finish()
    assert bench.told(Kind.ROLLED_BACK)
    assert commands(bench) == {"db.1": ("serve",)}
    bench.check_quiet()


def test_a_stop_by_an_operator_is_no_failure_of_the_new_command() -> None:
    """It ends the rollout of that service; nothing unproven stays."""
    bench = shop()
    before = bench.spec
    bench.tell(Reload(changed(before, web=new(bench, "web", command=V2)), "ann"))
    bench.born(WEB)
    bench.finish(bench.tell(Stop((WEB, WEB2), "bob")))
    bench.check_quiet()
    assert bench.spec == before
    assert "stopped by bob" in bench.last(Kind.ROLLED_BACK).payload["reason"]
    assert [bench.state(s) for s in (WEB, WEB2)] == [State.STOPPED] * 2
    bench.settle(bench.tell(Start((WEB,), "bob")))
    assert commands(bench)["web.1"] == ("serve",)


def test_a_restart_meanwhile_ends_it() -> None:
    bench = shop()
    before = bench.spec
    bench.tell(Reload(changed(before, web=new(bench, "web", command=V2)), "ann"))
    bench.born(WEB)
    bench.finish(bench.tell(Restart((WEB, WEB2), "bob")))
    bench.check_quiet()
    assert [bench.state(s) for s in (WEB, WEB2)] == [State.READY] * 2
    assert {c for s, c in commands(bench).items()} == {
        tuple(bench.spec.service["web"].command), ("serve",),
    }  # fmt: skip


# -- everup ends meanwhile


@pytest.mark.parametrize("when", ["adding", "replacing", "going back"])
def test_everup_down_meanwhile(when: str) -> None:
    bench = shop()
    before = bench.spec
    spec = changed(before, web=new(bench, "web", command=V2))
    if when == "adding":
        spec = changed(spec, extra=extra())
    todo = bench.tell(Reload(spec, "ann"))
    if when == "going back":
        bench.born(WEB)
        bench.probe(WEB)
        bench.ended(WEB, run=1)
        bench.born(WEB2)
        todo = bench.ended(WEB2, CRASH)
        assert bench.engine.reloading is not None
        assert bench.engine.reloading.undoing
    bench.settle([*of(todo, Spawn), *bench.tell(Down("ann"))])
    for _ in range(30):
        if bench.engine.finished:
            break
        due = bench.engine.next_deadline()
        assert due is not None
        bench.settle(bench.tell(Tick(), max(0.0, due - bench.now)))
    assert of(bench.done, Quit) == [Quit(0)]
    assert bench.processes == {}
    assert bench.spec == before  # what was accepted
    assert bench.candidate is None
    assert bench.told(Kind.ROLLED_BACK)
    assert not bench.told(Kind.RELOADED)


# -- the engine dies


Story = Callable[[], tuple[Bench, Spec]]


def good() -> tuple[Bench, Spec]:
    bench = shop()
    spec = changed(
        bench.spec,
        web=new(bench, "web", command=V2, replicas=1, depends_on=("db", "extra")),
        db=new(bench, "db", command=V2),
        extra=extra(),
    )
    return bench, spec


def gone() -> tuple[Bench, Spec]:
    bench = shop()
    web_ = new(bench, "web", probe=Probes(), depends_on=(), replicas=3)
    return bench, changed(bench.spec, db=None, web=web_)


def cold() -> tuple[Bench, Spec]:
    bench = shop()
    return bench, changed(bench.spec, web=new(bench, "web", listen=ELSEWHERE, command=V2))


def broken() -> tuple[Bench, Spec]:
    bench = shop()
    spec = changed(
        bench.spec,
        db=new(bench, "db", command=V2),
        web=new(bench, "web", command=CRASHES),
        extra=extra(),
    )
    return bench, spec


def broken_cold() -> tuple[Bench, Spec]:
    bench = shop()
    return bench, changed(bench.spec, web=new(bench, "web", listen=ELSEWHERE, command=CRASHES))


def broken_addition() -> tuple[Bench, Spec]:
    bench = shop()
    spec = changed(bench.spec, extra=extra(command=CRASHES), web=new(bench, "web", command=V2))
    return bench, spec


def end_of(bench: Bench) -> dict[str, object]:
    """What must be the same in the end, whoever died on the way."""
    engine = bench.engine
    return {
        "services": engine.services,
        "commands": commands(bench),
        "states": {str(slot): i.state for slot, i in engine.instances.items()},
        "wanted": {str(slot): i.want for slot, i in engine.instances.items()},
        "config": bench.spec,
        "balance": {name: len(lanes) for name, lanes in engine.active.items()},
        "open": set(engine.open_lanes),
        "dependents": engine.dependents,
    }


@pytest.mark.parametrize("story", [good, gone, cold, broken, broken_cold, broken_addition])
def test_the_engine_dies_at_any_step_and_the_end_is_the_same(story: Story) -> None:
    bench, spec = story()
    before = bench.spec
    bench.play(Reload(spec, "ann"))
    bench.check_quiet()
    assert bench.spec == (before if story.__name__.startswith("broken") else spec)
    end, steps = end_of(bench), bench.steps
    births = [slot for slot, _ in bench.births]
    assert steps > 10
    for die_at in range(1, steps + 1):
        bench, spec = story()
        bench.die_at = {die_at}
        bench.play(Reload(spec, "ann"))
        where = f"killed at step {die_at} of {steps}"
        assert bench.deaths == 1, where
        bench.check_quiet()
        assert end_of(bench) == end, where
        if not story.__name__.startswith("broken"):  # nothing is started twice for it
            assert [slot for slot, _ in bench.births] == births, where


@pytest.mark.parametrize("story", [good, gone, cold, broken, broken_cold, broken_addition])
def test_the_next_engine_dies_as_well_while_it_takes_over(story: Story) -> None:
    bench, spec = story()
    bench.play(Reload(spec, "ann"))
    end = end_of(bench)
    for die_at in range(1, bench.steps + 1, 2):
        bench, spec = story()
        later = 2 + die_at % 9
        bench.die_at = {die_at, die_at + later}
        bench.play(Reload(spec, "ann"))
        where = f"killed at step {die_at} and {later} steps later"
        bench.check_quiet()
        assert end_of(bench) == end, where


@pytest.mark.parametrize("story", [good, gone, cold, broken, broken_cold, broken_addition])
def test_all_processes_die_with_the_engine_and_the_reload_still_comes_to_its_end(
    story: Story,
) -> None:
    bench, spec = story()
    bench.play(Reload(spec, "ann"))
    end = end_of(bench)
    for die_at in range(1, bench.steps + 1):
        bench, spec = story()
        bench.die_at, bench.all_die = {die_at}, True
        bench.play(Reload(spec, "ann"))
        bench.check_quiet()
        assert bench.told(Kind.RELOADED, Kind.ROLLED_BACK), f"killed at step {die_at}"
        bench.finish()
        assert end_of(bench) == end, f"killed at step {die_at}"


@pytest.mark.parametrize("story", [cold, broken_cold])
def test_started_by_hand_during_a_cold_change(story: Story) -> None:
    """A replica that was stopped starts as what the service is after the switch, whenever it is
    asked for, and whichever engine dies after that."""
    bench, spec = story()
    bench.settle(bench.tell(Stop((WEB2,), "ann")))
    bench.play(Reload(spec, "ann"))
    for die_at in range(1, bench.steps + 30):
        bench, spec = story()
        bench.settle(bench.tell(Stop((WEB2,), "ann")))
        bench.die_at = {die_at}
        bench.play(Reload(spec, "ann"), Start((WEB2,), "ann"))
        bench.check_quiet()
        where = f"killed at step {die_at}"
        assert bench.state(WEB2) is State.READY, where
        port = bench.engine.services["web"].listen
        assert port == (ELSEWHERE if story is cold else bench.spec.service["web"].listen), where


def test_a_stop_that_is_taken_back_during_a_cold_change() -> None:
    """It waited for its turn to stop, so it is none of those that are replaced; as long as it
    lives nobody could start."""
    other = Slot("db", 2)
    bench = Bench(db(replicas=2), web(2, probe=READINESS, depends_on=("db",), start_timeout=30.0))
    bench.up()
    spec = changed(bench.spec, db=new(bench, "db", listen=ELSEWHERE))
    todo = bench.tell(Stop((other, WEB), "ann"))  # web.1, which needs it, stops first
    assert bench.state(other) is State.READY
    todo += bench.tell(Reload(spec, "ann"))
    todo += bench.tell(Start((other,), "ann"))
    bench.finish(todo)
    bench.check_quiet()
    assert (bench.state(DB), bench.state(other)) == (State.READY, State.READY)
    assert bench.engine.services["db"].listen == ELSEWHERE
