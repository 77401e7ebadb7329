"""The values of a supervisord.conf: its ``%(name)s`` expressions, pairs, numbers.

What stands in a value is filled in as supervisord does it. What only the start of a process can
tell stays as a mark: a variable of the environment, the number of a replica, its port.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from everup.config import template

_EXPRESSION = re.compile(
    r"%(?:%|\((?P<name>[^()]{1,200})\)(?P<form>[#0 +-]{0,5}[0-9]{0,4}(?:\.[0-9]{0,4})?[diouxXsr]))"
)
_HEAD = re.compile(r"[0-9]*$")
_REPLICA, _PORT = "\x03", "\x04"
_VARIABLE = re.compile("\x01([^\x01\x02]+)\x02")
_PORT_FIRST, _PORT_LAST = 1024, 65535


class Unknown(Exception):  # noqa: N818  # control flow, never leaves the converter
    """A value that cannot be converted; its text says why."""


class Split(Exception):  # noqa: N818  # control flow, never leaves the converter
    """The processes differ in a way that replicas of one service cannot."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the values of one file refer to, besides the file."""

    environment: Mapping[str, str]
    """That of whoever converts; supervisord would have had it, started in the same place."""
    host: str = "localhost"
    here: str = "."
    """Directory of the file."""


@dataclass(slots=True)
class Filler:
    """Fills in the expressions of one section, for ``number`` processes from ``start`` on."""

    around: Surroundings
    values: dict[str, str | int] = field(default_factory=dict)
    """program_name, group_name and the like."""
    variables: dict[str, str] = field(default_factory=dict)
    """Variables that the file itself sets; they may hold marks."""
    number: int = 1
    start: int = 0
    others: tuple[tuple[int, int], ...] = ()
    """Port ranges of other programs."""
    exact: bool = True
    """False: a number that replicas cannot have is theirs all the same."""
    port: int | None = None
    """The first port, once an expression has turned out to be one."""
    taken: list[str] = field(default_factory=list)
    """What was taken from the surroundings, in words."""

    def fill(self, text: str) -> str:
        """For what a shell can finish at each start: variables that are not known stay marks."""
        return self._fill(text, marks=True)

    def plain(self, text: str) -> str:
        """For what must be known now and be the same for all processes."""
        filled = self._fill(text, marks=False)
        if _REPLICA in filled or _PORT in filled:  # by way of a variable
            raise Split
        return filled

    def _fill(self, text: str, *, marks: bool) -> str:
        out, at = "", 0
        for match in _EXPRESSION.finditer(text):
            out += text[at : match.start()]
            at = match.end()
            name, form = match["name"], match["form"]
            if name is None:
                out += "%"
            elif name == "process_num":
                out = self._numbered(out, form, text[at : at + 1], marks)
            else:
                out += self._value(name, form, match[0], marks)
        return out + text[at:]

    def _value(self, name: str, form: str, whole: str, marks: bool) -> str:
        value: str | int
        if name == "here":
            value = self.around.here
        elif name == "host_node_name":
            value = self.around.host
            self._took(f"{whole} is {value!r}, the name of this machine")
        elif name in self.values:
            value = self.values[name]
        elif name.startswith("ENV_"):
            value = self._variable(name[4:], whole, marks)
        else:
            raise Unknown(f"{whole} is unknown to supervisord too")
        return _formatted(form, value, whole)

    def _variable(self, name: str, whole: str, marks: bool) -> str:
        known = self.variables.get(name, f"\x01{name}\x02")
        if marks:
            return known
        return _VARIABLE.sub(lambda mark: self._surrounding(mark[1], whole), known)

    def _surrounding(self, name: str, whole: str) -> str:
        if name not in self.around.environment:
            raise Unknown(f"{whole}: the environment here has no {name}")
        self._took(f"{whole} was taken from the environment of this conversion")
        return self.around.environment[name]

    def _took(self, text: str) -> None:
        if text not in self.taken:
            self.taken.append(text)

    def _numbered(self, out: str, form: str, following: str, marks: bool) -> str:
        """``80%(process_num)02d`` is a port for each process; 1, 2, ... is ``{replica}``."""
        texts = [
            _formatted(form, n, f"%(process_num){form}")
            for n in range(self.start, self.start + self.number)
        ]
        head = _HEAD.search(out)
        digits = head[0] if head else ""
        if not marks:
            if len(set(texts)) > 1 and self.exact:
                raise Split
            return out + texts[0]
        if not following.isdigit() and self._is_port([digits + text for text in texts]):
            return out[: len(out) - len(digits)] + _PORT
        if self.number == 1:
            return out + texts[0]
        if texts == [str(i) for i in range(1, self.number + 1)] or not self.exact:
            return out + _REPLICA
        raise Split

    def _is_port(self, texts: list[str]) -> bool:
        if not all(re.fullmatch(r"[1-9][0-9]{3,4}", text) for text in texts):
            return False
        first = int(texts[0])
        if texts != [str(first + i) for i in range(self.number)]:
            return False
        last = first + self.number - 1
        if first < _PORT_FIRST or last > _PORT_LAST:
            return False
        if any(low <= last and first <= high for low, high in self.others):
            return False
        if self.port is None:
            self.port = first
        return self.port == first


def _formatted(form: str, value: str | int, whole: str) -> str:
    try:
        return f"%{form}" % value
    except (TypeError, ValueError):
        raise Unknown(f"{whole} is badly formatted") from None


def variables(text: str) -> list[str]:
    """The variables of the environment that a filled-in text waits for."""
    return list(dict.fromkeys(_VARIABLE.findall(text)))


def as_template(filled: str) -> str:
    """A filled-in text as a template of everup; it must have no variables left."""
    return template.escape(filled).replace(_REPLICA, "{replica}").replace(_PORT, "{port}")


def shell_word(filled: str) -> str:
    """A filled-in text quoted for a shell, its variables outside of the quotes, as a template."""
    parts = _VARIABLE.split(filled)
    # the name after $ needs no braces, which are the templates' own
    quoted = (
        f'"${part}"' if i % 2 else (shlex.quote(part) if part else "")
        for i, part in enumerate(parts)
    )
    return as_template("".join(quoted) or "''")


def pairs(filled: str) -> tuple[dict[str, str], str]:
    """``KEY=value,KEY2="value 2"`` as supervisord reads it, and what it could not read."""
    lexer = shlex.shlex(filled)
    lexer.wordchars += "/.+-():\x01\x02\x03\x04"
    found: dict[str, str] = {}
    tokens: list[str] = []
    try:
        for token in lexer:
            tokens.append(token)
            if len(tokens) == 3:
                if tokens[1] != "=":
                    return found, " ".join(tokens)
                found[tokens[0]] = tokens[2].strip("'\"")
            elif len(tokens) == 4:  # the comma, whatever it is
                tokens = []
    except ValueError as error:
        return found, str(error)
    return found, "" if len(tokens) in (0, 3) else " ".join(tokens)


def truth(value: str) -> bool:
    """A boolean as supervisord spells it."""
    if value.lower() in ("true", "yes", "on", "1"):
        return True
    if value.lower() in ("false", "no", "off", "0"):
        return False
    raise Unknown("expected true or false")


def whole_number(value: str, low: int, high: int) -> int:
    """A whole number within bounds."""
    text = value.strip()
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise Unknown(f"expected a whole number, {low} to {high}")
    return int(text)
