"""Fixtures of the end-to-end tests."""

from _fixtures import everup, needs_root, open_everup

__all__ = ["everup", "needs_root", "open_everup"]
