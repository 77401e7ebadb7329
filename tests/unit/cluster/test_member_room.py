"""What a machine decides in one turn, case by case."""

from typing import Any

import pytest

from everup.config import load
from everup.model.action import Asked
from everup.observer.bench import Bench
from everup.rooms.cluster.actions import Acquire, Hurry, Join, Leave, Move, Release, Say, Tell
from everup.rooms.cluster.facts import Local, NotTaken, Turned
from everup.rooms.cluster.lease import Item, Look
from everup.rooms.cluster.room import Member

CONFIG = """
[cluster]
name = "shop"
node = "n1"
etcd = ["http://127.0.0.1:2379"]
[service.db]
command = ["serve"]
singleton = true
"""
ME, OTHER = Item('{"id": "a"}', 1, 10), Item('{"id": "b"}', 2, 20)
BOTH = {"members/n1": ME, "members/n2": OTHER, "leader": Item("n2", 3, 20)}
OURS, THEIRS = Item("n1", 7, 10), Item("n2", 7, 20)
IDLE, RUNS = Local(True, False), Local(True, True, 7)


class Turns:
    """One machine on a clock of the test's own."""

    def __init__(self) -> None:
        spec = load(CONFIG, path="everup.toml", directory="/")
        self.bench = Bench(lambda: {"cluster": Member()}, spec)

    def turn(
        self,
        items: dict[str, Item],
        local: Local | None = IDLE,
        *,
        session: int = 10,
        until: float | None = 50.0,
        leaving: bool = False,
    ) -> list[Asked]:
        """Give what one turn has done, but for what is told to the engine."""
        self.bench.actions.clear()
        here = {} if local is None else {"db": local}
        self.bench.handle(Turned(Look(9, 1, items), "a", until, session, leaving, here))
        return [a for a in self.bench.actions if not isinstance(a, Tell)]

    @property
    def told(self) -> Tell:
        [tell] = [a for a in self.bench.actions if isinstance(a, Tell)]
        return tell

    def kinds(self) -> list[str]:
        return [str(entry.kind).partition(".")[2] for entry in self.bench.journal]


@pytest.mark.parametrize(
    ("items", "local", "done", "says"),
    [
        ({}, IDLE, [Acquire("owners/db")], ()),
        ({}, Local(False, False), [], ()),  # an operator has stopped it here
        ({}, RUNS, [], (Say("db", 0),)),  # the key went: it is killed before anybody tries
        ({"owners/db": OURS}, IDLE, [], (Say("db", 7),)),
        ({"owners/db": OURS}, RUNS, [], (Say("db", 7),)),
        ({"owners/db": THEIRS}, IDLE, [], ()),
        ({"owners/db": THEIRS}, RUNS, [], (Say("db", 0),)),
        ({"owners/db": THEIRS}, Local(True, False, 5), [], (Say("db", 0),)),
        # moves
        ({"owners/db": OURS, "moves/db": Item("n2", 8)}, RUNS, [], (Say("db", 7, True),)),
        ({"owners/db": OURS, "moves/db": Item("n9", 8)}, RUNS, [], (Say("db", 7),)),
        (
            {"owners/db": OURS, "moves/db": Item("n2", 8)}, Local(True, True, 7, True), [],
            (Say("db", 7, True),),
        ),
        (
            {"owners/db": OURS, "moves/db": Item("n2", 8)}, Local(True, False, 7, True),
            [Release("owners/db", 7)], (),
        ),
        # the engine has not heard of it: what was told before may reach it late
        ({"owners/db": OURS, "moves/db": Item("n2", 8)}, IDLE, [], (Say("db", 7, True),)),
        ({"moves/db": Item("n2", 8)}, IDLE, [], ()),
        ({"moves/db": Item("n1", 8)}, IDLE, [Acquire("owners/db", ("moves/db",))], ()),
        # a service that our config has no more
        ({"owners/old": OURS}, None, [Release("owners/old", 7)], ()),
    ],
)  # fmt: skip
def test_one_turn(
    items: dict[str, Item], local: Local | None, done: list[Asked], says: tuple[Say, ...]
) -> None:
    turns = Turns()
    assert turns.turn(BOTH | items, local) == done
    assert turns.told.says == says
    assert turns.told.until == 50.0


@pytest.mark.parametrize(
    ("me", "session", "done", "denied"),
    [
        (None, 0, [Join()], True),  # etcd has no session of ours: nothing is ours
        (ME, 0, [Join(10)], False),  # of an observer before this one
        (OTHER, 0, [], True),  # another machine has our name
        (None, 10, [Join()], True),
    ],
)
def test_who_is_no_member(me: Item | None, session: int, done: list[Any], denied: bool) -> None:
    turns = Turns()
    items = {"owners/db": OURS} | ({} if me is None else {"members/n1": me})
    assert turns.turn(items, RUNS, session=session, until=None) == done
    assert turns.told.says == ((Say("db", 0),) if denied else ())
    assert ("twice" in turns.kinds()) is (me is OTHER)


def test_a_renewal_that_is_not_believed_tells_nothing() -> None:
    turns = Turns()
    assert turns.turn(BOTH | {"owners/db": OURS}, RUNS, until=None) == []
    assert turns.told.says == ()


def test_what_the_guard_refuses_is_given_back_and_left_to_others_for_a_while() -> None:
    turns = Turns()
    turns.turn(BOTH | {"owners/db": OURS})
    turns.bench.handle(NotTaken("db", 7, "a reload is under way"))
    given_up = Local(True, False, 7, given_up=True)
    assert turns.turn(BOTH | {"owners/db": OURS}, given_up) == [Release("owners/db", 7)]
    assert turns.turn(BOTH, given_up) == []
    turns.bench.wait(15.0)
    assert turns.turn(BOTH, given_up) == [Acquire("owners/db")]
    assert "refused" in turns.kinds()


def test_going_down_stops_releases_tells_and_leaves() -> None:
    turns = Turns()
    owned = BOTH | {"owners/db": OURS}
    turns.bench.write("engine.stopping", "everup", {})
    assert Hurry() in turns.bench.actions
    assert turns.turn(owned, RUNS, leaving=True) == []
    assert turns.told.says == (Say("db", 7, yields=True),)
    gone = Local(True, False, 7, given_up=True)
    assert turns.turn(owned, gone, leaving=True) == [Release("owners/db", 7)]
    assert turns.turn(BOTH, gone, leaving=True) == [Leave()]
    assert turns.told.says == (Say("db", 0),)  # everup may end


def test_who_leads_nobody_lets_somebody() -> None:
    turns = Turns()
    alone = {"members/n1": ME}
    assert turns.turn(alone, None) == [Acquire("leader")]


def test_what_a_person_asks_is_done_once() -> None:
    turns = Turns()
    turns.bench.write("cluster.move_asked", "db", {"to": "n2", "by": "op"})
    assert Move("db", "n2") in turns.bench.actions
    turns.bench.actions.clear()
    turns.bench.begin()  # another observer: that is past
    assert turns.bench.actions == []


def test_changes_of_the_owner_are_told_once() -> None:
    turns = Turns()
    for items in ({"owners/db": THEIRS}, {"owners/db": THEIRS}, {}, {"owners/db": OURS}):
        turns.turn(BOTH | items)
    turns.bench.begin()
    turns.turn(BOTH | {"owners/db": OURS})
    owned = [e.payload for e in turns.bench.entries("cluster.owned")]
    assert [(p["node"], p["before"]) for p in owned] == [("n2", ""), ("", "n2"), ("n1", "")]
