"""One policy for each host, tenant or shard, rather than one for all of them."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from threading import RLock
from typing import Any, Generic, ParamSpec, TypeVar

from everup.tolerate._base import Event, Listener, Policy
from everup.tolerate._clock import Clock
from everup.tolerate._forks import frames_inside, on_fork, renew
from everup.tolerate._functions import plain
from everup.tolerate._options import whole
from everup.tolerate.budget import counted, making

P = ParamSpec("P")
T = TypeVar("T")
Q = TypeVar("Q", bound=Policy)


class _Entry(Generic[Q]):
    __slots__ = ("busy", "heard", "policy")

    def __init__(self, policy: Q) -> None:
        self.policy = policy
        self.busy = 0
        self.heard = False


class Keyed(Policy, Generic[Q]):
    """A policy of its own for each key: ``Keyed(lambda host: Breaker(host), key=lambda url: ...)``.

    ``make(key)`` makes one when its key is first seen. ``key`` is called with the arguments of each
    guarded call; what it gives must be hashable. ``limit``: so many are kept (1 or more, default
    1000). Beyond it one is forgotten, the least recently used of the first of these that there are:
    without a call under way; with one; with something to lose (its ``forgettable`` is False: an
    open breaker). What is forgotten starts anew when its key comes again. Finding it takes time in
    proportion to how many before it have something to lose.

    Events: those of its policies, with ``key`` in their detail; and ``forgotten`` (``key``). Raises
    ``ValueError`` for a limit below 1.
    """

    def __init__(
        self,
        make: Callable[[Any], Q],
        *,
        key: Callable[..., Hashable],
        limit: int = 1000,
        name: str = "keyed",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock)
        plain("make", make)
        plain("key", key)
        self._make = make
        self._key = key
        self._limit = whole("limit", limit)
        # Least recently used first. The lock is held for steps on this dict alone, not for a call,
        # ``make``, ``key`` or a listener. One thread may take it twice: a finalizer, on its way.
        self._entries: OrderedDict[Hashable, _Entry[Q]] = OrderedDict()
        self._lock = RLock()
        on_fork(self)

    def forked(self) -> None:
        """In the child of a fork: the calls of other threads are no more."""
        renew(self._lock)
        for entry in self._entries.values():
            entry.busy = 0
        for names in frames_inside(self, "self", self):
            if "entry" in names:
                names["entry"].busy += 1

    def get(self, key: Hashable) -> Q:
        """The policy of a key, made if need be, to be looked at or used by hand."""
        entry = self._take(key)
        self._leave(entry)
        return entry.policy

    def policies(self) -> dict[Hashable, Q]:
        """Those that there are now, the least recently used first."""
        with self._lock:
            return {key: entry.policy for key, entry in self._entries.items()}

    def forget(self, key: Hashable) -> bool:
        """Whether there was one."""
        with self._lock:
            return self._entries.pop(key, None) is not None

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """As in ``Policy``: of the events of all its policies, made already or not yet."""
        end = super().subscribe(listener)
        with self._lock:
            entries = list(self._entries.items())
        for key, entry in entries:
            self._hear(key, entry)
        return end

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        """The closure for a synchronous call."""
        guards: dict[Hashable, tuple[Q, Callable[P, T]]] = {}
        budgets = counted.get()

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            if self._off:
                return call(*args, **kwargs)
            key = self._key(*args, **kwargs)
            entry = self._take(key)
            try:
                made = guards.get(key)
                if made is None or made[0] is not entry.policy:
                    made = (entry.policy, making(budgets, entry.policy.around, call))
                    self._keep(guards, key, made)
                return made[1](*args, **kwargs)
            finally:
                self._leave(entry)

        return guarded

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """The closure for an asynchronous call."""
        guards: dict[Hashable, tuple[Q, Callable[P, Coroutine[Any, Any, T]]]] = {}
        budgets = counted.get()

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            if self._off:
                return await call(*args, **kwargs)
            key = self._key(*args, **kwargs)
            entry = self._take(key)
            try:
                made = guards.get(key)
                if made is None or made[0] is not entry.policy:
                    made = (entry.policy, making(budgets, entry.policy.around_async, call))
                    self._keep(guards, key, made)
                return await made[1](*args, **kwargs)
            finally:
                self._leave(entry)

        return guarded

    def _keep(self, guards: dict[Hashable, Any], key: Hashable, made: object) -> None:
        # Closures are cheap to make again; what counts is that they do not gather for ever.
        if len(guards) >= self._limit:
            guards.clear()
        guards[key] = made

    def _take(self, key: Hashable) -> _Entry[Q]:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
                entry.busy += 1
                return entry
        policy = self._make(key)
        gone: list[Hashable] = []
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:  # and not made by another thread meanwhile
                entry = _Entry(policy)
                while len(self._entries) >= self._limit:
                    gone.append(self._weakest())
                    del self._entries[gone[-1]]
                self._entries[key] = entry
            entry.busy += 1
        if self._listeners:
            self._hear(key, entry)
            for old in gone:
                self._tell("forgotten", key=old)
        return entry

    def _leave(self, entry: _Entry[Q]) -> None:
        with self._lock:
            entry.busy -= entry.busy > 0  # a fork's child counts its own calls alone

    def _weakest(self) -> Hashable:
        busy: list[Hashable] = []
        for key, entry in self._entries.items():
            if getattr(entry.policy, "forgettable", True):
                if not entry.busy:
                    return key
                busy.append(key)
        return busy[0] if busy else next(iter(self._entries))

    def _hear(self, key: Hashable, entry: _Entry[Q]) -> None:
        """Pass on what the policy tells: from the first listener on, no cost before."""
        with self._lock:
            if entry.heard:
                return
            entry.heard = True

        def pass_on(event: Event) -> None:
            detail = {**event.detail, "key": key}
            for listener in self._listeners:
                try:
                    listener(event._replace(detail=detail))
                except Exception as error:
                    self._complain("listener", listener, error)

        entry.policy.subscribe(pass_on)
