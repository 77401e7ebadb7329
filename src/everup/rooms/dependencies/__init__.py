"""What instances say of what they depend on."""

from typing import Final

from everup.kernel.manifest import Manifest

ROOM: Final = Manifest(
    name="dependencies",
    doc="Keeps what each process says of what it depends on: breakers, and how calls went.",
    room="everup.rooms.dependencies.room:Dependencies",
)
