"""From a Procfile (Heroku, foreman, honcho) to a config."""

import re

from everup.config._draft import Draft, argv, clean, comment, service_name, shell_line

_LINE = re.compile(r"([A-Za-z0-9_-]+)\s*:\s*(\S.*)")
_PORT = re.compile(r"'[^']*'|\$PORT\b|\$\{PORT(?::?-[0-9]*)?\}")
_NAMED_PORT = re.compile(r"\bPORT\b(?!=)")
_PORT_MARK = "\x01"
_FIRST_PORT = 5000
_PORT_STEP = 100
_PORT_MAX = 65000


def from_procfile(text: str, name: str) -> str:
    """Config text for a Procfile; ``name`` is the application's, for the heading.

    ``release`` becomes a oneshot that the others wait for. Processes that read PORT get the port
    that foreman would give them: 5000, 5100, ... by their place in the file.
    """
    taken: set[str] = set()
    drafts: list[Draft] = []
    blocks = [comment(f"everup.toml of {clean(name)}, converted from its Procfile")]
    release = ""
    lost: list[str] = []
    for number, raw in enumerate(clean(text).split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            lost.append(comment(f"not converted: line {number}: {line}"))
            continue
        service = service_name(match[1], taken)
        draft = Draft(f"service.{service}")
        if service != match[1]:
            draft.note(f"named {match[1]} in the Procfile")
        _fill(draft, match[1], match[2].replace(_PORT_MARK, " "), len(drafts))
        if match[1] == "release" and not release:
            release = service
            draft.keys["type"] = '"oneshot"'
            draft.note("runs to its end before the others start")
        drafts.append(draft)
    for draft in drafts:
        if release and draft.header != f"service.{release}":
            draft.keys["depends_on"] = f'["{release}"]'
    if lost:
        blocks.append("\n".join(lost))
    blocks += [draft.render() for draft in drafts]
    return "\n\n".join(blocks) + "\n"


def _fill(draft: Draft, process: str, line: str, index: int) -> None:
    def mark(match: re.Match[str]) -> str:
        # within single quotes no shell fills it in, but an inner one may
        return match[0] if match[0].startswith("'") else _PORT_MARK

    marked = _PORT.sub(mark, line)
    wants_port = _PORT_MARK in marked or bool(_NAMED_PORT.search(line)) or process == "web"
    port = _FIRST_PORT + _PORT_STEP * index
    if wants_port and port > _PORT_MAX:
        draft.lost("PORT: no port is left for this process")
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
