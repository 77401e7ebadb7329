"""What instances say of their dependencies: datagrams, the engine's state, the journal."""

import json
from typing import Any

import pytest
from _bench import CRASH, DB, WEB, WEB2, Bench, db, web
from hypothesis import given
from hypothesis import strategies as st

from everup.adapters.notify import Dependency, dependency, parse
from everup.model.action import Record
from everup.model.event import Heard, Restart, Tick
from everup.model.instance import BreakerState, Slot, State
from everup.model.journal import Kind
from everup.rooms.dependencies import room as dependencies

CLOSED, OPEN, HALF_OPEN, ISOLATED = BreakerState
GONE = Slot("gone", 1)


# -- datagrams


def said(*lines: str) -> Dependency | str | None:
    return dependency(parse("\n".join(lines).encode()))


def test_a_datagram_is_read() -> None:
    assert said(
        "EVERUP_DEPENDENCY=db-1.a_B", "EVERUP_BREAKER=half-open", "EVERUP_CALLS=120,3,0,1",
        "EVERUP_P99_MS=41.5", "STATUS=fine",
    ) == Dependency("db-1.a_B", HALF_OPEN, (120, 3, 0, 1), 41.5)  # fmt: skip
    assert said("EVERUP_DEPENDENCY=db") == Dependency("db", None, (0, 0, 0, 0), None)
    assert said("EVERUP_DEPENDENCY=a", "EVERUP_DEPENDENCY=b", "EVERUP_P99_MS=1e+05") == (
        "b", None, (0, 0, 0, 0), 1e5,
    )  # fmt: skip
    assert said("READY=1", "EVERUP_OTHER=x") is None


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["EVERUP_DEPENDENCY="], "EVERUP_DEPENDENCY=''"),
        (["EVERUP_DEPENDENCY=a b"], "EVERUP_DEPENDENCY='a b'"),
        (["EVERUP_DEPENDENCY=é"], "EVERUP_DEPENDENCY='é'"),
        (["EVERUP_DEPENDENCY=" + "x" * 64], f"EVERUP_DEPENDENCY='{'x' * 64}'"),
        (["EVERUP_DEPENDENCY=" + "x" * 999], f"EVERUP_DEPENDENCY='{'x' * 80}'"),
        (["EVERUP_BREAKER=open"], "EVERUP_BREAKER without EVERUP_DEPENDENCY"),
        (["EVERUP_DEPENDENCY=a", "EVERUP_BREAKER=ajar"], "EVERUP_BREAKER='ajar'"),
        (["EVERUP_DEPENDENCY=a", "EVERUP_CALLS=1,2,3"], "EVERUP_CALLS='1,2,3'"),
        (["EVERUP_DEPENDENCY=a", "EVERUP_CALLS=1,2,3,-4"], "EVERUP_CALLS='1,2,3,-4'"),
        (["EVERUP_DEPENDENCY=a", "EVERUP_CALLS=1,2,3,٤"], "EVERUP_CALLS='1,2,3,٤'"),
        (["EVERUP_DEPENDENCY=a", f"EVERUP_CALLS=1,2,3,{'9' * 13}"],
         f"EVERUP_CALLS='1,2,3,{'9' * 13}'"),
        (["EVERUP_DEPENDENCY=a", "EVERUP_P99_MS=nan"], "EVERUP_P99_MS='nan'"),
        (["EVERUP_DEPENDENCY=a", "EVERUP_P99_MS=1e999"], "EVERUP_P99_MS='1e999'"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_says_why(lines: list[str], why: str) -> None:
    assert said(*lines) == why


@given(st.lists(st.tuples(st.sampled_from([
    "EVERUP_DEPENDENCY", "EVERUP_BREAKER", "EVERUP_CALLS", "EVERUP_P99_MS"
]), st.text("0123456789.,e+-openclsdhalf\0 é", max_size=30))))  # fmt: skip
def test_nothing_raises(fields: list[tuple[str, str]]) -> None:
    found = dependency(tuple(fields))
    if isinstance(found, Dependency):
        assert all(0 <= count < 10**12 for count in found.calls)
        json.dumps(found, allow_nan=False)


# -- the engine


def up(*services: Any) -> Bench:
    bench = Bench(*(services or (db(),)))
    bench.up()
    bench.records.clear()
    return bench


def hear(
    bench: Bench, name: str = "pg", state: BreakerState | None = None, *calls: int,
    slot: Slot = DB, after_s: float = 0.01, **more: Any,
) -> list[Record]:  # fmt: skip
    counts = (*calls, 0, 0, 0, 0)[:4]
    actions = bench.tell(Heard(slot, name, state, counts, **more), after_s)  # type: ignore[arg-type]
    return [a for a in actions if isinstance(a, Record)]


def wait(bench: Bench, most_s: float = 2000.0) -> float:
    """Let time pass from deadline to deadline until the journal gets something; when that was."""
    until = bench.now + most_s
    for _ in range(100):
        if bench.records:
            return bench.now
        due = bench.engine.next_deadline()
        assert due is not None, "nothing would ever happen again"
        assert due <= until, "nothing happens in time"
        bench.tell(Tick(), max(0.0, due - bench.now))
    raise AssertionError("the engine turns on the spot")


def shown(bench: Bench, slot: Slot = DB) -> dict[str, dict[str, Any]]:
    return bench.engine.room(dependencies.Dependencies).of(bench.engine.instances[slot])


def test_what_it_says_is_shown() -> None:
    bench = up()
    assert shown(bench) == {}
    assert hear(bench, "pg", CLOSED, 5, 1, p99_ms=4.5) == []  # closed is nothing new
    hear(bench, "pg", None, 1, 0, 2, 3)
    hear(bench, "cache", None, 7)
    assert shown(bench) == {
        "cache": {"state": None, "calls": 7, "ok": 7, "failed": 0, "rejected": 0, "neutral": 0,
                  "p99_ms": None},
        "pg": {"state": "closed", "calls": 12, "ok": 6, "failed": 1, "rejected": 2, "neutral": 3,
               "p99_ms": 4.5},
    }  # fmt: skip


def test_a_change_of_state_is_written_with_the_calls_so_far() -> None:
    bench = up()
    hear(bench, "pg", CLOSED, 5, 1)
    (record,) = hear(bench, "pg", OPEN, 0, 4, p99_ms=9.0)
    assert (record.kind, record.subject) == (Kind.DEPENDENCY_STATE, "db.1")
    assert record.payload == {
        "run": 1, "dependency": "pg", "before": "closed", "state": "open", "changes": 1,
        "ok": 5, "failed": 5, "rejected": 0, "neutral": 0, "p99_ms": 9.0,
        "so_far": {"pg": {"state": "open", "calls": [5, 5, 0, 0], "p99_ms": 9.0}},
    }  # fmt: skip
    assert hear(bench, "pg", OPEN) == []
    assert [r.payload["state"] for r in hear(bench, "pg", HALF_OPEN)] == ["half-open"]
    assert [r.payload["before"] for r in hear(bench, "other", ISOLATED)] == ["closed"]


def test_a_flapping_breaker_does_not_fill_the_journal() -> None:
    bench = up()
    for _ in range(200):
        hear(bench, "pg", OPEN)
        hear(bench, "pg", CLOSED)
    hear(bench, "pg", ISOLATED)
    assert len(bench.records) == dependencies.STATES
    assert shown(bench)["pg"]["state"] == "isolated"
    bench.records.clear()
    assert wait(bench) - 1000.0 == pytest.approx(dependencies.STATE_EVERY_S, abs=5)
    (record,) = bench.records
    assert (record.payload["state"], record.payload["changes"]) == ("isolated", 391)
    # By and by it may say as much at once again.
    bench.records.clear()
    hear(bench, "pg", CLOSED, after_s=dependencies.STATES * dependencies.STATE_EVERY_S)
    for _ in range(20):
        hear(bench, "pg", OPEN)
        hear(bench, "pg", CLOSED)
    assert len(bench.records) == dependencies.STATES


def test_in_a_long_outage_the_end_is_told_at_once() -> None:
    bench = up()
    hear(bench, "pg", OPEN)
    for _ in range(100):
        hear(bench, "pg", HALF_OPEN, after_s=10.0)
        hear(bench, "pg", OPEN)
    assert len(bench.records) < 30  # of 201
    (record,) = hear(bench, "pg", CLOSED)
    assert (record.payload["before"], record.payload["state"]) == ("open", "closed")
    # One that stays half-open is told in the end.
    for _ in range(9):
        hear(bench, "pg", OPEN)
        hear(bench, "pg", CLOSED)
    hear(bench, "pg", OPEN, after_s=60.0)
    bench.records.clear()
    hear(bench, "pg", HALF_OPEN)
    assert bench.records == []
    since = bench.now
    assert wait(bench) - since == pytest.approx(
        dependencies.RESERVE * dependencies.STATE_EVERY_S, abs=65
    )
    assert bench.records[0].payload["state"] == "half-open"


def test_calls_are_summed_up_every_15_minutes_by_themselves() -> None:
    bench = up(db(), web(1))
    for _ in range(90):
        hear(bench, "pg", None, 10, 1, after_s=1.0)
        hear(bench, "cache", None, 1, after_s=0.0)
    assert bench.records == []
    assert wait(bench) == pytest.approx(1000.0 + dependencies.CALLS_EVERY_S, abs=2)
    (record,) = bench.records
    assert (record.kind, record.subject) == (Kind.DEPENDENCY_CALLS, "db.1")
    assert record.payload == {
        "run": 1,
        "dependencies": {
            "pg": {"ok": 900, "failed": 90, "rejected": 0, "neutral": 0},
            "cache": {"ok": 90, "failed": 0, "rejected": 0, "neutral": 0},
        },
        "so_far": {
            "pg": {"state": None, "calls": [900, 90, 0, 0], "p99_ms": None},
            "cache": {"state": None, "calls": [90, 0, 0, 0], "p99_ms": None},
        },
    }
    # Of what did not change, nothing; and nothing where nothing did.
    bench.records.clear()
    hear(bench, "cache", None, 0, 0, 2)
    bench.tell(Tick(), dependencies.CALLS_EVERY_S + 1)
    (record,) = bench.records
    assert list(record.payload["dependencies"]) == ["cache"]
    bench.records.clear()
    hear(bench, "cache", CLOSED)
    bench.tell(Tick(), dependencies.CALLS_EVERY_S + 1)
    assert bench.records == []
    hear(bench, "cache", None, 1)
    assert [r.kind for r in bench.records] == [Kind.DEPENDENCY_CALLS]  # it was silent for long


def test_an_earlier_wake_for_something_else_loses_nothing() -> None:
    bench = up()
    hear(bench, "pg", None, 1)
    bench.engine.wake("db", bench.now + 5)
    bench.tell(Tick(), 5.0)
    assert bench.records == []
    assert wait(bench) == pytest.approx(1000.0 + dependencies.CALLS_EVERY_S, abs=2)
    assert [r.kind for r in bench.records] == [Kind.DEPENDENCY_CALLS]


@pytest.mark.parametrize("calls", [0, 3])
def test_when_it_ends_its_last_sums_are_written(calls: int) -> None:
    bench = up()
    hear(bench, "pg", CLOSED, calls)
    bench.ended(DB, CRASH)
    found = [r for r in bench.records if r.kind is Kind.DEPENDENCY_CALLS]
    assert len(found) == bool(calls)
    if calls:
        assert found[0].payload["run"] == 1
        kinds = bench.kinds(DB)
        assert kinds.index(Kind.EXITED) < kinds.index(Kind.DEPENDENCY_CALLS)
    assert bench.engine.room(dependencies.Dependencies).reported == {}
    assert shown(bench) == {}


def test_a_new_process_says_its_own() -> None:
    bench = up(web(1))
    hear(bench, "pg", OPEN, 3, slot=WEB)
    actions = bench.tell(Restart((WEB,)))
    hear(bench, "pg", None, 4, slot=WEB, run=1)  # its last words, while its successor starts
    bench.finish(actions)
    assert bench.engine.instances[WEB].run == 2
    assert list(bench.engine.room(dependencies.Dependencies).reported) == []
    (sums,) = [r for r in bench.records if r.kind is Kind.DEPENDENCY_CALLS]
    assert sums.payload["dependencies"]["pg"]["ok"] == 7
    assert sums.payload["run"] == 1
    hear(bench, "pg", None, 1, slot=WEB, run=1)  # too late
    assert shown(bench, WEB) == {}
    hear(bench, "pg", CLOSED, 1, slot=WEB, run=2)
    assert shown(bench, WEB)["pg"]["calls"] == 1


def test_one_that_never_ran_says_nothing_in_the_end() -> None:
    bench = up(db(command=("serve", "crash")))
    assert not bench.told(Kind.DEPENDENCY_CALLS)


def test_who_is_not_there_says_nothing() -> None:
    bench = up(web(2), db(autostart=False))
    for slot in (GONE, DB):
        assert hear(bench, "pg", OPEN, 1, slot=slot) == []
    assert bench.engine.room(dependencies.Dependencies).reported == {}
    hear(bench, "pg", OPEN, 1, slot=WEB2)
    assert list(bench.engine.room(dependencies.Dependencies).reported) == [(WEB2, 1)]


def test_no_more_than_64_and_that_is_told_once() -> None:
    bench = up()
    assert hear(bench, "d0", CLOSED) == []
    for number in range(100):
        hear(bench, f"d{number}", CLOSED, number > 0)
    hear(bench, "d0", CLOSED, 1)
    assert len(shown(bench)) == dependencies.MOST
    assert shown(bench)["d0"]["calls"] == 1
    (record,) = bench.records
    assert (record.kind, record.subject) == (Kind.REFUSED, "everup")
    assert record.payload == {
        "detail": "EVERUP_DEPENDENCY of db.1: it has 64 already", "count": 1,
    }  # fmt: skip


# -- another engine


def test_a_new_engine_knows_what_the_journal_does() -> None:
    bench = up(db(), web(1))
    hear(bench, "pg", CLOSED, 5)
    hear(bench, "cache", None, 1, 1, p99_ms=3.0)
    hear(bench, "pg", None, 0, after_s=dependencies.CALLS_EVERY_S)  # sums
    hear(bench, "pg", OPEN, 0, 4)
    hear(bench, "cache", None, 90)  # the journal does not have these
    hear(bench, "pg", OPEN, 2, slot=WEB)
    before = bench.engine
    bench.records.clear()
    bench.take_over()
    bench.play()
    assert bench.engine is not before
    assert bench.state(DB) is State.READY
    assert shown(bench)["pg"] == {
        "state": "open", "calls": 9, "ok": 5, "failed": 4, "rejected": 0, "neutral": 0,
        "p99_ms": None,
    }  # fmt: skip
    assert shown(bench)["cache"]["calls"] == 2
    assert shown(bench)["cache"]["p99_ms"] == 3.0
    assert shown(bench, WEB)["pg"]["state"] == "open"
    assert not bench.told(Kind.DEPENDENCY_STATE, Kind.DEPENDENCY_CALLS)
    assert hear(bench, "pg", OPEN) == []
    (record,) = hear(bench, "pg", CLOSED)
    assert record.payload["before"] == "open"
    # What was in a state's event and in no sum is summed up in the end.
    bench.ended(DB, CRASH)
    sums = bench.last(Kind.DEPENDENCY_CALLS).payload["dependencies"]
    assert sums == {"pg": {"ok": 0, "failed": 4, "rejected": 0, "neutral": 0}}


def test_of_another_process_nothing_is_known() -> None:
    bench = up()
    hear(bench, "pg", OPEN, 5)
    bench.settle(bench.ended(DB, CRASH))
    due = bench.engine.next_deadline()
    assert due is not None
    bench.settle(bench.tell(Tick(), due - bench.now))
    assert bench.engine.instances[DB].run == 2
    bench.take_over()
    bench.play()
    assert bench.engine.room(dependencies.Dependencies).reported == {}


def test_engine_after_engine() -> None:
    """Each death loses what the journal does not have, and nothing is counted twice."""
    bench = up()
    total = 0
    for turn in range(5):
        state = OPEN if turn % 2 == 0 else CLOSED
        hear(bench, "pg", state, 3)
        total += 3
        hear(bench, "pg", None, 100)
        bench.take_over()
        bench.play()
        assert shown(bench)["pg"]["ok"] == total
    bench.ended(DB, CRASH)
    assert bench.last(Kind.DEPENDENCY_CALLS).payload["dependencies"]["pg"]["ok"] == total


def test_the_journal_can_be_read_back() -> None:
    """Payloads go through JSON."""
    bench = up()
    hear(bench, "pg", OPEN, 5, p99_ms=1.5)
    bench.ended(DB, CRASH)
    for entry in bench.latest():
        assert json.loads(json.dumps(entry.payload)) == entry.payload


# -- several workers of one instance


def test_the_worst_of_its_workers_counts() -> None:
    """Two workers that contradict each other do not make the breaker flap."""
    bench = up()
    assert hear(bench, "pg", CLOSED, voice=1) == []
    (opened,) = hear(bench, "pg", OPEN, voice=2)
    assert opened.payload["state"] == "open"
    for _ in range(100):
        assert hear(bench, "pg", CLOSED, 1, voice=1, after_s=0.001) == []
        assert hear(bench, "pg", OPEN, 0, 1, voice=2) == []
    assert shown(bench)["pg"] == {
        "state": "open", "calls": 200, "ok": 100, "failed": 100, "rejected": 0, "neutral": 0,
        "p99_ms": None,
    }  # fmt: skip
    (closed,) = hear(bench, "pg", CLOSED, voice=2)
    assert (closed.payload["before"], closed.payload["state"]) == ("open", "closed")


def test_a_worker_that_is_gone_has_no_say_for_long() -> None:
    bench = up()
    hear(bench, "pg", OPEN, voice=2)
    hear(bench, "pg", CLOSED, voice=1)
    assert shown(bench)["pg"]["state"] == "open"
    (closed,) = hear(bench, "pg", CLOSED, voice=1, after_s=dependencies.VOICE_S)
    assert closed.payload["state"] == "closed"


def test_a_worker_alone_is_believed_however_long_ago_it_spoke() -> None:
    bench = up()
    hear(bench, "pg", OPEN, voice=2)
    bench.tell(Tick(), 10 * dependencies.VOICE_S)
    assert shown(bench)["pg"]["state"] == "open"
    assert hear(bench, "pg", None, 1, voice=1) == []  # says nothing of its breaker
    assert shown(bench)["pg"]["state"] == "open"


def test_voices_are_bounded() -> None:
    bench = up()
    for voice in range(10 * dependencies.VOICES):
        hear(bench, "pg", CLOSED, voice=voice)
    (said,) = bench.engine.room(dependencies.Dependencies).reported.values()
    assert len(said.dependencies["pg"].voices) == dependencies.VOICES
