"""Tells everup how it goes with the other system: once it fails for a while, once it is over."""

import time
from collections.abc import Callable
from typing import Final

from everup.observer.feed import Feed

GRACE_S: Final = 3.0
"""A server that restarts is not told of."""


class Health:
    """Whether a system takes what it is sent. Says each change once."""

    def __init__(self, feed: Feed, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._feed = feed
        self._name = name
        self._clock = clock
        self._since: float | None = None
        self._told: bool | None = None

    def failed(self, text: str) -> None:
        """Note that an attempt failed, and why."""
        now = self._clock()
        self._since = now if self._since is None else self._since
        if self._told is not False and now - self._since >= GRACE_S:
            self._told = False
            self._feed.report("unreached", self._name, False, text)

    def worked(self) -> None:
        """Note that something was acknowledged."""
        self._since = None
        if self._told is not True:  # an observer before this one may have told that it failed
            self._told = True
            self._feed.report("unreached", self._name, True, "it takes what it is sent")
