"""The half of ``Timeout`` that runs calls in threads, and leaves those that hang."""

import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, NoReturn, ParamSpec, TypeVar

from everup.tolerate._base import Policy
from everup.tolerate._forks import renew
from everup.tolerate._workers import Workers
from everup.tolerate.deadline import current, within
from everup.tolerate.errors import DeadlineExceeded, Rejected

P = ParamSpec("P")
T = TypeVar("T")


class _Job:
    """One call in a thread of its own."""

    __slots__ = ("abandoned", "done", "error", "over", "result")

    def __init__(self) -> None:
        self.done = threading.Lock()
        self.done.acquire()
        self.over = self.abandoned = False
        self.result: Any = None
        self.error: BaseException | None = None


class Threaded(Policy):
    """A call runs in a thread of its own, and the caller waits only so long."""

    max_hung: int
    hung: int
    """Threads that hang now."""

    def _begin_threads(self, thread: bool) -> None:
        self.hung = 0
        if thread:
            self._workers = Workers(self.name)
        # Re-entrant: garbage collection may run any __del__ in the middle of what it guards.
        self._lock = threading.RLock()

    def _limit_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
        """Seconds that one call may take; None: as long as it likes."""
        raise NotImplementedError

    def _timed_out(
        self, error: BaseException | None, call: object, limit_s: float | None
    ) -> NoReturn:
        """Raise that it took too long."""
        raise NotImplementedError

    def _tell_late(self, error: BaseException | None, call: object) -> None:
        """What nobody waits for any more has come."""
        raise NotImplementedError

    def _in_thread(self, call: Callable[P, T]) -> Callable[P, T]:
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            limit_s = self._limit_of(args, kwargs)
            if limit_s is None:
                return call(*args, **kwargs)
            hung = self.hung
            if hung >= self.max_hung:
                self._tell("rejected", call, hung=hung)
                raise Rejected(self.name, f"{hung} threads hang")
            now, outer = self.clock.now, current.get()
            began = now()
            at = within(began + limit_s, now, outer)
            context = copy_context()
            context.run(current.set, (at, now, outer, self))
            job = _Job()
            self._workers.run(partial(self._work, job, context, call, args, kwargs))
            try:
                job.done.acquire(timeout=min(max(0.0, at - began), threading.TIMEOUT_MAX))
            finally:
                # Also where the wait was interrupted: nobody will fetch the result.
                abandoned = self._abandon(job)
            if abandoned:
                if at < began + limit_s:
                    raise DeadlineExceeded(f"{self.name}: the deadline around it is over")
                self._timed_out(None, call, limit_s)
            error, job.error = job.error, None
            if error is None:
                return job.result  # type: ignore[no-any-return]
            try:
                if isinstance(error, DeadlineExceeded) and at == began + limit_s <= now():
                    self._timed_out(error, call, limit_s)
                raise error
            finally:
                del error, job  # the traceback holds this frame: break the circle

        return guarded

    def _abandon(self, job: _Job) -> bool:
        """Nobody waits for it any longer. False: it is over, its result can be taken."""
        with self._lock:
            if job.over:
                return False
            job.abandoned = True
            self.hung += 1
            return True

    def _work(
        self,
        job: _Job,
        context: Context,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Callable[[], object]:
        """In the thread: returns what wakes the caller."""
        try:
            job.result = context.run(call, *args, **kwargs)
        except BaseException as error:  # all of it belongs to the caller
            job.error = error
        with self._lock:
            job.over = True
            if job.abandoned:
                self.hung -= self.hung > 0  # a fork's child counts none
        if job.abandoned:
            late, job.error = job.error, None
            self._tell_late(late, call)
        return job.done.release

    def forked(self) -> None:
        """In the child of a fork: what hangs does so in the parent alone."""
        self.hung = 0
        renew(self._lock)
