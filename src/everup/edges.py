"""Finds the edges of the rooms, and their doubles in the simulated world, by the manifests."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from everup import app
from everup.kernel.manifest import load

Performer = Callable[[Any, Any], None]
"""Carries out one action: ``performer(action, host)``."""
Source = Callable[[Any], Awaitable[None]]
"""Brings events in until it is cancelled: ``await source(host)``."""


def performers(part: str) -> Mapping[type, Performer]:
    """Give who carries out the actions of all rooms; ``part`` is ``edge`` or ``double``."""
    return {
        action: performer
        for module in _modules(part)
        for action, performer in module.PERFORMERS.items()
    }


def sources() -> Sequence[Source]:
    """Give what brings events in for all rooms."""
    return [source for module in _modules("edge") for source in module.SOURCES]


def doubles() -> Sequence[Callable[[Any], None]]:
    """Give what stands for the sources in the simulated world, which each plans its events in."""
    return [source for module in _modules("double") for source in module.SOURCES]


def _modules(part: str) -> Sequence[Any]:
    return [load(name) for room in app.ROOMS if (name := getattr(room, part))]
