"""Says what is wrong: conditions, level-triggered, with their evidence."""

from typing import Final

from everup.kernel.manifest import Manifest

ROOM: Final = Manifest(
    name="detect",
    doc="Says what is wrong: conditions, with what was seen.",
    host="observer",
    room="everup.rooms.detect.room:Detect",
    entries="everup.rooms.detect.entries:KINDS",
)
