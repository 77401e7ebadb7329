"""One policy per key: bounded, and the right ones forgotten."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.tolerate._windows import Consecutive
from everup.tolerate.breaker import Breaker, State
from everup.tolerate.errors import BreakerOpen
from everup.tolerate.keyed import Keyed
from everup.tolerate.testing import FakeClock, Recorder


class DownError(Exception):
    pass


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def of(clock: FakeClock, limit: int = 3) -> Keyed[Breaker]:
    """Breakers that open at the first failure, keyed by the first argument."""
    return Keyed(
        lambda key: Breaker(f"to {key}", trip=Consecutive(1), clock=clock),
        key=lambda host, *args, **kwargs: host,
        limit=limit,
        clock=clock,
    )


def fails(host: str) -> Any:
    raise DownError


def trip(keyed: Keyed[Breaker], *hosts: str) -> None:
    for host in hosts:
        with pytest.raises(DownError):
            keyed.call(fails, host)


@pytest.mark.parametrize("kind", ["decorator", "call", "adecorator", "acall"])
def test_each_key_has_its_own(clock: FakeClock, kind: str) -> None:
    keyed = of(clock)

    def work(host: str, fail: bool = False, *, extra: int = 0) -> int:
        if fail:
            raise DownError
        return extra

    async def awork(host: str, fail: bool = False, *, extra: int = 0) -> int:
        await clock.asleep(0.0)
        return work(host, fail, extra=extra)

    guarded, aguarded = keyed(work), keyed(awork)
    assert inspect.iscoroutinefunction(aguarded)
    assert guarded.__name__ == "work"

    def call(*args: Any, **kwargs: Any) -> int:
        if kind == "decorator":
            return guarded(*args, **kwargs)
        if kind == "call":
            return keyed.call(work, *args, **kwargs)
        if kind == "adecorator":
            return clock.run(aguarded(*args, **kwargs))
        return clock.run(keyed.acall(awork, *args, **kwargs))

    assert call("a", extra=5) == 5
    with pytest.raises(DownError):
        call("a", True)
    with pytest.raises(BreakerOpen, match="to a: open"):
        call("a")
    assert [call("b", extra=number) for number in (1, 2)] == [1, 2]
    states = {key: breaker.state for key, breaker in keyed.policies().items()}
    assert states == {"a": State.OPEN, "b": State.CLOSED}


def test_the_least_recently_used_goes_first(clock: FakeClock) -> None:
    keyed = of(clock)
    kept = {host: keyed.get(host) for host in "abc"}
    keyed.call(str, "a")
    told = Recorder(keyed)
    keyed.call(str, "d")
    assert list(keyed.policies()) == ["c", "a", "d"]
    assert keyed.get("a") is kept["a"]
    assert keyed.get("b") is not kept["b"]
    assert list(keyed.policies()) == ["d", "a", "b"]
    assert [(e.policy, e.kind, e.detail) for e in told.events] == [
        ("keyed", "forgotten", {"key": "b"}),
        ("keyed", "forgotten", {"key": "c"}),
    ]


def test_an_open_one_stays_as_long_as_another_can_go(clock: FakeClock) -> None:
    keyed = of(clock)
    trip(keyed, "a", "b")
    for host in "cdef":
        keyed.call(str, host)
    assert list(keyed.policies()) == ["a", "b", "f"]
    clock.advance(30.0)
    keyed.get("b").admit()  # half-open
    keyed.call(str, "g")
    assert sorted(keyed.policies()) == ["a", "b", "g"]
    keyed.get("g").isolate()
    keyed.call(str, "h")  # all three have something to lose: within the bound, the oldest goes
    assert sorted(keyed.policies()) == ["b", "g", "h"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_one_under_way_goes_after_the_idle_and_before_the_open(
    clock: FakeClock, asynchronous: bool
) -> None:
    keyed = of(clock)
    trip(keyed, "open")
    kept: list[list[Any]] = []

    def inside(host: str) -> None:
        for other in "xyz":
            keyed.call(str, other)
        kept.append(sorted(keyed.policies()))
        trip(keyed, "z")
        keyed.call(str, "new")  # only an open one besides
        kept.append(sorted(keyed.policies()))

    async def ainside(host: str) -> None:
        inside(host)

    if asynchronous:
        clock.run(keyed(ainside)("busy"))
    else:
        keyed(inside)("busy")
    assert kept == [["busy", "open", "z"], ["new", "open", "z"]]
    keyed.call(str, "last")  # nothing is held by the one that is gone
    assert sorted(keyed.policies()) == ["last", "open", "z"]


def test_a_cancelled_call_is_no_longer_under_way(clock: FakeClock) -> None:
    keyed = of(clock, limit=1)

    @keyed
    async def work(host: str) -> None:
        await clock.asleep(60.0)

    async def main() -> None:
        task = asyncio.create_task(work("a"))
        await clock.asleep(1.0)
        assert keyed._entries["a"].busy == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    clock.run(main())
    assert keyed._entries["a"].busy == 0
    assert keyed.get("a").counts().calls == 0


def test_the_guard_of_a_forgotten_one_is_not_used_again(clock: FakeClock) -> None:
    keyed = of(clock, limit=2)
    guarded = keyed(fails)
    with pytest.raises(DownError):
        guarded("a")
    assert keyed.forget("a")
    assert not keyed.forget("a")
    with pytest.raises(DownError):  # starts anew
        guarded("a")
    with pytest.raises(BreakerOpen):
        guarded("a")


def test_guards_do_not_gather(clock: FakeClock) -> None:
    keyed = of(clock, limit=4)

    def work(host: int) -> int:
        return host

    guarded: Any = keyed(work)
    (guards,) = [c.cell_contents for c in guarded.__closure__ if isinstance(c.cell_contents, dict)]
    for host in range(100):
        assert guarded(host) == host
        assert len(guards) <= 4
    assert len(keyed.policies()) == 4


def test_events_of_all_carry_their_key(clock: FakeClock) -> None:
    keyed = of(clock)
    trip(keyed, "before")  # nobody listens: no listener below either
    assert not keyed.get("before")._listeners
    told, second = Recorder(keyed), Recorder(keyed)
    clock.advance(30.0)
    keyed.call(str, "before")
    trip(keyed, "after")
    expected = [
        ("to before", "half_open", "before"),
        ("to before", "closed", "before"),
        ("to after", "opened", "after"),
    ]
    for recorder in (told, second):
        assert [(e.policy, e.kind, e.detail["key"]) for e in recorder.events] == expected
    told.stop()
    trip(keyed, "before")
    assert (len(told.events), len(second.events)) == (3, 4)


def test_a_listener_that_raises_breaks_nothing(clock: FakeClock) -> None:
    keyed = of(clock)
    told = []

    def listen(event: Any) -> None:
        told.append(event.kind)
        raise ValueError

    keyed.subscribe(listen)
    keyed.subscribe(listen)
    trip(keyed, "a")
    assert told == ["opened", "opened"]


@pytest.mark.parametrize("what", ["make", "key"])
def test_what_the_user_gives_may_raise(what: str) -> None:
    def bad(*args: Any) -> Any:
        raise LookupError

    good: Callable[[Any], Any] = Breaker if what == "key" else str
    keyed = Keyed(bad if what == "make" else good, key=bad if what == "key" else good)
    with pytest.raises(LookupError):
        keyed.call(str, "a")
    assert keyed.policies() == {}


def test_an_unhashable_key(clock: FakeClock) -> None:
    with pytest.raises(TypeError):
        of(clock).call(str, [])


def test_limit_out_of_range() -> None:
    with pytest.raises(ValueError, match="limit"):
        Keyed(Breaker, key=str, limit=0)


def test_one_is_made_while_another_thread_makes_it(clock: FakeClock) -> None:
    """``make`` runs without the lock; the first one made is everybody's."""
    meeting = threading.Barrier(8, timeout=60)

    def make(key: str) -> Breaker:
        meeting.wait()
        return Breaker(key, clock=clock)

    keyed = Keyed(make, key=str)
    got: list[Breaker] = []
    threads = [threading.Thread(target=lambda: got.append(keyed.get("a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(breaker) for breaker in got}) == 1
    assert keyed._entries["a"].busy == 0


def test_nested(clock: FakeClock) -> None:
    """By tenant, and in each by host."""
    keyed = Keyed(
        lambda tenant: Keyed(
            lambda host: Breaker(f"{tenant}/{host}", trip=Consecutive(1), clock=clock),
            key=lambda tenant, host: host,
        ),
        key=lambda tenant, host: tenant,
    )

    @keyed
    def work(tenant: str, host: str) -> None:
        raise DownError

    told = Recorder(keyed)
    for tenant, host in [("t", "h"), ("t", "i"), ("u", "h")]:
        with pytest.raises(DownError):
            work(tenant, host)
    with pytest.raises(BreakerOpen, match="t/h"):
        work("t", "h")
    assert told.kinds == ["opened"] * 3 + ["rejected"]


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["use", "trip", "reset"]))))
def test_against_a_list(steps: list[tuple[int, str]]) -> None:
    """The least recently used that is closed goes, else the least recently used."""
    clock = FakeClock()
    keyed: Keyed[Breaker] = Keyed(
        lambda key: Breaker(trip=Consecutive(1), clock=clock), key=int, limit=3
    )
    order: list[tuple[int, bool]] = []  # key, open; the least recently used first
    for key, what in steps:
        is_open = dict(order).get(key, False)
        known = key in dict(order)
        order = [pair for pair in order if pair[0] != key]
        if not known and len(order) == 3:
            order.remove(next((pair for pair in order if not pair[1]), order[0]))
        breaker = keyed.get(key)
        if what == "reset":
            breaker.reset()
            is_open = False
        elif what == "trip" and not is_open:
            breaker.admit().failed()
            is_open = True
        order.append((key, is_open))
        assert [(k, not b.forgettable) for k, b in keyed.policies().items()] == order
