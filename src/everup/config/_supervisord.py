"""From a supervisord.conf to a config. Nothing is dropped: what has no equivalent is a comment."""

import configparser
import re
import shlex
from dataclasses import dataclass, field

from everup.config import template
from everup.config._draft import PASSED_ON, Draft, argv, clean, comment, service_name
from everup.config._explain import masked
from everup.config._problem import ConfigError, Problem, toml_list, toml_string
from everup.config._signals import signal_name

_FILE = "supervisord.conf"
_VARIABLE = re.compile(r"%\((?P<name>[A-Za-z0-9_]+)\)(?P<form>[0-9]*[sd])|%%")
_NUMBERED_PORT = re.compile(
    r"(?<![0-9])(?P<head>[1-9][0-9]{0,3})%\(process_num\)0(?P<width>[1-4])d"
)
_PAIR = re.compile(r"""\s*([^=,\s"']+)\s*=\s*("[^"]*"|'[^']*'|[^,"']*?)\s*(?:,|$)""")
_BYTES = re.compile(r"([0-9]+)\s*([KMG]?)B?", re.IGNORECASE)
_ENV_MARK = re.compile("\x01([A-Za-z0-9_]+)\x02")

_WHY = {
    "priority": "depends_on gives the order",
    "startretries": "everup goes on trying; restart.intensity says when it does so slowly",
    "stopasgroup": "the stop signal goes to the main process; whatever is left gets SIGKILL",
    "killasgroup": "everup always kills everything that a replica has started",
    "redirect_stderr": "both outputs go to one log, each line marked with its own",
    "stdout_logfile": "output goes to logs/ in everup's state directory",
    "stderr_logfile": "output goes to logs/ in everup's state directory",
    "stderr_logfile_maxbytes": "both outputs share one log",
    "stderr_logfile_backups": "both outputs share one log",
    "process_name": "replicas are named NAME.1, NAME.2, ...",
}


class _Unknown(Exception):  # noqa: N818  # control flow, never leaves this module
    """A value that cannot be converted; its text says why."""


@dataclass(slots=True)
class _Program:
    """One [program:x] on its way to a draft."""

    name: str
    group: str
    options: dict[str, str]
    draft: Draft
    number: int = 1
    """numprocs"""
    start: int = 0
    """numprocs_start"""
    ports: list[tuple[int, int]] = field(default_factory=list)
    """Port ranges of all programs, shared."""


def from_supervisord(text: str) -> str:
    """Config text for a supervisord.conf; `ConfigError` if it is no INI file."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    try:
        parser.read_string(clean(text), _FILE)
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or next(iter(getattr(error, "errors", [(0,)])))[0]
        message = "expected [section] headers and lines of the form key = value"
        raise ConfigError([Problem(_FILE, int(line), "", None, message)]) from None
    taken: set[str] = set()
    names: dict[str, str] = {}
    groups = _groups(parser)
    ports: list[tuple[int, int]] = []
    blocks = [comment("everup.toml, converted from a supervisord.conf")]
    for section in parser.sections():
        kind, _, name = section.partition(":")
        name = name.strip()
        if kind != "program" or not name:
            continue
        names[name] = service = service_name(name, taken)
        draft = Draft(f"service.{service}")
        if service != name:
            draft.note(f"named {name} in supervisord")
        group = next((group for group, members in groups.items() if name in members), name)
        program = _Program(name, group, dict(parser.items(section)), draft, ports=ports)
        _convert(program)
        blocks.append(draft.render())
    blocks += _group_blocks(parser, groups, names)
    blocks += _other_sections(parser)
    return "\n\n".join(blocks) + "\n"


def _groups(parser: configparser.RawConfigParser) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for section in parser.sections():
        kind, _, name = section.partition(":")
        if kind == "group" and name.strip():
            members = parser.get(section, "programs", fallback="").split(",")
            groups[name.strip()] = [member.strip() for member in members if member.strip()]
    return groups


def _group_blocks(
    parser: configparser.RawConfigParser, groups: dict[str, list[str]], names: dict[str, str]
) -> list[str]:
    blocks: list[str] = []
    taken: set[str] = set()
    owned: set[str] = set()
    for name, members in groups.items():
        draft = Draft(f"group.{service_name(name, taken)}")
        services: list[str] = []
        for member in members:
            if member not in names:
                draft.lost(f"member {member} of group {name}: there is no such program")
            elif names[member] in owned:
                draft.lost(f"member {member} of group {name}: a service is in one group at most")
            else:
                owned.add(names[member])
                services.append(names[member])
        for section in parser.sections():
            kind, _, header = section.partition(":")
            if kind == "group" and header.strip() == name:
                for key, value in parser.items(section):
                    if key != "programs":
                        draft.lost(_lost(key, value))
        draft.keys["services"] = toml_list(services)
        if services:
            blocks.append(draft.render())
        else:
            draft.lost(f"group {name}: it has no members")
            blocks.append("\n".join(comment(text) for text in draft.comments))
    return blocks


def _other_sections(parser: configparser.RawConfigParser) -> list[str]:
    blocks: list[str] = []
    for section in parser.sections():
        kind, _, name = section.partition(":")
        if kind in ("program", "group") and name.strip():
            continue
        lines = [comment(f"not converted: [{section}]")]
        lines += [
            comment(f"  {key} = {masked(key, value)}") for key, value in parser.items(section)
        ]
        blocks.append("\n".join(lines))
    return blocks


def _lost(key: str, value: str) -> str:
    why = _WHY.get(key)
    text = f"{key} = {masked(key, value)}"
    return f"{text} ({why})" if why else text


def _convert(program: _Program) -> None:
    options, draft = program.options, program.draft
    for key, low in (("numprocs", 1), ("numprocs_start", 0)):
        if key in options:
            try:
                number = _whole(options[key], low, 1000)
            except _Unknown as error:
                draft.lost(f"{_lost(key, options[key])}: {error}")
            else:
                setattr(program, "number" if key == "numprocs" else "start", number)
    if "command" in options:
        _command(program, options["command"])
    else:
        draft.lost("the program has no command")
        draft.keys["command"] = toml_list(["false"])
        draft.keys["autostart"] = "false"
    if program.number > 1:
        draft.keys["replicas"] = str(program.number)
    if options.get("autorestart", "unexpected").lower() == "unexpected":
        draft.keys["restart.policy"] = '"on-failure"'  # supervisord's default; everup's is always
    for key, value in options.items():
        if key in ("command", "numprocs", "numprocs_start"):
            continue
        try:
            _option(program, key, value.strip())
        except _Unknown as error:
            draft.lost(f"{_lost(key, value)}: {error}")


def _option(program: _Program, key: str, value: str) -> None:
    keys = program.draft.keys
    match key:
        case "directory" | "user":
            text = _plain(program, value)
            if text:
                keys[key] = toml_string(text)
        case "environment":
            _environment(program, value)
        case "autostart":
            keys["autostart"] = "true" if _truth(value) else "false"
        case "autorestart":
            if value.lower() != "unexpected":
                keys["restart.policy"] = '"always"' if _truth(value) else '"never"'
        case "startsecs":
            keys["restart.reset_after"] = f'"{_whole(value, 0, 86400)}s"'
        case "stopwaitsecs":
            keys["stop_timeout"] = f'"{_whole(value, 0, 86400)}s"'
        case "stopsignal":
            name = signal_name(value)
            if name is None:
                raise _Unknown("unknown signal")
            keys["stop_signal"] = toml_string(name)
        case "exitcodes":
            codes = [_whole(code, 0, 255) for code in value.split(",") if code.strip()]
            keys["restart.success_exit"] = str(codes)
        case "umask":
            if not re.fullmatch(r"0?[0-7]{1,3}", value):
                raise _Unknown("expected octal digits")
            keys["umask"] = toml_string(value.zfill(3))
        case "stdout_logfile_maxbytes":
            keys["log.max_size"] = _log_size(value)
        case "stdout_logfile_backups":
            keys["log.files"] = str(_whole(value, 1, 1000))
        case "process_name" if value in ("%(program_name)s", "%(program_name)s_%(process_num)02d"):
            pass  # everup names replicas much the same way
        case _:
            program.draft.lost(_lost(key, value))


def _command(program: _Program, text: str) -> None:
    draft = program.draft
    text = _numbered_port(program, text)
    try:
        words = shlex.split(_fill(program, text))
    except (_Unknown, ValueError) as error:
        draft.lost(f"command = {text} ({error})")
        words = ["false"]
        draft.keys["autostart"] = "false"
    variables = [name for word in words for name in _ENV_MARK.findall(word)]
    if variables:
        words = ["sh", "-c", "exec " + " ".join(_shell_word(word) for word in words)]
        for name in dict.fromkeys(variables):
            if name not in PASSED_ON:
                draft.note(
                    f"set {name} in environment or an environment_file: the command reads it"
                )
    if not words or not words[0]:
        words = ["false"]
        draft.lost("the command is empty")
    draft.keys["command"] = argv(words)


def _shell_word(word: str) -> str:
    """The word quoted for a shell, with its variables outside of the quotes."""
    parts = _ENV_MARK.split(word)
    # the name after $ needs no braces, which are the templates' own
    return (
        "".join(
            f'"${part}"' if i % 2 else (shlex.quote(part) if part else "")
            for i, part in enumerate(parts)
        )
        or "''"
    )


def _numbered_port(program: _Program, text: str) -> str:
    """``80%(process_num)02d`` is a port for each process: that is what ``port`` is for."""
    forms = {match[0] for match in _NUMBERED_PORT.finditer(text)}
    match = _NUMBERED_PORT.search(text)
    if match is None or len(forms) != 1:
        return text
    width = int(match["width"])
    first = int(match["head"] + str(program.start).zfill(width))
    last = first + program.number - 1
    fits = len(str(program.start + program.number - 1)) <= width and first >= 1024 and last <= 65535
    if not fits or any(low <= last and first <= high for low, high in program.ports):
        return text
    program.ports.append((first, last))
    program.draft.keys["port"] = str(first)
    return text.replace(match[0], "%(everup_port)s")


def _fill(program: _Program, text: str) -> str:
    """The text as a template; variables of the environment become marks."""
    values = {
        "program_name": program.name,
        "group_name": program.group,
        "numprocs": str(program.number),
        "here": ".",
    }
    out, at = "", 0
    for match in _VARIABLE.finditer(text):
        out += template.escape(text[at : match.start()])
        at = match.end()
        name = match["name"]
        if name is None:
            out += "%"
        elif name == "everup_port" and "port" in program.draft.keys:
            out += "{port}"
        elif name == "process_num":
            out += "{replica}"
            if program.start != 1 or match["form"] != "d":
                program.draft.note(
                    f"{{replica}} counts 1, 2, ...; supervisord counted from {program.start}"
                )
        elif name in values:
            out += template.escape(values[name])
            if name == "here":
                program.draft.note('%(here)s is now ".": right where this file lies beside the old')
        elif name.startswith("ENV_"):
            out += f"\x01{name[4:]}\x02"
        else:
            raise _Unknown(f"{match[0]} has no equivalent")
    return out + template.escape(text[at:])


def _plain(program: _Program, text: str) -> str:
    """The text for a key that takes no templates."""
    filled = _fill(program, text)
    if "\x01" in filled or "{replica}" in filled.replace("{{", ""):
        raise _Unknown("this key cannot differ by replica or variable")
    return filled.replace("{{", "{").replace("}}", "}")


def _environment(program: _Program, text: str) -> None:
    at = 0
    while match := _PAIR.match(text, at):
        if match.end() == at:
            break
        at = match.end()
        name, value = match[1], match[2].strip("\"'")
        try:
            filled = _fill(program, value)
        except _Unknown as error:
            program.draft.lost(f"environment {name} = {masked(name, value)}: {error}")
            continue
        if "\x01" in filled:
            program.draft.lost(
                f"environment {name} = {masked(name, value)}: everup's own variables cannot be used"
            )
        else:
            program.draft.environment[name] = filled
    if text[at:].strip():
        raise _Unknown("this part could not be read")


def _truth(value: str) -> bool:
    if value.lower() in ("true", "yes", "on", "1"):
        return True
    if value.lower() in ("false", "no", "off", "0"):
        return False
    raise _Unknown("expected true or false")


def _whole(value: str, low: int, high: int) -> int:
    text = value.strip()
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise _Unknown(f"expected a whole number, {low} to {high}")
    return int(text)


def _log_size(value: str) -> str:
    match = _BYTES.fullmatch(value)
    if match is None or len(match[1]) > 12:
        raise _Unknown("expected a size")
    size = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]
    if size < 4096:
        raise _Unknown("everup's logs are always bounded, by 4K at least")
    return toml_string(f"{match[1]}{match[2].upper()}" if match[2] else f"{match[1]}B")
