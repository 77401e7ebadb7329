"""The processes beside the engine, through the keeper."""

from typing import Any, Final

from everup.rooms.observer.actions import KillAid, StartAid


async def _watch(host: Any) -> None:
    await host.aids.watch()


def _start(action: StartAid, host: Any) -> None:
    host.aids.start(action.name)


def _kill(action: KillAid, host: Any) -> None:
    host.aids.kill(action.name, at_once=action.at_once)


SOURCES: Final = (_watch,)
PERFORMERS: Final = {StartAid: _start, KillAid: _kill}
