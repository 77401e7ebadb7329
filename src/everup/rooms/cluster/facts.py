"""What the cluster's edge tells its room."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from everup.rooms.cluster.lease import Look


@dataclass(frozen=True, slots=True)
class Local:
    """How a singleton stands on this machine, as the engine has it."""

    wanted: bool
    """It is to run here if it is ours: no operator has stopped it."""
    alive: bool
    """A process of it may exist."""
    token: int = 0
    """By which it was given to this machine last; 0: not, as far as the engine knows."""
    given_up: bool = False
    """It was told to give that one up: it is not started by it again."""


@dataclass(frozen=True, slots=True)
class Turned:
    """One turn: first the session was renewed, then etcd looked at, then the engine asked."""

    look: Look
    identity: str
    """What this machine is known by: the same for each observer of it, until it boots again."""
    until: float | None
    """By CLOCK_BOOTTIME: what we own is ours until then, a margin taken off; None: no session was
    renewed."""
    session: int = 0
    """The one that was renewed."""
    leaving: bool = False
    """This everup is on its way down."""
    local: Mapping[str, Local] = field(default_factory=dict)
    """By singleton of the config in force."""


@dataclass(frozen=True, slots=True)
class NotTaken:
    """The engine's guard refuses to start what this machine has just got."""

    service: str
    token: int
    why: str


@dataclass(frozen=True, slots=True)
class Missed:
    """A turn failed: nobody of etcd answered in time, or etcd refuses us."""

    why: str
