"""Commands: each one a client of the API."""

import sys


def main() -> None:
    """The ``everup`` program."""
    from everup.cli.main import cli

    cli.main(prog_name="everup", args=sys.argv[1:])
