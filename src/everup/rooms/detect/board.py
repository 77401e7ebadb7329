"""The board of conditions: which are active, and how they come and go."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from everup.model.condition import Condition, Key
from everup.rooms.detect.kinds import KINDS

Begin = Callable[[str, str, str, float, Iterable[str]], None]
"""``begin(kind, subject, text, since, evidence)``: raise a condition, unless it is active."""
End = Callable[[str, str, str], None]
"""``end(kind, subject, why)``: take a condition back, if it is active."""
MOST: Final = 2000
"""Active conditions; with more, new ones are not taken (and counted)."""


class Board:
    """Active conditions by kind and subject. ``began`` and ``ended`` give what changed, if it did.

    Each is told once however often it is found, until it has ended.
    """

    def __init__(self) -> None:
        self._active: dict[Key, Condition] = {}
        self.refused = 0

    def __iter__(self) -> Iterator[Condition]:
        return iter(list(self._active.values()))

    def __len__(self) -> int:
        return len(self._active)

    def get(self, kind: str, subject: str) -> Condition | None:
        """Give the condition of that kind that is active of the subject."""
        return self._active.get(Key(kind, subject))

    def begin(
        self, kind: str, subject: str, text: str, since: float, evidence: Iterable[str] = ()
    ) -> Condition | None:
        """Raise a condition; None where it is active already."""
        key = Key(kind, subject)
        if key in self._active:
            return None
        if len(self._active) >= MOST:
            self.refused += 1
            return None
        found = Condition(kind, subject, KINDS[kind].severity, text, since, tuple(evidence))
        self._active[key] = found
        return found

    def end(self, kind: str, subject: str) -> Condition | None:
        """Take a condition back; None where it is not active."""
        return self._active.pop(Key(kind, subject), None)

    def restore(
        self, kind: str, subject: str, text: str, since: float, evidence: Iterable[str]
    ) -> None:
        """Take one that an observer before this one has raised."""
        if kind in KINDS:
            self.begin(kind, subject, text, since, evidence)
