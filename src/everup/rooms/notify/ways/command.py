"""Messages on the standard input of a program."""

import json
from collections.abc import Sequence
from typing import Final

from everup.observer.running import RunError, run
from everup.rooms.notify.actions import Message
from everup.rooms.notify.ways import LaterError

_TIMEOUT_S: Final = 30.0


async def send(command: Sequence[str], message: Message) -> None:
    """Run a program with a message. Raises ``LaterError`` where that does not work."""
    body = json.dumps({"title": message.title, **message.data}, ensure_ascii=False).encode()
    try:
        await run(command, body, timeout_s=_TIMEOUT_S)
    except RunError as error:
        raise LaterError(str(error)) from None
