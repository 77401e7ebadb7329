"""Alerts on the error budget, as the engine gives them."""

from _bench import CRASH, READINESS, WEB, WEB2, Bench, web

from everup.model.event import Remembered, Restart, Start, Stop, Tick
from everup.model.journal import Kind
from everup.model.spec import Restart as RestartPolicy
from everup.model.spec import Service, Slo

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
    assert bench.engine.objectives["web"].alarm.on == frozenset()


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
    assert not bench.engine.objectives


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


def test_the_next_engine_goes_on_with_the_alerts() -> None:
    bench = burning()
    before, spans = bench.now, []
    track = bench.engine.objectives["web"].track
    for since, until in track._counted:
        at = since
        for down_since, down_until in track._down:
            spans += [(at, down_since, True), (down_since, down_until, False)]
            at = down_until
        spans.append((at, until, True))
    bench.die()
    bench.play()
    assert bench.engine.objectives["web"].alarm.on
    bench.tell(Remembered((("web", tuple(spans)),)))
    wait(bench, 100)
    assert bench.told(*ALERTS) == [(Kind.SLO_BURNING, "web")]  # neither again nor over
    assert bench.engine.objectives["web"].track.seen(before, 3600)[2] >= 4
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
