"""Every exception of ``everup.tolerate`` comes through pickle, copy and a process pool as what it
was: its text, its attributes, its notes."""

import copy
import inspect
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from everup import tolerate
from everup.tolerate import NoQuorum, Problem, Rejected, TableError, Vote, pipelines

MADE: dict[str, Callable[[], BaseException]] = {
    "NoQuorum": lambda: NoQuorum("no 2 of 3", [1, 2], [ValueError("x")]),
    "TableError": lambda: TableError([Problem("f", "k", "1", "wrong"), Problem("", "", None, "x")]),
}
KINDS = {
    name: kind
    for name in tolerate.__all__
    if inspect.isclass(kind := getattr(tolerate, name)) and issubclass(kind, BaseException)
}


def made(name: str) -> BaseException:
    if name in MADE:
        return MADE[name]()
    kind = KINDS[name]
    return kind("db", "open", 1.5) if issubclass(kind, Rejected) else kind("it took long")


def same(one: BaseException, other: BaseException) -> None:
    assert type(one) is type(other)
    assert str(one) == str(other)
    for attribute in ("policy", "reason", "retry_after_s", "answers", "problems", "error"):
        assert repr(getattr(one, attribute, None)) == repr(getattr(other, attribute, None))
    assert getattr(one, "__notes__", None) == getattr(other, "__notes__", None)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_exception_can_be_pickled(name: str, protocol: int) -> None:
    error = made(name)
    error.add_note("tried twice")
    same(pickle.loads(pickle.dumps(error, protocol)), error)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_every_exception_can_be_copied(name: str, copied: Callable[[Any], Any]) -> None:
    error = made(name)
    error.add_note("tried twice")
    same(copied(error), error)
    same(copied(copied(error)), error)


def fail(name: str) -> None:
    raise made(name)


def test_every_exception_comes_out_of_a_process_pool() -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        for name in KINDS:
            error = pool.submit(fail, name).exception(timeout=60)
            assert error is not None
            same(error, made(name))


def test_what_policies_raise_is_what_travels() -> None:
    with pytest.raises(NoQuorum) as no_quorum:
        Vote(lambda: 2).call(lambda: 1)
    same(pickle.loads(pickle.dumps(no_quorum.value)), no_quorum.value)
    with pytest.raises(TableError) as wrong:
        pipelines('[[pipeline.db]]\npolicy = "retri"\n')
    assert "retri" in str(wrong.value)
    assert str(copy.copy(wrong.value)) == str(wrong.value)
