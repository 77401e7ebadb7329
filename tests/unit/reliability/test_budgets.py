"""Error budgets, burn rates, and the alerts of the SRE workbook."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.reliability.slo import (
    DAY_S,
    RULES,
    Alarm,
    Burn,
    Track,
    Urgency,
    budget,
    burn_rate,
    burns,
    exhausted_in_s,
)

MONTH_S = 30 * DAY_S


def test_budget() -> None:
    whole = budget(99.9, MONTH_S, 0)
    assert whole.allowed == pytest.approx(43.2 * 60, abs=1e-9)  # 43 min 12 s: SRE workbook
    assert whole.left == 1
    assert budget(99.9, MONTH_S, 43.2 * 60).left == pytest.approx(0, abs=1e-9)
    assert budget(99.9, MONTH_S, 2 * 43.2 * 60).left == pytest.approx(-1, abs=1e-9)
    assert budget(99.9, 0, 0).left == 0


def test_burn_rate() -> None:
    assert burn_rate(99.9, 1000, 1) == pytest.approx(1, abs=1e-9)
    assert burn_rate(99.9, 1000, 1000) == pytest.approx(1000, abs=1e-9)
    assert burn_rate(99.9, 0, 0) == 0
    assert exhausted_in_s(1, 1000, MONTH_S) == pytest.approx(43.2 * 60)  # 43 minutes
    assert exhausted_in_s(0.5, 10, MONTH_S) == pytest.approx(1.5 * DAY_S)
    assert exhausted_in_s(0.5, 0, MONTH_S) == math.inf
    assert exhausted_in_s(-0.1, 0, MONTH_S) == 0


@pytest.mark.parametrize(
    ("objective", "valid", "bad", "word"),
    [
        (0, 1, 0, "objective 0"),
        (100, 1, 0, "objective 100"),
        (99, 1, 2, "bad 2"),
        (99, 1, -1, "bad -1"),
    ],
)
def test_wrong_arguments(objective: float, valid: float, bad: float, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        budget(objective, valid, bad)
    with pytest.raises(ValueError, match=word):
        burn_rate(objective, valid, bad)


def test_the_workbooks_rates() -> None:
    """SRE workbook, chapter 5: 14.4 and 6 page, 3 and 1 make a ticket, over 30 days."""
    assert [rule.rate(MONTH_S) for rule in RULES] == pytest.approx([14.4, 6, 3, 1])
    assert [rule.urgency for rule in RULES] == [Urgency.PAGE] * 2 + [Urgency.TICKET] * 2
    assert all(rule.short_s == rule.long_s / 12 for rule in RULES)


def track(*outages: tuple[float, float]) -> Track:
    found = Track()
    found.note(0, True)
    for since, until in outages:
        found.note(since, False)
        found.note(until, True)
    return found


def test_track() -> None:
    found = track((100, 110), (200, 205))
    assert found.seen(300, 300) == (300, 15, 2)
    assert found.seen(300, 195) == (195, 10, 2)  # half of the first
    assert found.seen(300, 50) == (50, 0, 0)
    found.note(300, False)
    assert found.seen(310, 310) == (310, 25, 3)
    assert found.up is False
    found.note(310, None)
    assert found.seen(1000, 1000) == (310, 25, 3)  # what does not count is not valid time


def test_a_track_is_bounded() -> None:
    found = Track(keep_s=1000, limit=10)
    found.note(0, True)
    for at in range(100):
        found.note(at * 10.0 + 1, False)
        found.note(at * 10.0 + 2, True)
    assert found.seen(1000, 1000)[2] <= 11
    found.note(5000, False)
    found.note(5001, True)
    assert found.seen(5001, 5001)[1] == 1


def test_what_was_before() -> None:
    found = Track()
    found.restore([(0, 50, True), (50, 60, False), (60, 100, True)])
    found.note(150, True)  # 50 seconds that nobody saw
    assert found.seen(200, 200) == (150, 10, 1)


@given(
    st.lists(st.tuples(st.floats(0, 50), st.sampled_from([True, False, None])), max_size=30),
    st.floats(1, 200),
)
def test_track_against_counting_seconds(
    steps: list[tuple[float, bool | None]], window_s: float
) -> None:
    found, now = Track(), 0.0
    spans: list[tuple[float, float, bool | None]] = []
    state: bool | None = None
    since = 0.0
    for wait, up in steps:
        now += wait
        spans.append((since, now, state))
        found.note(now, up)
        since, state = now, up
    now += 1
    spans.append((since, now, state))

    def part(kinds: tuple[bool | None, ...]) -> float:
        return sum(
            max(0.0, min(until, now) - max(start, now - window_s))
            for start, until, up in spans
            if up in kinds
        )

    counted, down, _ = found.seen(now, window_s)
    assert counted == pytest.approx(part((True, False)), abs=1e-6)
    assert down == pytest.approx(part((False,)), abs=1e-6)


def alerts(alarm: Alarm, found: Track, now: float, down_s: float = 0) -> list[tuple[float, bool]]:
    stepped = alarm.step(burns(found, 99.9, MONTH_S, now), down_s)
    return [(alert.burn.rule.long_s, alert.begins) for alert in stepped]


def test_one_short_outage_is_no_alert() -> None:
    """60 s of an hour burn 16.7 times too fast, but it was one failure, told as such."""
    found = track((10_000, 10_060))
    assert burns(found, 99.9, MONTH_S, 10_060)[0].burning
    assert alerts(Alarm(), found, 10_060) == []


def test_repeated_outages_page_and_calm_down() -> None:
    found, alarm = track((10_000, 10_030), (10_100, 10_130)), Alarm()
    assert alerts(alarm, found, 10_130) == [(3600, True)]
    assert alerts(alarm, found, 10_140) == []  # once
    assert [rule.long_s for rule in alarm.on] == [3600]
    assert alerts(alarm, found, 10_140 + 300) == [(3600, False)]  # the short window is clean
    assert alarm.on == frozenset()


def test_one_long_outage_pages() -> None:
    found, alarm = track(), Alarm()
    found.note(10_000, False)
    assert alerts(alarm, found, 10_299, 299) == []
    assert (3600, True) in alerts(alarm, found, 10_301, 301)


def test_slow_burn_makes_a_ticket() -> None:
    """Ten seconds each hour: 2.8 times too fast: nobody is paged, somebody is told."""
    found, alarm, seen = track(), Alarm(), set()
    for hour in range(1, 72):
        found.note(hour * 3600.0, False)
        found.note(hour * 3600.0 + 10, True)
        for long_s, begins in alerts(alarm, found, hour * 3600.0 + 11):
            seen.add((long_s, begins))
    assert seen == {(3 * DAY_S, True)}


def test_a_rule_longer_than_the_objective_is_left_out() -> None:
    rules = [burn.rule for burn in burns(track(), 99.9, DAY_S, 100)]
    assert [rule.long_s for rule in rules] == [3600, 6 * 3600]


def test_burning_needs_both_windows() -> None:
    rule = RULES[0]
    assert Burn(rule, 20, 20, 14.4, 3).burning
    assert not Burn(rule, 20, 1, 14.4, 3).burning
    assert not Burn(rule, 1, 20, 14.4, 3).burning


def test_what_was_before_may_come_late() -> None:
    found = Track()
    found.note(100, True)
    found.note(110, False)
    found.note(120, True)
    found.restore([(0, 50, True), (50, 60, False), (60, 115, True)])  # overlaps
    assert found.seen(130, 130) == (130, 20, 2)
    assert found.seen(130, 25) == (25, 10, 1)
