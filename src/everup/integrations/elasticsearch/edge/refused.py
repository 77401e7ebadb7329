"""The dead-letter file: documents that the server refuses, each with the reason."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from everup.integrations._shipping.documents import iso
from everup.integrations.elasticsearch.bulk import Refused

NAME: Final = "refused.ndjson"
OLDER: Final = "refused.1.ndjson"
MOST_BYTES: Final = 16 << 20
"""Of the file that is written; one older one is kept beside it."""


class DeadLetters:
    """One line of JSON for each: when, why, which, and the document."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def path(self) -> Path:
        """The file that is written."""
        return self._folder / NAME

    def write(self, refused: Sequence[Refused], at: float | None = None) -> None:
        """Keep them on the disk. Raises ``OSError``."""
        lines = b"".join(_line(each, time.time() if at is None else at) for each in refused)
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with open(fd, "ab") as file:
            file.write(lines)
            file.flush()
            os.fdatasync(file.fileno())
            size = file.tell()
        if size > MOST_BYTES:
            os.replace(self.path, self._folder / OLDER)


def _line(refused: Refused, at: float) -> bytes:
    told = {
        "time": iso(at),
        "reason": refused.reason,
        "what": refused.document.label,
        "action": refused.document.action.decode("utf-8", "replace"),
        "document": refused.document.source.decode("utf-8", "replace"),
    }
    return json.dumps(told).encode() + b"\n"
