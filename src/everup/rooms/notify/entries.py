"""The journal kinds of messages to people."""

from dataclasses import dataclass
from typing import Any, Final

from everup.model.entry import EntryKind, Severity


@dataclass(frozen=True, slots=True)
class Sent:
    """People were told of an incident; the subject of the entry is the incident's."""

    route: str
    number: int
    stage: str
    """``opened``, ``graver``, ``asked``, ``reminder``, ``escalated``, ``resolved``, ``test``."""
    id: str
    severity: str = ""
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Failed:
    """People could not be told."""

    route: str
    number: int
    stage: str
    id: str
    error: str
    severity: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """People are not told, or not yet."""

    route: str
    number: int
    why: str
    until: float = 0.0
    """Seconds since the epoch; 0: until something changes."""


@dataclass(frozen=True, slots=True)
class Silenced:
    """A person wants nobody to be told; the subject of the entry is whom it is about."""

    until: float
    """Seconds since the epoch; 0: it ends now."""
    by: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Tested:
    """A person wants to see that a route works; the subject of the entry is the route."""

    id: str
    by: str


SENT: Final[EntryKind[Any]] = EntryKind(
    "notify.sent", Sent, "People were told of an incident by a ``route``.", Severity.NOTE,
)  # fmt: skip
FAILED: Final[EntryKind[Any]] = EntryKind(
    "notify.failed", Failed,
    "People could not be told by a ``route``, however often it was tried.", Severity.BAD,
    "people could not be told",
)  # fmt: skip
HELD: Final[EntryKind[Any]] = EntryKind(
    "notify.held", Held, "Why people are not told by a ``route``, or not yet.", Severity.NOTE,
)  # fmt: skip
SILENCED: Final[EntryKind[Any]] = EntryKind(
    "notify.silenced", Silenced,
    "Nobody is told of incidents of the subject ``until`` then; until 0 ends that.", Severity.NOTE,
)  # fmt: skip
TESTED: Final[EntryKind[Any]] = EntryKind(
    "notify.tested", Tested, "A person has asked for a message by a route, to try it.",
    Severity.NOTE,
)  # fmt: skip
KINDS: Final = (SENT, FAILED, HELD, SILENCED, TESTED)
