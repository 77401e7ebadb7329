"""What is going on: output as events and templates, series of numbers, pages of metrics."""

from typing import Final

from everup.kernel.manifest import Manifest

ROOM: Final = Manifest(
    name="monitor",
    doc="Keeps series of what services use and serve, and understands what they write.",
)
