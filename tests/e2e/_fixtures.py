"""Fixtures of the end-to-end tests, for those under tests/issues too."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from _everup import Everup

# A shell starts its background jobs with these ignored, and children inherit that: the tests mean
# programs that are started in the ordinary way.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


@pytest.fixture
def everup(tmp_path: Path) -> Iterator[Everup]:
    """An everup that is down when the test ends, whatever happened."""
    instance = Everup(tmp_path)
    try:
        yield instance
    finally:
        instance.close()


@pytest.fixture
def open_everup() -> Iterator[Everup]:
    """The same in a directory that every user may enter."""
    directory = Path(tempfile.mkdtemp(prefix="everup-e2e-"))
    directory.chmod(0o755)
    instance = Everup(directory)
    try:
        yield instance
    finally:
        try:
            instance.close()
        finally:
            shutil.rmtree(directory)
