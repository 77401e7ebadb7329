"""What the room of notifications wants done, and what it hears back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everup.model.action import Asked


@dataclass(frozen=True, slots=True)
class Message:
    """One message to people."""

    id: str
    """The same however often it is tried: who gets it twice can tell."""
    title: str
    text: str
    data: Mapping[str, Any]
    """All of it for programs."""


@dataclass(frozen=True, slots=True)
class Tell(Asked):
    """Tell people by a route; ``Told`` follows."""

    route: str
    message: Message


@dataclass(frozen=True, slots=True)
class Told:
    """A route has taken a message, or has failed to for good."""

    route: str
    id: str
    error: str = ""
    """"": it was taken."""
    attempts: int = 1
