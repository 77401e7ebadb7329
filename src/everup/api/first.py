"""What is looked at before a command stops anything: whether what it starts could start."""

from collections.abc import Iterable, Mapping, Sequence

from everup.adapters import preflight
from everup.api.backend import Backend
from everup.api.commands import Refusal
from everup.engine.lacking import lacking
from everup.engine.records import Plan
from everup.model.instance import Slot
from everup.model.spec import Listener, Service, Spec

_SHOWN = 20


async def can_start(backend: Backend, slots: Iterable[Slot], what: str) -> None:
    """For start and restart. Raises ``Refusal``."""
    engine = backend.engine
    if what == "start":  # what runs is not started
        slots = [slot for slot in slots if not engine.instances[slot].state.alive]
    named = _by_service(slots)
    await _refuse(backend, engine.services, named, lacking(engine, engine.services, named, named))


async def can_apply(backend: Backend, spec: Spec, plan: Plan, *, patient: bool = False) -> None:
    """For reload. ``patient``: everup has just begun, and dependencies are on their way. Raises
    ``Refusal``."""
    engine = backend.engine
    started = {name: _started(backend, spec.service[name]) for name in plan.restarted}
    for name in plan.added:
        service = spec.service[name]
        started[name] = [Slot(name, n + 1) for n in range(service.slots * service.autostart)]
    started = {name: slots for name, slots in started.items() if slots}
    found = lacking(engine, spec.service, started, started, patient=patient)
    asked = {c.service for c in plan.changed if {"probe", "hooks"} & set(c.keys)}
    also = {name: _started(backend, spec.service[name]) for name in asked - set(started)}
    fresh = []
    for name in started:
        there = engine.services[name].listen if name in engine.services else ()
        known = {listener.address for listener in there}
        fresh += [x for x in spec.service[name].listen if x.address not in known]
    await _refuse(backend, spec.service, started | also, found, fresh)


def _started(backend: Backend, service: Service) -> list[Slot]:
    return [i.slot for i in backend.engine.of(service.name) if i.want and not i.done]


def _by_service(slots: Iterable[Slot]) -> dict[str, list[Slot]]:
    named: dict[str, list[Slot]] = {}
    for slot in slots:
        named.setdefault(slot.service, []).append(slot)
    return named


async def _refuse(
    backend: Backend,
    services: Mapping[str, Service],
    named: Mapping[str, list[Slot]],
    found: list[str],
    listen: Sequence[Listener] = (),
) -> None:
    checks = [(services[name], slots) for name, slots in named.items()]
    found = found + await preflight.ask(checks, backend.place.config_dir, listen)
    if found:
        lines = "".join(f"\n  {text}" for text in found[:_SHOWN])
        more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise Refusal(
            409,
            f"what is to start could not start; nothing was stopped or started:{lines}{more}",
            "mend that, then again",
        )
