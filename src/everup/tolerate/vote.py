"""Ask several versions, and believe what enough of them say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._functions import is_async, plain
from everup.tolerate._loops import elsewhere
from everup.tolerate._options import real, whole
from everup.tolerate._race import Tasks
from everup.tolerate._threads import Job, Threads
from everup.tolerate.errors import NoQuorum

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
T = TypeVar("T")


class Vote(Policy):
    """Asks the function and the ``others``, all with the same arguments, and returns the answer
    that enough of them give: N-version programming, Avizienis, "The N-Version Approach to
    Fault-Tolerant Software" (IEEE TSE SE-11(12), 1985). It helps against faults that the versions
    do not share; copies of one version share them all.

    ``others``: further versions, one at least, with the signature of the function, and ``async
    def`` if it is. They must not change their arguments, which all of them get. Version 1 is the
    function, the others follow in order.

    ``quorum``: so many must agree, 1 to all; default None, more than half. With less than that two
    answers could have it: the first to get there wins.

    ``same``: which answers agree. None (default): those that are equal (``==``, taken to be
    transitive). A number, 0 or more: those that differ by no more. Or a function of two answers,
    that of the earlier version first. What it raises counts as no agreement, since a wrong answer
    may be anything; if there is no quorum then, it is the ``__cause__``. NaN agrees with no other.

    **The rule**: an answer has a quorum when, with itself, ``quorum`` answers are the same as it.
    They need not be the same as each other: within 1, the answer 2 has a quorum of three among 1, 2
    and 3, which the others have not. Of several answers with a quorum that wins which agrees with
    most, then that of the earliest version. It is returned as it is, nothing is averaged.

    The call ends as soon as it is decided. An exception is no answer. Raises ``NoQuorum``, with
    the answers and errors there were, as soon as no quorum can come about any more, all versions
    failing included. Put a ``Timeout`` around it, or around each version.

    **Asynchronous**: all versions run at once, in tasks with copies of the context variables; which
    of several possible answers wins may hang on who is faster. Those that are not needed any more
    are cancelled, and have ended before the answer is given. Whoever cancels the caller cancels
    all.

    **Synchronous**: one after another, and no more than needed. With ``threads`` (default 0) at
    once, each in a thread of its own with a copy of the context variables, at most so many over all
    calls; the caller makes the calls for which none is free. What is not needed runs on, as one
    of them (``losers`` says how many).

    Events: ``dissent`` (``version``: its number, ``answer``) of each that is known to disagree when
    it is decided, ``version_failed`` (``version``, ``error``), ``no_quorum`` (``answers``,
    ``errors``: how many). Raises ``ValueError`` and ``TypeError`` for options that make no sense.
    """

    def __init__(
        self,
        *others: Callable[..., Any],
        quorum: int | None = None,
        same: Callable[[Any, Any], object] | float | None = None,
        threads: int = 0,
        name: str = "vote",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock)
        versions = 1 + len(others)
        if versions == 1:
            raise ValueError("give one other version at least")
        if quorum is not None:
            whole("quorum", quorum, 1, versions)
        whole("threads", threads, 0)
        self._async = [is_async(other) for other in others]
        self.others = others
        self.quorum = versions // 2 + 1 if quorum is None else quorum
        self.same: Callable[[Any, Any], object]
        if same is None:
            self.same = _equal
        elif callable(same):
            plain("same", same)
            self.same = same
        else:
            self.same = _within(real("same", same))
        self._transitive = same is None
        self._threads = Threads(threads, name)

    @property
    def busy(self) -> int:
        """Threads under way now."""
        return self._threads.busy

    @property
    def losers(self) -> int:
        """Threads whose answer nobody waits for any more."""
        return self._threads.losers

    def _agree(self, one: Any, other: Any) -> bool:
        try:
            return bool(self.same(one, other))
        except Exception:
            return False

    # -- around a function

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        """The closure for a synchronous call. Raises ``TypeError`` for asynchronous versions."""
        if any(self._async):
            raise TypeError(f"{self.name}: a version is async, but the function is not")
        if self._threads.most:
            return self._in_threads(call)
        versions, agree = (call, *self.others), self._agree
        second = self.others[: self.quorum - 1]

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            if self._off:
                return call(*args, **kwargs)
            answers: list[T] = []
            failure: Exception | None = None
            try:
                first = call(*args, **kwargs)
                answers.append(first)
                for version in second:
                    answer = version(*args, **kwargs)
                    answers.append(answer)
                    if not agree(first, answer):
                        break
                else:
                    return first  # nobody has disagreed
            except Exception as error:
                failure = error
            try:
                tally = _Tally(self, call)
                for number, answer in enumerate(answers, 1):
                    tally.ended(number, answer, None)
                if failure is not None:
                    tally.ended(len(answers) + 1, None, failure)
                number = len(answers) + (failure is not None)
                while not tally.over:
                    tally.ask(number + 1, versions[number], args, kwargs)
                    number += 1
                return tally.result()  # type: ignore[no-any-return]
            finally:
                del failure  # its traceback holds this frame: break the circle

        return guarded

    def _in_threads(self, call: Callable[P, T]) -> Callable[P, T]:
        versions, threads = (call, *self.others), self._threads

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            if self._off:
                return call(*args, **kwargs)
            tally, job, given = _Tally(self, call), Job(copy_context()), (args, kwargs)
            started = 0
            try:
                for version in versions:
                    if not threads.start(job, started + 1, version, given):
                        break
                    started += 1
                while not tally.over:
                    if started < len(versions) and job.ended.empty():
                        started += 1
                        tally.ask(started, versions[started - 1], args, kwargs)
                    else:
                        tally.ended(*job.ended.get())
            finally:
                threads.leave(job)
            return tally.result()  # type: ignore[no-any-return]

        return guarded

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """The closure for an asynchronous call. Raises ``TypeError`` for synchronous versions."""
        if not all(self._async):
            raise TypeError(f"{self.name}: the function is async, but a version is not")
        from asyncio import get_running_loop

        versions = (call, *self.others)

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            if self._off:
                return await call(*args, **kwargs)
            tally = _Tally(self, call)
            try:
                loop = get_running_loop()
            except RuntimeError:
                elsewhere(self.name, "asking several at once")
            tasks = Tasks(loop, copy_context(), tally.task_ended)
            for number, version in enumerate(versions, 1):
                tasks.start(number, version, (args, kwargs))
            try:
                while not tally.over:
                    await tasks.wait()
            except GeneratorExit:  # closed: nothing can be awaited any more
                tasks.cancel()
                raise
            except BaseException:
                await tasks.clear()
                raise
            await tasks.clear()
            return tally.result()  # type: ignore[no-any-return]

        return guarded


def _equal(one: Any, other: Any) -> object:
    return one == other


def _within(most: float) -> Callable[[Any, Any], object]:
    def same(one: Any, other: Any) -> object:
        return one == other or abs(one - other) <= most  # infinities are equal

    return same


class _Tally:
    """The votes of one call."""

    __slots__ = ("answers", "call", "errors", "fatal", "over", "support", "vote", "winner", "wrong")

    def __init__(self, vote: Vote, call: object) -> None:
        self.vote = vote
        self.call = call
        self.answers: dict[int, Any] = {}
        """By the number of the version."""
        self.support: dict[int, int] = {}
        """How many answers are the same as its own, which is one of them."""
        self.errors: dict[int, BaseException] = {}
        self.fatal: BaseException | None = None
        self.wrong: Exception | None = None
        """What a comparison raised."""
        self.winner = 0
        self.over = False

    def ask(
        self, number: int, version: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> None:
        """Call a version here and now."""
        try:
            answer = version(*args, **kwargs)
        except Exception as error:
            self.ended(number, None, error)
        else:
            self.ended(number, answer, None)

    def task_ended(self, number: int, task: asyncio.Task[Any]) -> None:
        if task.cancelled():  # not by us: no answer is to be expected of it
            from asyncio import CancelledError

            self._failed(number, CancelledError())
        else:
            error = task.exception()
            self.ended(number, task.result() if error is None else None, error)

    def ended(self, number: int, answer: Any, error: BaseException | None) -> None:
        """A version has answered, or raised."""
        if self.over:
            return
        if error is None:
            self._answered(number, answer)
        elif isinstance(error, Exception):
            self._failed(number, error)
        else:
            self.fatal = error
            self.over = True

    def _failed(self, number: int, error: BaseException) -> None:
        if not self.over:
            self.errors[number] = error
            self.vote._tell("version_failed", self.call, version=number, error=error)
            self._decide()

    def _answered(self, number: int, answer: Any) -> None:
        support = 1
        for other, its in self.answers.items():
            if self._agree(other, its, number, answer):
                support += 1
                self.support[other] += 1
        self.answers[number] = answer
        self.support[number] = support
        self._decide()

    def _agree(self, number: int, answer: Any, other: int, its: Any) -> bool:
        if number > other:
            answer, its = its, answer
        try:
            return bool(self.vote.same(answer, its))
        except Exception as error:
            self.wrong = error
            return False

    def _decide(self) -> None:
        vote, support = self.vote, self.support
        best = max(support, key=lambda number: (support[number], -number), default=0)
        most = support.get(best, 0)
        if most >= vote.quorum:
            self.winner = best
            self.over = True
            self._tell_dissent()
            return
        left = 1 + len(vote.others) - len(support) - len(self.errors)
        if left and not vote._transitive:
            most = len(support)  # an answer to come may agree with any that there are
        self.over = most + left < vote.quorum

    def _tell_dissent(self) -> None:
        if not self.vote._listeners:
            return
        winner = self.winner
        answer = self.answers[winner]
        for number, its in sorted(self.answers.items()):
            if number != winner and not self._agree(winner, answer, number, its):
                self.vote._tell("dissent", self.call, version=number, answer=its)

    def result(self) -> Any:
        """What the caller gets."""
        if self.winner:
            return self.answers[self.winner]
        fatal, wrong, self.fatal, self.wrong = self.fatal, self.wrong, None, None
        answers = [answer for _, answer in sorted(self.answers.items())]
        errors = [error for _, error in sorted(self.errors.items())]
        self.errors = {}  # their tracebacks hold the frame that holds this: break the circle
        try:
            if fatal is not None:
                raise fatal
            vote = self.vote
            vote._tell("no_quorum", self.call, answers=len(answers), errors=len(errors))
            raise NoQuorum(
                f"{vote.name}: no {vote.quorum} of {1 + len(vote.others)} versions agree: "
                f"{len(answers)} answers, {len(errors)} errors",
                answers,
                errors,
            ) from (wrong or (errors[-1] if errors else None))
        finally:
            del fatal, wrong, errors
