"""Fixtures of the tests with real peers. ``make test-systems`` runs them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from _fixtures import everup, open_everup

__all__ = ["everup", "open_everup"]
