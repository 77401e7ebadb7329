"""A reload replaces services side by side where neither needs the other, and at most so many."""

import pytest
from _bench import Bench, spec_of
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.model.event import Reload
from everup.model.spec import Group, Rollouts, Service, Strategy


def services(needs: dict[str, tuple[str, ...]], command: str = "serve") -> list[Service]:
    return [Service(name, (command,), depends_on=of) for name, of in needs.items()]


def begun(needs: dict[str, tuple[str, ...]], parallel: int, *groups: Group) -> list[str]:
    """Who is replaced in the first step of a reload that changes all."""

    settings = {"rollout": Rollouts(parallel)}
    bench = Bench(*services(needs), groups=groups, **settings)
    bench.up()
    bench.tell(Reload(spec_of(*services(needs, "new"), groups=groups, **settings), "ann"))
    return sorted(bench.engine.rolling)


@pytest.mark.parametrize("parallel", [1, 4, 9])
def test_no_more_than_so_many_at_once(parallel: int) -> None:
    names = [f"s{n}" for n in range(6)]
    assert len(begun(dict.fromkeys(names, ()), parallel)) == min(parallel, 6)


def test_who_needs_another_comes_after_it() -> None:
    assert begun({"db": (), "api": ("db",), "web": ("api",), "mail": ()}, 4) == ["db", "mail"]


def test_who_restarts_together_is_not_replaced_together() -> None:
    pair = Group("pair", ("a", "b"), Strategy.ONE_FOR_ALL)
    assert begun({"a": (), "b": (), "c": ()}, 4, pair) == ["a", "c"]


@given(st.data(), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_nobody_is_replaced_beside_what_it_needs(data: st.DataObject, parallel: int) -> None:
    names = [f"s{n}" for n in range(data.draw(st.integers(1, 7)))]
    needs = {}
    for at, name in enumerate(names):
        needs[name] = tuple(data.draw(st.sets(st.sampled_from(names[:at])))) if at else ()
    first = begun(needs, parallel)
    assert 1 <= len(first) <= parallel
    assert not any(set(needs[name]) & set(first) for name in first)
