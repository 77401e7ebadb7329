"""The I/O of the room echo: a clock, and a voice."""

import asyncio
from typing import Any, Final

from everup.rooms.echo.actions import Say
from everup.rooms.echo.facts import Beat

_EVERY_S = 0.1


async def _clock(host: Any) -> None:
    while True:
        await asyncio.sleep(_EVERY_S)
        host.dispatch(Beat())


def _say(action: Say, host: Any) -> None:
    host.voice.say(f"echo: {action.text}")


SOURCES: Final = (_clock,)
PERFORMERS: Final = {Say: _say}
