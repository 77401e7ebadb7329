"""The engine's part: a singleton runs only by a token and in its time, and an operator's word
stays what it was."""

from collections.abc import Sequence
from typing import Any

import pytest

from everup.engine import leasing
from everup.engine.core import Engine
from everup.model.action import Bound, Quit, Record, Signal, Spawn
from everup.model.event import Adopted, Down, Exited, Leased, Spawned, Stop, Tick, Up
from everup.model.instance import ExitCause, ExitKind, Slot, State
from everup.model.spec import Service, Spec

SLOT = Slot("db", 1)
KILLED = ExitCause(ExitKind.SIGNAL, 9)


class Machine:
    """One engine on a clock of the test's own."""

    def __init__(self, up: Up | None = None) -> None:
        service = Service("db", ("serve",), singleton=True)
        self.engine = Engine(Spec(service={"db": service}), random=lambda: 0.5)
        self.now = 100.0
        self.do(up or Up())

    def do(self, event: Any) -> Sequence[Any]:
        return self.engine.handle(event, self.now)

    def lease(self, token: int, for_s: float = 10.0, *, yields: bool = False) -> Sequence[Any]:
        until = self.now + for_s
        return self.do(Leased("db", token, until, until + 5000.0, until - 1.0, yields))

    def runs(self, token: int = 7) -> None:
        """Have it run by a token."""
        assert of(Spawn, self.lease(token))
        self.do(Spawned(SLOT, 1, 4711))

    @property
    def state(self) -> State:
        return self.engine.instances[SLOT].state


def of(kind: type, actions: Sequence[Any]) -> list[Any]:
    return [action for action in actions if isinstance(action, kind)]


def entries(actions: Sequence[Any], kind: str) -> list[Any]:
    return [r.payload for r in of(Record, actions) if str(r.kind) == kind]


def test_it_waits_until_it_is_given_to_this_machine() -> None:
    machine = Machine()
    assert machine.state is State.STOPPED
    assert leasing.local(machine.engine, "db") == {
        "wanted": True, "alive": False, "token": 0, "given_up": False,
    }  # fmt: skip
    assert machine.engine.waiting[SLOT] == leasing.ANOTHER
    assert of(Spawn, machine.lease(7)) == [Spawn(SLOT, 1, 0, fence=7, until=5110.0)]


def test_each_word_moves_the_deadline_at_the_keeper() -> None:
    machine = Machine()
    machine.runs()
    machine.now += 3
    assert of(Bound, machine.lease(7)) == [Bound(SLOT, 1, 5113.0)]
    assert of(Signal, machine.do(Tick())) == []


def test_without_a_word_it_is_asked_to_stop_before_its_time_is_over() -> None:
    machine = Machine()
    machine.runs()
    assert machine.engine.next_deadline() is not None
    machine.now += 9.0  # a second before
    asked = machine.do(Tick())
    assert [signal.signal for signal in of(Signal, asked)] == ["SIGTERM"]
    machine.do(Exited(SLOT, 1, ExitCause(ExitKind.SIGNAL, 15)))
    instance = machine.engine.instances[SLOT]
    assert (instance.state, instance.want, instance.attempt) == (State.STOPPED, True, 0)
    assert machine.engine.waiting[SLOT] == leasing.LATE
    assert of(Spawn, machine.lease(7))  # heard of again, and it was still ours


def test_what_the_keeper_killed_in_its_time_has_not_crashed() -> None:
    machine = Machine()
    machine.runs()
    machine.now += 9.5  # its engine was not there to ask
    done = machine.do(Exited(SLOT, 1, KILLED))
    assert machine.engine.instances[SLOT].attempt == 0
    assert not entries(done, "instance.backoff")


def test_a_crash_in_its_time_is_a_crash() -> None:
    machine = Machine()
    machine.runs()
    machine.now += 2.0
    machine.do(Exited(SLOT, 1, KILLED))
    assert machine.engine.instances[SLOT].attempt == 1


def test_what_is_not_ours_is_killed_at_once() -> None:
    machine = Machine()
    machine.runs()
    done = machine.lease(0)
    assert ("SIGKILL", "all") in [(s.signal, s.scope) for s in of(Signal, done)]
    machine.do(Exited(SLOT, 1, KILLED))
    assert machine.engine.waiting[SLOT] == leasing.ANOTHER
    assert leasing.local(machine.engine, "db")["token"] == 0


def test_a_token_that_was_given_up_starts_nothing_again() -> None:
    machine = Machine()
    machine.runs()
    assert [s.signal for s in of(Signal, machine.lease(7, yields=True))] == ["SIGTERM"]
    machine.do(Exited(SLOT, 1, ExitCause(ExitKind.CODE, 0)))
    assert of(Spawn, machine.lease(7)) == []
    assert leasing.local(machine.engine, "db")["given_up"]
    assert of(Spawn, machine.lease(6)) == []  # an older one says nothing
    assert of(Spawn, machine.lease(8))


def test_it_goes_on_stopping_in_its_time_while_it_moves() -> None:
    machine = Machine()
    machine.runs()
    machine.lease(7, yields=True)
    machine.now += 3
    assert of(Bound, machine.lease(7, yields=True)) == [Bound(SLOT, 1, 5113.0)]


def test_an_operators_stop_stays_a_stop() -> None:
    machine = Machine()
    machine.runs()
    machine.do(Stop((SLOT,), "op"))
    machine.do(Exited(SLOT, 1, ExitCause(ExitKind.CODE, 0)))
    assert of(Spawn, machine.lease(7)) == []
    assert not leasing.local(machine.engine, "db")["wanted"]


@pytest.mark.parametrize("told", [True, False])
def test_one_that_an_engine_before_had_goes_on_for_a_while(told: bool) -> None:
    adopted = Adopted(SLOT, 3, 4711, State.READY, 90.0, lane=1)
    machine = Machine(Up(adopted=(adopted,), runs=((SLOT, 3),)))
    assert machine.state.alive
    if told:
        assert of(Bound, machine.lease(7, 60.0)) == [Bound(SLOT, 3, 5160.0)]
    machine.now += 20.0
    asked = of(Signal, machine.do(Tick()))
    assert bool(asked) is not told
    assert machine.engine.instances[SLOT].want


def test_other_services_are_not_concerned() -> None:
    engine = Engine(Spec(service={"web": Service("web", ("serve",))}), random=lambda: 0.5)
    assert of(Spawn, engine.handle(Up(), 1.0)) == [Spawn(Slot("web", 1), 1)]
    assert engine.handle(Leased("web", 0, 0.0, 0.0, 0.0), 2.0) == []
    assert engine.handle(Leased("gone", 3, 9.0, 9.0, 9.0), 2.0) == []


@pytest.mark.parametrize("released", [True, False])
def test_everup_ends_once_the_cluster_knows_or_after_a_moment(released: bool) -> None:
    machine = Machine()
    machine.runs()
    machine.do(Down("op"))
    machine.lease(7, yields=True)
    assert not of(Quit, machine.do(Exited(SLOT, 1, ExitCause(ExitKind.CODE, 0))))
    assert leasing.local(machine.engine, "db")["given_up"]
    machine.now += 0.1 if released else 2.0
    done = machine.lease(0) if released else machine.do(Tick())
    assert of(Quit, done)
