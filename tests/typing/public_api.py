"""A small program over the public typed surface. Read by type checkers, not run."""

from typing import assert_type

from everup.config import ConfigError, Problem, Report, check, load
from everup.model.action import Action, Record, Spawn
from everup.model.event import Event, Exited, Start, Up
from everup.model.instance import ExitCause, ExitKind, Slot, State
from everup.model.journal import Entry, Kind
from everup.model.spec import Probe, Service, Spec
from everup.testing import SimWorld, Violation


def read(text: str) -> Spec | None:
    report = check(text, path="everup.toml", directory="/srv", known_users=lambda name: True)
    assert_type(report, Report)
    for problem in report.problems:
        assert_type(problem, Problem)
    assert_type(report.spec, Spec | None)
    try:
        return load(text, path="everup.toml", directory="/srv")
    except ConfigError as error:
        for problem in error.problems:
            assert_type(problem, Problem)
        return None


def durations(service: Service) -> float:
    probe = service.probe.readiness
    assert_type(probe, Probe | None)
    assert_type(service.limits.memory, int | None)
    assert_type(service.replicas, int)
    return service.stop_timeout + (probe.interval if probe is not None else 0.0)


def simulate(spec: Spec) -> list[Entry]:
    world = SimWorld(seed=7, spec=spec, engine_deaths=False)
    try:
        world.run_faults(60.0)
        world.heal(300.0)
        world.shut_down()
    except Violation as violation:
        assert_type(violation, Violation)
    assert_type(world.engine.instances[Slot("web", 1)].state, State)
    assert_type(world.entries(Kind.READY), list[Entry])
    return world.journal


def name(event: Event) -> str:
    match event:
        case Exited(slot=slot, cause=cause):
            assert_type(slot, Slot)
            assert_type(cause, ExitCause)
            return f"{slot}: {cause}"
        case Start(slots=slots) if slots:
            return str(slots[0])
        case _:
            return ""


def spawned(actions: list[Action]) -> list[Slot]:
    assert_type(Slot.parse("web.1"), Slot)
    return [a.slot for a in actions if isinstance(a, Spawn) and not isinstance(a, Record)]


EVENTS: list[Event] = [Up(), Exited(Slot("web", 1), 1, ExitCause(ExitKind.CODE, 0))]
