"""Engines that cannot begin, one after the other, and what the folder of a project brings."""

import os
from pathlib import Path
from typing import Any

import pytest
from _everup import SLEEP, Everup
from test_upgrade import Installed

from everup.adapters.place import Place
from everup.cli import ground
from everup.cli.client import keeper_lives
from everup.cli.context import Failure


def test_what_three_engines_fail_at_is_left_out(everup: Everup, tmp_path: Path) -> None:
    """A defect shows with what is in the journal: each engine would fail at it again."""
    copy = Installed(tmp_path / "venv", version="99.2.0")
    poison = "any(slot.service == 'off' and not want for slot, want in event.wanted)"
    copy.edit(
        "engine/operate.py",
        "            take_over(engine, event, now)\n",
        f"            assert not {poison}\n            take_over(engine, event, now)\n",
    )
    services: dict[str, Any] = {"web": {"command": SLEEP}, "off": {"command": SLEEP}}
    everup.write(services)
    copy.cli(everup, "up", "-d")
    everup.cli("stop", "off")
    pid, engine = everup.pid("web.1"), everup.engine_pid
    everup.kill(engine)
    everup.wait_for(lambda: everup.engine_pid != engine, "another engine")
    assert everup.pid("web.1") == pid
    told = [event["detail"] for event in everup.events("facility.missing", "everup")]
    assert any("of off.1" in text and "nothing goes by it" in text for text in told), told
    assert "3 engines in a row could not begin" in (everup.state_dir / "everup.log").read_text()
    everup.kill(pid)
    everup.wait_new_pid("web.1", pid)


def test_the_folder_is_moved(tmp_path: Path) -> None:
    """What runs is looked after, by what is known outside of the disk; nobody starts it twice."""
    project = tmp_path / "project"
    project.mkdir()
    moved = Everup(project)
    try:
        moved.up({"web": {"command": SLEEP, "directory": "/"}})
        pid, engine, keeper = moved.pid("web.1"), moved.engine_pid, moved.keeper_pid
        project.rename(tmp_path / "elsewhere")
        there = tmp_path / "elsewhere" / "everup.toml"
        moved.kill(engine)
        found = moved.wait_for(lambda: [p for p in moved.own().engines if p != engine], "another")
        assert found
        place = Place.of(str(there), ".everup")
        assert keeper_lives(place)
        with pytest.raises(Failure, match=f"already running .*keeper pid {keeper}"):
            ground.lock(place)  # as `up` does
        moved.kill(pid)
        fresh = moved.wait_for(
            lambda: [run[1] for run in moved.members().get("web.1", []) if run[1] != pid], "web"
        )
        os.kill(fresh[0], 0)
    finally:
        if not project.exists() or not (project / "everup.toml").exists():
            for path in sorted(project.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            project.rmdir() if project.exists() else None
            (tmp_path / "elsewhere").rename(project)
        moved.close()
