"""The public surface under mypy and pyright, as a user's project sees it."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WRONG = {
    "a string for a number of replicas": "Service('web', ('serve',), replicas='two')",
    "an unknown key": "Service('web', ('serve',), restarts=1)",
    "a value that no state has": "x: State = 'ready'",
    "a slot without its number": "Slot('web')",
    "a change of what is frozen": "Slot('web', 1).replica = 2",
    "no path for messages": "load('', directory='/')",
    "a spec that may be missing": "check('', path='', directory='/').spec.service",
}
HEAD = (
    "from everup.config import check, load\n"
    "from everup.model.instance import Slot, State\n"
    "from everup.model.spec import Service\n"
)


def run(checker: str, path: Path, where: Path) -> subprocess.CompletedProcess[str]:
    """Away from the project's own settings, with the library as it is installed."""
    if checker == "mypy":
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports",
                   "silent", "--cache-dir", str(where / "cache"), str(path)]  # fmt: skip
    else:
        (where / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
        command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(path)]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_right_use_passes_and_every_wrong_one_is_told(checker: str, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text((HERE / "public_api.py").read_text())
    wrong.write_text(HEAD + "\n".join(WRONG.values()) + "\n")
    answer = run(checker, right, tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    answer = run(checker, wrong, tmp_path)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    for number, what in enumerate(WRONG, HEAD.count("\n") + 1):
        assert f"wrong.py:{number}:" in answer.stdout, f"{what}: not told\n{answer.stdout}"
