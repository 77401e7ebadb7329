"""What is wrong with a config, where, and what would be valid."""

import datetime
import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from everup.config._secrets import redacted
from everup.model.display import toml_escaped
from everup.model.spec import Spec

Path = tuple[str | int, ...]
"""Keys and list positions from the top of the document to a value."""

HIDDEN = "(hidden)"
_SHOWN_MAX = 80
_MESSAGE_MAX = 500
_HIDDEN_TABLES = frozenset({"environment", "headers"})
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about one key; the same type serves errors and warnings."""

    file: str
    line: int
    """From 1; 0 where no line can be named."""
    key: str
    """Dotted path as in the file, ``service.web.port``; empty for the document as a whole."""
    value: str | None
    """The value as written, shortened; ``(hidden)`` where it may be a secret; None: no value."""
    message: str
    valid: tuple[str, ...] = ()
    """Everything that would be valid, where that is a short list."""
    column: int = 0
    """From 1, for syntax errors; 0 elsewhere."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        if self.column:
            place += f":{self.column}"
        what = f"{self.key} = {self.value}" if self.value is not None else self.key
        text = f"{place}: {what}: {self.message}" if what else f"{place}: {self.message}"
        return f"{text}; valid: {', '.join(self.valid)}" if self.valid else text


class ConfigError(ValueError):
    """The config cannot be used. ``problems`` has every reason, sorted by line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Report:
    """All that can be said about a config text."""

    spec: Spec | None
    """The validated config, or None if there is any problem."""
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    """What is valid but probably not meant."""


class Findings:
    """Collects problems and warnings, and places each at its line.

    Checks speak of paths in the normalised document. ``origin`` leads from there to where the
    value was written: a shorthand, or a key of ``[defaults]``.
    """

    def __init__(self, file: str, lines: dict[Path, int], document: dict[str, Any]) -> None:
        self.file = file
        self._document = document
        self.lines = lines
        self.origin: dict[Path, Path] = {}
        self.broken: set[Path] = set()
        """Normalised paths that have a problem; later checks leave them alone."""
        self._problems: dict[Problem, None] = {}
        self._warnings: dict[Problem, None] = {}

    def source(self, path: Path) -> Path:
        """Where in the file the value at ``path`` comes from: the longest path that has a line."""
        for cut in range(len(path), 0, -1):
            if (start := self.origin.get(path[:cut])) is not None:
                path = start + path[cut:]
                break
        while path and path not in self.lines:
            path = path[:-1]
        return path

    def add(
        self,
        path: Path,
        message: str,
        *,
        value: object = None,
        valid: Iterable[str] = (),
        warning: bool = False,
        line: int = 0,
    ) -> None:
        """Note one finding.

        With a ``value``, it is shown as written in the file, unless it may be a secret. ``line`` is
        for what belongs to no key.
        """
        source = self.source(path)
        shown = None
        if value is not None:
            shown = HIDDEN if is_hidden(source) else show(redacted(self._written(source, value)))
        line = self.lines.get(source, line)
        message = shorten(message, _MESSAGE_MAX)
        problem = Problem(self.file, line, key_text(source), shown, message, tuple(valid))
        if warning:
            self._warnings[problem] = None
        else:
            self._problems[problem] = None
            self.broken.add(path)

    def _written(self, source: Path, value: object) -> object:
        """The value before units, shorthands and paths were worked out."""
        written: Any = self._document
        for part in source:
            try:
                written = written[part]
            except (KeyError, IndexError, TypeError):
                return value
        return written if source else value

    def warn(self, path: Path, message: str, *, value: object = None, line: int = 0) -> None:
        self.add(path, message, value=value, warning=True, line=line)

    def sound(self, *paths: Path) -> bool:
        """Whether nothing is wrong at, above or below any of these paths."""
        return not any(
            bad[: len(path)] == path or path[: len(bad)] == bad
            for path in paths
            for bad in self.broken
        )

    def problems(self) -> tuple[Problem, ...]:
        return _by_line(self._problems)

    def warnings(self) -> tuple[Problem, ...]:
        return _by_line(self._warnings)


def _by_line(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: (problem.line, problem.column)))


def is_hidden(path: Path) -> bool:
    """Whether values at this path may be secrets and are kept out of messages."""
    return any(part in _HIDDEN_TABLES for part in path)


def key_text(path: Path) -> str:
    """The path as a person would write it: ``service.web.command[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + key_name(part)
    return shorten(text, 200)


def key_name(name: str) -> str:
    """One key in TOML, quoted where it must be."""
    return name if _BARE_KEY.fullmatch(name) else toml_string(name)


def toml_string(text: str) -> str:
    """A basic TOML string."""
    return toml_escaped(json.dumps(text, ensure_ascii=False))


def toml_list(items: Iterable[str]) -> str:
    return "[" + ", ".join(toml_string(item) for item in items) + "]"


def shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def show(value: object) -> str:
    """A value as in the file, in at most 80 characters."""
    match value:
        case bool():
            text = "true" if value else "false"
        case str():
            text = toml_string(value[: _SHOWN_MAX + 1])
        case int():
            # str() refuses integers of thousands of digits
            text = str(value) if value.bit_length() < 256 else "(a very large number)"
        case float():
            text = repr(value)
        case list() | tuple():
            text = "[" + ", ".join(show(item) for item in value[:10]) + "]"
        case dict():
            text = "{ ... }" if value else "{}"
        case datetime.date() | datetime.time():
            text = value.isoformat()
        case _:
            text = str(value)
    return shorten(text, _SHOWN_MAX)


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The valid word that ``word`` was probably meant to be."""
    folded = {name.lower().replace("-", "_"): name for name in valid}
    word = word[:100].lower().replace("-", "_")
    found = difflib.get_close_matches(word, folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """``; did you mean 'command'?``, or nothing."""
    found = nearest(word, valid)
    return f"; did you mean {found!r}?" if found else ""
