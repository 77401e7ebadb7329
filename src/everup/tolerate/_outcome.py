"""How a call went, in the eyes of a policy: ok, failed, or neutral."""

from collections.abc import Callable
from enum import Enum
from typing import Any

from everup.tolerate._functions import plain
from everup.tolerate.errors import Rejected

Errors = type[BaseException] | tuple[type[BaseException], ...]


class Outcome(Enum):
    """Neutral says nothing of the dependency: it was cancelled, or never asked."""

    OK = "ok"
    FAILED = "failed"
    NEUTRAL = "neutral"


class Judge:
    """Which errors and results are failures.

    ``on``: these exceptions are failures, default every ``Exception``. ``unless``: these are not
    (they pass as ok: the dependency has answered). ``when``: asked about an exception of ``on``,
    True: a failure. ``result``: asked about each value returned, True: a failure.

    A group of exceptions is what is in it: a failure where one of them is, neutral where all of
    them are. One that ``on`` or ``unless`` names as a group (``ExceptionGroup``, or a class of your
    own) is taken as a whole.

    Neutral, whatever is said here: what is no ``Exception`` (cancellation, KeyboardInterrupt,
    SystemExit, GeneratorExit), and ``Rejected`` unless ``on`` names it or a subclass of it.
    """

    __slots__ = ("groups", "on", "rejections", "result", "unless", "when")

    def __init__(
        self,
        on: Errors = Exception,
        unless: Errors = (),
        when: Callable[[Exception], bool] | None = None,
        result: Callable[[Any], bool] | None = None,
    ) -> None:
        self.on = on if isinstance(on, tuple) else (on,)
        self.unless = unless if isinstance(unless, tuple) else (unless,)
        for kind in (*self.on, *self.unless):
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise TypeError(f"{kind!r} is no exception class")
        plain("when", when)
        plain("result", result)
        self.when = when
        self.result = result
        self.rejections = tuple(kind for kind in self.on if issubclass(kind, Rejected))
        named = (*self.on, *self.unless)
        self.groups = tuple(kind for kind in named if issubclass(kind, BaseExceptionGroup))

    def error(self, error: BaseException) -> Outcome:
        """The outcome of a call that raised."""
        if not isinstance(error, Exception):
            return Outcome.NEUTRAL
        if isinstance(error, ExceptionGroup) and not isinstance(error, self.groups):
            within = {self.error(one) for one in error.exceptions}
            for outcome in (Outcome.FAILED, Outcome.OK):
                if outcome in within:
                    return outcome
            return Outcome.NEUTRAL
        if isinstance(error, Rejected) and not isinstance(error, self.rejections):
            return Outcome.NEUTRAL
        if not isinstance(error, self.on) or isinstance(error, self.unless):
            return Outcome.OK
        if self.when is not None and not self.when(error):
            return Outcome.OK
        return Outcome.FAILED

    def value(self, value: Any) -> Outcome:
        """The outcome of a call that returned."""
        if self.result is not None and self.result(value):
            return Outcome.FAILED
        return Outcome.OK


_MOST_WORDS = 200


def in_words(error: BaseException | None) -> str:
    """What a failure was, for people, in 200 characters at most; empty: it was no error."""
    if error is None:
        return ""
    try:
        text = str(error)
    except Exception:
        text = ""
    name = type(error).__name__
    return (f"{name}: {text}" if text else name)[:_MOST_WORDS]
