"""Tables of a report or a plan, as wide as there is room."""

import os
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence

from everup.cli.screen import echo, style


def table(
    rows: Sequence[Sequence[str]],
    right: Collection[str] = (),
    colours: Mapping[tuple[int, int], str] | None = None,
    spare: Sequence[str] = (),
) -> None:
    """``rows``: the heads first. ``right``: heads of columns of numbers. ``spare``: heads of what
    can be done without where the terminal is narrow, the least useful first."""
    heads = rows[0]
    widths = [max(len(row[n]) for row in rows) for n in range(len(heads))]
    shown = list(range(len(heads)))
    left_out = []
    limit = room()
    for head in spare:
        if not limit or sum(widths[n] for n in shown) + 2 * (len(shown) - 1) <= limit:
            break
        if head in heads and heads.index(head) in shown:
            shown.remove(heads.index(head))
            left_out.append(head)
    for number, row in enumerate(rows):
        cells = []
        for n in shown:
            width = 0 if n == shown[-1] and heads[n] not in right else widths[n]
            padded = row[n].rjust(width) if heads[n] in right else row[n].ljust(width)
            colour = (colours or {}).get((number, n))
            cells.append(style(padded, fg=colour) if colour else padded)
        echo("  ".join(cells).rstrip())
    if told := ", ".join(filter(None, left_out)):
        echo(style(f"no room for {told}", dim=True))


def room() -> int:
    """Columns of the terminal; 0: no limit, as for a pipe or a file."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size(fallback=(0, 0)).columns
    return 0


def counted(count: int, what: str) -> str:
    """``1 failure``, ``2 failures``."""
    return f"{count} {what}" + ("" if count == 1 else "s")
