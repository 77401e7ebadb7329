"""Forks while other threads are inside the policies (``forks.py``), in a process that has nothing
else: what other libraries have registered for a fork is none of it."""

import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("forks.py")


@pytest.mark.timeout(400)
def test_no_fork_leaves_a_child_that_hangs() -> None:
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    done = subprocess.run([*argv, str(CASES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout or "100%" in done.stdout
