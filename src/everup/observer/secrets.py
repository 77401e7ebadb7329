"""Secrets from files: read while the observer still may, held in memory, never shown."""

import dataclasses
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any, Final

from everup import app
from everup.model.spec import Spec

MOST_BYTES: Final = 64 << 10
_SUFFIX: Final = "_file"


class Secrets:
    """What the files hold that the config names, or why they could not be read."""

    def __init__(self, held: Mapping[str, bytes | OSError] | None = None) -> None:
        self._held = dict(held or {})

    def __repr__(self) -> str:
        return f"Secrets({sorted(self._held)})"

    def bytes(self, path: str) -> bytes:
        """Give what is in a file that the config names. Raises ``OSError``: it could not be read
        when the observer began."""
        found = self._held.get(path)
        if found is None:
            raise FileNotFoundError(f"{path}: no key of the config names it")
        if isinstance(found, OSError):
            raise type(found)(found.errno, f"{found.strerror or found}", path)
        return found

    def text(self, path: str) -> str:
        """Give the first line of such a file. Raises ``OSError``, and ``ValueError`` where it is
        empty or no text."""
        try:
            line = self.bytes(path).decode().split("\n", 1)[0].strip("\r")
        except UnicodeDecodeError:
            raise ValueError(f"{path} does not hold text in UTF-8") from None
        if not line:
            raise ValueError(f"{path}: its first line is empty, and should hold the secret")
        return line


def of(spec: Spec, directory: str) -> Secrets:
    """Read every file that a key ``..._file`` of the observer's tables names; relative to
    ``directory``."""
    keys = [table.key for room in app.hosted("observer") for table in room.tables]
    named = {path for key in keys for path in _named(getattr(spec, key, None))}
    return Secrets({path: read(os.path.join(directory, path)) for path in named})


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _named(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _named(part)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            found = getattr(value, field.name)
            if field.name.endswith(_SUFFIX) and isinstance(found, str):
                yield found
            else:
                yield from _named(found)


def read(path: str) -> bytes | OSError:
    """Read one such file; give what is wrong with it where that cannot be done."""
    try:
        # A FIFO would have us wait for its writer.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return OSError(22, "it is not a regular file", path)
            held = os.read(file, MOST_BYTES + 1)
        finally:
            os.close(file)
    except OSError as error:
        return error
    if len(held) > MOST_BYTES:
        return OSError(27, f"it holds more than {MOST_BYTES >> 10} KiB", path)
    return held
