"""``everup report``."""

import contextlib
import difflib
import gc
import os
import re
import time
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from everup.cli._mathematics import need_mathematics
from everup.cli.context import FAILED, USAGE, Failure, Here, json_option, print_json

_LAPSE = re.compile(r"(\d+)([smhdw])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_WINDOW_S = 30 * 86400.0
_OBJECTIVE = 99.9
_MOMENTS = frozenset(("start", "end", "first", "since"))
_MAX_BINS = 100


@click.command()
@click.argument("service", required=False)
@click.option(
    "--since", default="30d", show_default=True, help="90d or 12h (ago), or a date and time."
)
@click.option(
    "--html", "html", type=click.Path(dir_okay=False), help="Write a page with charts to this file."
)
@json_option
@click.pass_obj
def report(here: Here, service: str | None, since: str, html: str | None, as_json: bool) -> None:
    """Show how available the services were: failures, recoveries, objectives.

    Of all services, or of SERVICE; from the journal, also while everup is down. Exit status 1:
    the journal cannot be read, or there is no such service.
    """
    from everup.adapters import history as adapter
    from everup.adapters import trusted
    from everup.adapters._journal_file import boot_id
    from everup.cli.client import keeper_lives
    from everup.reliability.account import account

    need_mathematics("report")
    gc.disable()  # a great many objects, none of them garbage, and the process ends soon
    place = here.place
    began = _moment(since)
    try:
        with trusted.as_owner(place.weakness()):
            history = adapter.advance(Path(place.journal), Path(place.state_dir))
    except FileNotFoundError:
        raise Failure(
            f"there is no journal at {place.journal}: everup has not run with this config yet",
            "start it: everup up -d",
        ) from None
    except (adapter.HistoryError, OSError) as error:
        raise Failure(
            f"no report: {error}",
            "is it yours to read? everup itself puts a damaged journal aside when it starts",
        ) from None
    end = history.moment(time.time(), time.monotonic(), boot_id())
    history.close(end, running=keeper_lives(place))
    first = history.marks[0][0] if history.marks else end
    start = max(first, end - int(began * 1e6) if isinstance(began, float) else began(history))
    objectives = _objectives(place.accepted, place.config)
    if service is not None and service not in history.services:
        raise _unknown(service, [*history.services], objectives[1])
    start = min(start, end - 1)
    found = account(history, start, end, objectives=objectives[0], only=service or "")
    edges = _edges(history, start, end)
    if html is not None:
        from everup.cli._report_html import page

        _write(html, page(history, found, start, end, edges))
    if as_json:
        print_json(_as_json(found, since))
        return
    from everup.cli._report_text import show

    show(history, found, edges, service, html)


# -- arguments


def _moment(text: str) -> Any:
    """Seconds ago, or a function that gives the moment on the history's clock."""
    if match := _LAPSE.fullmatch(text):
        seconds = int(match[1]) * _UNITS_S[match[2]]
        if seconds <= 0:
            raise Failure(f"--since {text}: expected a time before now", status=USAGE)
        return float(seconds)
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC).timestamp()
    except (ValueError, OverflowError, OSError):
        raise Failure(
            f"--since {text}: expected 30d (ago), 12h or 2026-11-22T22:53", status=USAGE
        ) from None
    if moment >= time.time():
        raise Failure(f"--since {text}: expected a time before now", status=USAGE)
    return lambda history: history.of_wall(moment)


def _unknown(name: str, known: list[str], configured: list[str]) -> Failure:
    if name in configured:
        return Failure(
            f"nothing is known of {name} yet: it has not been started",
            f"start it: everup start {name}",
        )
    close = difflib.get_close_matches(name, [*known, *configured], 1)
    hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known) or 'none'}"
    return Failure(f"there is no service {name!r} in the journal or the config", hint, FAILED)


# -- the config in force


def _objectives(*paths: str) -> tuple[dict[str, Any], list[str]]:
    """What services promise, and all services, by the first config that can be read. Without
    everup's own reading of configs: this one has passed that, and it takes half a second."""
    from everup.reliability.account import Objective

    for path in paths:
        try:
            document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
            default = document.get("defaults", {}).get("slo")
            found = {}
            for name, table in document["service"].items():
                own = table.get("slo", default)
                if own is None:
                    continue
                slo = {**(default or {}), **own}
                objective = float(slo.get("objective", _OBJECTIVE))
                window_s = _seconds(slo["window"]) if "window" in slo else _WINDOW_S
                if 0 < objective < 100 and window_s > 0:
                    found[name] = Objective(objective, window_s)
            return found, list(document["service"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return {}, []


def _seconds(text: str) -> float:
    units = {"ms": 0.001, **_UNITS_S}
    return sum(float(n) * units[unit] for n, unit in _DURATION.findall(text))


# -- output


def _edges(history: Any, start: int, end: int) -> list[int]:
    """Where the bars of a chart begin and end: hours, days or weeks of the user's zone."""
    first = datetime.fromtimestamp(history.wall(start), UTC).astimezone()
    length_s = (end - start) / 1e6
    if length_s <= 3 * 86400:
        at, step = first.replace(minute=0, second=0, microsecond=0), timedelta(hours=1)
    else:
        at = first.replace(hour=0, minute=0, second=0, microsecond=0)
        step = timedelta(days=1 if length_s <= _MAX_BINS * 86400 else 7)
    if length_s > _MAX_BINS * 7 * 86400:
        step = timedelta(days=length_s / 86400 / _MAX_BINS)
    edges = [start]
    naive = at.replace(tzinfo=None)  # midnights, whatever the clock of the zone does
    while edges[-1] < end:
        naive += step
        edge = history.of_wall(naive.astimezone().timestamp())
        if edge > edges[-1]:
            edges.append(min(edge, end))
        elif len(edges) > 1 or naive.astimezone() > first + 2 * step:
            break
    if edges[-1] < end:
        edges.append(end)
    return edges


def _as_json(found: Any, since: str) -> Any:
    from everup.reliability.account import plain

    return {"version": 1, "since": since, **_with_times(plain(found))}


def _with_times(value: Any, key: str = "") -> Any:
    """Moments as the rest of everup's JSON has them."""
    if isinstance(value, dict):
        return {name: _with_times(item, name) for name, item in value.items()}
    if key == "down":
        return [[_with_times(moment, "start") for moment in pair] for pair in value]
    if isinstance(value, list):
        return [_with_times(item) for item in value]
    if key in _MOMENTS and isinstance(value, float):
        return datetime.fromtimestamp(value, UTC).isoformat()
    return value


def _write(path: str, text: str) -> None:
    new = f"{path}.{os.getpid()}.new"
    try:
        # O_EXCL: in a directory of everybody's, somebody may have put a link there.
        fresh = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with open(fresh, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(new, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise Failure(
            f"cannot write {path}: {error.strerror or error}", "name another file with --html"
        ) from None
