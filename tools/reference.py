"""Writes the reference pages that come from the code: commands, events, API.

``python tools/reference.py`` from anywhere rewrites them; ``tests/unit/test_reference.py`` fails
when they are not what this would write.
"""

import inspect
import json
from pathlib import Path
from typing import Any

import click

from everup import app
from everup.api.openapi import openapi
from everup.cli.main import cli
from everup.config._texts import texts_of
from everup.model.journal import Kind

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
_BY = "<!-- Written by `tools/reference.py` (`make docs`). Change {} instead. -->"

_COMMANDS = """\
# Commands

{by}

```
everup [-c FILE] COMMAND [OPTIONS] [ARGUMENTS]
```

`-c FILE` (or the variable `EVERUP_CONFIG`) names the config file. Without it: `everup.toml` in the
working directory or the nearest directory above it that has one, else `/etc/everup/everup.toml`.
The config file is also what tells one running everup from another.

Every command takes `-h` and `--json`. Where no SERVICE or INSTANCE is named, all are meant. An
instance is a service and the number of its replica: `web.1`.

| Exit status | Means |
|---|---|
| 0 | done |
| 1 | it failed |
| 2 | the command or the config is wrong |
| 3 | everup is not running |
| 4 | not everything is as it should be (`status`, `up -d`, and commands that wait) |
| 130 | interrupted |
"""

_EVENTS = """\
# Events

{by}

The journal is `STATE_DIR/journal.db` (SQLite). `everup events` shows it, `everup events --json` gives
one JSON object a line. An intent is written before its action, the outcome after it.

Every event has `seq` (a number that only grows), `time` (UTC), `mono` (monotonic clock, in seconds,
comparable within one boot), `kind` and `subject`: an instance (`web.1`), a service, a group, or
`everup` itself. Fields that many kinds share:

| Field | Meaning |
|---|---|
| `run` | the how-manieth process of this instance |
| `pid` | its main process |
| `reason` | why, for people |
| `cause` | how a process ended, for people: `exit 1`, `SIGKILL`, `out of memory`, with what everup killed it for in brackets |
| `exit_kind`, `value` | the same for programs: `code`, `signal`, `oom`, `spawn` (never ran), `hook`, `lost` (ended unseen), and the exit code or signal number |
| `killed_for` | the verdict, where everup killed it |
| `up_s`, `took_s`, `delay_s` | seconds: lived, needed to become ready, until the next start |
| `by` | who asked: `uid 0`, `SIGTERM` |

| Kind | Meaning |
|---|---|
"""  # noqa: E501 - rows of a table cannot be wrapped

_API = """\
# API

{by}

HTTP and JSON over the Unix socket `STATE_DIR/api.sock` (mode 0600). Root and the user that runs
everup may speak; the kernel tells who that is. Every command is a client of it. Where the path of
the state directory is too long for a socket, it is `/tmp/everup-UID-HASH/api.sock`.

```console
$ curl -s --unix-socket .everup/api.sock http://localhost/v1/status
```

The OpenAPI description is [`openapi.json`](openapi.json), and `GET /v1/openapi.json`. A refused
request answers with a status of 400 and above and `{{"error": ..., "hint": ...}}`. Commands answer
as soon as they are accepted, not when they are done: `after` is the number of the last event before
them, so `GET /v1/events?after=N&follow=1` tells what comes of them. A header
`Everup-Config` with the path of a config (percent-encoded) has a command refused with 409 if
another config runs here.

"""


def commands() -> str:
    """Page of all commands, from the click commands."""
    by = _BY.format("the texts in `src/everup/cli/`")
    parts = [_COMMANDS.format(by=by)]
    context = click.Context(cli, info_name="everup")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        own = click.Context(command, info_name=name, parent=context)
        parts.append(_command(command, own))
        if isinstance(command, click.Group):
            parts += [
                _command(sub, click.Context(sub, info_name=part, parent=own))
                for part, sub in command.commands.items()
            ]
    return "\n".join(parts)


def _command(command: click.Command, context: click.Context) -> str:
    name = context.command_path
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    text = inspect.cleandoc(command.help or "").replace("``", "`")
    lines = [f"## `{name}`", "", "```", usage, "```", "", text, ""]
    options = [p for p in command.params if isinstance(p, click.Option) and p.name != "as_json"]
    if options:
        lines += ["| Option | Meaning |", "|---|---|"]
        for option in options:
            record = option.get_help_record(context)
            assert record is not None
            lines.append(f"| `{record[0]}` | {record[1].replace('  [', ' [')} |")
        lines.append("")
    return "\n".join(lines)


def events() -> str:
    """Page of all event kinds, from the docstrings under the members of ``Kind``."""
    told = {name: " ".join(text.split()) for name, text in texts_of(Kind).items()}
    rows = [f"| `{kind.value}` | {told[kind.name].replace('``', '`')} |" for kind in Kind]
    rows += [f"| `{kind.value}` | {kind.doc} |" for kind in app.kinds().values()]
    by = _BY.format("the docstrings in `src/everup/model/journal.py`")
    return _EVENTS.format(by=by) + "\n".join(rows) + "\n"


def api() -> str:
    """Page of the HTTP API, from its OpenAPI description."""
    described = openapi()
    by = _BY.format("`src/everup/api/openapi.py`")
    lines = [_API.format(by=by) + "| Request | Meaning | Body | Answer |", "|---|---|---|---|"]
    asked: list[str] = []
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            request = f"{method.upper()} {path}"
            body = _content(operation.get("requestBody", {})) or "-"
            answer = _content(operation["responses"]["200"])
            lines.append(f"| `{request}` | {operation['summary']} | {body} | {answer} |")
            if operation.get("parameters"):
                asked += ["", f"## Parameters of `{request}`", "", "| Name | Type | Meaning |"]
                asked.append("|---|---|---|")
                for item in operation["parameters"]:
                    kind = _type(item["schema"])
                    asked.append(f"| `{item['name']}` | {kind} | {item['description']} |")
    for name, schema in described["components"]["schemas"].items():
        asked += ["", f"## {name}", "", "| Field | Type | Always there |", "|---|---|---|"]
        for field, kind in schema["properties"].items():
            there = "yes" if field in schema["required"] else ""
            asked.append(f"| `{field}` | {_type(kind)} | {there} |")
    return "\n".join([*lines, *asked]) + "\n"


def _content(part: dict[str, Any]) -> str:
    texts = []
    for media, content in part.get("content", {}).items():
        texts.append(_type(content["schema"]) if content.get("schema") else f"`{media}`")
    return ", ".join(texts)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        values = schema["enum"]
        return ", ".join(f"`{v}`" for v in values) if len(values) < 12 else "[kind](events.md)"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    kind = schema["type"]
    text = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return f"{text} ({schema['format']})" if "format" in schema else text


def pages() -> dict[str, str]:
    """Name and text of every page that is written here."""
    return {
        "commands.md": commands(),
        "events.md": events(),
        "api.md": api(),
        "openapi.json": json.dumps(openapi(), indent=2) + "\n",
    }


def main() -> None:
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
