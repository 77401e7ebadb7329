"""From a supervisord.conf to a config. Nothing is dropped: what has no equivalent is a comment."""

import configparser
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from everup.config._draft import LOST, Draft, Drafted, Loss, clean, comment, drafted, service_name
from everup.config._problem import ConfigError, Problem, toml_list
from everup.config._secrets import masked
from everup.config._supervisord_program import Defaults, Program
from everup.config._supervisord_values import Filler, Surroundings, Unknown, pairs, whole_number

Include = Callable[[str], Sequence[tuple[str, str, str]]]
"""Path, directory and text of each file that a pattern means."""
_FILE = "supervisord.conf"
_PRIORITY = 999
_PROGRAMS = ("program", "fcgi-program")
_HANDED_ON = ("user", "directory", "umask", "environment", "minfds")
_CONTROL = ("unix_http_server", "supervisorctl", "rpcinterface", "ctlplugin", "supervisord")
"""Sections about supervisord itself; everup's own commands need none of it."""
_WHY = {
    "inet_http_server": "everup has no TCP port; its API is on a Unix socket",
    "eventlistener": "everup has no event listeners; everup events tells what happens",
    "rpcinterface": "everup takes no plug-ins of supervisord",
}
_HEADER = (
    "everup.toml, converted from a supervisord.conf",
    "supervisord handed its whole environment on; everup hands on PATH, HOME, LANG, TZ, USER,",
    "LOGNAME and SHELL: name what else a program reads in its pass_environment or environment.",
)


def from_supervisord(
    text: str,
    around: Surroundings | None = None,
    include: Include | None = None,
    path: str = _FILE,
) -> Drafted:
    """The config for a supervisord.conf; `ConfigError` if it is none.

    ``include`` finds what its [include] means. ``path`` names the file in messages.
    """
    around = around or Surroundings({})
    parser = _Parser()
    parser.take(text, path, around.here)
    losses: list[Loss] = []
    if parser.has_section("include"):
        _include(parser, around, include, losses)
    conversion = _Conversion(parser, around, losses)
    conversion.run()
    if not conversion.drafts:
        message = "there is no [program:NAME] in it; is this a supervisord.conf?"
        if missing := [loss.text for loss in losses if loss.text.startswith("[include]")]:
            message = f"there is no [program:NAME] in it: {'; '.join(missing)}"
        raise ConfigError([Problem(path, 0, "", None, message)])
    return drafted(conversion.blocks, losses)


class _Parser(configparser.RawConfigParser):
    """Reads the format as supervisord does."""

    def __init__(self) -> None:
        super().__init__(inline_comment_prefixes=(";", "#"), strict=False)

    def take(self, text: str, path: str, here: str) -> None:
        """Adds one file; ``%(here)s`` in it is its own directory."""
        try:
            self.read_string(clean(text.removeprefix("\ufeff")), path)
        except configparser.Error as error:
            line = getattr(error, "lineno", None) or next(iter(getattr(error, "errors", [(0,)])))[0]
            message = "expected [section] headers and lines of the form key = value"
            raise ConfigError([Problem(path, int(line), "", None, message)]) from None
        for section in self.sections():
            for key, value in self.items(section):
                if "%(here)s" in value:
                    self.set(section, key, value.replace("%(here)s", here.replace("%", "%%")))


def _include(
    parser: _Parser, around: Surroundings, include: Include | None, losses: list[Loss]
) -> None:
    value = parser.get("include", "files", fallback="")
    try:
        patterns = Filler(around).plain(value).split()
    except Unknown as error:
        losses.append(Loss("", f"[include] files = {value}: {error}", grave=True))
        return
    for pattern in patterns:
        files = include(pattern) if include is not None else ()
        if not files:
            text = f"[include] files = {pattern}: there is no such file that can be read"
            losses.append(Loss("", text, grave=True))
        for path, directory, text in files:
            parser.take(text, path, directory)


@dataclass(slots=True)
class _Conversion:
    """The whole file on its way."""

    parser: _Parser
    around: Surroundings
    losses: list[Loss]
    blocks: list[str] = field(default_factory=list)
    drafts: dict[str, list[Draft]] = field(default_factory=dict)
    """By the name of the program."""
    levels: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By the name of the program: priorities of its group and of itself."""

    def run(self) -> None:
        defaults = self._defaults()
        groups = self._groups()
        taken: set[str] = set()
        ports: list[tuple[int, int]] = []
        for section in self.parser.sections():
            kind, name = _kind(section)
            if kind not in _PROGRAMS or not name:
                continue
            options = dict(self.parser.items(section))
            group = next((group for group, members in groups.items() if name in members), name)
            program = Program(name, group, options, kind != "program", self.around, defaults, ports)
            made = program.drafts(lambda text: service_name(text, taken))
            self.drafts.setdefault(name, []).extend(made)
            own = self._priority(section)
            outer = self._priority(f"group:{group}") if group in groups else own
            self.levels[name] = outer, own
        self._order()
        self.blocks += ["\n".join(comment(text) for text in _HEADER)]
        self.blocks += [comment(LOST + loss.text) for loss in self.losses]
        for draft in (draft for drafts in self.drafts.values() for draft in drafts):
            self.blocks.append(draft.render())
            self.losses += draft.placed()
        self._group_blocks(groups)
        self._other_sections()

    def _defaults(self) -> Defaults:
        """What programs have from [supervisord]."""
        defaults = Defaults()
        if not self.parser.has_section("supervisord"):
            return defaults
        options = dict(self.parser.items("supervisord"))
        defaults.options = {key: options[key] for key in _HANDED_ON[:3] if key in options}
        try:
            defaults.environment, unread = pairs(
                Filler(self.around).fill(options.get("environment", ""))
            )
        except Unknown as error:
            unread = str(error)
        if unread:
            text = f"[supervisord] environment: {unread}"
            self.losses.append(Loss("", text, grave=True))
        if "minfds" in options:
            try:
                number = whole_number(Filler(self.around).plain(options["minfds"]), 8, 1 << 20)
                defaults.nofile = number if number > 1024 else None
            except Unknown as error:
                self.losses.append(Loss("", f"[supervisord] minfds: {error}"))
        return defaults

    def _groups(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for section in self.parser.sections():
            kind, name = _kind(section)
            if kind == "group" and name:
                members = self.parser.get(section, "programs", fallback="").split(",")
                groups[name] = [member.strip() for member in members if member.strip()]
        return groups

    def _priority(self, section: str) -> int:
        real = next((s for s in self.parser.sections() if ":".join(_kind(s)) == section), section)
        if not self.parser.has_section(real):
            return _PRIORITY
        value = self.parser.get(real, "priority", fallback=str(_PRIORITY))
        try:
            return int(Filler(self.around).plain(value))
        except (Unknown, ValueError):
            self.losses.append(Loss("", f"[{section}] priority = {value}: no number"))
            return _PRIORITY

    def _order(self) -> None:
        """``depends_on`` from the priorities: each waits for the level before its own."""
        before: list[tuple[str, Draft]] = []
        for level in sorted(set(self.levels.values())):
            here = [
                (name, draft)
                for name, drafts in self.drafts.items()
                if self.levels[name] == level
                for draft in drafts
            ]
            for _, draft in here:
                if before:
                    names = [other.header.removeprefix("service.") for _, other in before]
                    draft.keys["depends_on"] = toml_list(names)
                    draft.note("depends_on is drafted from the priorities: supervisord started "
                               "in this order, everup also waits until they are ready")  # fmt: skip
            lasting = [(name, draft) for name, draft in here if _lasts(draft)]
            before = lasting or before

    def _group_blocks(self, groups: dict[str, list[str]]) -> None:
        taken: set[str] = set()
        owned: set[str] = set()
        for name, members in groups.items():
            draft = Draft(f"group.{service_name(name, taken)}")
            services: list[str] = []
            for member in members:
                if member not in self.drafts:
                    draft.lost(f"member {member} of group {name}: there is no such program")
                elif member in owned:
                    draft.lost(f"member {member} of group {name}: it can be in one group only")
                else:
                    owned.add(member)
                    services += [d.header.removeprefix("service.") for d in self.drafts[member]]
            for key, value in self._options_of("group", name):
                if key not in ("programs", "priority"):
                    draft.lost(f"{key} = {masked(key, value)}")
            draft.keys["services"] = toml_list(services)
            if services:
                self.blocks.append(draft.render())
            else:
                draft.lost(f"group {name}: it has no members")
                self.blocks += [comment(LOST + loss.text) for loss in draft.losses]
            self.losses += draft.placed()

    def _options_of(self, kind: str, name: str) -> list[tuple[str, str]]:
        for section in self.parser.sections():
            if _kind(section) == (kind, name):
                return list(self.parser.items(section))
        return []

    def _other_sections(self) -> None:
        for section in self.parser.sections():
            kind, name = _kind(section)
            if kind == "include" or (kind in (*_PROGRAMS, "group") and name):
                continue
            options = self.parser.items(section)
            lines = [f"  {key} = {masked(key, value)}" for key, value in options]
            own = (
                kind in _CONTROL
                and (kind, name) != ("rpcinterface", "")
                and (kind != "rpcinterface" or name == "supervisor")
            )
            if own:
                lines.insert(0, f"[{section}] was about supervisord itself")
                if kind == "supervisord":
                    lines = [text for text in lines if _key(text) not in _HANDED_ON]
            else:
                text = f"[{section}]" + (f": {_WHY[kind]}" if kind in _WHY else "")
                lines.insert(0, LOST + text)
                self.losses.append(Loss("", text, grave=kind == "eventlistener"))
            if len(lines) > 1 or not own:
                self.blocks.append("\n".join(comment(line) for line in lines))


def _kind(section: str) -> tuple[str, str]:
    kind, _, name = section.partition(":")
    return kind.strip(), name.strip()


def _key(line: str) -> str:
    match = re.match(r"\s*(\S+) =", line)
    return match[1] if match else ""


def _lasts(draft: Draft) -> bool:
    """Whether others can wait for it: it starts by itself and is there to stay."""
    keys = draft.keys
    return keys.get("autostart") != "false" and keys.get("restart.policy") != '"never"'
