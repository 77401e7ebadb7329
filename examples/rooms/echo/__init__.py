"""A room that shows how rooms are made."""

from typing import Final

from everup.kernel.manifest import Command, Manifest, Table

ROOM: Final = Manifest(
    name="echo",
    doc="Counts the beats of a clock and says so every few of them.",
    room="everup.rooms.echo.room:Echo",
    entries="everup.rooms.echo.entries:KINDS",
    tables=(Table("echo", "everup.rooms.echo.config:Echo"),),
    edge="everup.rooms.echo.edge",
    double="everup.rooms.echo.sim",
    commands=(Command("echo", "everup.rooms.echo.cli:echo", "Show how often the clock beat."),),
)
