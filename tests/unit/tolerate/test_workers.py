"""Threads that are kept for the next call."""

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from everup.tolerate import Hedge, TimedOut, Timeout, _forks
from everup.tolerate._workers import Workers, _Worker

mine: ContextVar[str] = ContextVar("mine", default="unset")


def ran(workers: Workers, then: Callable[[], object] = lambda: None) -> threading.Thread:
    """Where a call ran; it is over."""
    over = threading.Lock()
    over.acquire()
    where: list[threading.Thread] = []

    def work() -> Callable[[], object]:
        where.append(threading.current_thread())
        then()
        return over.release

    workers.run(work)
    assert over.acquire(timeout=30)
    return where[0]


def test_one_that_has_ended_its_call_gets_the_next() -> None:
    workers = Workers("db", idle_s=30.0)
    first = ran(workers)
    assert (first.name, first.daemon) == ("everup-db", True)
    assert all(ran(workers) is first for _ in range(20))
    assert len(workers.idle) == 1
    assert workers.idle[0].work is None


def test_two_at_once_are_two_and_the_latest_is_taken_first() -> None:
    workers = Workers("db", idle_s=30.0)
    inner: list[threading.Thread] = []
    outer = ran(workers, lambda: inner.append(ran(workers)))
    assert inner[0] is not outer
    assert len(workers.idle) == 2
    assert ran(workers) is outer


def test_they_end_when_nobody_needs_them() -> None:
    workers = Workers("db", idle_s=0.0)
    thread = ran(workers)
    thread.join(30)
    assert not thread.is_alive()
    assert workers.idle == []
    assert ran(workers) is not thread


def test_no_more_wait_than_may() -> None:
    workers = Workers("db", idle_s=30.0, most=1)
    inner: list[threading.Thread] = []
    outer = ran(workers, lambda: inner.append(ran(workers)))
    outer.join(30)
    assert not outer.is_alive()
    assert ran(workers) is inner[0]


def test_one_that_is_taken_in_the_moment_in_which_it_would_end_does_its_work() -> None:
    workers = Workers("db", idle_s=30.0)
    done: list[int] = []

    class Gate:
        """The time is over, and somebody has just taken the worker."""

        def __init__(self) -> None:
            self.waits = 0

        def acquire(self, timeout: float | None = None) -> bool:
            self.waits += 1
            if self.waits == 1:
                assert timeout == 30.0
                assert workers.idle.pop() is worker
                return False
            if self.waits == 2:
                assert timeout is None
                worker.work = lambda: lambda: done.append(2)
                return True
            return False

    worker = _Worker(lambda: lambda: done.append(1))
    worker.gate = Gate()  # type: ignore[assignment]
    workers._serve(worker)
    assert done == [1, 2]
    assert workers.idle == []


def test_nothing_of_a_call_is_kept() -> None:
    class Big:
        pass

    class BrokenError(Exception):
        pass

    limit = Timeout(30.0, thread=True)
    given = Big()
    kept: list[weakref.ref[object]] = [weakref.ref(given)]

    def fail(_: object) -> None:
        raise BrokenError("mine")

    gc.disable()  # without its help
    try:
        assert isinstance(limit.call(lambda one: one, given), Big)
        try:
            limit.call(fail, given)
        except BrokenError as error:
            kept.append(weakref.ref(error))
        del given
        limit.call(int)  # the thread is at it, so it is done with what was before
        assert [one() for one in kept] == [None, None]
    finally:
        gc.enable()


def test_variables_of_a_call_do_not_reach_the_next() -> None:
    policy = Timeout(30.0, thread=True)
    seen: list[tuple[str, threading.Thread]] = []

    def look() -> None:
        seen.append((mine.get(), threading.current_thread()))
        mine.set("left behind")

    token = mine.set("caller")
    policy.call(look)
    mine.reset(token)
    policy.call(look)
    assert [value for value, _ in seen] == ["caller", "unset"]
    assert seen[0][1] is seen[1][1]
    assert mine.get() == "unset"


def test_a_hung_one_can_be_used_again_when_it_has_come_back() -> None:
    limit, go, told = Timeout(0.001, thread=True), threading.Event(), threading.Event()
    hung: list[threading.Thread] = []

    def hang() -> None:
        hung.append(threading.current_thread())
        go.wait(30)

    with pytest.raises(TimedOut):
        limit.call(hang)
    limit.subscribe(lambda event: told.set())
    assert limit.hung == 1
    assert limit._workers.idle == []
    go.set()
    assert told.wait(30)
    assert limit.hung == 0
    assert hung[0].daemon


FORKS = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")
from everup.tolerate import Hedge, TimedOut, Timeout

limit, hedge = Timeout(30.0, thread=True, max_hung=1), Hedge(30.0, threads=1)
assert limit.call(int) == hedge.call(int) == 0
hangs = Timeout(0.001, thread=True, max_hung=1)
try:
    hangs.call(threading.Event().wait)
except TimedOut:
    pass
lock = limit._lock
held, go = threading.Event(), threading.Event()
def hold():
    with lock:
        held.set()
        go.wait(30)
threading.Thread(target=hold, daemon=True).start()
held.wait(30)
child = os.fork()
if not child:
    fine = limit.call(int) == hedge.call(int) == hangs.hung == 0 and hedge.busy == 0
    os._exit(0 if fine else 1)
go.set()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or limit.call(int) or hangs.hung - 1)
"""


def test_in_the_child_of_a_fork_there_are_new_ones() -> None:
    subprocess.run([sys.executable, "-c", FORKS], check=True, timeout=60)


def test_what_a_child_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, hedge = Timeout(30.0, thread=True), Hedge(30.0, threads=1)
    ran(limit._workers)
    watching: list[Any] = [limit, limit._workers, hedge._threads]
    assert all(one in _forks._watching for one in watching)
    monkeypatch.setattr(_forks, "_watching", watching)
    lock, idle = limit._lock, limit._workers.idle
    limit.hung = hedge._threads.busy = hedge._threads.losers = 3
    _forks._after_fork()
    assert (limit.hung, hedge.busy, hedge.losers) == (0, 0, 0)
    assert limit._lock is lock
    assert lock.acquire(blocking=False)
    lock.release()
    assert limit._workers.idle == []
    limit._workers.idle = idle  # where the one that waits looks for itself
