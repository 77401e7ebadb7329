"""Several machines: by etcd they agree which of them runs what may run once only."""

from typing import Final

from everup.kernel.manifest import Command, Manifest, Route, Table

_HERE: Final = "everup.rooms.cluster"
ROOM: Final = Manifest(
    name="cluster",
    doc="Agrees with other machines which of them runs what may run once only.",
    host="observer",
    room=f"{_HERE}.room:Member",
    entries="everup.rooms.cluster.entries:KINDS",
    tables=(Table("cluster", f"{_HERE}.config:Cluster", check=f"{_HERE}.config:check"),),
    edge=f"{_HERE}.edge",
    double=f"{_HERE}.sim",
    routes=(
        Route("get", "/v1/cluster", f"{_HERE}.api:shown", "Show the cluster as last seen"),
        Route("post", "/v1/cluster/tell", f"{_HERE}.api:tell", "Take whose each singleton is"),
    ),
    commands=(
        Command("cluster", f"{_HERE}.cli:cluster", "Show the machines, and who owns what."),
        Command("move", f"{_HERE}.cli:move", "Move a singleton to another machine."),
    ),
)
