"""What differs between two definitions of one service."""

from dataclasses import replace

from everup.model.spec import Service


def is_cold(former: Service, target: Service) -> bool:
    """Whether the one can't follow the other while that runs: its sockets are others."""
    return (former.listen, former.port, former.type) != (target.listen, target.port, target.type)


def as_many(service: Service, other: Service) -> Service:
    """The definition with the number of replicas of the other: that is not a rollout's matter."""
    return replace(service, replicas=other.replicas, standby=other.standby)


def alike(service: Service, other: Service) -> bool:
    """The same, but for the number of replicas."""
    return as_many(service, other) == other
