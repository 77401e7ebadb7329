"""Ships the journal and the incidents to Elasticsearch or OpenSearch, as documents of ECS."""

from typing import Final

from everup.kernel.manifest import Command, Manifest, Table

ROOM: Final = Manifest(
    name="elasticsearch",
    doc="Ships events and incidents to Elasticsearch or OpenSearch.",
    host="observer",
    edge="everup.integrations.elasticsearch.edge",
    tables=(Table("elasticsearch", "everup.integrations.elasticsearch.config:Elasticsearch"),),
    commands=(
        Command(
            "elasticsearch",
            "everup.integrations.elasticsearch.cli:elasticsearch",
            "Set up Elasticsearch or OpenSearch for what everup ships.",
        ),
    ),
)
