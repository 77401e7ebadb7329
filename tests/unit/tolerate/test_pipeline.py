"""Pipelines as such. What their members do inside them is in ``test_traps``."""

import asyncio
import functools
import gc
import inspect
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.tolerate import (
    Breaker,
    Consecutive,
    Fallback,
    Keyed,
    Pipeline,
    Policy,
    Rejected,
    Retry,
    RetryBudget,
    Timeout,
)
from everup.tolerate import (
    pipeline as module,
)
from everup.tolerate.testing import FakeClock, Recorder

WAYS = ("decorator", "call", "adecorator", "acall")
Way = Callable[..., Any]


class DownError(Exception):
    pass


def drive(coroutine: Any) -> Any:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    """Makes a call through a policy, once."""

    def through(policy: Policy, do: Callable[..., Any], *args: Any) -> Any:
        if request.param == "decorator":
            return policy(do)(*args)
        if request.param == "call":
            return policy.call(do, *args)

        async def ado(*args: Any) -> Any:
            return do(*args)

        if request.param == "adecorator":
            return drive(policy(ado)(*args))
        return drive(policy.acall(ado, *args))

    return through


class Tag(Policy):
    """Writes down when a call comes in and goes out, and how often it was put around one."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__(name)
        self.log = log
        self.compiled = 0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        self.compiled += 1

        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.log.append(f"+{self.name}")
            try:
                return call(*args, **kwargs)
            finally:
                self.log.append(f"-{self.name}")

        return guarded

    def around_async(
        self, call: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        self.compiled += 1

        async def guarded(*args: Any, **kwargs: Any) -> Any:
            self.log.append(f"+{self.name}")
            try:
                return await call(*args, **kwargs)
            finally:
                self.log.append(f"-{self.name}")

        return guarded


# -- what is in it


def test_the_first_is_the_outermost(way: Way) -> None:
    log: list[str] = []
    pipe = Pipeline(*(Tag(name, log) for name in "abc"))
    assert way(pipe, lambda x: log.append("call") or x, 7) == 7
    assert log == ["+a", "+b", "+c", "call", "-c", "-b", "-a"]


def test_without_members_it_guards_nothing(way: Way) -> None:
    assert way(Pipeline(), lambda x: x, 7) == 7

    def work() -> None: ...

    assert Pipeline()(work) is work
    assert Pipeline().policies == ()
    assert Pipeline().forgettable


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.sampled_from("abcde"), lambda inner: st.lists(inner, max_size=4)))
def test_nested_ones_are_as_if_their_members_stood_there(tree: Any) -> None:
    log: list[str] = []
    flat: list[Policy] = []

    def build(node: Any) -> Policy:
        if isinstance(node, list):
            return Pipeline(*map(build, node))
        flat.append(Tag(node, log))
        return flat[-1]

    pipe = Pipeline(build(tree))
    assert pipe.policies == tuple(flat)
    pipe.call(lambda: log.append("call"))
    names = [one.name for one in flat]
    went = [*(f"+{name}" for name in names), "call", *(f"-{name}" for name in reversed(names))]
    assert log == went


def test_a_subclass_keeps_what_it_adds(way: Way) -> None:
    log: list[str] = []

    class Mine(Pipeline):
        def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
            log.append("mine")
            return super().around(call)

        def around_async(self, call: Callable[..., Any]) -> Callable[..., Any]:
            log.append("mine")
            return super().around_async(call)

    inner = Mine(Tag("b", log))
    pipe = Pipeline(Tag("a", log), inner)
    assert pipe.policies[1] is inner
    way(pipe, lambda: None)
    assert log == ["mine", "+a", "+b", "-b", "-a"]


def test_members_can_be_looked_at_and_not_set() -> None:
    retry, breaker = Retry(), Breaker()
    pipe = Pipeline(retry, breaker, name="db")
    assert pipe.policies == (retry, breaker)
    assert pipe.name == "db"
    with pytest.raises(AttributeError):
        pipe.policies = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (Retry, r"p: argument 2 is no policy: Retry is a class, give an object: Retry\(\.\.\.\)"),
        ("db", "argument 2 is no policy: 'db'; a name is given as name='db'"),
        (len, r"<built-in function len>; the function comes afterwards: Pipeline\(...\)\(function"),
        (str, "<class 'str'>; the function"),
        (RetryBudget(), "argument 2 is no policy: <RetryBudget 'budget'"),
        (None, "argument 2 is no policy: None$"),
    ],
)
def test_what_is_no_policy_is_refused(wrong: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        Pipeline(Retry(), wrong, name="p")


# -- around functions


def test_names_and_signatures_stay() -> None:
    pipe = Pipeline(Retry(), Breaker(), Timeout(1.0))

    @pipe
    def work(a: int, *, b: int = 2) -> int:
        "Works."
        return a * b

    @pipe
    async def awork(a: int) -> int:
        return a

    assert (work.__name__, work.__doc__) == ("work", "Works.")
    assert str(inspect.signature(work)) == "(a: int, *, b: int = 2) -> int"
    assert asyncio.iscoroutinefunction(awork)
    assert not asyncio.iscoroutinefunction(work)
    assert work(3, b=3) == 9


def test_generator_functions_and_the_wrong_call_are_refused() -> None:
    pipe = Pipeline(Retry())

    def numbers() -> Any:
        yield 1

    async def anumbers() -> Any:
        yield 1

    async def awork() -> None: ...

    for function in (numbers, anumbers):
        with pytest.raises(TypeError, match="generator"):
            pipe(function)
        with pytest.raises(TypeError, match="generator"):
            pipe.call(function)
        with pytest.raises(TypeError, match="generator"):
            drive(pipe.acall(function))
    for function in (awork, functools.partial(awork)):
        with pytest.raises(TypeError, match="is asynchronous: use acall"):
            pipe.call(function)
    assert len(pipe._calls) == len(pipe._acalls) == 0


def test_a_member_that_cannot_guard_it_says_so() -> None:
    async def other(error: Exception) -> None: ...

    with pytest.raises(TypeError, match="is async"):
        Pipeline(Retry(), Fallback(function=other))(len)


def test_acall_takes_whatever_gives_an_awaitable() -> None:
    async def work(x: int) -> int:
        return x

    class Thing:
        def __call__(self, x: int) -> Any:
            return work(x)

    for function in (work, lambda x: work(x), functools.partial(work), Thing()):
        assert drive(Pipeline(Retry()).acall(function, 3)) == 3
        assert drive(Pipeline().acall(function, 3)) == 3


# -- compiled once


@pytest.mark.parametrize("kind", ["call", "acall"])
def test_a_plain_function_is_compiled_once(kind: str) -> None:
    tag = Tag("a", [])
    pipe = Pipeline(tag)

    def make() -> Callable[[], Any]:
        async def awork() -> int:
            return 1

        return awork if kind == "acall" else lambda: 1

    def go(function: Any) -> int:
        return drive(pipe.acall(function)) if kind == "acall" else pipe.call(function)  # type: ignore[no-any-return]

    one, other = make(), make()
    for _ in range(3):
        assert go(one) == go(other) == 1
    assert tag.compiled == 2
    cache = pipe._acalls if kind == "acall" else pipe._calls
    assert len(cache) == 2
    gone = weakref.ref(one)
    del one
    assert gone() is None  # at once: no cycle
    assert len(cache) == 1


@pytest.mark.parametrize("kind", ["call", "acall"])
def test_no_more_are_kept_than_there_is_room_for(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST", 2)
    tag = Tag("a", [])
    pipe = Pipeline(tag)

    def make(number: int) -> Callable[[], Any]:
        async def awork() -> int:
            return number

        return awork if kind == "acall" else lambda: number

    functions = [make(number) for number in range(4)]
    for _ in range(2):
        for number, function in enumerate(functions):
            got = drive(pipe.acall(function)) if kind == "acall" else pipe.call(function)
            assert got == number
    assert tag.compiled == 2 + 2 * 2
    del function, functions[0]
    for _ in range(2):  # there is room again
        (drive(pipe.acall(functions[1])) if kind == "acall" else pipe.call(functions[1]))
    assert tag.compiled == 7


def test_compiled_by_two_at_once_both_meet_the_first() -> None:
    log: list[str] = []

    class Slow(Tag):
        def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
            if not self.compiled:
                self.compiled = 1
                assert pipe.call(work) == 1  # as another thread would, meanwhile
            return super().around(call)

    def work() -> int:
        return 1

    slow = Slow("a", log)
    pipe = Pipeline(slow)
    assert pipe.call(work) == 1
    assert slow.compiled == 3
    before = dict(pipe._calls)
    assert pipe.call(work) == 1
    assert dict(pipe._calls) == before


def test_what_is_still_under_way_when_the_function_has_gone_ends() -> None:
    pipe = Pipeline(Retry(), name="db")

    def work() -> int:
        return 1

    through = pipe._weakly(work)
    assert through() == 1
    del work
    with pytest.raises(Rejected, match="db: whoever called has gone"):
        through()


def test_a_pipeline_that_kept_functions_can_go() -> None:
    clock = FakeClock()
    fallback = Fallback(last_good_s=5.0, clock=clock)
    pipe = Pipeline(fallback, Retry(clock=clock))
    assert pipe.call(lambda: 1) == 1
    gone = weakref.ref(pipe)
    del pipe
    gc.collect()
    assert gone() is None


# -- a fallback in it


class Client:
    def __init__(self, value: int) -> None:
        self.value = value
        self.down = False

    def get(self, key: str) -> tuple[int, str]:
        if self.down:
            raise DownError
        return self.value, key

    async def aget(self, key: str) -> tuple[int, str]:
        return self.get(key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Client)

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("shape", ["pipeline", "alone", "keyed inside", "keyed around"])
@pytest.mark.parametrize("what", ["method", "function", "partial", "lambda"])
def test_the_last_good_value_is_found_again(
    clock: FakeClock, asynchronous: bool, shape: str, what: str
) -> None:
    def fallback(key: object = None) -> Fallback:
        return Fallback(last_good_s=10.0, clock=clock)

    def first(key: str) -> str:
        return key

    breaker = Breaker(trip=Consecutive(1000), clock=clock)
    pipe: Policy = {
        "pipeline": lambda: Pipeline(fallback(), breaker),
        "alone": lambda: Pipeline(fallback()),
        "keyed inside": lambda: Pipeline(Keyed(fallback, key=first), breaker),
        "keyed around": lambda: Keyed(lambda key: Pipeline(fallback(), breaker), key=first),
    }[shape]()
    one, other = Client(1), Client(2)

    def functions(client: Client) -> Any:
        if what == "method":
            return None  # a new one each time
        method = client.aget if asynchronous else client.get
        if what == "partial":
            return functools.partial(method)
        if what == "lambda":
            return lambda key: method(key)
        if asynchronous:

            async def afunction(key: str) -> Any:
                return await client.aget(key)

            return afunction

        def function(key: str) -> Any:
            return client.get(key)

        return function

    kept = {1: functions(one), 2: functions(other)}

    def go(client: Client, key: str) -> Any:
        function = kept[client.value] or (client.aget if asynchronous else client.get)
        if asynchronous:
            return drive(pipe.acall(function, key))
        return pipe.call(function, key)

    assert go(one, "a") == (1, "a")
    assert go(other, "a") == (2, "a")
    one.down = other.down = True
    for _ in range(2):
        assert go(one, "a") == (1, "a")
        assert go(other, "a") == (2, "a")
    with pytest.raises(DownError):
        go(one, "b")
    clock.advance(11.0)
    with pytest.raises(DownError):
        go(one, "a")


def test_parts_of_a_pipeline_are_told_apart() -> None:
    fallback = Fallback(last_good_s=5.0)
    one, other = Pipeline(fallback, Retry()), Pipeline(fallback, Retry())
    parts = [pipe._known(fallback, len, print) for pipe in (one, one, other)]
    assert parts[0] == parts[1]
    assert hash(parts[0]) == hash(parts[1])
    assert parts[0] != parts[2]
    assert parts[0] != one._known(fallback, len, sum)
    assert parts[0] != len
    assert parts[0]("abc") == 3


# -- listening, and forgetting


def test_listeners_hear_of_every_member_once(clock: FakeClock) -> None:
    retry = Retry(attempts=2, backoff=0.0, clock=clock)
    breaker = Breaker(trip=Consecutive(1000), clock=clock)
    pipe = Pipeline(retry, Pipeline(retry, breaker))
    told = Recorder(pipe)

    def down() -> None:
        raise DownError

    def fail() -> None:
        with pytest.raises(DownError):
            pipe.call(down)

    fail()
    assert told.kinds == ["retry", "gave_up", "retry", "retry", "gave_up", "gave_up"]
    told.stop()
    assert not retry._listeners
    assert not breaker._listeners
    end = pipe.subscribe(told.events.append)
    end()
    end()
    fail()
    assert len(told.events) == 6


def test_forgotten_by_key_unless_a_member_has_something_to_lose(clock: FakeClock) -> None:
    pipes = Keyed(
        lambda key: Pipeline(Retry(), Breaker(key, clock=clock)), key=lambda key: key, limit=2
    )
    breaker: Any = pipes.get("a").policies[1]
    breaker.isolate()
    assert not pipes.get("a").forgettable
    pipes.get("b")
    pipes.get("c")
    assert list(pipes.policies()) == ["a", "c"]
    breaker.reset()
    assert pipes.get("a").forgettable


def test_a_member_that_does_nothing_leaves_the_function_its_name() -> None:
    class Nothing(Policy):
        def __init__(self) -> None:
            super().__init__("nothing")

        def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
            return call

    def mine() -> str:
        return "done"

    name, guarded = mine.__qualname__, Pipeline(Retry(), Nothing())(mine)
    assert guarded() == "done"
    assert mine.__qualname__ == name
    assert Pipeline(Nothing())(mine) is mine
