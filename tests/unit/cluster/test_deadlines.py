"""The keeper's part: who must be gone by a time is, and that outlives the keeper."""

import signal
from typing import Any

import pytest

from everup.keeper import deadlines
from everup.keeper.children import Child, Children
from everup.keeper.deadlines import Deadlines


class Killing(Children):
    """Children that are no processes: what they were sent is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, int, str]] = []

    def signal(self, child_id: str, number: int, scope: str) -> None:
        self.sent.append((child_id, number, scope))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    at = [100.0]
    monkeypatch.setattr(deadlines, "now", lambda: at[0])
    monkeypatch.setattr(deadlines, "say", lambda _text: None)
    return at


def child(name: str, until: float = 0.0) -> Child:
    made = Child(name, 4711 + len(name), 1, None, {})
    made.until = until
    return made


def test_only_who_is_bound_is_killed_and_whole(clock: list[float]) -> None:
    children = Killing()
    deadlines_ = Deadlines(children)
    assert deadlines_.wait_s() is None
    children.add(child("free"))
    children.add(child("bound", 100.5))
    assert deadlines_.wait_s() == pytest.approx(0.5)
    deadlines_.enforce()
    assert children.sent == []
    clock[0] = 100.5
    deadlines_.enforce()
    deadlines_.enforce()
    assert children.sent == [("bound", signal.SIGKILL, "all")]
    clock[0] = 101.5  # it has not ended yet
    deadlines_.enforce()
    assert len(children.sent) == 2
    children.get("bound").ended_at = 1.0
    assert deadlines_.wait_s() is None


def test_another_word_moves_it_and_a_sleep_of_the_machine_does_not(clock: list[float]) -> None:
    children = Killing()
    deadlines_ = Deadlines(children)
    children.add(child("bound", 105.0))
    assert deadlines_.wait_s() == 1.0  # longer waits do not count while the machine sleeps
    deadlines_.set("bound", 120.0)
    deadlines_.set("nobody", 120.0)
    clock[0] = 119.0
    deadlines_.enforce()
    assert children.sent == []
    deadlines_.set("bound", 0)
    clock[0] = 500.0
    deadlines_.enforce()
    assert children.sent == []


def test_what_must_be_gone_is_not_started(clock: list[float]) -> None:
    deadlines_ = Deadlines(Killing())
    deadlines_.check(0.0)
    deadlines_.check(100.1)
    with pytest.raises(ValueError, match="its time is over"):
        deadlines_.check(100.0)
    clock[0] = 100.2
    with pytest.raises(ValueError, match="its time is over"):
        deadlines_.check(100.1)


def test_the_next_keeper_and_the_next_engine_are_told() -> None:
    made = child("bound", 123.5)
    described: dict[str, Any] = made.describe()
    assert described["until"] == 123.5
    assert Child.inherited(made.record()).until == 123.5
    assert "until" not in child("free").describe()
