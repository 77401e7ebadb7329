"""What can be seen of policies and budgets from outside: for meters and sinks."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from everup.tolerate._base import Policy
from everup.tolerate._windows import State
from everup.tolerate.budget import RetryBudget
from everup.tolerate.keyed import Keyed
from everup.tolerate.pipeline import Pipeline

Watchable = Policy | RetryBudget
_VALUES = ("in_use", "waiting", "under_way", "limit", "left")
_WORST_LAST = tuple(
    state.value for state in (State.CLOSED, State.HALF_OPEN, State.OPEN, State.ISOLATED)
)
MOST_KEYS = 64
"""Of a ``Keyed`` that are shown: names without end would fill whatever collects them."""
_LONGEST_KEY = 64


class Watched(NamedTuple):
    """A policy or a budget, as it is at a moment."""

    policy: str
    """Its name; of one of a ``Keyed``: ``keyed[key]``."""
    state: str | None
    """Of a breaker: ``closed``, ``open``, ``half-open`` or ``isolated``. None: it has none."""
    values: Mapping[str, float]
    """What it has of ``in_use``, ``waiting``, ``under_way``, ``limit`` and ``left``."""


def look(source: Any) -> list[Watched]:
    """What can be seen from outside: of a policy or a budget, of the members of a ``Pipeline``, of
    the worst keys of a ``Keyed``."""
    if isinstance(source, Keyed):
        return _worst_keys(source)
    if isinstance(source, Pipeline):
        seen = [one for policy in source.policies for one in look(policy) if _shows(one)]
        return list({one.policy: one for one in reversed(seen)}.values())[::-1]
    state = getattr(source, "state", None)
    found = ((name, getattr(source, name, None)) for name in _VALUES)
    values = {name: value for name, value in found if isinstance(value, int | float)}
    return [Watched(source.name, state.value if isinstance(state, State) else None, values)]


def _shows(seen: Watched) -> bool:
    return seen.state is not None or bool(seen.values)


def _worst_keys(source: Keyed[Any]) -> list[Watched]:
    """Worst first, of equals the one used last; no two of one name."""
    found: list[Watched] = []
    for key, policy in reversed(source.policies().items()):
        name = f"{source.name}[{_text(key)}]"
        inner = isinstance(policy, Keyed | Pipeline)
        found += [
            seen._replace(policy=f"{name}.{seen.policy}" if inner else name)
            for seen in look(policy)
            if _shows(seen)
        ]
    found.sort(key=_how_bad, reverse=True)
    named: dict[str, Watched] = {}
    for seen in found:
        named.setdefault(seen.policy, seen)
        if len(named) == MOST_KEYS:
            break
    return list(named.values())


def _how_bad(seen: Watched) -> tuple[int, float]:
    """By its state, then by how full it is."""
    values, state = seen.values, seen.state
    taken = values.get("in_use", values.get("under_way", 0))
    return -1 if state is None else _WORST_LAST.index(state), taken / (values.get("limit") or 1)


def _text(key: object) -> str:
    """A key as part of a name: bounded, and whatever it is made of."""
    try:
        text = str(key)
    except Exception:
        text = type(key).__name__
    return text[:_LONGEST_KEY].encode("utf-8", "backslashreplace").decode()


def worst_state(sources: Iterable[Any]) -> State | None:
    """Of all breakers in them; None: there is none."""
    return max(states(sources), key=lambda state: _WORST_LAST.index(state.value), default=None)


def states(sources: Iterable[Any]) -> Iterator[State]:
    """Of all breakers in them."""
    for source in sources:
        if isinstance(source, Keyed):
            yield from states(source.policies().values())
        elif isinstance(source, Pipeline):
            yield from states(source.policies)
        elif isinstance(state := getattr(source, "state", None), State):
            yield state


def check_names(sources: Iterable[Any]) -> None:
    """Sinks tell sources apart by their names. Raises ``ValueError`` where two have one."""
    names = sorted(source.name for source in sources)
    if len(set(names)) < len(names):
        raise ValueError(f"two of one name: {', '.join(names)}")
