"""``everup events`` and ``everup logs``."""

import base64
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from everup.cli import offline
from everup.cli.client import Client, keeper_lives
from everup.cli.context import USAGE, Failure, Here, json_option, print_line
from everup.cli.screen import echo, echo_raw, style
from everup.model.display import shown_line

_SEEN = frozenset({"seq", "time", "mono", "kind", "subject"})
_FOR_EVERUP = frozenset(
    {"start", "leader", "cgroup", "pipes", "since", "spawned_mono", "lane", "gen", "so_far"}
)
"""What the next engine needs and people do not; ``--json`` has it."""
_LAPSE = re.compile(r"(\d+)(s|m|h|d)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_COLOURS = {
    "instance.exited": "red",
    "instance.unhealthy": "red",
    "instance.parked": "red",
    "instance.failed": "red",
    "instance.suspected": "yellow",
    "instance.backoff": "yellow",
    "instance.ready": "green",
}


def _raw_option(command: Any) -> Any:
    return click.option("--raw", is_flag=True, help="Do not escape control characters.")(command)


def _moment(text: str | None, option: str) -> str | None:
    """``10m`` (ago), ``14:30`` (today) or a whole date and time, in the user's zone."""
    if text is None:
        return None
    try:
        if match := _LAPSE.fullmatch(text):
            ago = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
            return (datetime.now(UTC) - ago).isoformat()
        if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text):
            text = f"{datetime.now().astimezone().date()}T{text if text[2] == ':' else f'0{text}'}"
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        raise Failure(
            f"{option} {text}: expected 10m (ago), 14:30 or 2026-11-22T22:53", status=USAGE
        ) from None


@click.command()
@click.option("-n", "count", type=int, help="The last so many. Default: 50; with --since: all.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("-s", "--service", "services", multiple=True, help="Service or instance.")
@click.option("-k", "--kind", "kinds", multiple=True, help="Kind, like instance.exited or log.*")
@click.option("--since", help="10m (ago), 14:30 or a date and time.")
@click.option("--until", help="The same.")
@click.option("--after", type=int, default=0, help="Only events with a larger number.")
@_raw_option
@json_option
@click.pass_obj
def events(
    here: Here,
    count: int | None,
    follow: bool,
    services: tuple[str, ...],
    kinds: tuple[str, ...],
    since: str | None,
    until: str | None,
    after: int,
    raw: bool,
    as_json: bool,
) -> None:
    """Show the journal: what happened, what was decided and done, and why."""
    query: dict[str, Any] = {"service": services, "kind": kinds, "follow": int(follow)}
    if count is None and since is None and not after:
        count = 50
    if count is not None:
        query["n"] = count
    if after:
        query["after"] = after
    for name, text in (("since", since), ("until", until)):
        if (moment := _moment(text, f"--{name}")) is not None:
            query[name] = moment
    if follow or keeper_lives(here.place):
        found = Client(here.place).lines("/v1/events", query)
    else:
        found = offline.events(here.place, query)
    for event in found:
        if as_json:
            print_line(event)
        elif raw:
            echo_raw(_event(event, raw=True).encode("utf-8", "backslashreplace"))
        else:
            echo(_event(event))
        if follow:
            sys.stdout.flush()


def _event(event: dict[str, Any], *, raw: bool = False) -> str:
    when = datetime.fromisoformat(event["time"]).astimezone().strftime("%m-%d %H:%M:%S.%f")[:-3]
    details = " ".join(
        f"{key}={_quoted(value, raw) if isinstance(value, str) and ' ' in value else _plain(value)}"
        for key, value in event.items()
        if key not in _SEEN | _FOR_EVERUP and value not in ("", None)
    )
    if raw:
        return f"{when}  {event['subject']:<12} {event['kind']:<20} {details}".rstrip()
    kind = style(f"{event['kind']:<20}", fg=_COLOURS.get(event["kind"]))
    return f"{when}  {event['subject']:<12} {kind} {shown_line(details)}".rstrip()


def _quoted(text: str, raw: bool) -> str:
    """Between marks, so that where it ends is clear; what is in it cannot feign that."""
    if raw:
        return f'"{text}"'
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _plain(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (list, dict)) else str(value)


def _line(line: dict[str, Any], *, plain: bool, raw: bool) -> None:
    """Print one line of output; ``plain``: with nothing before it, ``raw``: as it was written."""
    moment = datetime.fromisoformat(line["time"]).astimezone()
    mark = "!" if line["stream"] == "stderr" else "|"
    head = f"{moment.strftime('%H:%M:%S.%f')[:-3]} {line['slot']}"
    if raw:
        # as bytes: of text, click would take the colours where no terminal is
        whole = line.get("text_base64")
        data = line["text"].encode() if whole is None else base64.b64decode(whole)
        echo_raw(data if plain else f"{head} {mark} ".encode() + data)
    elif plain:
        echo(shown_line(line["text"]))
    else:
        echo(f"{style(head, dim=True)} {mark} {shown_line(line['text'])}")


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE|INSTANCE]...")
@click.option("-n", "count", type=int, default=100, show_default=True, help="Lines to begin with.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("--plain", is_flag=True, help="Lines alone, nothing before them.")
@_raw_option
@json_option
@click.pass_obj
def logs(
    here: Here,
    services: tuple[str, ...],
    count: int,
    follow: bool,
    plain: bool,
    raw: bool,
    as_json: bool,
) -> None:
    """Show output of services, merged by time over all replicas.

    Control characters are shown escaped, so that a terminal does not obey a service; --raw does
    not: for a file, a pipe, or colours that you trust.
    """
    query: dict[str, Any] = {"service": services, "n": count, "follow": int(follow)}
    if follow or keeper_lives(here.place):
        found = Client(here.place).lines("/v1/logs", query)
    else:
        found = offline.logs(here.place, services, count)
    for line in found:
        if as_json:
            print_line(line)
        else:
            _line(line, plain=plain, raw=raw)
        if follow:
            sys.stdout.flush()
