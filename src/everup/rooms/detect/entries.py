"""The journal kinds of conditions."""

from dataclasses import dataclass
from typing import Any, Final

from everup.model.entry import EntryKind, Severity


@dataclass(frozen=True, slots=True)
class Began:
    """A condition is active from now on; the subject of the entry is whom it is about."""

    condition: str
    """Its kind, such as ``down``."""
    severity: str
    text: str
    since: float
    """Seconds since the epoch: when it really began."""
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """A condition is active no more."""

    condition: str
    after_s: float
    """How long it was active."""
    why: str = ""


BEGAN: Final[EntryKind[Any]] = EntryKind(
    "detect.began",
    Began,
    "A condition (``condition``: down, crash_looping, filling, ...) is active from now on, with "
    "its ``severity`` and ``evidence``; it began at ``since``.",
    Severity.WARNING,
)
ENDED: Final[EntryKind[Any]] = EntryKind(
    "detect.ended",
    Ended,
    "A condition is active no more, after ``after_s``; ``why`` says what ended it.",
    Severity.GOOD,
)
KINDS: Final = (BEGAN, ENDED)
