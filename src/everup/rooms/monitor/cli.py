"""``everup metrics`` and ``everup top``."""

import csv
import io
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from everup.cli.context import USAGE, Failure, Here, json_option, print_json
from everup.cli.screen import echo
from everup.model.display import shown_line
from everup.model.units import format_size, parse_duration
from everup.observer.shown import utc
from everup.rooms.monitor.series import Point, read, subjects

WIDTH = 48
_BARS = "▁▂▃▄▅▆▇█"


@click.command()
@click.argument("subject", required=False)
@click.option("--since", default="15m", show_default=True, help="How far back, like 1h or 7d.")
@click.option("--csv", "as_csv", is_flag=True, help="One line for each point.")
@json_option
@click.pass_obj
def metrics(here: Here, subject: str | None, since: str, as_csv: bool, as_json: bool) -> None:
    """Show how an instance, a service, ``machine`` or a file system did: each metric as a line,
    with the last value, the mean and the greatest. Without SUBJECT: list what there is.
    """
    folder = Path(here.place.observer) / "monitor" / "series"
    known = _known(folder, here)
    if subject is None:
        _list(known, as_json)
        return
    chosen = [name for name in known if subject in (name, name.rpartition(".")[0])]
    if not chosen:
        hint = "everup metrics"
        raise Failure(
            f"there are no series of {subject}; there are: {', '.join(known)}", hint, USAGE
        )
    try:
        span_s = parse_duration(since)
    except ValueError as error:
        raise Failure(f"--since {since}: {error}", "everup metrics web --since 1h", USAGE) from None
    now = time.time()
    found = {name: read(folder, name, now - span_s, now) for name in chosen}
    if as_json:
        print_json([_plain(name, names, points) for name, (names, points) in found.items()])
    elif as_csv:
        _csv(found)
    else:
        for name, (names, points) in found.items():
            _show(name, names, points, now - span_s, now)


def _known(folder: Path, here: Here) -> list[str]:
    try:
        return subjects(folder)
    except OSError as error:
        text = f"there are no series: {folder}: {error.strerror or error}"
        hint = "they are kept while everup runs with [everup] observer = true"
        raise Failure(text, hint) from None


def _list(known: Sequence[str], as_json: bool) -> None:
    if as_json:
        print_json(list(known))
        return
    for name in known:
        echo(shown_line(name))
    if known:
        echo(f"more: everup metrics {known[-1]}")


def _show(
    subject: str, names: Sequence[str], points: Sequence[Point], since: float, until: float
) -> None:
    echo(shown_line(subject))
    if not points:
        echo("  nothing was measured in this time")
    for i, name in enumerate(names):
        values = [point.means[i] for point in points if not math.isnan(point.means[i])]
        if not values:
            continue
        most = max(point.most[i] for point in points if not math.isnan(point.most[i]))
        line = sparkline([(p.at, p.means[i]) for p in points], since, until, WIDTH)
        numbers = [_number(name, value) for value in (values[-1], sum(values) / len(values), most)]
        echo(f"  {name:<24}{line}  last {numbers[0]}, mean {numbers[1]}, most {numbers[2]}")


def sparkline(points: Sequence[tuple[float, float]], since: float, until: float, width: int) -> str:
    """Draw values over time in one line; a blank where nothing was measured."""
    cells: list[list[float]] = [[] for _ in range(width)]
    for at, value in points:
        if not math.isnan(value) and since <= at <= until:
            cells[min(width - 1, int((at - since) / (until - since) * width))].append(value)
    means = [sum(cell) / len(cell) if cell else math.nan for cell in cells]
    known = [value for value in means if not math.isnan(value)]
    low, high = min([0.0, *known]), max(known, default=0.0)
    span = high - low
    return "".join(
        " " if math.isnan(value)
        else _BARS[0] if span <= 0
        else _BARS[min(len(_BARS) - 1, int((value - low) / span * len(_BARS)))]
        for value in means
    )  # fmt: skip


def _number(name: str, value: float) -> str:
    if "bytes" in name:
        return format_size(round(value)) + ("/s" if name.endswith("_s") else "")
    if name.endswith("_percent"):
        return f"{value:.1f} %"
    if name.endswith("_s"):
        return f"{value:.1f}/s"
    return f"{value:.4g}"


def _plain(subject: str, names: Sequence[str], points: Sequence[Point]) -> dict[str, object]:
    return {
        "subject": subject,
        "metrics": list(names),
        "points": [
            {"time": utc(p.at), "mean": _finite(p.means), "most": _finite(p.most)} for p in points
        ],
    }


def _csv(found: dict[str, tuple[tuple[str, ...], list[Point]]]) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["time", "subject", "metric", "mean", "most"])
    for subject, (names, points) in found.items():
        for point in points:
            for name, mean, most in zip(names, point.means, point.most, strict=True):
                if not math.isnan(mean):
                    writer.writerow([utc(point.at), subject, name, f"{mean:.6g}", f"{most:.6g}"])
    sys.stdout.write(out.getvalue())


def _finite(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(value) else float(f"{value:.6g}") for value in values]
