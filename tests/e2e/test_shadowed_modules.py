"""Files beside the config, or in directories that variables name, that are called like modules."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from _everup import EVERUP, Everup
from test_upgrade import SOURCE, Installed

from everup.adapters import python

_LIBRARIES = ("aiohttp", "attr", "click", "dotenv", "everup", "idna", "multidict", "psutil",
              "pydantic", "pydantic_core", "tomllib", "typing_extensions", "yarl")  # fmt: skip


def plant(directory: Path, tell: Path) -> None:
    """A file for every module there is, and a package for some: each says that it was loaded."""
    directory.mkdir(exist_ok=True)
    for name in {*sys.stdlib_module_names, *_LIBRARIES}:
        code = f"open({str(tell)!r}, 'a').write({name!r} + '\\n')\nraise SystemExit({name!r})\n"
        if name in ("http", "json", "everup"):
            (directory / name).mkdir()
            (directory / name / "__init__.py").write_text(code)
        else:
            (directory / f"{name}.py").write_text(code)
    for name in ("sitecustomize", "usercustomize"):
        (directory / f"{name}.py").write_text(f"open({str(tell)!r}, 'a').write({name!r})\n")


@pytest.mark.parametrize("where", ["directory", "variables"])
def test_everup_loads_its_own_modules_alone(everup: Everup, tmp_path: Path, where: str) -> None:
    told = tmp_path / "told"
    if where == "directory":
        plant(everup.directory, told)
    else:
        evil = tmp_path / "evil"
        plant(evil, told)
        everup.environment |= {
            "PYTHONPATH": str(evil), "PYTHONSTARTUP": str(evil / "queue.py"),
            "PYTHONUSERBASE": str(evil), "PYTHONPYCACHEPREFIX": str(evil), "PYTHONINSPECT": "1",
        }  # fmt: skip
    objective = {"objective": 0.9}
    everup.write({"web": everup.server(port=everup.port(), slo=objective)})

    def up() -> None:  # -I: here it is about what everup starts, not about who starts it
        subprocess.run(
            [sys.executable, "-I", EVERUP, "-c", str(everup.config), "up", "-d"],
            env=everup.environment, cwd=everup.directory, stdin=subprocess.DEVNULL, timeout=60,
            check=True,
        )  # fmt: skip

    up()
    pid, own = everup.pid("web.1"), everup.own()
    everup.kill(own.engine)
    everup.wait_for(lambda: everup.engine_pid != own.engine, "another engine")
    everup.kill(everup.own().keeper)
    everup.wait_for(lambda: everup.own().keeper not in (0, own.keeper), "another keeper")
    everup.wait_for(lambda: everup.own().engine, "its engine")
    everup.status()
    everup.kill(*everup.own().keepers, *everup.own().engines)
    up()
    subprocess.run(
        [sys.executable, "-I", EVERUP, "-c", str(everup.config), "reexec"],
        env=everup.environment, cwd=everup.directory, stdin=subprocess.DEVNULL, timeout=60,
        check=True,
    )  # fmt: skip
    assert everup.pid("web.1") == pid
    assert not told.exists(), told.read_text()
    assert "Traceback" not in (everup.state_dir / "everup.log").read_text()
    for name in [name for name in everup.environment if name.startswith("PYTHON")]:
        del everup.environment[name]


def test_started_while_its_engine_was_just_beginning(everup: Everup, tmp_path: Path) -> None:
    """The engine whose keeper is gone before it was told anything runs ``everup up``."""
    plant(everup.directory, tmp_path / "told")
    everup.write({"web": everup.server(port=everup.port())})
    everup.cli("up", "-d")
    for _ in range(3):
        own = everup.own()
        everup.kill(own.engine)
        everup.wait_for(lambda: everup.own().engine, "another engine")
        os.kill(everup.own().keeper or own.keeper, signal.SIGKILL)
        everup.wait_for(lambda: everup.own().keeper and everup.own().engine, "all is back")
        everup.status()
    assert not (tmp_path / "told").exists()


def test_a_virtual_environment_and_an_editable_install(everup: Everup, tmp_path: Path) -> None:
    """The first by a copy, the second by a .pth file."""
    everup.write({"web": everup.server(port=everup.port())})
    for name in ("copied", "editable"):
        new = Installed(tmp_path / name)
        if name == "editable":
            shutil.rmtree(new.package)
            (new.package.parent / "everup.pth").write_text(f"{SOURCE.parent}\n")
        new.cli(everup, "up", "-d")
        assert everup.state("web.1") == "ready"
        new.cli(everup, "down")


def test_installed_where_only_a_variable_names_it(everup: Everup, tmp_path: Path) -> None:
    """``pip install --target DIRECTORY`` with PYTHONPATH."""
    target = tmp_path / "target"
    shutil.copytree(SOURCE, target / "everup")
    (target / "rest.pth").write_text("")
    new = Installed(tmp_path / "bare")
    shutil.rmtree(new.package)
    packages = sysconfig.get_path("purelib")
    environment = {"PYTHONPATH": f"{target}:{packages}"}
    (everup.directory / "queue.py").write_text("raise SystemExit('shadowed')\n")
    everup.write({"web": everup.server(port=everup.port())})
    script = "import sys; sys.path.remove(''); from everup.cli import main; main()"
    for command in (("up", "-d"), ("down",)):
        subprocess.run(
            [str(new.python), "-c", script, "-c", str(everup.config), *command],
            env=everup.environment | environment, cwd=everup.directory, timeout=60, check=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip


def test_the_options() -> None:
    words = [word for word in python.command("-m", "x") if word != "-B"]
    assert words == [sys.executable, "-I", "-m", "x"]
