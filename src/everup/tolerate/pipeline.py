"""Several policies around one call, compiled to one closure."""

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType, MethodType
from typing import Any, ParamSpec, Self, TypeVar
from weakref import ref

from everup.tolerate._base import Listener, Policy, takes
from everup.tolerate._functions import is_async, name_of
from everup.tolerate.budget import RetryBudget, counted, making
from everup.tolerate.errors import Rejected
from everup.tolerate.fallback import Fallback
from everup.tolerate.keyed import Keyed

P = ParamSpec("P")
T = TypeVar("T")

_MOST = 1000
"""Functions that ``call`` keeps compiled, and as many that ``acall`` does."""
_Compiled = dict[int, tuple[Callable[[], Any], Callable[..., Any]]]
"""By the number of a function: the function, not kept alive, and what it is guarded by."""


class Pipeline(Policy):
    """Policies one inside the other; the first is the outermost.

    ``Pipeline(Fallback([]), Retry(), Breaker(), Timeout(1.0))``: each attempt may take a second,
    the breaker sees each attempt, the retry repeats what fails, and the fallback answers when all
    of that did not help. Pipelines may be members of pipelines: it is as if their members stood
    there. One without members guards nothing.

    It is compiled once for each function that it decorates. ``call`` and ``acall`` compile once for
    each plain function as long as that lives, up to 1000 of them, and so for methods, where no
    member looks at the arguments (as ``Keyed`` does, and ``Fallback`` with more than a value);
    anything else that can be called is compiled each time. What the members keep, they keep over
    all of it.

    It has no events of its own; ``subscribe`` tells of those of all members. Raises ``TypeError``
    for what is no policy, and as its members do for what they cannot guard.
    """

    def __init__(self, *policies: Policy, name: str = "pipeline") -> None:
        super().__init__(name)
        flat: list[Policy] = []
        for place, policy in enumerate(policies, 1):
            if not isinstance(policy, Policy):
                raise TypeError(f"{name}: argument {place} is no policy: {_what(policy)}")
            # A subclass may do more than its members do.
            flat += policy.policies if type(policy) is Pipeline else (policy,)
        self._policies: tuple[Policy, ...] = tuple(flat)
        self._calls: _Compiled = {}
        self._acalls: _Compiled = {}
        self._token = object()
        # To members that do not look at the arguments of a call, a method of an object is a
        # function that gets the object as well. What a subclass does is not known.
        self._blind = not any(
            policy._looks or not type(policy).__module__.startswith("everup.tolerate.")
            for policy in flat
        )

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Its members, the outermost first; those of nested pipelines in their place."""
        return self._policies

    def __repr__(self) -> str:
        return f"<Pipeline {self.name!r}{''.join(f', {one!r}' for one in self._policies)}>"

    def but(self, **options: Any) -> Self:
        """Make another one whose members are new, and one of them has these options instead: each
        goes to the member that takes it, ``name`` to the pipeline, ``clock`` to all of them. Raises
        ``TypeError`` for an option that none takes, or several do: change the member then, and
        build a pipeline."""
        name = options.pop("name", self.name)
        clocked = {"clock": options.pop("clock")} if "clock" in options else {}
        changed: dict[int, dict[str, Any]] = {id(one): {**clocked} for one in self._policies}
        members = {id(one): one for one in self._policies}
        for option, value in options.items():
            takers = [key for key, one in members.items() if takes(one, option)]
            if len(takers) != 1:
                who = " and ".join(members[key].name for key in takers)
                what = f"{who} take {option}" if takers else f"no member takes {option}"
                raise TypeError(f"{self.name}: {what}")
            changed[takers[0]][option] = value
        made = {key: one.but(**changed[key]) for key, one in members.items()}
        return type(self)(*(made[id(one)] for one in self._policies), name=name)

    @contextmanager
    def off(self) -> Iterator[None]:
        """As in ``Policy``, of all members."""
        with ExitStack() as stack:
            for policy in self._policies:
                stack.enter_context(policy.off())
            yield

    @property
    def forgettable(self) -> bool:
        """Whether nothing of weight is lost with it: so say all members. ``Keyed`` asks."""
        return all(getattr(policy, "forgettable", True) for policy in self._policies)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """As in ``Policy``, of the events of all members; a policy that is in it twice tells each
        event once."""
        members = {id(policy): policy for policy in self._policies}
        ends = [policy.subscribe(listener) for policy in members.values()]

        def end() -> None:
            while ends:
                ends.pop()()

        return end

    # -- around a function

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        """The closure for a synchronous call."""
        guarded = call
        for policy, budgets in reversed(self._members()):
            inner = self._known(policy, guarded, call)
            guarded = _named(making(budgets, policy.around, inner), call)
        return guarded

    def around_async(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """The closure for an asynchronous call."""
        guarded: Callable[P, Any] = call
        for policy, budgets in reversed(self._members()):
            inner = self._known(policy, guarded, call)
            guarded = _named(making(budgets, policy.around_async, inner), call)
        return guarded

    def _members(self) -> list[tuple[Policy, tuple[RetryBudget, ...]]]:
        """Each with the budgets into which those further out pay."""
        members: list[tuple[Policy, tuple[RetryBudget, ...]]] = []
        budgets = counted.get()
        for policy in self._policies:
            members.append((policy, budgets))
            budget = getattr(policy, "budget", None)
            if isinstance(budget, RetryBudget):
                budgets = (*budgets, budget)
        return members

    def _known(self, policy: Policy, inner: Callable[P, T], call: object) -> Callable[P, T]:
        """What a policy guards in here. A ``Fallback`` keeps the last good value of each callable,
        and must know it again when the pipeline is compiled anew."""
        if inner is call or not isinstance(policy, (Fallback, Keyed)):
            return inner
        return _Inner(inner, (self._token, call), name_of(call))

    # -- once

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function guarded, once; see ``Policy.call``."""
        plain: Any = function
        given: tuple[Any, ...] = args
        if type(plain) is MethodType and self._blind:
            given, plain = (plain.__self__, *args), plain.__func__
        known = self._calls.get(id(plain))
        if known is not None and known[0]() is plain:
            return known[1](*given, **kwargs)  # type: ignore[no-any-return]
        if type(plain) is not FunctionType or len(self._calls) >= _MOST:
            return super().call(function, *args, **kwargs)
        if is_async(function):
            raise TypeError(f"{name_of(function)} is asynchronous: use acall")
        guarded = self.around(self._weakly(plain))
        self._keep(self._calls, plain, guarded)
        return guarded(*given, **kwargs)  # type: ignore[no-any-return]

    async def acall(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call an asynchronous function guarded, once; see ``Policy.acall``."""
        plain: Any = function
        given: tuple[Any, ...] = args
        if type(plain) is MethodType and self._blind:
            given, plain = (plain.__self__, *args), plain.__func__
        known = self._acalls.get(id(plain))
        if known is not None and known[0]() is plain:
            return await known[1](*given, **kwargs)  # type: ignore[no-any-return]
        if type(plain) is not FunctionType or len(self._acalls) >= _MOST:
            return await super().acall(function, *args, **kwargs)
        is_async(function)
        guarded = self.around_async(self._weakly(plain))
        self._keep(self._acalls, plain, guarded)
        return await guarded(*given, **kwargs)  # type: ignore[no-any-return]

    def _keep(self, calls: _Compiled, function: Any, guarded: Callable[..., Any]) -> None:
        """As long as the function lives: its number may be another's afterwards. Looking into a
        ``WeakKeyDictionary`` would take longer than all the rest."""
        number = id(function)
        calls[number] = ref(function, lambda _: calls.pop(number, None)), guarded

    def _weakly(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, not kept alive: a compiled closure that held it would hold its own key.
        Whoever calls it here has it. When it is gone, nobody waits for what is still under way (in
        the hung thread of a ``Timeout``, say)."""
        alive, name = ref(function), self.name

        def through(*args: Any, **kwargs: Any) -> Any:
            known = alive()
            if known is None:
                raise Rejected(name, "whoever called has gone, and the function with it")
            return known(*args, **kwargs)

        return _named(through, function)


class _Inner:
    """Part of a pipeline, equal to what it makes of the same callable at another time."""

    __slots__ = ("_call", "_of", "guards")

    def __init__(self, call: Callable[..., Any], of: tuple[object, object], guards: str) -> None:
        self._call = call
        self._of = of
        self.guards = guards

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Inner) and self._of == other._of

    def __hash__(self) -> int:
        return hash(self._of)


def _named(closure: Callable[P, T], call: object) -> Callable[P, T]:
    """What a policy has made, with the name of what all of it is for: events tell it."""
    if type(closure) is FunctionType and closure is not call:
        closure.__qualname__ = name_of(call)
    return closure


def _what(thing: object) -> str:
    if isinstance(thing, type) and issubclass(thing, Policy):
        return f"{thing.__name__} is a class, give an object: {thing.__name__}(...)"
    if isinstance(thing, str):
        return f"{thing!r}; a name is given as name={thing!r}"
    if callable(thing):
        return f"{thing!r}; the function comes afterwards: Pipeline(...)(function)"
    return repr(thing)
