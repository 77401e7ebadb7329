"""What all commands share: finding the config, errors, output."""

import json
import os
import re
import shlex
import sys
import tomllib
from functools import cached_property
from typing import Any, NoReturn

import click

from everup.adapters.place import STATE, Place
from everup.cli.names import COMMANDS
from everup.cli.screen import echo, style

_NAME = "everup.toml"
_COMMAND = re.compile(rf"\beverup (?=(?:{'|'.join(COMMANDS)})\b)")
_SYSTEM = "/etc/everup/everup.toml"

OK, FAILED, USAGE, NOT_RUNNING, NOT_WELL = 0, 1, 2, 3, 4
INTERRUPTED = 128 + 2


class Failure(Exception):  # noqa: N818 - the end of a command, not a fault of ours
    """What happened, why, and what to do next; ends the command with ``status``."""

    def __init__(self, text: str, hint: str = "", status: int = FAILED) -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint
        self.status = status

    def show(self) -> None:
        echo(f"{style('everup:', fg='red', bold=True)} {self.text}", err=True)
        if self.hint:
            echo(f"  {named(self.hint)}", err=True)


class Here:
    """The everup that this command is about."""

    def __init__(self, config: str | None) -> None:
        self._given = config

    @cached_property
    def config(self) -> str:
        """Absolute path of the config file; ``Failure`` where there is none."""
        path = self._find()
        try:
            path.encode()
        except UnicodeEncodeError:
            raise Failure(
                f"the path of the config is no UTF-8 text: {path}",
                "the journal and the API are; rename what is not, or move the config elsewhere",
                USAGE,
            ) from None
        return path

    def _find(self) -> str:
        if self._given is not None:
            path = os.path.join(_here(), self._given) if self._given[:1] != "/" else self._given
            path = os.path.normpath(path)
            if not os.path.isfile(path):
                hint = _in_force(os.path.dirname(path))
                raise Failure(f"there is no config file {self._given}", hint, USAGE)
            return path
        directory = _here()
        while True:
            path = os.path.join(directory, _NAME)
            if os.path.isfile(path):
                return path
            parent = os.path.dirname(directory)
            if parent == directory:
                break
            directory = parent
        if os.path.isfile(_SYSTEM):
            return _SYSTEM
        raise Failure(
            f"there is no {_NAME} here or in a directory above, and no {_SYSTEM}",
            _in_force(_here()) or "write one: everup init; or name one: everup -c FILE ...",
            USAGE,
        )

    @cached_property
    def place(self) -> Place:
        """Where the everup of this config is that runs; where none does, that of this user. Needs
        no valid config."""
        from everup.cli.client import keeper_lives

        places = list(Place.candidates(self.config, self.state_dir))
        return next((place for place in places if keeper_lives(place)), places[0])

    @cached_property
    def own_place(self) -> Place:
        """Where this user's everup of the config is to live."""
        return Place.own(self.config, self.state_dir)

    @cached_property
    def state_dir(self) -> str | None:
        """As the config names it; None: it does not."""
        try:
            with open(self.config, "rb") as file:
                table = tomllib.load(file).get("everup", {})
            state_dir = table.get("state_dir", STATE)
        except (OSError, tomllib.TOMLDecodeError, AttributeError, UnicodeDecodeError):
            return None  # a broken file must not keep anybody from looking
        return state_dir if isinstance(state_dir, str) and state_dir not in ("", STATE) else None


def _here() -> str:
    """The working directory; ``Failure`` where it has been deleted meanwhile."""
    try:
        return os.getcwd()
    except OSError:
        text = "the current directory does not exist any more"
        raise Failure(text, "change to one that does, or name the config: -c /...", USAGE) from None


def _in_force(directory: str) -> str:
    """A hint for who has lost the file by which an everup runs."""
    accepted = Place.own(os.path.join(directory, _NAME), None).accepted
    if not os.path.isfile(accepted):
        return ""
    return f"what everup last accepted here is kept in {accepted}: copy it back"


def named(hint: str) -> str:
    """A command that is proposed must be about the same config."""
    context = click.get_current_context(silent=True)
    config = context.find_root().params.get("config") if context else None
    if not config:
        return hint
    return _COMMAND.sub(lambda _match: f"everup -c {shlex.quote(config)} ", hint)


def json_option(command: Any) -> Any:
    """``--json`` on every command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def print_json(value: Any) -> None:
    echo(_json(value, indent=2 if sys.stdout.isatty() else None))


def print_line(value: Any) -> None:
    """One line of JSON."""
    echo(_json(value))


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")


def done(as_json: bool, value: Any, text: str, next_command: str = "") -> None:
    """One line that says what was done, with the next useful command."""
    if as_json:
        print_json(value)
        return
    echo(text + (style(f"  (next: {named(next_command)})", dim=True) if next_command else ""))


def leave(status: int) -> NoReturn:
    raise SystemExit(status)
