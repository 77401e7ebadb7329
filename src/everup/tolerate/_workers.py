"""Threads for single calls, kept for a while for the next: to start one takes four times as long as
to wake one."""

from __future__ import annotations

import threading
from collections.abc import Callable

from everup.tolerate._forks import on_fork

Wake = Callable[[], object]


class _Worker:
    __slots__ = ("gate", "work")

    def __init__(self, work: Callable[[], Wake]) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        self.work: Callable[[], Wake] | None = work


class Workers:
    """Runs each call in a daemon thread: a hung one must not keep the program from ending. How many
    there are is for the caller to bound. Of those that have nothing to do ``most`` wait for the
    next call, ``idle_s`` seconds."""

    __slots__ = ("__weakref__", "idle", "idle_s", "most", "name")

    def __init__(self, name: str, idle_s: float = 5.0, most: int = 32) -> None:
        self.name = name
        self.idle_s = idle_s
        self.most = most
        self.idle: list[_Worker] = []
        """Those that wait, the latest last. Taking and adding are one atomic step each."""
        on_fork(self)

    def run(self, work: Callable[[], Wake]) -> None:
        """Call ``work()`` in a thread, and then what it gives, which tells whoever waits that it is
        over: by then the thread can be had again. Raises ``RuntimeError`` when the system gives no
        more threads."""
        try:
            worker = self.idle.pop()
        except IndexError:
            worker = _Worker(work)
            threading.Thread(
                target=self._serve, args=(worker,), name=f"everup-{self.name}", daemon=True
            ).start()
        else:
            worker.work = work
            worker.gate.release()

    def _serve(self, worker: _Worker) -> None:
        while True:
            work, worker.work = worker.work, None
            assert work is not None
            wake = work()
            del work  # and with it the arguments of the call
            stays = len(self.idle) < self.most
            if stays:
                self.idle.append(worker)
            wake()
            del wake
            if not stays:
                return
            if not worker.gate.acquire(timeout=self.idle_s):
                try:
                    self.idle.remove(worker)
                except ValueError:
                    worker.gate.acquire()  # taken in this moment: its work is on the way
                else:
                    return

    def forked(self) -> None:
        self.idle = []
