"""What the room echo wants done."""

from dataclasses import dataclass

from everup.model.action import Asked


@dataclass(frozen=True, slots=True)
class Say(Asked):
    """Say a text to whoever watches everup in the foreground."""

    text: str
