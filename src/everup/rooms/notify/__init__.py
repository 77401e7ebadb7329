"""Tells people of incidents: once for each cause, by routes."""

from typing import Final

from everup.kernel.manifest import Command, Manifest, Table

ROOM: Final = Manifest(
    name="notify",
    doc="Tells people of incidents: once for each cause, by routes.",
    host="observer",
    room="everup.rooms.notify.room:Notify",
    entries="everup.rooms.notify.entries:KINDS",
    tables=(
        Table(
            "route",
            "everup.rooms.notify.config:Route",
            named=True,
            check="everup.rooms.notify.config:check",
        ),
        Table("heartbeat", "everup.rooms.notify.config:Heartbeat"),
    ),
    edge="everup.rooms.notify.edge",
    double="everup.rooms.notify.sim",
    commands=(
        Command("route", "everup.rooms.notify.cli:route", "Show and try how people are told."),
        Command("silence", "everup.rooms.notify.cli:silence", "Tell nobody of some incidents."),
    ),
)
