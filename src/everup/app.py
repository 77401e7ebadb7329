"""The only list of rooms, in the order in which a step asks them. To add a room: its folder, and a
line here."""

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from everup.kernel.manifest import Command, Manifest, Route, Table, load

if TYPE_CHECKING:
    from everup.model.entry import EntryKind

_SUPERVISE: Final = Manifest(
    name="supervise", doc="Keeps every service as its config and its operators want it."
)
_NAMES: Final = (
    "observer",
    "dependencies",
    "supervise",
    "slo",
    "locate",
    "monitor",
    "check",
    "detect",
    "incidents",
    "console",
    "recover",
    "notify",
    "cluster",
)
_INTEGRATIONS: Final = ("nagios", "zabbix", "elasticsearch", "logstash", "kibana")
"""Systems that everup speaks with; the observer runs their edges."""
ROOMS: Final[tuple[Manifest, ...]] = (
    *(_SUPERVISE if name == "supervise" else load(f"everup.rooms.{name}:ROOM") for name in _NAMES),
    *(load(f"everup.integrations.{name}:ROOM") for name in _INTEGRATIONS),
)


@cache
def hosted(host: str) -> tuple[Manifest, ...]:
    """Give the rooms that live in that process: ``engine`` or ``observer``."""
    return tuple(room for room in ROOMS if room.host == host)


@cache
def tables() -> tuple[Table, ...]:
    """Give every top-level table of the config that a room brings."""
    return tuple(table for room in ROOMS for table in room.tables)


@cache
def kinds() -> "dict[str, EntryKind[Any]]":
    """Give every kind of journal entry that a room brings, by its name in the journal."""
    return {kind.value: kind for room in ROOMS for kind in room.kinds}


@cache
def routes() -> tuple[Route, ...]:
    """Give every request that a room answers."""
    return tuple(route for room in ROOMS for route in room.routes)


@cache
def commands() -> dict[str, Command]:
    """Give every command that a room brings, by name."""
    return {command.name: command for room in ROOMS for command in room.commands}
