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

TOLERATE_WRONG = {
    "an argument of another type": "rows(3)",
    "an argument that there is not": "rows('a', least=1)",
    "an argument of another type, async": "arows(3)",
    "an answer of another type": "a: int = rows('a')",
    "an async function called as if it were none": "b: list[str] = arows('a')",
    "a call with an argument of another type": "guard.call(rows, 3)",
    "a call without its argument": "guard.call(rows)",
    "an async call of what is not": "guard.acall(rows, 'a')",
    "an async call with an argument of another type": "guard.acall(arows, 3)",
    "what is no policy": "Pipeline(Retry)",
    "what is no policy, but goes into one": "Pipeline(RetryBudget())",
    "a name in the place of a policy": "Pipeline('db', Retry())",
    "members to be set": "guard.policies = ()",
    "an option that there is not": "Retry(tries=3)",
    "an option of another type": "Timeout('1s')",
    "what is no exception": "Retry(on='OSError')",
    "a policy by key without the key": "Keyed(Breaker)",
    "a policy by key that makes none": "Keyed(str, key=str)",
    "a name that there is not": "tolerate.Rtery",
}
TOLERATE_HEAD = (
    "from everup import tolerate\n"
    "from everup.tolerate import Breaker, Keyed, Pipeline, Retry, RetryBudget, Timeout\n"
    "guard = Pipeline(Retry(), Timeout(1.0))\n"
    "@guard\n"
    "def rows(table: str) -> list[str]: return [table]\n"
    "@guard\n"
    "async def arows(table: str) -> list[str]: return [table]\n"
)
PROGRAMS = {
    "public_api.py": (HEAD, WRONG),
    "tolerate_api.py": (TOLERATE_HEAD, TOLERATE_WRONG),
}


def run(checker: str, path: Path, where: Path) -> subprocess.CompletedProcess[str]:
    """Away from the project's own settings, with the library as it is installed."""
    if checker == "mypy":
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports",
                   "silent", "--cache-dir", str(where / "cache"), str(path)]  # fmt: skip
    else:
        (where / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
        command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(path)]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_right_use_passes_and_every_wrong_one_is_told(
    checker: str, program: str, tmp_path: Path
) -> None:
    head, wrongs = PROGRAMS[program]
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text((HERE / program).read_text())
    wrong.write_text(head + "\n".join(wrongs.values()) + "\n")
    answer = run(checker, right, tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    answer = run(checker, wrong, tmp_path)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    for number, what in enumerate(wrongs, head.count("\n") + 1):
        assert f"wrong.py:{number}:" in answer.stdout, f"{what}: not told\n{answer.stdout}"
