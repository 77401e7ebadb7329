"""Tells Nagios how the services are: passive results, object definitions, ``check_everup``."""

from typing import Final

from everup.kernel.manifest import Command, Manifest, Table

ROOM: Final = Manifest(
    name="nagios",
    doc="Tells Nagios how the services are.",
    host="observer",
    edge="everup.integrations.nagios.edge",
    tables=(Table("nagios", "everup.integrations.nagios.config:Nagios"),),
    commands=(
        Command("nagios", "everup.integrations.nagios.cli:nagios", "Set Nagios up for everup."),
    ),
)
