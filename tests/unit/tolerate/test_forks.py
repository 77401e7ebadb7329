"""What policies do in the child of a fork, here in the process itself: see tests/issues for real
children."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from everup.tolerate import (
    Breaker,
    Bulkhead,
    BulkheadFull,
    Chaos,
    Consecutive,
    Fallback,
    Hedge,
    Keyed,
    Limit,
    Policy,
    RateLimit,
    RetryBudget,
    Shed,
    State,
    Timeout,
    TimeWindow,
    Vote,
)
from everup.tolerate import _forks as forks
from everup.tolerate._queue import LATE, Waiter
from everup.tolerate.testing import FakeClock


def held_elsewhere(lock: Any, what: Callable[[], object]) -> None:
    """Call it while a thread that is gone for ever holds the lock."""
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
    what()


def threads_of(policy: Any) -> Any:
    return policy._threads


@pytest.mark.parametrize(
    "made",
    [
        Breaker(), Limit(), RateLimit(1), Shed("throttle"), Fallback(1), Chaos(), Hedge(1),
        Timeout(1), Keyed(lambda _: Breaker(), key=str), RetryBudget(),
        threads_of(Vote(len, threads=1)), Bulkhead(1)._places,
    ],
)  # fmt: skip
def test_a_lock_is_free_again(made: Any) -> None:
    lock = made.lock if hasattr(made, "lock") else made._lock
    call = (lambda: made.forked(0)) if hasattr(made, "free") else made.forked
    held_elsewhere(lock, call)
    assert lock.acquire(blocking=False)
    lock.release()
    call()  # and nothing is wrong with one that was free


def test_what_another_thread_was_adding_up_begins_anew() -> None:
    budget = RetryBudget(0.0, 1.0, 10.0)
    assert budget.withdraw()
    budget.forked()
    assert budget.left == 9.0
    held_elsewhere(budget._lock, budget.forked)
    assert budget.left == 10.0

    shed = Shed("throttle", least=0, on=ValueError, clock=FakeClock(random=[0.99]))
    for _ in range(3):
        with pytest.raises(ValueError, match="x"):
            shed.call(fail)
    assert shed.chance > 0
    shed.forked()
    assert shed.chance > 0
    held_elsewhere(shed._lock, shed.forked)
    assert shed.chance == 0

    breaker = Breaker(trip=TimeWindow())
    breaker.call(len, "a")
    breaker.forked()
    assert breaker.counts().calls == 1
    held_elsewhere(breaker._lock, breaker.forked)
    assert breaker.counts().calls == 0
    assert breaker.generation == 0


def fail() -> None:
    raise ValueError("x")


def test_an_open_breaker_stays_open_and_its_probes_are_free() -> None:
    clock = FakeClock()
    breaker = Breaker(trip=Consecutive(1), open_s=5, clock=clock)
    with pytest.raises(ValueError, match="x"):
        breaker.call(fail)
    held_elsewhere(breaker._lock, breaker.forked)
    assert breaker.state is State.OPEN
    clock.advance(6)
    breaker.admit()
    assert len(breaker._phase.under_way) == 1
    breaker.forked()
    assert len(breaker._phase.under_way) == 0


@pytest.mark.parametrize("limited", [Bulkhead(4), Limit()])
def test_calls_and_blocks_of_this_thread_are_counted(limited: Policy) -> None:
    def under_way() -> int:
        return limited.in_use if isinstance(limited, Bulkhead) else limited.under_way  # type: ignore[attr-defined, no-any-return]

    def block() -> Any:
        return limited if isinstance(limited, Bulkhead) else limited.permit()  # type: ignore[attr-defined]

    def inside() -> None:
        limited.forked()  # type: ignore[attr-defined]
        assert under_way() == 3
        with block():
            limited.forked()  # type: ignore[attr-defined]
            assert under_way() == 4

    with block():
        limited.call(limited.call, inside)
    assert under_way() == 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_call_that_had_to_wait_for_its_place_is_counted(asynchronous: bool) -> None:
    clock = FakeClock()
    bulkhead = Bulkhead(1, queue=1, wait_s=60.0, clock=clock)

    def leave(event: Any) -> None:
        bulkhead._places.give_back()

    def inside() -> int:
        bulkhead.forked()
        return bulkhead.in_use

    async def ainside() -> int:
        return inside()

    assert bulkhead._take()
    bulkhead.subscribe(leave)
    guarded = clock.run(bulkhead.acall(ainside)) if asynchronous else bulkhead.call(inside)
    assert guarded == 1
    assert bulkhead.in_use == 0


def test_who_waits_is_refused() -> None:
    bulkhead = Bulkhead(1, queue=2)
    bulkhead.subscribe(lambda event: bulkhead.forked() if event.kind == "queued" else None)
    with bulkhead, pytest.raises(BulkheadFull):
        bulkhead.call(len, "a")
    places = bulkhead._places
    waiter = Waiter(None, None, None)
    assert places.free.pop() is None
    assert places.join(waiter)
    places.forked(1)
    assert waiter.state == LATE
    assert not places.waiting


def test_a_block_that_began_in_another_context_is_not_known() -> None:
    one, other = object(), object()
    forks.enter(one)
    forks.enter(other)
    assert forks.blocks_inside(one) == 1
    forks.leave(object())
    forks.leave(one)
    assert forks.blocks_inside(one) == 0
    assert forks.blocks_inside(other) == 1
    forks.leave(other)


def test_a_lock_of_ones_own_is_kept() -> None:
    lock = threading.RLock()
    with lock:
        assert not forks.renew(lock)
        assert lock._is_owned()  # type: ignore[attr-defined]


def test_the_keys_that_this_thread_uses_are_busy() -> None:
    keyed = Keyed(lambda _: Breaker(), key=str)

    def inside(_key: str) -> None:
        keyed._entries["a"].busy = 7
        keyed.forked()
        assert keyed._entries["a"].busy == 1
        keyed._entries["a"].busy = 0

    keyed.call(inside, "a")
    assert keyed._entries["a"].busy == 0

    def key() -> str:
        early.forked()  # before there is anything for the key
        return "b"

    early = Keyed(lambda _: Breaker(), key=key)
    assert early.call(lambda: 3) == 3


def test_a_policy_whose_closures_are_no_functions_may_be_looked_at() -> None:
    class Plain(Policy):
        def around(self, call: Any) -> Any:
            return len

        def around_async(self, call: Any) -> Any:
            return len

    assert forks.frames_inside(Plain("plain"), "self", 1) == []


def test_every_policy_hears_of_a_fork() -> None:
    heard = []

    class One:
        def forked(self) -> None:
            heard.append(self)

    one = One()
    forks.on_fork(one)
    forks._after_fork()
    assert heard == [one]


def test_where_nothing_can_fork_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.register_at_fork")
    forks.register(pytest.fail)
