"""What the room of checks hears."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Checked:
    """A check has ended."""

    name: str
    ok: bool | None
    """None: it says nothing, one way or the other."""
    text: str
    at: float
    """Seconds since the epoch."""
    took_s: float = 0.0
