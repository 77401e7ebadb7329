"""Machines of a cluster with a real etcd: who owns what, whatever is killed or stopped."""

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest
from _etcd import Members, members
from _everup import alive, stop
from _nodes import Nodes, nodes, observers


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    with members(tmp_path_factory.mktemp("etcd") / "three") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared(etcd: Members) -> Iterator[Nodes]:
    with nodes(2, etcd) as machines:
        machines.up()
        yield machines


@pytest.fixture
def two(shared: Nodes) -> Nodes:
    """Two machines that are up and members; whoever owned before, one does."""
    shared.joined()
    return shared


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def other_of(two: Nodes, owner: str) -> str:
    return next(name for name in two.names if name != owner)


def test_one_owns_and_the_other_waits_without_alarm(two: Nodes) -> None:
    _, owner, token, pid = two.owner()
    assert two.of[owner].pid("db.1") == pid
    other = other_of(two, owner)
    waits = two.of[other].instance("db.1")
    assert waits["elsewhere"]
    assert waits["want"]
    two.of[other].cli("status")
    two.of[other].cli("incidents")
    view = two.cluster(other)
    assert [node["node"] for node in view["nodes"]] == ["n1", "n2"]
    assert view["leader"] in ("n1", "n2")
    assert view["owners"] == {"db": {"node": owner, "token": token}}
    assert "is a member, now" in two.of[other].cli("cluster").out
    refused = two.of[owner].cli("scale", "db", "2", expect=None)
    assert "singleton" in refused.text
    two.check_one_owner()


def test_deaths_of_everups_own_processes_move_nothing(etcd: Members) -> None:
    with nodes(2, etcd, ttl="60s") as two:
        two.up()
        two.joined()
        _, owner, token, pid = two.owner()
        node = two.of[owner]
        for what in ("observer", "engine", "keeper"):
            own, at = node.own(), boottime()
            node.kill(*(observers(node) if what == "observer" else [getattr(own, what)]))

            def told(at: float = at) -> bool:
                said = node.cli("cluster", "--json", expect=None).out
                return bool(said) and boottime() - json.loads(said)["age_s"] > at

            node.wait_for(told, f"the cluster is heard of after the death of the {what}")
            print(f"{what}: heard of again after {boottime() - at:.1f} s")
        end = boottime()
        node.wait_for(lambda: two.lines()[-1][0] > end, "it goes on serving")
        assert {line[1:] for line in two.lines()} == {(owner, token, pid)}


def test_the_keeper_stops_it_though_engine_and_observer_are_stopped(two: Nodes) -> None:
    _, owner, _, pid = two.owner()
    node = two.of[owner]
    at = boottime()
    for victim in (*observers(node), node.own().engine):
        stop(victim)
    two.owner(other_than=owner, after=at)
    two.check_one_owner()
    node.wait_for(lambda: not alive(pid), "the old one is gone")
    for victim in observers(node):
        os.kill(victim, signal.SIGCONT)
    node.wait_for(lambda: node.instance("db.1")["elsewhere"], "it knows that it is elsewhere")
    two.check_one_owner()


def test_a_keeper_that_took_over_knows_the_deadline(two: Nodes) -> None:
    _, owner, _, pid = two.owner()
    node = two.of[owner]
    old = node.own().keeper
    node.kill(old)
    node.wait_for(lambda: node.own().keeper not in (0, old) and node.own().engine, "another keeper")
    at = boottime()
    for victim in (*observers(node), node.own().engine):
        stop(victim)
    two.owner(other_than=owner, after=at)
    assert not alive(pid)
    two.check_one_owner()
    for victim in observers(node):
        os.kill(victim, signal.SIGCONT)


def test_the_engine_stops_it_though_keeper_and_observer_are_stopped(two: Nodes) -> None:
    _, owner, _, pid = two.owner()
    node = two.of[owner]
    at = boottime()
    for victim in (*observers(node), node.own().keeper):
        stop(victim)
    two.owner(other_than=owner, after=at)
    assert not alive(pid)
    two.check_one_owner()
    for victim in (*observers(node), *node.own().keepers):
        os.kill(victim, signal.SIGCONT)
    node.wait_for(lambda: node.instance("db.1")["elsewhere"], "it knows that it is elsewhere")


def test_without_etcd_the_owner_stops_in_time_and_there_is_one_again(
    two: Nodes, etcd: Members
) -> None:
    _, owner, token, pid = two.owner()
    node = two.of[owner]
    for number in range(3):
        etcd.signal(number, signal.SIGSTOP)
    try:
        node.wait_for(lambda: not alive(pid), "it was stopped")
        assert "not heard of in time" in node.instance("db.1")["reason"]
        node.wait_for(lambda: node.cli("incidents", expect=None).status == 4, "it is told")
    finally:
        for number in range(3):
            etcd.signal(number, signal.SIGCONT)
    at, _, later, _ = two.owner(after=boottime())
    assert at
    assert later >= token
    two.check_one_owner()


def test_everup_down_hands_over_without_waiting_for_ttl(etcd: Members) -> None:
    with nodes(2, etcd, ttl="60s") as two:  # longer than anybody waits here
        two.up()
        two.joined()
        _, owner, _, _ = two.owner()
        at = boottime()
        two.of[owner].down()
        first = two.owner(other_than=owner, after=at)
        at = max(line[0] for line in two.lines() if line[1] == owner)
        print(f"served elsewhere {first[0] - at:.3f} s after the last word of the owner")
        two.check_one_owner()


def test_a_machine_dies_and_the_other_serves(two: Nodes) -> None:
    _, owner, _, _ = two.owner()
    at = two.kill_everything(owner)
    first = two.owner(other_than=owner, after=at)
    print(f"served elsewhere {first[0] - at:.3f} s after the kill, ttl 3 s")
    two.check_one_owner()
    two.up(owner)  # for the end: what was killed has left its control groups


def test_nothing_survives_the_death_of_keeper_and_engine_at_one_moment(two: Nodes) -> None:
    """Nobody is left then to stop it in time: the kernel does."""
    _, owner, _, pid = two.owner()
    node = two.of[owner]
    own = node.own()
    node.kill(own.keeper)
    node.wait_for(lambda: node.own().keeper not in (0, own.keeper), "another keeper")
    engine = node.own().engine
    node.kill(engine)
    node.wait_for(lambda: node.own().engine not in (0, engine), "another engine")
    served = boottime()
    node.wait_for(lambda: two.lines()[-1][0] > served, "it goes on by those who have come")
    assert alive(pid)
    node.kill(*node.own().keepers, *node.own().engines)
    node.wait_for(lambda: not alive(pid), "the kernel has killed it")
    two.owner(other_than=owner)
    two.check_one_owner()
    two.up(owner)


def test_it_moves_where_a_person_wants_it(two: Nodes) -> None:
    _, owner, token, _ = two.owner()
    other = other_of(two, owner)
    refused = two.of[owner].cli("move", "db", "--to", "n9", expect=2)
    assert "no member" in refused.text
    assert "moved" in two.of[owner].cli("move", "db", "--to", other).out
    assert two.owner(other_than=owner)[2] > token
    assert two.of[owner].instance("db.1")["want"]
    two.of[owner].cli("move", "db", "--to", owner)  # and back, asked where it does not run
    view = two.cluster(owner)
    assert view["owners"]["db"]["node"] == owner
    assert view["moves"] == {}
    two.check_one_owner()


def test_a_name_used_twice_stays_out_and_says_so(etcd: Members) -> None:
    with nodes(1, etcd, name="twice") as one, nodes(1, etcd, name="twice") as same:
        one.up()
        one.joined()
        _, _, _, pid = one.owner()
        same.up()
        said = same.of["n1"].wait_event("cluster.twice")
        assert said["node"] == "n1"
        assert same.of["n1"].instance("db.1")["elsewhere"]
        assert one.of["n1"].pid("db.1") == pid
        assert same.lines() == []
