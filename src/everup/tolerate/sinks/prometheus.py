"""Meters, breakers and events as Prometheus metrics, collected when they are scraped: calls pay
nothing, events a count."""

from collections.abc import Iterator
from importlib import import_module
from itertools import accumulate
from typing import Any

from everup.tolerate._look import Watchable, Watched, check_names, look
from everup.tolerate._windows import State
from everup.tolerate.meter import BOUNDS_S, Meter, Snapshot
from everup.tolerate.sinks._counts import Counts

_EVERY = 4
"""Of the bounds of the buckets, each so-manieth: one to a doubling."""


class PrometheusSink:
    """A collector of ``prometheus_client``, which must be installed.

    ``sources``: meters, policies without one, and budgets. ``registry``: where it registers,
    default ``prometheus_client.REGISTRY``. ``prefix``: of the names, default ``tolerate``:

    - ``tolerate_calls_total`` (dependency, outcome: ok, failed, neutral, rejected)
    - ``tolerate_call_seconds`` (dependency): histogram of the calls that were ok or failed
    - ``tolerate_state`` (dependency, policy, state): 1 for the state that a breaker is in
    - ``tolerate_in_use``, ``tolerate_waiting``, ``tolerate_under_way``, ``tolerate_limit``,
      ``tolerate_left`` (dependency, policy): of bulkheads, limits, budgets
    - ``tolerate_events_total`` (dependency, policy, event): how often a policy has told of an
      event: ``retry``, ``opened``, ``timed_out``, ``hedged``, ``rejected``, ... Those of a meter's
      calls are those of what it watches.

    Of a ``Keyed`` the 64 worst keys are shown, with ``keyed[key]`` as the policy; of a ``Pipeline``
    its members. The events of all keys are counted together.

    The dependency is the name of the meter, or of the policy where it has none. Raises
    ``ValueError`` where two sources have one name, or the registry has these names already: give
    all sources to one sink, or another prefix. Raises ``ImportError`` without prometheus_client.
    """

    def __init__(self, *sources: Watchable, registry: Any = None, prefix: str = "tolerate") -> None:
        check_names(sources)
        # By name, since this package does without it unless this is used.
        self._core = import_module("prometheus_client.core")
        self._sources = sources
        self._prefix = prefix
        self._registry = self._core.REGISTRY if registry is None else registry
        self._counts = Counts(sources)
        try:
            self._registry.register(self)
        except ValueError:
            self._counts.close()
            raise

    def close(self) -> None:
        """Leave the registry, and count no longer."""
        self._registry.unregister(self)
        self._counts.close()

    def collect(self) -> Iterator[Any]:
        """The metrics as they are now."""
        shots = [s.snapshot() for s in self._sources if isinstance(s, Meter)]
        watched = [(shot.name, seen) for shot in shots for seen in shot.watched]
        watched += [
            (source.name, seen)
            for source in self._sources
            if not isinstance(source, Meter)
            for seen in look(source)
        ]
        yield from self._calls(shots)
        yield from self._states(watched)
        yield self._events()
        values = sorted({value for _, seen in watched for value in seen.values})
        for value in values:
            family = self._core.GaugeMetricFamily(
                f"{self._prefix}_{value}", _TEXTS[value], labels=["dependency", "policy"]
            )
            for name, seen in watched:
                if value in seen.values:
                    family.add_metric([name, seen.policy], seen.values[value])
            yield family

    def _calls(self, shots: list[Snapshot]) -> Iterator[Any]:
        calls = self._core.CounterMetricFamily(
            f"{self._prefix}_calls", "Calls, by how they went.", labels=["dependency", "outcome"]
        )
        seconds = self._core.HistogramMetricFamily(
            f"{self._prefix}_call_seconds",
            "How long calls took that were ok or failed.",
            labels=["dependency"],
        )
        for shot in shots:
            for outcome in ("ok", "failed", "neutral", "rejected"):
                calls.add_metric([shot.name, outcome], getattr(shot, outcome))
            sums = list(accumulate(shot.buckets))
            buckets = [(f"{BOUNDS_S[n]:.6g}", sums[n]) for n in range(0, len(BOUNDS_S), _EVERY)]
            seconds.add_metric([shot.name], [*buckets, ("+Inf", sums[-1])], shot.total_s)
        yield calls
        yield seconds

    def _events(self) -> Any:
        family = self._core.CounterMetricFamily(
            f"{self._prefix}_events",
            "Events of policies, by kind.",
            labels=["dependency", "policy", "event"],
        )
        for dependency, policy, event, number in self._counts.now():
            family.add_metric([dependency, policy, event], number)
        return family

    def _states(self, watched: list[tuple[str, Watched]]) -> Iterator[Any]:
        family = self._core.GaugeMetricFamily(
            f"{self._prefix}_state",
            "1 for the state that the breaker is in.",
            labels=["dependency", "policy", "state"],
        )
        for name, seen in watched:
            if seen.state is not None:
                for state in State:
                    is_it = float(seen.state == state.value)
                    family.add_metric([name, seen.policy, state.value], is_it)
        yield family


_TEXTS = {
    "in_use": "Places of the bulkhead that are taken.",
    "waiting": "Calls that wait for a place.",
    "under_way": "Calls under way.",
    "limit": "How many calls may be under way at once.",
    "left": "What is left of the budget.",
}
