"""Counts the engines that could not begin: the next one has to know."""

import os
import signal

from everup.keeper.doomed import DOOMED, Doomed
from everup.keeper.voice import say

FAILED_STARTS = "EVERUP_FAILED_STARTS"
"""In the environment of an engine: how many before it, in a row, ended by themselves before they
had begun."""
MOST_FAILED_STARTS = 3
"""After so many, the next one leaves out what they failed at."""


class Starts:
    """Those of one keeper."""

    def __init__(self) -> None:
        self._failed = 0

    def begun(self) -> None:
        """The engine has taken everything over."""
        self._failed = 0

    def ended(self, status: int) -> None:
        """It ended; one that was killed might have begun."""
        self._failed += os.WIFEXITED(status)
        if self._failed >= MOST_FAILED_STARTS:
            say(
                f"{self._failed} engines in a row could not begin: the next one goes by what it "
                "can bear of the last state, or by none"
            )

    def told(self, fd: int, hung_s: float, doomed: Doomed) -> dict[str, str]:
        """For the environment of the next one: how many failed, and what it has to know before we
        can speak: where, how often, whose files to leave."""
        told = {"EVERUP_KEEPER_FD": str(fd), "EVERUP_KEEPER_BEATS": f"{hung_s:g}"}
        told |= {DOOMED: str(doomed)} if doomed.left() else {}
        return told | {FAILED_STARTS: str(self._failed)}


def status_text(status: int) -> str:
    """Say how a process ended."""
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit {os.WEXITSTATUS(status)}"
