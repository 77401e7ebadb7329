"""Conditions: level-triggered findings about a subject, active or not, with their evidence."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple


class Severity(StrEnum):
    """How much a condition hurts."""

    NOTE = "note"
    """Worth knowing; nobody is hurt."""
    WARNING = "warning"
    """It may come to a failure, or has cost some redundancy."""
    CRITICAL = "critical"
    """A service does not serve as it should."""


GRAVITY: Final = {Severity.NOTE: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}
"""To compare severities."""


class Key(NamedTuple):
    """What a condition is, and of whom: there is one of each at a time."""

    kind: str
    subject: str


@dataclass(frozen=True, slots=True)
class Condition:
    """One finding, as it was when it began."""

    kind: str
    """Such as ``down``; the reference lists them."""
    subject: str
    """A service, an instance, a check, a file system, or ``machine``."""
    severity: Severity
    text: str
    """The finding as a sentence without its subject: "has no replica that is ready"."""
    since: float
    """Seconds since the epoch."""
    evidence: tuple[str, ...] = ()
    """What was seen, a line each, with numbers."""

    @property
    def key(self) -> Key:
        """Its name among all that are active."""
        return Key(self.kind, self.subject)

    @property
    def service(self) -> str:
        """The service that the subject is, or belongs to."""
        head, dot, number = self.subject.rpartition(".")
        return head if dot and number.isdigit() else self.subject


@dataclass(frozen=True, slots=True)
class Began:
    """A condition is active from now on."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class Ended:
    """A condition is active no more."""

    condition: Condition
    at: float
    """Seconds since the epoch."""
    why: str = ""
    """What ended it."""


@dataclass(frozen=True, slots=True)
class ActiveNow:
    """Every condition that is active, told once by an observer that has just begun."""

    conditions: tuple[Condition, ...]
