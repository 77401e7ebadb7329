"""Public doubles: the simulated world."""

from everup.testing.audit import Violation
from everup.testing.sim import SimWorld

__all__ = ["SimWorld", "Violation"]
