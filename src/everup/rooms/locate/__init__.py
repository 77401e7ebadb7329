"""Why something failed: causes from how a process ended and what it said last, with evidence."""

from typing import Final

from everup.kernel.manifest import Command, Manifest

ROOM: Final = Manifest(
    name="locate",
    doc="Says why a service failed, with the evidence.",
    commands=(
        Command("why", "everup.rooms.locate.cli:why", "Say why a service failed, with evidence."),
    ),
)
