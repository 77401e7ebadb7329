"""Log templates: lines that differ only in what varies get the same id, online and without
configuration.

A line is looked at in three steps, the cheap one first:

1. All runs of digits are blanked; who has the same line otherwise is known from a dict. Most lines
   of a running service end here, which is what makes the miner fast.
2. What looks like a variable becomes a slot: words with digits, dates, paths, addresses, dotted
   names, and the values of ``key=value``. Lines with the same text around their slots are one
   template. A slot that only looks like a variable (a dotted name, a value without digits) is shown
   as it is until a second value is seen in it.
3. A line that is new after that is compared with templates of as many words and the same first one.
   It joins one if it differs in a word or two that sit where English puts a name ("for user
   root", "from backup") or where a slot is already. Nothing else is merged: two words that differ
   elsewhere ("startup", "shutdown") mean different events, and an operator has to see both.

Names of errors (``java.io.IOException``) are never slots: which error it is, is the event.
"""

import re
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from everup.rooms.monitor.slots import SHOWN, SLOT, slots

MOST_TEMPLATES: Final = 10_000
"""Templates in memory. When they are full, the oldest that was seen only once goes, then the one
that was seen least lately."""
MOST_CHARACTERS: Final = 4000
"""Characters of a line that are looked at: no template of use is longer."""
_MOST_KNOWN: Final = 50_000
"""Blanked lines remembered, in each of two generations."""
_MOST_CANDIDATES: Final = 32
"""Templates that a new line is compared with."""
_LEARNING: Final = 64
"""Lines of a template with a word like ``ssh2`` that are looked at in full before it is trusted to
be always this word."""

_BLANK: Final = bytes(48 if 48 <= i < 58 else i for i in range(256))
_PLAIN: Final = re.compile(r"\W*([a-z][\w-]*|[A-Z][a-z]+[\w-]*|\0)\W*$")
_BEFORE_NAMES: Final = frozenset(("for", "from", "by", "user", "host", "named", "called"))
"""Words that a name follows. Not "to", "as", "in": a verb or a state may follow ("failed to read",
"elected as leader"), and that is the event."""


@dataclass(slots=True)
class _Template:
    id: int
    signs: list[str]
    """The words with their slots as ``SLOT``: what is compared."""
    shown: list[str]
    """The words as they are shown."""
    unsettled: bool
    """There is a slot that has had one value only."""
    soft: bool = False
    """There is a slot whose one value has a digit, so that blanked lines hide another one."""
    looked_at: int = 0
    known_as: list[str] = field(default_factory=list)
    """Lines with slots, as text, that lead here."""

    def text(self) -> str:
        return " ".join(self.shown)


class Miner:
    """Give lines the ids of their templates.

    Not safe for threads. Ids are positive, never used twice, and the same after ``restore``.
    """

    def __init__(
        self, most_templates: int = MOST_TEMPLATES, *, most_known: int = _MOST_KNOWN
    ) -> None:
        if most_templates < 1 or most_known < 1:
            raise ValueError("a miner needs room for one template at least")
        self._most = most_templates
        self._most_known = most_known
        self._next = 1
        self._templates: OrderedDict[int, _Template] = OrderedDict()
        """The one that was looked at least lately first."""
        self._counts: dict[int, int] = {}
        self._exact: dict[str, int] = {}
        self._alike: dict[tuple[int, str], deque[int]] = {}
        self._once: deque[int] = deque()
        """Ids in the order of their making; who was seen again is skipped when it comes up."""
        self._known: dict[bytes, int] = {}
        self._known_before: dict[bytes, int] = {}
        self.evicted = 0
        """Templates that were given up to make room."""

    def __len__(self) -> int:
        return len(self._templates)

    def __contains__(self, id: object) -> bool:
        return id in self._templates

    def add(self, line: str) -> int:
        """Count a line, and give the id of its template."""
        if len(line) > MOST_CHARACTERS:
            line = line[:MOST_CHARACTERS]
        # As bytes: str.translate takes four times as long.
        blank = line.encode("utf-8", "surrogatepass").translate(_BLANK)
        key = blank.replace(b"0000", b"0").replace(b"00", b"0").replace(b"00", b"0")
        id = self._known.get(key, 0)
        try:
            self._counts[id] += 1
            return id
        except KeyError:
            return self._look(key, line)

    def template(self, id: int) -> str:
        """Give the text of a template, ``<*>`` for what varies. Raises ``KeyError`` for one that
        was never there or was given up."""
        return self._templates[id].text()

    def count(self, id: int) -> int:
        """Give how many lines a template had. Raises ``KeyError`` as ``template`` does."""
        return self._counts[id]

    def ids(self) -> tuple[int, ...]:
        """Give the ids of all templates in memory, oldest first."""
        return tuple(sorted(self._templates))

    def state(self) -> dict[str, Any]:
        """Give all that ``restore`` needs, as plain JSON values."""
        return {
            "version": 1,
            "next": self._next,
            "templates": [
                {
                    "id": t.id,
                    "count": self._counts[t.id],
                    "signs": " ".join(t.signs),
                    "shown": " ".join(t.shown),
                    "soft": t.soft,
                    "unsettled": t.unsettled,
                    "known_as": t.known_as,
                }
                for t in self._templates.values()
            ],
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any], most_templates: int = MOST_TEMPLATES) -> "Miner":
        """Make a miner that goes on where ``state`` was taken. Raises ``ValueError`` if it is not
        what ``state`` gives; then begin anew."""
        miner = cls(most_templates)
        try:
            if state["version"] != 1:
                raise ValueError(f"templates of version {state['version']!r}, this knows 1")
            rows = state["templates"][-most_templates:]
            for row in sorted(rows, key=lambda r: int(r["id"])):
                signs, shown = row["signs"].split(), row["shown"].split()
                id, count = int(row["id"]), int(row["count"])
                if len(signs) != len(shown) or id < 1 or id in miner._templates:
                    raise ValueError(f"template {id} is damaged")
                known = [str(k) for k in row["known_as"]]
                made = _Template(id, signs, shown, bool(row["unsettled"]), bool(row["soft"]))
                made.known_as = known
                miner._enter(made, count)
            for row in rows:
                miner._templates.move_to_end(int(row["id"]))
            miner._next = max(int(state["next"]), *(i + 1 for i in miner._templates), 1)
        except (KeyError, TypeError, AttributeError) as damage:
            raise ValueError(f"templates as stored are damaged: {damage!r}") from damage
        return miner

    def _enter(self, made: _Template, count: int) -> None:
        self._templates[made.id] = made
        self._counts[made.id] = count
        self._once.append(made.id)
        for text in made.known_as:
            self._exact[text] = made.id
        alike = self._alike.setdefault(_bucket(made.signs), deque(maxlen=_MOST_CANDIDATES))
        alike.append(made.id)

    def _look(self, key: bytes, line: str) -> int:
        """The line is not known with its digits blanked."""
        id = self._known_before.get(key, 0)
        found = self._templates.get(id)
        if found is None:
            signs, shown, soft = slots(line)
            text = " ".join(signs)
            found = self._templates.get(self._exact.get(text, 0))
            if found is None:
                found = self._near(signs)
                if found is None:
                    return self._new(key, text, signs, shown, soft)
                self._also(found, text)
            if found.unsettled or found.signs != signs:
                _join(found, signs, shown)
            self._templates.move_to_end(found.id)
            found.looked_at += 1
        self._counts[found.id] += 1
        self._remember(key, found)
        return found.id

    def _new(self, key: bytes, text: str, signs: list[str], shown: list[str], soft: bool) -> int:
        while len(self._templates) >= self._most:
            self._evict()
        made = _Template(self._next, signs, shown, _unsettled(signs, shown), soft)
        made.known_as = [text]
        self._next += 1
        self._enter(made, 1)
        self._remember(key, made)
        return made.id

    def _also(self, found: _Template, text: str) -> None:
        """A second text leads to a template; the oldest is forgotten, and found by comparing."""
        found.known_as.append(text)
        self._exact[text] = found.id
        if len(found.known_as) > 8:
            self._exact.pop(found.known_as.pop(1), None)

    def _remember(self, key: bytes, found: _Template) -> None:
        if found.soft and found.looked_at < _LEARNING:
            return
        if len(self._known) >= self._most_known:
            self._known_before, self._known = self._known, {}
        self._known[key] = found.id

    def _near(self, signs: list[str]) -> _Template | None:
        alike = self._alike.get(_bucket(signs), ())
        for id in alike:
            known = self._templates[id]
            if _same_event(known.signs, signs):
                return known
        return None

    def _evict(self) -> None:
        self.evicted += 1
        for _ in range(len(self._once)):
            id = self._once.popleft()
            if self._counts.get(id) == 1:
                return self._drop(id)
        self._drop(next(iter(self._templates)))

    def _drop(self, id: int) -> None:
        gone = self._templates.pop(id)
        del self._counts[id]
        for text in gone.known_as:
            if self._exact.get(text) == id:
                del self._exact[text]
        bucket = _bucket(gone.signs)
        alike = self._alike.get(bucket)
        if alike is not None:
            if id in alike:
                alike.remove(id)
            if not alike:
                del self._alike[bucket]


def _bucket(signs: list[str]) -> tuple[int, str]:
    """Where templates that may be the same event are kept. The first word never differs: nothing
    before it says that it is a name."""
    first = signs[0] if signs else ""
    return len(signs), first if SLOT not in first else SLOT


def _unsettled(signs: list[str], shown: list[str]) -> bool:
    return any(
        SLOT in sign and word != sign.replace(SLOT, SHOWN)
        for sign, word in zip(signs, shown, strict=True)
    )


def _join(found: _Template, signs: list[str], shown: list[str]) -> None:
    """Take what a line shows into its template: where they differ, something varies."""
    for i, (sign, word) in enumerate(zip(signs, shown, strict=True)):
        mine = found.signs[i]
        if mine != sign:
            mine = found.signs[i] = _common(mine, sign)
            found.shown[i] = mine.replace(SLOT, SHOWN)
        elif found.shown[i] != word:
            found.shown[i] = mine.replace(SLOT, SHOWN)
    found.unsettled = _unsettled(found.signs, found.shown)
    if not found.unsettled:
        found.soft = False


def _common(one: str, other: str) -> str:
    """Two words with what differs as a slot; punctuation that both have around it stays."""
    begin = end = 0
    least = min(len(one), len(other))
    while begin < least and one[begin] == other[begin] and not one[begin].isalnum():
        begin += one[begin] != SLOT or least
        if begin > least:
            return SLOT
    while end < least - begin and one[-1 - end] == other[-1 - end] and _is_mark(one[-1 - end]):
        end += 1
    return one[:begin] + SLOT + (one[len(one) - end :] if end else "")


def _is_mark(character: str) -> bool:
    return not character.isalnum() and character != SLOT


def _same_event(known: list[str], signs: list[str]) -> bool:
    """Whether two lines of as many words differ only where a name stands."""
    differ = 0
    same = 0
    for i, (one, other) in enumerate(zip(known, signs, strict=True)):
        if one == other:
            same += SLOT not in one
            continue
        differ += 1
        if differ > 2 or i == 0:
            return False
        if one == SLOT:
            continue
        a, b = _PLAIN.match(one), _PLAIN.match(other)
        if a is None or b is None:
            return False
        if SLOT in (a[1], b[1]):
            continue
        if signs[i - 1].rpartition("=")[0] or signs[i - 1].lower() not in _BEFORE_NAMES:
            return False
    return same >= 2 * differ
