"""Writes config text: what the converters of other supervisors' files share."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from everup.config import template
from everup.config._problem import Findings, key_name, shorten, toml_list, toml_string

PASSED_ON = frozenset({"PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "SHELL"})
"""Variables of everup's own environment that a service gets."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_MARKS = re.compile(r"[\x00-\x08]")
_NAME_MAX = 63
_QUOTED = re.compile(r"""'[^']*'|"[^"$`\\]*"|\\[^\n]""")
_SHELL = re.compile(r"""[|&;<>()$`*?~\n"'#\\]""")
_ASSIGNMENT = re.compile(
    r"([A-Za-z_][A-Za-z0-9_]*)=('[^']*'|\"[^\"$`\\]*\"|[\w./:@%+,=-]*)\s+(?=\S)"
)
_BUILTINS = frozenset(
    {
        *("!", ".", ":", "[", "{", "bg", "break", "case", "cd", "command", "eval", "exit"),
        *("export", "fg", "for", "if", "read", "readonly", "return", "set", "shift", "source"),
        *("test", "times", "trap", "type", "ulimit", "umask", "unset", "until", "wait", "while"),
    }
)


LOST = "not converted: "
"""Begins the comment of each loss; ``everup check`` warns of a service as long as it has one."""


@dataclass(frozen=True, slots=True)
class Loss:
    """One thing that a conversion could not carry over."""

    where: str
    """``service.web``, or empty for the file as a whole."""
    text: str
    grave: bool = False
    """A program runs otherwise than it did, or not at all; the rest is for people to know."""


@dataclass(frozen=True, slots=True)
class Drafted:
    """A converted config and what was lost on the way."""

    text: str
    losses: tuple[Loss, ...]
    """The grave ones first."""

    @property
    def grave(self) -> int:
        """How many losses change what runs."""
        return sum(loss.grave for loss in self.losses)


def drafted(blocks: Iterable[str], losses: Iterable[Loss]) -> Drafted:
    """The whole file from its blocks."""
    ordered = sorted(losses, key=lambda loss: not loss.grave)
    return Drafted("\n\n".join(blocks) + "\n", tuple(ordered))


@dataclass(slots=True)
class Draft:
    """One table to write: comments, keys with their values in TOML, variables."""

    header: str
    comments: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    """Values as templates: literal braces are doubled."""
    losses: list[Loss] = field(default_factory=list)

    def note(self, text: str) -> None:
        """A difference that takes nothing away."""
        if text not in self.comments:
            self.comments.append(text)

    def lost(self, text: str, *, grave: bool = False) -> None:
        """Something without an equivalent; it stays in the file as a comment."""
        self.losses.append(Loss("", text, grave))

    def placed(self) -> list[Loss]:
        """Its losses, with its name."""
        return [replace(loss, where=self.header) for loss in self.losses]

    def render(self) -> str:
        ordered = sorted(self.losses, key=lambda loss: not loss.grave)
        lines = [comment(LOST + loss.text) for loss in ordered]
        lines += [comment(text) for text in self.comments]
        lines.append(f"[{self.header}]")
        lines += [f"{key} = {value}" for key, value in self.keys.items()]
        if self.environment:
            lines.append("[" + self.header + ".environment]")
            lines += [
                f"{key_name(name)} = {toml_string(text)}" for name, text in self.environment.items()
            ]
        return "\n".join(lines)


def clean(text: str) -> str:
    """The text without NUL and its like (also used as marks here) and broken Unicode."""
    return _MARKS.sub("", text).encode("utf-8", "replace").decode().replace("\r\n", "\n")


def comment(text: str) -> str:
    """One TOML comment line."""
    return f"# {_CONTROL.sub(' ', text)}".rstrip()


def service_name(text: str, taken: set[str]) -> str:
    """A valid service name close to ``text`` that is not in ``taken`` yet; adds it there."""
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "service"
    if not base[0].isalpha():
        base = f"s-{base}"
    name, number = base[:_NAME_MAX], 2
    while name in taken:
        suffix = f"-{number}"
        name, number = base[: _NAME_MAX - len(suffix)] + suffix, number + 1
    taken.add(name)
    return name


def shell_line(line: str, draft: Draft) -> list[str]:
    """The argv of a shell command line, without the shell where it is not needed.

    Plain assignments before the command become variables of the service. The result is a
    template: literal braces are doubled.
    """
    rest = line.strip()
    taken: dict[str, str] = {}
    while match := _ASSIGNMENT.match(rest):
        taken[match[1]] = template.escape(match[2].strip("'\""))
        rest = rest[match.end() :]
    if re.match(r"[A-Za-z_][A-Za-z0-9_]*=", rest):  # an assignment that only a shell can make
        rest, taken = line.strip(), {}
    rest = re.sub(r"^exec\s+", "", rest)
    draft.environment.update(taken)
    bare = _QUOTED.sub("", rest)
    if not _SHELL.search(bare):
        words = shlex.split(rest)
        if words and words[0] and words[0] not in _BUILTINS:
            return [template.escape(word) for word in words]
    draft.note("this command needs a shell")
    return ["sh", "-c", template.escape(_with_exec(rest, bare))]


def _with_exec(line: str, bare: str) -> str:
    """With ``exec`` where that keeps the meaning, so that signals reach the program itself."""
    first = line.split(None, 1)[0] if line.split() else ""
    if re.search(r"[|&;()\n`#\"'\\]", bare) or first in _BUILTINS or "=" in first:
        return line
    return f"exec {line}"


def argv(words: list[str]) -> str:
    return toml_list(words)


def warn_of_losses(text: str, found: Findings) -> None:
    """A warning for each service whose draft lost something, as long as the comments stand."""
    lines = text.split("\n")
    owners = {found.lines[path]: path for path in found.lines if len(path) == 2}
    block: list[str] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("# " + LOST):
            block.append(line[2 + len(LOST) :])
        if line.startswith("#"):
            continue
        if block:
            path = owners.get(number, ()) if line.startswith("[") else ()
            more = f" and {len(block) - 1} more" if len(block) > 1 else ""
            things = "thing" if len(block) == 1 else "things"
            found.warn(
                path,
                f"drafted with {len(block)} {things} not converted: {shorten(block[0], 160)}"
                f"{more}; settle each and delete its comment",
                line=number - 1,
            )
        block = []
