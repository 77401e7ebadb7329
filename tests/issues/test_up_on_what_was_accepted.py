"""Both processes were killed while the disk was full or the config was not valid any more: `up`
refused, and nobody looked after the services. What was accepted before is enough for that."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from _everup import SLEEP, Everup
from _faults import fill, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / ".everup") as directory:
        yield directory


def kill_both(everup: Everup) -> int:
    """Returns the pid of web, which goes on."""
    everup.up({"web": {"command": SLEEP}, "off": {"command": SLEEP}})
    everup.cli("stop", "off")
    pid = everup.pid("web.1")
    everup.kill(everup.keeper_pid, everup.engine_pid)
    return pid


def is_looked_after(everup: Everup, pid: int) -> None:
    assert everup.pid("web.1") == pid
    assert everup.state("off.1") == "stopped"
    os.kill(pid, signal.SIGKILL)
    everup.wait_new_pid("web.1", pid)


@pytest.mark.parametrize("text", ["[service.web]\ncomand = 7\n", "no toml\n", "\xff"])
def test_the_config_is_not_valid(everup: Everup, text: str) -> None:
    pid = kill_both(everup)
    before = everup.config.read_bytes()
    everup.config.write_bytes(text.encode("latin-1"))
    result = everup.cli("up", "-d", "--timeout", "20")
    assert "stays in force" in result.err
    assert "everup reload" in result.err
    is_looked_after(everup, pid)
    everup.config.write_bytes(before)
    everup.cli("reload")


def test_nothing_runs_and_the_config_is_not_valid(everup: Everup) -> None:
    everup.up({"web": {"command": SLEEP}})
    everup.down()
    everup.config.write_text("no toml\n")
    assert "is not valid; nothing was started" in everup.up(expect=2).err


@pytest.mark.parametrize("changed", [False, True])
def test_the_disk_is_full(disk: Path, everup: Everup, changed: bool) -> None:
    pid = kill_both(everup)
    if changed:
        everup.write(
            {"web": {"command": SLEEP}, "off": {"command": SLEEP}, "new": {"command": SLEEP}}
        )
        Path(f"{everup.place.next}.new").mkdir()  # a small file may find room yet
    ballast = fill(disk)
    result = everup.cli("up", "-d", "--timeout", "20")
    assert ("stays in force" in result.err) == changed
    is_looked_after(everup, pid)
    assert "new.1" not in everup.instances()
    ballast.unlink()
    if changed:
        Path(f"{everup.place.next}.new").rmdir()
    everup.wait_for(lambda: not everup.status()["journal_degraded"], "it is written again")
    everup.cli("reload")
    assert ("new.1" in everup.instances()) == changed
