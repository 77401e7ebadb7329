"""``/metrics`` in the Prometheus text format."""

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from everup import __version__
from everup.adapters.metrics import machine
from everup.api.backend import Backend
from everup.api.view import FRESH_S
from everup.model.instance import BreakerState, State
from everup.rooms.dependencies.room import Dependencies

_USAGE = (
    ("everup_instance_memory_bytes", "Resident memory of all processes.", "rss_bytes", False),
    ("everup_instance_processes", "Processes.", "processes", False),
    ("everup_instance_threads", "Threads.", "threads", False),
    ("everup_instance_open_fds", "Open descriptors.", "fds", False),
    ("everup_instance_cpu_seconds", "CPU time used.", "cpu_s", True),
    ("everup_instance_disk_read_bytes", "Bytes read from disk.", "read_bytes", True),
    ("everup_instance_disk_written_bytes", "Bytes written to disk.", "written_bytes", True),
)
_COUNTERS = {
    "net_received_bytes",
    "net_sent_bytes",
    "disk_read_bytes",
    "disk_written_bytes",
}


def metrics_page(backend: Backend) -> tuple[bytes, str]:
    """Body and content type."""
    import time

    if time.monotonic() - backend.metrics.sampled_at > FRESH_S:
        backend.sample()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(backend))
    encode, content_type = choose_encoder("text/plain")
    return encode(registry), content_type


class _Page(Collector):
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("everup_info", "Version of everup.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield from self._instances()
        yield from self._dependencies()
        yield from self._usage()
        yield from _machine(machine())

    def _instances(self) -> Iterator[Metric]:
        labels = ["service", "instance"]
        state = GaugeMetricFamily(
            "everup_instance_state", "1 for the state that it is in.", labels=[*labels, "state"]
        )
        restarts = CounterMetricFamily(
            "everup_instance_restarts", "Restarts since everup started.", labels=labels
        )
        balance = GaugeMetricFamily(
            "everup_instance_in_balance", "1 where new connections go.", labels=labels
        )
        engine = self._backend.engine
        for slot, instance in engine.instances.items():
            names = [slot.service, str(slot)]
            for known in State:
                state.add_metric([*names, known.value], float(instance.state is known))
            restarts.add_metric(names, instance.restarts)
            if engine.services[slot.service].listen:
                active = engine.active.get(slot.service, ())
                balance.add_metric(names, float(instance.lane in active))
        yield from (state, restarts, balance)

    def _dependencies(self) -> Iterator[Metric]:
        """What the processes say of what they depend on."""
        labels = ["service", "instance", "dependency"]
        calls = CounterMetricFamily(
            "everup_dependency_calls",
            "Calls to what it depends on, by how they went, as its process tells them.",
            labels=[*labels, "outcome"],
        )
        breaker = GaugeMetricFamily(
            "everup_dependency_breaker",
            "1 for the state of its breaker.",
            labels=[*labels, "state"],
        )
        latency = GaugeMetricFamily(
            "everup_dependency_p99_seconds", "Latest p99 of the calls.", labels=labels
        )
        engine = self._backend.engine
        for slot, instance in engine.instances.items():
            for name, said in engine.room(Dependencies).of(instance).items():
                names = [slot.service, str(slot), name]
                for outcome in ("ok", "failed", "rejected", "neutral"):
                    calls.add_metric([*names, outcome], said[outcome])
                for state in BreakerState if said["state"] else ():
                    breaker.add_metric([*names, state.value], float(said["state"] == state.value))
                if said["p99_ms"] is not None:
                    latency.add_metric(names, said["p99_ms"] / 1000)
        yield from (calls, breaker, latency)

    def _usage(self) -> Iterator[Metric]:
        slots = list(self._backend.engine.instances)
        for name, text, attribute, counts in _USAGE:
            family = (CounterMetricFamily if counts else GaugeMetricFamily)(
                name, text, labels=["service", "instance"]
            )
            for slot in slots:
                usage = self._backend.metrics.get(slot)
                if usage is not None:
                    family.add_metric([slot.service, str(slot)], getattr(usage, attribute))
            yield family


def _machine(values: dict[str, Any]) -> Iterator[Metric]:
    for name, value in values.items():
        if name == "load":
            value = value[0]
        kind = CounterMetricFamily if name in _COUNTERS else GaugeMetricFamily
        yield kind(f"everup_machine_{name}", f"Machine: {name.replace('_', ' ')}.", value=value)
