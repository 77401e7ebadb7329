"""How the programs here show what they found: a table, and a plot as SVG.

The plots are small on purpose: lines and bars, linear and logarithmic axes. Colours are classes of
a style sheet inside the file, which has a light and a dark half, so that a page that shows it as an
image gets the one its reader uses.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

WIDTH = 860.0
MARGIN = 24.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 16.0, 34.0, 46.0  # of a panel, around what it plots
LIGHT = ("#2563eb", "#c2410c", "#15803d", "#7c3aed", "#64748b", "#be123c")
DARK = ("#7aa2ff", "#ffab70", "#6ee7a0", "#c4a7ff", "#a3b1c2", "#ff8fa3")
BLUE, ORANGE, GREEN, VIOLET, GREY, RED = range(len(LIGHT))


class Axis(NamedTuple):
    """From ``low`` to ``high``, marked at ``ticks``; ``names`` instead of their numbers."""

    label: str
    low: float
    high: float
    ticks: Sequence[float]
    log: bool = False
    names: Sequence[str] = ()

    def share(self, value: float) -> float:
        """How far along it a value is: 0 at the low end, 1 at the high one."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


class Line(NamedTuple):
    label: str
    points: Sequence[tuple[float, float]]
    colour: int
    dots: bool = False
    dashed: bool = False


class Lines(NamedTuple):
    """A panel of lines. ``band``: a stretch of the x axis to shade, and what it is."""

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    band: tuple[float, float, str] | None = None


class Bar(NamedTuple):
    label: str
    values: Sequence[float]
    colour: int
    pale: bool = False


class Bars(NamedTuple):
    """A panel of bars: a group for each name, a bar in it for each of ``bars``."""

    title: str
    names: Sequence[str]
    y: Axis
    bars: Sequence[Bar]


Panel = Lines | Bars


class Frame(NamedTuple):
    """Where a panel plots: the corners, in the picture's units."""

    left: float
    top: float
    right: float
    bottom: float

    def x(self, share: float) -> float:
        return self.left + share * (self.right - self.left)

    def y(self, share: float) -> float:
        return self.bottom - share * (self.bottom - self.top)


def number(value: float) -> str:
    """Short, for people."""
    if abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:.0f}" if abs(value) < 10_000 else f"{value:,.0f}".replace(",", " ")


def figure(title: str, panels: Sequence[Panel], columns: int = 2, panel_height: float = 280) -> str:
    """The whole picture: a title, one legend, and the panels in rows of ``columns``."""
    rows = math.ceil(len(panels) / columns)
    legend = _legend(panels)
    top = 64.0 + 22.0 * len(legend)
    height = top + rows * panel_height + 8.0
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}" '
        f'width="{WIDTH:g}" height="{height:g}" role="img" aria-label="{escape(title)}">',
        _style(),
        f'<rect class="page" width="{WIDTH:g}" height="{height:g}" rx="8"/>',
        _text(MARGIN, 36, title, "title"),
    ]
    for row, entries in enumerate(legend):
        out += _legend_row(60.0 + 22.0 * row, entries)
    width = (WIDTH - 2 * MARGIN) / columns
    for index, panel in enumerate(panels):
        left = MARGIN + (index % columns) * width
        above = top + (index // columns) * panel_height
        frame = Frame(left + LEFT, above + TOP, left + width - RIGHT, above + panel_height - BOTTOM)
        out += _panel(panel, frame)
    out.append("</svg>")
    return "\n".join(out) + "\n"


def _style() -> str:
    def half(
        colours: Sequence[str], page: str, text: str, quiet: str, grid: str, band: str
    ) -> Iterator[str]:
        yield f".page{{fill:{page}}} text{{fill:{text}}} .quiet{{fill:{quiet}}}"
        yield f".grid{{stroke:{grid}}} .axis{{stroke:{quiet}}} .band{{fill:{band}}}"
        for index, colour in enumerate(colours):
            yield f".l{index}{{stroke:{colour}}} .f{index}{{fill:{colour}}}"

    light = " ".join(half(LIGHT, "#ffffff", "#1f2937", "#6b7280", "#e5e7eb", "#fee2e2"))
    dark = " ".join(half(DARK, "#111827", "#e5e7eb", "#9ca3af", "#2b3647", "#3f2330"))
    return (
        "<style>text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif} "
        ".title{font-size:17px;font-weight:600} .head{font-size:13px;font-weight:600} "
        ".small{font-size:11px} .tiny{font-size:10px} .grid,.axis{stroke-width:1} "
        ".line{fill:none;stroke-width:2;stroke-linejoin:round} "
        f".dashed{{stroke-dasharray:5 4}} .pale{{opacity:.4}} {light} "
        f"@media (prefers-color-scheme:dark){{{dark}}}</style>"
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


# -- the legend: every label once, over all panels

Entry = tuple[str, str, bool]
"""A label, the classes of its mark, whether that is a line."""


def _legend(panels: Sequence[Panel]) -> list[list[Entry]]:
    entries: dict[str, Entry] = {}
    for panel in panels:
        if isinstance(panel, Bars):
            for bar in panel.bars:
                kind = f"f{bar.colour}{' pale' if bar.pale else ''}"
                entries.setdefault(bar.label, (bar.label, kind, False))
        else:
            for line in panel.lines:
                kind = f"line l{line.colour}{' dashed' if line.dashed else ''}"
                entries.setdefault(line.label, (line.label, kind, True))
    rows: list[list[Entry]] = [[]]
    used = 0.0
    for entry in entries.values():
        if used + _entry_width(entry) > WIDTH - 2 * MARGIN:
            rows.append([])
            used = 0.0
        rows[-1].append(entry)
        used += _entry_width(entry)
    return rows


def _entry_width(entry: Entry) -> float:
    return 50.0 + 6.4 * len(entry[0])


def _legend_row(y: float, entries: Sequence[Entry]) -> Iterator[str]:
    x = MARGIN
    for entry in entries:
        label, kind, is_line = entry
        if is_line:
            yield _rule(x, y, x + 22, y, kind)
        else:
            yield f'<rect x="{x:.1f}" y="{y - 6:.1f}" width="14" height="12" class="{kind}"/>'
        yield _text(x + (28 if is_line else 20), y + 4, label)
        x += _entry_width(entry)


# -- panels


def _panel(panel: Panel, frame: Frame) -> Iterator[str]:
    yield _text(frame.left, frame.top - 12, panel.title, "head")
    if isinstance(panel, Lines) and panel.band is not None:
        low, high, what = panel.band
        left, right = frame.x(panel.x.share(low)), frame.x(panel.x.share(high))
        yield (
            f'<rect x="{left:.1f}" y="{frame.top:.1f}" width="{right - left:.1f}" '
            f'height="{frame.bottom - frame.top:.1f}" class="band"/>'
        )
        yield _text(right + 5, frame.top + 13, what, "small quiet")
    yield from _up(panel.y, frame)
    if isinstance(panel, Lines):
        yield from _along(panel.x, frame)
        for line in panel.lines:
            yield from _line(panel, line, frame)
    else:
        yield from _bars(panel, frame)
    yield _rule(frame.left, frame.bottom, frame.right, frame.bottom, "axis")


def _named(axis: Axis) -> Iterator[tuple[float, str]]:
    for index, tick in enumerate(axis.ticks):
        yield axis.share(tick), axis.names[index] if axis.names else number(tick)


def _up(axis: Axis, frame: Frame) -> Iterator[str]:
    for share, name in _named(axis):
        y = frame.y(share)
        yield _rule(frame.left, y, frame.right, y, "grid")
        yield _text(frame.left - 7, y + 4, name, "small quiet", "end")
    yield _text(frame.right, frame.top - 12, axis.label, "small quiet", "end")


def _along(axis: Axis, frame: Frame) -> Iterator[str]:
    for share, name in _named(axis):
        x = frame.x(share)
        yield _rule(x, frame.bottom, x, frame.bottom + 4, "axis")
        yield _text(x, frame.bottom + 17, name, "small quiet", "middle")
    middle = (frame.left + frame.right) / 2
    yield _text(middle, frame.bottom + 34, axis.label, "small quiet", "middle")


def _line(panel: Lines, line: Line, frame: Frame) -> Iterator[str]:
    places = [(frame.x(panel.x.share(x)), frame.y(panel.y.share(y))) for x, y in line.points]
    kind = f"line l{line.colour}{' dashed' if line.dashed else ''}"
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline points="{path}" class="{kind}"/>'
    if line.dots:
        for x, y in places:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="f{line.colour}"/>'


def _bars(panel: Bars, frame: Frame) -> Iterator[str]:
    slot = (frame.right - frame.left) / len(panel.names)
    width = 0.8 * slot / len(panel.bars)
    for index, name in enumerate(panel.names):
        left = frame.left + index * slot
        yield _text(left + slot / 2, frame.bottom + 17, name, "small quiet", "middle")
        for place, bar in enumerate(panel.bars):
            x = left + 0.1 * slot + place * width
            y = frame.y(panel.y.share(bar.values[index]))
            kind = f"f{bar.colour}{' pale' if bar.pale else ''}"
            yield (
                f'<rect x="{x + 1:.1f}" y="{y:.1f}" width="{width - 2:.1f}" '
                f'height="{frame.bottom - y:.1f}" rx="2" class="{kind}"/>'
            )
            yield _text(x + width / 2, y - 4, number(bar.values[index]), "tiny", "middle")


# -- the rest of a program


def arguments(about: str, **sizes: int) -> argparse.Namespace:
    """``--seed`` and ``--svg``, and an option for each size with its default."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the plot there")
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    return parser.parse_args()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        return "  ".join([first, *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])

    return "\n".join([line(head), "  ".join("-" * w for w in widths), *map(line, rows)])
