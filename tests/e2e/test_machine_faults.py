"""Faults of the machine under everup: services go on serving, everup says what it cannot do, and
does it again once it can."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from _everup import Everup
from _faults import Client, Pair, fill, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / ".everup") as directory:
        yield directory


def test_disk_full(disk: Path, everup: Everup) -> None:
    pair = Pair(everup).up()
    with Client(pair.web_port):
        ballast = fill(disk)
        pair.crash()
        everup.wait_for(lambda: everup.status()["journal_degraded"], "journal_degraded is shown")
        print(everup.cli("stop", "lab", expect=None))
        print(everup.cli("start", "lab", expect=None))
        print(everup.cli("scale", "lab=2", expect=None))
        print(everup.cli("reload", expect=None))
        pair.kill_engine()
        print(everup.instances())
        ballast.unlink()
        e = everup.wait_event("journal.degraded")
        print(e)
        everup.fail("x")
