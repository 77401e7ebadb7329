"""From a Procfile (Heroku, foreman, honcho) to a config."""

import re
from dataclasses import dataclass

from everup.config._draft import (
    LOST,
    Draft,
    Drafted,
    Loss,
    argv,
    clean,
    comment,
    drafted,
    service_name,
    shell_line,
)
from everup.config._problem import ConfigError, Problem, toml_list

_LINE = re.compile(r"([A-Za-z0-9_-]+)\s*:\s*(\S.*)")
_PORT = re.compile(r"'[^']*'|\$PORT\b|\$\{PORT(?::?-[0-9]*)?\}")
_NAMED_PORT = re.compile(r"\bPORT\b(?!=)")
_PORT_MARK = "\x01"
_ENV_PORT = re.compile(r"^\s*(?:export\s+)?PORT\s*=\s*['\"]?([0-9]{1,5})\b", re.MULTILINE)
_FIRST_PORT = 5000
_PORT_STEP = 100
_PORT_MAX = 65000


@dataclass(frozen=True, slots=True)
class Beside:
    """What lies beside the Procfile and has a part in what it means."""

    env: str | None = None
    """Text of the ``.env``."""
    env_name: str = ".env"
    """How the config is to name it."""
    foreman: str | None = None
    """Text of the ``.foreman``: foreman's options."""


def from_procfile(text: str, name: str, beside: Beside | None = None) -> Drafted:
    """The config for a Procfile; ``name`` is the file's, for the heading.

    ``release`` becomes a oneshot that the others wait for. Processes that read PORT get the port
    that foreman would give them: 5000, 5100, ... by their place in the file. `ConfigError` if no
    line says what to run.
    """
    beside = beside or Beside()
    taken: set[str] = set()
    drafts: list[Draft] = []
    release = ""
    losses: list[Loss] = []
    options = _foreman(beside.foreman or "", losses)
    first = _first_port(beside.env or "", options)
    for number, raw in enumerate(clean(text.removeprefix("\ufeff")).split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            losses.append(Loss("", f"line {number}: {line}", grave=True))
            continue
        service = service_name(match[1], taken)
        draft = Draft(f"service.{service}")
        if service != match[1]:
            draft.note(f"named {match[1]} in the Procfile")
        port = first + _PORT_STEP * len(drafts)
        _fill(draft, match[1], match[2].replace(_PORT_MARK, " "), port)
        if match[1] == "release" and not release:
            release = service
            draft.keys["type"] = '"oneshot"'
            draft.note("runs to its end before the others start")
        else:
            _replicas(draft, match[1], options)
        drafts.append(draft)
    if not drafts:
        message = "there is no line of the form  name: command  in it; is this a Procfile?"
        raise ConfigError([Problem(name, 0, "", None, message)])
    for draft in drafts:
        if release and draft.header != f"service.{release}":
            draft.keys["depends_on"] = f'["{release}"]'
        if beside.env is not None:
            draft.keys["environment_file"] = toml_list([f"-{beside.env_name}"])
    blocks = [comment(f"everup.toml of {clean(name)}, converted from its Procfile")]
    if losses:
        blocks.append("\n".join(comment(LOST + loss.text) for loss in losses))
    blocks += [draft.render() for draft in drafts]
    return drafted(blocks, [*losses, *(loss for draft in drafts for loss in draft.placed())])


def _foreman(text: str, losses: list[Loss]) -> dict[str, str]:
    """The options of a ``.foreman``: plain ``key: value`` lines."""
    options: dict[str, str] = {}
    for line in clean(text).split("\n"):
        key, colon, value = line.partition(":")
        key, value = key.strip(), value.strip().strip("'\"")
        if not colon or key.startswith("#"):
            continue
        if key in ("concurrency", "formation"):
            options["formation"] = value
        elif key == "port":
            options["port"] = value
        else:
            losses.append(Loss("", f".foreman: {key}: {value}"))
    return options


def _first_port(env: str, options: dict[str, str]) -> int:
    """foreman counts from its own ``port``, else from PORT of the ``.env``, else from 5000."""
    match = _ENV_PORT.search(clean(env))
    text = options.get("port") or (match[1] if match else "")
    if re.fullmatch(r"[0-9]{1,5}", text) and 1 <= int(text) <= _PORT_MAX:
        return int(text)
    return _FIRST_PORT


def _replicas(draft: Draft, process: str, options: dict[str, str]) -> None:
    """``formation: all=1,web=2`` says how many there are of each."""
    counts: dict[str, str] = {}
    for part in options.get("formation", "").split(","):
        name, _, count = part.partition("=")
        counts[name.strip()] = count.strip()
    count = counts.get(process, counts.get("all", "1"))
    if not re.fullmatch(r"[0-9]{1,3}", count):
        draft.lost(f"formation {process}={count}: expected a whole number", grave=True)
    elif int(count) != 1:
        draft.keys["replicas"] = str(int(count))


def _fill(draft: Draft, process: str, line: str, port: int) -> None:
    def mark(match: re.Match[str]) -> str:
        # within single quotes no shell fills it in, but an inner one may
        return match[0] if match[0].startswith("'") else _PORT_MARK

    marked = _PORT.sub(mark, line)
    wants_port = _PORT_MARK in marked or bool(_NAMED_PORT.search(line)) or process == "web"
    if wants_port and port > _PORT_MAX:
        draft.lost("PORT: no port is left for this process", grave=True)
        wants_port = False
    if not wants_port:
        marked = line
    words = shell_line(marked, draft)
    if words[0] == "sh" and "this command needs a shell" in draft.comments:
        # the shell reads PORT from the environment, where everup puts it too
        words = [word.replace(_PORT_MARK, "$PORT") for word in words]
    words = [word.replace(_PORT_MARK, "{port}") for word in words]
    draft.environment = {
        key: value.replace(_PORT_MARK, "{port}") for key, value in draft.environment.items()
    }
    draft.keys["command"] = argv(words)
    if wants_port:
        draft.keys["port"] = str(port)
        if process == "web":
            draft.note('add  probe.readiness = { http = "/" }  if it answers there')
