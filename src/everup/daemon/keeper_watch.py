"""The engine's eye on the keeper: one that hangs is ended, and followed as one that was killed."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, MutableMapping

from everup.adapters.keeper_client import KeeperClient
from everup.daemon.beats import KEEPER_BEATS
from everup.keeper.vigil import HUNG_S, Vigil


class KeeperWatch:
    """``say`` takes a line for people; ``lost`` is called where the keeper is dead and no other
    sign of that will come, as a thread of it waits for a disk."""

    def __init__(
        self,
        environment: MutableMapping[str, str],
        loop: asyncio.AbstractEventLoop,
        say: Callable[[str], None],
        lost: Callable[[], None],
    ) -> None:
        self._loop, self._say, self._lost = loop, say, lost
        self._vigil = Vigil(float(environment.pop(KEEPER_BEATS, "0") or 0) or HUNG_S)
        self._keeper = -1

    @classmethod
    def begin(
        cls,
        environment: MutableMapping[str, str],
        loop: asyncio.AbstractEventLoop,
        say: Callable[[str], None],
        keeper: KeeperClient,
    ) -> "KeeperWatch":
        """Watch the process that started us, if it gives signs of life."""
        beats = environment.get(KEEPER_BEATS)
        watch = cls(environment, loop, say, keeper.gone)
        keeper.heard = watch.heard
        if beats:
            pid = os.getppid()
            with contextlib.suppress(OSError):
                watch._keeper = os.pidfd_open(pid)
            if os.getppid() == pid and watch._keeper >= 0:  # else it is gone: that is seen soon
                watch._vigil.watch(pid, time.monotonic())
                watch._arm()
        return watch

    def heard(self) -> None:
        """The keeper said something."""
        self._vigil.heard()

    def _arm(self) -> None:
        wait_s = self._vigil.wait_s(time.monotonic())
        if wait_s is not None:
            self._loop.call_later(wait_s, self._tick)

    def _tick(self) -> None:
        why = self._vigil.hung(time.monotonic())
        if self._vigil.dead:
            self._say(
                f"the keeper (pid {self._vigil.pid}): {why}; another one does not wait for that"
            )
            self._vigil.stop()
            self._lost()
        elif why:
            self._say(f"the keeper hangs: {why}; ending it, another one takes over, services go on")
            self._vigil.killed()  # its end closes the socket, and all goes on as after a kill
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._keeper, signal.SIGKILL)
        self._arm()
