"""Alerts on the error budget, as the engine gives them."""

from _bench import CRASH, READINESS, WEB, WEB2, Bench, db, spec_of, web

from everup.model.event import Reload, Remembered, Restart, Start, Stop, Tick
from everup.model.journal import Kind
from everup.model.spec import Restart as RestartPolicy
from everup.model.spec import Service, Slo
from everup.rooms.slo.room import Objectives

ALERTS = (Kind.SLO_BURNING, Kind.SLO_CALM)
SLOW = RestartPolicy(delay=30.0, max_delay=30.0, jitter="none", reset_after=3600.0)


def promised(replicas: int = 1, **more: object) -> Service:
    return web(replicas, **({"slo": Slo(99.9), "probe": READINESS, "restart": SLOW} | more))


def ready(service: Service) -> Bench:
    bench = Bench(service)
    bench.up()
    return bench


def wait(bench: Bench, seconds: float) -> None:
    """Time passes; whatever the engine asks for meanwhile is done."""
    until = bench.now + seconds
    while (due := bench.engine.next_deadline()) is not None and due < until:
        bench.settle(bench.tell(Tick(), max(0.0, due - bench.now)))
    bench.settle(bench.tell(Tick(), until - bench.now))


def crash(bench: Bench) -> None:
    bench.settle(bench.ended(WEB, CRASH))


def test_repeated_outages_alert_once_and_calm_down() -> None:
    bench = ready(promised())
    crash(bench)  # the first restart is immediate
    wait(bench, 1)
    for _ in range(4):
        crash(bench)
        wait(bench, 40)
    told = bench.told(*ALERTS)
    assert told[0] == (Kind.SLO_BURNING, "web")
    burning = next(r for r in bench.records if r.kind is Kind.SLO_BURNING)
    assert burning.payload["urgency"] == "page"
    assert burning.payload["window_s"] == 3600
    assert burning.payload["burn_rate"] >= burning.payload["threshold"] == 14.4
    assert burning.payload["outages"] >= 2
    wait(bench, 600)  # the short window is clean
    assert (Kind.SLO_CALM, "web") in bench.told(*ALERTS)
    wait(bench, 4 * 86400)
    windows = [r.payload["window_s"] for r in bench.records if r.kind is Kind.SLO_BURNING]
    calmed = [r.payload["window_s"] for r in bench.records if r.kind is Kind.SLO_CALM]
    assert sorted(windows) == sorted(calmed)
    assert len(set(windows)) == len(windows)
    assert bench.engine.room(Objectives).objectives["web"].alarm.on == frozenset()


def test_one_long_outage_alerts_while_it_lasts() -> None:
    bench = ready(promised())
    bench.sick.update((WEB, run) for run in range(2, 100))
    crash(bench)
    wait(bench, 299)
    assert bench.told(*ALERTS) == []
    wait(bench, 20)
    assert (Kind.SLO_BURNING, "web") in bench.told(*ALERTS)


def test_who_has_another_replica_is_not_down() -> None:
    bench = ready(promised(2))
    for _ in range(5):
        crash(bench)
        wait(bench, 40)
    assert bench.told(*ALERTS) == []
    assert bench.state(WEB2).alive


def test_what_operators_want_does_not_count() -> None:
    bench = ready(promised(overlap=False))
    for _ in range(3):
        bench.settle(bench.tell(Stop((WEB,), "op")))
        wait(bench, 400)
        bench.settle(bench.tell(Start((WEB,), "op")))
        wait(bench, 10)
        bench.finish(bench.tell(Restart((WEB,), "op")))
        wait(bench, 10)
    assert bench.told(*ALERTS) == []


def test_no_objective_no_alert() -> None:
    bench = ready(promised(slo=None))
    bench.sick.update((WEB, run) for run in range(2, 100))
    crash(bench)
    wait(bench, 1000)
    assert bench.told(*ALERTS) == []
    assert not bench.engine.room(Objectives).objectives


# -- another engine takes over


def burning() -> Bench:
    bench = ready(promised())
    crash(bench)
    wait(bench, 1)
    for _ in range(4):
        crash(bench)
        wait(bench, 40)
    assert bench.told(*ALERTS) == [(Kind.SLO_BURNING, "web")]
    return bench


def spans_of(bench: Bench) -> tuple[tuple[float, float, bool], ...]:
    """All that the engine knows of web, as the journal would tell it."""
    track, spans = bench.engine.room(Objectives).objectives["web"].track, []
    for since, until in track._counted:
        at = since
        for down_since, down_until in track._down:
            spans += [(at, down_since, True), (down_since, down_until, False)]
            at = down_until
        spans.append((at, until, True))
    if track.up is not None:
        spans.append((track.since, bench.now, track.up))
    return tuple(span for span in spans if span[0] < span[1])


def test_the_next_engine_goes_on_with_the_alerts() -> None:
    bench = burning()
    before, spans = bench.now, spans_of(bench)
    bench.die()
    bench.play()
    assert bench.engine.room(Objectives).objectives["web"].alarm.on
    bench.tell(Remembered((("web", spans),)))
    wait(bench, 100)
    assert bench.told(*ALERTS) == [(Kind.SLO_BURNING, "web")]  # neither again nor over
    assert bench.engine.room(Objectives).objectives["web"].track.seen(before, 3600)[2] >= 4
    wait(bench, 600)
    assert bench.told(*ALERTS)[-1] == (Kind.SLO_CALM, "web")


def test_nobody_can_tell_what_was_before() -> None:
    bench = burning()
    bench.die()
    bench.play()
    wait(bench, 30)
    assert bench.told(*ALERTS) == [(Kind.SLO_BURNING, "web")]
    wait(bench, 60)  # nothing has come: it goes by what it sees itself
    assert bench.told(*ALERTS)[-1] == (Kind.SLO_CALM, "web")


def test_an_outage_that_spans_two_engines_goes_on_burning() -> None:
    bench = ready(promised())
    bench.sick.update((WEB, run) for run in range(2, 1000))
    crash(bench)
    wait(bench, 400)
    assert bench.told(*ALERTS)[0] == (Kind.SLO_BURNING, "web")
    spans = spans_of(bench)
    assert not spans[-1][2]
    bench.die()
    bench.play()
    bench.tell(Remembered((("web", spans),)))
    wait(bench, 3600)  # long after what was remembered has left the short window
    assert Kind.SLO_CALM not in [kind for kind, _ in bench.told(*ALERTS)]
    assert bench.engine.room(Objectives).objectives["web"].track.up is False


def test_what_was_never_ready_is_not_held_against_it_by_the_next_engine_either() -> None:
    bench = Bench(promised())
    bench.sick.update((WEB, run) for run in range(1, 1000))
    bench.up()
    wait(bench, 100)
    bench.die()
    bench.play()
    bench.tell(Remembered((("web", ((bench.now - 100, bench.now, False),)),)))
    wait(bench, 1000)
    assert bench.engine.room(Objectives).objectives["web"].track.up is None


def test_the_long_rules_outlive_engines() -> None:
    """A ticket of three days is still on, and is over when its own windows say so."""
    bench = burning()
    wait(bench, 20)
    for _ in range(40):  # 40 x 30 s: more than a tenth of the budget of 30 days
        crash(bench)
        wait(bench, 400)
    on = {rule.long_s for rule in bench.engine.room(Objectives).objectives["web"].alarm.on}
    assert {86400.0, 3 * 86400.0} <= on
    for _ in range(3):
        spans = spans_of(bench)
        bench.die()
        bench.play()
        bench.tell(Remembered((("web", spans),)))
        wait(bench, 60)
        assert {86400.0, 3 * 86400.0} <= {
            rule.long_s for rule in bench.engine.room(Objectives).objectives["web"].alarm.on
        }
    began = [r.payload["window_s"] for r in bench.records if r.kind is Kind.SLO_BURNING]
    assert [began.count(long_s) for long_s in (86400.0, 3 * 86400.0)] == [1, 1]
    wait(bench, 4 * 86400)
    over = [r.payload["window_s"] for r in bench.records if r.kind is Kind.SLO_CALM]
    assert sorted(over) == sorted(began)


# -- the config changes meanwhile


def reload(bench: Bench, *services: Service) -> None:
    bench.finish(bench.tell(Reload(spec_of(*services), "ann")))


def calmed(bench: Bench) -> list[dict[str, object]]:
    return [dict(r.payload) for r in bench.records if r.kind is Kind.SLO_CALM]


def test_a_service_that_is_removed_takes_its_alerts_along() -> None:
    bench = Bench(promised(), db())
    bench.up()
    for _ in range(5):
        crash(bench)
        wait(bench, 40)
    assert bench.told(*ALERTS) == [(Kind.SLO_BURNING, "web")]
    reload(bench, db())
    (calm,) = calmed(bench)
    assert (calm["window_s"], calm["burning"]) == (3600, [])
    assert "web" not in bench.engine.room(Objectives).objectives
    bench.die()
    bench.play()
    assert bench.engine.room(Objectives).objectives == {}


def test_an_objective_that_is_taken_away_takes_its_alerts_along() -> None:
    bench = burning()
    reload(bench, promised(slo=None))
    assert len(calmed(bench)) == 1
    assert bench.engine.room(Objectives).objectives == {}


def test_an_objective_that_went_while_no_engine_lived() -> None:
    bench = burning()
    bench.spec = spec_of(promised(slo=None))
    bench.die()
    bench.play()
    assert len(calmed(bench)) == 1
    assert bench.engine.room(Objectives).objectives == {}


def test_a_lower_objective_calms_at_once_and_a_higher_one_burns_at_once() -> None:
    bench = burning()
    reload(bench, promised(slo=Slo(90.0)))
    assert [c["objective"] for c in calmed(bench)] == [90.0]
    reload(bench, promised(slo=Slo(99.99)))
    assert bench.told(*ALERTS)[2:].count((Kind.SLO_BURNING, "web")) >= 1
    assert bench.last(Kind.SLO_BURNING).payload["objective"] == 99.99


def test_a_shorter_window_leaves_no_alert_of_a_longer_rule() -> None:
    bench = burning()
    for _ in range(40):
        crash(bench)
        wait(bench, 400)
    before = {rule.long_s for rule in bench.engine.room(Objectives).objectives["web"].alarm.on}
    assert 3 * 86400.0 in before
    reload(bench, promised(slo=Slo(99.9, 86400.0)))
    on = {rule.long_s for rule in bench.engine.room(Objectives).objectives["web"].alarm.on}
    assert not on & {86400.0, 3 * 86400.0}
    assert {c["window_s"] for c in calmed(bench)} >= {86400.0, 3 * 86400.0}
    assert calmed(bench)[-1]["burning"] == sorted(on)
