"""Kinds of journal entries that rooms bring: a name, a typed payload, and words."""

from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

P = TypeVar("P")


class Severity(StrEnum):
    """How much an entry matters to who looks after the services."""

    NOTE = "note"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class EntryKind(Generic[P]):
    """One kind of journal entry. ``payload`` is a frozen dataclass of plain values.

    ``value`` is its name in the journal; ``doc`` is for the events reference; ``words`` is what
    the foreground says, "" for nothing.
    """

    value: str
    payload: type[P]
    doc: str
    severity: Severity = Severity.NOTE
    words: str = ""

    def __post_init__(self) -> None:
        if not is_dataclass(self.payload):
            raise TypeError(f"{self.value}: {self.payload!r} is no dataclass")

    def __str__(self) -> str:
        return self.value

    def encode(self, payload: P) -> dict[str, Any]:
        """Give the payload as the journal keeps it. Raises ``TypeError`` for another kind's."""
        if type(payload) is not self.payload:
            raise TypeError(f"{self.value} takes {self.payload.__name__}, not {payload!r}")
        return asdict(payload)  # type: ignore[call-overload,no-any-return]

    def decode(self, payload: dict[str, Any]) -> P:
        """Read a payload back, also one of an older everup: keys that it lacks have their
        defaults, and keys that are unknown are left out. Raises ``TypeError`` where a key without
        a default is missing."""
        known = {item.name for item in fields(self.payload)}  # type: ignore[arg-type]
        return self.payload(**{key: value for key, value in payload.items() if key in known})
