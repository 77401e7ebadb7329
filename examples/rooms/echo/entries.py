"""The journal kinds of the room echo."""

from dataclasses import dataclass
from typing import Final

from everup.model.entry import EntryKind


@dataclass(frozen=True, slots=True)
class Rung:
    """What an entry says."""

    times: int
    """Beats so far."""


RANG: Final = EntryKind("echo.rang", Rung, "The clock has beaten ``times`` times.", words="rang")
KINDS: Final = (RANG,)
