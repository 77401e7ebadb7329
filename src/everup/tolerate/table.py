"""Pipelines from a file, see ``pipelines``. For example::

[budget.web]
ratio = 0.1
[[pipeline.db]]
policy = "retry"
backoff = { kind = "full", base_s = "50ms" }
budget = "web"
[[pipeline.db]]
policy = "timeout"
seconds = "1s"
"""

import os
import re
from collections.abc import Mapping
from importlib import import_module
from math import isfinite
from typing import Any, NamedTuple

from everup.tolerate._clock import Clock
from everup.tolerate._named import Unknown, find_error
from everup.tolerate._options import as_seconds
from everup.tolerate.budget import RetryBudget
from everup.tolerate.pipeline import Pipeline

__all__ = ["Problem", "TableError", "pipelines"]

Path = tuple[str | int, ...]
Form = str | tuple[str, ...] | None
"""What an option takes: a word of ``_HELP``, or the choices; None: a Python object."""

POLICIES = {
    "retry": "retry.Retry", "breaker": "breaker.Breaker", "timeout": "timeout.Timeout",
    "deadline": "deadline.Deadline", "bulkhead": "bulkhead.Bulkhead", "limit": "limit.Limit",
    "rate_limit": "rate.RateLimit", "shed": "shed.Shed", "fallback": "fallback.Fallback",
    "hedge": "hedge.Hedge", "chaos": "chaos.Chaos", "meter": "meter.Meter",
}  # fmt: skip
_TRIPS = {"consecutive": "Consecutive", "count_window": "CountWindow", "time_window": "TimeWindow"}
_ESTIMATORS = {"gradient2": "Gradient2", "vegas": "Vegas", "aimd": "AIMD"}
_JITTERS = ("full", "equal", "decorrelated", "exponential", "linear", "constant")
PARTS = {
    "backoff": {kind: f"backoff.{kind}" for kind in _JITTERS},
    "trip": {kind: f"_windows.{name}" for kind, name in _TRIPS.items()},
    "estimator": {kind: f"_estimators.{name}" for kind, name in _ESTIMATORS.items()},
}
_SPECIAL = {  # what is, or may be, more than a number or a word
    "attempts": "attempts", "backoff": "backoff", "budget": "budget", "enabled": "flag",
    "errors": "errors", "estimator": "estimator", "latency_s": "range", "on": "errors",
    "open_s": "growing", "trip": "trip", "unless": "errors", "value": "any",
}  # fmt: skip
_TYPES = {"attempts": int, "estimator": None, "flag": bool, "text": str, "trip": None, "whole": int}
_PLAIN = {"int": "whole", "float": "number", "Seconds": "number", "bool": "flag", "str": "text"}

_DURATION_HELP = 'a duration, like "200ms", "5s", "1m30s" or "2h", or a number of seconds'
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_WRONG: Any = object()  # told already, and to be left out


class Problem(NamedTuple):
    """One thing that is wrong: in which file (empty: none), at which key (``pipeline.db[0].on``;
    empty: the file as a whole), its value, shortened (None: there is none), what is wrong with it,
    and all that would be valid, where that is a short list."""

    file: str
    key: str
    value: str | None
    message: str
    valid: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = self.key if self.value is None else f"{self.key} = {self.value}"
        text = ": ".join(filter(None, (self.file, what, self.message)))
        return f"{text}; valid: {', '.join(self.valid)}" if self.valid else text


class TableError(ValueError):
    """The table cannot be used. ``problems`` has every reason."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__(problems)  # what a copy is made from

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def pipelines(
    source: str | os.PathLike[str] | Mapping[str, Any], *, clock: Clock | None = None
) -> dict[str, Pipeline]:
    """The pipelines of a TOML text, of a file (a ``Path``), or of a table that was read already,
    by their names.

    Each ``[[pipeline.NAME]]`` adds one policy, the first outermost: ``policy`` says which (retry,
    breaker, timeout, deadline, bulkhead, limit, rate_limit, shed, fallback, hedge, chaos, meter),
    all else is an option of its constructor, of the same name. Options that take a function are
    not for files. Default of ``name``: ``NAME.policy``.

    - Durations (all that ends in ``_s``, and ``seconds``): ``"200ms"``, ``"1m30s"``, or seconds.
    - ``attempts = "unlimited"`` is None.
    - ``on``, ``unless``: exceptions, one or a list: ``"OSError"``, ``"TimedOut"`` (Python's own,
      and those of ``everup.tolerate``), or ``"package.module.Name"``. Nothing is evaluated, but
      their modules are imported, so that what is at their top level runs: read tables only from
      whom you would take code.
    - ``backoff``: a duration, or ``"full"``, ``"equal"``, ``"decorrelated"``, ``"exponential"``,
      ``"linear"``, ``"constant"``, or a table with such a ``kind`` and its options.
    - ``trip``: ``"consecutive"``, ``"count_window"``, ``"time_window"``, or a table with ``kind``;
      ``estimator``: ``"gradient2"``, ``"vegas"``, ``"aimd"``, likewise. ``open_s``: a duration, or
      a table of the options of ``Growing``.
    - ``budget``: the name of a ``[budget.NAME]``, which has the options of ``RetryBudget``; all
      that name it share it.

    ``use = "NAME"`` instead of ``policy``: the one of ``[policy.NAME]``, which all pipelines that
    use it share: one breaker, one bulkhead.

    ``clock``: for all of them; default the system's. Raises ``TableError`` with all that is wrong,
    and ``OSError`` when the file cannot be read.
    """
    if isinstance(source, Mapping):
        return _Reader("", source, clock).read()
    file = "" if isinstance(source, str) else os.fspath(source)
    return _Reader(file, _parse(source, file), clock).read()


def _parse(source: str | os.PathLike[str], file: str) -> dict[str, Any]:
    import tomllib  # only those who use tables pay for it

    text = source if isinstance(source, str) else ""
    try:
        if not isinstance(source, str):
            with open(source, encoding="utf-8-sig") as opened:
                text = opened.read()
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is one
        hint = "; this is read as TOML: for a file, give a Path" if text.endswith(".toml") else ""
        raise TableError([Problem(file, "", None, f"{error}{hint}")]) from None


class _Reader:
    """One pass over a table. It goes on after each problem, so that all are told."""

    def __init__(self, file: str, document: Mapping[str, Any], clock: Clock | None) -> None:
        self.file = file
        self.document = document
        self.clock = clock
        self.problems: list[Problem] = []
        self.budgets: dict[str, Any] = {}
        self.shared: dict[str, Any] = {}

    def read(self) -> dict[str, Pipeline]:
        valid = ("pipeline", "policy", "budget")
        for key in self.document:
            if key not in valid:
                self.add((key,), f"unknown key{nearest(key, valid)}", valid=valid)
        for name, table in self.tables("budget", "[budget.NAME]").items():
            if isinstance(table, Mapping):
                table = {"name": name, **table}
            self.budgets[name] = self.make(RetryBudget, table, ("budget", name), clock=self.clock)
        for name, row in self.tables("policy", "[policy.NAME]").items():
            self.shared[name] = self.policy(name, row, ("policy", name))
        made: dict[str, Pipeline] = {}
        for name, rows in self.tables("pipeline", "[[pipeline.NAME]]").items():
            path = ("pipeline", name)
            if not isinstance(rows, list):
                self.add(path, f"expected an array of tables: [[{_key_text(path)}]]", rows)
                continue
            members = [self.member(name, row, (*path, at)) for at, row in enumerate(rows)]
            if not self.problems:
                made[name] = Pipeline(*members, name=name)
        if self.problems:
            raise TableError(self.problems)
        return made

    def tables(self, key: str, header: str) -> Mapping[str, Any]:
        found = self.document.get(key, {})
        if isinstance(found, Mapping):
            return found
        self.add((key,), f"expected tables with a name: {header}", found)
        return {}

    def member(self, pipeline: str, row: object, path: Path) -> Any:
        """A policy of this pipeline alone, or one that several share."""
        if not isinstance(row, Mapping) or "use" not in row:
            name = f"{pipeline}.{row.get('policy')}" if isinstance(row, Mapping) else ""
            return self.policy(name, row, path)
        for key in row:
            if key != "use":
                self.add((*path, key), "what is shared has its options where it is made")
        name = row["use"]
        if isinstance(name, str) and name in self.shared:
            return self.shared[name]
        return self.choice((*path, "use"), name, self.shared, "there is no such [policy.NAME]")

    def policy(self, name: str, row: object, path: Path) -> Any:
        if not isinstance(row, Mapping):
            return self.add(path, 'expected a table, like { policy = "retry" }', row)
        table = {"name": name, **row}
        kind = table.pop("policy", None)
        if kind is None:
            return self.add(path, "policy is missing", valid=tuple(POLICIES))
        if not isinstance(kind, str) or kind not in POLICIES:
            return self.choice((*path, "policy"), kind, POLICIES, "unknown policy")
        return self.make(_load(POLICIES[kind]), table, path, clock=self.clock)

    def make(self, kind: Any, table: object, path: Path, **fixed: Any) -> Any:
        if not isinstance(table, Mapping):
            return self.add(path, "expected a table", table)
        forms, required = options(kind)
        known = tuple(key for key, form in forms.items() if form is not None)
        good: dict[str, Any] = {}
        bad = {key for key in required if key not in table}
        for key in sorted(bad):
            self.add(path, f"{key} is missing: expected {_words(forms[key])}")
        for key, value in table.items():
            place = (*path, key)
            form = forms.get(key)
            if form is not None:
                good[key] = self.value(form, value, place)
                if good[key] is not _WRONG:
                    continue
            elif key in forms:
                self.add(place, "takes a Python object, which no table can give")
            else:
                self.add(place, f"unknown key{nearest(key, known)}", valid=known)
            bad.add(key)
        # The constructor knows best of ranges, and of what goes together. It tells one thing at a
        # time: an option that it names is told and left out, and it is asked again.
        while True:
            for key in bad:
                good.pop(key, None)
                if key in required:
                    good[key] = 1  # stands in for it, so that the others are looked at
            try:
                made = kind(**good, **fixed)
            except (ValueError, TypeError) as error:
                named = [word for word in re.findall(r"\w+", str(error)) if word in forms]
                if not bad.isdisjoint(named):
                    return _WRONG  # it follows from what is told already
                wrong = next((word for word in named if word in good), None)
                if wrong is None:
                    return self.add(path, str(error))
                self.add((*path, wrong), str(error), table[wrong])
                bad.add(wrong)
            else:
                return _WRONG if bad else made

    def value(self, form: str | tuple[str, ...], value: object, path: Path) -> Any:
        if isinstance(form, tuple):
            return value if value in form else self.choice(path, value, form, "unknown choice")
        if form == "errors":
            return self.errors(value, path)
        if form == "budget":
            if isinstance(value, str) and value in self.budgets:
                return self.budgets[value]
            return self.choice(path, value, self.budgets, "there is no such budget")
        if form == "growing" and isinstance(value, Mapping):
            return self.make(_load("_windows.Growing"), value, path)
        word = isinstance(value, str) and not value[:1].isdigit()
        if form in PARTS and (word or isinstance(value, Mapping)):
            return self.part(PARTS[form], value, path)
        right = _plain(form, value)
        if right is not _WRONG:
            return right
        return self.add(path, f"expected {_words(form)}", value)

    def part(self, kinds: Mapping[str, str], value: object, path: Path) -> Any:
        """What is an object of its own: a kind, or a table with one."""
        table = dict(value) if isinstance(value, Mapping) else {"kind": value}
        kind = table.pop("kind", None)
        if kind is None:
            return self.add(path, "kind is missing", valid=tuple(kinds))
        if not isinstance(kind, str) or kind not in kinds:
            place = path if kind is value else (*path, "kind")
            return self.choice(place, kind, kinds, "unknown kind")
        return self.make(_load(kinds[kind]), table, path)

    def errors(self, value: object, path: Path) -> Any:
        if not isinstance(value, list):
            return self.error(value, path)
        kinds = [self.error(name, (*path, at)) for at, name in enumerate(value)]
        return _WRONG if _WRONG in kinds else tuple(kinds)

    def error(self, name: object, path: Path) -> Any:
        if not isinstance(name, str):
            return self.add(path, f"expected {_HELP['errors']}", name)
        try:
            kind = find_error(name)
        except Unknown as error:
            why, there = error.args
            return self.add(path, f"{why}{nearest(name.rpartition('.')[2], there)}", name)
        except Exception as error:  # an import may raise anything
            return self.add(path, f"its import raised {type(error).__name__}: {error}", name)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            return self.add(path, "no subclass of Exception: nothing else is a failure", name)
        return kind

    def add(self, path: Path, message: str, value: object = _WRONG, valid: Any = ()) -> Any:
        shown = None if value is _WRONG else _show(value)
        self.problems.append(Problem(self.file, _key_text(path), shown, message, valid))
        return _WRONG

    def choice(self, path: Path, value: object, valid: Any, message: str) -> Any:
        near = nearest(value, valid) if isinstance(value, str) else ""
        return self.add(path, message + near, value, tuple(valid))


def _load(name: str) -> Any:
    module, _, thing = name.rpartition(".")
    return getattr(import_module(f"everup.tolerate.{module}"), thing)


def options(kind: Any) -> tuple[dict[str, Form], set[str]]:
    """The options of a class or function, read from its signature, and which of them it needs."""
    function: Any = kind.__init__ if isinstance(kind, type) else kind  # type: ignore[misc]
    code = function.__code__  # inspect would do it, and costs 10 ms
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    last = code.co_argcount - len(function.__defaults__ or ())
    given = {*names[last : code.co_argcount], *(function.__kwdefaults__ or ())}
    forms = {key: _form(key, function.__annotations__[key]) for key in names if key != "self"}
    return forms, forms.keys() - given


def _form(key: str, annotation: Any) -> Form:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    plain = _PLAIN.get(text.removesuffix(" | None"))
    if key in _SPECIAL and (plain is None or text == "int | None"):
        return _SPECIAL[key]
    if plain == "number" and key.endswith(("_s", "seconds")) and key != "floor_per_s":
        return "duration"
    if plain is None and "Literal[" in text:
        return tuple(re.findall(r"[\"'](\w+)[\"']", text))
    return plain


_HELP = {
    "attempts": 'a whole number, or "unlimited"',
    "backoff": f"{_DURATION_HELP}; or a kind, or a table with one",
    "duration": _DURATION_HELP,
    "errors": 'the name of an exception, like "OSError", or a list of such names',
    "estimator": 'a kind, like "gradient2", or a table with one',
    "flag": "true or false",
    "growing": f"{_DURATION_HELP}; or a table",
    "number": "a number",
    "range": f"{_DURATION_HELP}; or a list of two, the shortest and the longest",
    "text": "a string in quotes",
    "trip": 'a kind, like "consecutive", or a table with one',
    "whole": "a whole number",
}


def _words(form: Form) -> str:
    return " or ".join(map(_show, form)) if isinstance(form, tuple) else _HELP[str(form)]


def _plain(form: str, value: Any) -> Any:
    """A value as the constructor takes it, or ``_WRONG``."""
    if form == "range" and isinstance(value, list):
        both = tuple(_plain("duration", one) for one in value)
        return _WRONG if len(both) != 2 or _WRONG in both else both
    if form in ("duration", "range", "backoff", "growing") and isinstance(value, str):
        return _seconds(value)
    if (form, value) == ("attempts", "unlimited"):
        return None
    if form in ("duration", "range", "backoff", "growing"):
        value = as_seconds(value)  # a table made in Python may have a timedelta
    kind = type(value)
    right = kind is _TYPES[form] if form in _TYPES else form == "any" or kind in (int, float)
    return value if right and (kind is not float or isfinite(value)) else _WRONG


def _seconds(text: str) -> Any:
    text = text.replace(" ", "")
    if not _DURATION.fullmatch(text):
        return 0.0 if text == "0" else _WRONG
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))


def nearest(word: str, valid: Any) -> str:
    """``; did you mean 'attempts'?``, or nothing."""
    import difflib  # only where something is wrong

    folded = {name.lower().replace("-", "_"): name for name in valid}
    found = difflib.get_close_matches(word[:100].lower().replace("-", "_"), folded, n=1)
    return f"; did you mean {folded[found[0]]!r}?" if found else ""


def _show(value: object) -> str:
    """A value much as in the file, in at most 80 characters."""
    import json

    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _key_text(path: Path) -> str:
    text = ""
    for one in path:
        bare = _BARE_KEY.fullmatch(str(one))
        text += f"[{one}]" if isinstance(one, int) else f".{one if bare else _show(one)}"
    return text[1:]
