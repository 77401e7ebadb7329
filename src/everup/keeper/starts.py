"""Counts the engines that could not begin: the next one has to know."""

import os

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

    def told(self) -> dict[str, str]:
        """For the environment of the next one."""
        return {FAILED_STARTS: str(self._failed)}
