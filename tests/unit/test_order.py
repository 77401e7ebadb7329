"""Start and stop order over the dependency graph."""

import pytest

from everup.model.instance import Slot, State
from everup.model.record import Instance
from everup.model.spec import Service
from everup.supervise.order import dependents, is_down, satisfied


def service(name: str, *depends_on: str) -> Service:
    return Service(name, ("serve",), depends_on=depends_on)


def test_dependents_are_direct_in_config_order() -> None:
    names = [service("db"), service("web", "db", "cache"), service("cache", "db"), service("lone")]
    assert dependents({s.name: s for s in names}) == {
        "db": ("web", "cache"),
        "web": (),
        "cache": ("web",),
        "lone": (),
    }


@pytest.mark.parametrize("want", [True, False])
@pytest.mark.parametrize("state", list(State))
def test_a_service_satisfies_while_one_is_ready_and_to_stay_so(state: State, want: bool) -> None:
    down = Instance(Slot("db", 1), State.BACKOFF, want=True)
    other = Instance(Slot("db", 2), state, want=want)
    assert satisfied(service("db"), [down, other]) is (state is State.READY and want)


def test_one_that_serves_until_its_successor_is_ready_satisfies() -> None:
    old = Instance(Slot("db", 1), State.READY, want=False, outgoing=True)
    new = Instance(Slot("db", 1), State.STARTING, want=True)
    assert satisfied(service("db"), [new, old])
    assert not satisfied(service("db"), [new])


def test_a_oneshot_satisfies_only_once_done() -> None:
    oneshot = Service("db", ("migrate",), type="oneshot")
    slot = Slot("db", 1)
    assert not satisfied(oneshot, [Instance(slot, State.RUNNING, want=True)])
    assert not satisfied(oneshot, [Instance(slot, State.FAILED, want=True)])
    assert satisfied(oneshot, [Instance(slot, State.STOPPED, want=True, done=True)])
    assert satisfied(oneshot, [Instance(slot, State.STOPPED, want=False, done=True)])


def test_scaled_to_none_holds_nobody_back() -> None:
    assert satisfied(Service("db", ("serve",), replicas=0), [])
    assert not satisfied(Service("db", ("serve",), replicas=1), [])


@pytest.mark.parametrize("state", list(State))
def test_down_means_no_process(state: State) -> None:
    rest = Instance(Slot("db", 1), State.STOPPED)
    assert is_down([rest, Instance(Slot("db", 2), state)]) is not state.alive
    assert is_down([])
