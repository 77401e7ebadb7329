"""What the commands of the integrations that ship share: their table, their secrets, the lag."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everup.cli.context import Failure, Here
from everup.integrations._shipping.cursor import Cursor

if TYPE_CHECKING:
    from everup.observer.secrets import Secrets


def table_of(here: Here, key: str) -> Any:
    """Give a table of the config file. Raises ``Failure`` where the config is not valid."""
    from everup.cli.people import valid_spec

    return getattr(valid_spec(here), key)


class Files:
    """Secrets from the files that the config names, read as who runs the command."""

    def __init__(self, here: Here) -> None:
        self._directory = os.path.dirname(here.config)

    def bytes(self, path: str) -> bytes:
        """Give all of a file. Raises ``OSError``."""
        return self._held(path).bytes(path)

    def text(self, path: str) -> str:
        """Give its first line. Raises ``OSError``, ``ValueError``."""
        return self._held(path).text(path)

    def _held(self, path: str) -> "Secrets":
        from everup.observer.secrets import Secrets, read

        return Secrets({path: read(os.path.join(self._directory, path))})


def folder_of(here: Here, name: str) -> Path:
    """Give the observer's folder of an integration."""
    return Path(here.place.observer) / name


def lag_of(here: Here, name: str) -> str:
    """Say up to where the journal is acknowledged. Raises ``Failure`` where that may not be
    read."""
    folder = folder_of(here, name)
    try:
        folder.stat()
    except FileNotFoundError:
        return "nothing was shipped yet: the observer has not run with this table"
    except PermissionError:
        raise Failure(
            f"{folder} may not be read", "run this as root, or as everup's user"
        ) from None
    at = Cursor(folder).read()
    last = _last(here)
    if last is None:
        return f"shipped up to event {at}"
    waits = max(0, last - at)
    return f"shipped up to event {at} of {last}: " + (f"{waits} wait" if waits else "all of them")


def _last(here: Here) -> int | None:
    import sqlite3

    from everup.adapters import journal

    path = Path(here.place.journal)
    try:
        page = journal.read(path, last=1) if path.exists() else []
    except sqlite3.Error:
        return None
    return page[-1].seq if page else None
