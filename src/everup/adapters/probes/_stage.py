"""Where an attempt over a socket is, and what to say when its time is up there."""

from enum import Enum, auto

from everup.adapters.probes._plan import Plan
from everup.adapters.probes._words import one_line


class Stage(Enum):
    """One after the other; which are passed depends on what is asked."""

    NEW = auto()
    LOADING = auto()
    RESOLVING = auto()
    CONNECTING = auto()
    QUEUED = auto()
    """Connected, but nobody has accepted yet."""
    HANDSHAKE = auto()
    SENDING = auto()
    READING = auto()
    SEARCHING = auto()
    DRAINING = auto()
    CLOSED = auto()


def timed_out(stage: Stage, plan: Plan, unix: bool, progress: str) -> str:
    """What did not come in time. ``progress``: how much of an answer there is."""
    words = plan.timeout_words
    match stage:
        case Stage.LOADING:
            return f"the certificates that it names were not read within {words}"
        case Stage.RESOLVING:
            return f"{plan.name[0]} not resolved within {words}"
        case Stage.CONNECTING if unix:
            return f"no connection within {words} (the queue of the listener is full)"
        case Stage.CONNECTING:
            return f"no connection within {words}"
        case Stage.QUEUED:
            return f"not accepted within {words} (it waits in the listener's queue)"
        case Stage.HANDSHAKE:
            return f"no answer within {words} (connected, TLS handshake not finished)"
        case Stage.SENDING:
            return f"no answer within {words} (connected, request not read)"
        case _:
            return one_line(f"no answer within {words} ({progress})")
