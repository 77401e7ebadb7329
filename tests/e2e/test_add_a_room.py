"""A room is added by a folder and a line: the example of the contributors' page, for real."""

import json
import shutil
import subprocess
from pathlib import Path

from _everup import SLEEP, Everup
from test_upgrade import Installed

ECHO = Path(__file__).parents[2] / "examples" / "rooms" / "echo"
SIMULATE = """
from everup.testing import SimWorld
world = SimWorld(1, engine_deaths=False)
world.run_faults(30.0)
world.heal(900.0)
rung = [e for e in world.journal if e.kind == "echo.rang"]
assert len(rung) >= 3, rung
assert world.engine.kernel.rooms["echo"].view()["heard"] >= 3
world.shut_down()
"""


def test_echo(everup: Everup, tmp_path: Path) -> None:
    copy = Installed(tmp_path / "venv", version="99.3.0")
    shutil.copytree(ECHO, copy.package / "rooms" / "echo")
    copy.edit("app.py", '    "slo",\n', '    "slo",\n    "echo",\n')
    # simulated, with its invariants looked at after each step
    done = subprocess.run(
        [copy.python, "-c", SIMULATE], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    # its table is checked and explained, and a change of it is a change
    everup.write({"web": {"command": SLEEP}})
    text = everup.config.read_text()
    everup.config.write_text(text + "\n[echo]\nevery = 0\n")
    assert "1 to 1000" in copy.cli(everup, "check", expect=2).text
    everup.config.write_text(text + "\n[echo]\nevery = 5\n")
    assert "every = 5" in copy.cli(everup, "check").text
    copy.cli(everup, "up", "-d")
    everup.config.write_text(text + "\n[echo]\nevery = 2\n")
    told = json.loads(copy.cli(everup, "reload", "--dry-run", "--json").out)
    assert told["plan"]["settings"] == ["echo.every"]
    copy.cli(everup, "reload")
    # its source beats, its journal kind is known, its view is shown by its command

    def rung() -> list[int]:
        lines = copy.cli(everup, "events", "--json", "-k", "echo.rang").out.splitlines()
        return [json.loads(line)["times"] for line in lines]

    everup.wait_for(lambda: any(times % 5 for times in rung()), "a beat by the new setting")
    assert json.loads(copy.cli(everup, "echo", "--json").out)["heard"] >= 1
    assert "Show how often the clock beat." in copy.cli(everup, "--help").out
