"""``everup console``."""

import os
import socket
import tempfile
import time
from typing import Any

import click

from everup.cli.client import Client
from everup.cli.context import Failure, Here, done, json_option
from everup.cli.people import user
from everup.config import parse_address

_PATIENCE_S = 15.0
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
        raise Failure(
            f"nobody listens on {listen} yet",
            f"why: everup events -n 20; the log: {here.place.state_dir}/everup.log",
        )
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
