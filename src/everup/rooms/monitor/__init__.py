"""What is going on: samples of the machine and of each instance, output, and series of both."""

from typing import Final

from everup.kernel.manifest import Command, Manifest

ROOM: Final = Manifest(
    name="monitor",
    doc="Brings samples of the machine and of each instance, and what they write.",
    host="observer",
    edge="everup.rooms.monitor.edge",
    commands=(
        Command("metrics", "everup.rooms.monitor.cli:metrics", "Show how something did lately."),
        Command("top", "everup.rooms.monitor.top:top", "Show what all instances use, live."),
    ),
)
