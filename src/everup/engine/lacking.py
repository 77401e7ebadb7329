"""What a service would wait for if it were started now: asked before it is stopped for that."""

from collections.abc import Collection, Iterable, Mapping

from everup.engine.state import Supervised
from everup.model.instance import State
from everup.model.record import Instance
from everup.model.spec import Service
from everup.supervise import order

_ON_ITS_WAY = (State.STARTING, State.RUNNING, State.READY, State.BACKOFF, State.STOPPED)


def lacking(
    engine: Supervised,
    services: Mapping[str, Service],
    names: Iterable[str],
    coming: Collection[str],
    *,
    patient: bool = False,
) -> list[str]:
    """A sentence for each dependency that keeps one of ``names`` from starting.

    ``services``: as they are to be; ``coming``: those that the same command starts or replaces.
    What serves must not stop for a dependency that is not ready now; what is down may well wait
    for one that is on its way, and with ``patient`` everybody may.
    """
    found = []
    for name in names:
        mine = engine.all_of(name) if name in engine.services else []
        serves = not patient and any(i.state.alive for i in mine)
        for dependency in services[name].depends_on:
            if dependency in coming or dependency not in services:
                continue
            service = engine.services.get(dependency, services[dependency])
            instances = engine.all_of(dependency) if dependency in engine.services else []
            if order.satisfied(service, instances) and (instances or not service.slots):
                continue  # a oneshot that is not there has not run
            if serves or not any(map(_comes, instances)):
                state = _words(instances)
                mend = _mend(dependency, state)
                found.append(f"{name} needs {dependency}, which is {state}: {mend}")
    return found


def _comes(instance: Instance) -> bool:
    return instance.want and instance.state in _ON_ITS_WAY and not instance.parked


def _words(instances: list[Instance]) -> str:
    """The state of the best one."""
    wanted = [i for i in instances if i.want]
    if not wanted:
        return "stopped"
    if any(i.parked or i.state is State.PARKED for i in wanted):
        return "parked"
    return wanted[0].state.value


def _mend(name: str, state: str) -> str:
    if state == "stopped":
        return f"everup start {name}"
    if state in ("parked", "failed"):
        return f"everup logs {name}, then everup start {name}"
    return f"again when it is ready (everup status {name})"
