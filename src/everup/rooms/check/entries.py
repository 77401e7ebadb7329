"""The journal kinds of checks."""

from dataclasses import dataclass
from typing import Any, Final

from everup.model.entry import EntryKind, Severity


@dataclass(frozen=True, slots=True)
class Beat:
    """A job has done its work; the subject of the entry is its check."""

    by: str
    text: str = ""


BEAT: Final[EntryKind[Any]] = EntryKind(
    "check.beat", Beat, "A job has said that it has done its work.", Severity.NOTE,
)  # fmt: skip
KINDS: Final = (BEAT,)
