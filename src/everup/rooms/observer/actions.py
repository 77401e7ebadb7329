"""What is done about the processes beside the engine."""

from dataclasses import dataclass

from everup.model.action import Asked


@dataclass(frozen=True, slots=True)
class StartAid(Asked):
    """Start a process beside the engine, or find it running; ``AidStarted`` or ``AidEnded``
    follows."""

    name: str


@dataclass(frozen=True, slots=True)
class KillAid(Asked):
    """End a process beside the engine: by SIGTERM, or at once. ``AidEnded`` follows."""

    name: str
    at_once: bool = False
