"""Whether this everup could take over from the one that runs: asked before anything changes.

``python -m everup.daemon PLACE_JSON --try`` reads what an engine reads when it starts, writes
nothing, prints its version and ends with status 0; else the last line says what is wrong.
"""

import contextlib
import importlib
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from everup import __version__
from everup.adapters import accepted
from everup.adapters.journal import SCHEMA_VERSION
from everup.adapters.place import Place
from everup.config import ConfigError, load


def run(place: Place) -> int:
    """The exit status."""
    importlib.import_module("everup.api.server")  # an engine does so once its services run
    problem = _weakness(place) or journal_problem(place.journal) or _config_problem(place)
    if problem is not None:
        sys.stderr.write(f"{problem}\n")
        return 1
    sys.stdout.write(f"{__version__}\n")
    return 0


def _weakness(place: Place) -> str | None:
    weak = place.weakness()
    return None if weak is None else f"{weak}; mend it: {weak.mend}"


def journal_problem(path: str) -> str | None:
    """What is wrong if a newer everup wrote the journal. Damage is no problem here: an engine
    mends that, or sets the file aside."""
    version = 0
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)) as db,
    ):
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version <= SCHEMA_VERSION:
        return None
    return (
        f"the journal {path} was written by a newer everup (format {version}, everup "
        f"{__version__} knows {SCHEMA_VERSION})"
    )


def _config_problem(place: Place) -> str | None:
    reads: dict[str, Callable[[], str]] = {
        place.accepted: lambda: accepted.read(place),
        place.next: lambda: Path(place.next).read_text("utf-8"),
    }
    for path, read in reads.items():
        if not os.path.exists(path):
            continue
        try:
            load(read(), path=place.config, directory=place.config_dir)
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            first = str(error).strip().splitlines()[0]
            return f"it cannot read the config in force, {path}: {first}"
    return None
