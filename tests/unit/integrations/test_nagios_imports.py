"""What Nagios starts, time and again, is to start quickly: of the standard library alone."""

import subprocess
import sys

import pytest

CODE = """
import sys
before = set(sys.modules)
import everup.integrations.nagios.{module}
names = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(sorted(names - sys.stdlib_module_names))
"""


@pytest.mark.parametrize("module", ["check", "handler"])
def test_programs_for_nagios_load_nothing_else(module: str) -> None:
    argv = [sys.executable, "-c", CODE.format(module=module)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['everup']"
