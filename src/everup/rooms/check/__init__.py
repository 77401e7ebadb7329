"""Checks what everup does not run, and jobs that must report."""

from typing import Final

from everup.kernel.manifest import Command, Manifest, Table

ROOM: Final = Manifest(
    name="check",
    doc="Checks what everup does not run, and jobs that must report.",
    host="observer",
    room="everup.rooms.check.room:Check",
    entries="everup.rooms.check.entries:KINDS",
    tables=(
        Table(
            "check",
            "everup.rooms.check.config:Check",
            named=True,
            check="everup.rooms.check.config:check",
        ),
    ),
    edge="everup.rooms.check.edge",
    commands=(
        Command("checks", "everup.rooms.check.cli:checks", "Show how the checks stand."),
        Command("beat", "everup.rooms.check.cli:beat", "Say that a job has done its work."),
    ),
)
