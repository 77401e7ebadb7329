"""The recipes of docs/how-to/servers.md, as they are printed there: each comes up, a restart under
load loses no request, and an application that does not load is not deployed.

Servers that are not installed are skipped; ``make test-servers`` has all of them that pip has."""

import os
import re
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from _everup import Everup

from load import Load

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "servers.md"
PLACES = [Path(sys.executable).parent, Path(os.environ.get("EVERUP_SERVERS", "none")) / "bin"]
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"(?:#|//) (\S+\.\w+)\n")
BROKEN = {
    ".py": "import time\ntime.sleep(1)\nraise RuntimeError('this version does not work')\n",
    ".mjs": "throw new Error('this version does not work');\n",
    ".conf": "this version does not work;\n",
    ".cfg": "this version does not work\n",
}


@dataclass(frozen=True)
class Recipe:
    """One config of the page, and the files that belong to it."""

    files: dict[str, str]
    text: str

    @property
    def service(self) -> dict[str, Any]:
        found: dict[str, Any] = tomllib.loads(self.text)["service"]["web"]
        return found

    @property
    def needs(self) -> str:
        """What must be installed: a program, or a module."""
        command: list[str] = self.service["command"]
        if "-k" in command:
            return command[command.index("-k") + 1].partition(".")[0]
        return (
            command[1].split("_")[1].removesuffix(".py") if command[0] == "python" else command[0]
        )

    @property
    def served(self) -> str:
        """The file whose contents are deployed."""
        words = " ".join(self.service["command"])
        return next(name for name in (*self.files, "shop.py") if name.split(".")[0] in words)


def recipes() -> dict[str, Recipe]:
    page = PAGE.read_text(encoding="utf-8")
    found: dict[str, Recipe] = {}
    for section in page.split("\n## "):
        files: dict[str, str] = {}
        title = section.partition("\n")[0]
        for kind, body in _FENCE.findall(section):
            if kind == "toml":
                name = title if title not in found else f"{title} {len(found)}"
                found[name] = Recipe(dict(files), body)
            elif name_of := _NAME.match(body):
                files[name_of[1]] = body
    return found


RECIPES = recipes()
SHOP = next(body for _, body in _FENCE.findall(PAGE.read_text()) if body.startswith("# shop.py"))


def place_of(need: str) -> Path:
    """Where a Python server is installed, or the program itself."""
    for place in PLACES:
        modules = place.parent / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        if (place / need).exists() or (modules / need).exists():
            return place
    program = shutil.which(need, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip(f"{need} is not installed")
    return Path(program).parent


def prepare(everup: Everup, recipe: Recipe) -> int:
    """Write config and files as the page has them; only the port, where programs are and how long
    a start may take are of this test."""
    port, place = everup.port(), place_of(recipe.needs)
    program = recipe.service["command"][0]
    text = recipe.text.replace(f'["{program}"', f'["{place / program}"').replace("8080", str(port))
    everup.config.write_text(text + 'start_timeout = "8s"\n')
    for name, body in ({"shop.py": SHOP} | recipe.files).items():
        (everup.directory / name).write_text(body.replace("8080", str(port)))
    return port


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name: str, everup: Everup) -> None:
    recipe = RECIPES[name]
    port = prepare(everup, recipe)
    everup.up()
    pids = [i["pid"] for i in everup.instances().values()]
    with Load(port, rate=100, kept=5, limit_s=60) as requests:
        everup.cli("restart", "web")
        summary = requests.stop()
    assert summary.ok > 0
    if "listen" in recipe.service:
        assert summary.failed == 0, summary
    fresh = [i["pid"] for i in everup.instances().values()]
    assert not set(pids) & set(fresh)
    if "port" in recipe.service:
        return  # it stops first: there is no old one to serve on

    file = everup.directory / recipe.served
    file.write_text(BROKEN[file.suffix] + file.read_text())
    with Load(port, rate=100, kept=5, limit_s=60) as requests:
        result = everup.cli("restart", "web", expect=None)
        summary = requests.stop()
    assert result.status != 0, result.text
    assert "did not come to ready" in result.text
    assert summary.failed == 0, summary
    assert [i["pid"] for i in everup.instances().values()] == fresh
