"""A reload that took a service away together with what depends on it ended in a KeyError: the
second one was left half stopped, and no later engine could begin. The same for other edges that
outlive one of their ends."""

from dataclasses import replace

import pytest
from _bench import CRASH, DB, WEB, Bench, db, web

from everup.model.action import Commit
from everup.model.event import Exited, Reload, Restart, Scale, Start, Stop
from everup.model.instance import Slot, State
from everup.model.spec import Group, Service, Spec, StormBrake, Strategy
from everup.supervise import storm
from everup.supervise.order import dependents

OTHER = Service("other", ("serve",))


def without(spec: Spec, *names: str) -> Spec:
    return replace(spec, service={n: s for n, s in spec.service.items() if n not in names})


@pytest.mark.parametrize("stops_first", ["db", "web"])
def test_a_service_and_its_user_are_removed_in_one_reload(stops_first: str) -> None:
    bench = Bench(OTHER, db(), web(2, depends_on=("db",)))
    bench.up()
    actions = bench.tell(Reload(without(bench.spec, "db", "web"), "op"))
    assert Commit() in actions
    if stops_first == "db":  # it crashes while its users still stop
        actions = [*actions, *bench.tell(Exited(DB, bench.engine.instances[DB].run, CRASH))]
    bench.finish(actions)
    assert list(bench.engine.services) == ["other"]
    assert [str(slot) for slot in bench.engine.instances] == ["other.1"]
    assert not bench.engine.leaving
    assert not bench.engine.pending_stop


def test_a_dependency_that_is_no_more_has_no_users() -> None:
    services = {"web": web(1, depends_on=("db",))}
    assert dependents(services) == {"web": ()}


def test_members_of_a_group_start_again_though_the_group_was_removed_meanwhile() -> None:
    group = Group("app", ("db", "web"), Strategy.ONE_FOR_ALL)
    bench = Bench(db(), web(1), groups=(group,))
    bench.up()
    stopping = bench.tell(Exited(DB, bench.engine.instances[DB].run, CRASH))
    assert bench.engine.regrouping
    bench.tell(Reload(replace(bench.spec, group={}), "op"))
    bench.finish(stopping)
    assert not bench.engine.regrouping
    assert [bench.engine.instances[slot].state.alive for slot in (DB, WEB)] == [True, True]


def test_a_restart_in_the_middle_of_a_reload_brings_everybody_back_to_what_was() -> None:
    bench = Bench(web(1, overlap=False))
    bench.up()
    former = bench.engine.services["web"].command
    target = replace(bench.spec.service["web"], command=("serve", "crash"))
    actions = bench.tell(Reload(replace(bench.spec, service={"web": target}), "op"))
    actions += bench.tell(Scale("web", 3, "op"))  # these start as what the reload brings
    actions += bench.tell(Restart((WEB,), "op"))
    bench.finish(actions)
    running = [bench.engine.instances[Slot("web", n)] for n in (1, 2, 3)]
    assert [bench.engine.definition(i).command for i in running] == [former] * 3
    assert all(i.state.alive for i in running)
    assert all(i.state is not State.PARKED for i in running)


def test_the_storm_brake_never_asks_to_wait_for_no_time_at_all() -> None:
    brake = StormBrake(20, 60.0)
    bucket = storm.Bucket(14.000000000000002, 51.4)
    _after, wait_s = storm.take(bucket, brake, 51.4, reserve=5)
    assert wait_s == 0.0
    _after, wait_s = storm.take(storm.Bucket(19.5, 1e9), brake, 1e9)
    assert 1e9 + wait_s > 1e9


def test_who_was_stopped_in_the_middle_of_a_reload_starts_as_what_was_before() -> None:
    bench = Bench(web(2, overlap=False))
    bench.up()
    former = bench.engine.services["web"].command
    target = replace(bench.spec.service["web"], command=("serve", "crash"))
    bench.tell(Reload(replace(bench.spec, service={"web": target}), "op"))
    bench.ended(WEB)  # its turn: what comes next is of the new definition
    assert bench.engine.instances[WEB].run == 2
    bench.born(WEB, 2)
    bench.tell(Stop((WEB,), "op"))
    bench.tell(Start((WEB,), "op"))  # before it has ended
    bench.finish(bench.ended(WEB, run=2))
    instance = bench.engine.instances[WEB]
    assert instance.service is None
    assert bench.engine.definition(instance).command == former
    assert instance.state.alive
