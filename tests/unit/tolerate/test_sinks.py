"""Sinks: what they tell, how they are bounded, and that telling breaks nothing."""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from types import ModuleType

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from everup.tolerate import sinks
from everup.tolerate._base import Policy
from everup.tolerate._windows import State
from everup.tolerate.breaker import Breaker
from everup.tolerate.budget import RetryBudget
from everup.tolerate.bulkhead import Bulkhead
from everup.tolerate.errors import BreakerOpen
from everup.tolerate.keyed import Keyed
from everup.tolerate.meter import Meter
from everup.tolerate.pipeline import Pipeline
from everup.tolerate.retry import Retry
from everup.tolerate.sinks.everup import EverupSink, _after_fork, _running_loop
from everup.tolerate.sinks.logs import LogSink
from everup.tolerate.sinks.otel import Observation, OtelSink
from everup.tolerate.sinks.prometheus import PrometheusSink
from everup.tolerate.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


def fail(times, guarded):
    for _ in range(times):
        with pytest.raises((OSError, BreakerOpen)):
            guarded(OSError())


def act(error=None):
    if error is not None:
        raise error


def test_they_are_loaded_when_asked_for():
    code = (
        "import sys, everup.tolerate.sinks as sinks; before = set(sys.modules); "
        "assert not before & {'logging', 'asyncio', 'socket', 'prometheus_client'}, before; "
        "sinks.LogSink, sinks.EverupSink, sinks.PrometheusSink, sinks.OtelSink; "
        "assert not set(sys.modules) & {'asyncio', 'prometheus_client', 'opentelemetry'}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert sinks.EverupSink is EverupSink
    assert set(sinks.__all__) == {"EverupSink", "LogSink", "OtelSink", "PrometheusSink"}
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = sinks.Nothing


# -- logging


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)

    @property
    def lines(self):
        return [f"{r.levelname} {r.getMessage()}" for r in self.records]


@pytest.fixture
def lines():
    handler = Lines()
    logger = logging.getLogger("everup.tolerate")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_events_become_lines(clock, lines):
    breaker, retry = Breaker("db", clock=clock), Retry(attempts=2, name="again", clock=clock)
    sink = LogSink(breaker, retry, clock=clock)
    fail(5, breaker(act))
    with pytest.raises(BreakerOpen):
        breaker(act)()
    with pytest.raises(OSError, match="gone"):
        retry(act)(OSError("gone"))
    assert lines.lines[0].startswith("WARNING db: opened why=failures calls=5 failures=5 slow=0")
    assert lines.lines[1].startswith("DEBUG db: rejected reason=open retry_after_s=30")
    assert lines.lines[2].startswith("DEBUG again: retry attempt=1 ")
    assert lines.lines[2].endswith(" error=OSError('gone')")
    assert lines.lines[3].startswith("WARNING again: gave_up")
    assert lines.records[0].event.kind == "opened"
    sink.close()
    sink.close()
    breaker.reset()
    assert len(lines.lines) == 4


def test_levels_are_the_user_s_choice(clock):
    handler, logger = Lines(), logging.Logger("mine", logging.INFO)
    logger.addHandler(handler)
    breaker = Breaker("db", clock=clock)
    LogSink(breaker, logger=logger, levels={"isolated": None, "reset": 35}, clock=clock)
    breaker.isolate()
    with pytest.raises(BreakerOpen):
        breaker(act)()  # rejected is for DEBUG
    breaker.reset()
    assert [(r.levelno, r.event.kind) for r in handler.records] == [(35, "reset")]


def test_lines_are_bounded_for_each_kind(clock, lines):
    breaker = Breaker("db", clock=clock)
    LogSink(breaker, burst=2, per_s=0.5, clock=clock)
    breaker.isolate()
    for _ in range(5):
        with pytest.raises(BreakerOpen):
            breaker(act)()
    breaker.reset()
    kinds = [line.split()[2] for line in lines.lines]
    assert kinds == ["isolated", "rejected", "rejected", "reset"]
    clock.advance(2.0)
    breaker.isolate()
    for _ in range(2):
        with pytest.raises(BreakerOpen):
            breaker(act)()
    assert lines.lines[-1].endswith("reason=isolated retry_after_s=None (3 more like it were not "
                                    "written)")  # fmt: skip
    assert len(lines.lines) == 6


def test_names_made_up_at_run_time_do_not_gather(clock, lines, monkeypatch):
    monkeypatch.setattr("everup.tolerate.sinks.logs._MOST_KEYS", 2)
    for number in range(3):
        breaker = Breaker(f"b{number}", clock=clock)
        sink = LogSink(breaker, clock=clock)
        breaker.isolate()
    assert len(lines.lines) == 3
    policies = [Breaker(f"c{number}", clock=clock) for number in range(3)]
    sink = LogSink(*policies, clock=clock)
    for policy in policies:
        policy.isolate()
    assert len(sink._buckets) == 1


@pytest.mark.parametrize("options", [{"per_s": 0}, {"burst": 0}])
def test_log_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        LogSink(**options)


# -- prometheus


def scraped(registry):
    from prometheus_client import generate_latest

    text = generate_latest(registry).decode()
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def test_what_prometheus_scrapes(clock):
    breaker, places = Breaker("db-breaker", clock=clock), Bulkhead(4, name="places", clock=clock)
    lone = Breaker("lone", clock=clock)
    meter = Meter("db", watch=(breaker, places), clock=clock)
    registry = CollectorRegistry(auto_describe=True)
    sink = PrometheusSink(meter, lone, registry=registry)
    guarded = meter(breaker(lambda took_s=0.0, error=None: (clock.advance(took_s), act(error))))
    guarded(0.003)
    guarded(0.2)
    fail(5, lambda error: guarded(0.0, error))
    with pytest.raises(BreakerOpen):
        guarded()
    seen = scraped(registry)

    def value(name, **labels):
        return seen[name, tuple(sorted(labels.items()))]

    outcomes = {o: value("tolerate_calls_total", dependency="db", outcome=o)
                for o in ("ok", "failed", "neutral", "rejected")}  # fmt: skip
    assert outcomes == {"ok": 2, "failed": 5, "neutral": 0, "rejected": 1}
    assert value("tolerate_call_seconds_count", dependency="db") == 7
    assert value("tolerate_call_seconds_sum", dependency="db") == pytest.approx(0.203)
    assert value("tolerate_call_seconds_bucket", dependency="db", le="1e-05") == 5
    assert value("tolerate_call_seconds_bucket", dependency="db", le="0.00512") == 6
    assert value("tolerate_call_seconds_bucket", dependency="db", le="+Inf") == 7
    assert sum(1 for name, _ in seen if name == "tolerate_call_seconds_bucket") == 26
    for state in ("closed", "open", "half-open", "isolated"):
        labels = {"dependency": "db", "policy": "db-breaker", "state": state}
        assert value("tolerate_state", **labels) == (state == "open")
        labels = {"dependency": "lone", "policy": "lone", "state": state}
        assert value("tolerate_state", **labels) == (state == "closed")
    assert value("tolerate_limit", dependency="db", policy="places") == 4
    assert value("tolerate_in_use", dependency="db", policy="places") == 0
    with pytest.raises(ValueError, match="Duplicated"):
        PrometheusSink(registry=registry)
    sink.close()
    assert scraped(registry) == {}
    PrometheusSink(registry=registry, prefix="mine").close()


def test_budgets_keys_and_members_are_shown(clock, otel):
    budget = RetryBudget(clock=clock)
    breakers = Keyed(lambda host: Breaker("same", clock=clock), key=str, name="by-host")
    guard = Pipeline(Retry(clock=clock), Breaker("inner", clock=clock), name="guard")
    meter = Meter("db", watch=budget, clock=clock)
    breakers.get("a").isolate()
    registry = CollectorRegistry()
    PrometheusSink(meter, RetryBudget(clock=clock), breakers, guard, registry=registry)
    budget.withdraw()
    seen = scraped(registry)
    lefts = {labels: value for (name, labels), value in seen.items() if name == "tolerate_left"}
    assert {(dict(labels)["dependency"], value) for labels, value in lefts.items()} == {
        ("db", 99.0), ("budget", 100.0),
    }  # fmt: skip
    assert all(dict(labels)["policy"] == "budget" for labels in lefts)
    states = {
        (dict(labels)["dependency"], dict(labels)["policy"], dict(labels)["state"])
        for (name, labels), value in seen.items()
        if name == "tolerate_state" and value
    }
    assert states == {("by-host", "by-host[a]", "isolated"), ("guard", "inner", "closed")}

    OtelSink(meter, RetryBudget(clock=clock), breakers, guard, meter=otel)
    assert otel.collect("everup.tolerate.value") == {
        ("db", "budget", "left"): 99.0, ("budget", "budget", "left"): 100.0,
    }  # fmt: skip
    found = otel.collect("everup.tolerate.state")
    assert {labels for labels, value in found.items() if value} == states


def test_prometheus_default_registry_and_names():
    sink = PrometheusSink(Meter("db"), prefix="everup_test")
    sink.close()
    with pytest.raises(ValueError, match="two of one name: db, db"):
        PrometheusSink(Meter("db"), Breaker("db"))


# -- OpenTelemetry: a Meter and an Observation of the shape of its API


class OtelMeter:
    """Its callbacks are asked as an SDK does at a collection."""

    def __init__(self):
        self.instruments = {}

    def create_observable_counter(self, name, callbacks=None, unit="", description=""):
        self.instruments[name] = ("counter", callbacks, unit, description)

    def create_observable_gauge(self, name, callbacks=None, unit="", description=""):
        self.instruments[name] = ("gauge", callbacks, unit, description)

    def collect(self, name):
        _, callbacks, _, _ = self.instruments[name]
        found = [observation for callback in callbacks for observation in callback(object())]
        return {tuple(o.attributes.values()): o.value for o in found}


@pytest.fixture
def otel():
    return OtelMeter()


def test_what_opentelemetry_collects(clock, otel):
    breaker, places = Breaker("b", clock=clock), Bulkhead(4, name="places", clock=clock)
    meter = Meter("db", watch=(breaker, places), clock=clock)
    sink = OtelSink(meter, Breaker("lone", clock=clock), meter=otel)
    assert {name: kind for name, (kind, *_) in otel.instruments.items()} == {
        "everup.tolerate.calls": "counter",
        "everup.tolerate.events": "counter",
        "everup.tolerate.call.latency": "gauge",
        "everup.tolerate.state": "gauge",
        "everup.tolerate.value": "gauge",
    }
    guarded = meter(breaker(act))
    assert otel.collect("everup.tolerate.call.latency") == {}
    guarded()
    fail(2, guarded)
    assert otel.collect("everup.tolerate.calls") == {
        ("db", "ok"): 1, ("db", "failed"): 2, ("db", "neutral"): 0, ("db", "rejected"): 0,
    }  # fmt: skip
    latency = otel.collect("everup.tolerate.call.latency")
    assert sorted(latency) == [("db", 0.5), ("db", 0.95), ("db", 0.99)]
    assert otel.collect("everup.tolerate.call.latency") == {}  # none since
    states = otel.collect("everup.tolerate.state")
    assert states["db", "b", "closed"] == states["lone", "lone", "closed"] == 1
    assert sum(states.values()) == 2
    assert otel.collect("everup.tolerate.value") == {
        ("db", "places", "in_use"): 0, ("db", "places", "waiting"): 0, ("db", "places", "limit"): 4,
    }  # fmt: skip
    sink.close()
    assert all(otel.collect(name) == {} for name in otel.instruments)


def test_opentelemetry_s_own_classes_where_it_is_installed(clock, otel, monkeypatch):
    class Theirs:
        def __init__(self, value, attributes=None, context=None):
            self.value, self.attributes, self.context = value, attributes, context

    api, asked = ModuleType("opentelemetry.metrics"), []
    api.Observation = Theirs
    api.get_meter = lambda name: asked.append(name) or otel
    monkeypatch.setitem(sys.modules, "opentelemetry", ModuleType("opentelemetry"))
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", api)
    sink = OtelSink(Meter("db", clock=clock))
    assert asked == ["everup.tolerate"]
    assert otel.collect("everup.tolerate.calls")["db", "ok"] == 0
    assert {type(o) for o in sink._calls(None)} == {Theirs}
    OtelSink(Meter("db", clock=clock), meter=otel, prefix="mine")
    assert asked == ["everup.tolerate"]
    assert "mine.calls" in otel.instruments


def test_without_opentelemetry(monkeypatch, otel):
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    with pytest.raises(ImportError):
        OtelSink(Meter("db"))
    sink = OtelSink(Meter("db"), meter=otel)
    first = next(sink._calls(None))
    assert first == Observation(0, {"dependency": "db", "outcome": "ok"}, None)
    with pytest.raises(ValueError, match="two of one name"):
        OtelSink(Meter("db"), Meter("db"), meter=otel)


# -- everup


class Ear:
    """The socket of an everup."""

    def __init__(self, address):
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)

    def heard(self):
        found = []
        while True:
            try:
                found.append(self._parse(self.socket.recv(4096)))
            except BlockingIOError:
                return found

    def wait(self):
        self.socket.settimeout(30)
        try:
            return self._parse(self.socket.recv(4096))
        finally:
            self.socket.setblocking(False)

    @staticmethod
    def _parse(data):
        pairs = (line.partition("=") for line in data.decode().split("\n"))
        return {name.removeprefix("EVERUP_").lower(): value for name, _, value in pairs}


@pytest.fixture
def ear(tmp_path, monkeypatch):
    ear = Ear(str(tmp_path / "notify"))
    monkeypatch.setenv("EVERUP_NOTIFY", ear.address)
    yield ear
    ear.socket.close()


class Db:
    """A dependency with its breaker and its meter."""

    def __init__(self, clock, name="db"):
        self.clock = clock
        self.breaker = Breaker(f"{name}-breaker", open_s=5.0, clock=clock)
        self.meter = Meter(name, watch=self.breaker, clock=clock)
        self.call = self.meter(self.breaker(self._call))

    def _call(self, error=None):
        self.clock.advance(0.01)
        act(error)


@pytest.fixture
def db(clock):
    return Db(clock)


def test_without_an_everup_it_costs_nothing(clock, db, monkeypatch):
    monkeypatch.delenv("EVERUP_NOTIFY", raising=False)
    sink = EverupSink(db.meter, clock=clock)
    assert (db.meter._hooks, db.breaker._listeners) == ((), ())
    assert sink.start() is None
    db.call()
    clock.advance(100)
    db.call()
    sink.turn()
    sink.close()
    assert (sink.sent, sink.dropped) == (0, 0)


def test_calls_are_told_once_in_an_interval_and_only_if_there_are_any(clock, db, ear):
    db.call()  # before: not told
    sink = EverupSink(db.meter, clock=clock)
    for _ in range(3):
        db.call()
    assert ear.heard() == []
    clock.advance(1.0)
    db.call()  # the first word, of the state
    (told,) = ear.heard()
    assert (told["dependency"], told["breaker"], told["calls"]) == ("db", "closed", "4,0,0,0")
    for _ in range(8):
        clock.advance(1.0)
        db.call()
    assert ear.heard() == []
    fail(1, db.call)
    clock.advance(2.0)
    db.call()
    (told,) = ear.heard()
    assert (told["breaker"], told["calls"]) == ("closed", "9,1,0,0")
    assert float(told["p99_ms"]) == pytest.approx(10, rel=0.2)
    clock.advance(1000)
    sink.turn()
    assert ear.heard() == []
    assert sink.sent == 2


def test_a_change_of_state_is_told_at_once_with_the_calls_that_explain_it(clock, db, ear):
    EverupSink(db.meter, clock=clock)
    db.call()
    fail(5, db.call)
    (told,) = ear.heard()
    # The meter counts the last of them after the breaker has opened.
    assert (told["breaker"], told["calls"]) == ("open", "1,4,0,0")
    clock.advance(5.0)
    db.call()  # the probe: half-open is told, closed comes too soon after it
    assert [t["breaker"] for t in ear.heard()] == ["half-open"]
    clock.advance(1.0)
    db.call()
    (told,) = ear.heard()
    assert (told["breaker"], told["calls"]) == ("closed", "2,0,0,0")


def test_of_many_changes_the_last(clock, db, ear):
    sink = EverupSink(db.meter, changes_per_s=0.5, clock=clock)
    for _ in range(50):
        db.breaker.isolate()
        db.breaker.reset()
    db.breaker.isolate()
    assert [t["breaker"] for t in ear.heard()] == ["isolated"]
    db.breaker.reset()
    assert ear.heard() == []
    clock.advance(2.0)
    sink.turn()
    assert ear.heard() == [{"dependency": "db", "breaker": "closed"}]
    db.breaker.isolate()
    db.breaker.reset()
    clock.advance(2.0)
    sink.turn()
    assert ear.heard() == []  # as it was told


def test_of_all_keys_the_worst(clock, ear):
    breakers = Keyed(lambda host: Breaker(host, clock=clock), key=str, name="by-host")
    members = Pipeline(Retry(clock=clock), Breaker("inner", clock=clock), name="guard")
    meter = Meter("db", watch=members, clock=clock)
    sink = EverupSink(breakers, meter, clock=clock)
    sink.turn()
    assert [(t["dependency"], t["breaker"]) for t in ear.heard()] == [("db", "closed")]
    for host in ("a", "b", "c"):
        breakers.get(host)
    clock.advance(1.0)
    breakers.get("b").isolate()
    members.policies[1].isolate()
    assert {t["dependency"]: t["breaker"] for t in ear.heard()} == {
        "by-host": "isolated", "db": "isolated",
    }  # fmt: skip
    clock.advance(1.0)
    breakers.get("b").reset()
    assert [(t["dependency"], t["breaker"]) for t in ear.heard()] == [("by-host", "closed")]


def test_each_dependency_by_itself(clock, ear):
    first, second, lone = Db(clock, "a"), Db(clock, "b"), Breaker("c", clock=clock)
    both = Meter("a.b", watch=(first.breaker, second.breaker), clock=clock)
    EverupSink(first.meter, second.meter, lone, both, clock=clock)
    lone.isolate()
    first.breaker.isolate()
    told = {t["dependency"]: t["breaker"] for t in ear.heard()}
    # The first event tells what is new of all: of the one that watches two, the worse.
    assert told == {"a": "closed", "b": "closed", "c": "isolated", "a.b": "closed"}
    clock.advance(1.0)
    second.breaker.reset()
    assert {t["dependency"]: t["breaker"] for t in ear.heard()} == {
        "a": "isolated", "a.b": "isolated",
    }  # fmt: skip


def test_a_meter_without_a_breaker(clock, ear):
    meter = Meter("cache", clock=clock)
    sink = EverupSink(meter, interval_s=2.0, clock=clock)
    guarded = meter(act)
    with pytest.raises(BreakerOpen):
        guarded(BreakerOpen("inner", "open"))
    clock.advance(2.0)
    with pytest.raises(asyncio.CancelledError):
        guarded(asyncio.CancelledError())
    assert ear.heard() == [{"dependency": "cache", "calls": "0,0,1,1"}]
    sink.close()


def fill(address):
    """Until its queue takes no more, however long it may be: a sender alone can be stopped by its
    own buffer, before the queue is full. Then not even the first datagram of a new one goes."""
    sent = 1
    while sent:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.sendto(b"X=1", address)
                    sent += 1


def test_a_full_queue_drops_and_tells_the_next_time(clock, db, ear):
    sink = EverupSink(db.meter, clock=clock)
    fill(ear.address)
    fail(5, db.call)
    assert (sink.sent, sink.dropped) == (0, 1)
    for _ in range(3):
        sink.turn()
    assert sink.dropped == 1  # not tried again at once
    assert {"x": "1"} in ear.heard()
    clock.advance(1.0)
    sink.turn()
    (told,) = ear.heard()
    assert (told["breaker"], told["calls"]) == ("open", "0,5,0,0")
    assert (sink.sent, sink.dropped) == (1, 1)


@pytest.mark.parametrize("address", ["/nowhere/at/all", "/" + "x" * 200, "nul\0inside"])
def test_nobody_there_is_no_error(clock, db, address):
    sink = EverupSink(db.meter, address=address, clock=clock)
    fail(5, db.call)
    sink.close()
    assert sink.sent == 0
    assert sink.dropped == 2


def test_an_abstract_address(clock, db, monkeypatch):
    ear = Ear(f"@everup-test-{os.getpid()}")
    monkeypatch.setenv("EVERUP_NOTIFY", ear.address)
    EverupSink(db.meter, clock=clock)
    db.breaker.isolate()
    assert [t["breaker"] for t in ear.heard()] == ["isolated"]
    ear.socket.close()


def test_close_tells_what_is_left_and_then_nothing(clock, db, ear):
    sink = EverupSink(db.meter, clock=clock)
    db.breaker.isolate()
    db.breaker.reset()
    db.call()
    assert len(ear.heard()) == 1
    sink.close()
    (told,) = ear.heard()
    assert (told["breaker"], told["calls"]) == ("closed", "1,0,0,0")
    db.breaker.isolate()
    clock.advance(100)
    db.meter(act)()
    sink.turn()
    sink.close()
    assert ear.heard() == []
    assert db.meter._hooks == ()


def test_a_source_that_breaks_does_not_break_calls(clock, ear):
    class Odd(Policy):
        broken = False

        @property
        def state(self):
            if self.broken:
                raise RuntimeError
            return State.CLOSED

    odd, fine = Odd("odd"), Breaker("fine", clock=clock)
    sink = EverupSink(odd, fine, clock=clock)
    odd.broken = True
    fine.isolate()
    assert [t["dependency"] for t in ear.heard()] == ["fine"]
    assert sink.dropped == 1


def test_events_that_change_no_state_send_nothing(clock, db, ear):
    EverupSink(db.meter, clock=clock)
    db.breaker.isolate()
    assert len(ear.heard()) == 1
    clock.advance(0.5)
    for _ in range(10):
        with pytest.raises(BreakerOpen):
            db.breaker.call(act)
    assert ear.heard() == []


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (
            lambda: EverupSink(interval_s=0),
            ValueError,
            "interval_s must be above 0, .* not 0",
        ),
        (
            lambda: EverupSink(changes_per_s=-1),
            ValueError,
            "changes_per_s must be above 0, .* not -1",
        ),
        (
            lambda: EverupSink(interval_s=float("inf")),
            ValueError,
            "interval_s must be above 0, .* not inf",
        ),
        (lambda: EverupSink(Meter("a b")), ValueError, "'a b' cannot name a dependency"),
        (lambda: EverupSink(Meter("x" * 64)), ValueError, "cannot name"),
        (lambda: EverupSink(Meter("")), ValueError, "cannot name"),
        (lambda: EverupSink(Meter("a\n")), ValueError, "cannot name"),
        (lambda: EverupSink(Meter("a"), Breaker("a")), ValueError, "two of one name"),
        (lambda: EverupSink(*(Meter(f"m{n}") for n in range(65))), ValueError, "65 sources"),
        (lambda: EverupSink(Retry()), TypeError, "retry has neither calls nor a state"),
    ],
)
def test_everup_options(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_a_thread_of_its_own(ear):
    """It tells at once what is new, on the real clock, without any call."""
    breaker = Breaker("db")
    sink = EverupSink(breaker, interval_s=0.01, changes_per_s=100)
    thread = sink.start()
    assert isinstance(thread, threading.Thread)
    assert thread.daemon
    assert sink.start() is thread
    assert ear.wait() == {"dependency": "db", "breaker": "closed"}
    breaker._listeners = ()  # so that nothing but the thread can tell
    breaker.isolate()
    assert ear.wait() == {"dependency": "db", "breaker": "isolated"}
    sink.close()
    assert not thread.is_alive()


def test_a_loop_is_not_looked_for_where_asyncio_is_not_loaded(monkeypatch):
    monkeypatch.delitem(sys.modules, "asyncio")
    assert _running_loop() is None
    assert "asyncio" not in sys.modules


def test_a_task_of_its_own(clock, ear):
    breaker, heard = Breaker("db", clock=clock), []

    async def main():
        sink = EverupSink(breaker, changes_per_s=0.5, clock=clock)
        task = sink.start()
        await asyncio.sleep(1)
        heard.extend(ear.heard())
        breaker.isolate()  # too soon after the first word
        assert ear.heard() == []
        await asyncio.sleep(2)
        heard.extend(ear.heard())
        sink.close()
        with pytest.raises(asyncio.CancelledError):
            await task

    clock.run(main())
    assert [t["breaker"] for t in heard] == ["closed", "isolated"]


def test_while_one_thread_tells_another_does_not_wait(clock, db, ear):
    """Who comes meanwhile has it done once more by the one who is at it."""
    sink = EverupSink(db.meter, changes_per_s=1e9, clock=clock)
    looks = []
    state = type(db.breaker).state.fget

    class Watching(Breaker):
        @property
        def state(self):
            looks.append(1)
            if len(looks) == 1:
                thread = threading.Thread(target=sink.turn)
                thread.start()
                thread.join(30)
                assert not thread.is_alive()
            return state(self)

    watching = Watching("w", clock=clock)
    sink._dependencies[0].breakers = [watching]
    sink.turn()
    assert len(looks) == 2
    assert len(ear.heard()) == 1


def test_after_a_fork_the_child_tells_only_its_own(clock, db, ear):
    sink = EverupSink(db.meter, clock=clock)
    for _ in range(3):
        db.call()
    sink._lock.acquire()  # as if another thread were at it
    pid = os.fork()
    if pid == 0:
        try:
            db.call()
            clock.advance(20)
            db.call()
            ok = sink._runner is None
        finally:
            os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    sink._lock.release()
    (told,) = ear.heard()
    assert told["calls"] == "2,0,0,0"
    clock.advance(20)
    db.call()
    (told,) = ear.heard()
    assert told["calls"] == "4,0,0,0"


def test_what_a_child_forgets(clock, db, ear):
    sink = EverupSink(db.meter, Breaker("lone", clock=clock), clock=clock)
    db.call()
    _after_fork()
    db.breaker.isolate()
    told = {t["dependency"]: t.get("calls") for t in ear.heard()}
    assert told == {"db": None, "lone": None}
    sink.close()
