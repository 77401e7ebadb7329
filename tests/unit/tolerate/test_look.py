"""What meters and sinks see of policies and budgets."""

from typing import Any

from everup.tolerate import Breaker, Bulkhead, Keyed, Limit, Pipeline, Policy, Retry, RetryBudget
from everup.tolerate._look import MOST_KEYS, look, states, worst_state
from everup.tolerate._windows import State
from everup.tolerate.testing import FakeClock


def named(source: Any) -> list[str]:
    return [seen.policy for seen in look(source)]


def test_policies_and_budgets() -> None:
    clock = FakeClock()
    assert look(Limit(clock=clock)) == [("limit", None, {"under_way": 0, "limit": 20})]
    assert look(RetryBudget(clock=clock)) == [("budget", None, {"left": 100.0})]
    assert look(Breaker(clock=clock)) == [("breaker", "closed", {})]
    assert look(Retry(clock=clock)) == [("retry", None, {})]


def test_a_state_that_is_none_of_a_breaker_is_not_shown() -> None:
    class Own(Policy):
        state = "well"

    assert look(Own("own")) == [("own", None, {})]
    assert list(states([Own("own")])) == []


def test_of_a_pipeline_the_members_that_have_something_to_show() -> None:
    twice = Bulkhead(3)
    guard = Pipeline(Retry(), Breaker("b"), twice, twice, Bulkhead(5))
    assert look(guard) == [
        ("b", "closed", {}),
        ("bulkhead", None, {"in_use": 0, "waiting": 0, "limit": 3}),  # of one name, the outermost
    ]


def test_of_keys_the_worst_first() -> None:
    clock = FakeClock()
    breakers = Keyed(lambda key: Breaker(trip=None, clock=clock), key=str, name="hosts")
    assert look(breakers) == []
    for key in range(200):
        breakers.get(key)
    breakers.get(7).isolate()
    breakers.get(5).isolate()
    breakers.get(5).reset()
    breakers.get(9)
    seen = look(breakers)
    assert len(seen) == MOST_KEYS == 64
    assert [(one.policy, one.state) for one in seen[:4]] == [
        ("hosts[7]", "isolated"),
        ("hosts[9]", "closed"),  # of equals the one used last
        ("hosts[5]", "closed"),
        ("hosts[199]", "closed"),
    ]


def test_of_keys_without_a_state_the_fullest_first() -> None:
    places = Keyed(lambda size: Bulkhead(size), key=int, name="p")
    for size in (4, 1, 2):
        places.get(size)
    with places.get(4), places.get(2), places.get(4):
        assert named(places) == ["p[4]", "p[2]", "p[1]"]  # 2 of 4, 1 of 2 (used before), none
    empty = Keyed(lambda key: Retry(), key=str)
    empty.get("k")
    assert look(empty) == []
    budgets = Keyed(lambda key: Limit(), key=str, name="l")
    budgets.get("k")
    assert named(budgets) == ["l[k]"]


def test_keys_of_pipelines_and_of_keys() -> None:
    inner = Breaker("b")
    hosts = Keyed(lambda host: Pipeline(Retry(), inner, Bulkhead(1)), key=str, name="host")
    tenants = Keyed(lambda tenant: hosts, key=str, name="tenant")
    hosts.get("h")
    tenants.get("t")
    assert named(tenants) == ["tenant[t].host[h].b", "tenant[t].host[h].bulkhead"]
    assert worst_state([tenants, Breaker()]) is State.CLOSED
    inner.isolate()
    assert worst_state([Breaker(), tenants, Retry()]) is State.ISOLATED
    assert worst_state([Retry()]) is None


def test_any_key_makes_a_name() -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError

    breakers = Keyed(lambda key: Breaker(), key=str, name="k")
    for key in (Odd(), "x" * 1000, "a\udce4", 1, "1"):
        breakers.get(key)
    names = named(breakers)
    assert names == ["k[1]", "k[a\\udce4]", f"k[{'x' * 64}]", "k[Odd]"]
    assert len(names) == len(set(names))
