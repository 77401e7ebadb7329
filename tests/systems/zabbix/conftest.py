"""One real Zabbix for all tests of this folder."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from _zabbix import Zabbix


@pytest.fixture(scope="session")
def zabbix() -> Iterator[Zabbix]:
    with tempfile.TemporaryDirectory(prefix="everup-zabbix-") as folder:
        os.chmod(folder, 0o755)  # PostgreSQL runs as another user
        it = Zabbix(Path(folder) / "zabbix")
        try:
            yield it.start()
        finally:
            it.stop()
