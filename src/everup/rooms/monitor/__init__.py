"""What is going on: samples of the machine and of each instance, and who is connected to whom."""

from typing import Final

from everup.kernel.manifest import Manifest

ROOM: Final = Manifest(
    name="monitor",
    doc="Says what is going on: numbers of the machine and of each instance.",
    host="observer",
    edge="everup.rooms.monitor.edge",
)
