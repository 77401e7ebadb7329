"""The journal kinds of the processes beside the engine."""

from dataclasses import dataclass
from typing import Final

from everup.model.entry import EntryKind, Severity


@dataclass(frozen=True, slots=True)
class Started:
    """A process beside the engine runs."""

    name: str
    """``observer`` or ``sampler``."""
    pid: int
    adopted: bool = False
    """An engine before this one had started it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A process beside the engine ended, or could not be started."""

    name: str
    cause: str
    after_s: float
    """How long it had run; 0 if it never did."""
    again_s: float
    """It is started again after this time."""


@dataclass(frozen=True, slots=True)
class Silent:
    """A process beside the engine gave no sign of life for too long and is about to be killed."""

    name: str
    silent_s: float


STARTED: Final = EntryKind(
    "observer.started",
    Started,
    "A process of everup beside the engine (``name``: observer or sampler) runs as ``pid``.",
)
ENDED: Final = EntryKind(
    "observer.ended",
    Ended,
    "A process of everup beside the engine ended; ``cause`` says how. Services and restarts do not "
    "need it; it is started again after ``again_s``, and goes on where it was.",
    Severity.WARNING,
    "a process of everup beside the engine ended; services go on",
)
SILENT: Final = EntryKind(
    "observer.silent",
    Silent,
    "A process of everup beside the engine gave no sign of life for ``silent_s``: it is about to "
    "be killed and started again. Services and restarts do not need it.",
    Severity.WARNING,
    "a process of everup beside the engine hangs and is started again",
)
KINDS: Final = (STARTED, ENDED, SILENT)
