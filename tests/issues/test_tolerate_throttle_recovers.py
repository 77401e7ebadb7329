"""``Shed(by="throttle")`` with its defaults admits again within a minute of an outage."""

from random import Random

import pytest

from everup.tolerate import Overloaded, Shed
from everup.tolerate.testing import FakeClock


class Down(Exception): ...  # noqa: N818


def back_after_s(rate: float, outage_s: float, seed: int, **options: float) -> float:
    """Seconds after an outage until 95 % of the last 5 s are admitted."""
    clock, chance = FakeClock(0.0, seed=seed), Random(seed + 1)
    shed = Shed("throttle", clock=clock, **options)  # type: ignore[arg-type]
    down = False

    def call() -> None:
        if down:
            raise Down

    began, ended = 60.0, 60.0 + outage_s
    recent: list[tuple[float, bool]] = []
    while clock.time < ended + 2000:
        clock.advance(chance.expovariate(rate))
        down = began <= clock.time < ended
        try:
            shed.call(call)
        except Overloaded:
            admitted = False
        except Down:
            continue
        else:
            admitted = True
        if clock.time >= ended:
            recent.append((clock.time, admitted))
            while recent[0][0] < clock.time - 5:
                recent.pop(0)
            share = sum(one for _, one in recent) / len(recent)
            if clock.time >= ended + 5 and share >= 0.95:
                return clock.time - ended
    return clock.time - ended


@pytest.mark.parametrize("rate", [5.0, 10.0, 50.0])
@pytest.mark.parametrize("outage_s", [30.0, 180.0, 900.0])
def test_it_is_back_within_a_minute(rate: float, outage_s: float) -> None:
    assert max(back_after_s(rate, outage_s, seed) for seed in range(4)) <= 60


def test_the_usual_numbers_take_many_minutes() -> None:
    assert back_after_s(10.0, 180.0, 1, window_s=120.0, max_chance=1.0) > 300


def test_it_refuses_no_more_than_it_says_and_still_most() -> None:
    clock = FakeClock(0.0, seed=3)
    shed = Shed("throttle", clock=clock)
    sent = 0

    def call() -> None:
        nonlocal sent
        sent += 1
        raise Down

    for _ in range(2000):
        clock.advance(0.01)
        with pytest.raises((Down, Overloaded)):
            shed.call(call)
    assert shed.chance == 0.9
    assert 150 <= sent <= 290
