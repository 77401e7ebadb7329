"""What `everup.reliability` itself has."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from everup import reliability


@pytest.mark.parametrize("name", reliability.__all__)
def test_each_name_is_there(name: str) -> None:
    value = getattr(reliability, name)
    assert isinstance(value, ModuleType) == (name not in reliability._EXPORTS)
    if not isinstance(value, ModuleType):
        assert value.__name__ == name
        assert value.__module__.startswith("everup.reliability.")
    assert name in dir(reliability)


def test_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(reliability.__file__).read_text())
    seen = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("everup")
        for alias in node.names
    }
    assert seen == set(reliability.__all__)
    assert reliability.__all__ == sorted(reliability.__all__)


def test_each_public_module_is_named() -> None:
    files = Path(reliability.__file__).parent.glob("[a-z]*.py")
    assert {path.stem for path in files} == set(reliability.__all__) - set(reliability._EXPORTS)


def test_what_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'mtbf'"):
        _ = reliability.mtbf  # type: ignore[attr-defined]  # pyright: ignore


def test_importing_all_of_it_costs_no_numpy() -> None:
    code = (
        "import sys; from everup.reliability import *; "
        "assert not {'numpy', 'scipy', 'asyncio'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
