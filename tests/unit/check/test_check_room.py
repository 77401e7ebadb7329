"""Checks and beats: when they are told, and when that ends."""

from typing import Any

import pytest

from everup import config
from everup.model.spec import Spec
from everup.observer.bench import Bench
from everup.rooms.check.facts import Checked
from everup.rooms.check.room import Check
from everup.rooms.detect.room import Detect
from everup.rooms.incidents.room import Incidents

CHECKS = """
[service.web]
command = ["web"]
[check.db]
tcp = "db:5432"
needed_by = ["web"]
[check.backup]
heartbeat = "1h"
"""


def spec() -> Spec:
    return config.load(CHECKS, path="everup.toml", directory="/srv")


def bench_of() -> Bench:
    def make() -> dict[str, Any]:
        return {"check": Check(), "detect": Detect(), "incidents": Incidents()}

    return Bench(make, spec())


def active(bench: Bench) -> list[str]:
    board: Any = bench.rooms["detect"]
    return [f"{c.kind} {c.subject}" for c in board.board]


def checked(bench: Bench, ok: bool | None, text: str = "refused") -> None:
    bench.handle(Checked("db", ok, text, bench.now))


def test_so_many_failures_in_a_row_are_told_and_one_success_ends_it() -> None:
    bench = bench_of()
    for ok in (True, False, True, False):
        checked(bench, ok)
        assert active(bench) == []
    checked(bench, False)
    assert active(bench) == ["check_failing check db"]
    checked(bench, None, "UNKNOWN - no idea")
    assert active(bench) == ["check_failing check db"]
    checked(bench, True)
    assert active(bench) == []


def test_what_fails_because_of_it_is_the_same_incident() -> None:
    bench = bench_of()
    checked(bench, False)
    checked(bench, False)
    bench.wait(5.0)
    from everup.model.condition import Began, Condition, Severity

    down = Condition("down", "web", Severity.CRITICAL, "is down", bench.now)
    bench.handle(Began(down))
    bench.wait(5.0)
    assert len(bench.entries("incidents.opened")) == 1
    assert bench.entries("incidents.opened")[0].subject == "check db"


def test_a_job_that_does_not_report_in_time() -> None:
    bench = bench_of()
    bench.wait(3500.0)
    assert active(bench) == []
    bench.wait(200.0)
    assert active(bench) == ["stale check backup"]
    bench.write("check.beat", "backup", {"by": "cron"})
    assert active(bench) == []
    bench.wait(3500.0)
    bench.begin()
    bench.wait(50.0)
    assert active(bench) == []
    bench.wait(100.0)
    assert active(bench) == ["stale check backup"]


def test_the_next_observer_ends_what_the_one_before_has_told() -> None:
    bench = bench_of()
    checked(bench, False)
    checked(bench, False)
    bench.begin()
    assert active(bench) == ["check_failing check db"]
    checked(bench, True)
    assert active(bench) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "checks nothing"),
        ('tcp = "a:1"\nhttp = "http://a/"', "has http and tcp"),
        ('tcp = "a"', "host:port"),
        ('http = "a"', "expected a URL"),
        ('file = "a"', "absolute path"),
        ('process = "("', "no regular expression"),
        ('tcp = "a:1"\nneeded_by = ["x"]', "no such service"),
        ('tcp = "a:1"\nstatus = "ok"', "form"),
    ],
)
def test_checks_that_make_no_sense_are_refused(text: str, problem: str) -> None:
    found = config.check(f"[check.a]\n{text}\n", path="everup.toml", directory="/srv").problems
    assert any(problem in str(one) for one in found), [str(one) for one in found]
