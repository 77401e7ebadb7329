"""Events counted for Prometheus and OpenTelemetry, with their own client and SDK."""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from everup.tolerate import (
    Breaker,
    BreakerOpen,
    Consecutive,
    Hedge,
    Keyed,
    Meter,
    Pipeline,
    Policy,
    RateLimit,
    RateLimited,
    Retry,
    RetryBudget,
    TimedOut,
    Timeout,
)
from everup.tolerate.sinks import OtelSink, PrometheusSink, _counts
from everup.tolerate.testing import FakeClock

Seen = dict[tuple[str, str, str], float]
Labels = ("dependency", "policy", "event")


class Prometheus:
    """What is scraped, through the text format."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sink: PrometheusSink | None = None

    def show(self, *sources: Any) -> PrometheusSink:
        self.sink = PrometheusSink(*sources, registry=self.registry)
        return self.sink

    def events(self) -> Seen:
        text = generate_latest(self.registry).decode()
        return {
            (labels["dependency"], labels["policy"], labels["event"]): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "tolerate_events_total"
            for labels in [sample.labels]
        }


class Otel:
    """What the SDK of OpenTelemetry collects."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])

    def show(self, *sources: Any) -> OtelSink:
        return OtelSink(*sources, meter=self.provider.get_meter("everup.tolerate"))

    def points(self, name: str) -> list[NumberDataPoint]:
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
            if isinstance(point, NumberDataPoint)
        ]

    def events(self) -> Seen:
        return {
            tuple(str((point.attributes or {})[label]) for label in Labels): point.value  # type: ignore[misc]
            for point in self.points("everup.tolerate.events")
        }


@pytest.fixture(params=[Prometheus, Otel])
def reader(request: pytest.FixtureRequest) -> Any:
    return request.param()


def refuse(*_: Any) -> None:
    raise ConnectionError


def fail(times: int, policy: Policy, *kinds: type[BaseException]) -> None:
    for _ in range(times):
        with pytest.raises(kinds or ConnectionError):
            policy.call(refuse, 1)


def test_retries_trips_timeouts_and_hedges_are_counted(reader: Any) -> None:
    clock = FakeClock()
    retry = Retry("again", attempts=3, backoff=0, clock=clock)
    breaker = Breaker("db", trip=Consecutive(4), clock=clock)
    limit = Timeout(1.0, "slow", clock=clock)
    hedge = Hedge(60.0, name="twice", clock=clock)
    reader.show(Pipeline(retry, breaker, name="orders"), limit, hedge)

    async def late() -> None:
        await clock.asleep(5.0)

    async def arefuse() -> None:
        refuse()

    fail(1, Pipeline(retry, breaker))
    fail(1, Pipeline(retry, breaker), BreakerOpen)
    fail(1, breaker, BreakerOpen)
    with pytest.raises(TimedOut):
        clock.run(limit.acall(late))
    with pytest.raises(ConnectionError):
        clock.run(hedge.acall(arefuse))
    assert reader.events() == {
        ("orders", "again", "retry"): 3,  # two, then one: the next was rejected
        ("orders", "again", "gave_up"): 2,
        ("orders", "db", "opened"): 1,
        ("orders", "db", "rejected"): 2,
        ("slow", "slow", "timed_out"): 1,
        ("twice", "twice", "hedged"): 1,
    }


def test_those_of_what_a_meter_watches_count_for_it(reader: Any) -> None:
    retry, budget = Retry("again", attempts=2, backoff=0), RetryBudget()
    meter = Meter("db", watch=(Pipeline(retry, name="p"), budget))
    reader.show(meter, retry)
    fail(3, retry)
    assert reader.events() == {
        ("db", "again", "retry"): 3,
        ("db", "again", "gave_up"): 3,
        ("again", "again", "retry"): 3,
        ("again", "again", "gave_up"): 3,
    }


def test_all_keys_count_as_one_policy(reader: Any) -> None:
    keyed = Keyed(lambda key: Breaker(f"b{key}", trip=Consecutive(1)), key=str, name="hosts")
    reader.show(keyed)
    for key in range(5):
        with pytest.raises(TypeError):
            keyed(len)(key)  # type: ignore[arg-type]
    assert reader.events() == {("hosts", "hosts", "opened"): 5}


def test_one_that_is_in_it_twice_is_counted_once(reader: Any) -> None:
    retry = Retry("again", attempts=2, backoff=0)
    reader.show(Meter("db", watch=(Pipeline(retry, retry, name="p"), retry)))
    fail(1, retry)
    assert reader.events()["db", "again", "retry"] == 1


def test_closed_it_counts_no_longer(reader: Any) -> None:
    retry = Retry("again", attempts=2, backoff=0)
    sink = reader.show(retry)
    fail(1, retry)
    assert len(reader.events()) == 2
    sink.close()
    fail(1, retry)
    assert reader.events() == {}
    assert retry._listeners == ()


def test_a_sink_that_could_not_register_listens_to_nothing() -> None:
    registry, retry = CollectorRegistry(auto_describe=True), Retry("again")
    PrometheusSink(registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        PrometheusSink(retry, registry=registry)
    assert retry._listeners == ()


def test_kinds_without_end_are_bounded(reader: Any) -> None:
    class Chatty(Policy):
        def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
            def guarded(*args: Any) -> Any:
                self._tell(f"kind {args[0]}")

            return guarded

    chatty = Chatty("mine")
    reader.show(chatty)
    guarded = chatty(refuse)
    for number in range(_counts.MOST_KINDS + 9):
        guarded(number)
    seen = reader.events()
    assert len(seen) == _counts.MOST_KINDS + 1
    assert seen["mine", "mine", "other"] == 9


def test_threads_lose_no_count() -> None:
    limit = RateLimit(1, 3600.0)
    limit.try_take()
    counts = _counts.Counts([limit])

    def ask() -> None:
        for _ in range(500):
            try:
                limit.call(refuse)
            except RateLimited:
                pass

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.number for one in counts.now()] == [2000]


def test_a_lock_that_another_thread_held_at_a_fork_is_free_again() -> None:
    counts = _counts.Counts([])
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with counts._lock:
            holding.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # ends a child that hangs
        os._exit(7 if counts.now() == [] else 8)
    done.set()
    thread.join()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    counts.forked()  # nobody holds it: nothing changes
    assert counts.now() == []


def test_the_sdk_of_opentelemetry_takes_all_of_it() -> None:
    """Each instrument, through the real API: units, kinds, attributes."""
    otel, clock = Otel(), FakeClock()
    breaker = Breaker("b", clock=clock)
    meter = Meter("db", watch=(breaker, RetryBudget(clock=clock)), clock=clock)
    sink = otel.show(meter)
    meter.call(len, "a")
    names = {
        metric.name: (type(metric.data).__name__, metric.unit)
        for resource in otel.reader.get_metrics_data().resource_metrics  # type: ignore[union-attr]
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert names == {
        "everup.tolerate.calls": ("Sum", "{call}"),
        "everup.tolerate.call.latency": ("Gauge", "s"),
        "everup.tolerate.state": ("Gauge", "1"),
        "everup.tolerate.value": ("Gauge", "1"),
    }  # no events yet
    breaker.isolate()
    (event,) = otel.points("everup.tolerate.events")
    assert (event.value, dict(event.attributes or {})) == (
        1, {"dependency": "db", "policy": "b", "event": "isolated"},
    )  # fmt: skip
    calls = {(p.attributes or {})["outcome"]: p.value for p in otel.points("everup.tolerate.calls")}
    assert calls == {"ok": 1, "failed": 0, "neutral": 0, "rejected": 0}
    sink.close()
    assert otel.reader.get_metrics_data() is None or otel.points("everup.tolerate.calls") == []
