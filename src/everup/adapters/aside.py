"""Calls that may wait for a disk or a directory service, each in a thread of its own.

A thread that waits for a disk that is gone (a frozen volume, a dead mount) cannot be ended, so
nobody joins these: they are no pool that others need, and the process may leave without them.
"""

import _thread
import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_MOST = 32
_waiting = threading.BoundedSemaphore(_MOST)


class LateError(OSError):
    """It has not answered in time; it may still do what it was asked."""


def call(timeout_s: float, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """What ``work`` returns or raises, or ``LateError``. For callers that have nothing else to
    do; not for the engine's loop."""
    done: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def answer(result: T | None, error: BaseException | None) -> None:
        done.put((result, error))

    _start(answer, lambda: work(*args, **options))
    try:
        result, error = done.get(timeout=timeout_s)
    except queue.Empty:
        raise _late(timeout_s) from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


async def run(
    timeout_s: float | None, work: Callable[P, T], *args: P.args, **options: P.kwargs
) -> T:
    """The same, for the loop; None: it may take as long as it takes."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def answer(result: Any, error: BaseException | None) -> None:
        def put() -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(put)

    _start(answer, lambda: work(*args, **options))
    try:
        return await asyncio.wait_for(future, timeout_s)
    except TimeoutError:
        if not future.cancelled():
            raise
        raise _late(timeout_s or 0.0) from None


def _late(timeout_s: float) -> LateError:
    return LateError(f"no answer within {timeout_s:g} s (a disk or a mount that is gone?)")


def _start(answer: Callable[[Any, BaseException | None], None], work: Callable[[], Any]) -> None:
    if not _waiting.acquire(blocking=False):
        raise LateError(f"{_MOST} calls wait for a disk that does not answer")

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            _waiting.release()
            answer(None, error)
        else:
            _waiting.release()
            answer(result, None)

    try:
        # Not threading.Thread: its start waits for the thread to say that it runs, and for ever
        # where that has no memory for it (CPython 3.11 to 3.13).
        _thread.start_new_thread(run, ())
    except RuntimeError as error:  # no more threads
        _waiting.release()
        raise OSError(str(error)) from error


class Shelf:
    """One thread that changes files, one change after the other, for callers that do not wait."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._todo: queue.Queue[Callable[[], None]] = queue.Queue(_MOST)
        self._thread: threading.Thread | None = None

    def put(self, change: Callable[[], None]) -> None:
        """Do it after all that was put before; what goes wrong is said. Raises ``LateError`` where
        too many wait."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shelf", daemon=True)
            self._thread.start()
        try:
            self._todo.put_nowait(change)
        except queue.Full:
            raise LateError(f"{_MOST} changes wait for a disk that does not answer") from None

    def _run(self) -> None:
        while True:
            change = self._todo.get()
            try:
                change()
            except (OSError, MemoryError) as error:
                self._say(str(error))

    async def done(self, change: Callable[[], None], timeout_s: float) -> None:
        """The same, waiting for it. ``OSError``; ``LateError`` is one, and then it is still done
        some time."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def put(error: BaseException | None) -> None:
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

        def told() -> None:
            problem: BaseException | None = None
            try:
                change()
            except (OSError, MemoryError) as error:
                problem = error
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(put, problem)

        self.put(told)
        try:
            await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            raise _late(timeout_s) from None
