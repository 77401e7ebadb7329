"""Facts: what one room tells all others. Rooms know facts, never each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everup.model.instance import Slot
from everup.model.record import Instance
from everup.model.spec import Service


@dataclass(frozen=True, slots=True)
class ProcessEnded:
    """The main process of an instance is gone."""

    before: Instance
    """The instance while the process lived."""
    after: Instance
    service: Service
    """What the process was started with."""


@dataclass(frozen=True, slots=True)
class ConfigInForce:
    """A changed config is in force from now on."""


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A process that an earlier engine started goes on under this one."""

    slot: Slot
    run: int
    heard: Mapping[str, Any]
    """What it had said of its dependencies, see ``fold.heard``."""
