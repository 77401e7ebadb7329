"""What the cluster's room wants done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from everup.model.action import Asked


@dataclass(frozen=True, slots=True)
class Join(Asked):
    """Begin a session and write down that we are a member; or go on with ``session``, which an
    observer before this one had."""

    session: int = 0


@dataclass(frozen=True, slots=True)
class Leave(Asked):
    """End our session: this everup goes down, and owns nothing any more."""


@dataclass(frozen=True, slots=True)
class Hurry(Asked):
    """Take the next turn at once."""


@dataclass(frozen=True, slots=True)
class Acquire(Asked):
    """Make a key ours if nobody has it; whether it is will be seen by the next turn."""

    key: str
    drop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Release(Asked):
    """Drop a key that is ours, made at that token."""

    key: str
    token: int


@dataclass(frozen=True, slots=True)
class Move(Asked):
    """Write down that a service is to move to another node."""

    service: str
    to: str


@dataclass(frozen=True, slots=True)
class Say:
    """Whose one singleton is, for the engine."""

    service: str
    token: int
    """0: not this machine's."""
    yields: bool = False
    """It is to be stopped and not started again by this token."""


@dataclass(frozen=True, slots=True)
class Tell(Asked):
    """Tell the engine whose its singletons are, and how the cluster stands."""

    until: float
    """By CLOCK_BOOTTIME: when a process that we own is killed unless this is told again."""
    says: tuple[Say, ...] = ()
    view: Mapping[str, Any] = field(default_factory=dict)
