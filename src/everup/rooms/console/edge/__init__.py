"""All I/O of the console: ``run`` is what the observer calls."""

from typing import Any, Final

from everup.kernel.manifest import load
from everup.observer.feed import Feed
from everup.rooms.console.config import Console

_SERVER: Final = "everup.rooms.console.edge.server"


def prepare(spec: Any) -> None:
    """Load the server and the files of the page, where the config wants a console."""
    if spec.console.listen is not None:
        load(_SERVER)


async def run(feed: Feed) -> None:
    """Serve the console where ``[console] listen`` says, until cancelled."""
    table = feed.table("console") or Console()
    if table.listen is not None:
        await load(f"{_SERVER}:serve")(feed, table.listen)


SOURCES: Final = (run,)
PERFORMERS: Final[dict[type, Any]] = {}
PREPARE: Final = prepare
