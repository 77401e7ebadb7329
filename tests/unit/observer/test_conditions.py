"""Conditions come and go by what the journal and the samples tell."""

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from everup.kernel.ctx import Outbox
from everup.kernel.step import Kernel
from everup.model.action import Record
from everup.model.event import Tick
from everup.model.journal import Entry
from everup.model.spec import Service, Spec
from everup.observer.events import Journaled, Resumed, Sampled
from everup.observer.world import View
from everup.rooms.detect.limits import Level, Levels
from everup.rooms.detect.room import Detect

BEGAN, ENDED = "detect.began", "detect.ended"


class Bench:
    """The room on a clock of its own."""

    def __init__(self, *services: Service) -> None:
        self.world = View(Spec(service={s.name: s for s in services}))
        self.room = Detect()
        self.box = Outbox()
        self.kernel: Kernel[View] = Kernel({"detect": self.room}, self.world, self.box, lambda: 0.5)
        self.now = 1000.0
        self.seq = 0
        self.said: list[tuple[str, str, str]] = []

    def _handle(self, event: object) -> None:
        for action in self.kernel.handle(event, self.now):
            assert isinstance(action, Record)
            self.said.append((str(action.kind), action.subject, str(action.payload["condition"])))

    def begin(self) -> None:
        self._handle(Resumed(self.now))

    def tell(self, kind: str, subject: str, past: bool = False, **payload: Any) -> None:
        self.seq += 1
        entry = Entry(self.seq, self.now, self.now, "", kind, subject, payload)
        self.world.take(entry)
        self._handle(Journaled(entry, past))

    def sample(self, **parts: Mapping[str, Any]) -> None:
        whole: dict[str, Any] = {"machine": {}, "instances": {}, **parts}
        self._handle(Sampled(self.now, self.now, **whole))

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.kernel.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.box.fire(self.now)
            self._handle(Tick())
        self.now = until

    def active(self) -> set[tuple[str, str]]:
        return {(c.kind, c.subject) for c in self.room.board}


def web(replicas: int = 1) -> Bench:
    bench = Bench(Service("web", ("serve",), replicas=replicas))
    bench.begin()
    for number in range(1, replicas + 1):
        bench.tell("instance.starting", f"web.{number}", run=1)
        bench.tell("instance.ready", f"web.{number}", run=1)
    return bench


def crash(bench: Bench, name: str = "web.1") -> None:
    bench.tell("instance.exited", name, run=1, cause="exit 1", exit_kind="code", value=1)


def test_a_crash_with_a_quick_restart_is_no_outage() -> None:
    bench = web()
    crash(bench)
    bench.wait(0.1)
    bench.tell("instance.starting", "web.1", run=2)
    bench.tell("instance.ready", "web.1", run=2)
    bench.wait(30.0)
    assert bench.said == [(BEGAN, "web.1", "crashed"), (ENDED, "web.1", "crashed")]


def test_down_is_told_after_a_second_and_ends_when_one_stays_ready() -> None:
    bench = web()
    crash(bench)
    bench.wait(0.9)
    assert ("down", "web") not in bench.active()
    bench.wait(0.2)
    assert ("down", "web") in bench.active()
    bench.tell("instance.starting", "web.1", run=2)
    bench.tell("instance.ready", "web.1", run=2)
    bench.wait(4.0)
    assert ("down", "web") in bench.active()
    bench.wait(2.0)
    assert ("down", "web") not in bench.active()


def test_one_of_two_is_degraded() -> None:
    bench = web(replicas=2)
    crash(bench)
    bench.wait(2.0)
    assert bench.active() == {("crashed", "web.1"), ("degraded", "web")}
    crash(bench, "web.2")
    bench.wait(2.0)
    assert ("down", "web") in bench.active()
    assert ("degraded", "web") not in bench.active()


def test_an_operators_stop_and_restart_are_no_findings() -> None:
    bench = web()
    bench.tell("instance.stopping", "web.1", run=1, reason="restart asked for")
    bench.tell("instance.exited", "web.1", run=1, cause="SIGTERM", exit_kind="signal", value=15)
    bench.wait(5.0)
    bench.tell("instance.starting", "web.1", run=2)
    bench.tell("instance.ready", "web.1", run=2)
    bench.tell("instance.stopping", "web.1", run=2, reason="stopped by uid 0")
    bench.tell("instance.exited", "web.1", run=2, cause="SIGTERM", exit_kind="signal", value=15)
    bench.tell("instance.stopped", "web.1", run=2)
    bench.wait(60.0)
    assert bench.said == []


def test_who_waits_for_another_is_not_down_by_that() -> None:
    bench = Bench(Service("web", ("serve",)))
    bench.begin()
    bench.tell("instance.waiting", "web.1", reason="waits for db")
    bench.wait(60.0)
    assert bench.said == []


def test_stopping_a_failed_service_ends_what_was_found() -> None:
    bench = web()
    for _ in range(3):
        crash(bench)
        bench.wait(0.5)
    bench.tell("instance.parked", "web.1", run=1, reason="exit 1")
    bench.wait(2.0)
    kinds = {kind for kind, _ in bench.active()}
    assert kinds == {"crashed", "crash_looping", "parked", "down"}
    bench.tell("instance.stopped", "web.1", run=1)
    assert bench.active() == set()


def test_a_verdict_is_a_hang_until_another_process_is_ready() -> None:
    bench = web()
    bench.tell("instance.unhealthy", "web.1", run=1, reason="liveness: timeout", failed_s=2.0)
    found = bench.room.board.get("hung", "web.1")
    assert found is not None
    assert found.since == bench.now - 2.0
    bench.tell("instance.starting", "web.1", run=2)
    bench.tell("instance.ready", "web.1", run=2)
    assert ("hung", "web.1") not in bench.active()


def test_a_new_observer_repeats_nothing_and_forgets_nothing() -> None:
    bench = web()
    crash(bench)
    bench.wait(2.0)
    assert ("down", "web") in bench.active()
    later = Bench(Service("web", ("serve",)))
    later.now = bench.now
    later.tell("instance.starting", "web.1", past=True, run=1)
    later.tell("instance.ready", "web.1", past=True, run=1)
    later.tell("instance.exited", "web.1", past=True, run=1, cause="exit 1", exit_kind="code")
    for condition in bench.room.board:
        payload = {
            "condition": condition.kind,
            "severity": condition.severity.value,
            "text": condition.text,
            "since": condition.since,
        }
        later.tell(BEGAN, condition.subject, past=True, **payload)
    later.begin()
    assert later.said == []
    assert later.active() == bench.active()


def test_levels_of_samples() -> None:
    bench = web()
    full = {"/data": {"size_bytes": 100.0, "available_bytes": 1.0, "inodes": 0.0}}
    bench.sample(disks=full)
    assert bench.active() == {("disk_short", "/data"), ("disk_full", "/data")}
    bench.sample(disks={"/data": {"size_bytes": 100.0, "available_bytes": 50.0}})
    assert bench.active() == set()
    for _ in range(12):
        bench.sample(instances={"web.1": {"memory_bytes": 95.0, "memory_limit_bytes": 100.0}})
        bench.now += 1
    assert bench.active() == {("memory_short", "web.1")}


def test_a_queue_that_nobody_serves() -> None:
    bench = web()
    for _ in range(4):
        bench.sample(queues={"web.1": (90, 128)})
        bench.now += 1
    assert bench.active() == {("queue_full", "web.1")}


def test_an_oom_kill_is_told_once_by_its_count() -> None:
    bench = web()
    for kills in (3.0, 3.0, 4.0, 4.0):
        bench.sample(instances={"web.1": {"oom_kills": kills}})
        bench.now += 1
    assert [s for s in bench.said if s[2] == "out_of_memory"] == [(BEGAN, "web.1", "out_of_memory")]
    for _ in range(70):
        bench.sample(instances={"web.1": {"oom_kills": 4.0}})
        bench.now += 1
    assert bench.active() == set()


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0.1, 20)), max_size=60))
def test_a_level_alternates(values: list[tuple[float, float]]) -> None:
    level = Level("x", 1.0, 0.5, 3.0, 2.0)
    levels, now, told = Levels(), 0.0, []
    for value, passed in values:
        now += passed
        change = levels.take(level, "a", value, now)
        if change is not None:
            told.append(change)
            assert value >= level.on if change else value < level.off
    assert told == [n % 2 == 0 for n in range(len(told))]
    assert levels.is_active("x", "a") is (len(told) % 2 == 1)
