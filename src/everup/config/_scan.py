"""Finds the line of every key in a TOML text, which no TOML library tells.

Reads only text that tomllib has already accepted, so it looks for structure and checks nothing.
It keeps its own stack instead of recursing: nesting is bounded by memory, not by the interpreter.
"""

import bisect
import json

from everup.config._problem import Path

_MAX_DEPTH = 32
"""Deeper paths get no line of their own; the config is at most 7 deep."""
_BLANK = " \t\r"
_SPACE = " \t\r\n"
_SCALAR_END = ",]}#\n"
_KEY_END = " \t\r\n.=]"


def key_lines(text: str) -> dict[Path, int]:
    """Line (from 1) of each key path, list positions included.

    A table's line is that of its own ``[header]``; without one, that of the first line that names
    it. ``text`` must be valid TOML.
    """
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._end = len(text)
        self._at = 0
        self._starts = [0, *(i + 1 for i, char in enumerate(text) if char == "\n")]
        self._lines: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}
        """Elements seen of each array of tables."""

    def run(self) -> dict[Path, int]:
        prefix: Path = ()
        while self._skip(_SPACE, comments=True):
            if self._text[self._at] == "[":
                prefix = self._header()
            else:
                path = self._key(prefix, self._line())
                self._skip(_BLANK + "=")
                self._value(path)
        return self._lines

    def _line(self) -> int:
        return bisect.bisect_right(self._starts, self._at)

    def _skip(self, chars: str, *, comments: bool = False) -> bool:
        """Passes over ``chars`` (and comments); whether anything is left."""
        while self._at < self._end:
            char = self._text[self._at]
            if comments and char == "#":
                newline = self._text.find("\n", self._at)
                self._at = self._end if newline < 0 else newline
            elif char not in chars:
                return True
            else:
                self._at += 1
        return False

    def _header(self) -> Path:
        line = self._line()
        is_list = self._text.startswith("[[", self._at)
        self._at += 2 if is_list else 1
        parts = self._parts()
        self._at += 2 if is_list else 1
        path: Path = ()
        for i, part in enumerate(parts[: _MAX_DEPTH + 1]):
            path = (*path, part)
            last = i == len(parts) - 1
            if last and is_list:
                self._note(path, line)
                index = self._counts.get(path, 0)
                self._counts[path] = index + 1
                path = (*path, index)
                self._note(path, line)
            elif path in self._counts:  # goes on in the newest element
                path = (*path, self._counts[path] - 1)
            elif last:
                self._lines[path[:_MAX_DEPTH]] = line
            else:
                self._note(path, line)
        return path

    def _key(self, prefix: Path, line: int) -> Path:
        """Reads a key, dotted or not, and notes the line of all its parts."""
        path = prefix
        for part in self._parts():
            if len(path) <= _MAX_DEPTH:
                path = (*path, part)
                self._note(path, line)
        return path

    def _note(self, path: Path, line: int) -> None:
        if len(path) <= _MAX_DEPTH:
            self._lines.setdefault(path, line)

    def _parts(self) -> list[str]:
        parts: list[str] = []
        while True:
            self._skip(_BLANK)
            start = self._at
            quote = self._text[start]
            if quote in "\"'":
                self._string()
                raw = self._text[start : self._at]
                parts.append(_unescape(raw[1:-1]) if quote == '"' else raw[1:-1])
            else:
                while self._at < self._end and self._text[self._at] not in _KEY_END:
                    self._at += 1
                parts.append(self._text[start : self._at])
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return parts
            self._at += 1

    def _value(self, path: Path) -> None:
        """Passes over one value, noting what is inside lists and inline tables."""
        frames: list[tuple[Path, list[int] | None]] = []  # a list has a counter, a table has None
        pending: Path | None = path
        while pending is not None or frames:
            if pending is not None:
                self._open(pending, frames)
                pending = None
                continue
            self._skip(_SPACE + ",", comments=True)
            base, counter = frames[-1]
            if self._text[self._at] in "]}":
                self._at += 1
                frames.pop()
            elif counter is not None:
                pending = (*base, counter[0])[: _MAX_DEPTH + 1]
                counter[0] += 1
                self._note(pending, self._line())
            else:
                pending = self._key(base, self._line())
                self._skip(_SPACE + "=")

    def _open(self, path: Path, frames: list[tuple[Path, list[int] | None]]) -> None:
        char = self._text[self._at]
        if char == "[":
            self._at += 1
            frames.append((path, [0]))
        elif char == "{":
            self._at += 1
            frames.append((path, None))
        elif char in "\"'":
            self._string()
        else:
            while self._at < self._end and self._text[self._at] not in _SCALAR_END:
                self._at += 1

    def _string(self) -> None:
        quote = self._text[self._at]
        if not self._text.startswith(quote * 3, self._at):
            self._close(quote)
            return
        self._at += 2
        self._close(quote * 3)
        for _ in range(2):  # up to two quotes may stand before the closing three
            if self._text.startswith(quote, self._at):
                self._at += 1

    def _close(self, delimiter: str) -> None:
        self._at += 1
        escapes = delimiter[0] == '"'
        while not self._text.startswith(delimiter, self._at):
            self._at += 2 if escapes and self._text[self._at] == "\\" else 1
        self._at += len(delimiter)


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    out, rest = "", text
    while "\\" in rest:
        plain, _, rest = rest.partition("\\")
        size = {"u": 5, "U": 9, "x": 3}.get(rest[0], 1)
        escape, rest = rest[:size], rest[size:]
        if escape[0] in "uUx":
            char = chr(int(escape[1:], 16))
        elif escape[0] == "e":  # TOML 1.1
            char = "\x1b"
        else:
            char = str(json.loads(f'"\\{escape}"'))
        out += plain + char
    return out + rest
