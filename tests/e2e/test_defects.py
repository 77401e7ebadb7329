"""A defect of everup's own inside a step: the engine leaves, the next one goes by the journal."""

from pathlib import Path
from typing import Any

import pytest
from _everup import SLEEP, Everup
from test_upgrade import Installed

ROOMS = ("lanes.py", "settle.py")
FUNCTIONS = ("def settle(", "def roll(", "def look(")


class Planted:
    """A copy of everup with a defect that shows while a file exists."""

    def __init__(self, directory: Path) -> None:
        self.flag = directory / "fail-now"
        self.copy = Installed(directory / "venv", version="99.2.0")

    def plant(self, file: str, *, once: bool) -> None:
        """At the beginning of the room's look at a service."""
        path = self.copy.package / "engine" / file
        lines = path.read_text().splitlines()
        at = next(n for n, line in enumerate(lines) if line.startswith(FUNCTIONS))
        lines[at + 1 : at + 1] = [
            "    import os",
            f"    if os.path.exists({str(self.flag)!r}):",
            f"        os.unlink({str(self.flag)!r})" if once else "        pass",
            '        raise RuntimeError("planted")',
        ]
        path.write_text("\n".join(lines) + "\n")

    def up(self, everup: Everup, services: dict[str, Any]) -> None:
        everup.write(services)
        self.copy.cli(everup, "up", "-d")


def defects(everup: Everup) -> list[dict[str, Any]]:
    return [event for event in everup.events() if event["kind"] == "engine.defect"]


@pytest.mark.parametrize("room", ROOMS)
def test_an_instance_exits_and_a_room_fails(everup: Everup, tmp_path: Path, room: str) -> None:
    planted = Planted(tmp_path)
    planted.plant(room, once=True)
    planted.up(everup, {"web": {"command": SLEEP}, "other": {"command": SLEEP}})
    other, web = everup.pid("other.1"), everup.pid("web.1")
    planted.flag.touch()
    everup.kill(web)
    everup.wait_for(lambda: not planted.flag.exists(), "the defect")
    everup.wait_new_pid("web.1", web)
    (told,) = defects(everup)
    assert "planted" in told["error"]
    assert told["event"] == "Exited"
    assert room in told["where"]
    assert everup.pid("other.1") == other


def test_a_reload_at_which_everup_fails_is_given_up(everup: Everup, tmp_path: Path) -> None:
    """Each engine would fail at it again."""
    planted = Planted(tmp_path)
    planted.plant("lanes.py", once=False)
    services: dict[str, Any] = {"web": {"command": SLEEP}, "other": {"command": SLEEP}}
    planted.up(everup, services)
    pids = everup.pid("web.1"), everup.pid("other.1")
    everup.write(services | {"more": {"command": SLEEP}})
    planted.flag.touch()
    failed = planted.copy.cli(everup, "reload", expect=1)
    planted.flag.unlink()
    assert "everup itself failed" in failed.text
    everup.wait_for(lambda: [s["name"] for s in everup.status()["services"]], "an engine")
    assert (everup.pid("web.1"), everup.pid("other.1")) == pids
    everup.wait_for(lambda: not Path(everup.place.next).exists(), "the config is given up")
    everup.cli("reload")  # a sound one
    everup.wait_state("more.1", "ready")
