"""``everup-tolerate`` is a distribution of its own: small, needing nothing, sharing no file with
``everup``. What ``everup up`` needs does not include the mathematics of reports."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHOUT = """
import sys, importlib.abc
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('numpy', 'scipy'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Missing())
import importlib.util as util
found = util.find_spec
util.find_spec = lambda name, *more: None if name in ('numpy', 'scipy') else found(name, *more)
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Built from this tree. Needs hatchling, which pip gets as it does for every install."""
    place = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps",
               "--disable-pip-version-check", "-w", str(place), str(ROOT),
               str(ROOT / "packages" / "tolerate")]  # fmt: skip
    env = {**os.environ, "EVERUP_DIST": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=110, env=env
    )
    assert done.returncode == 0, done.stderr
    found = {path.name.split("-")[0]: path for path in place.glob("*.whl")}
    assert set(found) == {"everup", "everup_tolerate"}
    return found


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as opened:
        return set(opened.namelist())


def metadata(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith("/METADATA"))
        return opened.read(name).decode().splitlines()


def test_no_file_is_in_both(wheels: dict[str, Path]) -> None:
    whole, alone = names(wheels["everup"]), names(wheels["everup_tolerate"])
    assert not whole & alone
    assert not [name for name in whole if name.startswith("everup/tolerate")]
    assert "everup/__init__.py" in whole
    assert "everup/__init__.py" not in alone
    source = ROOT / "src" / "everup" / "tolerate"
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert f"everup/tolerate/{path.relative_to(source)}" in alone


def test_the_library_is_small_and_needs_nothing(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["everup_tolerate"]) as opened:
        assert sum(one.file_size for one in opened.infolist()) < 1_000_000
    needs = [
        line for line in metadata(wheels["everup_tolerate"]) if line.startswith("Requires-Dist")
    ]
    assert all("extra ==" in line for line in needs)


def test_everup_needs_the_library_and_no_mathematics(wheels: dict[str, Path]) -> None:
    needs = [line for line in metadata(wheels["everup"]) if line.startswith("Requires-Dist")]
    always = [line for line in needs if "extra ==" not in line]
    assert any("everup-tolerate==" in line for line in always)
    assert not any("scipy" in line or "numpy" in line for line in always)
    assert any("scipy" in line and "report" in line for line in needs)


def environment(place: Path) -> tuple[Path, Path]:
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(place)],
        check=True,
        timeout=110,
    )
    (site,) = place.glob("lib/python*/site-packages")
    return place / "bin" / "python", site


def pip(site: Path, *args: str) -> None:
    """pip of this environment, for another one."""
    python = site.parents[2] / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), *args[:1], "-q", *args[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr


USE = "from everup.tolerate import Pipeline, Retry; assert Pipeline(Retry()).call(len, 'ab') == 2"
WHOLE = "import everup.cli, everup; print(everup.__version__)"


def runs(python: Path, code: str) -> bool:
    done = subprocess.run(
        [python, "-I", "-c", code], capture_output=True, check=False, timeout=60, cwd="/"
    )
    return done.returncode == 0


def test_each_goes_without_the_other_losing_anything(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    python, site = environment(tmp_path / "venv")
    options = ("--no-deps", "--no-index", "--disable-pip-version-check")
    pip(site, "install", *options, str(wheels["everup_tolerate"]))
    assert runs(python, USE)
    pip(site, "install", *options, str(wheels["everup"]))
    assert runs(python, USE)
    assert (site / "everup" / "__init__.py").exists()
    pip(site, "uninstall", "-y", "everup")
    assert runs(python, USE)
    assert not (site / "everup" / "__init__.py").exists()
    pip(site, "install", *options, str(wheels["everup"]))
    before = {path for path in site.rglob("*.py") if "tolerate" not in path.parts}
    pip(site, "uninstall", "-y", "everup-tolerate")
    assert {path for path in site.rglob("*.py") if "tolerate" not in path.parts} == before
    assert not runs(python, USE)
    pip(site, "install", *options, str(wheels["everup_tolerate"]))
    assert runs(python, USE)


def test_the_two_may_be_in_different_places(wheels: dict[str, Path], tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for wheel, place in (("everup", one), ("everup_tolerate", other)):
        with zipfile.ZipFile(wheels[wheel]) as opened:
            opened.extractall(place)
    for order in ((one, other), (other, one)):
        code = f"import sys; sys.path[:0] = {[str(place) for place in order]!r}\n{USE}\n"
        code += "import everup; assert everup.__version__"
        done = subprocess.run(
            [sys.executable, "-S", "-c", code], check=False, timeout=60, cwd="/",
            capture_output=True, text=True, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["report", "plan"])
def test_a_command_that_needs_the_mathematics_says_so_in_one_clear_line(
    command: str, tmp_path: Path
) -> None:
    (tmp_path / "everup.toml").write_text('[service.web]\ncommand = ["sleep", "9"]\n')
    code = f"{WITHOUT}\nsys.argv = ['everup', {command!r}]\nfrom everup.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"everup {command} needs numpy and scipy, which this installation lacks" in done.stderr
    assert 'pip install "everup[report]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_what_runs_services_imports_without_the_mathematics() -> None:
    code = (
        f"{WITHOUT}\nimport everup.daemon.runtime, everup.daemon.memory, everup.keeper, everup.cli"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
