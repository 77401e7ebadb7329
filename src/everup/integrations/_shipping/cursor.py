"""The place in the journal up to which the other system has acknowledged everything."""

import json
import os
from pathlib import Path
from typing import Final

_NAME: Final = "cursor"


class Cursor:
    """One number in a file, replaced as a whole.

    It is not given to the disk each time: after the machine's death what lies behind it is shipped
    again, and known again by its ids.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME

    def read(self) -> int:
        """Give the number of the last entry that is acknowledged; 0: none is, or it cannot be
        read."""
        try:
            found = json.loads(self._path.read_bytes())["acknowledged"]
        except (OSError, ValueError, TypeError, KeyError):
            return 0
        return found if type(found) is int and found >= 0 else 0

    def write(self, seq: int) -> None:
        """Note that all up to ``seq`` is acknowledged. Raises ``OSError``."""
        fresh = self._path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"acknowledged": seq}, file)
        os.replace(fresh, self._path)
