"""Ships the journal and the incidents to Logstash, by the Lumberjack protocol of the Beats."""

from typing import Final

from everup.kernel.manifest import Command, Manifest, Table

ROOM: Final = Manifest(
    name="logstash",
    doc="Ships events and incidents to Logstash.",
    host="observer",
    edge="everup.integrations.logstash.edge",
    tables=(Table("logstash", "everup.integrations.logstash.config:Logstash"),),
    commands=(
        Command(
            "logstash",
            "everup.integrations.logstash.cli:logstash",
            "Set up Logstash for what everup ships.",
        ),
    ),
)
