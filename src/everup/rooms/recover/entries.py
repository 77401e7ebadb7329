"""The journal kinds of what everup does about incidents."""

from dataclasses import dataclass
from typing import Any, Final

from everup.model.entry import EntryKind, Severity


@dataclass(frozen=True, slots=True)
class Began:
    """A rung is climbed; the subject of the entry is whom it is about."""

    number: int
    rung: str
    owner: str
    """The service whose ladder it is."""
    why: str
    before: int = 0
    """For ``scale``: the replicas of before."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """What everup would do, and a person has to approve, or wants only to know."""

    number: int
    rung: str
    owner: str
    why: str
    until: float = 0.0
    """Seconds since the epoch: when that expires; 0: it is only said."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A person has approved or denied it."""

    number: int
    by: str
    yes: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a rung."""

    number: int
    rung: str
    owner: str
    outcome: str
    """``helped``, ``failed``, ``refused``, ``expired`` or ``denied``."""
    after_s: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Undone:
    """The incident is over, and so is what was done for it."""

    number: int
    rung: str
    owner: str
    error: str = ""


BEGAN: Final[EntryKind[Any]] = EntryKind(
    "recover.began", Began, "everup climbs a ``rung`` of the ladder of ``owner`` for an incident.",
    Severity.WARNING, "recovering",
)  # fmt: skip
PROPOSED: Final[EntryKind[Any]] = EntryKind(
    "recover.proposed", Proposed,
    "everup would climb a ``rung``: a person has to approve ``until`` then, or (until 0) the mode "
    "is ``watch``.", Severity.NOTE,
)  # fmt: skip
ANSWERED: Final[EntryKind[Any]] = EntryKind(
    "recover.answered", Answered, "A person has approved or denied what everup proposed.",
    Severity.NOTE,
)  # fmt: skip
ENDED: Final[EntryKind[Any]] = EntryKind(
    "recover.ended", Ended, "What came of a ``rung``: its ``outcome``, and ``why``.",
    Severity.NOTE,
)  # fmt: skip
UNDONE: Final[EntryKind[Any]] = EntryKind(
    "recover.undone", Undone, "The incident is over: what a ``rung`` has changed is as before.",
    Severity.GOOD,
)  # fmt: skip
KINDS: Final = (BEGAN, PROPOSED, ANSWERED, ENDED, UNDONE)
