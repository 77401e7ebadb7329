"""What a dashboard is made of, whichever Kibana it is for. Pure data."""

from dataclasses import dataclass
from typing import Any, Literal

View = Literal["events", "incidents"]
Kind = Literal["metric", "histogram", "table", "pie", "markdown"]


@dataclass(frozen=True, slots=True)
class Agg:
    """One aggregation of a visualization: a number, or what it is split by."""

    type: str
    """As Elasticsearch calls it: ``count``, ``avg``, ``terms``, ``date_histogram``."""
    field: str = ""
    role: Literal["metric", "split", "axis"] = "metric"
    size: int = 10
    label: str = ""
    percents: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Visualization:
    """A picture of some documents. ``query`` is Lucene's."""

    name: str
    title: str
    kind: Kind
    aggs: tuple[Agg, ...] = ()
    view: View = "events"
    query: str = "*"
    text: str = ""
    """Of a ``markdown``."""


@dataclass(frozen=True, slots=True)
class Search:
    """A list of documents, the newest first."""

    name: str
    title: str
    columns: tuple[str, ...]
    view: View = "events"
    query: str = "*"


@dataclass(frozen=True, slots=True)
class Panel:
    """Where something is on a dashboard of 12 columns; a row is as high as a line of large text."""

    of: Visualization | Search
    column: int
    row: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Panels, and the time that they show at first."""

    name: str
    title: str
    description: str
    panels: tuple[Panel, ...]
    since: str = "now-24h"


def count(label: str = "") -> Agg:
    """Give how many documents there are."""
    return Agg("count", label=label)


def number(type_: str, field: str, label: str) -> Agg:
    """Give one number of a field: ``avg``, ``max``, ``sum``, ``cardinality``."""
    return Agg(type_, field, label=label)


def percentiles(field: str, label: str, *percents: int) -> Agg:
    """Give percentiles of a field."""
    return Agg("percentiles", field, label=label, percents=percents)


def by(field: str, size: int = 10, label: str = "") -> Agg:
    """Split by the most frequent values of a field."""
    return Agg("terms", field, "split", size, label)


def over_time() -> Agg:
    """Split by time, for a histogram's axis."""
    return Agg("date_histogram", "@timestamp", "axis")


def rows(*lines: tuple[int, tuple[Visualization | Search, ...]]) -> tuple[Panel, ...]:
    """Lay panels out: each line has a height and what stands in it, of equal width."""
    found: list[Panel] = []
    row = 0
    for height, line in lines:
        width = 12 // len(line)
        found += [Panel(of, n * width, row, width, height) for n, of in enumerate(line)]
        row += height
    return tuple(found)


Options = dict[str, Any]
"""Words of Kibana."""
