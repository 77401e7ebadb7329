"""What all policies share: the shape, outcomes, errors, time, and the helpers for tests."""

import asyncio
import functools
import inspect
import itertools
import pickle
import random
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

import everup.tolerate
from everup.tolerate import _base, errors
from everup.tolerate._base import Event, Policy, is_async
from everup.tolerate._clock import SYSTEM, Clock, system_sleep
from everup.tolerate._outcome import Judge, Outcome
from everup.tolerate.errors import BreakerOpen, NoQuorum, RateLimited, Rejected
from everup.tolerate.testing import FakeClock, Recorder
from everup.tolerate.timeout import Timeout

OK, FAILED, NEUTRAL = Outcome.OK, Outcome.FAILED, Outcome.NEUTRAL


class Plain(Policy):
    """Counts calls, and tells of each."""

    def __init__(self, name: str = "plain", clock: Clock | None = None) -> None:
        super().__init__(name, clock)
        self.calls = 0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            self._tell("called", args=args)
            return call(*args, **kwargs)

        return guarded

    def around_async(
        self, call: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return await call(*args, **kwargs)

        return guarded


class Nothing(Policy):
    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        return call


def work(a: int, b: int = 2) -> int:
    "Works."
    return a * b


async def awork(a: int, b: int = 2) -> int:
    return a * b


def numbers() -> Generator[int, None, None]:
    yield 1


async def anumbers() -> Any:
    yield 1


class Thing:
    def __init__(self) -> None:
        self.factor = 3

    def sync(self, a: int) -> int:
        return self.factor * a

    async def coroutine(self, a: int) -> int:
        return self.factor * a

    def generator(self) -> Any:
        yield self.factor

    @staticmethod
    async def static(a: int) -> int:
        return a

    @classmethod
    async def of_class(cls, a: int) -> int:
        return a

    async def __call__(self, a: int) -> int:
        return self.factor * a


class Odd:
    """Its code is not code."""

    __code__ = "print()"

    def __call__(self) -> int:
        return 1


class Generating:
    def __call__(self) -> Any:
        yield 1


def drive(coroutine: Any) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


# -- around functions


def test_decorated() -> None:
    plain = Plain()
    guarded, aguarded = plain(work), plain(awork)
    assert (guarded.__name__, guarded.__doc__) == ("work", "Works.")
    assert guarded.__wrapped__ is work  # type: ignore[attr-defined]
    assert guarded(3, b=4) == 12
    assert asyncio.iscoroutinefunction(aguarded)
    assert drive(aguarded(3)) == 6
    assert plain.calls == 2


def test_what_is_not_changed_is_given_back() -> None:
    assert Nothing("nothing")(work) is work
    assert work.__doc__ == "Works."


def test_a_policy_must_say_how_it_guards() -> None:
    with pytest.raises(NotImplementedError):
        Policy("none")(work)
    with pytest.raises(NotImplementedError):
        Policy("none")(awork)


def test_methods_stay_methods() -> None:
    class Shop:
        @Plain()
        def get(self, key: str) -> tuple[object, str]:
            return self, key

        @Plain()
        async def aget(self, key: str) -> tuple[object, str]:
            return self, key

    shop = Shop()
    assert shop.get("a") == (shop, "a")
    assert drive(shop.aget("a")) == (shop, "a")


ASYNC = [
    awork, functools.partial(awork, 1), functools.partial(functools.partial(awork, 1), b=2),
    Thing().coroutine, Thing.static, Thing().static, Thing.of_class, Thing(),
    functools.partial(Thing().coroutine, 1),
]  # fmt: skip
SYNC = [work, len, Thing().sync, Thing, functools.partial(work, 1), Odd(), str.upper, "a".upper]
GENERATORS = [
    numbers, anumbers, Thing().generator, functools.partial(numbers), Generating(),
    functools.partial(anumbers),
]  # fmt: skip


def test_which_functions_are_asynchronous() -> None:
    assert all(is_async(function) for function in ASYNC)
    assert not any(is_async(function) for function in SYNC)


@pytest.mark.parametrize("function", GENERATORS)
def test_generator_functions_are_refused(function: Any) -> None:
    plain = Plain()
    with pytest.raises(TypeError, match="is a generator function: its body runs after the call"):
        plain(function)
    with pytest.raises(TypeError, match="is a generator function"):
        plain.call(function)
    with pytest.raises(TypeError, match="is a generator function"):
        drive(plain.acall(function))
    assert plain.calls == 0


def test_old_style_coroutines_are_no_generators() -> None:
    import types

    @types.coroutine
    def old() -> Generator[None, None, int]:
        return 1
        yield

    async def use() -> int:
        return await old()

    assert drive(Plain().acall(use)) == 1
    with pytest.raises(TypeError, match="generator"):
        is_async(old)


@pytest.mark.parametrize("function", ASYNC)
def test_call_refuses_what_is_asynchronous(function: Any) -> None:
    plain = Plain()
    with pytest.raises(TypeError, match="is asynchronous: use acall"):
        plain.call(function, 1)
    assert plain.calls == 0


def test_the_name_in_a_refusal() -> None:
    with pytest.raises(TypeError, match=r"^Thing\.coroutine is asynchronous"):
        Plain().call(Thing().coroutine, 1)
    with pytest.raises(TypeError, match=r"^awork is asynchronous"):
        Plain().call(functools.partial(awork), 1)


def test_direct_calls() -> None:
    plain = Plain()
    assert plain.call(work, 3, b=3) == 9
    assert plain.call(Thing().sync, 2) == 6
    assert drive(plain.acall(awork, 3, b=3)) == 9
    assert drive(plain.acall(lambda a: awork(a), 3)) == 6
    assert drive(plain.acall(Thing(), 2)) == 6
    assert plain.calls == 5


def test_arguments_of_any_name_go_through() -> None:
    def takes(**kwargs: int) -> dict[str, int]:
        return kwargs

    async def atakes(**kwargs: int) -> dict[str, int]:
        return kwargs

    names = {"function": 1, "call": 2, "self": 3, "args": 4}
    assert Plain().call(takes, **names) == names
    assert drive(Plain().acall(atakes, **names)) == names


# -- telling


def test_listeners() -> None:
    clock = FakeClock(5.0)
    plain = Plain("mine", clock)
    seen: list[Event] = []
    plain.call(work, 1)
    listener = seen.append
    ends = [plain.subscribe(listener), plain.subscribe(listener)]  # the same one, twice
    plain.call(work, 2)
    event = Event("mine", "called", 5.0, {"args": (2,)}, "")
    assert seen == [event, event]
    ends[1]()
    assert plain._listeners == (listener,)
    ends[0]()
    ends[0]()
    assert plain._listeners == ()
    plain.call(work, 3)
    assert len(seen) == 2


def test_of_two_listeners_the_one_that_ends_is_the_one_meant() -> None:
    plain = Plain()
    seen: list[str] = []

    def first(event: Event) -> None:
        seen.append("first")

    def second(event: Event) -> None:
        seen.append("second")

    plain.subscribe(first)
    plain.subscribe(second)()
    plain.call(work, 1)
    assert seen == ["first"]


def test_what_a_listener_raises_is_dropped_unless_it_is_an_exit() -> None:
    plain = Plain()
    seen: list[Event] = []

    def fail(event: Event) -> None:
        raise ValueError

    def leave(event: Event) -> None:
        raise KeyboardInterrupt

    plain.subscribe(fail)
    plain.subscribe(seen.append)
    assert plain.call(work, 1) == 2
    assert len(seen) == 1
    plain.subscribe(leave)
    with pytest.raises(KeyboardInterrupt):
        plain.call(work, 1)


# -- outcomes


def group(*errors: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("several", errors)


@pytest.mark.parametrize(
    ("error", "options", "outcome"),
    [
        (ValueError(), {}, FAILED),
        (asyncio.CancelledError(), {}, NEUTRAL),
        (KeyboardInterrupt(), {"on": BaseException}, NEUTRAL),
        (SystemExit(), {"on": SystemExit}, NEUTRAL),
        (GeneratorExit(), {}, NEUTRAL),
        (Rejected("x", "y"), {}, NEUTRAL),
        (RateLimited("x", "y"), {"on": (OSError, Exception)}, NEUTRAL),
        (RateLimited("x", "y"), {"on": Rejected}, FAILED),
        (RateLimited("x", "y"), {"on": (OSError, RateLimited)}, FAILED),
        (BreakerOpen("x", "y"), {"on": RateLimited}, NEUTRAL),
        (RateLimited("x", "y"), {"on": Rejected, "unless": RateLimited}, OK),
        (ValueError(), {"on": OSError}, OK),
        (FileNotFoundError(), {"on": OSError}, FAILED),
        (FileNotFoundError(), {"on": OSError, "unless": FileNotFoundError}, OK),
        (PermissionError(), {"on": OSError, "unless": (KeyError, PermissionError)}, OK),
        (OSError(5, "x"), {"when": lambda error: error.errno == 5}, FAILED),
        (OSError(6, "x"), {"when": lambda error: error.errno == 5}, OK),
        (OSError(), {"on": ()}, OK),
        (group(OSError(), KeyError()), {"on": OSError}, FAILED),
        (group(KeyError(), group(OSError())), {"on": OSError}, FAILED),
        (group(KeyError(), KeyError()), {"on": OSError}, OK),
        (group(Rejected("x", "y"), BreakerOpen("x", "y")), {}, NEUTRAL),
        (group(Rejected("x", "y"), KeyError()), {"on": OSError}, OK),
        (group(Rejected("x", "y")), {"on": Rejected}, FAILED),
        (group(KeyError()), {"on": (OSError, ExceptionGroup)}, FAILED),
        (group(OSError()), {"unless": ExceptionGroup}, OK),
        (group(OSError()), {"on": BaseException, "unless": OSError}, OK),
        (BaseExceptionGroup("all", [KeyboardInterrupt()]), {"on": BaseException}, NEUTRAL),
        (group(OSError(5, "x")), {"when": lambda error: error.errno == 5}, FAILED),
    ],
)
def test_outcomes_of_errors(
    error: BaseException, options: dict[str, Any], outcome: Outcome
) -> None:
    assert Judge(**options).error(error) is outcome


def test_outcomes_of_values() -> None:
    assert Judge().value(None) is OK
    judge = Judge(result=lambda value: value is None)
    assert (judge.value(None), judge.value(0)) == (FAILED, OK)


@pytest.mark.parametrize("wrong", [3, "OSError", OSError(), (OSError, int)])
@pytest.mark.parametrize("option", ["on", "unless"])
def test_only_exception_classes(option: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match="is no exception class"):
        Judge(**{option: wrong})


# -- errors


@pytest.mark.parametrize(
    "kind", [one for one in vars(errors).values() if isinstance(one, type)]
)  # fmt: skip
def test_errors(kind: type[Exception]) -> None:
    assert issubclass(kind, Exception)
    if not issubclass(kind, Rejected):
        return
    error = kind("db", "full", 1.25)
    assert (error.policy, error.reason, error.retry_after_s) == ("db", "full", 1.25)
    assert error.args == ("db", "full", 1.25)
    assert str(error) == "db: full; again in 1.25 s"
    assert str(kind("db", "full")) == "db: full"
    assert kind("db", "full").retry_after_s is None
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (kind, str(error))


def test_no_quorum_has_what_there_was() -> None:
    error = NoQuorum("2 of 3", [1, 2], [OSError()])
    assert (str(error), error.answers, len(error.errors)) == ("2 of 3", [1, 2], 1)


def test_time_outs_are_what_python_calls_so() -> None:
    assert issubclass(errors.TimedOut, TimeoutError)
    assert issubclass(errors.DeadlineExceeded, TimeoutError)


# -- time


def test_the_system_clock_is_monotonic() -> None:
    assert Policy("x").clock is SYSTEM
    assert (SYSTEM.now, SYSTEM.sleep) == (time.monotonic, system_sleep)
    assert SYSTEM.random.__self__ is random._inst  # type: ignore[attr-defined]
    asyncio.run(SYSTEM.asleep(0) or asyncio.sleep(0))  # type: ignore[arg-type]


def test_each_part_can_be_replaced() -> None:
    assert Clock(now=lambda: 3.0).now() == 3.0
    assert Clock(random=lambda: 0.25).random() == 0.25


# -- the helpers for tests


def test_a_clock_that_stands_still() -> None:
    clock = FakeClock(random=(0.1, 0.9))
    assert clock.now() == clock.now() == 1000.0
    clock.advance(2.5)
    clock.sleep(1.5)
    clock.sleep(-1.0)
    assert clock.now() == 1004.0
    assert clock.slept == [1.5, -1.0]
    assert [clock.random() for _ in range(3)] == [0.1, 0.9, 0.1]
    assert FakeClock(7.0).random() == 0.5


def test_chance_from_a_seed_or_from_any_numbers() -> None:
    first, same, other = FakeClock(seed=7), FakeClock(seed=7), FakeClock(seed=8)
    drawn = [first.random() for _ in range(5)]
    assert drawn == [same.random() for _ in range(5)] != [other.random() for _ in range(5)]
    assert all(0 <= number < 1 for number in drawn)
    endless = FakeClock(random=(number / 1000 for number in itertools.count()))
    assert [endless.random() for _ in range(3)] == [0.0, 0.001, 0.002]
    ends = FakeClock(random=iter([0.25]))
    assert ends.random() == 0.25
    with pytest.raises(RuntimeError, match="used up"):
        ends.random()
    with pytest.raises(ValueError, match="random or seed, not both"):
        FakeClock(random=[0.5], seed=1)
    with pytest.raises(ValueError, match="no numbers"):
        FakeClock(random=[])


def test_time_passes_when_every_task_waits() -> None:
    clock = FakeClock()
    log: list[tuple[str, float]] = []

    async def one(name: str, seconds: float) -> None:
        await clock.asleep(seconds)
        log.append((name, clock.now()))

    async def main() -> str:
        await asyncio.gather(one("late", 3600.0), one("soon", 1.0))
        return "done"

    assert clock.run(main()) == "done"
    assert log == [("soon", 1001.0), ("late", 4600.0)]
    assert clock.slept == [3600.0, 1.0]


def test_a_thread_may_have_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    waits = threading.Event()
    real = selectors.DefaultSelector.select

    def select(self: Any, timeout: float | None = None) -> Any:
        if timeout:
            waits.set()  # now the thread may speak, and not before
        return real(self, timeout)

    monkeypatch.setattr(selectors.DefaultSelector, "select", select)

    async def main() -> bool:
        return await asyncio.get_running_loop().run_in_executor(None, waits.wait, 60)

    assert clock.run(main()) is True
    assert clock.now() == 1000.0


def test_what_is_there_to_be_read_comes_before_time_passes() -> None:
    clock = FakeClock()

    async def main() -> bytes:
        mine, theirs = socket.socketpair()
        with mine, theirs:
            mine.setblocking(False)
            read: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().add_reader(mine, lambda: read.set_result(mine.recv(9)))
            theirs.send(b"abc")
            got = await asyncio.wait_for(read, 5.0)
            asyncio.get_running_loop().remove_reader(mine)
            return got

    assert clock.run(main()) == b"abc"
    assert clock.now() == 1000.0


def test_waiting_for_ever_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = selectors.DefaultSelector.select
    asked: list[float | None] = []

    def select(self: Any, timeout: float | None = None) -> Any:
        asked.append(timeout)
        return real(self, 0)  # nobody will say anything

    monkeypatch.setattr(selectors.DefaultSelector, "select", select)

    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="every task waits for ever"):
        FakeClock().run(main())
    assert 5.0 in asked


def test_a_recorder() -> None:
    one, other = Plain("one"), Plain("other")
    told = Recorder(one, other)
    one.call(work, 1)
    other.call(work, 2)
    assert [event.policy for event in told.events] == ["one", "other"]
    assert told.kinds == ["called", "called"]
    told.stop()
    told.stop()
    one.call(work, 1)
    assert len(told.events) == 2


# -- the package


def test_all_its_names_are_there() -> None:
    for name in everup.tolerate.__all__:
        found = getattr(everup.tolerate, name)
        assert found is getattr(everup.tolerate, name)
        assert found is everup.tolerate.__getattr__(name)
    assert set(everup.tolerate.__all__) <= set(dir(everup.tolerate))
    assert sorted(everup.tolerate.__all__) == sorted(
        {*everup.tolerate._WHERE, "backoff", "testing"}
    )
    with pytest.raises(AttributeError, match="has no attribute 'Rtery'"):
        everup.tolerate.Rtery  # type: ignore[attr-defined]  # noqa: B018


def test_it_loads_little_and_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import everup.tolerate as t;"
        "first = set(sys.modules) - before; [getattr(t, n) for n in t.__all__];"
        "print(*first, '|', *(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    first, everything = (set(part.split()) for part in done.split("|"))
    assert {name for name in first if "everup.tolerate." in name} == set()
    heavy = {"asyncio", "inspect", "logging", "dataclasses", "tomllib", "difflib", "json"}
    assert not everything & heavy
    roots = {name.partition(".")[0] for name in everything}
    assert roots - {"everup"} <= set(sys.stdlib_module_names)


def test_names_are_found_by_threads_at_once() -> None:
    code = (
        "import threading, everup.tolerate as t; found = [];"
        "threads = [threading.Thread(target=lambda: found.append(t.Retry)) for _ in range(8)];"
        "[one.start() for one in threads]; [one.join() for one in threads];"
        "assert found == [t.Retry] * 8"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_events_are_plain_tuples() -> None:
    assert Event("a", "b", 1.0, {}) == ("a", "b", 1.0, {}, "")
    assert _base.Event._fields == ("policy", "kind", "at", "detail", "function")


def test_a_policy_says_which_it_is() -> None:
    assert repr(Policy("orders-db")) == "<Policy 'orders-db'>"


def test_what_is_marked_as_async_is_async() -> None:
    def gives() -> Any:
        return one()

    async def one() -> int:
        return 1

    assert not is_async(gives)
    mark = getattr(inspect, "markcoroutinefunction", None)  # of Python 3.12
    if mark is None:
        gives._is_coroutine = object()  # type: ignore[attr-defined]
    else:
        mark(gives)
    assert is_async(gives)
    assert is_async(functools.partial(gives))
    assert FakeClock().run(Timeout(1.0)(gives)()) == 1
    assert is_async(AsyncMock())
    assert not is_async(MagicMock())
    assert not is_async(object)
