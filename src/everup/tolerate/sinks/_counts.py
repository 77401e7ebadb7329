"""Events, counted for sinks whose readers ask when they like."""

from collections.abc import Callable, Iterable
from threading import RLock
from typing import Any, NamedTuple

from everup.tolerate._base import Event, Listener, Policy
from everup.tolerate._forks import on_fork, renew
from everup.tolerate.meter import Meter
from everup.tolerate.pipeline import Pipeline

MOST_KINDS = 64
"""Of the events of one policy; a class of somebody's own may make up kinds without end."""
OTHER = "other"


class Count(NamedTuple):
    """How many events of one kind a policy has told."""

    dependency: str
    policy: str
    event: str
    number: int


class Counts:
    """Counts the events of ``sources``: of what meters watch, and of the members of pipelines. All
    keys of a ``Keyed`` count as one policy."""

    def __init__(self, sources: Iterable[Any]) -> None:
        # A signal handler may count in the middle of a count.
        self._lock = RLock()
        self._numbers: dict[tuple[str, str], dict[str, int]] = {}
        self._ends: list[Callable[[], None]] = []
        on_fork(self)
        for source in sources:
            watched = source.watch if isinstance(source, Meter) else (source,)
            members = {id(policy): policy for one in watched for policy in _members(one)}
            for policy in members.values():
                self._ends.append(policy.subscribe(self._listener(source.name, policy.name)))

    def forked(self) -> None:
        """In the child of a fork: no other thread counts."""
        renew(self._lock)

    def _listener(self, dependency: str, policy: str) -> Listener:
        lock, numbers = self._lock, self._numbers.setdefault((dependency, policy), {})

        def count(event: Event) -> None:
            kind = event.kind
            with lock:
                if kind not in numbers and len(numbers) >= MOST_KINDS:
                    kind = OTHER
                numbers[kind] = numbers.get(kind, 0) + 1

        return count

    def now(self) -> list[Count]:
        """What was counted so far."""
        with self._lock:
            return [
                Count(dependency, policy, event, number)
                for (dependency, policy), numbers in self._numbers.items()
                for event, number in numbers.items()
            ]

    def close(self) -> None:
        """Count no longer, and forget."""
        while self._ends:
            self._ends.pop()()
        with self._lock:
            self._numbers.clear()


def _members(watched: Any) -> Iterable[Policy]:
    """What tells events: a budget does not."""
    if isinstance(watched, Pipeline):
        return watched.policies
    return (watched,) if isinstance(watched, Policy) else ()
