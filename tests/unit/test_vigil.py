"""The watch over the other process: when silence is a hang, and when it is not."""

import os
import subprocess

import pytest

from everup.keeper.doomed import Doomed, is_doomed
from everup.keeper.vigil import HALTED_LOOK_S, HUNG_S, Activity, Halted, Vigil


class Watched:
    """A process as /proc shows it, by the second."""

    def __init__(self, state: str = "S", active_per_s: float = 0.0) -> None:
        self.state, self.active_per_s, self.now = state, active_per_s, 0.0
        self.dies_from = float("inf")

    def look(self, _pid: int) -> Activity:
        return Activity(self.state, self.now * self.active_per_s, self.now >= self.dies_from)


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


@pytest.mark.parametrize("state", ["Z", "D", "S"])
def test_who_is_dead_and_cannot_end_is_given_up_two_seconds_later(state: str) -> None:
    watched = Watched(state)
    watched.dies_from = 20.0
    vigil = Vigil(5.0, watched.look)
    vigil.watch(7, 0.0)
    while not (why := vigil.hung(watched.now)):
        watched.now += vigil.wait_s(watched.now) or 0.0
        if watched.now < watched.dies_from:
            vigil.heard()
        assert watched.now < 30.0
    assert vigil.dead
    assert "cannot end" in why
    assert 2.0 <= watched.now - watched.dies_from <= 3.0


def test_who_was_killed_for_a_hang_is_condemned_once() -> None:
    """After that the one question is whether it can end."""
    watched = Watched("S")
    vigil = Vigil(5.0, watched.look)
    vigil.watch(7, 0.0)
    said: list[tuple[float, bool]] = []
    while len(said) < 2:
        watched.now += vigil.wait_s(watched.now) or 0.0
        if vigil.hung(watched.now):
            said.append((watched.now, vigil.dead))
            vigil.killed()
            watched.dies_from = 30.0
        assert watched.now < 60.0
    (hung_at, was_dead), (given_up_at, is_dead) = said
    assert (was_dead, is_dead) == (False, True)
    assert hung_at <= 6.0
    assert 32.0 <= given_up_at <= 33.0


def test_the_next_one_is_watched_anew() -> None:
    watched = Watched("Z")
    watched.dies_from = 0.0
    vigil = Vigil(5.0, watched.look)
    vigil.watch(7, 0.0)
    for _ in range(8):
        watched.now += vigil.wait_s(watched.now) or 0.0
        vigil.hung(watched.now)
    assert vigil.dead
    vigil.watch(8, watched.now)
    watched.dies_from = float("inf")
    assert not vigil.dead
    assert not vigil.hung(watched.now + 0.5)


def test_a_process_is_doomed_from_the_kill_on() -> None:
    """The kernel says so: of one that is dead and not yet reaped, and of nobody that runs."""
    child = subprocess.Popen(["sleep", "60"])
    assert not is_doomed(child.pid)
    assert Doomed(f"{child.pid}:1 x 7: :8").left() == []  # another one has the number
    doomed = Doomed()
    doomed.add(child.pid)
    assert Doomed(str(doomed)).left() == [child.pid]
    assert not doomed.wait(lambda: True)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_doomed(child.pid)
    child.wait()
    assert not is_doomed(child.pid)
    assert doomed.wait()
    assert str(doomed) == ""


def test_a_keeper_that_nobody_ends_though_it_is_stopped_is_told_to_go_on() -> None:
    """Its engine would have ended it by then, so that is stopped as well."""
    watched = Watched("T")
    halted = Halted(watched.look)
    now = 100.0
    while not halted.look(7, now):
        now += HALTED_LOOK_S
        assert now < 200.0
    assert HUNG_S + 1.0 < now - 100.0 < 3 * HUNG_S


@pytest.mark.parametrize("pause_s", [HALTED_LOOK_S, 60.0])
def test_a_stop_that_passes_and_a_watcher_that_was_stopped_itself_tell_nothing(
    pause_s: float,
) -> None:
    watched = Watched("T")
    halted = Halted(watched.look)
    for at in range(40):
        watched.state = "S" if at % 3 == 2 and pause_s == HALTED_LOOK_S else "T"
        assert not halted.look(7, at * pause_s)
