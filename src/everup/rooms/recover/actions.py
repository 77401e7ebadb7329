"""What the room of recovery wants done, and what it hears back."""

from dataclasses import dataclass

from everup.model.action import Asked


@dataclass(frozen=True, slots=True)
class Climb(Asked):
    """Do what a rung is, or undo it; ``Climbed`` follows."""

    number: int
    rung: str
    owner: str
    subject: str
    """Whom it is done to: a service or an instance."""
    why: str
    undo: bool = False
    replicas: int = 0
    """For ``scale``."""


@dataclass(frozen=True, slots=True)
class Climbed:
    """A rung was done, or undone, or refused."""

    number: int
    rung: str
    owner: str
    undo: bool = False
    error: str = ""
    """"": it was done. Whether it has helped is seen from the conditions."""
