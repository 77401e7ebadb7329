"""What the room of incidents wants done."""

from dataclasses import dataclass

from everup.model.action import Asked


@dataclass(frozen=True, slots=True)
class Explain(Asked):
    """Look for the cause of an incident; ``Reason`` follows."""

    number: int
    subject: str
    """A service or an instance."""
    text: str
    """The finding, where nothing more is found."""
    condition: str
