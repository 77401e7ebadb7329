"""What the engine does when somebody meddles with listening sockets."""

from _bench import LISTEN, READINESS, WEB, WEB2, Bench, web

from everup.model.action import MendSockets, Record, SetBalance, Watch
from everup.model.event import SocketsLost, SocketsMoved, Stranger, Strangers
from everup.model.instance import State
from everup.model.journal import Kind


def bench(replicas: int = 2, **more: object) -> Bench:
    found = Bench(web(replicas, **more))
    found.up()
    found.records.clear()
    return found


def test_what_is_lost_is_put_back_and_journaled_before() -> None:
    world = bench()
    actions = world.tell(SocketsLost("web", ("127.0.0.1:8080 (lane 1) was shut down",)))
    first, second = actions
    assert isinstance(first, Record)
    assert first.kind is Kind.SOCKETS_LOST
    assert second == MendSockets("web")
    assert not world.is_busy()


def test_other_sockets_reach_the_processes_by_a_rollout() -> None:
    world = bench()
    actions = world.tell(SocketsLost("web", ("unix:/web was removed",), anew=True))
    assert MendSockets("web", anew=True) in actions
    world.finish(actions)
    assert world.runs("web") == [2, 2]
    world.check_quiet()


def test_nothing_is_put_back_of_what_everup_closed_itself() -> None:
    world = bench()
    assert LISTEN
    for service in ("gone", "web"):
        world.engine.open_lanes.pop("web", None)
        assert world.tell(SocketsLost(service, ("x",), anew=True)) == []
        assert world.tell(SocketsMoved(service)) == []


def test_another_order_of_the_sockets_is_probed_and_balanced_anew() -> None:
    world = bench(probe=READINESS)
    actions = world.tell(SocketsMoved("web"))
    assert SetBalance("web", (1, 2)) in actions
    assert [a for a in actions if isinstance(a, Watch)] == [
        Watch(WEB, 1, startup=False),
        Watch(WEB2, 1, startup=False),
    ]


def test_who_listens_by_himself_is_not_ready_until_he_does_no_more() -> None:
    world = bench()
    world.tell(Strangers("web", (Stranger("by itself", WEB, 1),)))
    assert world.state(WEB) is State.RUNNING
    assert world.engine.instances[WEB].reason == "by itself"
    assert world.engine.active["web"] == (2,)
    world.tell(Strangers("web", ()))
    assert world.state(WEB) is State.READY
    assert world.engine.active["web"] == (1, 2)


def test_somebody_from_outside_changes_nothing() -> None:
    world = bench()
    actions = world.tell(Strangers("web", (Stranger("nginx (pid 7)"),)))
    assert [type(action) for action in actions] == [Record]
    assert world.last(Kind.SOCKETS_STRANGERS).payload == {"strangers": ["nginx (pid 7)"]}
    assert world.state(WEB) is State.READY
