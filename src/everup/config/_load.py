"""From text to a `Report`: the steps in order."""

import re
import tomllib
from collections.abc import Callable
from typing import Any

from everup import app
from everup.config._cross import check_services
from everup.config._draft import warn_of_losses
from everup.config._normalise import PHANTOM, normalise
from everup.config._probes import check_probes
from everup.config._problem import ConfigError, Findings, Path, Problem, Report
from everup.config._scan import key_lines
from everup.config._shape import shape
from everup.config._sockets import check_sockets
from everup.config._validate import validate
from everup.kernel import manifest
from everup.model.spec import Spec

_SIZE_MAX = 1 << 20
MAX_BYTES = 8 * _SIZE_MAX
"""More of a file need not be read to say that it is too large."""
_DEPTH_MAX = 16
"""The config is at most 7 deep; the bound keeps every later step from deep recursion."""
_AT = re.compile(
    r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)"
)


def load(
    text: str,
    *,
    path: str,
    directory: str,
    known_users: Callable[[str], bool] | None = None,
) -> Spec:
    """The spec in a config text, or `ConfigError` with every problem in it.

    Same arguments as `check`; warnings are dropped.
    """
    report = check(text, path=path, directory=directory, known_users=known_users)
    if report.spec is None:
        raise ConfigError(report.problems)
    return report.spec


def check(
    text: str,
    *,
    path: str,
    directory: str,
    known_users: Callable[[str], bool] | None = None,
) -> Report:
    """All that can be said about a config text; never raises for what is in it.

    ``path`` names the file in messages. ``directory`` is the config file's own, absolute: the
    services' default directory, and what relative paths start from. ``known_users`` says whether
    this machine has a user; None: users are not checked.
    """
    text = text.removeprefix("\ufeff")
    document, broken = _parse(text, path)
    if document is None:
        return Report(None, (broken,) if broken else (), ())
    found = Findings(path, key_lines(text), document)
    if deep := _too_deep(document):
        found.add(deep, f"nested too deeply: more than {_DEPTH_MAX} levels")
        return Report(None, found.problems(), ())
    data = normalise(document, found, directory)
    names = [name for name in data["service"] if name != PHANTOM]
    spec = validate(shape(data, found), found)
    if spec is not None:
        spec.service.pop(PHANTOM, None)
        check_services(spec, names, found, known_users)
        check_probes(spec, found)
        check_sockets(spec, found)
        for table in app.tables():
            # Of one that may be there once: it may be missed by what needs it.
            if table.check and (table.key in data or not table.named):
                manifest.load(table.check)(spec, found)
    warn_of_losses(text, found)
    problems = found.problems()
    return Report(None if problems else spec, problems, found.warnings())


def _parse(text: str, path: str) -> tuple[dict[str, Any] | None, Problem | None]:
    """The document, or what keeps it from being one."""

    def problem(message: str, line: int = 0, column: int = 0) -> tuple[None, Problem]:
        return None, Problem(path, line, "", None, message, column=column)

    if len(text) > _SIZE_MAX:
        return problem("the file is larger than 1M")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        return problem("the file is not valid UTF-8", line)
    try:
        return tomllib.loads(text), None
    except tomllib.TOMLDecodeError as error:
        match = _AT.fullmatch(str(error))
        if match is None:
            return problem(str(error))
        what = match["what"]
        if what == "Invalid value" or what.startswith("Expected newline"):
            what += "; is this a string without its quotes?"
        if match["line"] is None:
            return problem(what, text.rstrip().count("\n") + 1)
        return problem(what, int(match["line"]), int(match["column"]))
    except RecursionError:
        return problem("nested too deeply")
    except ValueError:  # an integer of thousands of digits
        return problem("too large a number")


def _too_deep(document: dict[str, Any]) -> Path | None:
    """The path of a value below the allowed depth, found without recursion."""
    todo: list[tuple[Path, object]] = [((), document)]
    while todo:
        path, value = todo.pop()
        items: list[tuple[str | int, object]] = []
        if isinstance(value, dict):
            items = list(value.items())
        elif isinstance(value, list):
            items = list(enumerate(value))
        if items and len(path) >= _DEPTH_MAX:
            return path
        todo.extend(((*path, key), item) for key, item in items)
    return None
