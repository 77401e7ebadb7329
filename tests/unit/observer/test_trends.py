"""What grows until it is used up: found early, and what only wanders or falls back is not."""

import random

import pytest

from everup.detect.forecast import LEAST, forecast
from everup.observer.events import Sampled
from everup.rooms.detect.board import Board
from everup.rooms.detect.trends import Trends

MINUTE = 60.0


def points(values: list[float]) -> list[tuple[float, float]]:
    return [(MINUTE * i, value) for i, value in enumerate(values)]


def wandering(rng: random.Random, count: int, alike: float = 0.9) -> list[float]:
    value, out = rng.gauss(0, 5), []
    for _ in range(count):
        value = alike * value + rng.gauss(0, 5 * (1 - alike * alike) ** 0.5)
        out.append(50 + value)
    return out


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_a_leak_is_forecast_within_a_fifth(noise: float) -> None:
    rng = random.Random(7)
    found = forecast(points([20 + 0.5 * i + rng.gauss(0, noise) for i in range(60)]), 100.0)
    assert found is not None
    assert found.likely_s == pytest.approx((80 - 0.5 * 59) / 0.5 * MINUTE, rel=0.2)
    assert found.soonest_s <= found.likely_s <= found.latest_s


@pytest.mark.parametrize(
    "values",
    [
        [50.0] * 60,
        [50.0 - i * 0.1 for i in range(60)],
        [20.0 + 40 * (i % 20) / 20 for i in range(60)],
        [20.0 + i for i in range(LEAST - 1)],
        [20.0 + i for i in range(90)],
        [],
    ],
    ids=["level", "falling", "sawtooth", "few", "beyond", "nothing"],
)
def test_nothing_is_forecast_of_what_does_not_grow(values: list[float]) -> None:
    assert forecast(points(values), 100.0) is None


def test_what_wanders_is_hardly_ever_taken_for_a_leak() -> None:
    rng = random.Random(7)
    found = [forecast(points(wandering(rng, 60)), 100.0) for _ in range(200)]
    assert sum(one is not None for one in found) <= 10


class Case:
    """An instance with a limit of 100 and a file system, sampled once a minute."""

    def __init__(self) -> None:
        self.board = Board()
        self.ended: list[tuple[str, str]] = []
        self.begun: list[str] = []
        self.trends = Trends(self._begin, self._end)
        self.now = 1_000_000.0
        self.cpu_s = 0.0

    def _begin(self, *args: object) -> None:
        if self.board.begin(*args):  # type: ignore[arg-type]
            self.begun.append(f"{args[0]} {args[1]}")

    def _end(self, kind: str, subject: str, why: str) -> None:
        if self.board.end(kind, subject):
            self.ended.append((kind, why))

    def minute(self, memory: float = 50.0, used: float = 50.0, anew: bool = False) -> None:
        self.now += MINUTE
        self.cpu_s = 0.0 if anew else self.cpu_s + 1.0
        instance = {"cpu_s": self.cpu_s, "memory_bytes": memory, "memory_limit_bytes": 100.0}
        disk = {"size_bytes": 100.0, "available_bytes": 100.0 - used}
        sample = Sampled(self.now, self.now, {}, {"web.1": instance}, {}, {"/": disk})
        self.trends.take(sample)


def test_a_leak_is_told_once_and_ends_with_its_process() -> None:
    case = Case()
    for i in range(60):
        case.minute(20 + 0.5 * i)
    assert case.begun == ["leaking web.1"]
    (leak,) = case.board
    assert "of its memory, more and more: it is used up in about" in leak.text
    assert any("MiB more each hour" in line for line in leak.evidence)
    case.minute(20.0, anew=True)
    assert case.ended == [("leaking", "another process of it runs")]


def test_a_disk_that_fills_and_stops() -> None:
    case = Case()
    for i in range(60):
        case.minute(used=40 + 0.5 * i)
    assert case.begun == ["filling /"]
    for _ in range(400):
        case.minute(used=69.5)
    assert [kind for kind, _ in case.ended] == ["filling"]


def test_what_has_fallen_back_by_itself_is_told_once_at_most() -> None:
    case = Case()
    for i in range(1440):
        case.minute(30 + 40 * (i % 90) / 90)
    assert case.begun in ([], ["leaking web.1"])


def test_what_uses_little_is_not_told() -> None:
    case = Case()
    for i in range(60):
        case.minute(1 + 0.1 * i)
    assert case.begun == []


def test_an_observer_that_comes_later_ends_what_was_told() -> None:
    case = Case()
    case.board.restore("leaking", "web.1", "leaks", case.now, ())
    case.trends.restore("leaking", "web.1", case.now)
    for _ in range(60):
        case.minute()
    assert [kind for kind, _ in case.ended] == ["leaking"]
