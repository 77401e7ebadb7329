"""What a part costs to load: heavy libraries only where they are used."""

import subprocess
import sys

import pytest

import everup

LISTING = "import sys; print(' '.join(sorted(m.partition('.')[0] for m in sys.modules)))"


def loaded(statement: str, *options: str) -> set[str]:
    code = f"{statement}\n{LISTING}"
    done = subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_status_loads_nothing_heavy() -> None:
    modules = loaded("import everup.cli.main, everup.cli.status")
    assert not modules & {"pydantic", "aiohttp", "psutil", "prometheus_client", "httptools"}


def test_the_keeper_runs_on_the_standard_library_alone() -> None:
    root = everup.__file__.rsplit("/", 2)[0]
    modules = loaded(
        f"import sys; sys.path.insert(0, {root!r}); import everup.keeper.keeper", "-S", "-E"
    )
    assert "everup" in modules
    assert not modules & {"asyncio", "pydantic", "subprocess", "logging"}
    # Each fork copies what is loaded, while a service is down: typing alone is a tenth of it.
    assert not modules & {"typing", "threading", "dataclasses", "inspect"}
    assert modules - {"everup"} <= set(sys.stdlib_module_names) | {"__main__", "_distutils_hack"}


@pytest.mark.parametrize("module", ["everup.model.spec", "everup.engine.core", "everup.testing"])
def test_the_pure_part_loads_without_the_edge(module: str) -> None:
    assert not loaded(f"import {module}") & {"aiohttp", "psutil", "httptools", "sqlite3"}


def test_the_engine_begins_before_it_loads_the_api() -> None:
    assert not loaded("import everup.daemon.runtime") & {"aiohttp", "prometheus_client", "numpy"}
