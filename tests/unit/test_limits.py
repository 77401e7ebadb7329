"""Limits are a test, not a habit. What is above one today is named with its size, and may only
shrink."""

import ast
from pathlib import Path

import everup

SOURCE = Path(everup.__file__).parent
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 70
LARGER = {
    "adapters/cgroups.py": 402,
    "adapters/probes/_attempt.py": 462,
    "adapters/sockets.py": 485,
    "daemon/crew.py": 489,
    "keeper/keeper.py": 425,
    "supervise/lifecycle.py": 422,
    "testing/sim.py": 557,
    "tolerate/shed.py": 407,
    "tolerate/table.py": 403,
}
FILES = sorted(SOURCE.rglob("*.py"))


def name_of(file: Path) -> str:
    return str(file.relative_to(SOURCE))


def lines_of(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def test_files_are_small() -> None:
    sizes = {name_of(file): lines_of(file) for file in FILES}
    above = {
        name: size
        for name, size in sizes.items()
        if size > max(MOST_LINES_OF_A_FILE, LARGER.get(name, 0))
    }
    assert above == {}


def test_what_has_shrunk_is_no_exception_any_more() -> None:
    sizes = {name_of(file): lines_of(file) for file in FILES}
    assert [name for name in LARGER if sizes.get(name, 0) <= MOST_LINES_OF_A_FILE] == []


def test_functions_are_small() -> None:
    above = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MOST_LINES_OF_A_FUNCTION:
                    above.append(f"{name_of(file)}: {node.name} has {length} lines")
    assert above == []
