"""Deaths of everup's own processes in a simulated world."""

from dataclasses import replace
from typing import TYPE_CHECKING

from everup.engine.fold import ChildFact, fold, reload_is_open
from everup.model.event import Left
from everup.model.instance import ExitCause, ExitKind, Slot
from everup.model.spec import Spec

if TYPE_CHECKING:
    from everup.testing.sim import SimWorld


def die(world: "SimWorld", who: str) -> None:
    """kill -9 of the ``engine``, the ``keeper`` or ``both``; a new engine folds the journal
    and takes over what there is."""
    world.watching.clear()
    world.kill_at = None
    if who != "engine":
        _lose_keeper(world, who)
    latest = world.latest()
    candidate = world.candidate if reload_is_open(latest) else None
    if candidate is None:
        world.candidate = None
    names = {*world.spec.service, *(candidate.service if candidate else ())}
    world.engine = world.new_engine()
    children = []
    for process in list(world.processes.values()):
        if process.slot.service not in names:
            world.end(process)
            continue
        children.append(
            ChildFact(
                process.slot, process.run, process.pid, 0,
                process.lane, process.gen, process.stranger,
            )
        )  # fmt: skip
    world.audit.taken_over()
    up = fold(
        world.spec, latest, children, world.boot, world.now, candidate=candidate,
        takeover=who != "both",
    )  # fmt: skip
    up = replace(up, adopted=tuple(a for a in up.adopted if _has_slot(world, a.slot, candidate)))
    for process in list(world.processes.values()):  # scaled away meanwhile
        if not _has_slot(world, process.slot, candidate):
            world.end(process)
    world.dispatch(up)
    for process in list(world.processes.values()):
        if process.left is not None and process.alive:
            world.dispatch(Left(process.slot, process.run, process.left))


def _has_slot(world: "SimWorld", slot: Slot, candidate: Spec | None) -> bool:
    if slot in world.engine.instances:
        return True
    added = candidate.service.get(slot.service) if candidate else None
    return (
        added is not None and slot.service not in world.spec.service and slot.replica <= added.slots
    )


def _lose_keeper(world: "SimWorld", who: str) -> None:
    """Reports and requests under way are lost; the ends of processes are seen again, without
    their status, or not at all when nobody was there."""
    world.era += 1
    for process in list(world.processes.values()):
        process.stranger = True
        if process.alive:
            continue
        if who == "both":
            del world.processes[process.pid]
        else:
            world.report_end(process, ExitCause(ExitKind.LOST))
