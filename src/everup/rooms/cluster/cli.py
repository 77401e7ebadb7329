"""``everup cluster`` and ``everup move``."""

import time
from typing import Any, Final

import click

from everup.cli._report_table import table
from everup.cli.client import Client
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
from everup.cli.people import user, write_entry
from everup.cli.screen import echo, style
from everup.model.display import shown_line
from everup.rooms.cluster.entries import MOVE_ASKED

_POLL_S: Final = 0.1
_LATE_TTLS: Final = 1.0


@click.command()
@json_option
@click.pass_obj
def cluster(here: Here, as_json: bool) -> None:
    """Show the machines of the cluster, which leads, and who owns what. Exit status 4: this
    machine is no member by now, or has not heard of the others in time."""
    found = _found(here)
    view, age_s = found["view"], found["age_s"]
    late = age_s > view["ttl_s"] * _LATE_TTLS
    if as_json:
        print_json({**view, "age_s": age_s, "local": found["local"]})
    else:
        _show(view, age_s, late)
    leave(NOT_WELL if late or not view["member"] else OK)


@click.command()
@click.argument("service")
@click.option("--to", "node", required=True, help="Machine that it moves to.")
@click.option("--wait", "wait_s", default=60.0, show_default=True, help="Seconds to wait for it.")
@json_option
@click.pass_obj
def move(here: Here, service: str, node: str, wait_s: float, as_json: bool) -> None:
    """Move a singleton to another machine: it is stopped where it runs, then started there."""
    view = _found(here)["view"]
    nodes = [n["node"] for n in view["nodes"]]
    if node not in nodes:
        text = f"{shown_line(node)} is no member of the cluster"
        raise Failure(text, f"there are: {', '.join(map(shown_line, nodes))}", USAGE)
    owner = view["owners"].get(service)
    if owner is None:
        known = ", ".join(map(shown_line, view["owners"])) or "none"
        text = f"nobody owns {shown_line(service)} by now"
        raise Failure(text, f"singletons with an owner: {known}; look: everup cluster", USAGE)
    if owner["node"] == node:
        done(as_json, {"service": service, **owner}, f"{service} is on {node} already")
        return
    write_entry(here, MOVE_ASKED.value, service, {"to": node, "by": user()})
    now = _until_moved(here, service, node, wait_s)
    done(as_json, {"service": service, **now}, f"{service} moved to {node}", "everup cluster")


def _until_moved(here: Here, service: str, node: str, wait_s: float) -> dict[str, Any]:
    until = time.monotonic() + wait_s
    while True:
        now: dict[str, Any] = _found(here)["view"]["owners"].get(service) or {}
        if now.get("node") == node:
            return now
        if time.monotonic() > until:
            where = now.get("node") or "nobody"
            text = f"{service} did not move within {wait_s:g} s: {shown_line(where)} owns it"
            raise Failure(text, "look: everup cluster; why: everup events")
        time.sleep(_POLL_S)


def _found(here: Here) -> dict[str, Any]:
    found: dict[str, Any] = Client(here.place).get("/v1/cluster")
    if found["view"] is None:
        text = "the observer has not seen the cluster yet"
        raise Failure(text, "is there a [cluster] in the config? look: everup incidents", NOT_WELL)
    return found


def _show(view: dict[str, Any], age_s: float, late: bool) -> None:
    me = shown_line(str(view["node"]))
    seen = f"as of {age_s:.0f} s ago" if late else "now"
    state = "a member" if view["member"] else "no member"
    text = f"cluster {view['cluster']}: {me} is {state}, {seen}"
    echo(style(text, fg="yellow" if late or not view["member"] else "green"))
    rows: list[tuple[str, ...]] = [("NODE", "LEADS", "OWNS", "HOST", "EVERUP")]
    for node in view["nodes"]:
        name = node["node"]
        owns = [s for s, owner in view["owners"].items() if owner["node"] == name]
        leads = "leads" if view["leader"] == name else ""
        rest = (str(node["host"] or ""), str(node["everup"] or ""))
        rows.append(tuple(shown_line(word) for word in (name, leads, ", ".join(owns), *rest)))
    table(rows)
    for service, node in view["moves"].items():
        echo(f"{shown_line(service)} moves to {shown_line(node)}")
