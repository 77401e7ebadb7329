"""Looks for causes: the journal's newest entries, the output, and where services listen."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from everup.model.incident import Reason
from everup.rooms.incidents.actions import Explain
from everup.rooms.locate.causes import Answer, Known, why
from everup.rooms.locate.living import living
from everup.rooms.locate.stored import between

_LAST_WORDS_S: Final = 0.15
"""The last lines of a process are stored a moment after its end."""
_LOOK_S: Final = 5.0
_EVIDENCE: Final = 8
_LIVES: Final = ("error_burst", "queue_full", "throttled", "memory_short", "descriptors_short")
"""Conditions of what lives."""


def _explain(action: Explain, host: Any) -> None:
    host.start(_look(action, host))


async def _look(action: Explain, host: Any) -> None:
    await asyncio.sleep(_LAST_WORDS_S)
    entries = [
        {**e.payload, "kind": e.kind, "subject": e.subject, "at": e.time, "seq": e.seq}
        for e in host.recent
    ]
    addresses = {
        name: [listener.address for listener in service.listen]
        + ([f":{service.port}"] if service.port else [])
        for name, service in host.spec.service.items()
    }
    needs = {name: host.world.needs(name) for name in host.spec.service}
    known = Known(entries, partial(between, Path(host.place.logs)), addresses, needs)
    slots = [seen.name for seen in host.world.of(action.subject)]
    try:
        found = asyncio.to_thread(_find, action, slots, known, time.time())
        answer = await asyncio.wait_for(found, _LOOK_S)
    except (LookupError, OSError, TimeoutError, ValueError):
        host.dispatch(Reason(action.number, f"{action.subject} {action.text}"))
        return
    host.dispatch(_reason(action, answer))


def _find(action: Explain, slots: Sequence[str], known: Known, now: float) -> Answer:
    """What lives and is not well says why; what has ended has an end that says it."""
    if action.condition in _LIVES:
        answer = living(action.subject, slots, action.text, known, now)
        if answer is not None:
            return answer
        raise LookupError(action.subject)
    return why(action.subject, known)


def _reason(action: Explain, answer: Answer) -> Reason:
    first = answer.causes[0] if answer.causes else None
    second = answer.causes[1] if len(answer.causes) > 1 else None
    if first is None:
        return Reason(action.number, f"{action.subject} {action.text}", root=action.subject)
    return Reason(
        action.number,
        answer.sentence,
        first.kind if answer.cause is not None else "",
        first.says if answer.cause is not None else "",
        first.confidence,
        answer.path[-1] if answer.path else action.subject,
        answer.path,
        tuple(f"{seen.source}: {seen.text}" for seen in first.evidence[:_EVIDENCE]),
        first.then,
        f"{second.says} ({second.confidence:.0%})" if second is not None else "",
    )


SOURCES: Final = ()
PERFORMERS: Final = {Explain: _explain}
