"""Start and stop order over the dependency graph."""

from collections.abc import Iterable, Mapping

from everup.model.instance import State
from everup.model.record import Instance
from everup.model.spec import Service


def dependents(services: Mapping[str, Service]) -> dict[str, tuple[str, ...]]:
    """Who depends directly on each service. A dependency that is no more has no users: it may be
    gone before the last process that needed it."""
    table: dict[str, list[str]] = {name: [] for name in services}
    for name, service in services.items():
        for dependency in service.depends_on:
            if dependency in table:
                table[dependency].append(name)
    return {name: tuple(users) for name, users in table.items()}


def satisfied(service: Service, instances: Iterable[Instance]) -> bool:
    """Whether what depends on ``service`` may start: one replica is ready and is to stay so, or
    the oneshot is done."""
    if service.type == "oneshot":
        return all(instance.done for instance in instances)
    return service.replicas == 0 or any(
        i.state is State.READY and (i.want or i.outgoing) for i in instances
    )


def is_down(instances: Iterable[Instance]) -> bool:
    """No process of the service is left."""
    return not any(instance.state.alive for instance in instances)
