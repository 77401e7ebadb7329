"""Meters, breakers and events as OpenTelemetry metrics, observed when they are collected: calls
pay nothing, events a count."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from everup.tolerate._look import Watchable, Watched, check_names, look
from everup.tolerate._windows import State
from everup.tolerate.meter import Meter, Snapshot
from everup.tolerate.sinks._counts import Counts

_QUANTILES = (0.5, 0.95, 0.99)


class Observation(NamedTuple):
    """What a callback gives, where OpenTelemetry's own class is not installed: of this shape."""

    value: float
    attributes: Mapping[str, str | float]
    context: None = None


class OtelSink:
    """Observable instruments, in OpenTelemetry's sense, on a Meter of its API (1.12 or later).

    ``sources``: our meters, policies without one, and budgets. ``meter``: OpenTelemetry's; default:
    ``opentelemetry.metrics.get_meter("everup.tolerate")``, for which its API must be installed
    (``ImportError``). ``prefix`` of the names, default ``everup.tolerate``:

    - ``everup.tolerate.calls``: counter; dependency, outcome (ok, failed, neutral, rejected)
    - ``everup.tolerate.call.latency``: gauge, seconds; dependency, quantile (0.5, 0.95, 0.99), of
      the calls since the last collection by whatever reader (the API has no histogram that is
      observed)
    - ``everup.tolerate.state``: gauge, 1 for the state a breaker is in; dependency, policy, state
    - ``everup.tolerate.value``: gauge; dependency, policy, what (in_use, waiting, under_way, limit,
      left)
    - ``everup.tolerate.events``: counter; dependency, policy, event (``retry``, ``opened``,
      ``timed_out``, ``hedged``, ``rejected``, ...), of what a meter watches as well

    Of a ``Keyed`` the 64 worst keys are shown, with ``keyed[key]`` as the policy; of a ``Pipeline``
    its members. The events of all keys are counted together.

    Raises ``ValueError`` where two sources have one name.
    """

    def __init__(
        self, *sources: Watchable, meter: Any = None, prefix: str = "everup.tolerate"
    ) -> None:
        check_names(sources)
        # By name, since this package does without it unless this is used.
        try:
            api = import_module("opentelemetry.metrics")
        except ImportError:
            if meter is None:
                raise
            self._observation: Callable[..., Any] = Observation
        else:
            self._observation = api.Observation
            meter = api.get_meter("everup.tolerate") if meter is None else meter
        self._sources = sources
        self._before: dict[str, Snapshot] = {}
        self._counts = Counts(sources)
        meter.create_observable_counter(
            f"{prefix}.calls",
            callbacks=[self._calls],
            unit="{call}",
            description="Calls, by how they went",
        )
        meter.create_observable_counter(
            f"{prefix}.events",
            callbacks=[self._events],
            unit="{event}",
            description="Events of policies, by kind",
        )
        for name, callback, unit, text in (
            ("call.latency", self._latency, "s", "Quantiles since the last collection"),
            ("state", self._states, "1", "1 for the state that the breaker is in"),
            ("value", self._values, "1", "What bulkheads, limits and budgets show"),
        ):
            meter.create_observable_gauge(
                f"{prefix}.{name}", callbacks=[callback], unit=unit, description=text
            )

    def close(self) -> None:
        """Observe nothing any more: the API has no way to take an instrument back."""
        self._sources = ()
        self._counts.close()

    def _shots(self) -> list[Snapshot]:
        return [source.snapshot() for source in self._sources if isinstance(source, Meter)]

    def _watched(self) -> Iterator[tuple[str, Watched]]:
        for source in self._sources:
            for watched in source.watch if isinstance(source, Meter) else (source,):
                for seen in look(watched):
                    yield source.name, seen

    def _calls(self, _options: object) -> Iterator[Any]:
        for shot in self._shots():
            for outcome in ("ok", "failed", "neutral", "rejected"):
                attributes = {"dependency": shot.name, "outcome": outcome}
                yield self._observation(getattr(shot, outcome), attributes)

    def _events(self, _options: object) -> Iterator[Any]:
        for dependency, policy, event, number in self._counts.now():
            attributes = {"dependency": dependency, "policy": policy, "event": event}
            yield self._observation(number, attributes)

    def _latency(self, _options: object) -> Iterator[Any]:
        for shot in self._shots():
            before = self._before.get(shot.name)
            self._before[shot.name] = shot
            fresh = shot if before is None else shot.since(before)
            for quantile in _QUANTILES:
                value = fresh.quantile(quantile)
                if value is not None:
                    attributes = {"dependency": shot.name, "quantile": quantile}
                    yield self._observation(value, attributes)

    def _states(self, _options: object) -> Iterator[Any]:
        for name, seen in self._watched():
            if seen.state is not None:
                for state in State:
                    attributes = {"dependency": name, "policy": seen.policy, "state": state.value}
                    yield self._observation(int(seen.state == state.value), attributes)

    def _values(self, _options: object) -> Iterator[Any]:
        for name, seen in self._watched():
            for what, value in seen.values.items():
                attributes = {"dependency": name, "policy": seen.policy, "what": what}
                yield self._observation(value, attributes)
