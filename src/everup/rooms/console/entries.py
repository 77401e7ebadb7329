"""The journal kinds of the console."""

from dataclasses import dataclass
from typing import Any, Final

from everup.model.entry import EntryKind


@dataclass(frozen=True, slots=True)
class Opened:
    """A person has begun a session."""

    user: str


@dataclass(frozen=True, slots=True)
class Acted:
    """A person has asked for something in the console."""

    user: str
    command: str
    why: str


OPENED: Final[EntryKind[Any]] = EntryKind(
    "console.opened", Opened, "``user`` has opened the console by a link of ``everup console``."
)
ACTED: Final[EntryKind[Any]] = EntryKind(
    "console.acted", Acted,
    "``user`` asked in the console for ``command`` of the subject, and gave ``why`` as the reason. "
    "What follows from it comes next.",
)  # fmt: skip
KINDS: Final = (OPENED, ACTED)
