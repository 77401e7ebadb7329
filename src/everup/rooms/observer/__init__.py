"""Keeps the processes beside the engine running: the sampler and the observer."""

from typing import Final

from everup.kernel.manifest import Manifest

ROOM: Final = Manifest(
    name="observer",
    doc="Keeps the observer and its sampler running.",
    room="everup.rooms.observer.room:Attend",
    entries="everup.rooms.observer.entries:KINDS",
    edge="everup.rooms.observer.edge",
    double="everup.rooms.observer.sim",
)
