"""The one way to the terminal: nothing that a service, a file or a path brings is obeyed there.

Colours are everup's own: ``style`` marks them with a word that nobody else knows, ``echo`` lets
these through and escapes every other control character.
"""

import os
import sys
from collections.abc import Iterable
from typing import Any

import click

from everup.model.display import shown, shown_line

_ESC = "\x1b"
_WORD = os.urandom(8).hex()
_MARK = f"<{_WORD}>"


def style(text: str, **how: Any) -> str:
    """The text in a colour, for ``echo``."""
    return click.style(shown(text), **how).replace(_ESC, _MARK)


def echo(text: str = "", *, err: bool = False) -> None:
    """Print text in which others may have had a say."""
    click.echo(shown(text).replace(_MARK, _ESC), err=err)


def echo_raw(data: bytes) -> None:
    """Print exactly that, and an end of line."""
    click.echo(data)


def painted(lines: Iterable[str]) -> str:
    """Give lines in which others may have had a say as a terminal in raw mode shows them."""
    return "\r\n".join(shown_line(line).replace(_MARK, _ESC) for line in lines)


def overwrite(text: str) -> None:
    """Put it in the place of the line that stderr shows now."""
    sys.stderr.write(f"\r{_ESC}[K{shown_line(text)}")
    sys.stderr.flush()
