"""The web console: how everything is and why, and what a person can do about it."""

from typing import Final

from everup.kernel.manifest import Command, Manifest, Route, Table

_API: Final = "everup.rooms.console.api"
ROOM: Final = Manifest(
    name="console",
    doc="Shows a person in a browser how everything is, and brings what that person asks.",
    host="observer",
    entries="everup.rooms.console.entries:KINDS",
    edge="everup.rooms.console.edge",
    tables=(Table("console", "everup.rooms.console.config:Console"),),
    routes=(
        Route("post", "/v1/console/ticket", f"{_API}:ticket", "Make a link that is good once"),
        Route("post", "/v1/console/redeem", f"{_API}:redeem", "Begin a session by such a link"),
        Route("post", "/v1/console/session", f"{_API}:session", "Say whose session this is"),
        Route("post", "/v1/console/act", f"{_API}:act", "Do what the owner of a session asks"),
        Route("post", "/v1/console/close", f"{_API}:close", "End a session"),
    ),
    commands=(
        Command("console", "everup.rooms.console.cli:console", "Open the console in a browser."),
    ),
)
