"""Copies of a call in threads, bounded: for ``Hedge`` and ``Vote``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import TYPE_CHECKING, Any

from everup.tolerate._forks import on_fork, renew

if TYPE_CHECKING:
    from queue import SimpleQueue

Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]
Ended = tuple[int, Any, BaseException | None]
"""Number of a copy, what it returned, what it raised."""


class Job:
    """The copies of one call in threads. ``ended`` gives them as they end."""

    __slots__ = ("alive", "context", "ended", "over")

    def __init__(self, context: Context) -> None:
        from queue import SimpleQueue

        self.context = context
        self.ended: SimpleQueue[Ended] = SimpleQueue()
        self.alive = 0
        self.over = False


class Threads:
    """At most ``most`` threads at once, each a daemon: a hung one must not keep the program from
    ending. No thread waits for work: a policy that nobody uses costs nothing."""

    __slots__ = ("__weakref__", "busy", "lock", "losers", "most", "name")

    def __init__(self, most: int, name: str) -> None:
        self.most = most
        self.name = name
        self.lock = threading.RLock()  # a signal handler may come in between
        self.busy = 0
        """Threads under way."""
        self.losers = 0
        """Of them, those whose answer nobody waits for."""
        if most:
            on_fork(self)

    def forked(self) -> None:
        """In the child of a fork: it has none of them."""
        self.busy = self.losers = 0
        renew(self.lock)

    def start(self, job: Job, number: int, call: Callable[..., Any], given: Arguments) -> bool:
        """One more copy; False: no thread is free."""
        with self.lock:
            if self.busy >= self.most:
                return False
            self.busy += 1
            job.alive += 1
        try:
            threading.Thread(
                target=job.context.copy().run,
                args=(self._work, job, number, call, given),
                name=f"everup-{self.name}-{number}",
                daemon=True,
            ).start()
        except RuntimeError:  # the system gives no more
            with self.lock:
                self.busy -= 1
                job.alive -= 1
            return False
        return True

    def _work(self, job: Job, number: int, call: Callable[..., Any], given: Arguments) -> None:
        args, kwargs = given
        value: Any = None
        error: BaseException | None = None
        try:
            value = call(*args, **kwargs)
        except BaseException as raised:  # all of it belongs to the caller
            error = raised
        with self.lock:
            # Of a fork's child, where nothing is counted, the thread may be this one.
            self.busy -= self.busy > 0
            if job.over:
                self.losers -= self.losers > 0
            else:
                job.alive -= 1
        try:
            job.ended.put((number, value, error))
        finally:
            del error  # its traceback holds this frame: break the circle

    def leave(self, job: Job) -> None:
        """Nobody waits for the copies that are left."""
        with self.lock:
            job.over = True
            self.losers += job.alive
