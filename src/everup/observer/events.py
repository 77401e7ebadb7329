"""What the observer's host tells its rooms."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from everup.model.journal import Entry


@dataclass(frozen=True, slots=True)
class Journaled:
    """The journal has an entry."""

    entry: Entry
    past: bool
    """It is from before this observer began: known already, and nothing is to be done about it."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """All of the past has been told; from here on what comes is new."""

    now: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One look at the machine and at each instance."""

    at: float
    """Seconds since the epoch."""
    mono: float
    machine: Mapping[str, float]
    instances: Mapping[str, Mapping[str, float]]
    """By instance."""
    queues: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By ``service:listener``: connections that wait for accept, and how many may."""
    disks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By mount point."""
    peers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By instance: the far ends of its connections, as ``host:port``."""


@dataclass(frozen=True, slots=True)
class Wrote:
    """What one instance has written since it was looked at before."""

    lines: int
    errors: int = 0
    """Lines, or whole tracebacks, that say that they are errors."""
    warnings: int = 0
    most: str = ""
    """The error that came most often."""
    new: tuple[str, ...] = ()
    """Errors of kinds that its service has never written before."""


@dataclass(frozen=True, slots=True)
class Output:
    """What the instances have written lately."""

    at: float
    """Seconds since the epoch."""
    wrote: Mapping[str, Wrote]
    """By instance; those that have written nothing are left out."""


@dataclass(frozen=True, slots=True)
class Reported:
    """An integration, a route or another system tells how something is: a condition that others
    than everup's own senses find."""

    kind: str
    """A kind of condition that is reported: ``unreached``, ``reported``, ``stale``, ..."""
    subject: str
    ok: bool
    text: str
    """What is the matter, without its subject; why it is over."""
    at: float
    """Seconds since the epoch."""
