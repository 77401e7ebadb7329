"""From one [program:x] or [fcgi-program:x] of a supervisord.conf to services."""

import json
import posixpath
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from everup.config._address import parse_address
from everup.config._draft import PASSED_ON, Draft, argv
from everup.config._problem import toml_list, toml_string
from everup.config._secrets import masked
from everup.config._signals import SIGNALS, signal_name
from everup.config._supervisord_logs import forwarded, log_size
from everup.config._supervisord_values import (
    Filler,
    Split,
    Surroundings,
    Unknown,
    as_template,
    pairs,
    shell_word,
    truth,
    variables,
    whole_number,
)

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOG_OPTION = re.compile(r"std(out|err)_.*")
_OFF = frozenset({"false", "no", "off", "0", "0b", "0kb", "0mb", "auto", "none", ""})
_OF_THE_USER = ("HOME", "USER", "LOGNAME", "SHELL")
_LOGS = "output goes to logs/ in everup's state directory; everup logs shows it"
_EVENTS = "everup has no event listeners; everup events tells what happens"
_LOST = {
    "startretries": "everup goes on trying; restart.intensity says when it does so slowly",
    **dict.fromkeys(("stdout_logfile", "stderr_logfile", "stdout_syslog", "stderr_syslog"), _LOGS),
    **dict.fromkeys(("stdout_events_enabled", "stderr_events_enabled"), _EVENTS),
    **dict.fromkeys(("stdout_capture_maxbytes", "stderr_capture_maxbytes"), _EVENTS),
}
_SAME = {
    "serverurl": "everup has an API of its own",
    "killasgroup": "everup always kills everything that a replica has started",
    "redirect_stderr": "both outputs go to one log, each line marked with its own",
    "stderr_logfile_maxbytes": "both outputs share one log",
    "stderr_logfile_backups": "both outputs share one log",
    "process_name": "replicas are named NAME.1, NAME.2, ...",
}
"""Options whose effect everup has anyway."""
_FCGI = ("socket", "socket_mode", "socket_owner", "socket_backlog")
_CONVERTED = frozenset(
    {
        *("autostart", "autorestart", "startsecs", "stopwaitsecs", "stopsignal", "exitcodes"),
        *("umask", "stopasgroup", "stdout_logfile_maxbytes", "stdout_logfile_backups"),
    }
)
_ELSEWHERE = (
    *("command", "numprocs", "numprocs_start", "priority"),
    *("user", "directory", "environment"),
)
"""Options that have their own place in the conversion."""


@dataclass(slots=True)
class Defaults:
    """What [supervisord] hands on to every program."""

    environment: dict[str, str] = field(default_factory=dict)
    """Filled in; variables of the surroundings are marks."""
    options: dict[str, str] = field(default_factory=dict)
    """user, directory and umask, as written."""
    nofile: int | None = None


@dataclass(slots=True)
class Program:
    """One section on its way to drafts."""

    name: str
    group: str
    options: dict[str, str]
    fcgi: bool
    around: Surroundings
    defaults: Defaults
    ports: list[tuple[int, int]]
    """Port ranges of all programs, shared."""

    def drafts(self, named: Callable[[str], str]) -> list[Draft]:
        """Its services: one with replicas, or one for each process where they differ by more than
        a port or a number from 1 on. ``named`` makes a free service name of a text."""
        trouble: list[str] = []
        counts = self._filler()
        number = self._count("numprocs", 1, 1000, counts, trouble)
        start = self._count("numprocs_start", 0, 65535, counts, trouble)
        early = self._filler(number, start, number)
        try:
            made = [self._draft(self.name, named, early)]
        except Split:
            if self.fcgi:  # its processes share one socket, so they are one service
                inexact = replace(self._filler(number, start, number), exact=False)
                made = [self._draft(self.name, named, inexact)]
                made[0].lost("%(process_num)s: replicas count from 1", grave=True)
            else:
                made = [self._one_of(n, number, named) for n in range(start, start + number)]
        for text in trouble:
            made[0].lost(text, grave=True)
        for text in counts.taken:
            made[0].note(text)
        return made

    def _filler(self, number: int = 1, start: int = 0, of: int = 1) -> Filler:
        """For ``number`` processes, of ``of`` in all."""
        names: dict[str, str | int] = {
            "program_name": self.name,
            "group_name": self.group,
            "numprocs": of,
        }
        known = dict(self.defaults.environment)
        return Filler(self.around, names, known, number, start, tuple(self.ports))

    def _count(self, key: str, low: int, high: int, filler: Filler, trouble: list[str]) -> int:
        value = self.options.get(key)
        if value is None:
            return low
        try:
            return whole_number(filler.plain(value), low, high)
        except (Unknown, Split) as error:
            trouble.append(f"{key} = {value}: {error}")
            return low

    def _one_of(self, n: int, number: int, named: Callable[[str], str]) -> Draft:
        filler = self._filler(1, n, number)
        name = f"{self.name}_{n:02d}"
        if "process_num" in (pattern := self.options.get("process_name", "")):
            try:
                name = replace(filler, others=((0, 65535),)).plain(pattern)
            except Unknown:
                pass
        draft = self._draft(name, named, filler)
        draft.note(f"one of {number} processes, which differ by more than a port or a number")
        return draft

    def _draft(self, name: str, named: Callable[[str], str], filler: Filler) -> Draft:
        filler.variables = dict(filler.variables)
        draft = Draft("")
        _Conversion(self, filler, draft).run()
        service = named(name)  # not before: a program that has to be split takes no name itself
        draft.header = f"service.{service}"
        if service != self.name:
            draft.note(f"named {name} in supervisord")
        if filler.port is not None:
            self.ports.append((filler.port, filler.port + filler.number - 1))
        return draft


@dataclass(slots=True)
class _Conversion:
    """One service being written."""

    program: Program
    filler: Filler
    draft: Draft
    held: str = ""
    """Why it must not start by itself."""
    at_start: dict[str, str] = field(default_factory=dict)
    """Variables whose values take others of the environment: a shell fills them in."""

    def run(self) -> None:
        keys = self.draft.keys
        keys["command"] = ""  # the first line of the table
        self._environment()
        self._user()
        if self.program.fcgi:
            self._socket()
        self._command()
        if self.filler.number > 1:
            keys["replicas"] = str(self.filler.number)
        if self.filler.port is not None:
            keys["port"] = str(self.filler.port)
        self._directory()
        for key, value in self._remaining():
            self._option(key, value)
        if self.program.defaults.nofile is not None:
            keys["limits.nofile"] = str(self.program.defaults.nofile)
        if self.held:
            keys["autostart"] = "false"
            self.draft.note(f"does not start by itself: {self.held}")
        for text in self.filler.taken:
            self.draft.note(text)

    def _remaining(self) -> list[tuple[str, str]]:
        options = {"autorestart": "unexpected", **self.program.options}
        if "umask" in self.program.defaults.options:
            options.setdefault("umask", self.program.defaults.options["umask"])
        return [
            (key, value)
            for key, value in options.items()
            if key not in _ELSEWHERE and not (self.program.fcgi and key in _FCGI)
        ]

    def _lost(self, key: str, value: str, why: object, *, grave: bool = True) -> None:
        self.draft.lost(f"{key} = {masked(key, value)}: {why}", grave=grave)

    def _environment(self) -> None:
        text = self.program.options.get("environment", "")
        values = dict(self.program.defaults.environment)
        try:
            own, unread = pairs(self.filler.fill(text))
        except Unknown as error:
            self._lost("environment", _names_only(text), error)
            own, unread = {}, ""
        if unread:
            self._lost("environment", _names_only(text), "a part of it could not be read")
        values |= own
        self.filler.variables.update(own)
        needed = {name for value in values.values() for name in variables(value)}
        for name, value in values.items():
            if not name or "=" in name or "\x01" in name:
                self._lost("environment", name, "no name of a variable")
            elif variables(value) or name in needed:  # others mean it as it was before
                self.at_start[name] = value
            else:
                self.draft.environment[name] = as_template(value)

    def _user(self) -> None:
        """Nothing may run with more rights than supervisord gave it, least of all as root."""
        whole = self.program.defaults.options.get("user", "")
        own = self.program.options.get("user", "").strip()
        users: list[str] = []
        for text in (whole, own):
            try:
                users.append(self.filler.plain(text).strip())
            except Unknown as error:
                if text == own or not own:
                    self._lost("user", text, error)
                    self.held = "it is not known as which user it should run"
                users.append("")
        if users[1] and users[0] not in ("", "root", "0", users[1]):
            self._lost("user", own, f"supervisord ran as {users[0]} and could not become it")
        if user := users[1] or users[0]:
            self.draft.keys["user"] = toml_string(user)

    def _directory(self) -> None:
        path = ""
        for options in (self.program.defaults.options, self.program.options):
            value = options.get("directory", "")
            try:
                part = self.filler.plain(value).strip()
            except Unknown as error:
                self._lost("directory", value, error)
                continue
            if part.startswith("~/") and "HOME" in self.program.around.environment:
                part = self.program.around.environment["HOME"] + part[1:]
            path = posixpath.join(path, part) if part else path
        if path:
            path = posixpath.join(self.program.around.here, path)
            self.draft.keys["directory"] = toml_string(posixpath.normpath(path))

    def _socket(self) -> None:
        options = self.program.options
        value = options.get("socket", "")
        try:
            address = self.filler.plain(value).strip()
            address = re.sub(r"^unix://", "unix:", re.sub(r"^tcp://", "", address))
            parse_address(address)
            parts = [f"address = {toml_string(address)}"]
            if "socket_backlog" in options:
                backlog = whole_number(self.filler.plain(options["socket_backlog"]), 1, 65535)
                parts.append(f"backlog = {backlog}")
            if address.startswith("unix:"):
                parts.append(f"mode = {toml_string(self._mode(options))}")
                parts += self._owner(options)
        except (Unknown, ValueError) as error:
            self._lost("socket", value, error)
            self.held = "its socket is missing"
        else:
            self.draft.keys["listen"] = "{ " + ", ".join(parts) + " }"

    def _mode(self, options: dict[str, str]) -> str:
        mode = self.filler.plain(options.get("socket_mode", "0700")).strip()
        if not re.fullmatch(r"0?o?[0-7]{1,4}", mode) or int(mode, 8) > 0o777:
            raise Unknown(f"socket_mode = {mode}: expected octal digits")
        return f"0{int(mode, 8):03o}"

    def _owner(self, options: dict[str, str]) -> list[str]:
        """Whose the socket is: by default the user's that the program runs as."""
        owner = self.filler.plain(options.get("socket_owner", "")).strip()
        user, _, group = (owner or json.loads(self.draft.keys.get("user", '""'))).partition(":")
        given = (("user", user), ("group", group))
        return [f"{key} = {toml_string(name)}" for key, name in given if name]

    def _command(self) -> None:
        text = self.program.options.get("command")
        words: list[str] = []
        if text is None:
            self.draft.lost("the program has no command", grave=True)
        else:
            try:
                words = shlex.split(self.filler.fill(text))
            except (Unknown, ValueError) as error:
                self._lost("command", text, error)
            else:
                if not words or not words[0]:
                    self.draft.lost("the command is empty", grave=True)
                    words = []
        if not words:
            words, self.held = ["false"], "its command is lost"
        self.draft.keys["command"] = argv(self._shell(words))

    def _shell(self, words: list[str]) -> list[str]:
        """The command as a template, by way of a shell where one has something to fill in."""
        waiting = variables(" ".join([*words, *self.at_start.values()]))
        if not waiting and not self.program.fcgi:
            self.draft.environment |= {k: as_template(v) for k, v in self.at_start.items()}
            return [as_template(word) for word in words]
        if more := [n for n in waiting if n not in PASSED_ON and _VARIABLE.fullmatch(n)]:
            self.draft.keys["pass_environment"] = toml_list(more)
        for name in waiting:
            if name not in (*PASSED_ON, *more):
                self.draft.lost(f"%(ENV_{name})s: no shell takes such a name", grave=True)
            elif name in _OF_THE_USER and "user" in self.draft.keys:
                self.draft.note(f"%(ENV_{name})s is that of its user here, not supervisord's own")
        script = "exec"
        if self.program.fcgi:  # a FastCGI program takes its socket as standard input
            script = "unset LISTEN_FDS LISTEN_PID LISTEN_FDNAMES; exec"
        if self.at_start:
            sets = (shell_word(f"{name}={value}") for name, value in self.at_start.items())
            script += " env " + " ".join(sets)
        script += " " + " ".join(shell_word(word) for word in words)
        return ["sh", "-c", script + (" 0<&3 3<&-" if self.program.fcgi else "")]

    def _option(self, key: str, value: str) -> None:
        off = value.strip().lower() in _OFF
        if forwarded(self.draft, self.program.options, key, value, off):
            return
        if key in _SAME or (key in _LOST and off and key != "startretries"):
            why = _SAME.get(key) or _LOST[key]
            if key != "process_name" and value.strip().lower() not in ("false", "auto"):
                self.draft.note(f"{key} = {value}: {why}")
        elif key in _LOST:
            self._lost(key, value, _LOST[key], grave=False)
        elif key not in _CONVERTED:
            self.draft.note(f"{key} = {masked(key, value)}: supervisord has no such option")
        else:
            try:
                self._converted(key, self.filler.plain(value).strip())
            except Unknown as error:
                self._lost(key, value, error, grave=not _LOG_OPTION.fullmatch(key))

    def _converted(self, key: str, value: str) -> None:
        keys = self.draft.keys
        match key:
            case "autostart":
                keys["autostart"] = "true" if truth(value) else "false"
            case "autorestart":
                forced = value.lower() != "unexpected" and ("always" if truth(value) else "never")
                keys["restart.policy"] = toml_string(forced or "on-failure")
            case "startsecs":
                keys["restart.reset_after"] = f'"{whole_number(value, 0, 86400)}s"'
            case "stopasgroup":
                keys["stop_scope"] = '"all"' if truth(value) else '"main"'
            case "stopwaitsecs":
                keys["stop_timeout"] = f'"{whole_number(value, 0, 86400)}s"'
            case "stopsignal":
                keys["stop_signal"] = toml_string(_signal(value))
            case "exitcodes":
                codes = [whole_number(code, 0, 255) for code in value.split(",") if code.strip()]
                keys["restart.success_exit"] = str(codes)
            case "umask":
                if not re.fullmatch(r"(0o)?[0-7]{1,4}", value) or int(value, 8) > 0o777:
                    raise Unknown("expected octal digits")
                keys["umask"] = toml_string(f"{int(value, 8):03o}")
            case "stdout_logfile_maxbytes":
                keys["log.max_size"] = log_size(value)
            case "stdout_logfile_backups":
                keys["log.files"] = str(whole_number(value, 1, 1000))
            case _:  # pragma: no cover  # every one of _CONVERTED has its case
                raise AssertionError(key)


def _names_only(text: str) -> str:
    """The variables of an ``environment`` without their values, which may be secrets."""
    return re.sub(r"""=\s*("[^"]*"|'[^']*'|[^,"']*)""", "=...", text)


def _signal(value: str) -> str:
    name = signal_name(value)
    if name is None and value.isdecimal():
        name = next((known for known, number in SIGNALS.items() if number == int(value)), None)
    if name is None:
        raise Unknown("unknown signal")
    return name
