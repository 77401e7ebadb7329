"""What is heard of the processes beside the engine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AidStarted:
    """It runs."""

    name: str
    pid: int
    adopted: bool = False
    """An engine before this one had started it."""


@dataclass(frozen=True, slots=True)
class AidEnded:
    """It ended, or could not be started."""

    name: str
    cause: str
    at_once: bool = False
    """It asks to be started again at once: it has seen that its config has changed."""


@dataclass(frozen=True, slots=True)
class AidSilent:
    """It has given no sign of life for that long, although the engine was well."""

    name: str
    silent_s: float
