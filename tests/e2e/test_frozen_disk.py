"""A disk that does not answer, under everup's state: whoever writes to it waits, for as long as
that lasts, and cannot even be killed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from _everup import Everup, Own, alive
from _faults import Client, Pair, file_system, frozen


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with file_system(tmp_path / ".everup", tmp_path / "image") as directory:
        yield directory


def deaths(everup: Everup) -> list[int]:
    return [e["run"] for e in everup.events("instance.exited", "lab.1")]


def test_services_are_restarted_and_commands_answered(disk: Path, everup: Everup) -> None:
    pair = Pair(everup).up()
    with Client(pair.web_port):
        with frozen(disk):
            for _ in range(5):
                pair.crash()
            everup.wait_for(lambda: everup.status()["journal_degraded"], "it is told")
            told = everup.cli("status", expect=4).out
            assert "the disk does not answer" in told
            everup.cli("stop", "lab")
            everup.cli("start", "lab", "off")
            everup.cli("scale", "more", "2")
            states = {slot: i["state"] for slot, i in everup.instances().items()}
            assert set(states.values()) == {"ready"}, states
            refused = everup.cli("reload", "--dry-run", expect=None)
            assert "no answer" not in refused.text
        everup.wait_event("journal.degraded", reason="the disk does not answer", lost_events=0)
        everup.wait_for(lambda: not everup.status()["journal_degraded"], "it is over")
        assert deaths(everup) == [1, 2, 3, 4, 5, 6], "nothing is missing, and in its order"
        numbers = [e["seq"] for e in everup.events()]
        assert numbers == list(range(1, len(numbers) + 1))
    pair.engine = everup.engine_pid
    assert everup.pid("web.1") == pair.web


def test_a_reload_is_refused_and_comes_at_no_later_time(disk: Path, everup: Everup) -> None:
    pair = Pair(everup).up()
    before = everup.config.read_text()
    with Client(pair.web_port):
        with frozen(disk):
            everup.write(pair.services | {"new": everup.server("new")})
            refused = everup.cli("reload", expect=1)
            assert "nothing was changed" in refused.err
            pair.crash()
        everup.wait_for(lambda: not everup.status()["journal_degraded"], "it is over")
        everup.wait_for(lambda: not Path(everup.place.next).exists(), "nothing waits")
        pair.kill_engine()
        assert "new.1" not in everup.instances()
        assert Path(everup.place.accepted).read_text() == before
        everup.cli("reload")
        assert everup.state("new.1") == "ready"


def test_who_is_killed_meanwhile_is_followed_at_once(disk: Path, everup: Everup) -> None:
    """It is dead and cannot be reaped: a thread of it waits for the disk, and cannot die. Nobody
    waits for that, nor for the disk: first the engine, then the keeper, then the next engine."""
    pair = Pair(everup).up()
    with Client(pair.web_port):
        with frozen(disk):
            pair.crash()
            everup.wait_for(lambda: everup.status()["journal_degraded"], "it is told")
            first = everup.own()
            os.kill(first.engine, signal.SIGKILL)
            pair.crash()
            second = everup.wait_for(lambda: successors(everup, first), "another engine")
            assert is_stuck(first.engine)
            os.kill(second.keeper, signal.SIGKILL)
            pair.crash()
            assert is_stuck(second.keeper)
        everup.wait_for(lambda: not everup.status()["journal_degraded"], "it is over")
        everup.wait_for(lambda: not any(map(alive, (first.engine, second.keeper))), "they end")
        assert deaths(everup) == [1, 2, 3], "nothing is missing, and in its order"
    assert everup.pid("web.1") == pair.web


def is_stuck(pid: int) -> bool:
    """Whether it is dead, but for a thread."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def successors(everup: Everup, first: Own) -> Own | None:
    own = everup.own()
    return own if own.engine not in (0, first.engine) and own.keeper else None
