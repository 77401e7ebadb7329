"""Puts data views, searches and dashboards of what everup ships into Kibana."""

from typing import Final

from everup.kernel.manifest import Command, Manifest, Table

ROOM: Final = Manifest(
    name="kibana",
    doc="Puts dashboards of what everup ships into Kibana or OpenSearch Dashboards.",
    host="observer",
    tables=(Table("kibana", "everup.integrations.kibana.config:Kibana"),),
    commands=(
        Command(
            "kibana",
            "everup.integrations.kibana.cli:kibana",
            "Put dashboards of what everup ships into Kibana.",
        ),
    ),
)
