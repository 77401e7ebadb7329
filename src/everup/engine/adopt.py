"""Take over a process of an earlier engine as it runs."""

from dataclasses import replace
from typing import TYPE_CHECKING

from everup.model.action import Signal
from everup.model.event import Adopted
from everup.model.instance import State
from everup.model.journal import Kind
from everup.supervise.lifecycle import Happening, On

if TYPE_CHECKING:
    from everup.engine.core import Engine


def adopt(engine: "Engine", found: Adopted, now: float) -> None:
    """The instance goes on where the journal says that it was."""
    state = found.state.value
    engine.record(Kind.ADOPTED, str(found.slot), run=found.run, pid=found.pid, state=state)
    if found.state is State.STOPPING:
        _stopping(engine, found, now)
    else:
        _running(engine, found, now)


def _running(engine: "Engine", found: Adopted, now: float) -> None:
    slot, service = found.slot, engine.services[found.slot.service]
    old, up = engine.instances[slot], found.state in (State.RUNNING, State.READY)
    new = replace(
        old,
        state=found.state if up else State.STARTING,
        since=now,
        run=found.run,
        pid=found.pid if up else 0,
        phase="" if up else "spawn",
        spawned_at=found.spawned_at,
        up_at=found.spawned_at if up else None,
        is_ready=found.state is State.READY or service.probe.readiness is None,
        restarts=found.restarts,
        deadline=now + service.restart.reset_after if up else None,
    )
    if up and service.watchdog is not None:
        every = service.watchdog.interval
        new = replace(new, watchdog_s=every, watchdog_at=now + every)
    engine.carry(service, old, new, now)
    if not up:  # its start is not over, or nobody saw how it went: go on from there
        engine.happen(slot, Happening(On.SPAWNED, pid=found.pid), now)
    if not new.want:
        engine.pending_stop.add(slot)


def _stopping(engine: "Engine", found: Adopted, now: float) -> None:
    """What is left of its time is not known, so it gets all of it."""
    slot, service = found.slot, engine.services[found.slot.service]
    old = engine.instances[slot]
    new = replace(
        old,
        state=State.STOPPING,
        since=now,
        run=found.run,
        pid=found.pid,
        asked=True,
        spawned_at=found.spawned_at,
        restarts=found.restarts,
        reason="stopping",
        deadline=now + service.stop_timeout,
    )
    engine.carry(service, old, new, now)
    if not found.signalled:
        engine.record(Kind.SIGNALLED, str(slot), signal=service.stop_signal, run=found.run)
        engine.emit(Signal(slot, found.run, service.stop_signal))
