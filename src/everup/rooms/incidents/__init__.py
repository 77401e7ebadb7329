"""Makes incidents of conditions: one for each cause, with its symptoms and its impact."""

from typing import Final

from everup.kernel.manifest import Command, Manifest

ROOM: Final = Manifest(
    name="incidents",
    doc="Makes incidents of conditions: one for each cause.",
    host="observer",
    room="everup.rooms.incidents.room:Incidents",
    entries="everup.rooms.incidents.entries:KINDS",
    edge="everup.rooms.incidents.edge",
    double="everup.rooms.incidents.sim",
    commands=(
        Command("incidents", "everup.rooms.incidents.cli:incidents", "List incidents."),
        Command("incident", "everup.rooms.incidents.cli:incident", "Show one incident, whole."),
        Command("ack", "everup.rooms.incidents.cli:ack", "Take an incident on."),
    ),
)
