"""The stored output of an instance, for whoever looks for causes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from everup.adapters.logs import tail
from everup.rooms.locate.output import Line

MOST_LINES: Final = 2000


def between(logs: Path, slot: str, begin: float, end: float) -> Sequence[Line]:
    """Give what an instance said between two times, of its newest lines. Raises ``OSError``."""
    return [
        Line(line.time_ns / 1e9, line.text.decode("utf-8", "replace"))
        for line in tail(logs, [slot], MOST_LINES)
        if begin <= line.time_ns / 1e9 <= end and line.stream != "everup"
    ]
