"""Which incidents journal entries tell of. Pure."""

from collections.abc import Iterable

from everup.model.journal import Entry


def told_of(entry: Entry) -> tuple[int, ...]:
    """Give the numbers of the incidents that an entry changes."""
    if not entry.kind.startswith("incidents."):
        return ()
    numbers = (entry.payload.get("number"), entry.payload.get("into"))
    return tuple(number for number in numbers if type(number) is int)


def last_told(entries: Iterable[Entry]) -> dict[int, int]:
    """Give the incidents that these entries change, each with the number of the last such entry."""
    return {number: entry.seq for entry in entries for number in told_of(entry)}
