"""Refuse some calls early, so that the others are in time."""

from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from math import inf
from threading import RLock
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar

from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._forks import on_fork, renew
from everup.tolerate._functions import is_function, name_of, plain
from everup.tolerate._options import Seconds, as_seconds, real, seconds, whole
from everup.tolerate._outcome import Errors, Judge, Outcome
from everup.tolerate.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["Shed", "ShedPermit", "arrived", "priority"]

arrived: ContextVar[float] = ContextVar("everup.tolerate.arrived")
"""When the request came that is being served, in seconds of the policy's clock (by default
``time.monotonic()``). A server's middleware sets it; ``Shed(by="wait")`` reads it."""

priority: ContextVar[int] = ContextVar("everup.tolerate.priority")
"""How little the request matters that is being served: 0 most. ``Shed(by="priority")`` reads it."""

Number = Callable[..., float | None]
_BUCKETS = 12  # of the throttle's window


class _Wait:
    """Controlled delay without a queue of its own, as in folly's ``Codel``: see ``Shed``."""

    __slots__ = ("ends_at", "interval_s", "least_s", "max_wait_s", "most_s", "target_s")

    def __init__(self, max_wait_s: float, target_s: float, interval_s: float) -> None:
        self.max_wait_s, self.target_s, self.interval_s = max_wait_s, target_s, interval_s
        self.least_s = 0.0  # of this interval
        self.ends_at = -inf
        self.most_s = max_wait_s  # who waited longer is refused: less under overload

    @property
    def overloaded(self) -> bool:
        return self.most_s < self.max_wait_s

    def refuses(self, waited_s: float, now: float) -> bool:
        """Count one request, and say whether to shed it."""
        if now >= self.ends_at:
            # An interval long past says nothing of now: a quiet time ends every overload.
            stands = self.least_s > self.target_s and now < self.ends_at + self.interval_s
            self.most_s = min(self.max_wait_s, 2 * self.target_s) if stands else self.max_wait_s
            self.ends_at = now + self.interval_s
            self.least_s = waited_s
        elif waited_s < self.least_s:
            self.least_s = waited_s
        return waited_s > self.most_s


class _Throttle:
    """Requests and accepted requests of the last ``window_s``, in a ring of buckets."""

    __slots__ = (
        "accepts",
        "all_accepts",
        "all_requests",
        "bucket_s",
        "epoch",
        "k",
        "least",
        "most",
        "over_at",
        "requests",
    )

    def __init__(self, k: float, window_s: float, least: int, most: float) -> None:
        self.k = k
        self.most = most
        self.least = least
        self.bucket_s = window_s / _BUCKETS
        self.epoch = 0
        self.over_at = -inf  # the end of the epoch
        self.requests = [0] * _BUCKETS
        self.accepts = [0] * _BUCKETS
        self.all_requests = 0
        self.all_accepts = 0

    def chance(self) -> float:
        """Of being refused, for the next request."""
        requests = self.all_requests
        excess = requests - self.k * self.all_accepts
        if excess <= 0 or requests < self.least:
            return 0.0
        chance: float = excess / (requests + 1)
        return chance if chance < self.most else self.most

    def ask(self, now: float) -> float:
        """Count a request, before it is sent, in this ``epoch``; its chance of being refused."""
        if now >= self.over_at:
            self._roll(now)
        requests = self.all_requests  # as in chance()
        excess = requests - self.k * self.all_accepts
        self.requests[self.epoch % _BUCKETS] += 1
        self.all_requests = requests + 1
        if excess <= 0 or requests < self.least:
            return 0.0
        chance: float = excess / (requests + 1)
        return chance if chance < self.most else self.most

    def _roll(self, now: float) -> None:
        epoch = int(now // self.bucket_s)
        for old in range(max(self.epoch + 1, epoch - _BUCKETS + 1), epoch + 1):
            index = old % _BUCKETS
            self.all_requests -= self.requests[index]
            self.all_accepts -= self.accepts[index]
            self.requests[index] = self.accepts[index] = 0
        self.epoch = epoch
        self.over_at = (epoch + 1) * self.bucket_s

    def accept(self, epoch: int) -> None:
        """A request of that epoch was accepted."""
        if epoch + _BUCKETS > self.epoch:  # it has not left the window
            self.accepts[epoch % _BUCKETS] += 1
            self.all_accepts += 1

    def forget(self, epoch: int) -> None:
        """A request of that epoch never was."""
        if epoch + _BUCKETS > self.epoch:
            self.requests[epoch % _BUCKETS] -= 1
            self.all_requests -= 1


class Shed(Policy):
    """Refuses calls under overload, by one of three signs. Raises ``Overloaded``.

    ``by="wait"`` (default), on the server: how long the request has waited before it came here.
    More than ``max_wait_s`` (>= 0, default 0.5): refused, its client has given up or soon will.
    And where the *least* wait of the last ``interval_s`` (> 0, default 0.5) was above ``target_s``
    (>= 0, default 0.05), a queue stands that does not drain: then all above twice the target are
    refused. Controlled delay: Nichols and Jacobson, RFC 8289; this form: Maurer, "Fail at Scale"
    (2015). The wait is ``waited(...)`` in seconds, or the time since ``since(...)``, seconds of the
    clock; default: since ``arrived``. Not known (None, or not set): admitted, not counted.

    ``by="priority"``, on either side: ``load()`` says how busy all is, 0 to 1 (as
    ``Limit.utilisation``), and ``matters(...)`` how little this call matters, 0 most, up to
    ``levels - 1`` (``levels`` >= 2, default 4; beyond counts as that). The last level is refused
    from ``start`` on ((0, 1), default 0.7), the one before later, in equal steps up to 1; level 0
    never. Default: ``priority``; not known: 0.

    ``by="throttle"``, on the client: with a chance of max(0, (requests - k x accepts) /
    (requests + 1)) over the last ``window_s`` (> 0, default 15): Site Reliability Engineering,
    ch. 21. Never more than ``max_chance`` ((0, 1], default 0.9): what still goes through finds out
    that the other side is well again. With both, all is admitted within a minute; with 120 s and
    no highest chance, as in the book, it takes ten. ``k`` >= 1, default 2: the smaller, the sooner.
    Requests are counted before they are sent, refused ones too, so a dependency that hangs is seen;
    but a burst of first calls looks the same, so nothing is refused below ``least`` requests (>= 0,
    default 20). ``on``,
    ``unless``, ``when``, ``result`` say which outcomes were not accepted (see ``Judge``; default:
    every ``Exception``). Neutral ones are taken back.

    ``waited``, ``since`` and ``matters`` are called with the arguments of the call.

    Events: ``rejected`` (by, and what it went by: wait_s; priority, load; chance).
    """

    def __init__(
        self,
        by: Literal["wait", "priority", "throttle"] = "wait",
        *,
        waited: Callable[..., Seconds | None] | None = None,
        since: Number | None = None,
        max_wait_s: Seconds = 0.5,
        target_s: Seconds = 0.05,
        interval_s: Seconds = 0.5,
        matters: Number | None = None,
        load: Callable[[], float] | None = None,
        levels: int = 4,
        start: float = 0.7,
        k: float = 2.0,
        window_s: Seconds = 15.0,
        least: int = 20,
        max_chance: float = 0.9,
        on: Errors = Exception,
        unless: Errors = (),
        when: Callable[[Exception], bool] | None = None,
        result: Callable[[Any], bool] | None = None,
        name: str = "shed",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock)
        if is_function(by):
            raise TypeError(f"by is the function {name_of(by)}: a decorator is made first, @Shed()")
        for option, function in (
            ("waited", waited),
            ("since", since),
            ("matters", matters),
            ("load", load),
        ):
            plain(option, function)
        _check(by in ("wait", "priority", "throttle"), "by: 'wait', 'priority' or 'throttle'")
        _check(by == "wait" or (waited is None and since is None), "waited, since: by='wait'")
        _check(
            by == "priority" or (matters is None and load is None), "matters, load: by='priority'"
        )
        _check(by != "priority" or load is not None, "by='priority' needs load")
        _check(waited is None or since is None, "give waited or since, not both")
        max_wait_s = seconds("max_wait_s", max_wait_s)
        target_s = seconds("target_s", target_s)
        interval_s = seconds("interval_s", interval_s, above=True)
        whole("levels", levels, 2)
        real("start", start, 0, 1, above=True, below=True)
        real("k", k, 1)
        window_s = seconds("window_s", window_s, above=True)
        whole("least", least, 0)
        real("max_chance", max_chance, 0, 1, above=True)
        self.by = by
        self._looks = any(one is not None for one in (waited, since, matters))
        self.judge = Judge(on, unless, when, result)
        # Never held across the user's call. Reentrant: a collection that starts while it is held
        # may close a coroutine that was thrown away, which then gives back what it had.
        self._lock = RLock()
        on_fork(self)
        self._waits = _Wait(max_wait_s, target_s, interval_s)
        self._new_throttle = partial(_Throttle, k, window_s, least, max_chance)
        self._throttle = self._new_throttle()
        self._waited, self._since, self._matters, self._load = waited, since, matters, load
        # From which load on each level is refused; level 0 never.
        self._from = [inf]
        self._from += [1 - (1 - start) * level / (levels - 1) for level in range(1, levels)]

    def forked(self) -> None:
        """In the child of a fork: what another thread was adding up begins anew."""
        if renew(self._lock):
            self._throttle = self._new_throttle()

    @property
    def overloaded(self) -> bool:
        """By wait: whether a queue stood in the last interval."""
        return self._waits.overloaded

    @property
    def chance(self) -> float:
        """By throttle: the chance that the next call is refused."""
        return self._throttle.chance()

    def permit(self, *args: Any, **kwargs: Any) -> "ShedPermit":
        """For ``with`` and ``async with``: the block is the call. The arguments go to ``waited``,
        ``since`` and ``matters``. Entering raises ``Overloaded``."""
        return ShedPermit(self, args, kwargs)

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        if self.by != "throttle":
            admit = self._admit_wait if self.by == "wait" else self._admit_priority

            def admitted(*args: P.args, **kwargs: P.kwargs) -> T:
                admit(call, args, kwargs)
                return call(*args, **kwargs)

            return admitted
        bad = self.judge.result

        def throttled(*args: P.args, **kwargs: P.kwargs) -> T:
            epoch = self._admit_throttle(call)
            try:
                got = call(*args, **kwargs)
                accepted = bad is None or not bad(got)
            except BaseException as error:
                self._raised(error, epoch)
                raise
            if accepted:
                self._accepted(epoch)
            return got

        return throttled

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        if self.by != "throttle":
            admit = self._admit_wait if self.by == "wait" else self._admit_priority

            async def admitted(*args: P.args, **kwargs: P.kwargs) -> T:
                admit(call, args, kwargs)
                return await call(*args, **kwargs)

            return admitted
        bad = self.judge.result

        async def throttled(*args: P.args, **kwargs: P.kwargs) -> T:
            epoch = self._admit_throttle(call)
            try:
                got = await call(*args, **kwargs)
                accepted = bad is None or not bad(got)
            except BaseException as error:
                self._raised(error, epoch)
                raise
            if accepted:
                self._accepted(epoch)
            return got

        return throttled

    # -- deciding

    def _admit_wait(self, call: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        now = self.clock.now()
        if self._waited is not None:
            waited = as_seconds(self._waited(*args, **kwargs))
        else:
            since = arrived.get(None) if self._since is None else self._since(*args, **kwargs)
            waited = None if since is None else now - since
        waits = self._waits
        # Mostly it changes nothing. Without the lock, another thread may just be ending the
        # interval: then this one counts to the one before.
        if waited is None or (now < waits.ends_at and waits.least_s <= waited <= waits.most_s):
            return
        with self._lock:
            refused = waits.refuses(waited, now)
        if refused and not self._off:
            raise self._rejection(call, f"waited {waited:.3g} s before it came here", wait_s=waited)

    def _admit_priority(self, call: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        level = priority.get(0) if self._matters is None else self._matters(*args, **kwargs)
        if not level or level < 0 or self._load is None:
            return
        load = self._load()
        if load >= self._from[min(int(level), len(self._from) - 1)] and not self._off:
            reason = f"priority {level:g} is too low at a load of {load:.2g}"
            raise self._rejection(call, reason, priority=level, load=load)

    def _admit_throttle(self, call: object) -> int:
        now = self.clock.now()
        throttle = self._throttle
        with self._lock:
            chance = throttle.ask(now)
            epoch = throttle.epoch
        if chance > 0 and not self._off and self.clock.random() < chance:
            raise self._rejection(call, "too few calls were accepted of late", chance=chance)
        return epoch

    def _accepted(self, epoch: int) -> None:
        with self._lock:
            self._throttle.accept(epoch)

    def _raised(self, error: BaseException, epoch: int) -> None:
        outcome = self.judge.error(error)
        if outcome is Outcome.OK:
            self._accepted(epoch)
        elif outcome is Outcome.NEUTRAL:
            with self._lock:
                self._throttle.forget(epoch)

    def _rejection(self, call: object, reason: str, **detail: Any) -> Overloaded:
        if self._listeners:
            self._tell("rejected", call, by=self.by, **detail)
        return Overloaded(self.name, reason)


class ShedPermit:
    """What ``Shed.permit`` gives: one call, as a block."""

    __slots__ = ("_args", "_epoch", "_kwargs", "_shed")

    def __init__(self, shed: Shed, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._shed = shed
        self._args = args
        self._kwargs = kwargs
        self._epoch = 0

    def __enter__(self) -> None:
        shed = self._shed
        if shed.by == "throttle":
            self._epoch = shed._admit_throttle(None)
        elif shed.by == "wait":
            shed._admit_wait(None, self._args, self._kwargs)
        else:
            shed._admit_priority(None, self._args, self._kwargs)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shed.by != "throttle":
            return
        if error is None:
            self._shed._accepted(self._epoch)
        else:
            self._shed._raised(error, self._epoch)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)


def _check(right: bool, text: str) -> None:
    if not right:
        raise ValueError(text)
