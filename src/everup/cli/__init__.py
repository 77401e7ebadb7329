"""Commands: each one a client of the API."""

import io
import sys


def main() -> None:
    """The ``everup`` program."""
    from everup.cli.main import cli

    if isinstance(sys.stdout, io.TextIOWrapper):
        # Services write what they like; a terminal that cannot show it is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    cli.main(prog_name="everup", args=sys.argv[1:])
