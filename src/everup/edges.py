"""Finds the edges of the rooms, and their doubles in the simulated world, by the manifests."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from everup import app
from everup.kernel.manifest import load

Performer = Callable[[Any, Any], None]
"""Carries out one action: ``performer(action, host)``."""
Source = Callable[[Any], Awaitable[None]]
"""Brings events in until it is cancelled: ``await source(host)``."""


def performers(part: str, host: str = "engine") -> Mapping[type, Performer]:
    """Give who carries out the actions of the rooms of a process; ``part``: ``edge`` or
    ``double``."""
    return {
        action: performer
        for module in _modules(part, host)
        for action, performer in module.PERFORMERS.items()
    }


def sources(host: str = "engine") -> Sequence[Source]:
    """Give what brings events in for the rooms of a process."""
    return [source for module in _modules("edge", host) for source in module.SOURCES]


def prepare(host: str, spec: Any) -> None:
    """Let the edges of a process load what they need for a config, while it still may."""
    for module in _modules("edge", host):
        if (step := getattr(module, "PREPARE", None)) is not None:
            step(spec)


def doubles(host: str = "engine") -> Sequence[Callable[[Any], None]]:
    """Give what stands for the sources in the simulated world, which each plans its events in."""
    return [source for module in _modules("double", host) for source in module.SOURCES]


def _modules(part: str, host: str) -> Sequence[Any]:
    return [load(name) for room in app.hosted(host) if (name := getattr(room, part))]
