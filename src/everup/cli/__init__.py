"""Commands: each one a client of the API."""

import gc
import io
import sys


def main() -> None:
    """The ``everup`` program."""
    gc.set_threshold(100_000)  # most commands end before the first collection would have paid
    from everup.cli.main import cli

    if isinstance(sys.stdout, io.TextIOWrapper):
        # Services write what they like; a terminal that cannot show it is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    cli.main(prog_name="everup", args=sys.argv[1:])
