"""Probes: asks services over HTTP, TCP or a command whether they serve, on one event loop."""

from everup.adapters.probes._prober import Prober

__all__ = ["Prober"]
