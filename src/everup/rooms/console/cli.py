"""``everup console``."""

import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from everup.adapters import aid_ground
from everup.adapters.place import Place
from everup.cli.client import Client
from everup.cli.context import Failure, Here, done, json_option
from everup.cli.people import user
from everup.config import parse_address

_WHY = "look: everup incidents; everup events -n 20; {}/everup.log"
_PATIENCE_S = 15.0
_LOCAL, _STATE, _UID, _LISTENS = 1, 3, 7, "0A"
"""Columns of /proc/net/tcp, and the state of who listens."""
_READ_S = 10.0
"""A browser that has to start first reads its page within this time."""


@click.command()
@click.option("--open", "open_it", is_flag=True, help="Open it in this machine's browser as well.")
@json_option
@click.pass_obj
def console(here: Here, open_it: bool, as_json: bool) -> None:
    """Print a link to the web console. It is good once, within two minutes, and begins a session
    of twelve hours.

    From elsewhere, first: ssh -L 7077:127.0.0.1:7077 THIS-MACHINE
    """
    answer: dict[str, Any] = Client(here.place).post("/v1/console/ticket", {"user": user()})
    listen = answer["listen"]
    if not _answers(listen):
        raise Failure(f"nobody listens on {listen} yet", _WHY.format(here.place.state_dir))
    if not _is_ours(here.place, listen):
        # Its page could read the link.
        raise Failure(f"somebody else listens on {listen}", _WHY.format(here.place.state_dir))
    link = f"http://{listen}/#{answer['ticket']}"
    shown = {"link": link, "good_s": answer["good_s"]}
    done(as_json, shown, link)
    if open_it:
        _open(link)


def _open(link: str) -> None:
    """Through a file that only this user may read: the words of a process are for all to see."""
    file, path = tempfile.mkstemp(prefix="everup-console-", suffix=".html")
    try:
        with open(file, "w", encoding="utf-8") as page:
            page.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={link}">\n')
        click.launch(path)
        time.sleep(_READ_S)
    finally:
        os.unlink(path)


def _is_ours(place: Place, listen: str) -> bool:
    """Whether the user that the observer runs as is who listens there, as far as the kernel
    tells."""
    address = parse_address(listen)
    owner = os.stat(place.state_dir).st_uid
    if owner == 0 and os.geteuid() == 0 and (who := aid_ground.identity(place)) is not None:
        owner = who[0]
    table = "/proc/net/tcp6" if address.family == "inet6" else "/proc/net/tcp"
    try:
        rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
    except OSError:
        return True
    return owner in {
        int(row[_UID])
        for row in rows
        if row[_STATE] == _LISTENS and int(row[_LOCAL].rpartition(":")[2], 16) == address.port
    }


def _answers(listen: str) -> bool:
    """Whether somebody listens there; the observer may be about to."""
    address = parse_address(listen)
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            socket.create_connection((address.host, address.port), 1.0).close()
            return True
        except OSError:
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
