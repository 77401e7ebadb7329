"""A seed replays, and the auditor catches an engine that is known to be bad."""

from collections.abc import Mapping

import pytest

from everup.engine import balance, core, narrate
from everup.model.event import Event, Exited
from everup.model.instance import State
from everup.model.journal import Entry, Kind
from everup.model.record import Instance
from everup.supervise import order
from everup.testing import SimWorld, Violation


def story(seed: int) -> list[Entry]:
    world = SimWorld(seed)
    world.run_faults(30.0)
    world.heal(900.0)
    world.shut_down()
    return world.journal


@pytest.mark.parametrize("seed", range(20))
def test_the_same_seed_gives_the_same_journal(seed: int) -> None:
    first = story(seed)
    assert len(first) > 20
    assert first == story(seed)


def test_other_seeds_give_other_journals() -> None:
    assert story(1) != story(2)


def first_violation(seeds: int = 60) -> str:
    for seed in range(seeds):
        try:
            story(seed)
        except Violation as violation:
            return str(violation)
    raise AssertionError(f"not caught in {seeds} seeds")


def test_connections_for_the_unready_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def everybody(
        active: tuple[int, ...], replicas: int, instances: Mapping[int, Instance]
    ) -> tuple[int, ...]:
        return tuple(sorted(instances))

    monkeypatch.setattr(balance, "choose", everybody)
    text = first_violation()
    assert "get connections, ready are" in text
    assert text.startswith("seed ")  # which replays it


def test_an_empty_balance_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def ready_or_none(
        active: tuple[int, ...], replicas: int, instances: Mapping[int, Instance]
    ) -> tuple[int, ...]:
        return tuple(n for n, i in sorted(instances.items()) if i.state is State.READY)

    monkeypatch.setattr(balance, "choose", ready_or_none)
    assert "nobody gets the connections" in first_violation()


def test_starts_without_their_dependencies_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "satisfied", lambda service, instances: True)
    assert "is not ready" in first_violation()


def test_sockets_closed_under_the_living_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "is_down", lambda instances: True)
    assert "the sockets of" in first_violation()


def test_a_spawn_without_its_record_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = narrate.records

    def silent(
        old: Instance, new: Instance, now: float, answered_at: float | None
    ) -> list[core.Record]:
        return [r for r in real(old, new, now) if r.kind is not Kind.STARTING]

    monkeypatch.setattr(narrate, "records", silent)
    assert "without an intent" in first_violation()


def test_a_lost_report_of_an_end_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = core.Engine.handle
    dropped: list[Event] = []

    def deaf(self: core.Engine, event: Event, now: float) -> list[core.Action]:
        if isinstance(event, Exited) and len(dropped) < 5:
            dropped.append(event)
            return []
        return real(self, event, now)

    monkeypatch.setattr(core.Engine, "handle", deaf)
    for seed in range(60):
        dropped.clear()
        try:
            story(seed)
        except Violation:
            return
    raise AssertionError("not caught")
