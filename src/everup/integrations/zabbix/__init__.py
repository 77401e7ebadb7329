"""Tells Zabbix how everup and its services are; writes the template that Zabbix reads it with."""

from typing import Final

from everup.kernel.manifest import Command, Manifest, Table

ROOM: Final = Manifest(
    name="zabbix",
    doc="Tells Zabbix how everup and its services are.",
    host="observer",
    edge="everup.integrations.zabbix.edge",
    tables=(Table("zabbix", "everup.integrations.zabbix.config:Zabbix"),),
    commands=(
        Command("zabbix", "everup.integrations.zabbix.cli:zabbix", "Set Zabbix up for everup."),
    ),
)
