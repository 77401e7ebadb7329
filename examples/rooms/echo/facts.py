"""What the room echo hears, and what it tells."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Beat:
    """The clock beats."""


@dataclass(frozen=True, slots=True)
class Rang:
    """The room has spoken."""

    times: int
