"""``everup checks`` and ``everup beat``."""

import json
import os
import time
from typing import Any

import click

from everup.cli.context import (
    NOT_WELL,
    OK,
    USAGE,
    Failure,
    Here,
    done,
    json_option,
    leave,
    print_json,
)
from everup.cli.people import clock, user, valid_spec, write_entry
from everup.cli.screen import echo, style
from everup.model.display import shown_line
from everup.rooms.check.entries import BEAT

_OLD_S = 30.0


@click.command()
@json_option
@click.pass_obj
def checks(here: Here, as_json: bool) -> None:
    """Show how the checks of the config stand. Exit status 4: one fails."""
    known = valid_spec(here).check
    state = _state(here)
    rows = [{"name": name, **state.get(name, {"ok": None, "text": "not checked yet"})}
            for name in known]  # fmt: skip
    failing = [row for row in rows if row["ok"] is False]
    if as_json:
        print_json(rows)
    elif not rows:
        echo("nothing is checked  (next: add [check.NAME] to the config; everup check)")
    for row in rows if not as_json else ():
        word, colour = {True: ("ok", "green"), False: ("fails", "red")}.get(
            row["ok"], ("?", "yellow")
        )
        since = f"since {clock(row['since'])}" if row.get("since") else ""
        echo(
            shown_line(f"{row['name']:<20} {style(f'{word:<6}', fg=colour)} {row['text']}  {since}")
        )
    leave(NOT_WELL if failing else OK)


@click.command()
@click.argument("name")
@click.option("--text", default="", help="What was done; it is kept.")
@json_option
@click.pass_obj
def beat(here: Here, name: str, text: str, as_json: bool) -> None:
    """Say that the job of the check NAME has done its work: put it at the end of the job."""
    known = valid_spec(here).check
    if name not in known or known[name].heartbeat is None:
        there = ", ".join(n for n, one in known.items() if one.heartbeat is not None) or "none"
        text = f"there is no check {name} with a heartbeat; there are: {there}"
        raise Failure(text, "everup checks", USAGE)
    write_entry(here, BEAT.value, name, {"by": user(), "text": text[:500]})
    done(as_json, {"name": name}, f"{name} has reported", "everup checks")


def _state(here: Here) -> dict[str, Any]:
    path = os.path.join(here.place.observer, "check", "state.json")
    try:
        with open(path, encoding="utf-8") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime > _OLD_S:
                return {}
            found: Any = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
