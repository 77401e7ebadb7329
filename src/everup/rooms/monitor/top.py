"""``everup top``: all instances as they are now, again each second."""

import contextlib
import math
import os
import select
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from everup.cli.client import Client
from everup.cli.context import Failure, Here, json_option, print_json
from everup.cli.screen import echo, painted, style
from everup.model.units import format_duration, format_size
from everup.rooms.monitor.cli import sparkline
from everup.rooms.monitor.points import INSTANCE
from everup.rooms.monitor.series import read

_COLOURS = {"ready": "green", "parked": "red", "failed": "red", "stopped": None}
_SORTS = {"c": "cpu_percent", "m": "memory_bytes", "e": "errors_s", "l": "lines_s", "n": ""}
_KEYS = "q quit   sort: c cpu, m memory, e errors, l lines, n name"
_SPAN_S = 60.0
_SPARK = 20


@click.command()
@click.option("--once", is_flag=True, help="Show it once, as where the output is no terminal.")
@click.option("--sort", type=click.Choice(["name", "cpu", "memory", "errors", "lines"]),
              default="name", show_default=True, help="What stands on top.")  # fmt: skip
@click.option("--interval", default=1.0, show_default=True, help="Seconds between two looks.")
@json_option
@click.pass_obj
def top(here: Here, once: bool, sort: str, interval: float, as_json: bool) -> None:
    """Show all instances with what they use, again each second: CPU of the last minute, memory,
    descriptors, connections that wait, lines and errors of output. Keys: q ends it.
    """
    by = {"name": "", "cpu": "cpu_percent", "memory": "memory_bytes", "errors": "errors_s",
          "lines": "lines_s"}[sort]  # fmt: skip
    folder = Path(here.place.observer) / "monitor" / "series"
    if as_json:
        print_json([row for row in _rows(here, folder, by) if row.pop("spark") is not None])
        return
    if once or not sys.stdout.isatty() or not sys.stdin.isatty():
        for line in _screen(_rows(here, folder, by), 10_000):
            echo(line)
        return
    with _keys() as read_key:
        while True:
            size = shutil.get_terminal_size()
            try:
                lines = _screen(_rows(here, folder, by), size.lines - 2)
            except Failure as error:  # an engine is replaced in a moment
                lines = [style(error.text, fg="red")]
            sys.stdout.write(f"\x1b[H\x1b[J{painted([*lines, '', _KEYS])}")
            sys.stdout.flush()
            key = read_key(max(0.1, interval))
            if key in ("q", "\x03", "\x04"):
                return
            by = _SORTS.get(key, by)


def _rows(here: Here, folder: Path, by: str) -> list[dict[str, Any]]:
    status = Client(here.place).get("/v1/status")
    now = time.time()
    rows = [_row(i, folder, now) for s in status["services"] for i in s["instances"]]
    if by:
        rows.sort(key=lambda row: -(row.get(by) or 0.0))
    return rows


def _row(instance: dict[str, Any], folder: Path, now: float) -> dict[str, Any]:
    usage = instance["usage"] or {}
    row: dict[str, Any] = {
        "instance": instance["slot"],
        "state": instance["state"],
        "for_s": instance["since_s"],
        "restarts": instance["restarts"],
        "cpu_percent": usage.get("cpu_percent"),
        "memory_bytes": usage.get("rss_bytes"),
        "spark": "",
    }
    try:
        names, points = read(folder, instance["slot"], now - _SPAN_S, now)
    except (OSError, ValueError):
        return row  # the observer is off, or has not begun
    if not points or names != INSTANCE:
        return row
    last = points[-1]
    for name, value in zip(names, last.means, strict=True):
        if not math.isnan(value) and now - last.at < 5.0:
            row[name] = float(f"{value:.6g}")
    cpu = names.index("cpu_percent")
    row["spark"] = sparkline([(p.at, p.means[cpu]) for p in points], now - _SPAN_S, now, _SPARK)
    return row


def _screen(rows: list[dict[str, Any]], most: int) -> list[str]:
    width = max([8, *(len(row["instance"]) for row in rows)])
    head = (
        f"{'INSTANCE':<{width}}  {'STATE':<9} {'FOR':>7} {'CPU':>7}  {'LAST MINUTE':<{_SPARK}} "
        f"{'MEMORY':>8} {'FILES':>5} {'WAITING':>7} {'LINES/s':>8} {'ERRORS/s':>8} {'RESTARTS':>8}"
    )
    out = [style(head, bold=True)]
    for row in rows[: max(1, most - 1)]:
        state = style(f"{row['state']:<9}", fg=_COLOURS.get(row["state"], "yellow"))
        errors = f"{_number(row.get('errors_s')):>8}"
        if (row.get("errors_s") or 0) > 0:
            errors = style(errors, fg="red")
        memory = row.get("memory_bytes")
        out.append(
            f"{row['instance']:<{width}}  {state} {_ago(row['for_s']):>7} "
            f"{_percent(row.get('cpu_percent')):>7}  {row['spark']:<{_SPARK}} "
            f"{'' if memory is None else _size(memory):>8} {_count(row.get('descriptors')):>5} "
            f"{_count(row.get('queue')):>7} {_number(row.get('lines_s')):>8} {errors} "
            f"{row['restarts']:>8}"
        )
    if len(rows) > most - 1:
        out.append(f"... and {len(rows) - most + 1} more")
    return out


def _size(value: float) -> str:
    text = format_size(round(value))
    number = text.rstrip("BKMGT")
    return f"{float(number):.0f}{text[len(number) :]}"


def _ago(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f}s"
    return format_duration(int(seconds) // 60 * 60)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}%"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """The terminal, a screen of our own on it, and keys as they are pressed."""
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def read_key(seconds: float) -> str:
        ready, _, _ = select.select([number], [], [], seconds)
        return os.read(number, 1).decode("ascii", "replace") if ready else ""

    try:
        tty.setraw(number)
        sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[?7l")
        yield read_key
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
        sys.stdout.write("\x1b[?7h\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
