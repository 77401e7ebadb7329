"""What every room may read: the services, and the processes that run for them."""

from collections.abc import Mapping
from typing import Protocol

from everup.model.instance import Slot
from everup.model.record import Instance
from everup.model.spec import Service, Spec


class World(Protocol):
    """The state of the supervisor, for reading only: the supervisor alone writes it."""

    @property
    def spec(self) -> Spec:
        """The config in force."""
        ...

    @property
    def services(self) -> Mapping[str, Service]:
        """The services as they are by now: replicas as operators have scaled them."""
        ...

    @property
    def instances(self) -> Mapping[Slot, Instance]:
        """The present instance of each slot."""
        ...

    @property
    def turned(self) -> Mapping[Slot, float]:
        """When each slot really became ready, or ceased to be, last; in monotonic seconds."""
        ...

    @property
    def quitting(self) -> bool:
        """everup itself is on its way down."""
        ...

    def is_replacing(self, service: str) -> bool:
        """Tell whether processes of the service are being replaced on purpose."""
        ...

    def is_leaving(self, service: str) -> bool:
        """Tell whether the service is in the config no more."""
        ...

    def of(self, service: str) -> list[Instance]:
        """Give the instances of a service, by number."""
        ...

    def all_of(self, service: str) -> list[Instance]:
        """Give the same, and the processes that are being replaced."""
        ...

    def process(self, slot: Slot, run: int | None) -> Instance | None:
        """Give the instance of that incarnation; None: of the present one."""
        ...

    def definition(self, instance: Instance) -> Service:
        """Give what the process of an instance was started with."""
        ...
