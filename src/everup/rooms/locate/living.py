"""Why something that lives does not do well: what it says meanwhile."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from everup.rooms.locate.causes import Answer, Cause, Evidence, Known, address_of, behind, through
from everup.rooms.locate.output import Said, events
from everup.rooms.locate.rules import Match, match

SPAN_S: Final = 15.0
"""Output that is older says nothing of now."""
_MOST_SHARE: Final = 0.5


def living(
    service: str, instances: Sequence[str], text: str, known: Known, now: float
) -> Answer | None:
    """Say why a service that lives is not well, by what its instances write; None where they name
    nothing that is known. ``text``: the finding, as a sentence without its subject."""
    found: list[tuple[Said, Match]] = []
    for slot in instances:
        for said in events(known.output(slot, now - SPAN_S, now + 1.0)):
            if (matched := _match(said)) is not None:
                found.append((said, matched))
    if not found:
        return None
    counts = Counter(matched.rule.kind for _, matched in found)
    kind, count = counts.most_common(1)[0]
    said, matched = next(pair for pair in reversed(found) if pair[1].rule.kind == kind)
    sure = 0.8 if count / len(found) >= _MOST_SHARE and count > 1 else 0.6
    seen = (
        Evidence("output", matched.line, said.at),
        Evidence("output", f"{count} times within {SPAN_S:.0f} s"),
    )
    cause = Cause(kind, matched.says, sure, seen, (matched.then,))
    at = address_of(matched.found)
    cause = through(cause, at, now, known, (service,))
    path = (service, *cause.through)
    if not cause.through and at and kind in ("refused", "timeout"):
        name = behind(at, known, (service,))
        path = (service, name) if name is not None else path
    others = tuple(
        Cause(other, f"{other.replace('_', ' ')} ({number} times)", 0.3)
        for other, number in counts.most_common(2)[1:]
    )
    sentence = f"{service} {text}, because {cause.says}"
    return Answer(service, sentence, True, found[0][0].at, said.at, (cause, *others), path=path)


def _match(said: Said) -> Match | None:
    lines = [said.headline, *reversed([line.strip() for line in said.lines if line.strip()])]
    return next((found for line in lines if (found := match(line)) is not None), None)
