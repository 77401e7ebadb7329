"""A small program over the typed surface of ``everup.tolerate``. Read by type checkers, not run."""

from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, assert_type

from everup import tolerate
from everup.tolerate import (
    Breaker,
    BreakerOpen,
    Bulkhead,
    Chaos,
    CountWindow,
    Deadline,
    Event,
    Fallback,
    Gradient2,
    Hedge,
    Keyed,
    Limit,
    Meter,
    Pipeline,
    Policy,
    Problem,
    RateLimit,
    Rejected,
    Retry,
    RetryBudget,
    Shed,
    Snapshot,
    State,
    TableError,
    Timeout,
    Vote,
    backoff,
    carry,
    pipelines,
    remaining,
)
from everup.tolerate.testing import FakeClock, Recorder

budget = RetryBudget(ratio=0.1)
retry = Retry(attempts=4, backoff=backoff.equal(0.05), on=(OSError, TimeoutError), budget=budget)
breaker = Breaker("db", trip=CountWindow(50, slow_s=1.0), open_s=5.0)
guard = Pipeline(Fallback([]), retry, breaker, Timeout(1.0), name="db")
ALL: list[Policy] = [
    retry, breaker, guard, Bulkhead(5), Deadline(2.0), Limit(Gradient2()), RateLimit(10.0), Shed(),
    Hedge(0.05), Vote(), Chaos(), Meter(),
]  # fmt: skip


@guard
def rows(table: str, *, most: int = 10) -> list[str]:
    return [table] * most


@guard
async def arows(table: str, *, most: int = 10) -> list[str]:
    return [table] * most


@retry
@breaker
def stacked(count: int) -> str:
    return "x" * count


class Client:
    @guard
    def get(self, key: str) -> bytes:
        return key.encode()

    @guard
    async def aget(self, key: str) -> bytes:
        return key.encode()


U = TypeVar("U")


@retry
def same(value: U) -> U:
    return value


@Pipeline(Retry(), Breaker())
def first(values: list[U], default: U) -> U:
    return values[0] if values else default


@Timeout(timedelta(seconds=2))
async def asame(value: U) -> U:
    return value


async def generic() -> None:
    """A generic function stays one, synchronous or not."""
    assert_type(same(3), int)
    assert_type(same("a"), str)
    assert_type(first(["a"], "b"), str)
    assert_type(await asame(3), int)
    assert_type(breaker(same)(2.5), float)
    assert_type(retry.call(same, "a"), str)
    assert_type(retry(len)([1]), int)


def later(seconds: float) -> Awaitable[int]:
    raise NotImplementedError(seconds)


async def use() -> None:
    assert_type(rows("users", most=3), list[str])
    coroutine: Coroutine[Any, Any, list[str]] = arows("users")
    assert_type(await coroutine, list[str])
    assert_type(await arows("users", most=3), list[str])
    assert_type(stacked(3), str)
    assert_type(Client().get("a"), bytes)
    assert_type(await Client().aget("a"), bytes)
    assert_type(guard.call(len, "abc"), int)
    assert_type(await guard.acall(later, 0.5), int)
    for policy in ALL:
        assert_type(policy.call(stacked, count=3), str)
        assert_type(await policy.acall(Client().aget, "a"), bytes)
    assert_type(guard.policies, tuple[Policy, ...])
    assert_type(carry(stacked)(2), str)
    assert_type(remaining(), float | None)


def by_host() -> None:
    def make(host: str) -> Breaker:
        return Breaker(host)

    def host_of(url: str) -> str:
        return url

    keyed = Keyed(make, key=host_of)
    assert_type(keyed.get("a").state, State)
    assert_type(keyed(stacked)(1), str)
    many = Keyed(lambda host: Pipeline(Retry(), Breaker(str(host))), key=host_of)
    assert_type(many.get("a"), Pipeline)


def from_file() -> dict[str, Pipeline]:
    try:
        return pipelines(Path("tolerate.toml"))
    except TableError as error:
        assert_type(error.problems, list[Problem])
        return tolerate.pipelines("", clock=FakeClock())


def watch() -> Callable[[], None]:
    def tell(event: Event) -> None:
        print(event.policy, event.kind, event.at, event.detail)

    seen = Recorder(guard)
    assert_type(seen.kinds, list[str])
    assert_type(Meter().snapshot(), Snapshot)
    try:
        with breaker, Bulkhead(3), Deadline(1.0):
            pass
    except BreakerOpen as error:
        assert_type(error.retry_after_s, float | None)
    except Rejected as error:
        assert_type(error.policy, str)
    return guard.subscribe(tell)
