"""Events and output from the files, while everup does not run: when they are asked for most."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from everup.adapters.place import Place
from everup.cli.context import NOT_RUNNING, USAGE, Failure
from everup.cli.screen import echo


def events(place: Place, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """As the API gives them; ``query`` is the one that it would get."""
    from everup.adapters import journal, trusted
    from everup.api.commands import Refusal
    from everup.api.streams import check_kinds
    from everup.api.view import entry

    path = Path(place.journal)
    if not path.exists():
        raise _nothing(place, "journal")
    try:
        check_kinds(list(query["kind"]))
        filters: dict[str, Any] = {"subjects": query["service"], "kinds": query["kind"]}
        for name in ("since", "until"):
            if name in query:
                filters[name] = datetime.fromisoformat(query[name]).timestamp()
        after, last = int(query.get("after", 0)), query.get("n")
        _say("events")
        with trusted.as_owner(place.weakness()):
            while page := journal.read(path, after=after, last=last, **filters):
                yield from map(entry, page)
                after = page[-1].seq
                if last is not None:
                    break
    except Refusal as refusal:
        raise Failure(str(refusal), refusal.hint) from None
    except sqlite3.Error as error:
        raise Failure(f"the journal {path} cannot be read: {error}") from None


def logs(place: Place, services: Sequence[str], count: int) -> Iterator[dict[str, Any]]:
    """The last lines, as the API gives them."""
    from everup.adapters import trusted
    from everup.adapters.logs import tail
    from everup.api.streams import line_json

    directory = Path(place.logs)
    slots = sorted({path.name.partition(".log")[0] for path in directory.glob("*.log*")})
    if not slots:
        raise _nothing(place, "output")
    for name in services:
        if name not in slots and not any(slot.startswith(f"{name}.") for slot in slots):
            raise Failure(
                f"there is no output of {name!r}", f"there is of: {', '.join(slots)}", USAGE
            )
    chosen = [s for s in slots if not services or {s, s.rpartition(".")[0]} & set(services)]
    _say("output")
    with trusted.as_owner(place.weakness()):
        for line in tail(directory, chosen, count):
            yield json.loads(line_json(line))


def _say(what: str) -> None:
    echo(f"everup is not running: {what} from its files", err=True)


def _nothing(place: Place, what: str) -> Failure:
    return Failure(
        f"everup is not running for {place.config}, and there is no {what} of an earlier one",
        "start it: everup up -d",
        NOT_RUNNING,
    )
