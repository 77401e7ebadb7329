"""What enough versions say."""

import asyncio
import contextlib
import gc
import itertools
import random
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.tolerate.errors import BreakerOpen, NoQuorum
from everup.tolerate.testing import FakeClock, Recorder
from everup.tolerate.vote import Vote


class Strict(FakeClock):
    """What a callback of the loop raises fails the test, and so does a task left behind."""

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        wrong: list[Any] = []

        async def watched() -> Any:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: wrong.append(context))
            result = await main
            assert len(asyncio.all_tasks()) == 1
            return result

        try:
            return super().run(watched())
        finally:
            gc.collect()
            assert wrong == []


class Fatal(BaseException):
    """Not an ``Exception``."""


class Way:
    """The same versions, called one after another, as tasks, or in threads. Each is what it
    answers, or the exception that it raises."""

    def __init__(self, kind: str, clock: FakeClock | None = None) -> None:
        self.kind = kind
        self.clock = Strict() if clock is None else clock
        self.asked: list[int] = []

    def version(self, number: int, plan: Any) -> Callable[..., Any]:
        def answer(*args: Any, **kwargs: Any) -> Any:
            self.asked.append(number)
            if isinstance(plan, BaseException):
                raise plan
            return plan(*args, **kwargs) if callable(plan) else plan

        async def answer_later(*args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(number)  # one after another here, too
            return answer(*args, **kwargs)

        return answer_later if self.kind == "async" else answer

    def vote(self, *plans: Any, **options: Any) -> tuple[Vote, Callable[..., Any]]:
        """The policy, and its function, guarded."""
        first, *others = [self.version(n, plan) for n, plan in enumerate(plans, 1)]
        threads = 1 if self.kind == "threads" else 0
        vote = Vote(*others, clock=self.clock, threads=threads, **options)
        guarded = vote(first)
        if self.kind == "async":
            return vote, lambda *args, **kwargs: self.clock.run(guarded(*args, **kwargs))
        return vote, guarded


@pytest.fixture(params=["sync", "async", "threads"])
def way(request: pytest.FixtureRequest) -> Way:
    return Way(request.param)


@pytest.fixture(params=["sync", "async"])
def ordered(request: pytest.FixtureRequest) -> Way:
    """Versions that answer one after another."""
    return Way(request.param)


def joined(vote: Vote) -> None:
    """Until all its threads have ended."""
    for thread in threading.enumerate():
        if thread.name.startswith(f"everup-{vote.name}-"):
            thread.join(30)
    assert (vote.busy, vote.losers) == (0, 0)


def details(seen: Recorder) -> list[tuple[str, dict[str, Any]]]:
    return [(event.kind, dict(event.detail)) for event in seen.events]


# -- what wins


@pytest.mark.parametrize(
    ("plans", "quorum", "answer", "asked"),
    [
        ("aaa", None, "a", 2),
        ("aba", None, "a", 3),
        ("baa", None, "a", 3),
        ("aab", None, "a", 2),
        ("aa", None, "a", 2),
        ("ab", 1, "a", 1),
        ("abcbb", None, "b", 5),
        ("abbab", 2, "b", 3),
        ("aaaa", 4, "a", 4),
    ],
)
def test_the_answer_of_enough_wins(
    way: Way, plans: str, quorum: int | None, answer: str, asked: int
) -> None:
    """As soon as it is certain."""
    vote, ask = way.vote(*plans, quorum=quorum)
    assert ask() == answer
    joined(vote)
    if way.kind != "threads":
        assert way.asked == list(range(1, asked + 1))


@pytest.mark.parametrize(
    ("plans", "quorum", "answers", "errors", "asked"),
    [
        ("abc", None, "abc", 0, 3),
        ("ab", None, "ab", 0, 2),
        ("abcd", 3, "abc", 0, 3),
        ("abcde", 4, "abc", 0, 3),
        ("aXX", None, "a", 2, 3),
        ("XXa", None, "", 2, 2),
        ("XX", None, "", 1, 1),
        ("XXX", 1, "", 3, 3),
        ("aXbc", 3, "ab", 1, 3),
    ],
)
def test_no_quorum_is_told_as_soon_as_it_is_impossible(
    ordered: Way, plans: str, quorum: int | None, answers: str, errors: int, asked: int
) -> None:
    failures = [OSError(n) for n in range(len(plans))]
    given = [failures[n] if plan == "X" else plan for n, plan in enumerate(plans)]
    vote, ask = ordered.vote(*given, quorum=quorum)
    seen = Recorder(vote)
    with pytest.raises(NoQuorum, match=f"{len(answers)} answers, {errors} errors") as caught:
        ask()
    assert caught.value.answers == list(answers)
    assert len(caught.value.errors) == errors
    assert caught.value.__cause__ is (caught.value.errors[-1] if errors else None)
    assert ordered.asked == list(range(1, asked + 1))
    assert seen.kinds == ["version_failed"] * errors + ["no_quorum"]


def test_an_exception_is_no_answer(way: Way) -> None:
    vote, ask = way.vote(OSError("mine"), 1, BreakerOpen("breaker", "open"), 1, 1)
    seen = Recorder(vote)
    assert ask() == 1
    joined(vote)
    if way.kind != "threads":
        failed = [detail["version"] for kind, detail in details(seen) if kind == "version_failed"]
        assert failed == [1, 3]


def test_an_exception_of_a_later_version_is_none_either(way: Way) -> None:
    vote, ask = way.vote(1, OSError("mine"), 1)
    assert ask() == 1
    joined(vote)


def test_all_versions_get_the_arguments(way: Way) -> None:
    def add(a: int, *, b: int) -> int:
        return a + b

    vote, ask = way.vote(add, add, add, quorum=3)
    assert ask(1, b=2) == 3
    joined(vote)


def test_dissent_is_told(ordered: Way) -> None:
    vote, ask = ordered.vote("x", "a", OSError("mine"), "a", "y", "a", "a")
    seen = Recorder(vote)
    assert ask() == "a"
    assert [(kind, detail["version"]) for kind, detail in details(seen)] == [
        ("version_failed", 3),
        ("dissent", 1),
        ("dissent", 5),
    ]
    assert [detail.get("answer") for _, detail in details(seen)] == [None, "x", "y"]


def test_what_is_no_exception_comes_out(way: Way) -> None:
    vote, ask = way.vote(Fatal(), Fatal(), Fatal())
    with pytest.raises(Fatal):
        ask()
    joined(vote)


# -- what is the same


@pytest.mark.parametrize(
    ("plans", "options", "answer"),
    [
        # Not transitive: 2 agrees with both, which do not agree with each other.
        ([1, 2, 3], {"same": 1, "quorum": 3}, 2),
        ([3, 1, 2], {"same": 1, "quorum": 3}, 2),
        # Decided by the first two: the earliest of those with the most.
        ([1, 2, 3], {"same": 1}, 1),
        ([1.0, 1.05, 9.0], {"same": 0.1}, 1.0),
        ([9.0, 1.0, 1.05], {"same": 0.1}, 1.0),
        # The third has two that are the same as it, the others one each.
        ([1.0, 9.0, 3.0, 2.0, 9.0], {"same": 1}, 2.0),
        ([float("inf"), float("inf"), 1.0], {"same": 0.1}, float("inf")),
        ([1 + 2j, 1 + 2.01j, 0], {"same": 0.1}, 1 + 2j),
        # Garbage is not the same as anything, and breaks nothing.
        ([None, 1.0, 1.0], {"same": 0.1}, 1.0),
        ([1.0, "one", 1.0], {"same": 0.1}, 1.0),
        (["A", "b", "a"], {"same": lambda one, other: one.lower() == other.lower()}, "A"),
        ([None, "A", "a"], {"same": lambda one, other: one.lower() == other.lower()}, "A"),
        ([1, True, 2], {}, 1),
    ],
)
def test_what_agrees(ordered: Way, plans: list[Any], options: dict[str, Any], answer: Any) -> None:
    _, ask = ordered.vote(*plans, **options)
    got = ask()
    assert (got, type(got)) == (answer, type(answer))


def test_nan_agrees_with_none(way: Way) -> None:
    for same in (None, 1.0):
        _, ask = way.vote(float("nan"), float("nan"), float("nan"), same=same)
        with pytest.raises(NoQuorum):
            ask()


def test_the_earlier_version_is_compared_first() -> None:
    """Also when it answers later."""
    pairs = []

    def same(one: int, other: int) -> bool:
        pairs.append((one, other))
        return False

    def version(number: int) -> Any:
        async def answer() -> int:
            await asyncio.sleep(5 - number)
            return number

        return answer

    clock = Strict()
    vote = Vote(version(2), version(3), same=same)
    with pytest.raises(NoQuorum) as caught:
        clock.run(vote.acall(version(1)))
    assert pairs == [(2, 3), (1, 3), (1, 2)]
    assert caught.value.answers == [1, 2, 3]


def test_what_a_comparison_raises_is_the_cause(way: Way) -> None:
    """Arrays, say, whose ``==`` has no truth."""

    class Array:
        def __eq__(self, other: object) -> Any:
            raise ValueError("the truth value is ambiguous")

        __hash__ = None  # type: ignore[assignment]

    vote, ask = way.vote(Array(), Array(), Array())
    with pytest.raises(NoQuorum) as caught:
        ask()
    assert isinstance(caught.value.__cause__, ValueError)
    assert len(caught.value.answers) in (2, 3)
    joined(vote)


def test_a_tolerance_leaves_hope_to_the_last() -> None:
    """Two that disagree are no reason to give up: the third may agree with both."""
    way = Way("sync")
    _, ask = way.vote(1, 3, 2, same=1, quorum=3)
    assert ask() == 2
    _, ask = way.vote(1, 3, OSError("mine"), 2, same=1, quorum=4)
    way.asked.clear()
    with pytest.raises(NoQuorum):
        ask()
    assert way.asked == [1, 2, 3]


# -- against a naive model


def model(plans: list[int | None], quorum: int, most: float) -> tuple[int, int]:
    """Version that wins and how many were asked; 0: none. By brute force over what might come."""

    def winner(answers: list[int | None]) -> int:
        support = {
            n: sum(1 for b in answers if b is not None and abs(a - b) <= most)
            for n, a in enumerate(answers, 1)
            if a is not None
        }
        best = max(support, key=lambda n: (support[n], -n), default=0)
        return best if best and support[best] >= quorum else 0

    for asked in range(1, len(plans) + 1):
        answers = plans[:asked]
        if winner(answers):
            return winner(answers), asked
        left = len(plans) - asked
        if most == 0:
            hope = [a for a in answers if a is not None] + [99]
            if not any(winner(answers + [h] * left) for h in hope):
                return 0, asked
        elif len([a for a in answers if a is not None]) * bool(left) + left < quorum:
            return 0, asked
    return 0, len(plans)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_vote_goes_as_the_model_says(data: st.DataObject) -> None:
    plans = data.draw(st.lists(st.none() | st.integers(0, 4), min_size=2, max_size=6))
    quorum = data.draw(st.integers(1, len(plans)))
    most = data.draw(st.sampled_from([0, 1, 2]))
    winner, asked = model(plans, quorum, most)
    for kind in ("sync", "async"):
        way = Way(kind, FakeClock())  # the strict one collects garbage each time
        given_plans = [OSError() if plan is None else plan for plan in plans]
        _, ask = way.vote(*given_plans, quorum=quorum, same=most or None)
        if winner:
            assert ask() == plans[winner - 1]
        else:
            with pytest.raises(NoQuorum):
                ask()
        assert len(way.asked) == asked


# -- asynchronous


def sleeper(seconds: float, answer: Any, ended: list[Any]) -> Any:
    async def version() -> Any:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(0.25)  # it cleans up
            ended.append("cancelled")
            raise
        ended.append(answer)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return version


def test_all_run_at_once_and_the_rest_is_cancelled() -> None:
    clock, ended = Strict(), []
    vote = Vote(sleeper(60, "a", ended), sleeper(2, "a", ended), quorum=2)
    assert clock.run(vote.acall(sleeper(1, "a", ended))) == "a"
    assert clock.time == 1002.25  # the loser has ended: its clean up included
    assert ended == ["a", "a", "cancelled"]


def test_answers_of_one_moment_after_the_decision_do_not_count() -> None:
    clock = Strict()
    seen = []

    async def main() -> None:
        now = asyncio.Event()

        def version(answer: Any) -> Any:
            async def wait() -> Any:
                await now.wait()
                if isinstance(answer, BaseException):
                    raise answer
                return answer

            return wait

        vote = Vote(version("a"), version("b"), version(OSError()), quorum=2)
        seen.append(Recorder(vote))
        task = asyncio.ensure_future(vote.acall(version("a")))
        await asyncio.sleep(1)
        now.set()
        assert await task == "a"

    clock.run(main())
    assert seen[0].kinds == []


@pytest.mark.parametrize("at", [0, 0.5, 1.5, 2, 2.125, 2.25])
@pytest.mark.parametrize("times", [1, 2])
def test_cancelling_the_caller_cancels_all(at: float, times: int) -> None:
    clock, ended = Strict(), []
    vote = Vote(sleeper(2, "a", ended), sleeper(60, "a", ended))

    async def main() -> None:
        task = asyncio.ensure_future(vote.acall(sleeper(1, "a", ended)))
        await asyncio.sleep(at)
        over = task.done()
        for _ in range(times):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
            assert over
        assert len(asyncio.all_tasks()) == 1

    clock.run(main())


def test_a_version_that_somebody_else_cancels_gives_no_answer() -> None:
    clock, ended = Strict(), []
    vote = Vote(sleeper(2, "a", ended), sleeper(3, "a", ended))
    seen = Recorder(vote)

    async def cancels_itself() -> str:
        raise asyncio.CancelledError

    assert clock.run(vote.acall(cancels_itself)) == "a"
    assert isinstance(seen.events[0].detail["error"], asyncio.CancelledError)


def test_one_cancelled_at_the_moment_of_the_decision_does_not_count() -> None:
    clock = Strict()
    seen = []

    async def main() -> None:
        now = asyncio.Event()
        tasks: list[asyncio.Task[Any] | None] = []

        async def version() -> str:
            tasks.append(asyncio.current_task())
            await now.wait()
            return "a"

        vote = Vote(version, version)
        seen.append(Recorder(vote))
        call = asyncio.ensure_future(vote.acall(version))
        await asyncio.sleep(1)
        now.set()
        assert tasks[2] is not None
        tasks[2].cancel()
        assert await call == "a"

    clock.run(main())
    assert seen[0].kinds == []


@pytest.mark.parametrize("clearing", [False, True])
def test_a_coroutine_that_is_closed_leaves_nothing(clearing: bool) -> None:
    clock, ended = Strict(), []
    vote = Vote(sleeper(1, "a", ended), sleeper(60, "a", ended))

    async def main() -> None:
        coroutine = vote.acall(sleeper(1, "a", ended))
        task = asyncio.ensure_future(coroutine)
        await asyncio.sleep(1.125 if clearing else 0.5)
        coroutine.close()
        task.cancel()
        with contextlib.suppress(RuntimeError, asyncio.CancelledError):
            await task
        await asyncio.sleep(9)

    clock.run(main())


def test_versions_see_the_context_of_the_call(way: Way) -> None:
    here: ContextVar[str] = ContextVar("here")
    here.set("mine")

    def look() -> str:
        return here.get()

    vote, ask = way.vote(look, look, look)
    assert ask() == "mine"
    joined(vote)


# -- in threads


def test_in_threads_all_run_at_once() -> None:
    both = threading.Barrier(3, timeout=30)

    def version() -> str:
        both.wait()
        return "a"

    vote = Vote(version, version, quorum=3, threads=3, name="at-once")
    assert vote.call(version) == "a"
    joined(vote)


def test_in_threads_a_loser_runs_on() -> None:
    release = threading.Event()

    def hangs() -> str:
        assert release.wait(30)
        return "late"

    vote = Vote(lambda: "a", lambda: "a", threads=3, name="runs-on")
    assert vote.call(hangs) == "a"
    assert (vote.busy, vote.losers) == (1, 1)
    # Two are left: the caller has to do no more than one itself.
    assert vote.call(lambda: "b") == "a"
    release.set()
    joined(vote)


def test_in_threads_the_caller_does_what_has_no_thread() -> None:
    release = threading.Event()
    idents = []

    def hangs() -> str:
        assert release.wait(30)
        return "late"

    def mine() -> str:
        idents.append(threading.get_ident())
        return "a"

    def fails() -> str:
        idents.append(threading.get_ident())
        raise OSError("mine")

    vote = Vote(fails, mine, mine, threads=1, name="alone", quorum=2)
    assert vote.call(hangs) == "a"
    assert idents == [threading.get_ident()] * 3
    assert (vote.busy, vote.losers) == (1, 1)
    release.set()
    joined(vote)


def test_in_threads_any_order_gives_the_same() -> None:
    for order in itertools.permutations("aab"):
        first, *others = [lambda answer=answer: answer for answer in order]
        vote = Vote(*others, threads=3, name="order")
        assert vote.call(first) == "a"
        joined(vote)


# -- around it


def test_the_signature_stays() -> None:
    async def other(a: int) -> int:
        return a

    @Vote(other, other)
    async def work(a: int) -> int:
        "Works."
        return a

    assert (work.__name__, work.__doc__) == ("work", "Works.")
    assert asyncio.iscoroutinefunction(work)
    assert Strict().run(work(3)) == 3


def test_versions_of_another_kind_are_refused() -> None:
    async def later() -> int:
        return 1

    def now() -> int:
        return 1

    def generates() -> Any:
        yield 1

    with pytest.raises(TypeError, match="a version is async, but the function is not"):
        Vote(now, later)(now)
    with pytest.raises(TypeError, match="the function is async, but a version is not"):
        Vote(now, later)(later)
    with pytest.raises(TypeError, match="generator function"):
        Vote(generates)


@pytest.mark.parametrize(
    ("others", "options", "match"),
    [
        (0, {}, "one other version"),
        (2, {"quorum": 0}, "quorum"),
        (2, {"quorum": 4}, "quorum"),
        (2, {"threads": -1}, "threads"),
        (2, {"same": -1}, "same"),
        (2, {"same": float("nan")}, "same"),
    ],
)
def test_options_out_of_range_are_refused(others: int, options: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Vote(*[lambda: 1] * others, **options)


def test_nothing_keeps_an_error_alive() -> None:
    class MineError(Exception):
        pass

    def fail() -> None:
        raise MineError

    vote = Vote(fail, fail)
    gc.disable()
    try:
        gone: Any = None
        try:
            vote.call(fail)
        except NoQuorum as error:
            gone = [weakref.ref(one) for one in error.errors]
        assert [one() for one in gone] == [None] * 2
    finally:
        gc.enable()


def test_each_no_quorum_is_an_object_of_its_own() -> None:
    answers = random.Random(1)
    vote = Vote(answers.random, answers.random)
    errors = []
    for _ in range(3):
        with pytest.raises(NoQuorum) as caught:
            vote.call(answers.random)
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 3
