"""A fork while other threads are inside the policies: the child can use every one of them, at once,
and what the others held there is free."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from everup.tolerate import (
    Breaker,
    BreakerOpen,
    Bulkhead,
    BulkheadFull,
    Chaos,
    Consecutive,
    CountWindow,
    Deadline,
    Fallback,
    Hedge,
    Keyed,
    Limit,
    LimitReached,
    Meter,
    Pipeline,
    Policy,
    RateLimit,
    Retry,
    RetryBudget,
    Shed,
    State,
    Timeout,
    TimeWindow,
    Vote,
)
from everup.tolerate.limit import AIMD

FORKS = int(os.environ.get("EVERUP_FORKS", "25"))
HUNG_S = 20
CHILDREN_HANG = 14


def fail() -> None:
    raise ValueError


def double(x: int) -> int:
    return 2 * x


def in_child(what: Callable[[], object]) -> None:
    """Fork, run it in the child, and say how that ended: it must come back, and raise nothing."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(HUNG_S)
            what()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, ended = os.waitpid(pid, 0)
    assert not os.WIFSIGNALED(ended), "the child hangs"
    assert os.waitstatus_to_exitcode(ended) == 0, "the child raised: see its traceback"


@contextlib.contextmanager
def threads_inside(use: Callable[[], object], count: int = 3) -> Iterator[None]:
    """Threads that do nothing else, and change places often enough to be inside at a fork."""
    over = False

    def go_on() -> None:
        while not over:
            with contextlib.suppress(Exception):
                use()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=go_on, daemon=True) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        over = True
        sys.setswitchinterval(before)
        for thread in threads:
            thread.join(60)


def sync(policy: Policy) -> Callable[[], object]:
    guarded = policy(double)
    return lambda: guarded(1)


def failing(policy: Policy) -> Callable[[], object]:
    guarded = policy(fail)

    def use() -> None:
        with contextlib.suppress(Exception):
            guarded()

    return use


def block(policy: Any) -> Callable[[], object]:
    def use() -> None:
        with contextlib.suppress(Exception), policy:
            pass

    return use


def awaited(policy: Policy) -> Callable[[], object]:
    async def adouble(x: int) -> int:
        return 2 * x

    guarded = policy(adouble)
    return lambda: asyncio.run(guarded(1))  # type: ignore[arg-type]


def budget_use() -> Callable[[], object]:
    budget = RetryBudget()

    def use() -> None:
        budget.deposit()
        budget.withdraw()
        _ = budget.left

    return use


def permit_use() -> Callable[[], object]:
    limit = Limit(window_s=0, samples=1)

    def use() -> None:
        with limit.permit():
            pass

    return use


POLICIES: dict[str, Callable[[], Callable[[], object]]] = {
    "Retry": lambda: failing(Retry(attempts=2, backoff=0, budget=RetryBudget())),
    "RetryBudget": budget_use,
    "Breaker": lambda: sync(Breaker()),
    "Breaker that opens": lambda: failing(Breaker(trip=Consecutive(2), open_s=1e-6)),
    "Breaker of calls": lambda: failing(Breaker(trip=CountWindow(20))),
    "Breaker of time": lambda: failing(Breaker(trip=TimeWindow(0.001))),
    "Breaker as a block": lambda: block(Breaker()),
    "Bulkhead": lambda: sync(Bulkhead(50)),
    "Bulkhead with a queue": lambda: sync(Bulkhead(1, queue=10, wait_s=5.0)),
    "Bulkhead as a block": lambda: block(Bulkhead(1, queue=10, wait_s=5.0)),
    "Bulkhead, async": lambda: awaited(Bulkhead(50)),
    "RateLimit": lambda: sync(RateLimit(1e9)),
    "RateLimit of a window": lambda: sync(RateLimit(1_000_000, 1e-6, kind="window")),
    "RateLimit, async": lambda: awaited(RateLimit(1e9)),
    "Limit": lambda: sync(Limit(window_s=0, samples=1)),
    "Limit as a block": permit_use,
    "Keyed": lambda: sync(Keyed(lambda _: Breaker(), key=lambda x: threading.get_ident() % 7)),
    "Keyed that forgets": lambda: sync(Keyed(lambda _: Breaker(), key=lambda x: object(), limit=2)),
    "Shed by wait": lambda: sync(Shed(waited=lambda _: 0.0, interval_s=1e-6)),
    "Shed by throttle": lambda: sync(Shed("throttle", window_s=1e-3)),
    "Fallback": lambda: sync(Fallback(last_good_s=5.0)),
    "Chaos": lambda: sync(Chaos(enabled=True, latency_rate=1.0, latency_s=1e-9, limit=10**9)),
    "Hedge": lambda: sync(Hedge(0.5, threads=8)),
    "Hedge, async": lambda: awaited(Hedge(0.5, percentile=0.9, window=10)),
    "Vote": lambda: sync(Vote(double, threads=8)),
    "Timeout": lambda: sync(Timeout(5.0)),
    "Timeout in a thread": lambda: sync(Timeout(5.0, thread=True)),
    "Deadline": lambda: sync(Deadline(5.0)),
    "Meter": lambda: sync(Meter()),
    "Pipeline": lambda: sync(
        Pipeline(Fallback(1), Retry(budget=RetryBudget()), Breaker(), Bulkhead(50), Timeout(5.0))
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_no_fork_hangs_whatever_other_threads_are_inside_of(name: str) -> None:
    use = POLICIES[name]()
    with threads_inside(use):
        for _ in range(FORKS):
            in_child(use)
    use()


def test_a_lock_that_another_thread_holds_at_the_fork_is_free_in_the_child() -> None:
    """Of every policy and part that has one, deterministically."""
    budget = RetryBudget()
    bulkhead, hedge = Bulkhead(1), Hedge(1, threads=2)
    guards: list[tuple[Any, Callable[[], object]]] = [
        (budget._lock, budget.withdraw),
        (bulkhead._places._lock, lambda: bulkhead.call(double, 1)),
        (hedge._lock, lambda: hedge._learn(1.0)),
        (hedge._threads.lock, lambda: hedge.call(double, 1)),
    ]
    made: list[tuple[Any, Callable[[], object]]] = [
        (policy, failing(policy))
        for policy in (
            Breaker(trip=CountWindow(20)), RateLimit(1e9), Limit(),
            Keyed(lambda _: Breaker(), key=str),
            Shed("throttle"), Fallback(last_good_s=1.0), Timeout(1.0, thread=True),
            Chaos(enabled=True, latency_rate=1, latency_s=1e-9),
        )
    ]  # fmt: skip
    guards += [(policy._lock, use) for policy, use in made]
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            for lock, _ in guards:
                stack.enter_context(lock)
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(60)
        in_child(lambda: [use() for _, use in guards])
    finally:
        done.set()
        thread.join()


def test_a_lock_that_the_forking_thread_holds_stays_its_own() -> None:
    budget = RetryBudget()

    def child() -> None:
        assert budget._lock._is_owned()
        budget._lock.release()
        assert budget.withdraw()

    with budget._lock:
        in_child(child)


@contextlib.contextmanager
def another_thread_inside(use: Callable[[Callable[[], None]], object]) -> Iterator[None]:
    """``use`` in a thread of its own: what it is given waits until the end."""
    inside, done = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        done.wait(60)

    thread = threading.Thread(target=use, args=(wait,))
    thread.start()
    try:
        assert inside.wait(60)
        yield
    finally:
        done.set()
        thread.join()


def holds(bulkhead: Bulkhead, wait: Callable[[], None]) -> None:
    with bulkhead:
        wait()


@pytest.mark.parametrize("how", [lambda b, wait: b.call(wait), holds])
def test_a_place_that_another_thread_holds_is_free_in_the_child(how: Any) -> None:
    bulkhead = Bulkhead(1)

    def child() -> None:
        assert bulkhead.in_use == 0
        assert bulkhead.call(double, 2) == 4
        with bulkhead, pytest.raises(BulkheadFull):
            bulkhead.call(double, 2)
        assert bulkhead.in_use == 0

    with another_thread_inside(lambda wait: how(bulkhead, wait)):
        in_child(child)
        with pytest.raises(BulkheadFull):
            bulkhead.call(double, 2)
    assert bulkhead.call(double, 2) == 4


def test_the_places_of_the_thread_that_forks_stay_taken() -> None:
    bulkhead = Bulkhead(3)

    def child() -> None:
        assert bulkhead.in_use == 2
        with bulkhead, pytest.raises(BulkheadFull):
            bulkhead.call(double, 1)

    def forks() -> int:
        pid = os.fork()
        if not pid:
            child()
        return pid

    with another_thread_inside(bulkhead.call):
        with bulkhead:
            pid = bulkhead.call(forks)
        if not pid:  # the child comes back through both
            os._exit(0 if bulkhead.in_use == 0 and len(bulkhead._places.free) == 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert bulkhead.in_use == 0


def test_a_place_of_a_task_is_counted_where_that_task_forks() -> None:
    bulkhead = Bulkhead(3)

    async def forks() -> None:
        in_child(lambda: _is(bulkhead.in_use, 2))

    async def main() -> None:
        async with bulkhead:
            await bulkhead.acall(forks)

    asyncio.run(main())
    assert bulkhead.in_use == 0


def _is(one: object, other: object) -> None:
    assert one == other, f"{one!r} is not {other!r}"


def test_who_waits_in_the_thread_that_forks_is_refused_and_not_left_waiting() -> None:
    """A signal handler may fork while its thread waits for a place."""
    bulkhead = Bulkhead(1, queue=1)
    pids: list[int] = []
    bulkhead.subscribe(lambda event: pids.append(os.fork()) if event.kind == "queued" else None)
    done = threading.Event()

    def wait() -> None:
        try:
            bulkhead.call(double, 1)
        except BulkheadFull:
            if not pids[0]:
                os._exit(CHILDREN_HANG)
        finally:
            if not pids[0]:
                os._exit(1)

    with another_thread_inside(bulkhead.call):
        thread = threading.Thread(target=lambda: (wait(), done.set()))
        thread.start()
        while not pids:
            done.wait(0.01)
        assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == CHILDREN_HANG
    thread.join()


def test_the_calls_of_another_thread_are_not_under_way_in_the_child() -> None:
    limit = Limit(AIMD(initial=2, min=1, max=2))

    def permitted(wait: Callable[[], None]) -> None:
        with limit.permit():
            wait()

    def child() -> None:
        assert limit.under_way == 0
        with limit.permit():
            in_child(lambda: _is(limit.under_way, 1))
            assert limit.call(lambda: limit.under_way) == 2
            with limit.permit(), pytest.raises(LimitReached):
                limit.call(double, 1)
        limit.call(lambda: in_child(lambda: _is(limit.under_way, 1)))
        assert limit.under_way == 0

    with another_thread_inside(limit.call), another_thread_inside(permitted):
        with pytest.raises(LimitReached):
            limit.call(double, 1)
        in_child(child)
    assert limit.under_way == 0


def test_a_probe_of_another_thread_does_not_keep_its_slot_in_the_child() -> None:
    breaker = Breaker(trip=Consecutive(1), open_s=1e-3)
    failing(breaker)()
    while breaker.state is State.OPEN:
        with contextlib.suppress(BreakerOpen), breaker.admit() as permit:
            permit.neutral()
    breaker = Breaker(trip=Consecutive(1), open_s=3600.0)
    failing(breaker)()
    breaker._phase.until = 0.0

    def child() -> None:
        assert breaker.call(double, 1) == 2
        assert breaker.state is State.CLOSED

    with another_thread_inside(breaker.call):
        with pytest.raises(BreakerOpen):
            breaker.call(double, 1)
        in_child(child)


def test_keys_that_only_other_threads_were_using_may_be_forgotten_in_the_child() -> None:
    keyed = Keyed(lambda _: Bulkhead(1), key=lambda *_: "a", limit=1)
    by_arg = Keyed(lambda _: Breaker(), key=lambda *_: "b", limit=1)

    def child() -> None:
        assert keyed._entries["a"].busy == 0
        assert keyed.call(double, 1) == 2
        by_arg.call(lambda: in_child(lambda: _is(by_arg._entries["b"].busy, 1)))
        assert by_arg._entries["b"].busy == 0

    with another_thread_inside(keyed.call):
        in_child(child)
    assert keyed._entries["a"].busy == 0


def test_a_thread_of_a_policy_may_fork_itself() -> None:
    """Its child has that thread alone, which comes back into code that counts threads."""
    hedge, timeout = Hedge(10, threads=2), Timeout(30.0, thread=True)

    def forks() -> int:
        pid = os.fork()
        if not pid:
            signal.alarm(HUNG_S)
        return pid

    for policy in (hedge, timeout):
        pid = policy.call(forks)
        # The child ends with its only thread: status 0, or it hangs.
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert hedge.busy == 0
    assert timeout.hung == 0


def test_the_child_of_a_fork_counts_its_retries_anew_only_where_it_must() -> None:
    budget = RetryBudget(ratio=0.0, floor_per_s=1.0, window_s=10.0)
    assert budget.withdraw()
    left = budget.left
    in_child(lambda: _is(round(budget.left, 6), round(left, 6)))


def test_the_library_works_where_nothing_can_fork() -> None:
    """``os.register_at_fork`` is missing on some platforms."""
    code = (
        "import os; del os.register_at_fork, os.fork\n"
        "from everup.tolerate import *\n"
        "import everup.tolerate.sinks.everup, everup.tolerate as t\n"
        "guard = Pipeline(Retry(), Breaker(), Bulkhead(2), Timeout(1.0, thread=True))\n"
        "assert guard.call(len, 'abc') == 3\n"
        "import asyncio\n"
        "async def f(): return 3\n"
        "assert asyncio.run(Pipeline(Retry(), Timeout(1.0)).acall(f)) == 3\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
