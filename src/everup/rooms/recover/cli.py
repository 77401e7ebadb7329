"""``everup approve`` and ``everup deny``."""

import click

from everup.cli.context import USAGE, Failure, Here, done, json_option
from everup.cli.people import read_entries, user, write_entry
from everup.model.display import shown_line
from everup.model.journal import Entry
from everup.rooms.recover.entries import ANSWERED, BEGAN, ENDED, PROPOSED
from everup.rooms.recover.rungs import WORDS


@click.command()
@click.argument("number", type=int)
@click.option("--note", default="", help="Why; it is kept.")
@json_option
@click.pass_obj
def approve(here: Here, number: int, note: str, as_json: bool) -> None:
    """Let everup do what it proposes for incident NUMBER; see ``everup incident NUMBER``."""
    _answer(here, number, True, note, as_json)


@click.command()
@click.argument("number", type=int)
@click.option("--note", default="", help="Why; it is kept.")
@json_option
@click.pass_obj
def deny(here: Here, number: int, note: str, as_json: bool) -> None:
    """Keep everup from what it proposes for incident NUMBER. The next rung follows."""
    _answer(here, number, False, note, as_json)


def _answer(here: Here, number: int, yes: bool, note: str, as_json: bool) -> None:
    proposal = _proposal(here, number)
    if proposal is None:
        text = f"everup proposes nothing for incident {number}"
        raise Failure(text, f"everup incident {number}", USAGE)
    said = {"number": number, "by": user(), "yes": yes, "note": note[:500]}
    write_entry(here, ANSWERED.value, proposal.subject, said)
    words = shown_line(WORDS[proposal.payload["rung"]].format(subject=proposal.subject))
    text = f"approved: everup will {words}" if yes else f"denied: everup will not {words}"
    done(as_json, {**said, "rung": proposal.payload["rung"]}, text, f"everup incident {number}")


def _proposal(here: Here, number: int) -> Entry | None:
    """What waits for an answer."""
    kinds = [kind.value for kind in (PROPOSED, ANSWERED, BEGAN, ENDED)]
    last: Entry | None = None
    for entry in read_entries(here, [*kinds, "incidents.resolved"]):
        if entry.payload.get("number") == number:
            waits = entry.kind == PROPOSED.value and entry.payload.get("until")
            last = entry if waits else None
    return last
