"""Tests of issues use what unit and end-to-end tests have."""

import sys
from pathlib import Path

for _kind in ("unit", "e2e"):
    sys.path.insert(0, str(Path(__file__).parents[1] / _kind))

from _fixtures import everup, needs_root, open_everup  # noqa: E402

__all__ = ["everup", "needs_root", "open_everup"]
