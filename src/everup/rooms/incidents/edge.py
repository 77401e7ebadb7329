"""Looks for causes: the journal's newest entries, the output, and where services listen."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any, Final

from everup.model.incident import Reason
from everup.rooms.incidents.actions import Explain
from everup.rooms.locate.causes import Answer, Known, why
from everup.rooms.locate.stored import between

_LAST_WORDS_S: Final = 0.15
"""The last lines of a process are stored a moment after its end."""
_LOOK_S: Final = 5.0
_EVIDENCE: Final = 8


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
    try:
        answer = await asyncio.wait_for(asyncio.to_thread(why, action.subject, known), _LOOK_S)
    except (LookupError, OSError, TimeoutError, ValueError):
        host.dispatch(Reason(action.number, f"{action.subject} {action.text}"))
        return
    host.dispatch(_reason(action, answer))


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
