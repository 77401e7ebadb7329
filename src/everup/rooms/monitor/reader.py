"""Reads new output into what the rooms hear of it: counts, and kinds of error lines."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from everup.observer.events import Wrote
from everup.rooms.locate.output import Line, events
from everup.rooms.monitor.levels import Level, level_of, words_of
from everup.rooms.monitor.templates import Miner

MOST_KINDS: Final = 2000
"""Kinds of error lines that are remembered; the miner forgets the rest, and so do we."""
_MOST_NEW: Final = 5
"""New kinds that are told of one instance at a time."""
_MOST_EXAMPLE: Final = 300


class Reader:
    """Counts lines and errors, and knows which kinds of errors each service has written before.

    Invariant: a kind is told as new once for each service, also over ``restore``.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        """Raises ``ValueError`` where ``state`` is not what ``state()`` gives; then begin anew."""
        self._miner = Miner(MOST_KINDS)
        self._known: dict[str, dict[int, None]] = {}
        if state is not None:
            self._miner = Miner.restore(state["miner"], MOST_KINDS)
            self._known = {
                str(service): dict.fromkeys(int(id_) for id_ in ids)
                for service, ids in state["known"].items()
            }

    def state(self) -> dict[str, Any]:
        """Give all that the next one needs, as plain JSON values."""
        known = {
            service: [id_ for id_ in ids if id_ in self._miner]
            for service, ids in self._known.items()
        }
        return {"miner": self._miner.state(), "known": known}

    def take(self, service: str, lines: Iterable[Line]) -> Wrote:
        """Take the new lines of one instance, in order."""
        count, warnings = 0, 0
        errors: Counter[int] = Counter()
        examples: dict[int, str] = {}
        new: list[str] = []
        for said in events(list(lines)):
            count += len(said.lines)
            level = level_of(said.lines[0])
            if said.traceback or level >= Level.ERROR:
                words = words_of(said.headline)[:_MOST_EXAMPLE]
                id_ = self._miner.add(words)
                errors[id_] += 1
                examples.setdefault(id_, words)
                if self._is_new(service, id_) and len(new) < _MOST_NEW:
                    new.append(words)
            elif level is Level.WARNING:
                warnings += 1
        most = examples[errors.most_common(1)[0][0]] if errors else ""
        return Wrote(count, errors.total(), warnings, most, tuple(new))

    def _is_new(self, service: str, id_: int) -> bool:
        known = self._known.setdefault(service, {})
        if id_ in known:
            return False
        known[id_] = None
        while len(known) > MOST_KINDS:
            known.pop(next(iter(known)))
        return True
