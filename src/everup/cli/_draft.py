"""What ``everup init`` converts: reading the other supervisor's files, saying what was lost."""

import glob
import os
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

from everup.cli.config import read_config
from everup.cli.context import USAGE, Failure
from everup.cli.screen import echo, style
from everup.model.display import shown_line

if TYPE_CHECKING:
    from everup.config.init import Beside, Loss

_MOST_NAMED = 8


def draft(
    procfile: str | None, supervisord: str | None, output: str
) -> "tuple[str, Sequence[Loss]]":
    """The text of the new config and what it lost; ``Failure`` where a file is not what it
    should be."""
    from everup.config import ConfigError
    from everup.config.init import Surroundings, blank, from_procfile, from_supervisord

    try:
        if procfile is not None:
            made = from_procfile(read_config(procfile), procfile, _beside(procfile, output))
        elif supervisord is not None:
            here = os.path.dirname(os.path.abspath(supervisord))
            around = Surroundings(os.environ, platform.node(), here)
            text = read_config(supervisord)
            made = from_supervisord(text, around, lambda p: _included(here, p), supervisord)
        else:
            return blank(), ()
    except ConfigError as error:
        raise Failure(str(error), status=USAGE) from None
    except FileNotFoundError:  # a relative path, and no directory that it is relative to
        raise Failure("the current directory does not exist any more", status=USAGE) from None
    return made.text, made.losses


def _beside(procfile: str, output: str) -> "Beside":
    """What foreman and honcho read beside a Procfile."""
    from everup.config.init import Beside

    where = os.path.dirname(os.path.abspath(procfile))
    env, foreman = (os.path.join(where, name) for name in (".env", ".foreman"))
    return Beside(
        read_config(env) if os.path.isfile(env) else None,
        os.path.relpath(env, os.path.dirname(os.path.abspath(output))),
        read_config(foreman) if os.path.isfile(foreman) else None,
    )


def _included(here: str, pattern: str) -> list[tuple[str, str, str]]:
    """Each file that an [include] means: its path, its directory, its text."""
    found: list[tuple[str, str, str]] = []
    for path in sorted(glob.glob(os.path.join(here, pattern))):
        if os.path.isfile(path):
            found.append((path, os.path.dirname(os.path.abspath(path)), read_config(path)))
    return found


def sum_up(losses: "Sequence[Loss]", output: str) -> None:
    """The last lines: how much was lost, and the worst of it. On standard error."""
    if not losses:
        return
    where: dict[tuple[str, bool], list[str]] = {}
    for loss in losses:
        name = loss.where.partition(".")[2]
        where.setdefault((loss.text, loss.grave), []).append(name)
    grave = [key for key in where if key[1]]
    count, worst = len(where), len(grave)
    things = "thing" if count == 1 else "things"
    some = (
        f"{worst} of them change{'s' if worst == 1 else ''} what runs"
        if grave
        else ("none of them changes what runs")
    )
    echo(
        f"{style('not converted:', fg='yellow')} {count} {things}, {some}; "
        f"each is a comment in {output}",
        err=True,
    )
    for text, bad in list(where)[:_MOST_NAMED]:
        names = [name for name in where[text, bad] if name]
        whose = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        mark = style("! ", fg="red", bold=True) if bad else "  "
        echo(f"{mark}{whose + ': ' if whose else ''}{shown_line(text)}", err=True)
    if count > _MOST_NAMED:
        echo(f"  and {count - _MOST_NAMED} more", err=True)
