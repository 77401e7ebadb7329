"""Keeps the processes beside the engine running: the sampler and the observer."""

from typing import Final

from everup.kernel.manifest import Manifest
from everup.rooms.observer.entries import ENDED, SILENT, STARTED

ROOM: Final = Manifest(
    name="observer",
    doc="Keeps the observer and its sampler running.",
    room="everup.rooms.observer.room:Attend",
    kinds=(STARTED, ENDED, SILENT),
    edge="everup.rooms.observer.edge",
    double="everup.rooms.observer.sim",
)
