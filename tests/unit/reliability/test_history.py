"""The journal folded into outages, maintenance and what nobody saw."""

import json
from itertools import pairwise

import pytest
from _journals import BEGAN, US, Script, stretches
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.reliability import _history_state
from everup.reliability._history_line import (
    DAY_US,
    DEGRADED,
    DOWN,
    PLANNED,
    UNKNOWN,
    UP,
    sweep,
)
from everup.reliability._history_state import Outage, parts
from everup.reliability.history import History

WEB = "web.1"
LIVENESS = "liveness probe: no answer within 0.5 s"
ZERO = int(BEGAN * US)


def seconds(outage: Outage) -> tuple[float, float, float | None, float]:
    """start, detected, starting, end."""
    starting = None if outage.starting < 0 else (outage.starting - ZERO) / US
    return (
        (outage.start - ZERO) / US,
        (outage.detected - ZERO) / US,
        starting,
        (outage.end - ZERO) / US,
    )


def begun() -> Script:
    """Ready at 1 s, from a start at 0."""
    return Script().engine().start(WEB, 1).at(1).ready(WEB, 1)


def one(history: History) -> Outage:
    (outage,) = history.services["web"].outages
    return outage


# -- failures


@pytest.mark.parametrize(
    ("exit_kind", "kind"),
    [("code", "exit"), ("signal", "signal"), ("oom", "oom")],
)
def test_a_crash_is_down_from_its_end_to_ready(exit_kind: str, kind: str) -> None:
    script = begun().at(10).exit(WEB, 1, exit_kind, up_s=9.9).at(12).start(WEB, 2)
    history = script.at(15).ready(WEB, 2).history()
    outage = one(history)
    assert seconds(outage) == (10, 10, 12, 15)
    assert (outage.kind, outage.ended, outage.restarts) == (kind, "ready", 1)
    assert parts(outage) == (0, 2 * US, 3 * US, 5 * US)
    assert stretches(history, WEB, 20) == [(0, 1, PLANNED), (10, 15, DOWN)]
    assert history.services["web"].lives == [(ZERO + 10 * US, int(9.9 * US), True)]


def test_a_failing_probe_is_down_from_its_first_failure() -> None:
    script = begun().at(10).i("suspected", WEB, 1, reason=LIVENESS)
    script.at(12).i("unhealthy", WEB, 1, reason=LIVENESS).i("stopping", WEB, 1, reason=LIVENESS)
    script.at(12.5).exit(WEB, 1, "signal", 9, killed_for=LIVENESS).start(WEB, 2)
    outage = one(script.at(14).ready(WEB, 2).history())
    assert seconds(outage) == (10, 12, 12.5, 14)
    assert outage.kind == "liveness"
    assert parts(outage) == (2 * US, US // 2, 3 * US // 2, 4 * US)


def test_a_failure_began_halfway_between_two_probes_where_the_entry_tells_of_the_good_one() -> None:
    script = begun().at(10).i("suspected", WEB, 1, reason=LIVENESS, ok_ago_s=0.75)
    script.at(12).i("unhealthy", WEB, 1, reason=LIVENESS)
    script.exit(WEB, 1, "signal", 9, killed_for=LIVENESS).up(WEB, 2)
    assert seconds(one(script.history())) == (9.625, 12, 12, 12)


def test_a_suspicion_that_passes_is_no_failure() -> None:
    script = begun().at(10).i("suspected", WEB, 1, reason=LIVENESS).at(11).i("cleared", WEB, 1)
    history = script.at(12).history()
    assert history.services["web"].outages == []
    assert stretches(history, WEB, 12) == [(0, 1, PLANNED)]


def test_not_ready_is_down_without_a_restart() -> None:
    reason = "readiness probe: 503"
    script = begun().at(10).i("suspected", WEB, 1, reason=reason)
    script.at(11).i("running", WEB, 1, reason=reason)
    outage = one(script.at(20).ready(WEB, 1).history())
    assert seconds(outage) == (10, 11, None, 20)
    assert outage.kind == "readiness"
    assert parts(outage) == (1 * US, None, 9 * US, 10 * US)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("startup probe: refused", "startup"),
        ("not started within 5 s", "startup"),
        ("watchdog: no WATCHDOG=1 for 1 s", "watchdog"),
        ("something new", "verdict"),
    ],
)
def test_verdicts(reason: str, kind: str) -> None:
    script = Script().engine().start(WEB, 1).at(5).i("unhealthy", WEB, 1, reason=reason)
    history = script.exit(WEB, 1, "signal", 9, killed_for=reason).at(6).up(WEB, 2).history()
    assert one(history).kind == kind
    assert stretches(history, WEB, 9) == [(0, 5, PLANNED), (5, 6, DOWN)]


def test_a_crash_loop_that_never_gets_ready_is_one_outage() -> None:
    script = begun()
    for run in range(1, 6):
        script.at(10.0 * run).exit(WEB, run).i("backoff", WEB, run, delay_s=5.0)
        script.at(10.0 * run + 5).start(WEB, run + 1)
    outage = one(script.at(60).ready(WEB, 6).history())
    assert seconds(outage) == (10, 10, 15, 60)
    assert outage.restarts == 5
    assert not outage.relapse


def test_a_failure_soon_after_the_last_one_is_a_relapse() -> None:
    script = begun().at(700).exit(WEB, 1).up(WEB, 2).at(900).exit(WEB, 2).up(WEB, 3)
    history = script.at(2000).exit(WEB, 3).at(2001).up(WEB, 4).history()
    assert [o.relapse for o in history.services["web"].outages] == [False, True, False]


def test_a_first_start_that_fails_is_a_failure_and_never_was_up() -> None:
    script = Script().engine().start(WEB, 1).at(1).exit(WEB, 1, "spawn", 2)
    history = script.at(3).up(WEB, 2).history()
    assert stretches(history, WEB, 4) == [(0, 1, PLANNED), (1, 3, DOWN)]
    assert history.services["web"].lives == []  # it never lived


def test_a_member_of_a_group_that_goes_down_with_another_is_down() -> None:
    script = begun().up("db.1", 1).at(10).exit("db.1", 1)
    script.add("group.restarting", "app", crashed="db.1", members=["db.1", WEB])
    reason = "db.1 crashed (one_for_all)"
    script.i("stopping", WEB, 1, reason=reason).at(11).exit(WEB, 1, value=0)
    history = script.up("db.1", 2).at(12).up(WEB, 2).history()
    assert one(history).kind == "group"
    assert seconds(one(history)) == (10, 10, 12, 12)
    assert history.services["db"].outages[0].kind == "exit"


# -- on purpose


def test_what_an_operator_stops_is_maintenance() -> None:
    history = begun().at(10).stop(WEB, 1).at(100).up(WEB, 2).history()
    assert history.services["web"].outages == []
    assert stretches(history, WEB, 200) == [(0, 1, PLANNED), (10, 100, PLANNED)]
    assert [life.failed for life in history.services["web"].lives] == [False]


def test_a_stop_ends_an_outage_without_a_recovery() -> None:
    script = begun().at(10).exit(WEB, 1).at(20)
    script.add("service.wanted", WEB, want=False, by="uid 0", how="stopped")
    history = script.i("stopped", WEB, 1, reason="stopped by uid 0").history()
    assert one(history).ended == "stopped"
    assert parts(one(history)) == (None, None, None, None)
    assert stretches(history, WEB, 30) == [(0, 1, PLANNED), (10, 20, DOWN), (20, 30, PLANNED)]


def test_a_rollout_with_an_overlap_is_no_gap() -> None:
    script = begun().at(10)
    script.add("rollout.started", "web", gen=1, how="reload", slots=[WEB], batch=1, overlap=True)
    script.i("outgoing", WEB, 1, state="ready").start(WEB, 2).at(12).ready(WEB, 2)
    script.i("draining", WEB, 1).at(13).i("stopping", WEB, 1).exit(WEB, 1, value=0)
    script.i("stopped", WEB, 1).add("rollout.done", "web", gen=1, how="reload")
    history = script.history()
    assert stretches(history, WEB, 20) == [(0, 1, PLANNED)]
    assert history.services["web"].outages == []
    (deploy,) = history.services["web"].deploys
    assert (deploy.how, deploy.ok, deploy.end - deploy.start) == ("reload", True, 3 * US)


def test_a_successor_that_fails_while_the_old_one_serves_is_no_outage() -> None:
    script = begun().at(10)
    script.add("rollout.started", "web", gen=1, how="restart", slots=[WEB], batch=1, overlap=True)
    script.i("outgoing", WEB, 1, state="ready").start(WEB, 2).at(11).exit(WEB, 2)
    script.add("rollout.stopped", "web", gen=1, how="restart", reason="it ended")
    history = script.at(20).history()
    assert history.services["web"].outages == []
    assert stretches(history, WEB, 20) == [(0, 1, PLANNED)]
    assert [deploy.ok for deploy in history.services["web"].deploys] == [False]


def test_a_rollout_without_an_overlap_is_maintenance_until_it_fails() -> None:
    script = begun().at(10)
    script.add("rollout.started", "web", gen=1, how="restart", slots=[WEB], batch=1, overlap=False)
    script.i("stopping", WEB, 1, reason="restart asked for").at(11).exit(WEB, 1, value=0)
    script.start(WEB, 2).at(13).exit(WEB, 2).at(14).start(WEB, 3).at(15).ready(WEB, 3)
    history = script.history()
    assert stretches(history, WEB, 20) == [(0, 1, PLANNED), (10, 13, PLANNED), (13, 15, DOWN)]
    assert len(history.services["web"].outages) == 1


def test_work_that_is_done_is_no_failure() -> None:
    script = Script().engine().start("job.1", 1).i("running", "job.1", 1).at(5)
    script.exit("job.1", 1, value=0).i("stopped", "job.1", 1, done=True)
    history = script.history()
    assert history.services["job"].outages == []
    assert stretches(history, "job.1", 9) == [(0, 9, PLANNED)]


def test_a_failed_job_is_down_until_it_is_done() -> None:
    script = Script().engine().start("job.1", 1).i("running", "job.1", 1).at(5)
    script.exit("job.1", 1, value=3).at(6).start("job.1", 2).at(8)
    history = script.exit("job.1", 2, value=0).i("stopped", "job.1", 2, done=True).history()
    (outage,) = history.services["job"].outages
    assert outage.ended == "done"
    assert stretches(history, "job.1", 9) == [(0, 5, PLANNED), (5, 8, DOWN), (8, 9, PLANNED)]


def test_an_instance_that_is_scaled_away_while_it_waits_is_out_of_service() -> None:
    script = begun().up("web.2", 1).at(10).exit("web.2", 1).at(20)
    history = script.add("service.scaled", "web", replicas=1, before=2, by="uid 0").history()
    assert stretches(history, "web.2", 30)[-2:] == [(10, 20, DOWN), (20, 30, PLANNED)]
    assert stretches(history, WEB, 30) == [(0, 1, PLANNED)]


def test_a_service_that_a_reload_takes_away_is_out_of_service() -> None:
    script = begun().at(10).exit(WEB, 1).at(20).add("config.reloading", "everup", removed=["web"])
    history = script.add("config.reloaded", "everup", took_s=0.1).history()
    assert stretches(history, WEB, 30)[-1] == (20, 30, PLANNED)


# -- everup and the machine


def test_everup_taken_down_is_maintenance() -> None:
    script = begun().at(10).add("engine.stopping", "everup", by="uid 0")
    script.i("stopping", WEB, 1, reason="everup is stopping").at(11).exit(WEB, 1, value=0)
    script.i("stopped", WEB, 1).add("engine.stopped", "everup")
    script.at(100).engine().start(WEB, 2).at(101).ready(WEB, 2)
    history = script.history()
    assert stretches(history, WEB, 200) == [(0, 1, PLANNED), (10, 101, PLANNED)]
    assert [(b - a) / US for a, b, cls in history.offs if cls == PLANNED] == [89]


def test_an_engine_that_dies_alone_changes_nothing() -> None:
    script = begun().at(10).engine(takeover=True)
    history = script.at(10.1).i("adopted", WEB, 1, pid=101, state="ready").history()
    assert stretches(history, WEB, 20) == [(0, 1, PLANNED)]


def test_instances_that_outlive_everup_were_up() -> None:
    """Keeper and engine were killed, and `everup up` found the instance as it ran."""
    script = begun().up("web.2", 1).at(1000).engine()
    script.at(1000.5).i("lost", "web.2", 1).i("adopted", WEB, 1, pid=101, state="ready")
    history = script.start("web.2", 2).at(1001).ready("web.2", 2).history()
    assert stretches(history, WEB, 1001) == [(0, 1, PLANNED)]
    assert stretches(history, "web.2", 1001) == [(1, 1000.5, UNKNOWN), (1000.5, 1001, DOWN)]
    (outage,) = history.services["web"].outages
    assert (outage.kind, outage.detected) == ("lost", -1)
    assert parts(outage) == (None, None, US // 2, None)


def test_a_machine_that_goes_down_is_unknown_until_everup_is_back() -> None:
    script = begun().at(10).exit(WEB, 1).at(20)
    script.boot, script.mono, script.wall = "next", 30.0, BEGAN + 500
    script.engine()
    script.mono, script.wall = 31.0, BEGAN + 501
    history = script.start(WEB, 2).ready(WEB, 2).history()
    assert stretches(history, WEB, 600) == [
        (0, 1, PLANNED), (10, 500, UNKNOWN), (500, 501, DOWN),
    ]  # fmt: skip
    assert one(history).blind
    assert parts(one(history)) == (None, None, None, None)


def test_a_step_of_the_wall_clock_makes_no_outage() -> None:
    script = begun().at(10)
    script.wall += 86400 * 365
    script.exit(WEB, 1).at(12).up(WEB, 2)
    script.wall -= 2 * 86400 * 365
    history = script.at(20).exit(WEB, 2).at(21).up(WEB, 3).history()
    assert [(b - a, c) for a, b, c in stretches(history, WEB, 30)] == [
        (1, PLANNED), (2, DOWN), (1, DOWN),
    ]  # fmt: skip
    moments = [outage.start for outage in history.services["web"].outages]
    walls = [round(history.wall(moment) - BEGAN) for moment in moments]
    assert walls == [10 + 86400 * 365, 20 - 86400 * 365]


def test_a_wall_clock_that_went_back_over_a_boot_counts_as_nothing() -> None:
    script = begun().at(10).exit(WEB, 1)
    script.boot, script.mono, script.wall = "next", 5.0, 0.0
    script.engine()
    script.mono = 7.0
    history = script.up(WEB, 2).history()
    assert stretches(history, WEB, 30) == [(0, 1, PLANNED), (10, 12, DOWN)]


def test_an_unknown_boot_is_equal_to_no_other() -> None:
    script = Script(boot="", mono=1000.0).engine().start(WEB, 1).at(1).ready(WEB, 1)
    script.mono, script.wall = 1e6, BEGAN + 500  # of another boot, nobody knows
    history = script.engine().i("lost", WEB, 1).up(WEB, 2).history()
    assert stretches(history, WEB, 600) == [(0, 1, PLANNED), (1, 500, UNKNOWN)]


def test_without_everup_nothing_is_known_since_the_last_entry() -> None:
    script = begun().at(100)
    history = script.history()
    history.close(script.now(history), running=False)
    assert stretches(history, WEB, 100) == [(0, 1, PLANNED), (1, 100, UNKNOWN)]
    history = script.history()
    history.close(script.now(history), running=True)
    assert stretches(history, WEB, 100) == [(0, 1, PLANNED)]


def test_calls_are_counted_by_the_hour() -> None:
    script = begun()
    for hour in (1, 1.5, 2):
        script.at(hour * 3600).calls("web", 10, 2, 1)
    calls = script.history().services["web"].calls
    assert sum(c[0] for c in calls.values()) == 30
    assert [sum(c) for c in calls.values()] == [26, 13]


def test_only_what_is_a_service_has_calls() -> None:
    """What programs name is up to them."""
    history = begun().calls("stripe", 10).calls("web", 1).history()
    assert list(history.services) == ["web"]


def test_the_last_hour_of_calls_is_kept_finer() -> None:
    script = begun()
    for minute in range(0, 24 * 60, 5):
        script.at(60 + minute * 60).calls("web", 1, 0, 0)
    service = History.from_json(json.loads(json.dumps(script.history().to_json()))).services["web"]
    assert 12 <= len(service.recent) <= 14
    assert sum(c[0] for c in service.calls.values()) == 24 * 12


def test_events_that_were_lost_are_told() -> None:
    script = begun().add("journal.degraded", "everup", for_s=1.0, lost_events=7, reason="full")
    assert script.history().lost_events == 7


# -- a journal whose beginning is gone


def test_a_journal_that_begins_in_the_middle() -> None:
    """Left are the last entries of each kind, and all from number 50 on."""
    script = Script()
    script.engine().up(WEB, 1).up("db.1", 4).i("unhealthy", WEB, 1, reason=LIVENESS)
    latest = list(script.rows)
    script.rows.clear()
    script.at(1000).i("suspected", WEB, 7, reason=LIVENESS)
    script.at(1002).i("unhealthy", WEB, 7, reason=LIVENESS)
    script.at(1003).exit(WEB, 7, "signal", 9, killed_for=LIVENESS).up(WEB, 8)
    history = History()
    history.seed(script.rows[0], latest, {WEB: "instance.suspected"})
    history.feed(script.rows)
    assert seconds(one(history)) == (1000, 1002, 1003, 1003)
    assert stretches(history, WEB, 2000) == [(1000, 1003, DOWN)]
    assert stretches(history, "db.1", 2000) == []  # it has no entry since: as it was


# -- state


def test_services_are_up_while_any_replica_is() -> None:
    script = Script().engine().up("web.1", 1).up("web.2", 1)
    script.at(10).exit("web.1", 1).at(20).exit("web.2", 1).at(30).up("web.1", 2)
    history = script.at(40).up("web.2", 2).at(50).history()
    spans = sweep(history.services["web"].lines, ZERO, ZERO + 50 * US)
    assert [((a - ZERO) / US, (b - ZERO) / US, cls) for a, b, cls in spans] == [
        (0, 10, UP), (10, 20, DEGRADED), (20, 30, DOWN), (30, 40, DEGRADED), (40, 50, UP),
    ]  # fmt: skip


KINDS = [
    "starting", "ready", "running", "suspected", "cleared", "unhealthy", "draining", "stopping",
    "exited", "stopped", "lost", "adopted", "outgoing",
]  # fmt: skip
_events = st.lists(
    st.tuples(
        st.sampled_from([*KINDS, "engine", "takeover", "down", "wanted", "unwanted", "rollout"]),
        st.integers(1, 3),
        st.integers(1, 4),
        st.sampled_from([0.0, 0.001, 1.0, 60.0, 90000.0]),
        st.sampled_from([0.0, 0.0, 0.0, -1e6, 1e6]),
    ),
    max_size=60,
)


def any_journal(events: list[tuple[str, int, int, float, float]]) -> Script:
    """Also such as no engine writes: entries may have been lost."""
    script = Script()
    now = 0.0
    for kind, replica, run, step, jump in events:
        now += step
        script.at(now)
        script.wall += jump
        slot = f"web.{replica}"
        if kind in ("engine", "takeover"):
            script.engine(takeover=kind == "takeover")
        elif kind == "down":
            script.add("engine.stopping", "everup").add("engine.stopped", "everup")
        elif kind in ("wanted", "unwanted"):
            script.add("service.wanted", slot, want=kind == "wanted")
        elif kind == "rollout":
            script.add("rollout.started", "web", how="restart", slots=[slot], gen=1)
        else:
            reason = {"reason": "liveness probe: x"} if run == 2 else {}
            state = {"state": "ready"} if kind == "adopted" else {}
            script.i(kind, slot, run, **reason, **state)
    return script


@settings(max_examples=100, deadline=None)
@given(_events, st.integers(0, 60))
def test_the_fold_can_stop_anywhere(
    events: list[tuple[str, int, int, float, float]], split: int
) -> None:
    rows = any_journal(events).rows
    whole = History()
    whole.feed(rows)
    first = History()
    first.feed(rows[:split])
    again = History.from_json(json.loads(json.dumps(first.to_json())))
    again.feed(rows[split:])
    assert json.dumps(again.to_json()) == json.dumps(whole.to_json())


@settings(max_examples=100, deadline=None)
@given(_events, st.floats(0, 1), st.floats(0, 1))
def test_time_adds_up_and_stretches_never_overlap(
    events: list[tuple[str, int, int, float, float]], one: float, other: float
) -> None:
    script = any_journal(events)
    history = script.history()
    end = script.now(history)
    history.close(end, running=True)
    for service in history.services.values():
        born = min((line.born for line in service.lines), default=end)
        a, b = sorted(born + int(part * (end - born)) for part in (one, other))
        for line in service.lines:
            low, high = max(a, line.born), max(b, line.born)
            assert sum(line.sums(low, high)) == high - low
            found = list(line.stretches(line.born, end))
            assert all(x < y for x, y, _ in found)
            assert all(x[1] <= y[0] for x, y in pairwise(found))
        spans = sweep(service.lines, a, b)
        assert sum(y - x for x, y, _ in spans) == (b - a if service.lines else 0)
        assert all(x[1] == y[0] for x, y in pairwise(spans))


def test_old_details_become_counts_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_history_state, "MAX_OUTAGES", 20)
    script = begun()
    for day in range(400):
        for hour in (6, 18):
            run = 2 * day + (hour == 18) + 1
            script.at(86400 * (day + 1) + 3600 * hour).exit(WEB, run).at(
                86400 * (day + 1) + 3600 * hour + 30
            ).up(WEB, run + 1)
    history = script.at(86400 * 402).history()
    service = history.services["web"]
    assert len(service.outages) <= 40
    merged = sum(sum(day.kinds.values()) for day in service.days.values())
    assert merged + len(service.outages) == 800
    end = script.now(history)
    sums = history.slots[WEB].line.sums(ZERO, end)
    assert sum(sums) == end - ZERO
    assert sums[DOWN] == 800 * 30 * US
    assert sum(day.sums[DOWN] for day in service.days.values()) == merged * 30 * US
    repairs = [day.repairs for day in service.days.values()]
    assert sum(r[6] for r in repairs) == merged
    assert sum(r[7] for r in repairs) == merged * 30 * US
    assert service.detail_from % DAY_US == 0


def test_what_is_no_history_is_refused() -> None:
    data = begun().history().to_json()
    with pytest.raises(ValueError, match="version 99"):
        History.from_json({**data, "version": 99})
    with pytest.raises(KeyError):
        History.from_json({"version": data["version"]})
