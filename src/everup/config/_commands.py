"""What is known of common commands: shells that stay in between."""

import re

from everup.config._problem import Findings, Path
from everup.model.spec import Service

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "busybox"})
_EXEC = re.compile(r"(?:^|[;&|(\n{])\s*(?:(?:then|else|do)\s+)?exec\s")


def check_command(service: Service, path: Path, found: Findings) -> None:
    """Warn of what works, and will not do what is meant when the service stops."""
    script = _script(service.command)
    if script is None or service.type == "oneshot" or service.stop_scope == "all":
        return
    if not _EXEC.search(script):
        found.warn(
            (*path, "command"),
            "this shell stays between everup and the program, takes the stop signal for it and may "
            'not pass it on; write exec before the last command, or set stop_scope = "all"',
        )


def _script(command: tuple[str, ...]) -> str | None:
    """What a shell is to run, if the command is one with ``-c``."""
    words = [command[0].rpartition("/")[2], *command[1:]]
    if words[0] == "env":  # env NAME=value sh -c ...
        rest = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        words = words[words.index(rest[0]) :] if rest else words
        words[0] = words[0].rpartition("/")[2]
    if words[0] == "busybox":
        words = words[1:] or words
    if words[0] not in _SHELLS:
        return None
    for at, word in enumerate(words[1:], 1):
        if re.fullmatch(r"-[A-Za-z]*c[A-Za-z]*", word):
            return words[at + 1] if at + 1 < len(words) else None
        if not word.startswith(("-", "+")):
            return None
    return None
