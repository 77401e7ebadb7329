"""The grid that probes run on: no drift, no catching up, no lockstep."""

from math import isclose

from hypothesis import given
from hypothesis import strategies as st

from everup.adapters.probes._schedule import (
    MIN_GAP,
    ROUND_JITTER,
    make_schedule,
    next_round,
    round_due_s,
)

clock = st.floats(min_value=0, max_value=1e7)
interval = st.floats(min_value=0.01, max_value=86400)
unit = st.floats(min_value=0, max_value=1, exclude_max=True)
EPS_S = 1e-6


@given(now=clock, interval_s=interval, first=unit, phase=unit)
def test_first_probe_comes_at_once_and_the_second_about_an_interval_later(
    now: float, interval_s: float, first: float, phase: float
) -> None:
    schedule = make_schedule(now, interval_s, None, first, phase)
    assert now <= schedule.first_s <= now + min(0.1, interval_s * ROUND_JITTER) + EPS_S
    assert next_round(schedule, 0, schedule.first_s) == 1
    gap_s = round_due_s(schedule, 1, 0.0) - schedule.first_s
    assert interval_s * 0.5 - EPS_S <= gap_s <= interval_s * 1.5 + EPS_S


@given(now=clock, interval_s=interval, after=st.floats(min_value=0, max_value=1e5), phase=unit)
def test_a_wanted_first_time_is_kept(
    now: float, interval_s: float, after: float, phase: float
) -> None:
    assert make_schedule(now, interval_s, after, 0.99, phase).first_s == now + after


@given(
    now=clock,
    interval_s=interval,
    phase=unit,
    rounds=st.lists(st.tuples(unit, st.floats(min_value=0, max_value=10)), max_size=60),
)
def test_rounds_stay_on_the_grid_however_late_the_loop_is(
    now: float, interval_s: float, phase: float, rounds: list[tuple[float, float]]
) -> None:
    schedule = make_schedule(now, interval_s, 0.0, 0.0, phase)
    number, handled_s = 0, schedule.first_s
    for jitter, late_intervals in rounds:
        following = next_round(schedule, number, handled_s)
        due_s = round_due_s(schedule, following, jitter)
        grid_s = schedule.origin_s + following * interval_s
        assert following > number
        assert grid_s - EPS_S <= due_s <= grid_s + interval_s * ROUND_JITTER + EPS_S
        # Neither a burst nor a lost round: the next one is in the coming interval.
        assert due_s - handled_s >= MIN_GAP * interval_s - EPS_S
        if following > number + 1:
            assert grid_s - handled_s <= (1 + MIN_GAP) * interval_s + EPS_S
        number, handled_s = following, due_s + late_intervals * interval_s


@given(now=clock, interval_s=interval, phase=unit, jitter=unit, late=st.floats(0, 0.7))
def test_no_round_is_lost_while_the_loop_keeps_up(
    now: float, interval_s: float, phase: float, jitter: float, late: float
) -> None:
    schedule = make_schedule(now, interval_s, 0.0, 0.0, phase)
    for number in range(1, 20):
        handled_s = round_due_s(schedule, number, jitter) + late * interval_s * 0.99
        assert next_round(schedule, number, handled_s) == number + 1


def test_a_pause_of_many_intervals_costs_its_rounds_and_nothing_else() -> None:
    schedule = make_schedule(100.0, 1.0, 0.0, 0.0, 0.5)
    assert schedule.origin_s == 100.0
    assert next_round(schedule, 3, 150.5) == 51
    assert isclose(round_due_s(schedule, 51, 0.5), 151.025)


def test_targets_that_start_together_are_spread_over_the_interval() -> None:
    dues = [
        round_due_s(make_schedule(0.0, 1.0, 0.0, 0.0, i / 100), 7, 0.0) % 1.0 for i in range(100)
    ]
    assert len({round(due, 2) for due in dues}) == 100
