"""Climbs the ladder of a service until an incident is over, or people have to."""

from typing import Final

from everup.kernel.manifest import Command, Manifest

ROOM: Final = Manifest(
    name="recover",
    doc="Climbs the ladder of a service until an incident is over, or people have to.",
    host="observer",
    room="everup.rooms.recover.room:Recover",
    entries="everup.rooms.recover.entries:KINDS",
    edge="everup.rooms.recover.edge",
    double="everup.rooms.recover.sim",
    commands=(
        Command("approve", "everup.rooms.recover.cli:approve", "Let everup do what it proposes."),
        Command("deny", "everup.rooms.recover.cli:deny", "Keep everup from what it proposes."),
    ),
)
