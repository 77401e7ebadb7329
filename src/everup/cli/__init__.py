"""Commands: each one a client of the API."""

import gc
import io
import os
import sys


def main() -> None:
    """The ``everup`` program."""
    gc.set_threshold(100_000)  # most commands end before the first collection would have paid
    _open_standard()
    from everup.cli.main import cli

    if isinstance(sys.stdout, io.TextIOWrapper):
        # Services write what they like; a terminal that cannot show it is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    cli.main(prog_name="everup", args=sys.argv[1:])


def _open_standard() -> None:
    """Open what was closed of descriptors 0, 1 and 2: else the next file that is opened, a lock or
    a socket, would have that number, and be written to as output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest: this one
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
