"""A pipeline is compiled once for a method too, whatever object it is of; and the rate limit counts
exactly without a lock."""

import asyncio
import gc
import sys
import threading
import weakref
from typing import Any

import pytest

from everup.tolerate import Bulkhead, Fallback, Keyed, Pipeline, RateLimit, Rejected, Retry, Timeout


class Counting(Retry):
    """Says how often it is compiled."""

    made = 0

    def around(self, call: Any) -> Any:
        self.made += 1
        return super().around(call)

    def around_async(self, call: Any) -> Any:
        self.made += 1
        return super().around_async(call)


Counting.__module__ = Retry.__module__


class Client:
    def __init__(self, name: str) -> None:
        self.name = name

    def get(self, key: str, *, more: str = "") -> str:
        return self.name + key + more

    async def aget(self, key: str, *, more: str = "") -> str:
        return self.name + key + more


def test_methods_are_compiled_once_for_all_objects() -> None:
    counting = Counting()
    guard = Pipeline(counting, Timeout(5.0))

    async def main() -> list[str]:
        return [await guard.acall(Client(str(n)).aget, "k", more="!") for n in range(5)]

    assert [guard.call(Client(str(n)).get, "k", more="!") for n in range(5)] == [
        f"{n}k!" for n in range(5)
    ]
    assert asyncio.run(main()) == [f"{n}k!" for n in range(5)]
    assert counting.made == 2


def test_an_object_is_not_kept_alive() -> None:
    guard = Pipeline(Retry(), Bulkhead(2))
    client = Client("a")
    gone = weakref.ref(client)
    guard.call(client.get, "k")
    del client
    gc.collect()
    assert gone() is None


def test_a_function_that_is_gone_leaves_nothing_behind() -> None:
    guard = Pipeline(Retry())
    for n in range(2000):
        assert guard.call(lambda n=n: n) == n
    assert len(guard._calls) <= 1


def test_members_that_look_at_arguments_do_not_see_the_object() -> None:
    seen: list[Any] = []

    def key(*args: Any) -> str:
        seen.append(args)
        return "x"

    client = Client("a")
    assert Pipeline(Keyed(lambda _: Retry(), key=key)).call(client.get, "k") == "ak"
    assert Pipeline(Fallback(last_good_s=5, key=key)).call(client.get, "k") == "ak"
    function = Pipeline(
        Fallback(function=lambda error, *args: seen.append(args)), Retry(attempts=1)
    )
    function.call(Client.get, 1, "k")  # fails: 1 has no name
    assert seen == [("k",), ("k",), (1, "k")]


def test_last_good_values_of_two_objects_are_not_mixed() -> None:
    guard = Pipeline(Fallback(last_good_s=60, on=Exception), Retry(attempts=1))
    one, other = Client("1"), Client("2")
    assert (guard.call(one.get, "k"), guard.call(other.get, "k")) == ("1k", "2k")
    del one.name, other.name
    assert (guard.call(one.get, "k"), guard.call(other.get, "k")) == ("1k", "2k")


def test_a_method_of_the_wrong_kind_is_told() -> None:
    with pytest.raises(TypeError, match=r"Client\.aget is asynchronous: use acall"):
        Pipeline(Retry()).call(Client("a").aget, "k")  # type: ignore[unused-coroutine]


@pytest.mark.parametrize("kind", ["token", "window"])
def test_threads_with_loops_of_their_own_get_exactly_so_many(kind: Any) -> None:
    limit = RateLimit(4000, 3600.0, kind=kind)
    admitted = [0] * 4

    async def one() -> None:
        pass

    guarded = limit(one)

    async def run(thread: int) -> None:
        for _ in range(2000):
            try:
                await guarded()
            except Rejected:
                continue
            admitted[thread] += 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda n=n: asyncio.run(run(n))) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert 4000 <= sum(admitted) <= 4003  # a place may come by itself, one each 0.9 s
