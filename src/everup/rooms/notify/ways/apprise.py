"""Messages by Apprise: chats, pagers and some hundred other services."""

import logging
from typing import Any, Final

from everup.rooms.notify.actions import Message
from everup.rooms.notify.ways import LaterError, RefusedError

MISSING: Final = "the package apprise is not there; install everup[notify]"
_KINDS: Final = {"resolved": "success", "test": "info"}


def load() -> None:
    """Import what is needed; also where it cannot be found: that is said when it is used."""
    try:
        import apprise  # noqa: F401
    except ImportError:
        return
    # It writes URLs, and so passwords, into its log.
    logging.getLogger("apprise").disabled = True


async def send(urls: str, message: Message) -> None:
    """Tell every URL, one a line; ``#`` begins a comment. Raises ``RefusedError`` where one is not
    understood, ``LaterError`` where one did not take the message."""
    try:
        import apprise
    except ImportError:
        raise RefusedError(MISSING) from None
    targets: Any = apprise.Apprise()
    lines = [line.strip() for line in urls.splitlines()]
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#") and not targets.add(line):
            raise RefusedError(f"line {number} of the file is no URL that Apprise understands")
    if not len(targets):
        raise RefusedError("the file names no URL")
    kind = _KINDS.get(str(message.data["stage"]), "failure")
    taken = await targets.async_notify(body=message.text, title=message.title, notify_type=kind)
    if not taken:
        raise LaterError("not every service of the file has taken the message")
