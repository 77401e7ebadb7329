"""24 hours of a service, from the journal."""

import pytest
from _console import NOW, FakeFeed, entry

from everup.model.journal import Entry
from everup.rooms.console.edge.hub import Hub
from everup.rooms.console.strips import BINS, WINDOW_S, Strip, Strips

DAY = NOW - WINDOW_S
BIN = WINDOW_S / BINS


def at(hours: float) -> float:
    """So many hours after the window begins."""
    return DAY + hours * 3600


def strip(
    *entries: tuple[str, str, float], ready: tuple[str, ...] = (), service: str = "web"
) -> Strip:
    strips = Strips()
    found: list[Entry] = [
        entry(
            n + 1,
            kind,
            subject,
            at=when,
            **({"cause": "exit 1", "run": 1} if "exited" in kind else {"run": 1}),
        )
        for n, (kind, subject, when) in enumerate(entries)
    ]
    strips.begin(found, dict.fromkeys(ready, 1))
    return strips.of(service, NOW)


def begins(*slots: str, when: float = 0.0) -> list[tuple[str, str, float]]:
    return [
        (kind, slot, at(when))
        for slot in slots
        for kind in ("instance.starting", "instance.spawned", "instance.ready")
    ]


def test_up_since_it_started() -> None:
    found = strip(*begins("web.1", when=12))
    assert found.bins == "x" * 24 + "u" * 24 or found.bins == "p" * 24 + "u" * 24
    assert found.down_s == 0
    assert found.since == pytest.approx(at(12), abs=1)
    assert found.valid_s == pytest.approx(12 * 3600, abs=1)


def test_an_outage_is_seen_where_it_was() -> None:
    found = strip(
        *begins("web.1"),
        ("instance.exited", "web.1", at(6)),
        ("instance.backoff", "web.1", at(6)),
        *begins("web.1", when=8),
    )
    assert found.down_s == pytest.approx(2 * 3600, abs=2)
    assert found.bins == "u" * 12 + "DDDD" + "u" * 32
    assert found.since == pytest.approx(at(8), abs=1)


def test_a_short_one_is_seen_as_well() -> None:
    ended = at(6.25)
    found = strip(
        *begins("web.1"), ("instance.exited", "web.1", ended), *begins("web.1", when=6.2501)
    )
    assert found.bins == "u" * 12 + "d" + "u" * 35
    assert 0 < found.down_s < 2


def test_fewer_replicas() -> None:
    found = strip(
        *begins("web.1", "web.2"),
        ("instance.exited", "web.2", at(18)),
        ("instance.backoff", "web.2", at(18)),
    )
    assert found.bins == "u" * 36 + "g" * 12
    assert found.down_s == 0
    assert found.since is None, "it has been up for longer than the window"


def test_stopped_on_purpose_is_no_downtime() -> None:
    found = strip(
        *begins("web.1"),
        ("instance.stopping", "web.1", at(12)),
        ("instance.exited", "web.1", at(12)),
        ("instance.stopped", "web.1", at(12)),
    )
    assert found.bins == "u" * 24 + "p" * 24
    assert found.down_s == 0


def test_down_until_now() -> None:
    found = strip(
        *begins("web.1"),
        ("instance.exited", "web.1", at(23)),
        ("instance.backoff", "web.1", at(23)),
    )
    assert found.bins == "u" * 46 + "DD"
    assert found.since == pytest.approx(at(23), abs=1)


def test_one_of_which_the_window_says_nothing_was_ready_all_the_time() -> None:
    found = strip(("engine.alive", "everup", at(0.0)), ready=("web.1",))
    assert found.bins == "u" * BINS
    assert found.since is None


def test_one_that_the_window_first_sees_end_was_up_before() -> None:
    found = strip(
        ("engine.alive", "everup", at(0.0)),
        ("instance.exited", "web.1", at(12)),
        ("instance.backoff", "web.1", at(12)),
    )
    assert found.bins == "u" * 24 + "D" * 24


def test_one_that_nobody_knows() -> None:
    assert strip(service="other") == Strip("x" * BINS, 0.0, 0.0, None)


def test_it_goes_on() -> None:
    strips = Strips()
    strips.begin([entry(1, "engine.alive", "everup", at=at(0))], {"web.1": 1})
    strips.take(
        [
            entry(2, "instance.exited", "web.1", at=at(12), run=1, cause="exit 1"),
            entry(3, "instance.backoff", "web.1", at=at(12), run=1),
        ]
    )
    assert strips.of("web", NOW).bins == "u" * 24 + "D" * 24
    strips.take(
        [
            entry(4, "not.known", "web.1", at=at(13)),
            entry(5, "instance.ready", "web.1", at=at(18), run=2),
        ]
    )
    assert strips.of("web", NOW).bins == "u" * 24 + "D" * 12 + "u" * 12
    later = strips.of("web", NOW + 6 * 3600)
    assert later.bins == "u" * 12 + "D" * 12 + "u" * 24


def test_a_strip_is_drawn_anew_when_something_happens_and_not_before() -> None:
    hub = Hub(FakeFeed())  # type: ignore[arg-type]
    hub._strips.begin([entry(1, "engine.alive", "everup", at=at(0))], {"web.1": 1})
    first = hub._strip("web", True, NOW)
    assert hub._strip("web", True, NOW + 1) is first
    assert hub._strip("web", True, NOW + 61) is not first
    again = hub._strip("web", True, NOW + 61)
    hub.take([entry(2, "instance.exited", "other.1", at=NOW + 61, run=1)])
    assert hub._strip("web", True, NOW + 62) is again
    hub.take([entry(3, "instance.exited", "web.1", at=NOW + 62, run=1, cause="exit 1")])
    assert hub._strip("web", True, NOW + 63) is not again


def test_a_damaged_entry_costs_nobody_their_console() -> None:
    strips = Strips()
    damaged = [
        entry(2, kind, "web.1", at=at(6), **payload)
        for kind in ("service.scaled", "instance.exited", "instance.ready", "config.reloading")
        for payload in ({"damaged": "x"}, {"run": [], "replicas": "many", "removed": 3})
    ]
    strips.begin([entry(1, "engine.alive", "everup", at=at(0)), *damaged], {"web.1": 1})
    assert len(strips.of("web", NOW).bins) == BINS
