"""The journal kinds of incidents."""

from dataclasses import dataclass
from typing import Any, Final

from everup.model.entry import EntryKind, Severity


@dataclass(frozen=True, slots=True)
class Opened:
    """An incident begins; the subject of the entry is where it began."""

    number: int
    severity: str
    sentence: str
    """What, and because of what; "" until that is known."""
    since: float
    """Seconds since the epoch."""
    conditions: tuple[str, ...] = ()
    """``kind subject`` of each condition that it began with."""


@dataclass(frozen=True, slots=True)
class Explained:
    """The cause of an incident was looked for."""

    number: int
    sentence: str
    cause: str = ""
    """Kind of the cause; "" where there is no confident one."""
    says: str = ""
    confidence: float = 0.0
    path: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    """What a person can do next."""
    runner_up: str = ""


@dataclass(frozen=True, slots=True)
class Joined:
    """A condition belongs to an incident that is open: a symptom of it."""

    number: int
    condition: str
    text: str
    severity: str


@dataclass(frozen=True, slots=True)
class Merged:
    """An incident was found to be a part of another one."""

    number: int
    into: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A person has taken an incident on."""

    number: int
    by: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """Something was done about an incident, or is to be approved."""

    number: int
    did: str = ""
    """In words, with what came of it."""
    proposal: str = ""
    """What a person has to approve; "" for nothing."""


@dataclass(frozen=True, slots=True)
class Mitigated:
    """No service is hurt by it any more; what is left is watched."""

    number: int
    after_s: float


@dataclass(frozen=True, slots=True)
class Resolved:
    """An incident is over."""

    number: int
    after_s: float
    sentence: str
    impact: str = ""


OPENED: Final[EntryKind[Any]] = EntryKind(
    "incidents.opened", Opened,
    "An incident ``number`` begins, with the conditions that it began with.", Severity.BAD,
    "incident opened",
)  # fmt: skip
EXPLAINED: Final[EntryKind[Any]] = EntryKind(
    "incidents.explained", Explained,
    "The cause of an incident, as far as it was found: the ``sentence`` with its evidence.",
    Severity.NOTE,
)  # fmt: skip
JOINED: Final[EntryKind[Any]] = EntryKind(
    "incidents.joined", Joined,
    "A further condition belongs to an open incident: it is a symptom of it.", Severity.NOTE,
)  # fmt: skip
MERGED: Final[EntryKind[Any]] = EntryKind(
    "incidents.merged", Merged,
    "An incident turned out to be a symptom of another one, ``into``, and goes on as a part of it.",
    Severity.NOTE,
)  # fmt: skip
ACKNOWLEDGED: Final[EntryKind[Any]] = EntryKind(
    "incidents.acknowledged", Acknowledged, "A person (``by``) has taken an incident on.",
    Severity.NOTE, "incident acknowledged",
)  # fmt: skip
RESPONDED: Final[EntryKind[Any]] = EntryKind(
    "incidents.responded", Answer,
    "Something was done about an incident (``did``), or has to be approved (``proposal``).",
    Severity.NOTE,
)  # fmt: skip
MITIGATED: Final[EntryKind[Any]] = EntryKind(
    "incidents.mitigated", Mitigated,
    "Nothing critical of an incident is left; warnings of it still are.", Severity.GOOD,
)  # fmt: skip
RESOLVED: Final[EntryKind[Any]] = EntryKind(
    "incidents.resolved", Resolved, "An incident is over, after ``after_s``.", Severity.GOOD,
    "incident resolved",
)  # fmt: skip
KINDS: Final = (OPENED, EXPLAINED, JOINED, MERGED, ACKNOWLEDGED, RESPONDED, MITIGATED, RESOLVED)
