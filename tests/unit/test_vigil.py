"""The watch over the other process: when silence is a hang, and when it is not."""

import pytest

from everup.keeper.vigil import Activity, Vigil


class Watched:
    """A process as /proc shows it, by the second."""

    def __init__(self, state: str = "S", active_per_s: float = 0.0) -> None:
        self.state, self.active_per_s, self.now = state, active_per_s, 0.0

    def look(self, _pid: int) -> Activity:
        return Activity(self.state, self.now * self.active_per_s)


def verdict_after(watched: Watched, *, heard_until: float = 0.0, most_s: float = 100.0) -> float:
    """Seconds from the last sign of life to the verdict."""
    vigil = Vigil(5.0, watched.look)
    vigil.watch(7, 0.0)
    while watched.now < most_s:
        wait_s = vigil.wait_s(watched.now)
        assert wait_s is not None
        watched.now += wait_s
        if watched.now <= heard_until:
            vigil.heard()
        if vigil.hung(watched.now):
            return watched.now - heard_until
    return float("inf")


@pytest.mark.parametrize("state", ["T", "S"])
@pytest.mark.parametrize("heard_until", [0.0, 20.0])
def test_who_is_stopped_or_sleeps_hangs(state: str, heard_until: float) -> None:
    """From its first instant on, and later."""
    assert 5.0 <= verdict_after(Watched(state), heard_until=heard_until) <= 6.0


@pytest.mark.parametrize(("state", "active"), [("R", 0.9), ("S", 0.5), ("D", 0.0), ("t", 0.0)])
def test_who_is_busy_or_starved_gets_more_time(state: str, active: float) -> None:
    """Busy, waiting for a CPU, waiting for a disk, looked at in a debugger."""
    assert 25.0 <= verdict_after(Watched(state, active)) <= 40.0


@pytest.mark.parametrize("state", ["Z", "X"])
def test_who_has_ended_is_seen_otherwise(state: str) -> None:
    assert verdict_after(Watched(state)) == float("inf")


def test_a_watcher_that_did_not_run_judges_nobody() -> None:
    """Ours was the pause: the other may have been stopped just as long."""
    watched = Watched("T")
    vigil = Vigil(5.0, watched.look)
    vigil.watch(7, 0.0)
    now = 0.0
    for _ in range(50):
        now += 4.0  # each tick comes late
        assert not vigil.hung(now)
    verdicts = []
    while not any(verdicts):
        now += vigil.wait_s(now) or 0.0
        verdicts.append(vigil.hung(now))
    assert len(verdicts) > 10
    assert "stopped" in verdicts[-1]


def test_nobody_is_watched_after_stop() -> None:
    vigil = Vigil(5.0, Watched("T").look)
    vigil.watch(7, 0.0)
    vigil.stop()
    assert vigil.wait_s(1.0) is None
    assert not vigil.hung(100.0)
