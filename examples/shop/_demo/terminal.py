"""What the demo prints: lines, a progress line on a terminal, tables."""

import os
import shutil
import sys
from collections.abc import Sequence

_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


class Terminal:
    """Standard output; colour and the progress line only where it is a terminal."""

    def __init__(self) -> None:
        self._tty = sys.stdout.isatty()
        self._colour = self._tty and "NO_COLOR" not in os.environ
        self._progress = False
        self.gone = False
        """Whether nobody reads any more; what comes then is dropped."""

    def paint(self, text: str, colour: str) -> str:
        """The text in a colour."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._colour else text

    def line(self, text: str = "", colour: str | None = None) -> None:
        """One line."""
        self.clear()
        self._write(f"{self.paint(text, colour) if colour else text}\n")

    def head(self, text: str) -> None:
        """The title of a step."""
        self.line()
        self.line(text, "bold")

    def progress(self, text: str) -> None:
        """Show what is being waited for, in place; nothing where output is not a terminal."""
        if self._tty:
            width = shutil.get_terminal_size().columns
            self._write(f"\r\x1b[K{self.paint(text[: width - 1], 'dim')}")
            self._progress = True

    def clear(self) -> None:
        """Take the progress line away."""
        if self._progress:
            self._write("\r\x1b[K")
            self._progress = False

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError:  # a closed pipe or terminal must not keep the demo from cleaning up
            self.gone = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """A table: the first row is its head, the first column is text, the rest numbers."""
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for number, row in enumerate(rows):
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            self.line("  " + "  ".join(cells), "dim" if number == 0 else None)
