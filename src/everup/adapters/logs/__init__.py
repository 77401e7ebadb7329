"""Output of the services: captured from their pipes into files, and read back."""

from everup.adapters.logs._file import LogEvent, LogLoss, LogRecovered, SlotStats
from everup.adapters.logs._follow import Follower
from everup.adapters.logs._lines import LogLine
from everup.adapters.logs._pump import LogPump
from everup.adapters.logs._tail import tail

__all__ = [
    "Follower",
    "LogEvent",
    "LogLine",
    "LogLoss",
    "LogPump",
    "LogRecovered",
    "SlotStats",
    "tail",
]
