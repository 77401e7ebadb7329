"""What commands of rooms share: who asks, times for people, entries of the journal."""

import getpass
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from everup.cli import offline
from everup.cli.client import Client, keeper_lives
from everup.cli.context import USAGE, Failure, Here
from everup.model.journal import Entry
from everup.observer.shown import entry_of

_MOST = 5000


def user() -> str:
    """Give the name of whoever asks, for the journal."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def clock(at: float) -> str:
    """Write a time, in seconds since the epoch, for people: in their own zone."""
    return datetime.fromtimestamp(at).astimezone().strftime("%m-%d %H:%M:%S")


def read_entries(here: Here, kinds: Sequence[str], **more: Any) -> list[Entry]:
    """Read entries of the journal, oldest first; also while everup does not run."""
    query = {"service": (), "kind": kinds, "follow": 0, "n": _MOST, **more}
    if keeper_lives(here.place):
        rows: Any = Client(here.place).lines("/v1/events", query)
    else:
        rows = offline.events(here.place, query)
    return [entry_of(row) for row in rows]


def write_entry(here: Here, kind: str, subject: str, payload: dict[str, Any]) -> int:
    """Have an entry of an observer's kind written; gives the number of the last before it."""
    entry = {"kind": kind, "subject": subject, "payload": payload}
    answer = Client(here.place).post("/v1/observed", {"entries": [entry]})
    return int(answer["last_seq"]) - 1


def valid_spec(here: Here) -> Any:
    """Read the config file. Raises ``Failure`` where it is not valid."""
    from everup import config
    from everup.cli.config import read_config

    path = here.config
    report = config.check(read_config(path), path=path, directory=str(Path(path).parent))
    if report.spec is None:
        raise Failure(f"{path} is not valid", "everup check", USAGE)
    return report.spec
