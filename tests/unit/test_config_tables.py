"""The tables of rooms in a config: paid for where they are there, and there with their defaults
where they are not."""

import subprocess
import sys
from typing import Any

from everup import config
from everup.engine.changes import compare
from everup.model.spec import Spec

WEB = '[service.web]\ncommand = ["web"]\n'
LOADED = f"""
import sys
from everup import config
config.load({WEB!r}, path="everup.toml", directory="/srv")
print([name for name in sys.modules if name.startswith("everup.integrations") and "config" in name])
"""


def load(more: str = "") -> Any:
    return config.load(WEB + more, path="everup.toml", directory="/srv")


def test_what_a_file_does_not_have_is_not_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_table_that_is_left_out_has_its_defaults() -> None:
    found = load()
    assert found.route == {}
    assert found.nagios.heartbeat == 30.0
    assert found == load("[nagios]\n")
    assert found != load('[nagios]\nheartbeat = "31s"\n')
    assert getattr(found, "nothing", None) is None


def test_a_table_that_comes_or_goes_is_a_change() -> None:
    without: Spec = load()
    one: Spec = load('[nagios]\nheartbeat = "31s"\n[route.ops]\ncommand = ["page"]\n')
    for old, new in ((without, one), (one, without)):
        assert sorted(compare(old, new).settings) == ["nagios.heartbeat", "route.ops"]
    assert not compare(without, load("[nagios]\n")).settings
