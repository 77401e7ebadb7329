"""``everup incidents``, ``everup incident`` and ``everup ack``."""

import time

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
from everup.cli.people import clock, read_entries, user, write_entry
from everup.cli.screen import echo, style
from everup.model.display import shown_line
from everup.model.incident import Incident
from everup.model.journal import Entry
from everup.observer.shown import plain_incident, utc
from everup.rooms.incidents.entries import KINDS
from everup.rooms.incidents.past import told

_AROUND_S = 30.0
_TIMELINE = 60
_COLOURS = {"critical": "red", "warning": "yellow"}


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Those that are over as well.")
@click.option("-n", "most", default=20, show_default=True, help="How many to show, the newest.")
@json_option
@click.pass_obj
def incidents(here: Here, everything: bool, most: int, as_json: bool) -> None:
    """List incidents: what failed, since when, because of what. Exit status 4: one is open."""
    found = told(read_entries(here, [str(kind) for kind in KINDS]))
    open_ones = [incident for incident in found if incident.resolved_at is None]
    shown = (found if everything else open_ones)[-most:]
    if as_json:
        print_json([plain_incident(incident) for incident in shown])
    elif not shown:
        over = len(found) - len(open_ones)
        tail = f"{over} over: everup incidents --all" if over else "everup status"
        echo(f"no incident is open  (next: {tail})")
    else:
        for incident in reversed(shown):
            echo(_line(incident))
        echo(f"more: everup incident {shown[-1].number}")
    leave(NOT_WELL if open_ones else OK)


@click.command()
@click.argument("number", type=int)
@json_option
@click.pass_obj
def incident(here: Here, number: int, as_json: bool) -> None:
    """Show one incident, whole: its cause with the evidence, its symptoms, what happened in order,
    and what a person can do.
    """
    found = _one(here, number)
    timeline = _timeline(here, found)
    if as_json:
        events = [
            {"time": utc(e.time), "kind": e.kind, "subject": e.subject, **e.payload}
            for e in timeline
        ]
        print_json(plain_incident(found) | {"timeline": events})
        return
    _show(found)
    echo()
    for entry in timeline[-_TIMELINE:]:
        words = " ".join(f"{k}={v}" for k, v in entry.payload.items() if k in _TELLING and v)
        echo(shown_line(f"  {clock(entry.time)}  {entry.subject:<12} {entry.kind:<22} {words}"))
    _advise(found)


@click.command()
@click.argument("number", type=int)
@click.option("--note", default="", help="Why, or who goes on with it.")
@json_option
@click.pass_obj
def ack(here: Here, number: int, note: str, as_json: bool) -> None:
    """Take an incident on: nobody else is called for it any more."""
    found = _one(here, number)
    if found.resolved_at is not None:
        raise Failure(f"incident {number} is over", "everup incidents", USAGE)
    by = user()
    payload = {"number": number, "by": by, "note": note[:500]}
    write_entry(here, "incidents.acknowledged", found.subject, payload)
    done(as_json, payload, f"incident {number} is yours, {by}", f"everup incident {number}")


_TELLING = (
    "reason", "cause", "sentence", "text", "condition", "rung", "outcome", "route", "stage", "did",
    "proposal", "delay_s", "by", "how", "after_s", "why",
)  # fmt: skip


def _one(here: Here, number: int) -> Incident:
    found = {i.number: i for i in told(read_entries(here, [str(kind) for kind in KINDS]))}
    if number not in found:
        there = f"the last is {max(found)}" if found else "there has been none"
        raise Failure(f"there is no incident {number}: {there}", "everup incidents --all", USAGE)
    return found[number]


def _timeline(here: Here, found: Incident) -> list[Entry]:
    """Everything that the journal has of its services while it lasted."""
    until = found.resolved_at if found.resolved_at is not None else time.time()
    span = {"since": utc(found.since - _AROUND_S), "until": utc(until + _AROUND_S)}
    names = set(found.services) | {found.subject}
    out = []
    for entry in read_entries(here, (), **span):
        service = entry.subject.rpartition(".")[0] or entry.subject
        about = entry.payload.get("number") == found.number
        ours = not entry.kind.startswith("incidents.") and names & {service, entry.subject}
        if about or ours:
            out.append(entry)
    return out


def _line(incident: Incident) -> str:
    colour = _COLOURS.get(incident.severity.value, "white") if not incident.resolved_at else "green"
    mark = style(f"{incident.state:<12}", fg=colour)
    text = shown_line(f"{clock(incident.since)}  {incident.sentence}")
    return f"{incident.number:>4}  {mark} {text}"


def _show(incident: Incident) -> None:
    echo(style(shown_line(f"{incident.sentence}."), bold=True))
    state = f"incident {incident.number}, {incident.state}, since {clock(incident.since)}"
    if incident.resolved_at is not None:
        state += f", over after {incident.resolved_at - incident.since:.1f} s"
    if incident.acknowledged_by:
        state += f", taken on by {incident.acknowledged_by}"
    echo(shown_line(f"  {state}"))
    reason = incident.reason
    if reason is None or not reason.cause:
        echo("  no confident cause")
    if reason is not None:
        if len(reason.path) > 1:
            echo(shown_line(f"  path: {' -> '.join(reason.path)}"))
        for text in reason.evidence:
            echo(shown_line(f"  {text}"))
        if reason.runner_up:
            echo(shown_line(f"  or: {reason.runner_up}"))
    echo(shown_line(f"  hurt: {', '.join(incident.services)}"))
    for did in incident.did:
        echo(shown_line(f"  everup did: {did}"))


def _advise(incident: Incident) -> None:
    """What a person can do, as commands to copy."""
    if incident.resolved_at is not None:
        return
    echo()
    for text in incident.reason.then if incident.reason is not None else ():
        echo(shown_line(f"  next: {text}"))
    if incident.proposal:
        echo(shown_line(f"  everup would {incident.proposal}"))
        echo(f"  may it? everup approve {incident.number}; everup deny {incident.number}")
    subject = incident.subject
    echo(shown_line(f"  next: everup logs {subject}; everup restart {subject}"))
    if not incident.acknowledged_by:
        echo(f"  yours? everup ack {incident.number}")
