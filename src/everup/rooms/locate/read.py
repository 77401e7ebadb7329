"""What ``why`` goes by, from a running everup or from its files."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from everup.adapters import trusted
from everup.adapters.place import Place
from everup.cli import offline
from everup.cli.client import Client, keeper_lives
from everup.cli.context import Failure
from everup.rooms.locate.causes import Known, why
from everup.rooms.locate.output import Line
from everup.rooms.locate.stored import between

MOST_ENTRIES: Final = 5000
"""The newest events are looked at, no more."""
_BRIEF_ENTRIES: Final = 300


def brief(place: Place, slots: Sequence[str], within_s: float | None = None) -> dict[str, str]:
    """Give the cause of each of these instances in some words, where one is sure enough. For
    commands that say more than this: whatever goes wrong here costs only these words.
    ``within_s``: only of failures that are no older."""
    if not slots:
        return {}
    out = {}
    with contextlib.suppress(Failure, OSError, LookupError, ValueError):
        facts = known(place, slots, _BRIEF_ENTRIES)
        for slot in slots:
            answer = why(slot, facts)
            recent = within_s is None or (answer.last or 0.0) >= time.time() - within_s
            if answer.cause is not None and recent:
                out[slot] = answer.cause.says
    return out


def known(place: Place, subjects: Sequence[str] = (), most: int = MOST_ENTRIES) -> Known:
    """Gather the newest events and where services listen. Raises ``Failure``."""
    query: dict[str, Any] = {"service": subjects, "kind": (), "follow": 0, "n": most}
    if keeper_lives(place):
        found = list(Client(place).lines("/v1/events", query))
    else:
        found = list(offline.events(place, query))
    entries = [entry | {"at": _seconds(entry["time"])} for entry in found]
    return Known(entries, _output(place), _listeners(place))


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _listeners(place: Place) -> Mapping[str, Sequence[str]]:
    """Where each service listens. Leniently: a config that is broken now must not keep anybody from
    an answer."""
    import tomllib

    try:
        with open(place.config, "rb") as file:
            services = tomllib.load(file).get("service", {})
    except (OSError, ValueError, Failure):
        return {}
    return {
        name: _addresses(table.get("listen")) + _addresses(table.get("port"))
        for name, table in (services.items() if isinstance(services, dict) else ())
        if isinstance(table, dict)
    }


def _addresses(value: object) -> list[str]:
    match value:
        case str():
            return [value]
        case int():
            return [f":{value}"]
        case list():
            return [address for item in value for address in _addresses(item)]
        case dict():
            return [address for item in value.values() for address in _addresses(item)]
        case _:
            return []


def _output(place: Place) -> Callable[[str, float, float], Sequence[Line]]:
    def said(slot: str, begin: float, end: float) -> Sequence[Line]:
        with trusted.as_owner(place.weakness()):
            return between(Path(place.logs), slot, begin, end)

    return said
