"""``everup route`` and ``everup silence``."""

import secrets
import time
from typing import Any

import click

from everup.cli.context import FAILED, USAGE, Failure, Here, done, json_option, leave, print_json
from everup.cli.people import clock, read_entries, user, valid_spec, write_entry
from everup.cli.screen import echo, style
from everup.model.display import shown_line
from everup.model.journal import Entry
from everup.model.units import parse_duration
from everup.rooms.notify.entries import FAILED as NOT_SENT
from everup.rooms.notify.entries import HELD, SENT, SILENCED, TESTED

_TEST_S = 45.0
_POLL_S = 0.2


@click.group()
def route() -> None:
    """Show and try the ways on which people are told of incidents."""


@route.command("list")
@json_option
@click.pass_obj
def list_(here: Here, as_json: bool) -> None:
    """List the routes of the config, with what was told last by each."""
    routes = _routes(here)
    last: dict[str, Entry] = {}
    for entry in read_entries(here, [SENT.value, NOT_SENT.value]):
        last[str(entry.payload.get("route"))] = entry
    rows = [_row(name, route, last.get(name)) for name, route in routes.items()]
    if as_json:
        print_json(rows)
        return
    if not rows:
        echo("nobody is told of anything  (next: add [route.NAME] to the config; everup check)")
    for row in rows:
        ways = ", ".join(row["ways"])
        echo(shown_line(f"{row['name']:<14} {ways:<20} {row['severity']:<9} {row['last']}"))
    if rows:
        echo(f"try one: everup route test {rows[0]['name']}")


@route.command()
@click.argument("name")
@json_option
@click.pass_obj
def test(here: Here, name: str, as_json: bool) -> None:
    """Send a message by a route, to see that it comes."""
    routes = _routes(here)
    if name not in routes:
        known = ", ".join(routes) or "none"
        raise Failure(f"there is no route {name}; there are: {known}", "everup route list", USAGE)
    id_ = f"test-{secrets.token_hex(6)}"
    after = write_entry(here, TESTED.value, name, {"id": id_, "by": user()})
    until = time.monotonic() + _TEST_S
    while time.monotonic() < until:
        for entry in read_entries(here, [SENT.value, NOT_SENT.value], after=after):
            if entry.payload.get("id") == id_:
                _report(name, entry, as_json)
                return
        time.sleep(_POLL_S)
    raise Failure(
        f"route {name} has not taken the message within {_TEST_S:g} s; it is still tried",
        "everup incidents; everup events --follow",
    )


def _report(name: str, entry: Entry, as_json: bool) -> None:
    error = entry.payload.get("error")
    if not error:
        done(as_json, {"route": name, "sent": True}, f"route {name} has taken the message", "")
        return
    if as_json:
        print_json({"route": name, "sent": False, "error": error})
        leave(FAILED)
    raise Failure(shown_line(f"route {name} does not work: {error}"), "everup route list")


@route.command()
@click.argument("number", type=int)
@json_option
@click.pass_obj
def explain(here: Here, number: int, as_json: bool) -> None:
    """Say who was told of an incident, when, and who was not, and why."""
    found = [
        entry
        for entry in read_entries(here, [SENT.value, NOT_SENT.value, HELD.value])
        if entry.payload.get("number") == number
    ]
    if as_json:
        print_json([{"time": e.time, "kind": e.kind, **e.payload} for e in found])
        return
    if not found:
        echo(f"nobody was told of incident {number}, and no route held it back")
    for entry in found:
        echo(shown_line(f"{clock(entry.time)}  {_words(entry)}"))
    echo(f"more: everup incident {number}")


@click.command()
@click.argument("pattern", required=False)
@click.option("--for", "span", default="1h", show_default=True, help="How long, like 30m or 2h.")
@click.option("--why", default="", help="The reason; it is shown to who wonders.")
@click.option("--end", is_flag=True, help="End it now.")
@json_option
@click.pass_obj
def silence(here: Here, pattern: str | None, span: str, why: str, end: bool, as_json: bool) -> None:
    """Tell nobody of incidents of PATTERN: a service, a pattern like "web*", or an incident's
    number. everup goes on watching and acting. Without PATTERN: list what is silenced.
    """
    if pattern is None:
        _list_silences(here, as_json)
        return
    try:
        until = 0.0 if end else time.time() + parse_duration(span)
    except ValueError as error:
        raise Failure(f"--for {span}: {error}", "everup silence web --for 2h", USAGE) from None
    said = {"until": round(until, 3), "by": user(), "why": why[:500]}
    write_entry(here, SILENCED.value, pattern, said)
    if end:
        done(as_json, said, f"{pattern} is not silenced any more", "everup incidents")
    else:
        text = f"nobody is told of {pattern} until {clock(until)}"
        done(as_json, said, text, f"everup silence {pattern} --end")


def _list_silences(here: Here, as_json: bool) -> None:
    active: dict[str, Entry] = {}
    for entry in read_entries(here, [SILENCED.value]):
        active.pop(entry.subject, None)
        if float(entry.payload.get("until", 0)) > time.time():
            active[entry.subject] = entry
    if as_json:
        print_json([{"pattern": name, **entry.payload} for name, entry in active.items()])
        return
    if not active:
        echo("nothing is silenced  (silence something: everup silence SERVICE --for 2h)")
    for name, entry in active.items():
        p = entry.payload
        why = f": {p['why']}" if p.get("why") else ""
        echo(shown_line(f"{name:<14} until {clock(p['until'])}, by {p['by']}{why}"))


def _routes(here: Here) -> dict[str, Any]:
    return dict(valid_spec(here).route)


def _row(name: str, route: Any, last: Entry | None) -> dict[str, Any]:
    ways = {
        "webhook": route.webhook or route.webhook_file,
        "command": route.command,
        "email": route.email_to,
        "apprise": route.apprise_file,
    }
    return {
        "name": name,
        "ways": [way for way, there in ways.items() if there],
        "severity": route.severity,
        "last": "nothing was told yet" if last is None else f"{clock(last.time)} {_words(last)}",
    }


def _words(entry: Entry) -> str:
    p = entry.payload
    if entry.kind == HELD.value:
        until = f" until {clock(p['until'])}" if p.get("until") else ""
        return f"{p['route']}: not told{until}: {p['why']}"
    what = f"{p['stage']} of incident {p['number']}" if p["number"] else "test"
    if entry.kind == SENT.value:
        tries = f", at attempt {p['attempts']}" if p.get("attempts", 1) > 1 else ""
        return f"{p['route']}: told ({what}){tries}"
    return style(f"{p['route']}: could not be told ({what}): {p['error']}", fg="red")
